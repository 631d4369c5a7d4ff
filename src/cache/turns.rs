//! Which flights may make token requests: so many at once, in the order in which they came (the
//! 64 of rule R15).
//!
//! # Invariants
//!
//! 1. A turn is never handed over. It is free or taken, and whoever is polled while one is free
//!    takes it; so none is held by a flight in a queue that nobody polls.
//! 2. A free turn is offered to the first of the queue that is driven, which is woken, and kept for
//!    it for [`LEASE`]; then it is anybody's.
//! 3. A flight that was not polled for [`LEASE`] has lost its turn: its runtime is not driven. It
//!    may end the attempt that it has begun, and needs a turn for another.
//!
//! Rules: R6, R15.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::waiters::Flight;
use crate::clock::Timestamp;
use crate::guard::guarded;
use crate::sync::{Mutex, lock};

/// The turns of all flights but those of the layer's own parameters, which need none.
pub(super) struct Turns {
    max: usize,
    inner: Mutex<Inner>,
}

/// By the flights' numbers, so that a queue is in the order of launch.
#[derive(Default)]
struct Inner {
    taken: HashMap<u64, Arc<Flight>>,
    queue: BTreeMap<u64, (Arc<Flight>, Waker)>,
    offers: HashMap<u64, Timestamp>,
}

impl Turns {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Takes a turn, or joins the queue for one.
    ///
    /// `judge` says that the caller has been polled in time lately, so that a flight which has not
    /// been has only its own runtime to blame, and not a process that was frozen as a whole.
    pub(super) fn poll(
        &self,
        flight: &Arc<Flight>,
        now: Timestamp,
        judge: bool,
        waker: &Waker,
    ) -> Poll<()> {
        let mut inner = lock(&self.inner);
        if judge {
            inner.taken.retain(|_, flight| !flight.is_idle(now, LEASE));
            inner.offers.retain(|_, since| now < since.after(LEASE));
        }
        let offered = inner.offers.contains_key(&flight.id);
        let kept = inner.offers.len() - usize::from(offered);
        if inner.taken.contains_key(&flight.id) || inner.taken.len() + kept < self.max {
            inner.queue.remove(&flight.id);
            inner.offers.remove(&flight.id);
            inner.taken.insert(flight.id, Arc::clone(flight));
            return Poll::Ready(());
        }
        let place = (Arc::clone(flight), waker.clone());
        inner.queue.insert(flight.id, place);
        Poll::Pending
    }

    /// The flight has ended or was given up: it frees its turn, or its place in the queue.
    pub(super) fn release(&self, flight: u64, now: Timestamp) {
        let next = {
            let mut inner = lock(&self.inner);
            inner.taken.remove(&flight);
            inner.offers.remove(&flight);
            inner.queue.remove(&flight);
            if inner.taken.len() + inner.offers.len() < self.max {
                inner.offer(now)
            } else {
                None
            }
        };
        // Outside the lock: a waker may run anything.
        if let Some(next) = next {
            guarded(|| next.wake());
        }
    }
}

impl Inner {
    /// Whoever is not driven leaves the queue, and joins it again in its old place when it is.
    fn offer(&mut self, now: Timestamp) -> Option<Waker> {
        while let Some((id, (flight, waker))) = self.queue.pop_first() {
            if !flight.is_idle(now, LEASE) {
                self.offers.insert(id, now);
                return Some(waker);
            }
        }
        None
    }
}

/// For how long a flight that is not polled keeps its turn, and an offer stands.
pub(super) const LEASE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use futures_util::task::{ArcWake, waker};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::params::TokenParams;
    use crate::source::FetchCause;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flight(id: u64) -> Arc<Flight> {
        let (cause, params) = (FetchCause::NoToken, TokenParams::new());
        let flight = Flight::new(id, cause, params, None, Timestamp::MAX, None);
        flight.note_poll(NOW, Waker::noop());
        Arc::new(flight)
    }

    fn after(millis: u64) -> Timestamp {
        NOW.after(Duration::from_millis(millis))
    }

    #[test]
    fn a_freed_turn_is_kept_for_the_first_of_the_queue_and_then_anybodys() {
        let turns = Turns::new(1);
        let [first, second, third, fourth] = [1, 2, 3, 4].map(flight);
        let told = Arc::new(Woken::default());
        let noop = Waker::noop();
        assert!(turns.poll(&first, NOW, true, noop).is_ready());
        assert!(
            turns
                .poll(&second, NOW, true, &waker(Arc::clone(&told)))
                .is_pending()
        );
        assert!(turns.poll(&third, NOW, true, noop).is_pending());

        turns.release(1, NOW);
        assert_eq!(told.0.load(Ordering::SeqCst), 1);
        assert!(
            turns.poll(&fourth, after(1), true, noop).is_pending(),
            "it is kept"
        );
        assert!(turns.poll(&third, after(1999), true, noop).is_pending());
        assert!(
            turns.poll(&third, after(2000), false, noop).is_pending(),
            "no judge"
        );
        third.note_poll(after(2000), noop);
        assert!(turns.poll(&third, after(2000), true, noop).is_ready());
        assert!(turns.poll(&second, after(2001), true, noop).is_pending());
    }

    #[test]
    fn a_flight_that_is_not_polled_loses_its_turn_to_one_that_is() {
        let turns = Turns::new(2);
        let [idle, driven, third, fourth] = [1, 2, 3, 4].map(flight);
        let noop = Waker::noop();
        assert!(turns.poll(&idle, NOW, true, noop).is_ready());
        assert!(turns.poll(&driven, NOW, true, noop).is_ready());
        driven.note_poll(after(1500), noop);
        assert!(turns.poll(&third, after(1999), true, noop).is_pending());
        third.note_poll(after(2000), noop);
        assert!(turns.poll(&third, after(2000), true, noop).is_ready());
        assert!(turns.poll(&fourth, after(2000), true, noop).is_pending());
        assert!(
            turns.poll(&idle, after(2000), true, noop).is_pending(),
            "lost"
        );
    }

    #[test]
    fn who_leaves_the_queue_frees_its_place_and_no_turn() {
        let turns = Turns::new(1);
        let [first, second, third] = [1, 2, 3].map(flight);
        let noop = Waker::noop();
        assert!(turns.poll(&first, NOW, true, noop).is_ready());
        assert!(turns.poll(&second, NOW, true, noop).is_pending());
        turns.release(2, NOW);
        assert!(turns.poll(&third, NOW, true, noop).is_pending());
        turns.release(1, NOW);
        assert!(turns.poll(&third, NOW, true, noop).is_ready());
    }
}
