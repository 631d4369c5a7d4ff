//! What all clones of a layer share: the state machine behind a lock, and the token in force outside of it.

mod landing;

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::decision::{Decision, Fallback, Plan, Refusal};
use super::fetch;
use super::flight::Flight;
use super::policy::RefreshPolicy;
use super::state::State;
use super::sync::{Arc, Current, Mutex, lock};
use crate::error::Error;
use crate::grant::{TokenRequest, TokenSource};
use crate::observe::{Event, Watch};
use crate::token::{Clock, Timestamp, Token};

/// The shell around [`State`]: it reads the clock, draws the jitter, launches flights and tells the observer.
///
/// The lock is held for a few lines and never while anything is awaited, spawned, woken or observed.
pub(crate) struct Cache {
    pub(super) source: Arc<dyn TokenSource>,
    pub(super) policy: RefreshPolicy,
    pub(super) permits: Semaphore,
    pub(super) attempts: AtomicU64,
    pub(crate) clock: Clock,
    pub(crate) watch: Watch,
    own: TokenRequest,
    refusals: Arc<[StatusCode]>,
    current: Current,
    state: Mutex<State<Arc<Flight>>>,
    itself: Weak<Self>,
}

pub(crate) struct CacheConfig {
    pub(crate) policy: RefreshPolicy,
    pub(crate) own: TokenRequest,
    pub(crate) refusals: Arc<[StatusCode]>,
    pub(crate) clock: Clock,
    pub(crate) watch: Watch,
}

impl Cache {
    pub(crate) fn new(source: Arc<dyn TokenSource>, config: CacheConfig) -> Arc<Self> {
        let CacheConfig {
            policy,
            own,
            refusals,
            clock,
            watch,
        } = config;
        Arc::new_cyclic(|itself| Self {
            source,
            permits: Semaphore::new(policy.max_flights),
            attempts: AtomicU64::new(0),
            clock,
            watch,
            own: own.clone(),
            refusals,
            current: Current::default(),
            state: Mutex::new(State::new(policy.clone(), own)),
            policy,
            itself: Weak::clone(itself),
        })
    }

    /// The layer's own kind of token.
    pub(crate) fn own(&self) -> &TokenRequest {
        &self.own
    }

    /// The cached path: the layer's own token, if it may be used without asking the state machine. No lock, no allocation.
    ///
    /// `last` is the caller's note of what it was given last. A token that is no longer in force is not free, so the note
    /// needs no other check.
    #[inline(always)]
    pub(crate) fn free_token(&self, last: &mut Option<Arc<Token>>) -> Option<Arc<Token>> {
        let now = self.clock.now();
        if !last.as_ref().is_some_and(|token| token.is_free(now)) {
            *last = self.current.get_if(|token| token.is_free(now));
        }
        last.clone()
    }

    /// The same for another kind of token: one look-up under the lock.
    pub(crate) fn free_token_for(&self, request: &TokenRequest) -> Option<Arc<Token>> {
        let now = self.clock.now();
        lock(&self.state).free_token(request, now)
    }

    /// Decides for one caller, and launches the flight it may need on the caller's runtime.
    pub(super) fn call(
        self: &Arc<Self>,
        request: &TokenRequest,
        newer_than: Option<u64>,
    ) -> Decision<Arc<Flight>> {
        let now = self.clock.now();
        let can_change = self.source.credentials_can_change();
        let depart = |Plan { id, cause }| {
            let deadline = now.after(self.policy.flight_timeout);
            Arc::new(Flight::new(id, cause, request.clone(), deadline))
        };
        let decision = lock(&self.state).call(request, now, newer_than, can_change, depart);
        match (decision, Handle::try_current()) {
            (Decision::Serve { token, launch }, runtime) => {
                if let Some(flight) = launch {
                    match runtime {
                        Ok(runtime) => fetch::launch(Arc::clone(self), flight, &runtime),
                        Err(_) => self.lose(&flight),
                    }
                }
                Decision::Serve {
                    token,
                    launch: None,
                }
            }
            (
                Decision::Wait {
                    flight,
                    launch,
                    fallback,
                },
                Ok(runtime),
            ) => {
                if launch {
                    fetch::launch(Arc::clone(self), Arc::clone(&flight), &runtime);
                }
                Decision::Wait {
                    flight,
                    launch,
                    fallback,
                }
            }
            // Whoever waits needs a timer, so also for another's flight there is no waiting without a runtime.
            (
                Decision::Wait {
                    flight,
                    launch,
                    fallback,
                },
                Err(_),
            ) => {
                if launch {
                    self.lose(&flight);
                }
                match fallback {
                    Some(Fallback { token, .. }) => Decision::Serve {
                        token,
                        launch: None,
                    },
                    None => Decision::Fail(no_runtime()),
                }
            }
            (Decision::Fail(error), _) => Decision::Fail(error),
        }
    }

    /// What there is to live on for a caller whose flight has failed.
    pub(super) fn live_token(
        &self,
        request: &TokenRequest,
        newer_than: Option<u64>,
    ) -> Option<Arc<Token>> {
        self.look(|state, now| {
            let token = state.token(request).filter(|token| token.live(now))?;
            let newer = newer_than.is_none_or(|old| token.generation > old);
            newer.then(|| Arc::clone(token))
        })
    }

    pub(super) fn may_depart(&self, request: &TokenRequest) -> Result<(), Error> {
        lock(&self.state).may_depart(request, self.clock.now())
    }

    /// An API at `origin` refused this token.
    pub(crate) fn refuse(&self, token: &Token, origin: u64) -> Refusal {
        let now = self.clock.now();
        let refusal = lock(&self.state).refused(token, origin, now);
        match refusal {
            Refusal::Suspected => self.watch.tell(&Event::Suspected {
                generation: token.generation,
            }),
            Refusal::BudgetSpent { first: true } => self.watch.tell(&Event::BudgetSpent {
                generation: token.generation,
            }),
            Refusal::BudgetSpent { first: false } | Refusal::Known => {}
        }
        refusal
    }

    pub(super) fn forget(&self, request: &TokenRequest) {
        let mut state = lock(&self.state);
        state.forget(request);
        self.publish(&state);
    }

    pub(super) fn end_backoff(&self, request: &TokenRequest) {
        lock(&self.state).end_backoff(request);
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State<Arc<Flight>>, Timestamp) -> T) -> T {
        let now = self.clock.now();
        look(&lock(&self.state), now)
    }

    /// Under the lock, so that the view outside never goes back to an older token.
    fn publish(&self, state: &State<Arc<Flight>>) {
        self.current.set(state.token(&self.own).cloned());
    }

    pub(super) fn count_attempt(&self) {
        // Relaxed: a counter for people, which nothing else is ordered by.
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }
}

fn no_runtime() -> Error {
    Error::transient("called outside of a tokio runtime")
        .with_advice("poll the response future inside a tokio runtime with time enabled")
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("own", &self.own)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
