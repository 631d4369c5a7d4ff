//! Processes that are stopped and runtimes that nobody drives, while the endpoint is healthy: no
//! call fails, and no two token requests with the same parameters are under way at once.

#[path = "../support/mod.rs"]
mod support;

mod late;
mod none;
mod still;
mod stopped;
mod take_over;
mod undriven;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::*;
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tower_oauth::{
    ManualClock, OAuthLayer, TokenCache, TokenFuture, TokenParams, TokenRequest, TokenResponse,
    TokenSource,
};

/// A layer, its clock, and a runtime whose time is paused.
fn half_driven(endpoint: &Endpoint) -> (Runtime, ManualClock, OAuthLayer) {
    let runtime = paused();
    let (clock, layer) = runtime.block_on(async {
        let clock = ManualClock::new();
        let layer = builder(endpoint)
            .clock(clock.clone())
            .build()
            .expect("a layer");
        (clock, layer)
    });
    (runtime, clock, layer)
}

/// Counts its calls, and answers with tokens of a minute.
#[derive(Default)]
struct Counting(AtomicUsize);

impl TokenSource for Counting {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(TokenResponse::new("t")?.with_expires_in(secs(60))) })
    }
}

/// A source that never answers its first call, and answers the others.
struct StuckOnce(AtomicUsize);

impl StuckOnce {
    fn new() -> Self {
        Self(Default::default())
    }
}

impl TokenSource for StuckOnce {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        let first = self.0.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            if first {
                std::future::pending::<()>().await;
            }
            TokenResponse::new("rescued")
        })
    }
}

/// Starts a flight on `runtime` and leaves it there, unfinished.
fn start_flight(runtime: &Runtime, layer: &OAuthLayer) {
    runtime.block_on(async {
        let tokens = layer.token_cache();
        assert!(
            timeout(Duration::from_millis(5), tokens.token())
                .await
                .is_err()
        );
    });
}

/// Answers after a moment, and counts.
#[derive(Clone, Default)]
struct Healthy(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    requests: usize,
    under_way: Vec<TokenParams>,
}

impl Healthy {
    fn requests(&self) -> usize {
        self.0.lock().unwrap().requests
    }
}

impl TokenSource for Healthy {
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
        let request = request.params();
        Box::pin(async move {
            {
                let mut counts = self.0.lock().unwrap();
                counts.requests += 1;
                assert!(!counts.under_way.contains(request), "two of one kind");
                counts.under_way.push(request.clone());
            }
            sleep(millis(200)).await;
            self.0
                .lock()
                .unwrap()
                .under_way
                .retain(|known| known != request);
            Ok(TokenResponse::new("t")?.with_expires_in(secs(3600)))
        })
    }
}

/// Starts a flight for each of so many kinds, on a runtime that is not driven from here on.
fn leave(runtime: &Runtime, tokens: &TokenCache, kinds: usize) {
    runtime.block_on(async {
        for n in 0..kinds {
            let tokens = kind(tokens, n);
            tokio::spawn(async move { tokens.token().await });
        }
        for _ in 0..8 {
            yield_now().await;
        }
    });
}
