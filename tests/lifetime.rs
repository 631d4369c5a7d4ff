//! The life of a token: fresh, stale, in its last stretch, expired; sleep and clock steps.

mod support;

use std::time::Duration;

use support::*;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt};
use tower_oauth::{CachePolicy, ManualClock, OAuthLayer};

async fn call(layer: &OAuthLayer, api: &Api) {
    layer.layer(api.clone()).oneshot(get(API)).await.unwrap();
    settle().await;
}

/// How long one call takes.
async fn time(layer: &OAuthLayer, api: &Api) -> Duration {
    let start = Instant::now();
    layer.layer(api.clone()).oneshot(get(API)).await.unwrap();
    start.elapsed()
}

// R10, R11
#[tokio::test(start_paused = true)]
async fn a_token_is_used_until_renewal_ahead_of_its_end_and_an_idle_client_asks_nothing() {
    let (endpoint, api) = (Endpoint::new(), Api::ok());
    let layer = layer(&endpoint);
    call(&layer, &api).await;
    for _ in 0..54 {
        advance(secs(60)).await;
        call(&layer, &api).await;
    }
    assert_eq!(endpoint.requests(), 1, "54 minutes of an hour");
    advance(secs(100)).await;
    settle().await;
    assert_eq!(endpoint.requests(), 1, "stale, but nobody asks");
    call(&layer, &api).await;
    call(&layer, &api).await;
    assert_eq!(endpoint.requests(), 2);
    assert_eq!(
        api.seen()[55..],
        ["Bearer token-1", "Bearer token-2"],
        "the caller that starts a renewal does not wait"
    );
}

// K9
#[tokio::test(start_paused = true)]
async fn in_the_refresh_window_a_slow_endpoint_delays_nobody_and_is_asked_once() {
    let (endpoint, api) = (Endpoint::new(), Api::ok());
    let layer = layer(&endpoint);
    call(&layer, &api).await;
    advance(secs(3400)).await;
    endpoint.set_latency(secs(5));
    for _ in 0..100 {
        assert_eq!(time(&layer, &api).await, Duration::ZERO);
    }
    settle().await;
    assert_eq!(endpoint.requests(), 2);
    advance(secs(5)).await;
    settle().await;
    call(&layer, &api).await;
    assert_eq!(api.seen().last().unwrap(), "Bearer token-2");
}

// K10, R12
#[tokio::test(start_paused = true)]
async fn with_the_endpoint_down_requests_go_on_to_the_tokens_real_end_and_attempts_follow_backoff()
{
    let (endpoint, api) = (Endpoint::new(), Api::ok());
    let layer = builder(&endpoint)
        .cache_policy(one_attempt())
        .build()
        .unwrap();
    call(&layer, &api).await;
    let born = Instant::now();
    endpoint.set(Answer::Refused);
    advance(secs(3290)).await;
    while born.elapsed() < Duration::from_millis(3_599_900) {
        call(&layer, &api).await;
        advance(Duration::from_millis(250)).await;
    }
    // Steps of 1, 2, 4, 8, 16, then 30 s, each up to twice as long, over 300 s.
    let asked = endpoint.requests() - 1;
    assert!((6..=14).contains(&asked), "{asked}");
    advance(secs(1)).await;
    assert!(
        layer.layer(api.clone()).oneshot(get(API)).await.is_err(),
        "no token past its end"
    );
    assert!(api.seen().iter().all(|seen| seen == "Bearer token-1"));
}

// K11
#[tokio::test(start_paused = true)]
async fn when_the_endpoint_is_back_the_next_attempt_renews_and_the_backoff_starts_afresh() {
    let endpoint = Endpoint::new().always(Answer::Refused);
    let layer = builder(&endpoint)
        .cache_policy(one_attempt())
        .build()
        .unwrap();
    let tokens = layer.token_cache();
    for _ in 0..6 {
        let wait = tokens.token().await.unwrap_err().retry_after();
        advance(wait.unwrap_or(secs(0)) + Duration::from_millis(1)).await;
    }
    endpoint.set(Answer::Token(60));
    advance(secs(16)).await;
    assert!(tokens.token().await.is_ok());
    assert!(tokens.status().last_error.is_none());
    endpoint.set(Answer::Refused);
    advance(secs(61)).await;
    tokens.token().await.unwrap_err();
    let wait = tokens.token().await.unwrap_err().retry_after().unwrap();
    assert!(wait <= secs(2), "the first step again: {wait:?}");
}

// K12, R13
#[tokio::test(start_paused = true)]
async fn a_token_of_no_life_serves_those_who_waited_and_the_next_second() {
    for life in [0, -1, 1] {
        let (endpoint, api) = (
            Endpoint::new()
                .always(Answer::Token(life))
                .latency(Duration::from_millis(300)),
            Api::ok(),
        );
        let layer = layer(&endpoint);
        let waiting = (0..20).map(|_| layer.layer(api.clone()).oneshot(get(API)));
        assert!(
            futures::future::join_all(waiting)
                .await
                .iter()
                .all(Result::is_ok),
            "{life}"
        );
        assert_eq!(endpoint.requests(), 1, "{life}");
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(900) {
            call(&layer, &api).await;
            advance(Duration::from_millis(10)).await;
        }
        assert_eq!(endpoint.requests(), 1, "{life}");
        // Ten seconds more: at most one request per second.
        while start.elapsed() < secs(10) {
            call(&layer, &api).await;
            advance(Duration::from_millis(10)).await;
        }
        assert!(endpoint.requests() <= 11, "{life}: {}", endpoint.requests());
    }
}

// K12
#[tokio::test(start_paused = true)]
async fn a_life_below_the_last_stretch_is_scaled_and_not_renewed_per_call() {
    let (endpoint, api) = (Endpoint::new().always(Answer::Token(20)), Api::ok());
    let layer = layer(&endpoint);
    let start = Instant::now();
    while start.elapsed() < secs(200) {
        call(&layer, &api).await;
        advance(Duration::from_millis(50)).await;
    }
    // Renewed in the last fifth of each 20 s.
    assert!(
        (11..=14).contains(&endpoint.requests()),
        "{}",
        endpoint.requests()
    );
}

// K13, R14
#[tokio::test(start_paused = true)]
async fn a_suspend_of_hours_ages_the_token_and_wakes_to_one_request() {
    let (endpoint, api, clock) = (Endpoint::new(), Api::ok(), ManualClock::new());
    let layer = builder(&endpoint).clock(clock.clone()).build().unwrap();
    call(&layer, &api).await;
    // Timers stand still while the machine sleeps; the boot clock does not.
    clock.advance(secs(5 * 3600));
    let calls = (0..50).map(|_| layer.layer(api.clone()).oneshot(get(API)));
    futures::future::join_all(calls).await;
    assert_eq!(endpoint.requests(), 2);
    assert!(
        api.seen()[1..].iter().all(|seen| seen == "Bearer token-2"),
        "no token past its end"
    );
}

// K13, R14
#[tokio::test(start_paused = true)]
async fn a_suspend_while_a_token_is_fetched_counts_from_when_it_was_asked_for() {
    let (endpoint, clock) = (
        Endpoint::new().always(Answer::Token(600)).closed(),
        ManualClock::new(),
    );
    let layer = builder(&endpoint).clock(clock.clone()).build().unwrap();
    let tokens = layer.token_cache();
    let waiting = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.token().await }
    });
    settle().await;
    clock.advance(secs(500));
    endpoint.open();
    let token = waiting.await.unwrap().unwrap();
    assert_eq!(token.remaining(), secs(100));
    assert_eq!(tokens.status().age, Some(secs(500)));
}

// K18
#[tokio::test(start_paused = true)]
async fn the_servers_refresh_in_hint_moves_the_renewal() {
    let body = r#"{"access_token":"t","expires_in":86399,"refresh_in":43199}"#;
    let (endpoint, api) = (Endpoint::new().always(raw(200, &[], body)), Api::ok());
    let layer = layer(&endpoint);
    call(&layer, &api).await;
    advance(secs(43_198)).await;
    call(&layer, &api).await;
    assert_eq!(endpoint.requests(), 1);
    advance(secs(32)).await;
    call(&layer, &api).await;
    assert_eq!(endpoint.requests(), 2);
}

// K30
#[tokio::test(start_paused = true)]
async fn a_server_that_repeats_a_nearly_expired_token_is_not_asked_once_per_call() {
    let (endpoint, api) = (Endpoint::new().always(Answer::Fixed("same", 2)), Api::ok());
    let layer = layer(&endpoint);
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < secs(20) {
        call(&layer, &api).await;
        advance(Duration::from_millis(10)).await;
        calls += 1;
    }
    assert!(
        calls >= 1000 && endpoint.requests() <= 14,
        "{calls} calls, {} requests",
        endpoint.requests()
    );
}

// K37, R10
#[tokio::test(start_paused = true)]
async fn in_the_last_stretch_callers_wait_a_moment_for_a_hanging_endpoint_and_use_the_live_token() {
    let (endpoint, api) = (Endpoint::new(), Api::ok());
    let layer = layer(&endpoint);
    call(&layer, &api).await;
    let born = Instant::now();
    endpoint.set(Answer::Hang);
    advance(secs(3580)).await;
    assert_eq!(time(&layer, &api).await, secs(1));
    advance(secs(3598) - born.elapsed()).await;
    let waited = time(&layer, &api).await;
    assert!(
        waited <= Duration::from_millis(501),
        "a quarter of two seconds: {waited:?}"
    );
    assert_eq!(api.seen(), vec!["Bearer token-1"; 3]);
    assert_eq!(endpoint.most_at_once(), 1);
}

// R10, R12
#[tokio::test(start_paused = true)]
async fn a_caller_whose_flight_is_given_up_waits_no_longer_for_the_next_one() {
    let (endpoint, api, clock) = (Endpoint::new(), Api::ok(), ManualClock::new());
    let layer = builder(&endpoint)
        .clock(clock.clone())
        .cache_policy(CachePolicy::new().attempts(1).attempt_timeout(secs(5)))
        .build()
        .unwrap();
    call(&layer, &api).await;
    endpoint.set(Answer::Hang);
    advance(secs(3575)).await;
    let timed = || {
        let (layer, api) = (layer.clone(), api.clone());
        tokio::spawn(async move { time(&layer, &api).await })
    };
    let first = timed();
    settle().await;
    advance(Duration::from_millis(500)).await;
    let second = timed();
    settle().await;
    // After this suspend the first gives the flight up, and the second starts another.
    clock.advance(secs(6));
    assert_eq!(first.await.unwrap(), secs(1));
    assert_eq!(second.await.unwrap(), secs(1));
    assert_eq!(endpoint.requests(), 3);
}

// R10
#[tokio::test(start_paused = true)]
async fn in_the_last_stretch_callers_get_the_renewed_token_when_it_comes_in_time() {
    let (endpoint, api) = (Endpoint::new(), Api::ok());
    let layer = layer(&endpoint);
    call(&layer, &api).await;
    endpoint.set_latency(Duration::from_millis(200));
    advance(secs(3580)).await;
    let calls = (0..10).map(|_| layer.layer(api.clone()).oneshot(get(API)));
    futures::future::join_all(calls).await;
    assert_eq!(api.seen()[1..], vec!["Bearer token-2"; 10]);
    assert_eq!(endpoint.requests(), 2);
}

// K17
#[tokio::test(start_paused = true)]
async fn a_renewal_ahead_of_time_and_a_forced_one_are_one_flight() {
    let refuse = |authorization: &str| match authorization {
        "Bearer token-1" => unauthorized(INVALID_TOKEN),
        _ => http::Response::new(String::new()),
    };
    let (endpoint, api) = (Endpoint::new(), Api::new(refuse));
    let layer = layer(&endpoint);
    layer.token_cache().warm_up().await.unwrap();
    advance(secs(3400)).await;
    endpoint.close();
    // The first starts a renewal ahead of time and is refused; the second waits for a renewal.
    call(&layer, &api).await;
    let forced = tokio::spawn(layer.layer(api.clone()).oneshot(get(API)));
    settle().await;
    endpoint.open();
    forced.await.unwrap().unwrap();
    assert_eq!(
        (endpoint.requests(), api.seen().last().unwrap().as_str()),
        (2, "Bearer token-2")
    );
}

// R11
#[tokio::test(start_paused = true)]
async fn the_jitter_of_a_renewal_is_drawn_anew_for_each_token() {
    let mut starts = std::collections::BTreeSet::new();
    for seed in 0..20 {
        fastrand::seed(seed);
        let (endpoint, api) = (Endpoint::new(), Api::ok());
        let layer = layer(&endpoint);
        call(&layer, &api).await;
        advance(secs(3299)).await;
        for second in 3300..=3331 {
            advance(secs(1)).await;
            call(&layer, &api).await;
            if endpoint.requests() == 2 {
                starts.insert(second);
                break;
            }
        }
        assert_eq!(endpoint.requests(), 2);
    }
    assert!(starts.len() > 5, "{starts:?}");
}

// R10
#[tokio::test(start_paused = true)]
async fn life_is_counted_from_the_token_request_that_brought_the_token() {
    let endpoint = Endpoint::new().then([Answer::Hang, Answer::Token(60)]);
    let tokens = layer(&endpoint).token_cache();
    tokens.token().await.expect("the second attempt");
    let status = tokens.status();
    assert_eq!(
        (status.age, status.remaining),
        (Some(secs(0)), Some(secs(60)))
    );
    assert_eq!(endpoint.requests(), 2);
}

// R10
#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_polled_too_late_takes_no_token_that_has_ended() {
    let endpoint = Endpoint::new().always(Answer::Token(10)).closed();
    let tokens = layer(&endpoint).token_cache();
    let mut late = tokio_test::task::spawn(tokens.token());
    assert!(late.poll().is_pending());
    settle().await;
    endpoint.open();
    settle().await;
    assert!(late.is_woken());
    advance(secs(11)).await;
    assert!(late.poll().is_pending(), "it asks again");
    settle().await;
    let std::task::Poll::Ready(token) = late.poll() else {
        panic!("there is a new one");
    };
    let token = token.expect("there is a new one");
    assert_eq!((token.generation(), token.remaining()), (2, secs(10)));
}

// R10, R12
#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_polled_too_late_falls_back_on_no_token_that_has_ended() {
    let endpoint = Endpoint::new().always(Answer::Token(100));
    let tokens = layer(&endpoint).token_cache();
    tokens.token().await.expect("a token");
    // In the last stretch, where a call waits a moment and then uses what there is.
    advance(secs(95)).await;
    endpoint.close();
    let mut late = tokio_test::task::spawn(tokens.token());
    assert!(late.poll().is_pending());
    settle().await;
    advance(secs(6)).await;
    assert!(late.poll().is_pending(), "the old token has ended");
    endpoint.open();
    settle().await;
    let std::task::Poll::Ready(token) = late.poll() else {
        panic!("the renewal is there");
    };
    assert_eq!(token.expect("the renewal").generation(), 2);
    // Likewise when the renewal fails: that token's request was made 95 s after the first one's.
    advance(secs(90)).await;
    endpoint.close();
    endpoint.set(Answer::Error(400, "invalid_client"));
    let mut late = tokio_test::task::spawn(tokens.token());
    assert!(late.poll().is_pending());
    settle().await;
    endpoint.open();
    settle().await;
    advance(secs(6)).await;
    let std::task::Poll::Ready(told) = late.poll() else {
        panic!("the renewal has failed");
    };
    assert!(told.expect_err("nothing to live on").is_rejected());
}
