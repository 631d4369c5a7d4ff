//! Backoff: what callers are told during it, whom it concerns, and what ends it.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt};
use tower_oauth::{CachePolicy, Error};

use crate::other;
use crate::support::*;

// K3, R16
#[tokio::test(start_paused = true)]
async fn a_call_during_backoff_without_a_live_token_fails_at_once_with_the_cause_and_the_wait() {
    let endpoint = Endpoint::new().always(Answer::Error(401, "invalid_client"));
    let tokens = layer(&endpoint).token_cache();
    let first = tokens.token().await.unwrap_err();
    assert!(
        first.retry_after().is_some(),
        "told to those who waited too"
    );
    let start = Instant::now();
    for _ in 0..1000 {
        let error = tokens.token().await.unwrap_err();
        assert_eq!(error.oauth_code(), Some("invalid_client"));
        let wait = error.retry_after().unwrap();
        assert!(wait > Duration::ZERO && wait <= secs(10), "{wait:?}");
        assert!(error.to_string().contains("next attempt in"), "{error}");
    }
    assert_eq!((endpoint.requests(), start.elapsed()), (1, Duration::ZERO));
}

// K4, R12
#[tokio::test(start_paused = true)]
async fn a_call_during_backoff_with_a_live_token_is_served_at_once() {
    let (endpoint, api) = (
        Endpoint::new()
            .then([Answer::Token(3600)])
            .always(Answer::Refused),
        Api::ok(),
    );
    let layer = layer(&endpoint);
    let service = layer.layer(api.clone());
    service.clone().oneshot(get(API)).await.unwrap();
    // In the last stretch, where a call would wait for a renewal if there were one.
    advance(secs(3585)).await;
    service.clone().oneshot(get(API)).await.unwrap();
    let start = Instant::now();
    let asked = endpoint.requests();
    for _ in 0..100 {
        service.clone().oneshot(get(API)).await.unwrap();
    }
    assert_eq!(
        (start.elapsed(), endpoint.requests()),
        (Duration::ZERO, asked)
    );
}

// K34, R15
#[tokio::test(start_paused = true)]
async fn ten_thousand_keys_of_a_dead_endpoint_share_one_backoff_and_at_most_sixty_four_flights() {
    let endpoint = Endpoint::new()
        .always(Answer::Refused)
        .latency(Duration::from_millis(50));
    let layer = builder(&endpoint)
        .cache_policy(one_attempt())
        .build()
        .unwrap();
    let calls: JoinSet<_> = (0..10_000)
        .map(|n| {
            let tokens = layer.token_cache().with_params(other(&format!("s{n}")));
            async move { tokens.token().await.unwrap_err() }
        })
        .collect();
    let errors = calls.join_all().await;
    assert_eq!(errors.len(), 10_000);
    assert!(errors.iter().all(Error::is_transient));
    assert_eq!(endpoint.most_at_once(), 64);
    assert_eq!(
        endpoint.requests(),
        64,
        "those that queued fail with the first ones"
    );
    let wait = layer
        .token_cache()
        .token()
        .await
        .unwrap_err()
        .retry_after()
        .unwrap();
    assert!(wait <= secs(2), "one outage is one step: {wait:?}");
}

// K34
#[tokio::test(start_paused = true)]
async fn sixty_four_flights_at_once_and_the_others_queue() {
    let endpoint = Endpoint::new().latency(Duration::from_millis(50));
    let layer = layer(&endpoint);
    let calls: JoinSet<_> = (0..200)
        .map(|n| {
            let tokens = layer.token_cache().with_params(other(&format!("s{n}")));
            async move { tokens.token().await.is_ok() }
        })
        .collect();
    assert!(calls.join_all().await.into_iter().all(|ok| ok));
    assert_eq!((endpoint.most_at_once(), endpoint.requests()), (64, 200));
}

// K34, R15
#[tokio::test(start_paused = true)]
async fn a_flight_whose_turn_does_not_come_is_no_failure_of_the_endpoint() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let policy = CachePolicy::new()
        .max_flights(1)
        .attempts(1)
        .attempt_timeout(secs(60));
    let tokens = builder(&endpoint)
        .cache_policy(policy)
        .build()
        .unwrap()
        .token_cache();
    let mut calls = JoinSet::new();
    for n in 0..3 {
        let kind = tokens.with_params(other(&format!("s{n}")));
        calls.spawn(async move { kind.token().await });
        settle().await;
    }
    let start = Instant::now();
    for _ in 0..2 {
        let error = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(
            error.is_timeout() && error.to_string().contains("fewer sets"),
            "{error}"
        );
        assert_eq!((error.retry_after(), start.elapsed()), (None, secs(30)));
    }
    // At this very moment, when a first backoff would not be over yet.
    assert_eq!(endpoint.requests(), 1);
    let queued = tokens.with_params(other("s1")).status();
    assert!(
        queued.last_error.is_none() && queued.next_attempt_in.is_none(),
        "{queued:?}"
    );
    endpoint.set(Answer::Token(3600));
    assert!(tokens.token().await.is_ok(), "no backoff for anyone");
    assert_eq!((endpoint.requests(), start.elapsed()), (2, secs(30)));
}

// R15
#[tokio::test(start_paused = true)]
async fn a_rejected_scope_backs_off_its_own_kind_of_token_and_no_other() {
    let endpoint = Endpoint::new().then([Answer::Error(400, "invalid_scope")]);
    let tokens = layer(&endpoint).token_cache();
    let bad = tokens.with_params(other("bad"));
    bad.token().await.unwrap_err();
    assert!(tokens.token().await.is_ok());
    assert!(bad.token().await.is_err());
    assert_eq!(endpoint.requests(), 2);
}

// FC15, FA20, R13
#[tokio::test(start_paused = true)]
async fn eight_kinds_in_a_row_that_are_rejected_speak_for_the_client() {
    let endpoint = Endpoint::new().always(Answer::Error(400, "invalid_target"));
    let tokens = layer(&endpoint).token_cache();
    for round in 0..3 {
        for n in 0..1500 {
            let error = kind(&tokens, n).token().await.expect_err("rejected");
            assert_eq!(error.oauth_code(), Some("invalid_target"), "{round}");
        }
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(endpoint.requests(), 8);
    let error = tokens.token().await.expect_err("the client's backoff");
    assert!(error.to_string().contains("eight sets"), "{error}");
    // No error is for ever, and a success ends it for all.
    endpoint.set(Answer::Token(3600));
    advance(secs(10)).await;
    tokens.token().await.expect("the backoff is over");
    kind(&tokens, 2000)
        .token()
        .await
        .expect("for other kinds too");
}

// FC15
#[tokio::test(start_paused = true)]
async fn one_kind_that_is_rejected_again_and_again_speaks_for_itself() {
    let endpoint = Endpoint::new();
    let tokens = layer(&endpoint).token_cache();
    for _ in 0..20 {
        endpoint.push(Answer::Error(400, "invalid_target"));
        kind(&tokens, 0).token().await.expect_err("rejected");
        advance(secs(120)).await;
    }
    endpoint.push(Answer::Error(400, "invalid_target"));
    kind(&tokens, 0).token().await.expect_err("rejected");
    tokens.token().await.expect("the client is well");
    assert_eq!(endpoint.requests(), 22);
}

// FC15
#[tokio::test(start_paused = true)]
async fn kinds_that_are_rejected_between_successes_speak_for_themselves() {
    let endpoint = Endpoint::new();
    let tokens = layer(&endpoint).token_cache();
    for n in 0..40 {
        endpoint.push(Answer::Error(400, "invalid_target"));
        kind(&tokens, n).token().await.expect_err("rejected");
        if n % 7 == 6 {
            kind(&tokens, 1000 + n)
                .token()
                .await
                .expect("the client is well");
        }
    }
    assert_eq!(endpoint.requests(), 45);
}

// K35
#[tokio::test(start_paused = true)]
async fn warm_up_and_invalidate_end_a_backoff() {
    let endpoint = Endpoint::new().then([
        Answer::Error(401, "invalid_client"),
        Answer::Error(401, "invalid_client"),
    ]);
    let tokens = layer(&endpoint).token_cache();
    tokens.token().await.unwrap_err();
    tokens.warm_up().await.unwrap_err();
    assert_eq!(endpoint.requests(), 2);
    tokens.invalidate();
    tokens.token().await.unwrap();
    assert_eq!(endpoint.requests(), 3);
    tokens.warm_up().await.unwrap();
    assert_eq!(endpoint.requests(), 3, "with a live token it sends nothing");
}

// R15
#[tokio::test(start_paused = true)]
async fn no_error_is_for_ever() {
    let endpoint = Endpoint::new().always(Answer::Error(401, "invalid_client"));
    let tokens = layer(&endpoint).token_cache();
    let start = Instant::now();
    while start.elapsed() < secs(3600) {
        tokens.token().await.unwrap_err();
        advance(secs(1)).await;
    }
    endpoint.set(Answer::Token(3600));
    advance(secs(60)).await;
    assert!(tokens.token().await.is_ok(), "a minute at the most");
}

// R8, R16
#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_and_a_thousand_calls_after_them_are_one_flight_on_a_failing_endpoint()
{
    let endpoint = Endpoint::new()
        .always(raw(503, &[], ""))
        .latency(Duration::from_millis(5));
    let layer = layer(&endpoint);
    let service = layer.layer(Api::ok());
    let calls: JoinSet<_> = (0..10_000)
        .map(|_| service.clone().oneshot(get(API)))
        .collect();
    assert!(calls.join_all().await.iter().all(Result::is_err));
    assert_eq!(endpoint.requests(), 3);
    for _ in 0..1000 {
        service.clone().oneshot(get(API)).await.unwrap_err();
        advance(Duration::from_micros(990)).await;
    }
    assert_eq!(endpoint.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn status_tells_how_things_stand() {
    let endpoint = Endpoint::new()
        .then([Answer::Token(3600)])
        .always(Answer::Refused);
    let policy = CachePolicy::new().attempts(1);
    let tokens = builder(&endpoint)
        .cache_policy(policy)
        .build()
        .unwrap()
        .token_cache();
    let cold = tokens.status();
    assert!(cold.generation.is_none() && cold.is_ready() && cold.token_requests == 0);
    tokens.token().await.unwrap();
    advance(secs(3400)).await;
    tokens.token().await.unwrap();
    settle().await;
    let status = tokens.status();
    assert_eq!(
        (status.age, status.remaining),
        (Some(secs(3400)), Some(secs(200)))
    );
    assert_eq!(status.token_requests, 2);
    assert!(status.last_error.unwrap().is_transient() && status.next_attempt_in.is_some());
    advance(secs(200)).await;
    tokens.token().await.unwrap_err();
    assert!(!tokens.status().is_ready());
}
