//! One flight: a fetch that many wait for.
//!
//! # Invariants
//!
//! 1. The outcome is set once and never changes.
//! 2. A waiter either sees the outcome or has its waker registered before the outcome is set, since
//!    both happen under the same lock; so nobody sleeps through it. The same holds for the flight's
//!    own task and the leaving of the last waiter.
//! 3. Wakers are called after the lock is released, and one that panics keeps no other from being
//!    called.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;

use super::sync::{Arc, Mutex, lock};
use crate::cache::current::Token;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::guard::guarded;
use crate::params::TokenParams;
use crate::source::FetchCause;

/// A fetch under way, shared by the task that flies it and by everybody who waits.
pub(crate) struct Flight {
    pub(crate) id: u64,
    pub(crate) cause: FetchCause,
    pub(crate) request: TokenParams,
    /// When its time limit ends, in nanoseconds of the boot clock.
    ///
    /// Relaxed, like the next one: a time for others to go by, with which no other memory is
    /// published. Who reads an old value judges a little too early or too late, which is what the
    /// graces are for.
    due: AtomicU64,
    /// When its task was last polled.
    polled: AtomicU64,
    /// When it was polled again after it had stood still.
    resumed: AtomicU64,
    /// Its task has ended, and with it its token request.
    gone: AtomicBool,
    goes: Notify,
    /// The flight of its kind that was given up before it, whose token request may still be under
    /// way.
    previous: Mutex<Option<Arc<Self>>>,
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    outcome: Option<Outcome>,
    waiters: Slab<Waker>,
    /// Somebody has waited, and nobody does any more.
    deserted: bool,
    /// The flight's own task.
    task: Option<Waker>,
}

/// How a flight ended, the same for all its waiters.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Token(Arc<Token>),
    Failed(Error),
    /// It ended without an answer; whoever still needs a token asks again.
    Lost,
}

impl Flight {
    pub(crate) fn new(
        id: u64,
        cause: FetchCause,
        request: TokenParams,
        due: Timestamp,
        previous: Option<Arc<Self>>,
    ) -> Self {
        // One that was never polled has made no token request, but the one before it may have.
        let previous = previous.map(|flight| {
            let before = lock(&flight.previous).take();
            before.unwrap_or(flight)
        });
        Self {
            id,
            cause,
            request,
            due: AtomicU64::new(due.as_nanos()),
            polled: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            goes: Notify::new(),
            previous: Mutex::new(previous),
            board: Mutex::new(Board::default()),
        }
    }

    /// Its task is polled for the first time: its time limit counts from now on.
    pub(crate) fn begins(&self, due: Timestamp) {
        self.due.store(due.as_nanos(), Ordering::Relaxed);
    }

    /// The time until it is overdue: until it should have ended by itself, and a little more, so
    /// that its own time limit comes first.
    pub(crate) fn time_left(&self, now: Timestamp) -> Duration {
        let due = Timestamp::from_nanos(self.due.load(Ordering::Relaxed));
        due.after(GRACE).since(now)
    }

    /// Its task is being polled. Returns whether it is to go on: nobody has given it up.
    pub(crate) fn is_polled(&self, now: Timestamp, task: &Waker) -> bool {
        let before = self.polled.swap(now.as_nanos(), Ordering::Relaxed);
        let span = now.since(Timestamp::from_nanos(before));
        if before > 0 && span > STILL {
            self.resumed.store(now.as_nanos(), Ordering::Relaxed);
        }
        let mut board = lock(&self.board);
        match &mut board.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        board.outcome.is_none()
    }

    /// Its task has ended.
    pub(crate) fn goes(&self) {
        // Release, for the acquire below: whoever sees it sees the token request dropped.
        self.gone.store(true, Ordering::Release);
        self.goes.notify_waiters();
    }

    /// Waits until the task of the flight before it has ended.
    pub(crate) async fn follows(&self) {
        let previous = lock(&self.previous).take();
        if let Some(previous) = previous {
            let goes = previous.goes.notified();
            if !previous.gone.load(Ordering::Acquire) {
                goes.await;
            }
        }
    }

    /// Whether its task has not been polled for so long.
    pub(crate) fn is_idle(&self, now: Timestamp, span: Duration) -> bool {
        let polled = Timestamp::from_nanos(self.polled.load(Ordering::Relaxed));
        now.since(polled) >= span
    }

    /// Since when its task has been polled without standing still, if it was at that time.
    pub(crate) fn driven_since(&self, then: Timestamp) -> Timestamp {
        then.max(Timestamp::from_nanos(self.resumed.load(Ordering::Relaxed)))
    }

    /// Whether its task stood still for so long, at some time since then, that its time limits mean
    /// nothing.
    pub(crate) fn stood_still_since(&self, then: Timestamp) -> bool {
        self.driven_since(then) > then
    }

    /// Sets the outcome, unless there is one, and wakes the waiters. Returns how many there were.
    ///
    /// The flight's own task is woken first: one that was given up is to drop its token request
    /// before a waiter makes the next one.
    pub(crate) fn finish(&self, outcome: Outcome) -> Option<usize> {
        let (task, waiters) = {
            let mut board = lock(&self.board);
            if board.outcome.is_some() {
                return None;
            }
            board.outcome = Some(outcome);
            (board.task.take(), std::mem::take(&mut board.waiters))
        };
        let count = waiters.len();
        if let Some(task) = task {
            guarded(|| task.wake());
        }
        for (_, waker) in waiters {
            guarded(|| waker.wake());
        }
        Some(count)
    }

    pub(crate) fn is_finished(&self) -> bool {
        lock(&self.board).outcome.is_some()
    }

    pub(crate) fn has_waiters(&self) -> bool {
        !lock(&self.board).waiters.is_empty()
    }

    /// Whether all who waited have left. The flight's own task is woken when they have.
    pub(crate) fn is_deserted(&self) -> bool {
        lock(&self.board).deserted
    }
}

/// A place among those who wait for a flight. Dropping it gives the place up and changes nothing for the others.
pub(crate) struct Waiter {
    flight: Arc<Flight>,
    place: Option<usize>,
}

impl Waiter {
    pub(crate) fn new(flight: Arc<Flight>) -> Self {
        Self {
            flight,
            place: None,
        }
    }

    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Outcome> {
        let mut board = lock(&self.flight.board);
        if let Some(outcome) = &board.outcome {
            self.place = None;
            return Poll::Ready(outcome.clone());
        }
        match self.place {
            Some(place) => board.waiters[place].clone_from(cx.waker()),
            None => {
                self.place = Some(board.waiters.insert(cx.waker().clone()));
                board.deserted = false;
            }
        }
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let (waker, task) = {
            let mut board = lock(&self.flight.board);
            // With an outcome the list was taken as a whole, and places mean nothing any more.
            let waker = match board.outcome {
                None => board.waiters.try_remove(place),
                Some(_) => None,
            };
            board.deserted = board.outcome.is_none() && board.waiters.is_empty();
            let task = if board.deserted {
                board.task.take()
            } else {
                None
            };
            (waker, task)
        };
        // Outside the lock: a waker's drop may run anything, even another waiter's drop.
        drop(waker);
        if let Some(task) = task {
            guarded(|| task.wake());
        }
    }
}

/// How often the task is polled at the least, where it is driven.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// A task that was not polled for longer has stood still.
const STILL: Duration = LOOK.saturating_mul(2);

/// How much later than a flight's own time limit others take it for lost.
const GRACE: Duration = Duration::from_millis(500);

#[cfg(all(test, not(model)))]
mod tests {
    use tokio_test::task;

    use super::*;

    fn flight() -> Arc<Flight> {
        after(None)
    }

    fn after(previous: Option<Arc<Flight>>) -> Arc<Flight> {
        let (cause, request) = (FetchCause::NoToken, TokenParams::new());
        Arc::new(Flight::new(1, cause, request, Timestamp::MAX, previous))
    }

    #[test]
    fn a_waiter_that_moves_to_another_task_is_woken_there() {
        let flight = flight();
        let mut waiter = Waiter::new(Arc::clone(&flight));
        let [mut first, mut second] = [(), ()].map(task::spawn);
        assert!(first.enter(|cx, _| waiter.poll(cx)).is_pending());
        assert!(second.enter(|cx, _| waiter.poll(cx)).is_pending());
        assert_eq!(flight.finish(Outcome::Lost), Some(1));
        assert!(second.is_woken() && !first.is_woken());
    }

    // FC1
    #[test]
    fn flights_that_were_given_up_unpolled_are_not_kept_by_those_after_them() {
        let first = flight();
        let second = after(Some(Arc::clone(&first)));
        let left = Arc::downgrade(&second);
        let mut last = after(Some(second));
        assert!(left.upgrade().is_none() && Arc::strong_count(&first) == 2);
        // Each would be dropped by the one after it, down to the end of the stack.
        for _ in 0..100_000 {
            last = after(Some(last));
        }
        assert_eq!(Arc::strong_count(&first), 2);
    }

    #[test]
    fn a_waiter_that_leaves_takes_its_waker_along() {
        let flight = flight();
        let mut task = task::spawn(());
        let mut stays = Waiter::new(Arc::clone(&flight));
        let mut leaves = Waiter::new(Arc::clone(&flight));
        assert!(task.enter(|cx, _| stays.poll(cx)).is_pending());
        assert!(task.enter(|cx, _| leaves.poll(cx)).is_pending());
        drop(leaves);
        assert!(flight.has_waiters() && !flight.is_deserted());
        drop(stays);
        assert!(!flight.has_waiters() && flight.is_deserted());
        assert_eq!(flight.finish(Outcome::Lost), Some(0));
    }
}
