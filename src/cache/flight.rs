//! A flight's task, with its turn, its attempts and its time limits, and the future of a call that
//! waits for it.
//!
//! Rules: R6, R7, R8, R9, R17.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::current::Token;
use super::machine::{Decision, End, Wish};
use super::shell::{Cache, Decided};
use super::waiters::{Flight, Outcome, TICK, Waiter};
use crate::attempt::Attempt;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::observe::{self, Event, trace};
use crate::params::TokenParams;
use crate::runtime::{self, NoRuntime};
use crate::source::{FetchCause, TokenRequest};
use crate::token::TokenResponse;

/// What a call can have before its future is polled: a token to use, or the failure of a backoff.
/// `None` when there is something to wait for.
pub(crate) fn at_once(
    cache: &Arc<Cache>,
    params: &TokenParams,
) -> Option<Result<Arc<Token>, Error>> {
    let runtime = runtime::current().ok();
    match ask(cache, params, None, false, runtime.as_ref()).0 {
        Decision::Serve(token) => Some(Ok(token)),
        Decision::Fail(error) => Some(Err(error)),
        Decision::Wait { .. } | Decision::Unable(_) => None,
    }
}

/// Asks for one call, and launches the flight that it may need on the caller's runtime. The second
/// value says whether it did.
pub(super) fn ask(
    cache: &Arc<Cache>,
    params: &TokenParams,
    newer_than: Option<u64>,
    can_wait: bool,
    runtime: Option<&Handle>,
) -> (Decided, bool) {
    // The next call that finds an overdue flight gives it up: the runtime that it was launched on
    // is not driven, or the process was frozen.
    if let Some(flight) = cache.overdue(params) {
        end_missed(cache, &flight);
    }
    let wish = Wish {
        newer_than,
        can_wait,
        can_launch: runtime.is_some(),
    };
    let (decision, launched) = cache.ask(params, wish);
    let has_launched = launched.is_some();
    if let (Some(flight), Some(runtime)) = (launched, runtime) {
        launch(Arc::clone(cache), flight, runtime);
    }
    (decision, has_launched)
}

/// The future of a call that has no token at hand.
pub(crate) type Wait = Pin<Box<dyn Future<Output = Result<Arc<Token>, Error>> + Send>>;

/// Asks for a token, and waits for the flight that brings it: any live one, or one newer than a
/// generation that was refused.
///
/// Nothing happens before the first poll. Dropping it gives up one place among the waiters; the
/// flight goes on.
pub(crate) fn wait(cache: Arc<Cache>, params: TokenParams, newer_than: Option<u64>) -> Wait {
    // One async block: split into functions, each future would store its arguments twice.
    Box::pin(async move {
        let mut launches = 0;
        // When a call with a live token has waited enough, however many flights are lost meanwhile.
        let mut patience = None;
        loop {
            let (mut waiter, mut fallback, wait) =
                match step(&cache, &params, newer_than, &mut launches) {
                    Ok(joined) => joined,
                    Err(result) => return result,
                };
            let mut timer = pin!(sleep_until({
                let enough = Instant::now() + wait;
                match fallback {
                    Some(_) => enough.min(*patience.get_or_insert(enough)),
                    None => enough,
                }
            }));
            let outcome = loop {
                let told = poll_fn(|cx| waiter.poll(cx));
                if let Either::Left((outcome, _)) = select(told, timer.as_mut()).await {
                    break outcome;
                }
                let now = Instant::now();
                let left = waiter.flight.time_left(cache.clock.now());
                if left.is_zero() && fallback.is_none() && now - timer.deadline() > WAKE {
                    // Whoever waits has stood still too, as a frozen process does as a whole. The
                    // flight's answer may have come meanwhile.
                    timer.as_mut().reset(now + WAKE);
                    continue;
                }
                if left.is_zero() {
                    // Callers with a fallback do this too: nobody else waits for a renewal ahead of
                    // time.
                    end_missed(&cache, &waiter.flight);
                }
                match fallback.take() {
                    Some(token) if token.is_live(cache.clock.now()) => return Ok(token),
                    _ => {}
                }
                // Even if the outcome never arrives, this must not spin.
                timer.as_mut().reset(now + left.max(WAKE));
            };
            let live = |token: &Arc<Token>| token.is_live(cache.clock.now());
            match outcome {
                Outcome::Token(token) if live(&token) => return Ok(token),
                // Lost, or polled so late that the token has ended meanwhile.
                Outcome::Token(_) | Outcome::Lost => {}
                Outcome::Failed(error) => {
                    let token = fallback.filter(live);
                    // Or one that came meanwhile, by a flight that had been given up.
                    let token = token.or_else(|| cache.live_token(&params, newer_than));
                    return token.ok_or(error);
                }
            }
        }
    })
}

/// A place among the waiters, a live token to fall back on, and how long to wait.
type Joined = (Waiter, Option<Arc<Token>>, Duration);

/// The flight to wait for, or the result where there is nothing to wait for.
fn step(
    cache: &Arc<Cache>,
    params: &TokenParams,
    newer_than: Option<u64>,
    launches: &mut u32,
) -> Result<Joined, Result<Arc<Token>, Error>> {
    let runtime = runtime::current();
    let launch_on = runtime.as_ref().ok().filter(|_| *launches < MAX_LAUNCHES);
    // Whoever waits needs a timer, so without a runtime nobody waits for another's flight.
    let (decision, launched) = ask(cache, params, newer_than, runtime.is_ok(), launch_on);
    *launches += u32::from(launched);
    match decision {
        Decision::Serve(token) => Err(Ok(token)),
        Decision::Fail(error) => Err(Err(error)),
        Decision::Wait { flight, fallback } => {
            let (fallback, wait) = match fallback {
                Some((token, wait)) => (Some(token), wait),
                // A runtime that is no longer driven drops nothing, so only the waiter's own timer
                // can notice that the flight is overdue.
                None => (None, flight.time_left(cache.clock.now())),
            };
            Ok((Waiter::new(flight), fallback, wait))
        }
        Decision::Unable(live) => {
            if let Err(NoRuntime::NoTimers) = runtime {
                cache.watch.no_timers();
            }
            let error = || runtime.err().map_or_else(abandoned, Error::from);
            Err(live.ok_or_else(error))
        }
    }
}

fn abandoned() -> Error {
    Error::transient("every token request was dropped by its runtime before it ended")
        .with_advice("the tokio runtime is shutting down; call from one that is not")
}

/// Spawns the flight's own task. Never called under the cache's lock: a runtime that is shutting
/// down drops the task right here, and the guard in it takes that lock.
///
/// The guard comes first, so that whatever happens next leaves no flight without a task.
fn launch(cache: Arc<Cache>, flight: Arc<Flight>, runtime: &Handle) {
    let guard = Guard { cache, flight };
    let (id, cause) = (guard.flight.id, guard.flight.cause);
    drop(runtime.spawn(trace::in_flight_span(id, cause, run(guard))));
}

/// Tells the waiters when the task is dropped before it has ended: its runtime is gone.
struct Guard {
    cache: Arc<Cache>,
    flight: Arc<Flight>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flight.task_ended();
        end_lost(&self.cache, &self.flight);
        self.cache.remove(&self.flight);
    }
}

async fn run(guard: Guard) {
    let Guard { cache, flight } = &guard;
    let limit = cache.policy.flight_limit();
    let started = Instant::now();
    flight.restart_limit(cache.clock.now().after(limit));
    let mut attempts = 0;
    let (end, host) = match cache.source.host(&flight.params) {
        Ok(host) => {
            let work = fetch(cache, flight, started + limit, &mut attempts);
            match Driven::new(cache, flight, pin!(work)).await {
                Some(end) => (end, host),
                None => return,
            }
        }
        Err(panicked) => (Err(NoToken::Failed(panicked.into())), None),
    };
    let fetched = observe::Fetched {
        cause: flight.cause,
        attempts,
        latency: started.elapsed(),
        host,
    };
    let (end, response) = match end {
        Ok((response, sent)) => (cache.token(flight, &response, sent), Some(response)),
        Err(NoToken::Failed(error)) => {
            let error = error.with_effort(attempts, fetched.latency);
            (End::Failed(error.at_host(host)), None)
        }
        Err(NoToken::NotAttempted(error)) => (End::NotAttempted(error.at_host(host)), None),
        Err(NoToken::Unchanged) => return cache.end(flight, End::Unchanged, |_, _| {}),
        Err(NoToken::Missed) => return end_missed(cache, flight),
        Err(NoToken::Deserted) => return end_lost(cache, flight),
    };
    cache.end(flight, end, |outcome, remaining| {
        match (&response, outcome) {
            (Some(response), _) => cache.watch.succeeded(&fetched, &flight.params, response),
            (None, Outcome::Failed(error)) => cache.watch.failed(&fetched, error, remaining),
            (None, Outcome::Token(_) | Outcome::Lost) => {}
        }
    });
}

/// A flight will never end by itself, since its runtime is gone, or nobody needs it any more.
/// Whoever does wait for it asks again, and the first of them takes over.
pub(super) fn end_lost(cache: &Cache, flight: &Flight) {
    // Every flight's task ends here; mostly its flight has ended before.
    if !flight.is_finished() {
        cache.end(flight, End::Lost, |_, _| tell_lost(cache, flight));
    }
}

/// A flight was not polled past its limit, so nothing is learnt about the endpoint and whoever
/// needs a token starts another one.
///
/// The second one in a row that somebody has waited for is a failure all the same: the runtime is
/// starved, and would only starve the next flight too. Those that nobody waited for do not count. A
/// runtime that is driven by one `block_on` for each call leaves them behind with every renewal
/// ahead of time.
fn end_missed(cache: &Cache, flight: &Flight) {
    if !flight.has_waiters() {
        return end_lost(cache, flight);
    }
    let limit = cache.policy.flight_limit();
    let error = Error::timed_out(format!(
        "two token requests in a row were not driven to their end within {limit:.1?}"
    ))
    .with_advice("look for what blocks the tokio runtime's threads or stops this process");
    let host = cache.source.host(&flight.params).unwrap_or_default();
    let end = End::Missed(error.at_host(host));
    cache.end(flight, end, |_, _| tell_lost(cache, flight));
}

fn tell_lost(cache: &Cache, flight: &Flight) {
    cache.watch.tell(&Event::FetchLost {
        cause: flight.cause,
    });
}

/// A token, and when its token request was sent.
type Fetched = Result<(TokenResponse, Timestamp), NoToken>;

/// Why a flight brings no token.
enum NoToken {
    Failed(Error),
    /// The endpoint failed for others while it queued, or its turn did not come.
    NotAttempted(Error),
    /// The credentials are the same as before, so there is nothing to try.
    Unchanged,
    /// An attempt was not polled past its limit: a process that was frozen, or a runtime that
    /// nobody drove. Whatever came of it says nothing of the endpoint.
    Missed,
    /// All who waited for it left before its turn came.
    Deserted,
}

/// Ends by `deadline`, or as soon as it is polled after it: whatever is awaited here has a limit.
async fn fetch(
    cache: &Cache,
    flight: &Arc<Flight>,
    deadline: Instant,
    attempts: &mut u32,
) -> Fetched {
    // One that was given up drops its token request as soon as it is polled. On an undriven runtime
    // that may be never.
    let time = deadline.saturating_duration_since(Instant::now());
    let _ = timeout(MOMENT.min(time / 4), flight.wait_for_previous()).await;
    if flight.cause == FetchCause::Credentials {
        let Some(changed) = cache.source.credentials_changed() else {
            return Err(NoToken::Unchanged);
        };
        if !matches!(timeout(CREDENTIALS_TIMEOUT, changed).await, Ok(Ok(true))) {
            return Err(NoToken::Unchanged);
        }
        cache.update(|machine| machine.end_every_backoff());
    }
    turn(cache, flight, deadline, true).await?;
    cache.watch.tell(&Event::FetchStarted {
        cause: flight.cause,
    });
    let mut tries = 0;
    loop {
        tries += 1;
        *attempts += 1;
        // Relaxed: a counter for people, which nothing else is ordered by.
        cache.attempts.fetch_add(1, Ordering::Relaxed);
        let error = match attempt(cache, flight, deadline, tries).await {
            Err(NoToken::Failed(error)) => error,
            ended => return ended,
        };
        if error.is_unsent() {
            *attempts -= 1;
            cache.attempts.fetch_sub(1, Ordering::Relaxed);
        }
        if !error.again() || tries >= cache.policy.attempts {
            return Err(NoToken::Failed(error));
        }
        let pause = pause(tries, fastrand::f64());
        if Instant::now() + pause >= deadline {
            return Err(NoToken::Failed(error));
        }
        trace::attempt_failed(tries, &error, pause);
        let until = cache.clock.now().after(pause);
        sleep(pause).await;
        if is_late(cache, until) {
            return Err(NoToken::Missed);
        }
        // Another flight may have its turn meanwhile, if this one was not polled for a while.
        turn(cache, flight, deadline, false).await?;
    }
}

/// One token request.
async fn attempt(cache: &Cache, flight: &Flight, deadline: Instant, number: u32) -> Fetched {
    let sent = cache.clock.now();
    let left = deadline.saturating_duration_since(Instant::now());
    let limit = cache.policy.attempt_limit().min(left);
    let this = Attempt::new(limit);
    let answer = {
        let request = TokenRequest::new(&flight.params)
            .with_cause(flight.cause, number)
            .with_refused(flight.refused.as_ref())
            .within(&this);
        let mut answer = pin!(cache.source.token(request));
        let in_time = timeout(limit, answer.as_mut()).await;
        if in_time.is_err() && flight.stood_still_since(sent) {
            // The answer may have come meanwhile, to a connection that has to be polled first.
            timeout(MOMENT, answer).await
        } else {
            in_time
        }
    };
    let error = match answer {
        Ok(Ok(Ok(response))) => return Ok((response, sent)),
        Ok(Ok(Err(error))) => error,
        Ok(Err(panicked)) => return Err(NoToken::Failed(panicked.into())),
        Err(_) if flight.stood_still_since(sent) => return Err(NoToken::Missed),
        Err(_) => this.timed_out(limit),
    };
    if is_late(cache, sent.after(limit)) {
        return Err(NoToken::Missed);
    }
    Err(NoToken::Failed(error))
}

/// Whether so much more than a moment has passed since `due` that only a process or a runtime which
/// stood still can have missed it.
fn is_late(cache: &Cache, due: Timestamp) -> bool {
    cache.clock.now() > due.after(LATE)
}

/// Waits until the flight may make its token requests. `first` says that it has not had a turn yet.
///
/// The layer's own parameters need no turn, so that no others can keep them from being fetched.
async fn turn(
    cache: &Cache,
    flight: &Arc<Flight>,
    deadline: Instant,
    first: bool,
) -> Result<(), NoToken> {
    if flight.params != *cache.own() {
        queue(cache, flight, deadline, first).await?;
    }
    let may = cache.may_attempt(&flight.params);
    may.map_err(NoToken::NotAttempted)
}

async fn queue(
    cache: &Cache,
    flight: &Arc<Flight>,
    deadline: Instant,
    first: bool,
) -> Result<(), NoToken> {
    // Whoever gets a turn has time for an attempt with it; whoever gets none has learnt nothing
    // about the endpoint.
    let limit = deadline.saturating_duration_since(Instant::now());
    let patience = limit - cache.policy.attempt_limit().min(limit / 2);
    let mut patience = pin!(sleep(patience));
    // Nothing is known of others until this one has been driven itself for a while.
    let joined = cache.clock.now();
    poll_fn(|cx| {
        if first && flight.is_deserted() {
            return Poll::Ready(Err(NoToken::Deserted));
        }
        let now = cache.clock.now();
        let judge = now.since(flight.driven_since(joined)) >= TICK;
        if cache.turns.poll(flight, now, judge, cx.waker()).is_ready() {
            // Whoever stood still for so long that no time is left for an attempt has missed its
            // turn.
            let in_time = Instant::now() <= patience.deadline() + TICK;
            return Poll::Ready(in_time.then_some(()).ok_or(NoToken::Missed));
        }
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Err(if flight.stood_still_since(joined) {
            NoToken::Missed
        } else {
            NoToken::NotAttempted(no_turn(cache.policy.max_flights))
        }))
    })
    .await
}

fn no_turn(max_flights: usize) -> Error {
    Error::timed_out(format!(
        "{max_flights} other sets of parameters were being fetched and no slot became free"
    ))
    .with_advice("ask for fewer sets of parameters at once")
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
            tick: Box::pin(sleep(TICK)),
        }
    }
}

impl<W: Future> Future for Driven<'_, W> {
    type Output = Option<W::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let now = self.cache.clock.now();
        if !self.flight.note_poll(now, cx.waker()) {
            return Poll::Ready(None);
        }
        while self.tick.as_mut().poll(cx).is_ready() {
            self.tick.as_mut().reset(Instant::now() + TICK);
        }
        self.work.as_mut().poll(cx).map(Some)
    }
}

/// Fully jittered, so that instances which failed together do not come back together. Short, since
/// callers wait.
fn pause(attempts: u32, draw: f64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << (attempts - 1).min(6));
    longest.mul_f64(draw)
}

/// The longest pause after the first attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Callers wait for the look at the credentials, so a provider that hangs costs no more than this.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(1);

/// How much later than its limit a flight may be polled and still call it a time-out.
const LATE: Duration = Duration::from_secs(1);

/// Grace for an attempt that was polled too late to finish; shorter than the waiters' grace.
const MOMENT: Duration = Duration::from_millis(250);

/// How long waiters let a resumed process poll the flight.
const WAKE: Duration = Duration::from_millis(500);

/// A runtime that is shutting down drops what is spawned on it at once, again and again.
const MAX_LAUNCHES: u32 = 3;

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
