//! The seam for the model checker: everything that flights and the cache share across threads comes from here.

pub(crate) use std::sync::Arc;

#[cfg(not(model))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(model)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Locks, also after a panic elsewhere: every critical section leaves its data consistent at each statement that can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The token that the cached path reads without a lock.
pub(crate) use self::current::Current;

#[cfg(not(model))]
mod current {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, LazyLock};
    use std::thread;

    use arc_swap::ArcSwapOption;

    use crate::cache::current::Token;

    /// One place for each thread that may run at once, each with a copy of the token: threads that share one contend for the
    /// cache lines of its reference counts.
    pub(crate) struct Current(Box<[Place]>);

    /// Two cache lines, since processors fetch them in pairs.
    #[derive(Default)]
    #[repr(align(128))]
    struct Place(ArcSwapOption<Token>);

    impl Default for Current {
        fn default() -> Self {
            Self((0..*PLACES).map(|_| Place::default()).collect())
        }
    }

    impl Current {
        /// Threads see the new token one after the other, each at once in its own place.
        pub(crate) fn set(&self, token: Option<Arc<Token>>) {
            for place in &self.0 {
                let copy = token.as_ref().map(|token| Arc::new(token.copy()));
                place.0.store(copy);
            }
        }

        /// The token, if `accept` takes it. The reference count is touched only then.
        #[inline]
        pub(crate) fn get_if(&self, accept: impl FnOnce(&Token) -> bool) -> Option<Arc<Token>> {
            let place = SEAT.with(|seat| seat & (self.0.len() - 1));
            let guard = self.0[place].0.load();
            let token = guard.as_ref()?;
            accept(token).then(|| Arc::clone(token))
        }
    }

    thread_local! {
        static SEAT: usize = SEATS.fetch_add(1, Ordering::Relaxed);
    }

    /// Relaxed: neighbouring threads get different numbers, and nothing else is ordered by it.
    static SEATS: AtomicUsize = AtomicUsize::new(0);

    /// A power of two, so that a place is found without a division.
    static PLACES: LazyLock<usize> = LazyLock::new(|| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        threads.next_power_of_two().min(MAX_PLACES)
    });

    /// More threads than this share places: a copy for each costs more memory than contention costs time.
    const MAX_PLACES: usize = 64;

    #[cfg(test)]
    mod tests {
        use std::sync::Weak;
        use std::time::Duration;

        use super::*;
        use crate::cache::CachePolicy;
        use crate::cache::lifetime::Schedule;
        use crate::clock::Timestamp;
        use crate::params::TokenParams;
        use crate::token::TokenResponse;

        fn token() -> Arc<Token> {
            let now = Timestamp::from_nanos(1);
            let life = Some(Duration::from_secs(3600));
            let schedule = Schedule::new(&CachePolicy::default(), now, now, life, None, 0.0);
            Arc::new(Token::new(
                &TokenResponse::new("a-token").expect("a token").value,
                1,
                1,
                schedule,
                TokenParams::new(),
                Weak::new(),
                Arc::from([]),
            ))
        }

        #[test]
        fn places_hold_copies_that_share_nothing_but_how_long_the_token_is_free() {
            let current = Current((0..4).map(|_| Place::default()).collect());
            let token = token();
            current.set(Some(Arc::clone(&token)));
            let copies: Vec<_> = current.0.iter().map(|place| place.0.load_full()).collect();
            for (n, copy) in copies.iter().flatten().enumerate() {
                assert!(copy.same_value(&token) && copy.generation == token.generation);
                assert!(copy.header().is_sensitive());
                for other in copies[..n].iter().flatten().chain([&token]) {
                    let [bytes, others] = [copy, other].map(|token| token.header().as_bytes());
                    assert_ne!(bytes.as_ptr(), others.as_ptr());
                }
                token.set_free_until(Timestamp::from_nanos(10));
                assert!(copy.is_free(Timestamp::from_nanos(9)));
                token.set_free_until(Timestamp::ZERO);
                assert!(!copy.is_free(Timestamp::from_nanos(9)));
            }
            assert_eq!(copies.iter().flatten().count(), 4);
        }

        #[test]
        fn a_thread_keeps_its_place_and_the_next_one_has_another() {
            let seat = || SEAT.with(|seat| *seat);
            let mine = seat();
            assert_eq!(mine, seat());
            let others = thread::spawn(move || [seat(), seat()]);
            let [first, second] = others.join().expect("it does not panic");
            assert_eq!(first, second);
            assert_ne!(first, mine);
        }
    }
}

/// The model checker does not see through `arc-swap`, which has its own models; a locked cell has the same contract.
#[cfg(model)]
mod current {
    use std::sync::Arc;

    use super::{Mutex, lock};
    use crate::cache::current::Token;

    pub(crate) struct Current(Mutex<Option<Arc<Token>>>);

    impl Default for Current {
        fn default() -> Self {
            Self(Mutex::new(None))
        }
    }

    impl Current {
        pub(crate) fn set(&self, token: Option<Arc<Token>>) {
            *lock(&self.0) = token;
        }

        pub(crate) fn get_if(&self, accept: impl FnOnce(&Token) -> bool) -> Option<Arc<Token>> {
            lock(&self.0).clone().filter(|token| accept(token))
        }
    }
}
