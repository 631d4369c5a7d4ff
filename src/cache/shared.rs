//! What all clones of a layer share: the state machine behind a lock, and the token in force outside of it.

mod landing;

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::runtime::Handle;

use super::decision::{Ask, Decision, Plan, Refusal};
use super::fetch;
use super::flight::Flight;
use super::policy::CachePolicy;
use super::state::State;
use super::sync::{Arc, Current, Mutex, lock};
use super::turns::Turns;
use crate::cache::current::Token;
use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::observe::{Event, Watch};
use crate::params::TokenParams;
use crate::runtime::{self, NoRuntime};
use crate::source::{Guarded, TokenSource};

/// The shell around [`State`]: it reads the clock, draws the jitter, launches flights and tells the observer.
///
/// The lock is held for a few lines and never while anything is awaited, spawned, woken or observed.
pub(crate) struct Cache {
    pub(super) source: Guarded,
    /// Whether the credentials can change, which the source does not change its mind about.
    credentials_can_change: bool,
    pub(super) policy: CachePolicy,
    pub(super) turns: Turns,
    pub(super) attempts: AtomicU64,
    pub(crate) clock: Clock,
    pub(crate) watch: Watch,
    own: TokenParams,
    refusals: Arc<[StatusCode]>,
    current: Current,
    state: Mutex<State<Arc<Flight>>>,
    itself: Weak<Self>,
}

pub(crate) struct CacheConfig {
    pub(crate) policy: CachePolicy,
    pub(crate) own: TokenParams,
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
        let source = Guarded::new(source);
        let policy = policy.or_attempt_timeout(source.attempt_timeout());
        let credentials_can_change = source.credentials_changed().is_some();
        Arc::new_cyclic(|itself| Self {
            source,
            credentials_can_change,
            turns: Turns::new(policy.max_flights),
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
    pub(crate) fn own(&self) -> &TokenParams {
        &self.own
    }

    /// How long a flight may take, and so a request that waits for one.
    pub(crate) fn flight_timeout(&self) -> Duration {
        self.policy.flight_limit()
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
    pub(crate) fn free_token_for(&self, request: &TokenParams) -> Option<Arc<Token>> {
        let now = self.clock.now();
        lock(&self.state).free_token(request, now)
    }

    /// What needs no waiting, for a call that has not been polled yet: a token to use, or the
    /// failure of a backoff. `None` when there is something to wait for.
    pub(crate) fn decide(
        self: &Arc<Self>,
        request: &TokenParams,
    ) -> Option<Result<Arc<Token>, Error>> {
        let runtime = runtime::current().ok();
        let ask = Ask {
            wait: false,
            launch: runtime.is_some(),
        };
        match self.ask(request, None, ask, runtime.as_ref()) {
            Decision::Serve { token, .. } => Some(Ok(token)),
            Decision::Fail(error) => Some(Err(error)),
            Decision::Wait { .. } | Decision::Later { .. } => None,
        }
    }

    /// Decides for one caller, and launches the flight it may need on the caller's runtime, unless
    /// it has launched enough of them.
    pub(super) fn call(
        self: &Arc<Self>,
        request: &TokenParams,
        newer_than: Option<u64>,
        launch: bool,
    ) -> Result<Decision<Arc<Flight>>, NoRuntime> {
        let runtime = runtime::current();
        // Whoever waits needs a timer, so also for another's flight there is no waiting without a
        // runtime.
        let ask = Ask {
            wait: runtime.is_ok(),
            launch: launch && runtime.is_ok(),
        };
        let decision = self.ask(request, newer_than, ask, runtime.as_ref().ok());
        match (&decision, runtime) {
            (Decision::Later { .. }, Err(reason)) => {
                self.say_why(reason);
                match decision {
                    Decision::Later { live: Some(token) } => Ok(Decision::Serve {
                        token,
                        launch: None,
                    }),
                    _ => Err(reason),
                }
            }
            _ => Ok(decision),
        }
    }

    fn ask(
        self: &Arc<Self>,
        request: &TokenParams,
        newer_than: Option<u64>,
        ask: Ask,
        runtime: Option<&Handle>,
    ) -> Decision<Arc<Flight>> {
        let can_change = self.credentials_can_change;
        self.lose_overdue(request);
        let now = self.clock.now();
        let depart = |Plan { id, cause }, previous| {
            let due = now.after(self.policy.flight_limit());
            Arc::new(Flight::new(id, cause, request.clone(), due, previous))
        };
        let (mut decision, evicted) = {
            let mut state = lock(&self.state);
            let decision = state.call(request, now, newer_than, can_change, ask, depart);
            (decision, state.take_evicted())
        };
        let launched = match &mut decision {
            Decision::Serve { launch, .. } => launch.take(),
            Decision::Wait { flight, launch, .. } if *launch => Some(Arc::clone(flight)),
            _ => None,
        };
        if let (Some(flight), Some(runtime)) = (launched, runtime) {
            fetch::launch(Arc::clone(self), flight, runtime);
        }
        self.tell_evicted(evicted);
        decision
    }

    /// A flight that should have ended by itself is given up by the next caller who meets it: the
    /// runtime that flew it is not driven, or the process was frozen.
    fn lose_overdue(&self, request: &TokenParams) {
        let now = self.clock.now();
        let flight = lock(&self.state).flight(request).cloned();
        if let Some(flight) = flight.filter(|flight| flight.time_left(now).is_zero()) {
            self.miss(&flight);
        }
    }

    fn say_why(&self, reason: NoRuntime) {
        if reason == NoRuntime::NoTimers {
            self.watch.no_timers();
        }
    }

    pub(super) fn tell_evicted(&self, evicted: usize) {
        for _ in 0..evicted {
            self.watch.tell(&Event::Evicted {
                max_entries: self.policy.max_entries,
            });
        }
    }

    /// What there is to live on for a caller whose flight has failed.
    pub(super) fn live_token(
        &self,
        request: &TokenParams,
        newer_than: Option<u64>,
    ) -> Option<Arc<Token>> {
        self.look(|state, now| {
            let token = state.token(request).filter(|token| token.live(now))?;
            let newer = newer_than.is_none_or(|old| token.generation > old);
            newer.then(|| Arc::clone(token))
        })
    }

    pub(super) fn may_depart(&self, request: &TokenParams) -> Result<(), Error> {
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

    pub(super) fn forget(&self, request: &TokenParams) {
        let mut state = lock(&self.state);
        state.forget(request);
        self.publish(&state);
    }

    pub(super) fn end_backoff(&self, request: &TokenParams) {
        lock(&self.state).end_backoff(request);
    }

    /// The credentials have changed, and with them what every kind of token was refused for.
    pub(super) fn end_every_backoff(&self) {
        lock(&self.state).end_every_backoff();
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

    /// An attempt that was counted has failed before its token request.
    pub(super) fn uncount_attempt(&self) {
        self.attempts.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("own", &self.own)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
