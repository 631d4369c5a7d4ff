//! The task that flies a flight: its attempts, its time limits, and what happens when it dies.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::flight::Flight;
use super::shared::Cache;
use super::sync::Arc;
use crate::error::Error;
use crate::observe::{Cause, Event, Landing, trace};
use crate::token::{Timestamp, TokenResponse};

/// Spawns the flight's own task. Never called under the cache's lock: a runtime that is shutting down drops the task right
/// here, and the guard in it takes that lock.
pub(super) fn launch(cache: Arc<Cache>, flight: Arc<Flight>, runtime: &Handle) {
    let span = trace::flight_span(&flight);
    let guard = Guard { cache, flight };
    drop(runtime.spawn(run(guard).instrument(span)));
}

/// Tells the waiters when the task is dropped before it has landed: its runtime is gone.
struct Guard {
    cache: Arc<Cache>,
    flight: Arc<Flight>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cache.lose(&self.flight);
    }
}

async fn run(guard: Guard) {
    let Guard { cache, flight } = &guard;
    let started = Instant::now();
    let limit = flight.deadline.since(cache.clock.now());
    let mut attempts = 0;
    // The source is the user's code: its panic is a failure like any other, and must not look like a lost runtime, which would
    // be tried again at once.
    let work = AssertUnwindSafe(fly(cache, flight, started + limit, &mut attempts)).catch_unwind();
    let end = match timeout(limit, work).await {
        Ok(Ok(end)) => end,
        Ok(Err(_)) => End::Failed(panicked()),
        Err(_) => End::Failed(Error::timed_out(format!("no token within {limit:.1?}"))),
    };
    let latency = started.elapsed();
    let landing = Landing {
        cause: flight.cause,
        attempts,
        latency,
        endpoint: cache.source.endpoint(),
    };
    match end {
        End::Token { response, sent } => {
            cache.succeed(flight, &response, sent);
            cache.watch.succeeded(&landing, &flight.request, &response);
        }
        End::Failed(error) => {
            let error = error.with_effort(attempts, latency);
            let (error, left) = cache.fail(flight, error.at_endpoint(landing.endpoint));
            cache.watch.failed(&landing, &error, left);
        }
        End::Grounded(error) => {
            let error = error.at_endpoint(landing.endpoint);
            let (error, left) = cache.fail_with_others(flight, error);
            cache.watch.failed(&landing, &error, left);
        }
        End::Unchanged => cache.stay(flight),
    }
}

/// How the work of a flight ended.
enum End {
    Token {
        response: TokenResponse,
        sent: Timestamp,
    },
    Failed(Error),
    /// It never departed: the endpoint failed for others while it queued, or its turn did not come.
    Grounded(Error),
    /// The credentials are the same as before, so there is nothing to try.
    Unchanged,
}

async fn fly(cache: &Cache, flight: &Flight, deadline: Instant, attempts: &mut u32) -> End {
    if flight.cause == Cause::Credentials {
        let changed = timeout(PROBE_TIMEOUT, cache.source.credentials_changed()).await;
        if !changed.unwrap_or(false) {
            return End::Unchanged;
        }
        cache.end_backoff(&flight.request);
    }
    // Whoever gets a turn has time for an attempt with it; whoever gets none has learnt nothing about the endpoint.
    let limit = deadline.saturating_duration_since(Instant::now());
    let patience = limit - cache.policy.attempt_timeout.min(limit / 2);
    let Ok(permit) = timeout(patience, cache.permits.acquire()).await else {
        return End::Grounded(no_turn(cache.policy.max_flights));
    };
    let _permit = permit.expect("nothing closes the semaphore");
    if let Err(error) = cache.may_depart(&flight.request) {
        return End::Grounded(error);
    }
    cache.watch.tell(&Event::FetchStarted {
        cause: flight.cause,
    });
    loop {
        *attempts += 1;
        cache.count_attempt();
        let sent = cache.clock.now();
        let limit = cache
            .policy
            .attempt_timeout
            .min(deadline.saturating_duration_since(Instant::now()));
        let error = match timeout(limit, cache.source.token(&flight.request)).await {
            Ok(Ok(response)) => return End::Token { response, sent },
            Ok(Err(error)) => error,
            Err(_) => Error::timed_out(format!("no answer within {limit:.1?}")),
        };
        if !error.again() || *attempts >= cache.policy.attempts {
            return End::Failed(error);
        }
        let pause = pause(*attempts, fastrand::f64());
        if Instant::now() + pause >= deadline {
            return End::Failed(error);
        }
        trace::attempt_failed(*attempts, &error, pause);
        sleep(pause).await;
    }
}

fn no_turn(max_flights: usize) -> Error {
    Error::timed_out(format!(
        "{max_flights} other kinds of token were being fetched and none made room"
    ))
    .with_advice("raise RefreshPolicy::max_flights, or ask for fewer kinds of token at once")
}

/// Fully jittered, so that instances which failed together do not come back together. Short, since callers wait.
fn pause(attempts: u32, spread: f64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << (attempts - 1).min(6));
    longest.mul_f64(spread)
}

/// The longest pause after the first attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Callers wait for this look at the credentials, so a provider that hangs costs no more than this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The message of a panic is the user's own text and may hold anything, so it is not repeated; the panic hook has told it.
fn panicked() -> Error {
    Error::transient("the token source panicked").with_advice(
        "look for the panic's own message; it comes from the TokenSource, the token client or the secret provider",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_short_and_fully_jittered() {
        assert_eq!(pause(1, 0.0), Duration::ZERO);
        assert_eq!(pause(1, 1.0), Duration::from_millis(200));
        assert_eq!(pause(2, 1.0), Duration::from_millis(400));
        assert!(pause(u32::MAX, 1.0) <= Duration::from_secs(13));
    }
}
