//! What the cache learns when a flight ends, and what its waiters are told.

use std::sync::Weak;
use std::time::Duration;

use super::Cache;
use crate::cache::flight::{Flight, Outcome};
use crate::cache::state::State;
use crate::cache::sync::{Arc, lock};
use crate::error::Error;
use crate::observe::Event;
use crate::token::{Schedule, Timestamp, Token, TokenResponse};

impl Cache {
    /// A flight brought a token.
    pub(in crate::cache) fn succeed(
        &self,
        flight: &Flight,
        response: &TokenResponse,
        sent: Timestamp,
    ) {
        let now = self.clock.now();
        let schedule = Schedule::new(
            &self.policy,
            sent,
            now,
            response.expires_in,
            response.refresh_in,
            fastrand::f64(),
        );
        let token = {
            let mut state = lock(&self.state);
            let token = state.succeeded(&flight.request, flight.id, now, |generation| {
                Token::new(
                    &response.value,
                    generation,
                    flight.id,
                    schedule,
                    flight.request.clone(),
                    Weak::clone(&self.itself),
                    Arc::clone(&self.refusals),
                )
            });
            self.publish(&state);
            token
        };
        self.land(flight, Outcome::Token(token));
    }

    /// A flight failed. Returns the error as the waiters were told it, and how long a live token is still good for, when there
    /// is one to live on.
    pub(in crate::cache) fn fail(
        &self,
        flight: &Flight,
        error: Error,
    ) -> (Error, Option<Duration>) {
        self.ground(flight, error, |state, now, error| {
            state.failed(&flight.request, flight.id, now, error, fastrand::f64());
        })
    }

    /// The same for a flight that never departed, since the endpoint failed for others while it queued or its turn did not
    /// come: its callers are told, and nothing is learnt about the endpoint.
    pub(in crate::cache) fn fail_with_others(
        &self,
        flight: &Flight,
        error: Error,
    ) -> (Error, Option<Duration>) {
        self.ground(flight, error, |state, _, _| {
            state.lost(&flight.request, flight.id);
        })
    }

    fn ground(
        &self,
        flight: &Flight,
        error: Error,
        record: impl FnOnce(&mut State<Arc<Flight>>, Timestamp, &Error),
    ) -> (Error, Option<Duration>) {
        let now = self.clock.now();
        let (backoff, left) = {
            let mut state = lock(&self.state);
            record(&mut state, now, &error);
            (
                state.backoff(&flight.request, now),
                state.remaining(&flight.request, now),
            )
        };
        let told = match backoff {
            // What the server asked for is told as it said it, unless it asked for more than is obeyed.
            Some((_, wait)) if error.retry_after().is_none_or(|asked| asked > wait) => {
                error.during_backoff(wait)
            }
            _ => error,
        };
        self.land(flight, Outcome::Failed(told.clone()));
        (told, left)
    }

    /// A flight looked at the credentials and found them unchanged: what failed before is still so.
    pub(in crate::cache) fn stay(&self, flight: &Flight) {
        let now = self.clock.now();
        let reason = {
            let mut state = lock(&self.state);
            state.lost(&flight.request, flight.id);
            state.backoff(&flight.request, now)
        };
        let outcome = match reason {
            Some((error, wait)) => Outcome::Failed(error.during_backoff(wait)),
            None => Outcome::Lost,
        };
        self.land(flight, outcome);
    }

    /// A flight will never end by itself: whoever waits for it asks again, and the first of them takes over.
    pub(in crate::cache) fn lose(&self, flight: &Flight) {
        // A flight that has landed keeps its outcome, and the key may have another flight by now.
        if flight.is_finished() {
            return;
        }
        lock(&self.state).lost(&flight.request, flight.id);
        self.land(flight, Outcome::Lost);
    }

    fn land(&self, flight: &Flight, outcome: Outcome) {
        let waiters = flight.finish(outcome);
        if let Some(waiters) = waiters.filter(|waiters| *waiters > 0) {
            self.watch.tell(&Event::WaitersReleased { waiters });
        }
    }
}
