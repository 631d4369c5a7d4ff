//! What the cache learns when a flight ends, and what its waiters are told.

use std::sync::Weak;

use super::Cache;
use crate::cache::current::Token;
use crate::cache::flight::{Flight, Outcome};
use crate::cache::lifetime::Schedule;
use crate::cache::state::State;
use crate::cache::sync::{Arc, lock};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::observe::{Event, Fetched};
use crate::token::TokenResponse;

impl Cache {
    /// A flight brought a token.
    pub(in crate::cache) fn succeed(
        &self,
        flight: &Flight,
        response: &TokenResponse,
        sent: Timestamp,
        landing: &Fetched<'_>,
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
        let (token, evicted) = {
            let mut state = lock(&self.state);
            if response.by_new_credentials {
                state.end_every_backoff();
            }
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
            (token, state.take_evicted())
        };
        self.watch.succeeded(landing, &flight.request, response);
        self.land(flight, Outcome::Token(token));
        self.tell_evicted(evicted);
    }

    /// A flight failed. Nobody is told of one that had been given up: whatever it says is out of
    /// date.
    pub(in crate::cache) fn fail(&self, flight: &Flight, error: Error, landing: &Fetched<'_>) {
        self.ground(flight, error, landing, |state, now, error| {
            state.failed(&flight.request, flight.id, now, error, fastrand::f64())
        });
    }

    /// The same for a flight that never departed, since the endpoint failed for others while it queued or its turn did not
    /// come: its callers are told, and nothing is learnt about the endpoint.
    pub(in crate::cache) fn fail_with_others(
        &self,
        flight: &Flight,
        error: Error,
        landing: &Fetched<'_>,
    ) {
        self.ground(flight, error, landing, |state, now, _| {
            state.lost(&flight.request, flight.id, now)
        });
    }

    fn ground(
        &self,
        flight: &Flight,
        error: Error,
        landing: &Fetched<'_>,
        record: impl FnOnce(&mut State<Arc<Flight>>, Timestamp, &Error) -> bool,
    ) {
        let now = self.clock.now();
        let (backoff, left) = {
            let mut state = lock(&self.state);
            if !record(&mut state, now, &error) {
                return;
            }
            (
                state.backoff(&flight.request, now),
                state.remaining(&flight.request, now),
            )
        };
        let told = match backoff {
            Some((_, wait)) => error.during_backoff(wait),
            None => error,
        };
        // Before the callers: the first of them may end the process, and the reason with it.
        self.watch.failed(landing, &told, left);
        self.land(flight, Outcome::Failed(told));
    }

    /// A flight looked at the credentials and found them unchanged: what failed before is still so.
    pub(in crate::cache) fn stay(&self, flight: &Flight) {
        let now = self.clock.now();
        let reason = {
            let mut state = lock(&self.state);
            if !state.lost(&flight.request, flight.id, now) {
                return;
            }
            state.backoff(&flight.request, now)
        };
        let outcome = match reason {
            Some((error, wait)) => Outcome::Failed(error.during_backoff(wait)),
            None => Outcome::Lost,
        };
        self.land(flight, outcome);
    }

    /// A flight will never end by itself, since its runtime is gone, or nobody needs it any more.
    /// Whoever does wait for it asks again, and the first of them takes over.
    pub(in crate::cache) fn lose(&self, flight: &Flight) {
        // Every flight's task ends here; mostly its flight has ended before.
        if flight.is_finished() {
            return;
        }
        let now = self.clock.now();
        // Whoever ends it in the state machine sets its outcome; it may have ended by now.
        if lock(&self.state).lost(&flight.request, flight.id, now) {
            self.land_lost(flight, Outcome::Lost);
        }
    }

    /// A flight was not polled past its limit, so nothing is learnt about the endpoint and whoever
    /// needs a token flies anew.
    ///
    /// The second one in a row that somebody has waited for is a failure all the same: the runtime
    /// is starved, and would only starve the next flight too. Those that nobody waited for do not
    /// count. A runtime that is driven by one `block_on` for each call leaves them behind with
    /// every renewal ahead of time.
    pub(in crate::cache) fn miss(&self, flight: &Flight) {
        if !flight.has_waiters() {
            return self.lose(flight);
        }
        let now = self.clock.now();
        let limit = self.policy.flight_limit();
        let error = Error::timed_out(format!(
            "two token requests in a row were not driven to their end within {limit:.1?}"
        ))
        .with_advice("look for what blocks the tokio runtime's threads or stops this process");
        let error = match self.source.host(&flight.request) {
            Ok(host) => error.at_host(host),
            Err(_) => error,
        };
        let failed = {
            let mut state = lock(&self.state);
            if !state.missed(&flight.request, flight.id, now, &error, fastrand::f64()) {
                return;
            }
            state.backoff(&flight.request, now)
        };
        let outcome = match failed {
            Some((error, wait)) => Outcome::Failed(error.during_backoff(wait)),
            None => Outcome::Lost,
        };
        self.land_lost(flight, outcome);
    }

    fn land_lost(&self, flight: &Flight, outcome: Outcome) {
        self.land(flight, outcome);
        self.watch.tell(&Event::FetchLost {
            cause: flight.cause,
        });
    }

    fn land(&self, flight: &Flight, outcome: Outcome) {
        flight.finish(outcome);
        // Also when it had landed: its turn is free as soon as it is given up, whether or not its
        // task is ever polled again.
        self.turns.release(flight.id, self.clock.now());
    }
}
