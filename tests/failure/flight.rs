//! How long a flight and its attempts are, and what happens within one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_oauth::{CachePolicy, OAuthLayer, TokenFuture, TokenRequest, TokenResponse, TokenSource};

use crate::support::*;

// R9
#[tokio::test(start_paused = true)]
async fn no_pause_and_no_attempt_begins_for_which_the_flight_has_no_time() {
    for seed in 0..5 {
        fastrand::seed(seed);
        let endpoint = Endpoint::new()
            .always(raw(503, &[], ""))
            .latency(Duration::from_micros(999_990));
        let tokens = builder(&endpoint)
            .cache_policy(
                CachePolicy::new()
                    .attempts(1)
                    .attempt_timeout(Duration::from_secs(1)),
            )
            .build()
            .unwrap()
            .token_cache();
        let error = tokens.token().await.unwrap_err();
        assert_eq!(
            error.status().map(|status| status.as_u16()),
            Some(503),
            "{error}"
        );
        assert_eq!(endpoint.requests(), 1);
    }
}

// R9
#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_within_the_flight_is_nobodys_failure() {
    let endpoint = Endpoint::new().then([Answer::Refused, raw(503, &[], "")]);
    let tokens = layer(&endpoint).token_cache();
    assert!(tokens.token().await.is_ok());
    assert_eq!(endpoint.requests(), 3);
}

// R9
#[tokio::test(start_paused = true)]
async fn an_attempt_is_over_before_the_pause_after_it() {
    fastrand::seed(3);
    let endpoint = Endpoint::new().then([Answer::Hang]);
    let tokens = layer(&endpoint).token_cache();
    let mut call = tokio_test::task::spawn(tokens.token());
    assert!(call.poll().is_pending());
    sleep(secs(10)).await;
    settle().await;
    assert_eq!((endpoint.requests(), endpoint.under_way()), (1, 0));
    sleep(secs(1)).await;
    assert_eq!((endpoint.requests(), endpoint.under_way()), (2, 0));
}

// FC18, R9
#[tokio::test(start_paused = true)]
async fn as_many_attempts_as_were_asked_for_have_time_in_the_flight() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let policy = CachePolicy::new().attempts(5);
    let tokens = builder(&endpoint)
        .cache_policy(policy)
        .build()
        .unwrap()
        .token_cache();
    let start = Instant::now();
    let error = tokens.token().await.expect_err("it never answers");
    assert!(error.is_timeout() && start.elapsed() <= secs(50), "{error}");
    assert_eq!((endpoint.requests(), error.attempts()), (5, 5));
}

// FC18, R9
#[tokio::test(start_paused = true)]
async fn a_flight_is_as_long_as_its_attempts_need() {
    let endpoint = Endpoint::new().latency(secs(40));
    let policy = CachePolicy::new().attempt_timeout(secs(60));
    let layer = builder(&endpoint).cache_policy(policy).build().unwrap();
    assert!(layer.token_cache().token().await.is_ok());
    assert_eq!(endpoint.requests(), 1);
}

/// A login plugin that waits for a person.
struct Plugin {
    starts: AtomicUsize,
}

impl TokenSource for Plugin {
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
        let start = self.starts.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            assert_eq!(request.attempt() as usize, start);
            sleep(secs(40)).await;
            TokenResponse::new("t")
        })
    }

    fn attempt_timeout(&self) -> Option<Duration> {
        Some(secs(60))
    }
}

// FC18, R9
#[tokio::test(start_paused = true)]
async fn a_source_states_how_long_an_attempt_takes_and_the_users_policy_overrides_it() {
    for (policy, starts, served) in [
        (CachePolicy::new(), 1, true),
        (CachePolicy::new().attempt_timeout(secs(10)), 3, false),
    ] {
        let plugin = Arc::new(Plugin {
            starts: AtomicUsize::new(0),
        });
        let layer = OAuthLayer::builder(Arc::clone(&plugin)).cache_policy(policy);
        let tokens = layer.build().unwrap().token_cache();
        assert_eq!(tokens.token().await.is_ok(), served);
        assert_eq!(plugin.starts.load(Ordering::SeqCst), starts);
    }
}
