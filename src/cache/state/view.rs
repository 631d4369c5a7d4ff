//! How things stand, read without changing anything.

use std::sync::Arc;
use std::time::Duration;

use super::State;
use crate::cache::backoff::Failing;
use crate::cache::current::Token;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::params::TokenParams;

impl<F: Clone> State<F> {
    /// The token held, live or not.
    pub(crate) fn token(&self, request: &TokenParams) -> Option<&Arc<Token>> {
        self.entries.get(request)?.token.as_ref()
    }

    /// How long the token held is still good for; `None` when there is no live one.
    pub(crate) fn remaining(&self, request: &TokenParams, now: Timestamp) -> Option<Duration> {
        let token = self.entries.get(request)?.live(now)?;
        Some(token.schedule.end.since(now))
    }

    pub(crate) fn is_suspect(&self, request: &TokenParams) -> bool {
        self.entries.get(request).is_some_and(|entry| entry.suspect)
    }

    /// The flight under way for this kind.
    pub(crate) fn flight(&self, request: &TokenParams) -> Option<&F> {
        let ticket = self.entries.get(request)?.flight.as_ref()?;
        Some(&ticket.handle)
    }

    pub(crate) fn is_fetching(&self, request: &TokenParams) -> bool {
        self.entries
            .get(request)
            .is_some_and(|entry| entry.flight.is_some())
    }

    /// The failure in force, with the time until the next attempt.
    pub(crate) fn backoff(
        &self,
        request: &TokenParams,
        now: Timestamp,
    ) -> Option<(Error, Duration)> {
        let failing = self.failing(request, now)?;
        Some((failing.error, failing.until.since(now)))
    }

    /// Why the last flight failed, until one succeeds.
    pub(crate) fn last_error(&self, request: &TokenParams) -> Option<&Error> {
        let entry = self
            .entries
            .get(request)
            .and_then(|entry| entry.backoff.as_ref());
        entry.or(self.client.as_ref()).map(|backoff| &backoff.error)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A flight that has queued for its turn asks whether it may still go: what failed meanwhile for the endpoint fails it too.
    pub(crate) fn may_depart(&self, request: &TokenParams, now: Timestamp) -> Result<(), Error> {
        match self.failing(request, now) {
            Some(failing) => Err(failing.error.during_backoff(failing.until.since(now))),
            None => Ok(()),
        }
    }

    /// The failure in force for a key, its own or the client's, whichever lasts longer.
    ///
    /// A suspect token is served, but is nothing to rest on: the API may refuse it for good.
    pub(super) fn failing(&self, request: &TokenParams, now: Timestamp) -> Option<Failing> {
        let entry = self.entries.get(request);
        let live = entry.is_some_and(|entry| !entry.suspect && entry.live(now).is_some());
        let own = entry.and_then(|entry| entry.backoff.as_ref());
        let failures = self.client.iter().chain(own);
        failures
            .map(|backoff| (backoff.until(live), &backoff.error))
            .filter(|(until, _)| *until > now)
            .max_by_key(|(until, _)| *until)
            .map(|(until, error)| Failing {
                until,
                error: error.clone(),
            })
    }

    /// How many flights there have been.
    #[cfg(all(test, model))]
    pub(crate) fn flights(&self) -> u64 {
        self.flights
    }
}
