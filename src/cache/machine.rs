//! The state machine of the cache: what a call may do now, and what an event changes.
//!
//! It has no clock, no lock, no task and no I/O, and calls nobody. `now` and the random draws are
//! arguments; what it returns is all that happens, and the [`shell`](super::shell) does it. A
//! flight is a number here, and `T` is whatever the shell hands out for a token.
//!
//! # Invariants
//!
//! 1. A token is never served at or after its end (R10).
//! 2. A live token is always served, at the latest after the wait of its fallback; no failure takes
//!    it away (R12).
//! 3. At most one flight for each set of parameters is registered (R5). Whoever gets a [`Launch`]
//!    starts that flight or says that it has ended.
//! 4. A token is displaced only by one of a later flight.
//! 5. Nothing is fetched during a backoff (R15), and nothing within a second of the last success
//!    unless the token was refused or forgotten (R13).
//! 6. A flight that is not registered any more, since it was given up, records no failure (R6). One
//!    that is older than the last success says nothing of the client.
//! 7. A 401 makes suspect only the generation that it refused (R18), and within its budget (R20).
//!
//! Rules: R5, R10, R12, R13, R15, R16, R17, R18, R20.

use std::time::Duration;

use super::backoff::Backoff;
use super::entries::{Entries, Held, Left};
use super::lifetime::{Freshness, Lifetime};
use super::policy::CachePolicy;
use crate::clock::Timestamp;
use crate::error::{Error, Reach};
use crate::params::TokenParams;
use crate::source::FetchCause;

/// All entries of one layer, and the backoff of the client that they share.
pub(super) struct Machine<T> {
    policy: CachePolicy,
    /// The credentials are read anew for each attempt, so a backoff is worth a look at them.
    credentials_can_change: bool,
    entries: Entries<T>,
    client: Option<Backoff>,
    /// Parameters that were rejected for themselves, with no success between; see [`IN_A_ROW`].
    rejected: Vec<TokenParams>,
    flights: u64,
    /// The latest flight that brought a token.
    last_success: u64,
    /// When the credentials were last looked at: when a look began, and then when it ended.
    looked: Option<Timestamp>,
}

/// What a call needs and can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// A token of a later generation than one that was refused; any live token otherwise.
    pub(super) newer_than: Option<u64>,
    /// It can wait for a flight.
    pub(super) can_wait: bool,
    /// It can launch one.
    pub(super) can_launch: bool,
}

/// A flight to start.
#[derive(Debug)]
pub(super) struct Launch<T> {
    pub(super) flight: u64,
    pub(super) cause: FetchCause,
    /// The flight before it, if it was given up: its token request ends first.
    pub(super) after: Option<u64>,
    /// The token that it is to replace, if an API refused that.
    pub(super) refused: Option<T>,
}

/// What a call may do now. `F` is a flight.
#[derive(Debug)]
pub(super) enum Decision<T, F> {
    Serve(T),
    Wait {
        flight: F,
        /// A live token, to be used when the flight has not brought a better one by then.
        fallback: Option<(T, Duration)>,
    },
    /// A backoff, and no live token.
    Fail(Error),
    /// To wait or to launch, which this call cannot. The live token, if there is one.
    Unable(Option<T>),
}

/// How a flight ended.
pub(super) enum End<T> {
    Token {
        token: T,
        lifetime: Lifetime,
        /// With other credentials than those that failed before.
        new_credentials: bool,
    },
    Failed(Error),
    /// It made no attempt, since the endpoint failed for others or its turn did not come.
    NotAttempted(Error),
    /// It found the credentials unchanged, so what failed before still would.
    Unchanged,
    /// It was not polled past its limit while somebody waited for it.
    Missed(Error),
    /// It will never end by itself, or nobody needs it any more.
    Lost,
}

/// What those who waited for a flight are told.
#[derive(Clone, Debug)]
pub(super) enum Outcome<T> {
    Token(T),
    Failed(Error),
    /// It ended without an answer. Whoever still needs a token asks again.
    Lost,
}

/// What a 401 changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token is suspect now: the next call renews first.
    Suspected,
    /// It was already, or another token is in its place.
    Known,
    /// Nothing: this origin has spent its renewals. `first` since it had any.
    BudgetSpent { first: bool },
}

/// A snapshot of the cache, from [`TokenCache::status`](super::TokenCache::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheStatus {
    /// The generation of the live token; `None` when there is none.
    pub generation: Option<u64>,
    /// How long ago its token request was sent.
    pub age: Option<Duration>,
    /// How long it is still good for.
    pub remaining: Option<Duration>,
    /// Whether an API refused it and it has not been renewed yet.
    pub suspect: bool,
    /// Whether a flight is under way.
    pub fetching: bool,
    /// During a backoff, the time until the next attempt may start; `None` when one may start now.
    pub next_attempt_in: Option<Duration>,
    /// Why the last flight failed: one for these parameters, or one whose failure speaks for the
    /// client. `None` after a success.
    pub last_error: Option<Error>,
    /// How many sets of parameters are in the cache, the layer's own included.
    pub entries: usize,
    /// How many token requests were sent so far, for all parameters. Each attempt counts.
    pub token_requests: u64,
}

impl CacheStatus {
    /// Whether there is a live token, or one may be fetched now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.generation.is_some() || self.next_attempt_in.is_none()
    }
}

impl<T: Clone> Machine<T> {
    pub(super) fn new(policy: CachePolicy, own: TokenParams, credentials_can_change: bool) -> Self {
        Self {
            entries: Entries::new(own, policy.max_entries),
            policy,
            credentials_can_change,
            client: None,
            rejected: Vec::new(),
            flights: 0,
            last_success: 0,
            looked: None,
        }
    }

    /// A call needs a token.
    pub(super) fn ask(
        &mut self,
        params: &TokenParams,
        wish: Wish,
        now: Timestamp,
    ) -> (Decision<T, u64>, Option<Launch<T>>) {
        let failure = self.failure_in_force(params, now);
        let entry = self.entries.admit(params, now);
        entry.used = true;

        let newer = |held: &&Held<T>| wish.newer_than.is_none_or(|old| held.generation > old);
        let usable = entry.live(now).filter(newer).cloned();
        let rest = usable.as_ref().map(|held| held.lifetime.rest);
        let rest = rest.filter(|rest| !entry.suspect && *rest > now);
        let not_before = failure.as_ref().map(|(until, _)| *until).max(rest);
        let cause = match &usable {
            None if wish.newer_than.is_some() => FetchCause::Refused,
            None => FetchCause::NoToken,
            Some(_) if entry.suspect => FetchCause::Refused,
            Some(held) => match held.lifetime.freshness(now) {
                Freshness::Fresh => {
                    entry.free_until = held.lifetime.stale;
                    return (Decision::Serve(held.token.clone()), None);
                }
                Freshness::Stale => FetchCause::Ahead,
                Freshness::LastStretch => FetchCause::LastStretch,
            },
        };

        // A renewal ahead of time is started and not waited for.
        let waits = usable.is_none() || cause != FetchCause::Ahead;
        let able = wish.can_wait || !waits;
        let later = |usable: Option<Held<T>>| match usable {
            Some(held) if !waits => (Decision::Serve(held.token), None),
            usable => (Decision::Unable(usable.map(|held| held.token)), None),
        };
        let launch = match (entry.flight, not_before) {
            (Some(_), _) if able => None,
            (None, None) if able && wish.can_launch => Some(cause),
            (None, Some(_))
                if self.credentials_can_change
                    && rest.is_none()
                    && self
                        .looked
                        .is_none_or(|last| now >= last.after(CREDENTIALS_EVERY)) =>
            {
                if !(able && wish.can_launch) {
                    return later(usable);
                }
                self.looked = Some(now);
                Some(FetchCause::Credentials)
            }
            (None, Some(until)) => {
                let Some(held) = usable else {
                    let (_, error) = failure.expect("only a token rests");
                    return (Decision::Fail(error.during_backoff(until.since(now))), None);
                };
                let look = match (rest, self.looked) {
                    (Some(rest), _) => rest,
                    (None, Some(last)) if self.credentials_can_change => {
                        last.after(CREDENTIALS_EVERY)
                    }
                    (None, _) => Timestamp::MAX,
                };
                entry.free_until = until.min(held.lifetime.end).min(look);
                return (Decision::Serve(held.token), None);
            }
            (Some(_), _) | (None, None) => return later(usable),
        };
        let launch = launch.map(|cause| {
            self.flights += 1;
            entry.flight = Some(self.flights);
            Launch {
                flight: self.flights,
                cause,
                after: entry.given_up.take(),
                refused: (entry.suspect)
                    .then(|| entry.held.as_ref().map(|held| held.token.clone()))
                    .flatten(),
            }
        });

        let flight = entry.flight.expect("joined or launched");
        let decision = match usable {
            Some(held) if !waits => {
                // Looked at again when the flight should have ended, in case nobody drives it.
                let due = now.after(self.policy.flight_limit()).after(OVERDUE);
                entry.free_until = held.lifetime.last_stretch.min(due);
                Decision::Serve(held.token)
            }
            usable => Decision::Wait {
                flight,
                fallback: usable.map(|held| {
                    let remaining = held.lifetime.end.since(now);
                    let wait = self.policy.scaled(RENEWAL_WAIT).min(remaining / 4);
                    (held.token, wait)
                }),
            },
        };
        (decision, launch)
    }

    /// The token that may be served without a decision, and until when.
    pub(super) fn free(&mut self, params: &TokenParams) -> Option<(&T, Timestamp)> {
        let entry = self.entries.get_active(params)?;
        let held = entry.held.as_ref()?;
        entry.used = true;
        Some((&held.token, entry.free_until))
    }

    /// A flight has ended. Returns what its waiters are told; `None` for the failure of one that
    /// had been given up, which is out of date.
    pub(super) fn ended(
        &mut self,
        params: &TokenParams,
        flight: u64,
        end: End<T>,
        now: Timestamp,
        draw: f64,
    ) -> Option<Outcome<T>> {
        let under_way = self.entries.ended(params, flight, now);
        let error = match end {
            End::Token {
                token,
                lifetime,
                new_credentials,
            } => {
                if new_credentials {
                    self.end_every_backoff();
                }
                let held = Held {
                    token,
                    generation: flight,
                    lifetime,
                };
                return Some(Outcome::Token(self.succeeded(params, held, now)));
            }
            End::Failed(error) | End::NotAttempted(error) | End::Missed(error) if !under_way => {
                self.entries.leave(Some(error));
                return None;
            }
            _ if !under_way => return None,
            End::Lost => return Some(Outcome::Lost),
            End::Unchanged => {
                // From its end: a provider that hangs does not make every call wait.
                self.looked = self.looked.max(Some(now));
                None
            }
            End::Missed(error) => {
                self.missed(params, flight, &error, now, draw);
                None
            }
            End::NotAttempted(error) => Some(error),
            End::Failed(error) => {
                self.failed(params, flight, &error, now, draw);
                Some(error)
            }
        };
        Some(match (error, self.failure_in_force(params, now)) {
            (Some(error), Some((until, _))) => {
                Outcome::Failed(error.during_backoff(until.since(now)))
            }
            (Some(error), None) => Outcome::Failed(error),
            (None, Some((until, error))) => Outcome::Failed(error.during_backoff(until.since(now))),
            (None, None) => Outcome::Lost,
        })
    }

    /// Returns the token in force, which is another one when a later flight was faster.
    fn succeeded(&mut self, params: &TokenParams, new: Held<T>, now: Timestamp) -> T {
        let flight = new.generation;
        self.last_success = self.last_success.max(flight);
        self.rejected.clear();
        if let Some(over) = self.client.take_if(|backoff| backoff.is_over(flight)) {
            self.entries.leave(Some(over.error));
            self.decide_anew();
        }
        let entry = self.entries.admit(params, now);
        // No flight up to this one has a token request under way any more.
        entry.given_up = None;
        let newer = entry.live(now).filter(|held| held.generation > flight);
        if let Some(newer) = newer {
            return newer.token.clone();
        }
        let token = new.token.clone();
        if new.lifetime.freshness(now) == Freshness::Fresh {
            entry.free_until = new.lifetime.stale;
        }
        entry.held = Some(new);
        entry.suspect = false;
        entry.missed = 0;
        let over = entry.backoff.take();
        self.entries.leave(over.map(|backoff| backoff.error));
        token
    }

    fn failed(
        &mut self,
        params: &TokenParams,
        flight: u64,
        error: &Error,
        now: Timestamp,
        draw: f64,
    ) {
        let outdated = flight < self.last_success;
        if !outdated || error.reach() == Reach::Params {
            // This flight got an answer, so the run of missed flights ends.
            self.entries.admit(params, now).missed = 0;
        }
        match error.reach() {
            // A server that asked for a wait gets it, even if only for these parameters.
            Reach::Client if outdated && error.server_retry_after().is_some() => {
                self.back_off(params, flight, error, now, draw);
            }
            Reach::Client if outdated => self.missed(params, flight, error, now, draw),
            Reach::Client => self.back_off_client(flight, error, now, draw),
            Reach::Params => {
                self.back_off(params, flight, error, now, draw);
                if !outdated && self.speaks_for_the_client(params) {
                    let error = error.clone().with_advice(MANY_IN_A_ROW);
                    self.back_off_client(flight, &error, now, draw);
                }
            }
        }
    }

    /// A flight said nothing of the client. The second one in a row backs off, for these parameters
    /// alone, so that they are not fetched again and again without a pause.
    fn missed(
        &mut self,
        params: &TokenParams,
        flight: u64,
        error: &Error,
        now: Timestamp,
        draw: f64,
    ) {
        let entry = self.entries.admit(params, now);
        entry.missed = entry.missed.saturating_add(1);
        if entry.missed > 1 {
            self.back_off(params, flight, error, now, draw);
        }
    }

    fn back_off(
        &mut self,
        params: &TokenParams,
        flight: u64,
        error: &Error,
        now: Timestamp,
        draw: f64,
    ) {
        let (policy, last) = (&self.policy, self.flights);
        let backoff = &mut self.entries.admit(params, now).backoff;
        let next = Backoff::after(policy, backoff.as_ref(), error, flight, last, now, draw);
        let before = backoff.replace(next);
        self.entries.leave(before.map(|backoff| backoff.error));
    }

    fn back_off_client(&mut self, flight: u64, error: &Error, now: Timestamp, draw: f64) {
        let (policy, last) = (&self.policy, self.flights);
        let client = self.client.as_ref();
        let next = Backoff::after(policy, client, error, flight, last, now, draw);
        let before = self.client.replace(next);
        self.entries.leave(before.map(|backoff| backoff.error));
    }

    /// Whether these are the last of so many parameters in a row that were rejected for themselves
    /// that it must be the client that is rejected: a wrong secret under a vendor's code, say.
    fn speaks_for_the_client(&mut self, params: &TokenParams) -> bool {
        let rejected = &mut self.rejected;
        if rejected.len() < IN_A_ROW && !rejected.contains(params) {
            rejected.push(params.clone());
        }
        rejected.len() >= IN_A_ROW
    }

    /// An API at `origin` refused the token of this generation.
    pub(super) fn refused(
        &mut self,
        params: &TokenParams,
        generation: u64,
        origin: u64,
        now: Timestamp,
    ) -> Refusal {
        let Some(entry) = self.entries.get_mut(params) else {
            return Refusal::Known;
        };
        let held = entry.live(now);
        if entry.suspect || held.is_none_or(|held| held.generation != generation) {
            return Refusal::Known;
        }
        let budget = entry.budgets.of(&self.policy, origin, now);
        if !budget.take(&self.policy, now) {
            let first = budget.tell_once();
            return Refusal::BudgetSpent { first };
        }
        entry.suspect = true;
        entry.free_until = Timestamp::ZERO;
        Refusal::Suspected
    }

    /// The user wants a new token now.
    pub(super) fn forget(&mut self, params: &TokenParams) {
        self.end_backoff(params);
        if let Some(entry) = self.entries.get_mut(params) {
            entry.held = None;
            entry.suspect = false;
        }
    }

    /// The next attempt for these parameters may start now.
    pub(super) fn end_backoff(&mut self, params: &TokenParams) {
        let entry = self.entries.get_mut(params);
        let own = entry.and_then(|entry| entry.backoff.as_mut());
        own.into_iter().for_each(Backoff::end);
        self.client.iter_mut().for_each(Backoff::end);
        self.decide_anew();
    }

    /// The next attempt may start now, whatever it is for: the credentials have changed.
    pub(super) fn end_every_backoff(&mut self) {
        let own = self.entries.values_mut();
        let own = own.filter_map(|entry| entry.backoff.as_mut());
        own.chain(self.client.as_mut()).for_each(Backoff::end);
        self.decide_anew();
    }

    /// A token may be free for as long as a backoff lasts that all entries share. When that ends
    /// early, the next call of each decides. Rare enough to look at all of them.
    fn decide_anew(&mut self) {
        for entry in self.entries.values_mut() {
            entry.free_until = Timestamp::ZERO;
        }
    }

    /// What is left to do once the lock is released.
    pub(super) fn take_left(&mut self) -> Left {
        self.entries.take_left()
    }

    /// The live token, if it is of a later generation.
    pub(super) fn live(
        &self,
        params: &TokenParams,
        newer_than: Option<u64>,
        now: Timestamp,
    ) -> Option<&T> {
        let held = self.entries.get(params)?.live(now)?;
        let newer = newer_than.is_none_or(|old| held.generation > old);
        newer.then_some(&held.token)
    }

    /// How long the live token is still good for.
    pub(super) fn remaining(&self, params: &TokenParams, now: Timestamp) -> Option<Duration> {
        let held = self.entries.get(params)?.live(now)?;
        Some(held.lifetime.end.since(now))
    }

    /// The flight under way.
    pub(super) fn flight(&self, params: &TokenParams) -> Option<u64> {
        self.entries.get(params)?.flight
    }

    /// Whether a flight may make its next attempt: what failed meanwhile for others fails it too.
    pub(super) fn may_attempt(&self, params: &TokenParams, now: Timestamp) -> Result<(), Error> {
        match self.failure_in_force(params, now) {
            Some((until, error)) => Err(error.during_backoff(until.since(now))),
            None => Ok(()),
        }
    }

    /// The failure in force, that of the parameters or of the client, whichever lasts longer.
    ///
    /// A suspect token is served, but is nothing to rest on: the API may refuse it for good.
    fn failure_in_force(&self, params: &TokenParams, now: Timestamp) -> Option<(Timestamp, Error)> {
        let entry = self.entries.get(params);
        let live = entry.is_some_and(|entry| !entry.suspect && entry.live(now).is_some());
        let own = entry.and_then(|entry| entry.backoff.as_ref());
        let failures = self.client.iter().chain(own);
        failures
            .map(|backoff| (backoff.until(live), &backoff.error))
            .filter(|(until, _)| *until > now)
            .max_by_key(|(until, _)| *until)
            .map(|(until, error)| (until, error.clone()))
    }

    /// A snapshot for people. `token_requests` is the shell's to fill in.
    pub(super) fn view(&self, params: &TokenParams, now: Timestamp) -> CacheStatus {
        let entry = self.entries.get(params);
        let held = entry.and_then(|entry| entry.live(now));
        let own = entry.and_then(|entry| entry.backoff.as_ref());
        CacheStatus {
            generation: held.map(|held| held.generation),
            age: held.map(|held| now.since(held.lifetime.sent)),
            remaining: held.map(|held| held.lifetime.end.since(now)),
            suspect: entry.is_some_and(|entry| entry.suspect),
            fetching: entry.is_some_and(|entry| entry.flight.is_some()),
            next_attempt_in: self
                .failure_in_force(params, now)
                .map(|(until, _)| until.since(now)),
            last_error: own
                .or(self.client.as_ref())
                .map(|backoff| backoff.error.clone()),
            entries: self.entries.len(),
            token_requests: 0,
        }
    }
}

/// How many parameters in a row, with no success between, speak for the client.
const IN_A_ROW: usize = 8;

const MANY_IN_A_ROW: &str = "eight sets of parameters in a row were rejected, so the fault is \
                             likely to be the client's: check the client id, the secret and what \
                             it may ask for";

/// More than the time after its limit at which callers take a flight for lost.
const OVERDUE: Duration = Duration::from_secs(1);

/// How long a call waits for a renewal in the last stretch, at most.
const RENEWAL_WAIT: Duration = Duration::from_secs(1);

/// The credentials are looked at no more often than this, over all parameters.
const CREDENTIALS_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "tests/machine.rs"]
mod tests;
