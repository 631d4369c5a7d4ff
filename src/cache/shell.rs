//! What all clones of a layer share: the machine behind a lock, and the token in force outside it.
//!
//! Each operation is one sequence: lock, ask the [`machine`](super::machine), publish what is in
//! force, unlock, wake, tell. Nothing of the user's runs under the lock. What is to be launched is
//! returned, and [`flight`](super::flight) launches it.
//!
//! Rules: R5, R8.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::StatusCode;

use super::current::{Current, Reader, Refused, Token};
use super::lifetime::Lifetime;
use super::machine::{CacheStatus, Decision, End, Launch, Machine, Refusal, Wish};
use super::policy::CachePolicy;
use super::turns::Turns;
use super::waiters::{Flight, Outcome};
use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::observe::{Event, Watch};
use crate::params::TokenParams;
use crate::source::{Guarded, TokenSource};
use crate::sync::{Mutex, lock};
use crate::token::TokenResponse;

/// The tokens of one layer.
pub(crate) struct Cache {
    pub(super) source: Guarded,
    pub(super) policy: CachePolicy,
    pub(super) turns: Turns,
    pub(super) attempts: AtomicU64,
    pub(crate) clock: Clock,
    pub(crate) watch: Watch,
    own: TokenParams,
    unauthorized: Arc<[StatusCode]>,
    current: Current,
    state: Mutex<State>,
}

pub(crate) struct CacheConfig {
    pub(crate) policy: CachePolicy,
    pub(crate) own: TokenParams,
    /// Statuses that are treated like 401.
    pub(crate) unauthorized: Arc<[StatusCode]>,
    pub(crate) clock: Clock,
    pub(crate) watch: Watch,
}

struct State {
    machine: Machine<Arc<Token>>,
    /// Those whose task has not ended, given up or not.
    flights: HashMap<u64, Arc<Flight>>,
}

/// What a call may do now.
pub(super) type Decided = Decision<Arc<Token>, Arc<Flight>>;

impl Cache {
    pub(crate) fn new(source: Arc<dyn TokenSource>, config: CacheConfig) -> Arc<Self> {
        let source = Guarded::new(source);
        let policy = config.policy.or_attempt_timeout(source.attempt_timeout());
        let credentials_can_change = source.credentials_changed().is_some();
        let own = config.own;
        let machine = Machine::new(policy.clone(), own.clone(), credentials_can_change);
        Arc::new(Self {
            source,
            turns: Turns::new(policy.max_flights),
            policy,
            attempts: AtomicU64::new(0),
            clock: config.clock,
            watch: config.watch,
            own,
            unauthorized: config.unauthorized,
            current: Current::default(),
            state: Mutex::new(State {
                machine,
                flights: HashMap::new(),
            }),
        })
    }

    /// The layer's own parameters.
    pub(crate) fn own(&self) -> &TokenParams {
        &self.own
    }

    /// How long a flight may take, and so a request that waits for one.
    pub(crate) fn flight_limit(&self) -> Duration {
        self.policy.flight_limit()
    }

    /// The cached path: the layer's own token, if it may be used without asking the machine. No
    /// lock, no allocation.
    #[inline(always)]
    pub(crate) fn free_token<'a>(&self, reader: &'a mut Reader) -> Option<&'a Arc<Token>> {
        reader.get(&self.current, self.clock.now())
    }

    /// The same for other parameters: one look-up under the lock.
    pub(crate) fn free_token_for(&self, params: &TokenParams) -> Option<Arc<Token>> {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let (token, until) = state.machine.free(params)?;
        (now < until).then(|| Arc::clone(token))
    }

    /// Decides for one call. The second value is a flight that the caller has to launch.
    pub(super) fn ask(&self, params: &TokenParams, wish: Wish) -> (Decided, Option<Arc<Flight>>) {
        let now = self.clock.now();
        self.change(|state| {
            let (decision, launch) = state.machine.ask(params, wish, now);
            let launch = launch.map(|launch| {
                let flight = self.flight(state, params, launch, now);
                state.flights.insert(flight.id, Arc::clone(&flight));
                flight
            });
            let decision = match decision {
                Decision::Serve(token) => Decision::Serve(token),
                Decision::Fail(error) => Decision::Fail(error),
                Decision::Unable(live) => Decision::Unable(live),
                Decision::Wait { flight, fallback } => Decision::Wait {
                    flight: Arc::clone(&state.flights[&flight]),
                    fallback,
                },
            };
            (decision, launch)
        })
    }

    fn flight(
        &self,
        state: &State,
        params: &TokenParams,
        launch: Launch<Arc<Token>>,
        now: Timestamp,
    ) -> Arc<Flight> {
        let Launch {
            flight,
            cause,
            after,
            refused,
        } = launch;
        let refused = refused.map(|token| token.access_token(now));
        let previous = after.and_then(|flight| state.flights.get(&flight).cloned());
        let due = now.after(self.policy.flight_limit());
        let flight = Flight::new(flight, cause, params.clone(), refused, due, previous);
        Arc::new(flight)
    }

    /// The flight for these parameters that should have ended by itself.
    pub(super) fn overdue(&self, params: &TokenParams) -> Option<Arc<Flight>> {
        let now = self.clock.now();
        let state = lock(&self.state);
        let flight = state.flights.get(&state.machine.flight(params)?)?;
        flight.time_left(now).is_zero().then(|| Arc::clone(flight))
    }

    /// The token that a flight brought, and its ages.
    pub(super) fn token(
        self: &Arc<Self>,
        flight: &Flight,
        response: &TokenResponse,
        sent: Timestamp,
    ) -> End<Arc<Token>> {
        let lifetime = Lifetime::new(
            &self.policy,
            sent,
            self.clock.now(),
            response.expires_in,
            response.refresh_in,
            fastrand::f64(),
        );
        let cache: Weak<Self> = Arc::downgrade(self);
        End::Token {
            token: Arc::new(Token {
                header: response.value.header().clone(),
                generation: flight.id,
                params: flight.params.clone(),
                end: lifetime.end,
                free_until: Timestamp::ZERO,
                unauthorized: Arc::clone(&self.unauthorized),
                cache,
            }),
            lifetime,
            new_credentials: response.by_new_credentials,
        }
    }

    /// A flight has ended. `tell` is told the outcome before the waiters are, since the first of
    /// them may end the process, and how long a live token is still good for; it is not called for
    /// a failure that is out of date.
    pub(super) fn end(
        &self,
        flight: &Flight,
        end: End<Arc<Token>>,
        tell: impl FnOnce(&Outcome, Option<Duration>),
    ) {
        let (params, now) = (&flight.params, self.clock.now());
        let (outcome, remaining) = self.change(|state| {
            let machine = &mut state.machine;
            let outcome = machine.ended(params, flight.id, end, now, fastrand::f64());
            (outcome, machine.remaining(params, now))
        });
        let Some(outcome) = outcome else { return };
        tell(&outcome, remaining);
        flight.finish(outcome);
        // Also when it had an outcome: its turn is free as soon as it is given up, whether or not
        // its task is ever polled again.
        self.turns.release(flight.id, self.clock.now());
    }

    /// The task of a flight that has an outcome is gone.
    pub(super) fn remove(&self, flight: &Flight) {
        lock(&self.state).flights.remove(&flight.id);
        self.turns.release(flight.id, self.clock.now());
    }

    /// The live token for a caller whose flight has failed.
    pub(super) fn live_token(
        &self,
        params: &TokenParams,
        newer_than: Option<u64>,
    ) -> Option<Arc<Token>> {
        let now = self.clock.now();
        let state = lock(&self.state);
        state.machine.live(params, newer_than, now).cloned()
    }

    pub(super) fn may_attempt(&self, params: &TokenParams) -> Result<(), Error> {
        let now = self.clock.now();
        lock(&self.state).machine.may_attempt(params, now)
    }

    /// Changes the machine in a way that returns nothing.
    pub(super) fn update(&self, change: impl FnOnce(&mut Machine<Arc<Token>>)) {
        self.change(|state| change(&mut state.machine));
    }

    pub(super) fn status(&self, params: &TokenParams) -> CacheStatus {
        // Relaxed: a counter for people, which nothing else is ordered by.
        let token_requests = self.attempts.load(Ordering::Relaxed);
        let now = self.clock.now();
        CacheStatus {
            token_requests,
            ..lock(&self.state).machine.view(params, now)
        }
    }

    /// Changes the state, and publishes what is in force then.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let (result, left) = {
            let mut state = lock(&self.state);
            let result = change(&mut state);
            let machine = &mut state.machine;
            self.current.set(machine.free(&self.own));
            (result, machine.take_left())
        };
        for _ in 0..left.evicted {
            self.watch.tell(&Event::Evicted {
                max_entries: self.policy.max_entries,
            });
        }
        result
    }
}

impl Refused for Cache {
    fn refused(&self, token: &Token, origin: u64) -> Refusal {
        let now = self.clock.now();
        let generation = token.generation;
        let refusal = self.change(|state| {
            let machine = &mut state.machine;
            machine.refused(&token.params, generation, origin, now)
        });
        match refusal {
            Refusal::Suspected => self.watch.tell(&Event::Suspected { generation }),
            Refusal::BudgetSpent { first: true } => {
                self.watch.tell(&Event::BudgetSpent { generation });
            }
            Refusal::BudgetSpent { first: false } | Refusal::Known => {}
        }
        refusal
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
