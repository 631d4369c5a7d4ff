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

mod view;

use std::sync::Arc;
use std::time::Duration;

use super::backoff::{Backoff, no_attempt};
use super::decision::{Decision, Fallback, Plan, Refusal};
use super::entries::Entries;
use super::entry::REST;
use super::policy::RefreshPolicy;
use crate::error::{Error, Reach};
use crate::grant::TokenRequest;
use crate::observe::Cause;
use crate::token::{Freshness, Timestamp, Token};

/// All keys of one layer, with the backoff of the endpoint they share. `F` is the shell's handle for a flight.
pub(crate) struct State<F> {
    policy: RefreshPolicy,
    entries: Entries<F>,
    endpoint: Option<Backoff>,
    generations: u64,
    flights: u64,
    /// When it was last asked whether the credentials have changed.
    probed: Option<Timestamp>,
}

impl<F: Clone> State<F> {
    pub(crate) fn new(policy: RefreshPolicy, own: TokenRequest) -> Self {
        Self {
            entries: Entries::new(own, policy.max_entries),
            policy,
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
        let failing = self.failing(request, now);
        let policy = &self.policy;
        let entry = self.entries.admit(request);
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
        self.entries.land(request, id);
        let entry = self.entries.admit(request);
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
        self.entries.land(request, id);
        let entry = self.entries.admit(request);
        let backoff = match error.reach() {
            Reach::Client => &mut self.endpoint,
            Reach::Kind => &mut entry.backoff,
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
        self.entries.land(request, id);
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
}

/// The credentials are looked at no more than once a second, over all keys.
fn probe_due(probed: &mut Option<Timestamp>, now: Timestamp) -> bool {
    let due = probed.is_none_or(|last| now >= last.after(PROBE_INTERVAL));
    if due {
        *probed = Some(now);
    }
    due
}

const PROBE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
