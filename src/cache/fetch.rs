//! The task that flies a flight: its turn, its attempts, its time limits, and what happens when it
//! is not driven or dies.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::flight::{Flight, LOOK};
use super::shared::Cache;
use super::sync::Arc;
use crate::clock::Timestamp;
use crate::endpoint::{Stage, within_attempt};
use crate::error::Error;
use crate::observe::{Event, Fetched, trace};
use crate::source::{FetchCause, TokenRequest};
use crate::token::TokenResponse;

/// Spawns the flight's own task. Never called under the cache's lock: a runtime that is shutting
/// down drops the task right here, and the guard in it takes that lock.
///
/// The guard comes first, so that whatever happens next leaves no flight that nobody flies.
pub(super) fn launch(cache: Arc<Cache>, flight: Arc<Flight>, runtime: &Handle) {
    let guard = Guard { cache, flight };
    let (id, cause) = (guard.flight.id, guard.flight.cause);
    drop(runtime.spawn(trace::in_flight_span(id, cause, run(guard))));
}

/// Tells the waiters when the task is dropped before it has landed: its runtime is gone.
struct Guard {
    cache: Arc<Cache>,
    flight: Arc<Flight>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flight.goes();
        self.cache.lose(&self.flight);
        self.cache
            .turns
            .release(self.flight.id, self.cache.clock.now());
    }
}

async fn run(guard: Guard) {
    let Guard { cache, flight } = &guard;
    let limit = cache.policy.flight_limit();
    let started = Instant::now();
    flight.begins(cache.clock.now().after(limit));
    let mut attempts = 0;
    let (end, host) = match cache.source.host(&flight.request) {
        Ok(host) => {
            let work = fly(cache, flight, started + limit, &mut attempts);
            match Driven::new(cache, flight, pin!(work)).await {
                Some(end) => (end, host),
                None => return,
            }
        }
        Err(panicked) => (End::Failed(panicked.into()), None),
    };
    let latency = started.elapsed();
    let landing = Fetched {
        cause: flight.cause,
        attempts,
        latency,
        host,
    };
    match end {
        End::Token { response, sent } => {
            cache.succeed(flight, &response, sent, &landing);
        }
        End::Failed(error) => {
            let error = error.with_effort(attempts, latency);
            cache.fail(flight, error.at_host(host), &landing);
        }
        End::Grounded(error) => {
            cache.fail_with_others(flight, error.at_host(host), &landing);
        }
        End::Unchanged => cache.stay(flight),
        End::Missed => cache.miss(flight),
        End::Deserted => cache.lose(flight),
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
    /// An attempt was not polled past its limit: a process that was frozen, or a runtime that
    /// nobody drove. Whatever came of it says nothing of the endpoint.
    Missed,
    /// All who waited for it left before its turn came.
    Deserted,
}

/// Ends by `deadline`, or as soon as it is polled after it: whatever is awaited here has a limit.
async fn fly(cache: &Cache, flight: &Arc<Flight>, deadline: Instant, attempts: &mut u32) -> End {
    // One that was given up drops its token request as soon as it is polled. Where nobody drives it
    // that may be never.
    let time = deadline.saturating_duration_since(Instant::now());
    let _ = timeout(MOMENT.min(time / 4), flight.follows()).await;
    if flight.cause == FetchCause::Credentials {
        let Some(changed) = cache.source.credentials_changed() else {
            return End::Unchanged;
        };
        if !matches!(timeout(PROBE_TIMEOUT, changed).await, Ok(Ok(true))) {
            return End::Unchanged;
        }
        cache.end_every_backoff();
    }
    if let Err(end) = turn(cache, flight, deadline, true).await {
        return end;
    }
    cache.watch.tell(&Event::FetchStarted {
        cause: flight.cause,
    });
    let mut tries = 0;
    loop {
        tries += 1;
        *attempts += 1;
        cache.count_attempt();
        let sent = cache.clock.now();
        let limit = cache
            .policy
            .attempt_limit()
            .min(deadline.saturating_duration_since(Instant::now()));
        let late = sent.after(limit);
        let stage = Stage::default();
        let answer = {
            let request = TokenRequest::new(&flight.request).with_cause(flight.cause, tries);
            let attempt = cache.source.token(request);
            let mut attempt = pin!(within_attempt(limit, &stage, attempt));
            let answer = timeout(limit, attempt.as_mut()).await;
            if answer.is_err() && flight.stood_still_since(sent) {
                // The answer may have come meanwhile, to a connection that has to be polled first.
                timeout(MOMENT, attempt).await
            } else {
                answer
            }
        };
        let error = match answer {
            Ok(Ok(Ok(response))) => return End::Token { response, sent },
            Ok(Ok(Err(error))) => error,
            Ok(Err(panicked)) => return End::Failed(panicked.into()),
            Err(_) if flight.stood_still_since(sent) => return End::Missed,
            Err(_) => stage.timed_out(limit),
        };
        if is_late(cache, late) {
            return End::Missed;
        }
        if error.is_unsent() {
            *attempts -= 1;
            cache.uncount_attempt();
        }
        if !error.again() || tries >= cache.policy.attempts {
            return End::Failed(error);
        }
        let pause = pause(tries, fastrand::f64());
        if Instant::now() + pause >= deadline {
            return End::Failed(error);
        }
        trace::attempt_failed(tries, &error, pause);
        let until = cache.clock.now().after(pause);
        sleep(pause).await;
        if is_late(cache, until) {
            return End::Missed;
        }
        // Somebody else may have it meanwhile, if this flight was not polled for a while.
        if let Err(end) = turn(cache, flight, deadline, false).await {
            return end;
        }
    }
}

/// Whether so much more than a moment has passed since `due` that only a process or a runtime which
/// stood still can have missed it.
fn is_late(cache: &Cache, due: Timestamp) -> bool {
    cache.clock.now() > due.after(LATE)
}

/// Waits until the flight may make its token requests.
///
/// The layer's own kind has a turn of its own, so that other kinds cannot keep it from flying.
async fn turn(
    cache: &Cache,
    flight: &Arc<Flight>,
    deadline: Instant,
    first: bool,
) -> Result<(), End> {
    if flight.request != *cache.own() {
        queue(cache, flight, deadline, first).await?;
    }
    cache.may_depart(&flight.request).map_err(End::Grounded)
}

/// A flight that has not had its first turn leaves the queue when nobody waits for it any more.
async fn queue(
    cache: &Cache,
    flight: &Arc<Flight>,
    deadline: Instant,
    first: bool,
) -> Result<(), End> {
    // Whoever gets a turn has time for an attempt with it; whoever gets none has learnt nothing
    // about the endpoint.
    let limit = deadline.saturating_duration_since(Instant::now());
    let patience = limit - cache.policy.attempt_limit().min(limit / 2);
    let mut patience = pin!(sleep(patience));
    // Nothing is known of others until this one has been driven itself for a while.
    let joined = cache.clock.now();
    poll_fn(|cx| {
        if first && flight.is_deserted() {
            return Poll::Ready(Err(End::Deserted));
        }
        let now = cache.clock.now();
        let judge = now.since(flight.driven_since(joined)) >= LOOK;
        if cache.turns.poll(flight, now, judge, cx.waker()).is_ready() {
            // Whoever stood still for so long that no time is left for an attempt has missed its
            // turn.
            let in_time = Instant::now() <= patience.deadline() + LOOK;
            return Poll::Ready(in_time.then_some(()).ok_or(End::Missed));
        }
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Err(if flight.stood_still_since(joined) {
            End::Missed
        } else {
            End::Grounded(no_turn(cache.policy.max_flights))
        }))
    })
    .await
}

/// The work of a flight, polled often enough to show that its runtime is driven and to see which
/// others are not, and dropped as soon as the flight is given up.
struct Driven<'a, W> {
    cache: &'a Cache,
    flight: &'a Flight,
    work: Pin<&'a mut W>,
    tick: Pin<Box<Sleep>>,
}

impl<'a, W> Driven<'a, W> {
    fn new(cache: &'a Cache, flight: &'a Flight, work: Pin<&'a mut W>) -> Self {
        Self {
            cache,
            flight,
            work,
            tick: Box::pin(sleep(LOOK)),
        }
    }
}

impl<W: Future> Future for Driven<'_, W> {
    type Output = Option<W::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let now = self.cache.clock.now();
        if !self.flight.is_polled(now, cx.waker()) {
            return Poll::Ready(None);
        }
        while self.tick.as_mut().poll(cx).is_ready() {
            self.tick.as_mut().reset(Instant::now() + LOOK);
        }
        self.work.as_mut().poll(cx).map(Some)
    }
}

fn no_turn(max_flights: usize) -> Error {
    Error::timed_out(format!(
        "{max_flights} other kinds of token were being fetched and none made room"
    ))
    .with_advice("ask for fewer kinds of token at once")
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

/// How much later than its limit a flight may be polled and still call it a time-out.
const LATE: Duration = Duration::from_secs(1);

/// What an attempt has to end in when it was polled too late. Less than what waiters give it.
const MOMENT: Duration = Duration::from_millis(250);

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
