//! Models for loom: every interleaving of a few threads, with a bound on how often a thread is
//! interrupted.
//!
//! They run the cache's files as they are, on loom's locks instead of the standard ones; see
//! `sync`. The runtime is entered and never driven, so no flight ends by itself: the threads below
//! end them.
//!
//! `cargo test -p tower-oauth-model cache::model`

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use loom::future::block_on;
use loom::model::Builder;
use loom::thread::{self, JoinHandle};
use tokio::runtime::{self, Handle, Runtime};

use super::current::{Reader, Refused, Token};
use super::flight::{ask as ask_once, end_lost};
use super::machine::{Decision, End};
use super::waiters::{Flight, Outcome, Waiter};
use super::{Cache, CacheConfig, CachePolicy, Refusal, wait as wait_for_token};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::error::Error;
use crate::params::TokenParams;
use crate::source::{FetchCause, TokenFuture, TokenRequest, TokenSource};
use crate::token::TokenResponse;

/// Runs the model in every interleaving, each time in a world of its own.
fn explore(model: impl Fn(&World) + Send + Sync + 'static) {
    let model = Arc::new(model);
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        let model = Arc::clone(&model);
        // A thread of our own, since the stack of the first one is too small for a runtime.
        let first = spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.expect("a runtime");
            let handle = runtime.handle().clone();
            let _entered = handle.enter();
            model(&World::new(runtime));
        });
        first.join().expect("the model holds");
    });
}

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let builder = thread::Builder::new().stack_size(STACK);
    builder.spawn(run).expect("a thread")
}

struct World {
    cache: Arc<Cache>,
    clock: ManualClock,
    runtime: std::cell::Cell<Option<Runtime>>,
}

impl World {
    fn new(runtime: Runtime) -> Self {
        // Draws decide nothing here, but an exploration has to be the same each time.
        fastrand::seed(7);
        let clock = ManualClock::new();
        let config = CacheConfig {
            policy: CachePolicy::default(),
            own: TokenParams::new(),
            unauthorized: Arc::from([]),
            clock: Clock::Manual(clock.clone()),
            watch: Default::default(),
        };
        Self {
            cache: Cache::new(Arc::new(Never), config),
            clock,
            runtime: std::cell::Cell::new(Some(runtime)),
        }
    }

    /// A call that launches a flight.
    fn launch(&self) -> Arc<Flight> {
        match ask_for(&self.cache, None) {
            (Decision::Wait { flight, .. }, true) => flight,
            _ => panic!("a flight was to be launched"),
        }
    }

    /// Has a token that the first flight brought.
    fn with_token(&self) -> Arc<Token> {
        succeed(&self.cache, &self.launch());
        serve(&self.cache)
    }
}

/// A source that never answers.
struct Never;

impl TokenSource for Never {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(std::future::pending())
    }
}

/// As a call does that can wait and launch.
fn ask_for(
    cache: &Arc<Cache>,
    newer_than: Option<u64>,
) -> (Decision<Arc<Token>, Arc<Flight>>, bool) {
    let runtime = Handle::current();
    ask_once(cache, &TokenParams::new(), newer_than, true, Some(&runtime))
}

fn succeed(cache: &Arc<Cache>, flight: &Flight) {
    let response = TokenResponse::new("t").expect("a token");
    let response = response.with_expires_in(Duration::from_secs(3600));
    let end = cache.token(flight, &response, cache.clock.now());
    cache.end(flight, end, |_, _| {});
}

fn fail(cache: &Cache, flight: &Flight) {
    let end = End::Failed(Error::transient("down"));
    cache.end(flight, end, |_, _| {});
}

/// The token that a call gets now, without a flight.
fn serve(cache: &Arc<Cache>) -> Arc<Token> {
    match ask_for(cache, None).0 {
        Decision::Serve(token) => token,
        _ => panic!("a token was to be served"),
    }
}

/// What a caller does who waits until he is told. He ends the flight himself if it is his.
fn ask(cache: &Arc<Cache>, newer_than: Option<u64>) -> Result<Arc<Token>, Error> {
    loop {
        let flight = match ask_for(cache, newer_than) {
            (Decision::Serve(token), _) => return Ok(token),
            (Decision::Fail(error), _) => return Err(error),
            (Decision::Unable(_), _) => panic!("the runtime has timers"),
            (Decision::Wait { flight, .. }, launched) => {
                if launched {
                    succeed(cache, &flight);
                }
                flight
            }
        };
        match wait(flight) {
            Outcome::Token(token) => return Ok(token),
            Outcome::Failed(error) => return Err(error),
            Outcome::Lost => {}
        }
    }
}

/// Loom reports a deadlock if nobody wakes it.
fn wait(flight: Arc<Flight>) -> Outcome {
    let mut waiter = Waiter::new(flight);
    block_on(poll_fn(|cx| waiter.poll(cx)))
}

fn flight() -> Arc<Flight> {
    let deadline = Timestamp::MAX;
    let (cause, params) = (FetchCause::NoToken, TokenParams::new());
    Arc::new(Flight::new(1, cause, params, None, deadline, None))
}

/// At rest: nothing is in flight, and readers see the token that calls are served.
fn check_at_rest(cache: &Arc<Cache>) -> Arc<Token> {
    assert!(!cache.status(cache.own()).fetching);
    let held = cache.live_token(cache.own(), None).expect("a token");
    let served = serve(cache);
    assert!(Arc::ptr_eq(&held, &served));
    let mut reader = Reader::default();
    let free = cache.free_token(&mut reader);
    let free = free.expect("free after it was served");
    assert_eq!(held.generation, free.generation);
    held
}

/// Generations number the flights.
fn launched(cache: &Arc<Cache>) -> u64 {
    cache.update(|machine| machine.forget(cache.own()));
    let (Decision::Wait { flight, .. }, true) = ask_for(cache, None) else {
        panic!("nothing is held back");
    };
    flight.id - 1
}

#[test]
fn whoever_joins_while_the_flight_finishes_is_woken() {
    explore(|_| {
        let flight = flight();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let flight = Arc::clone(&flight);
                spawn(move || wait(flight))
            })
            .collect();
        flight.finish(Outcome::Lost);
        for other in others {
            let outcome = other.join().expect("woken");
            assert!(matches!(outcome, Outcome::Lost));
        }
    });
}

#[test]
fn whoever_leaves_while_the_flight_finishes_takes_nobody_elses_place() {
    explore(|_| {
        let flight = flight();
        let mut leaver = Waiter::new(Arc::clone(&flight));
        let unheard = Context::from_waker(Waker::noop());
        assert!(leaver.poll(&unheard).is_pending());
        let stayer = {
            let flight = Arc::clone(&flight);
            spawn(move || wait(flight))
        };
        let finisher = {
            let flight = Arc::clone(&flight);
            spawn(move || flight.finish(Outcome::Lost))
        };
        drop(leaver);
        assert!(matches!(stayer.join().expect("woken"), Outcome::Lost));
        assert!(finisher.join().expect("finished"), "finished once");
        assert!(flight.is_finished());
    });
}

#[test]
fn a_flight_finishes_once_and_all_are_told_the_same() {
    explore(|_| {
        let flight = flight();
        let finishers = [Outcome::Lost, Outcome::Failed(Error::transient("down"))].map(|outcome| {
            let flight = Arc::clone(&flight);
            spawn(move || flight.finish(outcome))
        });
        let told = wait(Arc::clone(&flight));
        let [lost, failed] = finishers.map(|finisher| finisher.join().expect("finished"));
        assert!(lost != failed);
        assert_eq!(matches!(told, Outcome::Lost), lost);
        assert_eq!(matches!(wait(flight), Outcome::Lost), lost);
    });
}

#[test]
fn a_call_that_meets_a_flight_at_its_end_is_served() {
    explore(|world| {
        let flight = world.launch();
        let caller = {
            let cache = Arc::clone(&world.cache);
            let own = cache.own().clone();
            spawn(move || block_on(wait_for_token(cache, own, None)))
        };
        succeed(&world.cache, &flight);
        let token = caller.join().expect("woken").expect("served");
        assert_eq!(token.generation, 1);
        check_at_rest(&world.cache);
    });
}

#[test]
fn a_take_over_and_the_late_end_of_the_frozen_flight_leave_one_token_and_no_flight() {
    explore(|world| {
        let frozen = world.launch();
        let caller = {
            let cache = Arc::clone(&world.cache);
            spawn(move || ask(&cache, None))
        };
        let impatient = {
            let (cache, frozen) = (Arc::clone(&world.cache), Arc::clone(&frozen));
            spawn(move || {
                end_lost(&cache, &frozen);
                ask(&cache, None)
            })
        };
        succeed(&world.cache, &frozen);
        for caller in [caller, impatient] {
            caller.join().expect("woken").expect("served");
        }
        let held = check_at_rest(&world.cache);
        let launched = launched(&world.cache);
        assert!(launched <= 2);
        assert_eq!(held.generation, launched, "the later flight's is in force");
    });
}

#[test]
fn a_take_over_and_the_late_failure_of_the_frozen_flight_leave_a_token() {
    explore(|world| {
        let frozen = world.launch();
        let impatient = {
            let (cache, frozen) = (Arc::clone(&world.cache), Arc::clone(&frozen));
            spawn(move || {
                end_lost(&cache, &frozen);
                ask(&cache, None)
            })
        };
        fail(&world.cache, &frozen);
        let told = impatient.join().expect("told");
        let status = world.cache.status(world.cache.own());
        let backoff = status.next_attempt_in;
        assert!(!status.fetching);
        match told {
            // The flight had been given up when it failed, so nobody backs off for it.
            Ok(token) => {
                assert!(backoff.is_none());
                assert!(Arc::ptr_eq(&token, &check_at_rest(&world.cache)));
            }
            // The failure came first, so there is a backoff, and no flight.
            Err(error) => {
                assert!(backoff.is_some());
                assert!(error.retry_after().is_some());
            }
        }
    });
}

#[test]
fn a_take_over_that_fails_does_not_fail_a_caller_who_could_use_the_late_token() {
    explore(|world| {
        let frozen = world.launch();
        end_lost(&world.cache, &frozen);
        let second = world.launch();
        let caller = {
            let cache = Arc::clone(&world.cache);
            let own = cache.own().clone();
            spawn(move || block_on(wait_for_token(cache, own, None)))
        };
        succeed(&world.cache, &frozen);
        fail(&world.cache, &second);
        let token = caller.join().expect("woken").expect("served");
        assert!(Arc::ptr_eq(&token, &check_at_rest(&world.cache)));
    });
}

#[test]
fn callers_of_a_runtime_that_dies_take_over() {
    explore(|world| {
        world.launch();
        let caller = {
            let cache = Arc::clone(&world.cache);
            spawn(move || ask(&cache, None))
        };
        drop(world.runtime.take());
        caller.join().expect("woken").expect("served");
        check_at_rest(&world.cache);
    });
}

#[test]
fn a_401_that_meets_its_renewal_costs_no_second_one() {
    explore(|world| {
        let old = world.with_token();
        assert_eq!(world.cache.refused(&old, API), Refusal::Suspected);
        let renewal = world.launch();
        let late = {
            let (cache, old) = (Arc::clone(&world.cache), Arc::clone(&old));
            spawn(move || cache.refused(&old, API))
        };
        let replay = {
            let (cache, old) = (Arc::clone(&world.cache), old.generation);
            spawn(move || ask(&cache, Some(old)))
        };
        succeed(&world.cache, &renewal);
        assert_eq!(late.join().expect("told"), Refusal::Known);
        let token = replay.join().expect("woken").expect("served");
        assert!(token.generation > old.generation);
        assert!(Arc::ptr_eq(&token, &check_at_rest(&world.cache)));
        assert_eq!(launched(&world.cache), 2);
    });
}

#[test]
fn a_401_that_meets_a_renewal_under_way_makes_only_the_old_token_suspect() {
    explore(|world| {
        let old = world.with_token();
        world.clock.advance(Duration::from_secs(3580));
        let renewal = world.launch();
        let refusal = {
            let (cache, old) = (Arc::clone(&world.cache), Arc::clone(&old));
            spawn(move || {
                let refusal = cache.refused(&old, API);
                (refusal, ask(&cache, None))
            })
        };
        succeed(&world.cache, &renewal);
        let (refusal, token) = refusal.join().expect("told");
        assert!(matches!(refusal, Refusal::Suspected | Refusal::Known));
        assert_eq!(token.expect("served").generation, 2);
        assert!(!world.cache.status(world.cache.own()).suspect);
        assert_eq!(check_at_rest(&world.cache).generation, 2);
    });
}

#[test]
fn the_view_outside_the_lock_never_goes_back_to_an_older_token() {
    explore(|world| {
        let frozen = world.launch();
        end_lost(&world.cache, &frozen);
        let later = world.launch();
        let ender = {
            let cache = Arc::clone(&world.cache);
            spawn(move || succeed(&cache, &later))
        };
        let reader = {
            let cache = Arc::clone(&world.cache);
            spawn(move || {
                let (mut newest, mut reader) = (0, Reader::default());
                for _ in 0..2 {
                    let seen = [
                        cache.free_token(&mut reader).cloned(),
                        ask(&cache, None).ok(),
                        cache.free_token(&mut reader).cloned(),
                    ];
                    for token in seen.into_iter().flatten() {
                        assert!(token.generation >= newest);
                        newest = token.generation;
                    }
                }
            })
        };
        succeed(&world.cache, &frozen);
        ender.join().expect("ended");
        reader.join().expect("never back");
        assert_eq!(check_at_rest(&world.cache).generation, 2);
    });
}

const API: u64 = 1;

/// How often a thread is interrupted where it could go on; two find nearly every fault of this
/// kind, and four take ten seconds.
const PREEMPTIONS: usize = 3;

/// In words. Loom's own is too small for a runtime in a debug build.
const STACK: usize = 0x8000;
