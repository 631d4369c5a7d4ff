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
//! 6. A flight that is not registered any more, since it was given up, records no failure. One that
//!    is older than the last success says nothing of the client.

mod view;

use std::sync::Arc;
use std::time::Duration;

use super::backoff::{Backoff, no_attempt};
use super::decision::{Ask, Decision, Fallback, Plan, Refusal};
use super::entries::Entries;
use super::entry::REST;
use super::policy::CachePolicy;
use crate::cache::current::Token;
use crate::cache::lifetime::Freshness;
use crate::clock::Timestamp;
use crate::error::{Error, Reach};
use crate::params::TokenParams;
use crate::source::FetchCause;

/// All keys of one layer, with the backoff of the client they share. `F` is the shell's handle for a flight.
pub(crate) struct State<F> {
    policy: CachePolicy,
    entries: Entries<F>,
    client: Option<Backoff>,
    /// Kinds that were refused for themselves, with no success between; see [`KINDS_IN_A_ROW`].
    refused_kinds: Vec<TokenParams>,
    generations: u64,
    flights: u64,
    /// The latest flight that brought a token.
    last_success: u64,
    /// When it was last asked whether the credentials have changed.
    probed: Option<Timestamp>,
}

impl<F: Clone> State<F> {
    pub(crate) fn new(policy: CachePolicy, own: TokenParams) -> Self {
        Self {
            entries: Entries::new(own, policy.max_entries),
            policy,
            client: None,
            refused_kinds: Vec::new(),
            generations: 0,
            flights: 0,
            last_success: 0,
            probed: None,
        }
    }

    /// A caller needs a token.
    ///
    /// `newer_than` asks for a token of a later generation than one that was refused. `can_change` says that the credentials are
    /// read anew each time, so that a backoff is worth a look at them once a second. `ask` is what the caller can do, and
    /// `depart` makes the handle of a new flight.
    pub(crate) fn call(
        &mut self,
        request: &TokenParams,
        now: Timestamp,
        newer_than: Option<u64>,
        can_change: bool,
        ask: Ask,
        depart: impl FnOnce(Plan, Option<F>) -> F,
    ) -> Decision<F> {
        let failing = self.failing(request, now);
        let policy = &self.policy;
        let entry = self.entries.admit(request, now);
        entry.used = true;
        let rest = entry.rest(now);
        let held_until = failing.as_ref().map(|failing| failing.until).max(rest);

        let live = entry.live(now).cloned();
        let usable = live.filter(|token| newer_than.is_none_or(|old| token.generation > old));
        let cause = match &usable {
            None if newer_than.is_some() => FetchCause::Refused,
            None => FetchCause::NoToken,
            Some(_) if entry.suspect => FetchCause::Refused,
            Some(token) => match token.schedule.freshness(now) {
                Freshness::Fresh => {
                    let token = Arc::clone(token);
                    token.set_free_until(token.schedule.stale);
                    return Decision::Serve {
                        token,
                        launch: None,
                    };
                }
                Freshness::Stale => FetchCause::Ahead,
                Freshness::LastStretch => FetchCause::LastStretch,
            },
        };

        // A renewal ahead of time is started and not waited for.
        let waits = usable.is_none() || cause != FetchCause::Ahead;
        let looks = can_change && rest.is_none();
        let (flight, launch) = match (&entry.flight, held_until) {
            (Some(ticket), _) if ask.wait || !waits => (ticket.handle.clone(), false),
            (None, None) if ask.launch && (ask.wait || !waits) => {
                let flight = entry.depart(&mut self.flights, cause, depart);
                (flight, true)
            }
            (None, Some(_)) if looks && is_probe_due(self.probed, now) => {
                if !ask.launch || waits && !ask.wait {
                    return Decision::Later { live: usable };
                }
                self.probed = Some(now);
                let flight = entry.depart(&mut self.flights, FetchCause::Credentials, depart);
                (flight, true)
            }
            (_, None) | (Some(_), _) => {
                return match usable {
                    // Decided anew by each call until one can launch the renewal.
                    Some(token) if !waits => Decision::Serve {
                        token,
                        launch: None,
                    },
                    live => Decision::Later { live },
                };
            }
            (None, Some(until)) => {
                return match usable {
                    Some(token) => {
                        let probe = match (rest, self.probed) {
                            (Some(rest), _) => rest,
                            (None, Some(last)) if can_change => last.after(PROBE_INTERVAL),
                            (None, _) => Timestamp::MAX,
                        };
                        token.set_free_until(until.min(token.schedule.end).min(probe));
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
            Some(token) if cause == FetchCause::Ahead => {
                // Looked at again when the flight should have ended, in case nobody drives it.
                let due = now.after(policy.flight_limit()).after(OVERDUE);
                token.set_free_until(token.schedule.last_stretch.min(due));
                let launch = launch.then_some(flight);
                Decision::Serve { token, launch }
            }
            Some(token) => {
                let remaining = token.schedule.end.since(now);
                let wait = policy.paced(RENEWAL_WAIT).min(remaining / 4);
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
        request: &TokenParams,
        now: Timestamp,
    ) -> Option<Arc<Token>> {
        // One that was set aside comes back by the next decision.
        let entry = self
            .entries
            .get_mut(request)
            .filter(|entry| !entry.is_aside())?;
        entry.used = true;
        entry.token.clone().filter(|token| token.is_free(now))
    }

    /// A flight brought a token. Returns the token in force, which is another one when a later flight was faster.
    pub(crate) fn succeeded(
        &mut self,
        request: &TokenParams,
        id: u64,
        now: Timestamp,
        make: impl FnOnce(u64) -> Token,
    ) -> Arc<Token> {
        self.last_success = self.last_success.max(id);
        self.refused_kinds.clear();
        if self
            .client
            .as_ref()
            .is_some_and(|backoff| backoff.is_over(id))
        {
            self.client = None;
            self.end_freedom();
        }
        self.entries.land(request, id, now);
        let entry = self.entries.admit(request, now);
        entry.is_answered();
        if let Some(newer) = entry.token.as_ref().filter(|token| token.flight > id) {
            return Arc::clone(newer);
        }
        self.generations += 1;
        let token = Arc::new(make(self.generations));
        entry.token = Some(Arc::clone(&token));
        entry.suspect = false;
        entry.backoff = None;
        entry.missed = 0;
        entry.rest_until = now.after(REST);
        token
    }

    /// A flight failed. Returns whether it was under way, and had not been given up.
    pub(crate) fn failed(
        &mut self,
        request: &TokenParams,
        id: u64,
        now: Timestamp,
        error: &Error,
        spread: f64,
    ) -> bool {
        if !self.entries.land(request, id, now) {
            return false;
        }
        let outdated = id < self.last_success;
        if !outdated || error.reach() == Reach::Kind {
            // An answer lies between flights that brought none.
            self.entries.admit(request, now).missed = 0;
        }
        match error.reach() {
            // Who was asked to wait waits, be it for this kind alone.
            Reach::Client if outdated && error.server_retry_after().is_some() => {
                self.fail_kind(request, id, now, error, spread);
            }
            Reach::Client if outdated => self.missed_once(request, id, now, error, spread),
            Reach::Client => {
                let next = self.after(self.client.as_ref(), error, id, now, spread);
                self.client = Some(next);
            }
            Reach::Kind => {
                self.fail_kind(request, id, now, error, spread);
                if !outdated && self.is_of_many(request) {
                    let error = error.clone().with_advice(OF_MANY);
                    let next = self.after(self.client.as_ref(), &error, id, now, spread);
                    self.client = Some(next);
                }
            }
        }
        true
    }

    /// A flight ended without an answer: its runtime is gone, or it had no reason to depart.
    /// Nothing is learnt about the endpoint. Returns whether it was under way.
    pub(crate) fn lost(&mut self, request: &TokenParams, id: u64, now: Timestamp) -> bool {
        self.entries.land(request, id, now)
    }

    /// A flight was not polled past its limit while somebody waited for it. Returns whether it was
    /// under way.
    pub(crate) fn missed(
        &mut self,
        request: &TokenParams,
        id: u64,
        now: Timestamp,
        error: &Error,
        spread: f64,
    ) -> bool {
        let under_way = self.entries.land(request, id, now);
        if under_way {
            self.missed_once(request, id, now, error, spread);
        }
        under_way
    }

    /// An end that says nothing of the client. The second one in a row backs off, for this kind
    /// alone, so that none is flown again and again without a pause.
    fn missed_once(
        &mut self,
        request: &TokenParams,
        id: u64,
        now: Timestamp,
        error: &Error,
        spread: f64,
    ) {
        let entry = self.entries.admit(request, now);
        entry.missed = entry.missed.saturating_add(1);
        if entry.missed > 1 {
            self.fail_kind(request, id, now, error, spread);
        }
    }

    fn fail_kind(
        &mut self,
        request: &TokenParams,
        id: u64,
        now: Timestamp,
        error: &Error,
        spread: f64,
    ) {
        let previous = self.entries.admit(request, now).backoff.take();
        let next = self.after(previous.as_ref(), error, id, now, spread);
        self.entries.admit(request, now).backoff = Some(next);
    }

    fn after(
        &self,
        previous: Option<&Backoff>,
        error: &Error,
        id: u64,
        now: Timestamp,
        spread: f64,
    ) -> Backoff {
        Backoff::after(&self.policy, previous, error, id, self.flights, now, spread)
    }

    /// Whether this is one of so many kinds in a row that were refused for themselves that it must
    /// be the client that is refused: a wrong secret under a code of the vendor's, say.
    fn is_of_many(&mut self, request: &TokenParams) -> bool {
        let kinds = &mut self.refused_kinds;
        if kinds.len() < KINDS_IN_A_ROW && !kinds.contains(request) {
            kinds.push(request.clone());
        }
        kinds.len() >= KINDS_IN_A_ROW
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
    pub(crate) fn forget(&mut self, request: &TokenParams) {
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
    pub(crate) fn end_backoff(&mut self, request: &TokenParams) {
        let own = self
            .entries
            .get_mut(request)
            .and_then(|entry| entry.backoff.as_mut());
        for backoff in own.into_iter().chain(self.client.as_mut()) {
            backoff.end();
        }
        self.end_freedom();
    }

    /// The next attempt of every kind may start now.
    pub(crate) fn end_every_backoff(&mut self) {
        let kinds = self.entries.values_mut();
        let kinds = kinds.filter_map(|entry| entry.backoff.as_mut());
        for backoff in kinds.chain(self.client.as_mut()) {
            backoff.end();
        }
        self.end_freedom();
    }

    /// How many live tokens were forgotten since the last look.
    pub(crate) fn take_evicted(&mut self) -> usize {
        self.entries.take_evicted()
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
}

/// The credentials are looked at no more than once a second, over all keys.
fn is_probe_due(probed: Option<Timestamp>, now: Timestamp) -> bool {
    probed.is_none_or(|last| now >= last.after(PROBE_INTERVAL))
}

/// How many kinds in a row, with no success between, speak for the client.
const KINDS_IN_A_ROW: usize = 8;

const OF_MANY: &str = "eight kinds of token in a row were refused, so the fault is likely to be \
                       the client's: check the client id, the secret and what it may ask for";

/// More than the time after its limit at which callers take a flight for lost.
const OVERDUE: Duration = Duration::from_secs(1);

/// How long callers wait for a renewal in the last stretch, at most.
const RENEWAL_WAIT: Duration = Duration::from_secs(1);

const PROBE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
