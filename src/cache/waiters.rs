//! A flight as threads share it: who waits for it, its outcome, and whether its task is driven.
//!
//! # Invariants
//!
//! 1. The outcome is set once and never changes.
//! 2. A waiter either sees the outcome or has its waker registered before the outcome is set, since
//!    both happen under the same lock; so nobody sleeps through it. The same holds for the flight's
//!    own task and the leaving of the last waiter.
//! 3. Wakers are called after the lock is released, and one that panics keeps no other from being
//!    called. That is why the list is ours: tokio's `watch` and `Notify` drop the wakers that come
//!    after one that panics.
//!
//! Rules: R6, R8.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;

use super::current::Token;
use super::machine;
use crate::clock::Timestamp;
use crate::guard::guarded;
use crate::params::TokenParams;
use crate::source::FetchCause;
use crate::sync::{Mutex, lock};
use crate::token::AccessToken;

/// How a flight ended, the same for all its waiters.
pub(crate) type Outcome = machine::Outcome<Arc<Token>>;

/// A fetch under way, shared by its task and by everybody who waits.
pub(crate) struct Flight {
    pub(crate) id: u64,
    pub(crate) cause: FetchCause,
    pub(crate) params: TokenParams,
    /// The token that it is to replace, if an API refused that.
    pub(super) refused: Option<AccessToken>,
    /// When its time limit ends, in nanoseconds of the boot clock.
    ///
    /// Relaxed, like the next two: a time for others to go by, with which no other memory is
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
    /// The flight before it, if that was given up: its token request may still be under way.
    previous: Mutex<Option<Arc<Self>>>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    outcome: Option<Outcome>,
    wakers: Slab<Waker>,
    /// Somebody has waited, and nobody does any more.
    deserted: bool,
    /// The flight's own task.
    task: Option<Waker>,
}

impl Flight {
    pub(crate) fn new(
        id: u64,
        cause: FetchCause,
        params: TokenParams,
        refused: Option<AccessToken>,
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
            params,
            refused,
            due: AtomicU64::new(due.as_nanos()),
            polled: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            goes: Notify::new(),
            previous: Mutex::new(previous),
            waiting: Mutex::default(),
        }
    }

    /// Its task is polled for the first time: its time limit counts from now on.
    pub(super) fn restart_limit(&self, due: Timestamp) {
        self.due.store(due.as_nanos(), Ordering::Relaxed);
    }

    /// The time until it is overdue: until it should have ended by itself, and a little more, so
    /// that its own time limit comes first.
    pub(super) fn time_left(&self, now: Timestamp) -> Duration {
        let due = Timestamp::from_nanos(self.due.load(Ordering::Relaxed));
        due.after(GRACE).since(now)
    }

    /// Its task is being polled. Returns whether it is to go on: nobody has given it up.
    pub(super) fn note_poll(&self, now: Timestamp, task: &Waker) -> bool {
        let before = self.polled.swap(now.as_nanos(), Ordering::Relaxed);
        let span = now.since(Timestamp::from_nanos(before));
        if before > 0 && span > STILL {
            self.resumed.store(now.as_nanos(), Ordering::Relaxed);
        }
        let mut waiting = lock(&self.waiting);
        match &mut waiting.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        waiting.outcome.is_none()
    }

    /// Its task has ended.
    pub(super) fn task_ended(&self) {
        // Release, for the acquire below: whoever sees it sees the token request dropped.
        self.gone.store(true, Ordering::Release);
        self.goes.notify_waiters();
    }

    /// Waits until the task of the flight before it has ended.
    pub(super) async fn wait_for_previous(&self) {
        let previous = lock(&self.previous).take();
        if let Some(previous) = previous {
            let goes = previous.goes.notified();
            if !previous.gone.load(Ordering::Acquire) {
                goes.await;
            }
        }
    }

    /// Whether its task has not been polled for so long.
    pub(super) fn is_idle(&self, now: Timestamp, span: Duration) -> bool {
        let polled = Timestamp::from_nanos(self.polled.load(Ordering::Relaxed));
        now.since(polled) >= span
    }

    /// Since when its task has been polled without standing still, if it was at that time.
    pub(super) fn driven_since(&self, then: Timestamp) -> Timestamp {
        then.max(Timestamp::from_nanos(self.resumed.load(Ordering::Relaxed)))
    }

    /// Whether its task stood still for so long, at some time since then, that its time limits mean
    /// nothing.
    pub(super) fn stood_still_since(&self, then: Timestamp) -> bool {
        self.driven_since(then) > then
    }

    /// Sets the outcome, unless there is one, and wakes the waiters. Returns whether it was set.
    ///
    /// The flight's own task is woken first: one that was given up is to drop its token request
    /// before a waiter makes the next one.
    pub(crate) fn finish(&self, outcome: Outcome) -> bool {
        let (task, wakers) = {
            let mut waiting = lock(&self.waiting);
            if waiting.outcome.is_some() {
                return false;
            }
            waiting.outcome = Some(outcome);
            (waiting.task.take(), mem::take(&mut waiting.wakers))
        };
        let wakers = wakers.into_iter().map(|(_, waker)| waker);
        for waker in task.into_iter().chain(wakers) {
            guarded(|| waker.wake());
        }
        true
    }

    pub(crate) fn is_finished(&self) -> bool {
        lock(&self.waiting).outcome.is_some()
    }

    pub(super) fn has_waiters(&self) -> bool {
        !lock(&self.waiting).wakers.is_empty()
    }

    /// Whether all who waited have left. The flight's own task is woken when they have.
    pub(super) fn is_deserted(&self) -> bool {
        lock(&self.waiting).deserted
    }
}

/// A place among those who wait for a flight. Dropping it gives the place up and changes nothing
/// for the others.
pub(crate) struct Waiter {
    pub(super) flight: Arc<Flight>,
    place: Option<usize>,
}

impl Waiter {
    pub(crate) fn new(flight: Arc<Flight>) -> Self {
        Self {
            flight,
            place: None,
        }
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Outcome> {
        // What it replaces is dropped after the lock is released, as in `drop`.
        let mut waker = cx.waker().clone();
        let mut waiting = lock(&self.flight.waiting);
        if let Some(outcome) = &waiting.outcome {
            self.place = None;
            return Poll::Ready(outcome.clone());
        }
        match self.place {
            Some(place) => mem::swap(&mut waiting.wakers[place], &mut waker),
            None => {
                self.place = Some(waiting.wakers.insert(waker));
                waiting.deserted = false;
                return Poll::Pending;
            }
        }
        drop(waiting);
        drop(waker);
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let (waker, task) = {
            let mut waiting = lock(&self.flight.waiting);
            // With an outcome the list was taken as a whole, and places mean nothing any more.
            if waiting.outcome.is_some() {
                return;
            }
            let waker = waiting.wakers.try_remove(place);
            waiting.deserted = waiting.wakers.is_empty();
            let task = if waiting.deserted {
                waiting.task.take()
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
pub(super) const TICK: Duration = Duration::from_millis(500);

/// A task that was not polled for longer has stood still.
const STILL: Duration = TICK.saturating_mul(2);

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
        let params = TokenParams::new();
        let cause = FetchCause::NoToken;
        let flight = Flight::new(1, cause, params, None, Timestamp::MAX, previous);
        Arc::new(flight)
    }

    #[test]
    fn a_waiter_that_moves_to_another_task_is_woken_there() {
        let flight = flight();
        let mut waiter = Waiter::new(Arc::clone(&flight));
        let [mut first, mut second] = [(), ()].map(task::spawn);
        assert!(first.enter(|cx, _| waiter.poll(cx)).is_pending());
        assert!(second.enter(|cx, _| waiter.poll(cx)).is_pending());
        assert!(flight.finish(Outcome::Lost));
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
        assert!(flight.finish(Outcome::Lost));
    }
}
