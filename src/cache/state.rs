//! The state machine of the cache: what a call may do now, and what an event changes.
//!
//! No clock, no lock, no task and no I/O: `now` and the random parts are passed in, and the answer says what to do. The
//! shell in [`shared`](super::shared) and [`fetch`](super::fetch) carries it out.
//!
//! # Invariants
//!
//! 1. A token is never served at or after its end.
//! 2. A live token is always served, at the latest after the wait of [`Fallback`]; no failure takes it away.
//! 3. At most one flight per key is registered. Whoever gets `launch` with it must spawn it or report it lost.
//! 4. A token is displaced only by one of a later flight.
//! 5. Nothing is fetched during a backoff, and none within a second of the last success unless the token was refused or forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::budget::Budget;
use super::policy::RefreshPolicy;
use crate::error::{Error, Reach};
use crate::grant::TokenRequest;
use crate::observe::Cause;
use crate::token::{Freshness, Timestamp, Token};

/// All keys of one layer, with the backoff of the endpoint they share. `F` is the shell's handle for a flight.
pub(crate) struct State<F> {
    policy: RefreshPolicy,
    entries: HashMap<TokenRequest, Entry<F>>,
    /// Candidates for eviction, in second-chance order. The layer's own kind of token is not among them.
    candidates: VecDeque<TokenRequest>,
    endpoint: Option<Backoff>,
    generations: u64,
    flights: u64,
    /// When it was last asked whether the credentials have changed.
    probed: Option<Timestamp>,
}

struct Entry<F> {
    token: Option<Arc<Token>>,
    /// The token was refused by an API and is used only if it cannot be renewed.
    suspect: bool,
    flight: Option<Ticket<F>>,
    backoff: Option<Backoff>,
    /// No renewal before this, whatever the server's `expires_in` says.
    rest_until: Timestamp,
    budgets: Vec<(u64, Budget)>,
    /// Since eviction last looked at it.
    used: bool,
    /// In the list of candidates for eviction, or, for the layer's own kind of token, never to be.
    candidate: bool,
}

struct Ticket<F> {
    id: u64,
    handle: F,
}

/// What the shell needs to make a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) id: u64,
    pub(crate) cause: Cause,
}

/// What a call may do now.
#[derive(Debug)]
pub(crate) enum Decision<F> {
    /// Use the token; `launch` is a renewal to start without waiting for it.
    Serve {
        token: Arc<Token>,
        launch: Option<F>,
    },
    /// Wait for the flight, which is to be launched first if it is new.
    Wait {
        flight: F,
        launch: bool,
        fallback: Option<Fallback>,
    },
    /// Backoff, and nothing to live on.
    Fail(Error),
}

/// A live token to use when the flight has not brought a better one within `wait`.
#[derive(Debug)]
pub(crate) struct Fallback {
    pub(crate) token: Arc<Token>,
    pub(crate) wait: Duration,
}

/// What a 401 changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token is suspect now: the next call renews first.
    Suspected,
    /// It was already, or another token is in its place.
    Known,
    /// Nothing changed: this origin has spent its renewals. `first` since it had any.
    BudgetSpent { first: bool },
}

impl<F: Clone> State<F> {
    pub(crate) fn new(policy: RefreshPolicy, own: TokenRequest) -> Self {
        let entries = HashMap::from([(own, Entry::new())]);
        Self {
            policy,
            entries,
            candidates: VecDeque::new(),
            endpoint: None,
            generations: 0,
            flights: 0,
            probed: None,
        }
    }

    /// A caller needs a token.
    ///
    /// `newer_than` asks for a token of a later generation than one that was refused. `can_change` says that the credentials are
    /// read anew each time, so that a backoff is worth a look at them once a second. `depart` makes the handle of a new flight.
    pub(crate) fn call(
        &mut self,
        request: &TokenRequest,
        now: Timestamp,
        newer_than: Option<u64>,
        can_change: bool,
        depart: impl FnOnce(Plan) -> F,
    ) -> Decision<F> {
        self.admit(request);
        let failing = self.failing(request, now);
        let policy = &self.policy;
        let entry = entry_of(&mut self.entries, request);
        entry.used = true;
        let rest = entry.rest(now);
        let held_until = failing.as_ref().map(|failing| failing.until).max(rest);

        let live = entry.live(now).cloned();
        let usable = live.filter(|token| newer_than.is_none_or(|old| token.generation > old));
        let cause = match &usable {
            None if newer_than.is_some() => Cause::Refused,
            None => Cause::NoToken,
            Some(_) if entry.suspect => Cause::Refused,
            Some(token) => match token.schedule.freshness(now) {
                Freshness::Fresh => {
                    let token = Arc::clone(token);
                    token.set_free_until(token.schedule.stale);
                    return Decision::Serve {
                        token,
                        launch: None,
                    };
                }
                Freshness::Stale => Cause::Ahead,
                Freshness::LastStretch | Freshness::Expired => Cause::LastStretch,
            },
        };

        let (flight, launch) = match (&entry.flight, held_until) {
            (Some(ticket), _) => (ticket.handle.clone(), false),
            (None, None) => {
                let flight = entry.depart(&mut self.flights, cause, depart);
                (flight, true)
            }
            (None, Some(_)) if can_change && rest.is_none() && probe_due(&mut self.probed, now) => {
                let flight = entry.depart(&mut self.flights, Cause::Credentials, depart);
                (flight, true)
            }
            (None, Some(until)) => {
                return match usable {
                    Some(token) => {
                        let turn = if cause == Cause::Ahead {
                            token.schedule.last_stretch
                        } else {
                            token.schedule.end
                        };
                        let probe = match (rest, self.probed) {
                            (Some(rest), _) => rest,
                            (None, Some(last)) if can_change => last.after(PROBE_INTERVAL),
                            (None, _) => Timestamp::MAX,
                        };
                        token.set_free_until(until.min(turn).min(probe));
                        Decision::Serve {
                            token,
                            launch: None,
                        }
                    }
                    None => Decision::Fail(no_attempt(failing, until.since(now))),
                };
            }
        };

        match usable {
            Some(token) if cause == Cause::Ahead => {
                token.set_free_until(token.schedule.last_stretch);
                let launch = launch.then_some(flight);
                Decision::Serve { token, launch }
            }
            Some(token) => {
                let remaining = token.schedule.end.since(now);
                let wait = policy.renewal_wait.min(remaining / 4);
                let fallback = Some(Fallback { token, wait });
                Decision::Wait {
                    flight,
                    launch,
                    fallback,
                }
            }
            None => Decision::Wait {
                flight,
                launch,
                fallback: None,
            },
        }
    }

    /// The token that may be used without any decision, if there is one.
    pub(crate) fn free_token(
        &mut self,
        request: &TokenRequest,
        now: Timestamp,
    ) -> Option<Arc<Token>> {
        let entry = self.entries.get_mut(request)?;
        entry.used = true;
        entry.token.clone().filter(|token| token.is_free(now))
    }

    /// A flight that has queued for its turn asks whether it may still go: what failed meanwhile for the endpoint fails it too.
    pub(crate) fn may_depart(&self, request: &TokenRequest, now: Timestamp) -> Result<(), Error> {
        match self.failing(request, now) {
            Some(failing) => Err(failing.error.during_backoff(failing.until.since(now))),
            None => Ok(()),
        }
    }

    /// A flight brought a token. Returns the token in force, which is another one when a later flight was faster.
    pub(crate) fn succeeded(
        &mut self,
        request: &TokenRequest,
        id: u64,
        now: Timestamp,
        make: impl FnOnce(u64) -> Token,
    ) -> Arc<Token> {
        if self
            .endpoint
            .as_ref()
            .is_some_and(|backoff| backoff.is_over(id))
        {
            self.endpoint = None;
            self.end_freedom();
        }
        self.land(request, id);
        self.admit(request);
        let entry = entry_of(&mut self.entries, request);
        if let Some(newer) = entry.token.as_ref().filter(|token| token.flight > id) {
            return Arc::clone(newer);
        }
        self.generations += 1;
        let token = Arc::new(make(self.generations));
        entry.token = Some(Arc::clone(&token));
        entry.suspect = false;
        entry.backoff = None;
        entry.rest_until = now.after(REST);
        token
    }

    /// A flight failed.
    pub(crate) fn failed(
        &mut self,
        request: &TokenRequest,
        id: u64,
        now: Timestamp,
        error: &Error,
        spread: f64,
    ) {
        self.land(request, id);
        self.admit(request);
        let entry = entry_of(&mut self.entries, request);
        let backoff = match error.reach() {
            Reach::Endpoint => &mut self.endpoint,
            Reach::Key => &mut entry.backoff,
        };
        *backoff = Some(Backoff::after(
            &self.policy,
            backoff.as_ref(),
            error,
            id,
            self.flights,
            now,
            spread,
        ));
    }

    /// A flight ended without an answer: its runtime is gone, it overran its deadline, or it had no reason to depart.
    /// Nothing is learnt about the endpoint.
    pub(crate) fn lost(&mut self, request: &TokenRequest, id: u64) {
        self.land(request, id);
    }

    /// An API at `origin` refused `token`.
    pub(crate) fn refused(&mut self, token: &Token, origin: u64, now: Timestamp) -> Refusal {
        let Some(entry) = self.entries.get_mut(&token.request) else {
            return Refusal::Known;
        };
        let in_force = entry
            .live(now)
            .is_some_and(|held| held.generation == token.generation);
        if !in_force || entry.suspect {
            return Refusal::Known;
        }
        let budget = entry.budget(&self.policy, origin, now);
        if !budget.take(&self.policy, now) {
            return Refusal::BudgetSpent {
                first: budget.tell_once(),
            };
        }
        entry.suspect = true;
        token.set_free_until(Timestamp::ZERO);
        Refusal::Suspected
    }

    /// The user wants a new token, and wants it to be tried for now.
    pub(crate) fn forget(&mut self, request: &TokenRequest) {
        self.end_backoff(request);
        if let Some(entry) = self.entries.get_mut(request) {
            if let Some(token) = entry.token.take() {
                token.set_free_until(Timestamp::ZERO);
            }
            entry.suspect = false;
            entry.rest_until = Timestamp::ZERO;
        }
    }

    /// The next attempt may start now.
    pub(crate) fn end_backoff(&mut self, request: &TokenRequest) {
        let own = self
            .entries
            .get_mut(request)
            .and_then(|entry| entry.backoff.as_mut());
        for backoff in own.into_iter().chain(self.endpoint.as_mut()) {
            backoff.end();
        }
        self.end_freedom();
    }

    /// A token may be free for as long as a backoff lasts that all keys share. When that ends early, the next call of each decides
    /// anew. Rare enough to look at all of them.
    fn end_freedom(&self) {
        for token in self
            .entries
            .values()
            .filter_map(|entry| entry.token.as_ref())
        {
            token.set_free_until(Timestamp::ZERO);
        }
    }

    /// The token held, live or not.
    pub(crate) fn token(&self, request: &TokenRequest) -> Option<&Arc<Token>> {
        self.entries.get(request)?.token.as_ref()
    }

    /// How long the token held is still good for; `None` when there is no live one.
    pub(crate) fn remaining(&self, request: &TokenRequest, now: Timestamp) -> Option<Duration> {
        let token = self.entries.get(request)?.live(now)?;
        Some(token.schedule.end.since(now))
    }

    pub(crate) fn is_suspect(&self, request: &TokenRequest) -> bool {
        self.entries.get(request).is_some_and(|entry| entry.suspect)
    }

    pub(crate) fn is_fetching(&self, request: &TokenRequest) -> bool {
        self.entries
            .get(request)
            .is_some_and(|entry| entry.flight.is_some())
    }

    /// The failure in force, with the time until the next attempt.
    pub(crate) fn backoff(
        &self,
        request: &TokenRequest,
        now: Timestamp,
    ) -> Option<(Error, Duration)> {
        let failing = self.failing(request, now)?;
        Some((failing.error, failing.until.since(now)))
    }

    /// Why the last flight failed, until one succeeds.
    pub(crate) fn last_error(&self, request: &TokenRequest) -> Option<&Error> {
        let entry = self
            .entries
            .get(request)
            .and_then(|entry| entry.backoff.as_ref());
        entry
            .or(self.endpoint.as_ref())
            .map(|backoff| &backoff.error)
    }

    /// How many flights there have been.
    #[cfg(all(test, model))]
    pub(crate) fn flights(&self) -> u64 {
        self.flights
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The failure in force for a key, its own or the endpoint's, whichever lasts longer.
    fn failing(&self, request: &TokenRequest, now: Timestamp) -> Option<Failing> {
        let entry = self.entries.get(request);
        let live = entry.is_some_and(|entry| entry.live(now).is_some());
        let own = entry.and_then(|entry| entry.backoff.as_ref());
        let failures = self.endpoint.iter().chain(own);
        failures
            .map(|backoff| (backoff.until(live), &backoff.error))
            .filter(|(until, _)| *until > now)
            .max_by_key(|(until, _)| *until)
            .map(|(until, error)| Failing {
                until,
                error: error.clone(),
            })
    }

    fn admit(&mut self, request: &TokenRequest) {
        if !self.entries.contains_key(request) {
            self.entries.insert(request.clone(), Entry::new());
            self.candidates.push_back(request.clone());
            self.shrink();
        }
    }

    /// Evicts what was not used since it was last looked at. What is being fetched is no candidate and does not count: it
    /// is bounded by the callers who wait for it.
    ///
    /// Each turn either evicts, or takes back a chance that a use had given, or drops a candidate that a fetch had made none, so
    /// the work per use is constant on average, however many entries there are.
    fn shrink(&mut self) {
        while self.candidates.len() > self.policy.max_entries {
            let Some(oldest) = self.candidates.pop_front() else {
                return;
            };
            let Some(entry) = self.entries.get_mut(&oldest) else {
                continue;
            };
            if entry.flight.is_some() {
                entry.candidate = false;
            } else if std::mem::take(&mut entry.used) {
                self.candidates.push_back(oldest);
            } else {
                self.entries.remove(&oldest);
            }
        }
    }

    /// A flight of this key is over.
    fn land(&mut self, request: &TokenRequest, id: u64) {
        let Some(entry) = self.entries.get_mut(request) else {
            return;
        };
        entry.land(id);
        if !std::mem::replace(&mut entry.candidate, true) {
            self.candidates.push_back(request.clone());
        }
        self.shrink();
    }
}

/// What keeps flights from starting, and until when.
struct Failing {
    until: Timestamp,
    error: Error,
}

/// What a caller without a token is told.
fn no_attempt(failing: Option<Failing>, wait: Duration) -> Error {
    match failing {
        Some(failing) => failing.error.during_backoff(wait),
        // A token is held for at least as long as the rest after its arrival, so a caller without a token is never told to
        // rest; kept total rather than panicking on it.
        None => {
            Error::transient("the last token arrived less than a second ago").during_backoff(wait)
        }
    }
}

/// The credentials are looked at no more than once a second, over all keys.
fn probe_due(probed: &mut Option<Timestamp>, now: Timestamp) -> bool {
    let due = probed.is_none_or(|last| now >= last.after(PROBE_INTERVAL));
    if due {
        *probed = Some(now);
    }
    due
}

fn entry_of<'a, F>(
    entries: &'a mut HashMap<TokenRequest, Entry<F>>,
    request: &TokenRequest,
) -> &'a mut Entry<F> {
    entries
        .get_mut(request)
        .expect("the request was admitted before")
}

impl<F> Entry<F> {
    fn new() -> Self {
        Self {
            token: None,
            suspect: false,
            flight: None,
            backoff: None,
            rest_until: Timestamp::ZERO,
            budgets: Vec::new(),
            // A newcomer has its first chance: what was just asked for is about to be fetched.
            used: true,
            candidate: true,
        }
    }

    fn live(&self, now: Timestamp) -> Option<&Arc<Token>> {
        self.token.as_ref().filter(|token| token.live(now))
    }

    /// The end of the rest after the token's arrival, while it lasts.
    fn rest(&self, now: Timestamp) -> Option<Timestamp> {
        (!self.suspect && self.rest_until > now).then_some(self.rest_until)
    }

    fn depart(&mut self, flights: &mut u64, cause: Cause, depart: impl FnOnce(Plan) -> F) -> F
    where
        F: Clone,
    {
        *flights += 1;
        let handle = depart(Plan {
            id: *flights,
            cause,
        });
        self.flight = Some(Ticket {
            id: *flights,
            handle: handle.clone(),
        });
        handle
    }

    /// The flight is over. Whatever it brought, the token's freedom is decided anew by the next call.
    fn land(&mut self, id: u64) {
        if self.flight.as_ref().is_some_and(|ticket| ticket.id == id) {
            self.flight = None;
        }
        // Nor is it forgotten before anyone has used what the flight brought.
        self.used = true;
        if let Some(token) = &self.token {
            token.set_free_until(Timestamp::ZERO);
        }
    }

    fn budget(&mut self, policy: &RefreshPolicy, origin: u64, now: Timestamp) -> &mut Budget {
        let known = self.budgets.iter().position(|(other, _)| *other == origin);
        let place = known.unwrap_or_else(|| {
            if self.budgets.len() >= MAX_BUDGETS {
                // If all are being spent, the oldest goes.
                let spare = self
                    .budgets
                    .iter_mut()
                    .position(|(_, budget)| budget.is_new(policy, now));
                self.budgets.remove(spare.unwrap_or(0));
            }
            self.budgets.push((origin, Budget::new(policy, now)));
            self.budgets.len() - 1
        });
        &mut self.budgets[place].1
    }
}

/// No successful flight follows another of its key within this time, so that no answer of a server makes us ask once per call.
const REST: Duration = Duration::from_secs(1);

const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Origins whose 401s are remembered for each kind of token.
const MAX_BUDGETS: usize = 64;

#[cfg(test)]
mod tests;
