//! A frozen process: time jumps ahead between two polls.

use std::time::Duration;

use tokio::time::{advance, sleep, timeout};
use tower_oauth::{CachePolicy, TokenCache};

use crate::support::*;

// FC1, R9
#[tokio::test(start_paused = true)]
async fn a_process_that_stands_still_between_two_attempts_fails_no_call() {
    for seed in 0..5 {
        fastrand::seed(seed);
        let endpoint = Endpoint::new().then([Answer::Refused]);
        let tokens = layer(&endpoint).token_cache();
        let mut call = tokio_test::task::spawn(tokens.token());
        assert!(call.poll().is_pending());
        settle().await;
        assert_eq!(endpoint.requests(), 1);
        advance(secs(40)).await;
        settle().await;
        let call = timeout(secs(1), call).await.expect("started over");
        assert!(call.is_ok(), "{}", call.unwrap_err());
        assert_eq!(endpoint.requests(), 2);
    }
}

// FC1
#[tokio::test(start_paused = true)]
async fn only_the_second_flight_in_a_row_that_was_not_driven_is_a_failure() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let tokens = layer(&endpoint).token_cache();
    let mut call = tokio_test::task::spawn(tokens.token());
    assert!(call.poll().is_pending());
    settle().await;
    assert_eq!(endpoint.requests(), 1);
    // The process is frozen for that long.
    advance(secs(40)).await;
    sleep(secs(1)).await;
    assert!(call.poll().is_pending(), "lost, and started over");
    settle().await;
    assert_eq!((endpoint.requests(), endpoint.most_at_once()), (2, 1));
    assert!(tokens.status().last_error.is_none());

    advance(secs(40)).await;
    sleep(secs(1)).await;
    let error = match call.poll() {
        std::task::Poll::Ready(told) => told.expect_err("no storm"),
        std::task::Poll::Pending => panic!("it would start over for ever"),
    };
    assert!(
        error.is_transient() && error.retry_after().is_some(),
        "{error}"
    );
    assert_eq!(endpoint.requests(), 2);
    tokens.token().await.expect_err("a backoff");
    assert_eq!(endpoint.requests(), 2);
}

// FC1, FC2
#[tokio::test(start_paused = true)]
async fn a_process_that_stands_still_while_flights_queue_fails_none_of_them() {
    for still in [5, 15, 19, 21, 25, 29, 32, 60].map(secs) {
        let endpoint = Endpoint::new().latency(millis(300));
        let policy = CachePolicy::new().max_flights(1);
        let tokens = builder(&endpoint)
            .cache_policy(policy)
            .build()
            .expect("a layer")
            .token_cache();
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..3 {
            let kind = kind(&tokens, n);
            calls.spawn(async move { kind.token().await });
            settle().await;
        }
        advance(still).await;
        for call in calls.join_all().await {
            assert!(call.is_ok(), "{still:?}: {}", call.unwrap_err());
        }
        assert_eq!(endpoint.most_at_once(), 1, "{still:?}");
    }
}

// FC1
#[tokio::test(start_paused = true)]
async fn a_process_that_stands_still_when_an_attempts_time_ends_fails_no_call() {
    for policy in [
        one_attempt(),
        CachePolicy::new().attempts(1).attempt_timeout(secs(10)),
        CachePolicy::new(),
    ] {
        for still in [2_000, 9_990, 10_010, 10_500, 10_990, 11_500].map(millis) {
            let endpoint = Endpoint::new().then([Answer::Hang]);
            let tokens = builder(&endpoint)
                .cache_policy(policy.clone())
                .build()
                .expect("a layer")
                .token_cache();
            let mut call = tokio_test::task::spawn(tokens.token());
            assert!(call.poll().is_pending());
            settle().await;
            advance(still).await;
            let call = timeout(secs(15), call).await.expect("started over");
            assert!(call.is_ok(), "{still:?}: {}", call.unwrap_err());
            assert_eq!(endpoint.requests(), 2);
        }
    }
}

// FC1, FC2
#[tokio::test(start_paused = true)]
async fn a_process_that_stands_still_takes_no_patience_from_those_who_queue() {
    for still in [10, 18, 19, 25].map(secs) {
        let endpoint = Endpoint::new().latency(secs(1));
        let tokens = layer(&endpoint).token_cache();
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..200 {
            let kind = kind(&tokens, n);
            calls.spawn(async move { kind.token().await });
        }
        sleep(millis(510)).await;
        advance(still).await;
        for call in calls.join_all().await {
            assert!(call.is_ok(), "{still:?}: {}", call.unwrap_err());
        }
        assert!(endpoint.most_at_once() <= 64, "{still:?}");
    }
}

/// One flight at a time, with long attempts.
fn one_at_a_time(endpoint: &Endpoint, attempt_timeout: Duration) -> TokenCache {
    let policy = CachePolicy::new()
        .max_flights(1)
        .attempt_timeout(attempt_timeout);
    let layer = builder(endpoint).cache_policy(policy).build();
    layer.expect("a layer").token_cache()
}

// FC2
#[tokio::test(start_paused = true)]
async fn whoever_queues_and_stood_still_judges_nobody_by_that_time() {
    let endpoint = Endpoint::new().latency(secs(12));
    let tokens = one_at_a_time(&endpoint, secs(25));
    let call = |n| {
        let tokens = kind(&tokens, n);
        tokio::spawn(async move { tokens.token().await })
    };
    let first = call(0);
    settle().await;
    sleep(millis(100)).await;
    let second = call(1);
    settle().await;
    // Between the regular polls of the two, so that the one in the queue is the next to be polled.
    sleep(millis(450)).await;
    advance(secs(3)).await;
    for call in [first, second] {
        call.await.expect("no panic").expect("in its turn");
    }
    assert_eq!((endpoint.requests(), endpoint.most_at_once()), (2, 1));
}

// FC1
#[tokio::test(start_paused = true)]
async fn a_flight_that_stood_still_in_the_queue_is_started_over_when_its_time_there_is_over() {
    let endpoint = Endpoint::new().latency(secs(16));
    let tokens = one_at_a_time(&endpoint, secs(28));
    let calls = [0, 1].map(|n| {
        let tokens = kind(&tokens, n);
        tokio::spawn(async move { tokens.token().await })
    });
    settle().await;
    advance(secs(10)).await;
    // The first one holds its turn for longer than the second has time for.
    for call in calls {
        call.await.expect("no panic").expect("in its turn");
    }
    assert_eq!((endpoint.requests(), endpoint.most_at_once()), (2, 1));
}

// FC1
#[tokio::test(start_paused = true)]
async fn a_rejection_between_two_flights_that_were_not_driven_makes_them_none_in_a_row() {
    // Of the kind, and of the client.
    for code in ["invalid_scope", "invalid_client"] {
        let refused = Answer::Error(400, code);
        let endpoint = Endpoint::new().then([Answer::Hang, refused, Answer::Hang]);
        let tokens = layer(&endpoint).token_cache();
        for served in [false, true] {
            let mut call = tokio_test::task::spawn(tokens.token());
            assert!(call.poll().is_pending());
            settle().await;
            advance(secs(40)).await;
            let told = call.await;
            assert_eq!(told.is_ok(), served, "{code}: {told:?}");
            sleep(secs(60)).await;
        }
        assert_eq!(endpoint.requests(), 4);
    }
}

// FC1
#[tokio::test(start_paused = true)]
async fn a_caller_that_stood_still_too_leaves_the_flight_a_moment_for_its_answer() {
    let endpoint = Endpoint::new().latency(millis(40_100));
    let tokens = layer(&endpoint).token_cache();
    let mut call = tokio_test::task::spawn(tokens.token());
    assert!(call.poll().is_pending());
    settle().await;
    advance(secs(40)).await;
    // Before the flight is polled again.
    assert!(call.poll().is_pending());
    let told = timeout(secs(1), call).await.expect("the answer of then");
    assert!(told.is_ok(), "{}", told.unwrap_err());
    assert_eq!(endpoint.requests(), 1);
}
