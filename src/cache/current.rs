//! What readers see of the layer's own token without a lock: [`Current::set`] and [`Reader::get`].
//!
//! The token in force is an immutable snapshot with the time until which it may be used without
//! asking. Whatever changes either puts another snapshot in its place, so nothing is written that
//! somebody else is reading.
//!
//! There is one place for each thread that may run at once, and each holds a copy with header bytes
//! of its own. Threads that share one contend for the count of those bytes, which every request
//! raises and lowers: with copies two threads do 0.93 to 1.02 of what each does alone, with one
//! shared header 0.68 to 0.81 (`benches/scaling.rs`, two cores).
//!
//! Rules: R4, R18.

use std::fmt;
use std::sync::{Arc, Weak};

use http::{HeaderValue, StatusCode};

use super::machine::Refusal;
use crate::clock::Timestamp;
use crate::params::TokenParams;
use crate::sync::{Mutex, lock};
use crate::token::AccessToken;

#[cfg(model)]
pub(crate) use self::model::{Places, Reader};
#[cfg(not(model))]
pub(crate) use self::places::{Places, Reader};

/// The layer's own token, as it was published last.
#[derive(Default)]
pub(crate) struct Current {
    places: Places,
    published: Mutex<Option<(Arc<Token>, Timestamp)>>,
}

impl Current {
    /// Publishes the token that is in force, and until when it may be used without asking. Called
    /// under the lock of the state, so that what readers see never goes back to an older token.
    pub(super) fn set(&self, free: Option<(&Arc<Token>, Timestamp)>) {
        let free = free.filter(|(_, until)| *until > Timestamp::ZERO);
        let mut published = lock(&self.published);
        let known = published.as_ref().map(|(token, until)| (token, *until));
        let is_known = match (free, known) {
            (Some((token, until)), Some((known, since))) => {
                Arc::ptr_eq(token, known) && until == since
            }
            (free, known) => free.is_none() && known.is_none(),
        };
        if !is_known {
            self.places.set(free);
            *published = free.map(|(token, until)| (Arc::clone(token), until));
        }
    }
}

/// A token as requests carry it.
#[derive(Clone)]
pub(crate) struct Token {
    /// `Bearer …`, made once, marked sensitive; its clones share the bytes.
    pub(crate) header: HeaderValue,
    pub(crate) generation: u64,
    pub(crate) params: TokenParams,
    pub(crate) end: Timestamp,
    /// In a snapshot, until when it may be used without asking.
    pub(crate) free_until: Timestamp,
    /// Statuses that the user treats like 401.
    pub(crate) unauthorized: Arc<[StatusCode]>,
    /// Whom to tell of a 401. Weak, since the cache holds the token.
    pub(crate) cache: Weak<dyn Refused>,
}

/// Is told that an API at `origin` refused a token.
pub(crate) trait Refused: Send + Sync {
    fn refused(&self, token: &Token, origin: u64) -> Refusal;
}

impl Token {
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        now < self.end
    }

    /// The token as it is handed out.
    pub(super) fn access_token(&self, now: Timestamp) -> AccessToken {
        let remaining = self.end.since(now);
        AccessToken::new(self.header.clone(), self.generation, remaining)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

#[cfg(not(model))]
mod places {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::sync::{Arc, LazyLock};
    use std::thread;

    use arc_swap::ArcSwapOption;

    use super::{Current, Token};
    use crate::clock::Timestamp;
    use crate::token::copy_header;

    pub(crate) struct Places {
        version: Version,
        /// A power of two of places, so that one is found without a division.
        places: Box<[Place]>,
    }

    /// Counts the snapshots. Written after all places with `Release`, and read before any with
    /// `Acquire`: whoever sees a number sees that snapshot or a later one. All threads share it,
    /// since it is only read until there is another snapshot; nothing that is written more often is
    /// near.
    #[repr(align(128))]
    struct Version(AtomicU64);

    /// Two cache lines, since processors fetch them in pairs.
    #[repr(align(128))]
    struct Place {
        token: ArcSwapOption<Token>,
    }

    impl Default for Places {
        fn default() -> Self {
            let place = |_| Place {
                token: ArcSwapOption::empty(),
            };
            Self {
                version: Version(AtomicU64::new(1)),
                places: (0..*PLACES).map(place).collect(),
            }
        }
    }

    impl Places {
        /// Readers that look see the new snapshot one after the other; all see it when this is
        /// done.
        pub(crate) fn set(&self, token: Option<(&Arc<Token>, Timestamp)>) {
            for place in &self.places {
                let copy = token.map(|(token, free_until)| {
                    let header = copy_header(&token.header);
                    Arc::new(Token {
                        header,
                        free_until,
                        ..Token::clone(token)
                    })
                });
                place.token.store(copy);
            }
            self.version.0.fetch_add(1, Ordering::Release);
        }

        fn place(&self, seat: usize) -> &Place {
            &self.places[seat & (self.places.len() - 1)]
        }
    }

    /// A reader's note of the snapshot in its place. It is good while its number is the one in
    /// place.
    #[derive(Default)]
    pub(crate) struct Reader {
        seat: usize,
        /// Zero before the first look.
        version: u64,
        token: Option<Arc<Token>>,
    }

    impl Reader {
        /// The token, if it may be used without asking.
        #[inline(always)]
        pub(crate) fn get(&mut self, current: &Current, now: Timestamp) -> Option<&Arc<Token>> {
            if current.places.version.0.load(Ordering::Acquire) != self.version {
                self.look(current);
            }
            let token = self.token.as_ref()?;
            (now < token.free_until).then_some(token)
        }

        /// The first look takes the place of the thread that reads.
        #[cold]
        #[inline(never)]
        fn look(&mut self, current: &Current) {
            if self.version == 0 {
                self.seat = SEAT.with(|seat| *seat);
            }
            self.version = current.places.version.0.load(Ordering::Acquire);
            self.token = current.places.place(self.seat).token.load_full();
        }
    }

    thread_local! {
        static SEAT: usize = SEATS.fetch_add(1, Ordering::Relaxed);
    }

    /// Relaxed: neighbouring threads get different numbers, and nothing else is ordered by it.
    static SEATS: AtomicUsize = AtomicUsize::new(0);

    static PLACES: LazyLock<usize> = LazyLock::new(|| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        threads.next_power_of_two().min(MAX_PLACES)
    });

    /// More threads than this share places: a copy for each costs more memory than contention costs
    /// time.
    const MAX_PLACES: usize = 64;

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::cache::machine::Refusal;
        use crate::params::TokenParams;
        use crate::token::TokenResponse;

        struct Nobody;

        impl super::super::Refused for Nobody {
            fn refused(&self, _: &Token, _: u64) -> Refusal {
                Refusal::Known
            }
        }

        fn token() -> Arc<Token> {
            let value = TokenResponse::new("a-token").expect("a token").value;
            Arc::new(Token {
                header: value.header().clone(),
                generation: 1,
                params: TokenParams::new(),
                end: Timestamp::MAX,
                free_until: Timestamp::ZERO,
                unauthorized: Arc::from([]),
                cache: std::sync::Weak::<Nobody>::new(),
            })
        }

        #[test]
        fn places_hold_copies_that_share_no_bytes() {
            let current = Places::default();
            let token = token();
            current.set(Some((&token, Timestamp::from_nanos(10))));
            let copies: Vec<_> = current
                .places
                .iter()
                .map(|place| place.token.load_full())
                .collect();
            for (n, copy) in copies.iter().flatten().enumerate() {
                assert!(copy.header == token.header && copy.generation == token.generation);
                assert!(copy.header.is_sensitive());
                for other in copies[..n].iter().flatten().chain([&token]) {
                    let [bytes, others] = [copy, other].map(|token| token.header.as_bytes());
                    assert_ne!(bytes.as_ptr(), others.as_ptr());
                }
            }
            assert_eq!(copies.iter().flatten().count(), current.places.len());
        }

        #[test]
        fn a_reader_uses_a_snapshot_until_its_time_is_up_or_another_one_is_in_its_place() {
            let at = Timestamp::from_nanos;
            let current = Current::default();
            let mut reader = Reader::default();
            let token = token();
            assert!(reader.get(&current, at(1)).is_none());
            current.set(Some((&token, at(10))));
            assert!(reader.get(&current, at(9)).is_some());
            assert!(reader.get(&current, at(10)).is_none());
            current.set(Some((&token, at(20))));
            assert!(reader.get(&current, at(10)).is_some());
            current.set(None);
            assert!(reader.get(&current, at(10)).is_none());
        }

        // R18
        #[test]
        fn readers_in_every_place_see_a_change_at_their_next_look() {
            let now = Timestamp::from_nanos(1);
            let current = Current::default();
            current.set(Some((&token(), Timestamp::MAX)));
            let first_look = || {
                let mut reader = Reader::default();
                assert!(reader.get(&current, now).is_some());
                reader
            };
            // A thread takes the next place, so these are in all of them.
            let mut readers: Vec<Reader> = thread::scope(|scope| {
                let threads: Vec<_> = (0..*PLACES).map(|_| scope.spawn(first_look)).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().expect("a reader"))
                    .collect()
            });
            current.set(None);
            assert!(
                readers
                    .iter_mut()
                    .all(|reader| reader.get(&current, now).is_none())
            );
            current.set(Some((&token(), Timestamp::MAX)));
            assert!(
                readers
                    .iter_mut()
                    .all(|reader| reader.get(&current, now).is_some())
            );
        }

        // R18. The model checker has a locked cell in place of this code.
        #[test]
        fn a_reader_that_looks_while_tokens_change_never_keeps_an_older_one() {
            const CHANGES: u64 = 100_000;
            let current = Current::default();
            let changed = AtomicU64::new(0);
            let first = token();
            thread::scope(|scope| {
                scope.spawn(|| {
                    for generation in 1..=CHANGES {
                        let token = Token {
                            generation,
                            ..Token::clone(&first)
                        };
                        current.set(Some((&Arc::new(token), Timestamp::MAX)));
                        changed.store(generation, Ordering::Release);
                    }
                });
                let mut reader = Reader::default();
                loop {
                    let before = changed.load(Ordering::Acquire);
                    let token = reader.get(&current, Timestamp::ZERO);
                    assert!(token.map_or(0, |token| token.generation) >= before);
                    if before == CHANGES {
                        break;
                    }
                }
            });
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

/// The model checker does not see through `arc-swap`, which has its own models; a locked cell has
/// the same contract.
#[cfg(model)]
mod model {
    use std::sync::Arc;

    use super::{Current, Token};
    use crate::clock::Timestamp;
    use crate::sync::{Mutex, lock};

    pub(crate) struct Places(Mutex<Option<Arc<Token>>>);

    impl Default for Places {
        fn default() -> Self {
            Self(Mutex::new(None))
        }
    }

    impl Places {
        pub(crate) fn set(&self, token: Option<(&Arc<Token>, Timestamp)>) {
            *lock(&self.0) = token.map(|(token, free_until)| {
                Arc::new(Token {
                    free_until,
                    ..Token::clone(token)
                })
            });
        }
    }

    #[derive(Default)]
    pub(crate) struct Reader(Option<Arc<Token>>);

    impl Reader {
        pub(crate) fn get(&mut self, current: &Current, now: Timestamp) -> Option<&Arc<Token>> {
            self.0.clone_from(&lock(&current.places.0));
            self.0.as_ref().filter(|token| now < token.free_until)
        }
    }
}
