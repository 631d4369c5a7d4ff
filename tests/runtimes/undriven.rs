//! A runtime that is driven by one `block_on` for each call, and stands still in between.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{advance, sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_oauth::{
    CachePolicy, ManualClock, OAuthLayer, TokenFuture, TokenParams, TokenRequest, TokenResponse,
    TokenSource,
};

use crate::support::*;
use crate::{Healthy, half_driven, leave};

/// Makes calls with these pauses in between, during which the process or the runtime stands still.
/// Each call drives the runtime by one `block_on`.
fn call_now_and_then(pauses: &[u64], stop: impl Fn(&Runtime, &ManualClock, Duration)) -> usize {
    let endpoint = Endpoint::new()
        .always(Answer::Token(10))
        .latency(millis(20));
    let (runtime, clock, layer) = half_driven(&endpoint);
    let service = layer.layer(Api::ok());
    for (n, pause) in pauses.iter().enumerate() {
        let call = runtime.block_on(service.clone().oneshot(get(API)));
        let status = runtime.block_on(async { layer.token_cache().status() });
        assert!(
            call.is_ok(),
            "call {n} of {pauses:?}: {}",
            ours(call.unwrap_err())
        );
        assert!(
            status.last_error.is_none(),
            "call {n} of {pauses:?}: {status:?}"
        );
        stop(&runtime, &clock, millis(*pause));
    }
    assert_eq!(endpoint.most_at_once(), 1, "{pauses:?}");
    endpoint.requests()
}

// FC1
#[test]
fn calls_with_a_block_on_for_each_find_a_token_however_long_they_are_apart() {
    let suspended = |_: &Runtime, clock: &ManualClock, span| clock.advance(span);
    let idle = |runtime: &Runtime, _: &ManualClock, span| runtime.block_on(advance(span));
    let mut draws = fastrand::Rng::with_seed(1);
    let mut histories = vec![
        vec![8_500, 33_000, 100, 8_500, 33_000, 1],
        vec![9_200; 12],
        vec![8_100, 30_000, 8_100, 29_900, 8_100, 30_600, 8_100, 31_001],
        vec![8_500, 31_500, 8_500, 32_000, 8_500, 33_500],
        vec![40_000; 6],
    ];
    histories.extend((0..100).map(|_| {
        let pause = |draws: &mut fastrand::Rng| match draws.u8(0..3) {
            0 => draws.u64(7_500..10_500),
            1 => draws.u64(0..45_000),
            _ => draws.u64(29_000..34_000),
        };
        (0..20).map(|_| pause(&mut draws)).collect()
    }));
    for pauses in &histories {
        for requests in [
            call_now_and_then(pauses, suspended),
            call_now_and_then(pauses, idle),
        ] {
            // A call finds a token, renews one or starts over a renewal that was never driven.
            assert!(requests <= 2 * pauses.len(), "{requests} for {pauses:?}");
        }
    }
}

// FC1
#[test]
fn renewals_that_nobody_waits_for_and_nobody_drives_are_no_failures() {
    let endpoint = Endpoint::new().latency(millis(20));
    let (runtime, clock, layer) = half_driven(&endpoint);
    let service = layer.layer(Api::ok());
    let call = || {
        runtime
            .block_on(service.clone().oneshot(get(API)))
            .expect("served")
    };
    call();
    clock.advance(secs(3335));
    // In the renewal window, each call finds the renewal that the one before left behind, gives it
    // up and leaves another.
    for _ in 0..5 {
        call();
        clock.advance(secs(40));
        let status = runtime.block_on(async { layer.token_cache().status() });
        assert!(status.last_error.is_none(), "{status:?}");
    }
    clock.advance(secs(3600));
    call();
    assert_eq!(endpoint.most_at_once(), 1);
}

// FC1, R6
#[test]
fn a_flight_has_its_whole_time_from_when_it_is_first_polled() {
    let endpoint = Endpoint::new().always(Answer::Token(10));
    let (runtime, clock, layer) = half_driven(&endpoint);
    let service = layer.layer(Api::ok());
    let call = || {
        runtime
            .block_on(service.clone().oneshot(get(API)))
            .expect("served")
    };
    call();
    clock.advance(millis(8500));
    // Leaves a renewal behind that has not been polled yet.
    call();
    assert_eq!(endpoint.requests(), 1);
    clock.advance(secs(29));
    endpoint.set_latency(secs(5));
    call();
    assert_eq!(endpoint.requests(), 2);
}

// FC1, FC2
#[test]
fn a_flight_after_one_that_nobody_drives_has_time_however_short_its_limit_is() {
    let endpoint = Endpoint::new().latency(millis(100));
    let clock = ManualClock::new();
    let tokens = builder(&endpoint)
        .clock(clock.clone())
        .cache_policy(CachePolicy::new().attempts(1).attempt_timeout(millis(200)))
        .build()
        .expect("a layer")
        .token_cache();
    let frozen = current_thread();
    let told = paused().block_on(async {
        {
            let _entered = frozen.enter();
            assert!(tokio_test::task::spawn(tokens.token()).poll().is_pending());
        }
        clock.advance(secs(1));
        tokens.token().await
    });
    told.expect("started over");
    assert_eq!(endpoint.requests(), 1);
}

// K29
#[test]
fn a_renewal_ahead_of_time_whose_runtime_is_no_longer_driven_is_taken_over_by_the_next_call() {
    let endpoint = Endpoint::new();
    let (frozen, clock, layer) = half_driven(&endpoint);
    let tokens = layer.token_cache();
    let generation = async || tokens.token().await.expect("served").generation();
    assert_eq!(frozen.block_on(generation()), 1);
    clock.advance(secs(3400));
    // Starts the renewal, and ends before that is first polled.
    assert_eq!(frozen.block_on(generation()), 1);
    assert!(tokens.status().fetching);

    clock.advance(secs(180));
    paused().block_on(async {
        assert_eq!(generation().await, 3, "that of the third flight");
    });
    assert_eq!(endpoint.requests(), 2);
}

// K29
#[test]
fn a_renewal_that_is_no_longer_driven_is_started_anew_within_the_renewal_window() {
    let endpoint = Endpoint::new();
    let (frozen, clock, layer) = half_driven(&endpoint);
    let service = layer.layer(Api::ok());
    let call = async || service.clone().oneshot(get(API)).await.expect("served");
    frozen.block_on(call());
    clock.advance(secs(3350));
    frozen.block_on(call());
    assert!(layer.token_cache().status().fetching);
    // The token is used freely for three more minutes before a caller would wait for its renewal.
    clock.advance(secs(40));
    paused().block_on(async {
        call().await;
        sleep(secs(1)).await;
        call().await;
    });
    assert_eq!(endpoint.requests(), 2);
    assert_eq!(layer.token_cache().status().generation, Some(3));
}

// FC1, R11
#[test]
fn a_renewal_that_nobody_drives_is_started_over_by_the_next_call_after_its_limit() {
    let endpoint = Endpoint::new();
    let (driven, clock, layer) = half_driven(&endpoint);
    let tokens = layer.token_cache();
    let frozen = current_thread();
    driven.block_on(async {
        tokens.token().await.expect("the first one");
        clock.advance(secs(3600 - 200));
        {
            let _entered = frozen.enter();
            assert!(tokio_test::task::spawn(tokens.token()).poll().is_ready());
        }
        assert!(tokens.status().fetching);
        clock.advance(secs(30));
        tokens.token().await.expect("the live one");
        settle().await;
        assert_eq!(endpoint.requests(), 1, "not overdue yet");
        clock.advance(secs(2));
        tokens.token().await.expect("the live one");
        // The previous flight gets a moment to end.
        sleep(secs(1)).await;
        assert_eq!(endpoint.requests(), 2);
        assert_eq!(tokens.token().await.expect("renewed").generation(), 3);
    });
}

// FC2
#[test]
fn a_runtime_that_nobody_drives_keeps_no_turn_from_another_one() {
    for (max_flights, kinds) in [(1, 1), (1, 3), (64, 65), (64, 200)] {
        let source = Healthy::default();
        let layer = OAuthLayer::builder(source.clone())
            .cache_policy(CachePolicy::new().max_flights(max_flights))
            .build()
            .expect("a layer");
        let tokens = layer.token_cache();
        let frozen = current_thread();
        leave(&frozen, &tokens, kinds);
        assert_eq!(source.requests(), max_flights.min(kinds));
        let start = std::time::Instant::now();
        current_thread().block_on(async {
            // The layer's own kind has a turn of its own.
            assert!(
                timeout(millis(1500), tokens.token())
                    .await
                    .expect("at once")
                    .is_ok()
            );
            for n in 1000..1003 {
                let token = kind(&tokens, n).token().await;
                assert!(token.is_ok(), "{kinds} kinds: {}", token.unwrap_err());
            }
        });
        assert!(start.elapsed() < secs(5), "{:?}", start.elapsed());
        // Driven again, each flight that was left ends as if nothing had happened.
        let calls = frozen.block_on(async {
            let calls = (0..kinds).map(|n| kind(&tokens, n));
            let calls: tokio::task::JoinSet<_> = calls
                .map(|tokens| async move { tokens.token().await.is_ok() })
                .collect();
            calls.join_all().await
        });
        assert!(calls.into_iter().all(|served| served));
        assert_eq!(source.requests(), 1 + 3 + kinds);
    }
}

// FC2
#[test]
fn a_flight_that_has_lost_its_turn_waits_for_another_before_its_next_attempt() {
    #[derive(Default)]
    struct Told {
        events: Mutex<Vec<&'static str>>,
    }
    impl Told {
        fn tell(&self, event: &'static str) -> usize {
            let mut events = self.events.lock().unwrap();
            events.push(event);
            events.iter().filter(|known| **known == event).count()
        }
    }
    impl TokenSource for Told {
        fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
            Box::pin(async move {
                if *request.params() == TokenParams::new().with_audience("0") {
                    if self.tell("the first kind") == 1 {
                        sleep(millis(20)).await;
                        return Err(tower_oauth::Error::transient("not now"));
                    }
                } else {
                    self.tell("another kind");
                    sleep(secs(1)).await;
                    self.tell("it has ended");
                }
                TokenResponse::new("t")
            })
        }
    }
    let source = Arc::new(Told::default());
    let tokens = OAuthLayer::builder(Arc::clone(&source))
        .cache_policy(CachePolicy::new().max_flights(1))
        .build()
        .expect("a layer")
        .token_cache();
    let frozen = current_thread();
    leave(&frozen, &tokens, 1);
    let other = {
        let tokens = kind(&tokens, 1);
        thread::spawn(move || current_thread().block_on(tokens.token()))
    };
    // The first runtime is not driven until the other flight has taken the turn.
    while source.events.lock().unwrap().len() < 2 {
        thread::sleep(millis(10));
    }
    frozen
        .block_on(kind(&tokens, 0).token())
        .expect("in its turn");
    other.join().expect("no panic").expect("undisturbed");
    let events = source.events.lock().unwrap();
    assert_eq!(
        *events,
        [
            "the first kind",
            "another kind",
            "it has ended",
            "the first kind"
        ]
    );
}
