//! A second runtime takes over from one that is gone, shut down or not driven.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tower_oauth::{OAuthLayer, TokenParams};

use crate::support::*;
use crate::{Counting, StuckOnce, start_flight};

// K29
#[test]
fn a_second_runtime_takes_over_when_the_flights_runtime_is_dropped() {
    let source = std::sync::Arc::new(StuckOnce::new());
    let layer = OAuthLayer::new(std::sync::Arc::clone(&source));
    let first = current_thread();
    start_flight(&first, &layer);
    let second = current_thread();
    let token = second.block_on(async {
        let tokens = layer.token_cache();
        let waiters: JoinSet<_> = (0..5)
            .map(|_| {
                let tokens = tokens.clone();
                async move { tokens.token().await }
            })
            .collect();
        settle().await;
        tokio::task::spawn_blocking(move || drop(first))
            .await
            .unwrap();
        waiters.join_all().await
    });
    assert!(
        token
            .iter()
            .all(|token| token.as_ref().unwrap().expose_secret() == "rescued")
    );
    assert_eq!(source.0.load(Ordering::SeqCst), 2, "taken over once");
}

// K29
#[test]
fn a_flight_spawned_on_a_runtime_that_is_shut_down_fails_its_callers_and_another_runtime_succeeds()
{
    let endpoint = std::sync::Arc::new(Counting::default());
    let layer = OAuthLayer::new(std::sync::Arc::clone(&endpoint));
    let dead = current_thread();
    let handle = dead.handle().clone();
    dead.shutdown_background();
    // Polled by a foreign executor inside the context of a runtime that takes no more tasks.
    let error = {
        let _context = handle.enter();
        let tokens = layer.token_cache();
        futures::executor::block_on(tokens.token())
    };
    let error = error.expect_err("no runtime to fetch on");
    assert!(error.is_transient(), "{error}");
    let token = current_thread().block_on(layer.token_cache().token());
    assert!(token.is_ok());
    assert_eq!(endpoint.0.load(Ordering::SeqCst), 1);
}

// K29, R12
#[test]
fn a_live_token_is_used_also_on_a_runtime_that_is_shut_down() {
    let endpoint = std::sync::Arc::new(Counting::default());
    let (clock, layer) = with_clock(std::sync::Arc::clone(&endpoint));
    current_thread()
        .block_on(layer.token_cache().warm_up())
        .expect("a token of a minute");
    clock.advance(Duration::from_secs(56));
    let dead = current_thread();
    let handle = dead.handle().clone();
    dead.shutdown_background();
    let _context = handle.enter();
    let tokens = layer.token_cache();
    let token = futures::executor::block_on(tokens.token()).expect("the live token");
    assert_eq!(token.generation(), 1);
}

// K29
#[test]
fn a_second_runtime_takes_over_when_the_flights_runtime_lives_and_is_no_longer_driven() {
    let source = std::sync::Arc::new(StuckOnce::new());
    let policy = tower_oauth::CachePolicy::new()
        .attempts(1)
        .attempt_timeout(Duration::from_millis(100));
    let layer = OAuthLayer::builder(std::sync::Arc::clone(&source))
        .cache_policy(policy)
        .build()
        .unwrap();
    let frozen = current_thread();
    start_flight(&frozen, &layer);
    let start = std::time::Instant::now();
    let token = current_thread().block_on(async {
        let (a, b) = (layer.token_cache(), layer.token_cache());
        tokio::join!(a.token(), b.token())
    });
    assert_eq!(token.0.unwrap().expose_secret(), "rescued");
    assert_eq!(token.1.unwrap().expose_secret(), "rescued");
    assert_eq!(source.0.load(Ordering::SeqCst), 2, "taken over once");
    assert!(start.elapsed() < Duration::from_secs(5));
    // Driven again, the first flight ends late and does no harm: no failure is recorded that would
    // hold other kinds back, and no token is displaced.
    frozen.block_on(async { tokio::time::sleep(Duration::from_millis(500)).await });
    let tokens = layer.token_cache();
    let status = tokens.status();
    assert_eq!(
        (status.generation, status.fetching, status.token_requests),
        (Some(2), false, 2)
    );
    assert!(
        status.last_error.is_none() && status.next_attempt_in.is_none(),
        "{status:?}"
    );
    current_thread().block_on(async {
        let token = tokens.token().await.unwrap();
        assert_eq!((token.expose_secret(), token.generation()), ("rescued", 2));
        let other = tokens.with_params(TokenParams::new().with_audience("other"));
        assert_eq!(other.token().await.unwrap().generation(), 3);
    });
}
