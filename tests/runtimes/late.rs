//! Flights that end after they were given up, or after later ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_oauth::{
    CachePolicy, OAuthLayer, TokenFuture, TokenParams, TokenRequest, TokenResponse, TokenSource,
};

use crate::support::*;

/// Answers each call with the next token; the second call blocks its thread until it may go on.
#[derive(Default)]
struct Blocking {
    calls: AtomicUsize,
    blocked: AtomicBool,
    go: AtomicBool,
}

impl TokenSource for Blocking {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(async {
            match self.calls.fetch_add(1, Ordering::SeqCst) + 1 {
                2 => {
                    self.blocked.store(true, Ordering::SeqCst);
                    wait_for(&self.go);
                    TokenResponse::new("t2")
                }
                3 => Err(tower_oauth::Error::rejected("access_denied", "no more")),
                n => TokenResponse::new(format!("t{n}")),
            }
        })
    }
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        thread::sleep(millis(1));
    }
}

// R12
#[test]
fn a_token_that_comes_although_its_flight_was_given_up_wins_over_the_failure_of_the_next() {
    let source = Arc::new(Blocking::default());
    let (clock, layer) = with_clock(Arc::clone(&source));
    let tokens = layer.token_cache();
    let api = Api::new(|authorization| match authorization {
        "Bearer t1" => unauthorized(INVALID_TOKEN),
        _ => http::Response::new(String::new()),
    });
    let service = layer.replay_unauthorized().layer(api.clone());
    current_thread()
        .block_on(tokens.token())
        .expect("the first one");
    let replayed = {
        let service = service.clone();
        thread::spawn(move || {
            let call = service.oneshot(get(API));
            two_threads().block_on(call).expect("an answer")
        })
    };
    wait_for(&source.blocked);
    clock.advance(secs(31));
    current_thread().block_on(async {
        // Gives the renewal up and starts another, which waits a moment for the first to end.
        let mut call = tokio_test::task::spawn(service.oneshot(get(API)));
        while source.calls.load(Ordering::SeqCst) < 3 {
            let _ = call.poll();
            source.go.store(true, Ordering::SeqCst);
            sleep(millis(1)).await;
        }
        assert_eq!(call.await.expect("an answer").status(), 200);
    });
    assert_eq!(replayed.join().expect("no panic").status(), 200);
    assert_eq!(tokens.status().generation, Some(2));
    assert!(
        !api.seen().contains(&"Bearer t4".to_owned()),
        "{:?}",
        api.seen()
    );
}

// FC1, R5
#[test]
fn a_flight_that_is_given_up_drops_its_token_request_before_the_next_one_makes_its_own() {
    /// Counts as under way until it is dropped, which takes a while.
    struct UnderWay<'a>(&'a Slow);
    impl Drop for UnderWay<'_> {
        fn drop(&mut self) {
            thread::sleep(millis(50));
            self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        }
    }
    #[derive(Default)]
    struct Slow {
        requests: AtomicUsize,
        under_way: AtomicUsize,
        most: AtomicUsize,
    }
    impl TokenSource for Slow {
        fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
            Box::pin(async {
                let first = self.requests.fetch_add(1, Ordering::SeqCst) == 0;
                let others = self.under_way.fetch_add(1, Ordering::SeqCst);
                self.most.fetch_max(others + 1, Ordering::SeqCst);
                let _under_way = UnderWay(self);
                if first {
                    std::future::pending::<()>().await;
                }
                TokenResponse::new("t")
            })
        }
    }
    let source = Arc::new(Slow::default());
    let (clock, layer) = with_clock(Arc::clone(&source));
    let tokens = layer.token_cache();
    two_threads().block_on(async {
        let first = tokio::spawn({
            let tokens = tokens.clone();
            async move { tokens.token().await }
        });
        while source.requests.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
        clock.advance(secs(31));
        assert!(tokens.token().await.is_ok(), "started over");
        assert!(first.await.expect("no panic").is_ok());
    });
    let counts = [&source.requests, &source.most].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counts, [2, 1]);
}

// FC3, R6
#[test]
fn a_flight_that_was_given_up_records_nothing_when_it_ends() {
    /// Its first call hangs for as long as its limit, then fails.
    struct FailsLate(AtomicUsize);
    impl TokenSource for FailsLate {
        fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
            let first = self.0.fetch_add(1, Ordering::SeqCst) == 0;
            Box::pin(async move {
                if first {
                    sleep(millis(200)).await;
                    return Err(tower_oauth::Error::rejected("invalid_client", "too late"));
                }
                Ok(TokenResponse::new("rescued")?.with_expires_in(secs(3600)))
            })
        }
    }
    let source = Arc::new(FailsLate(AtomicUsize::new(0)));
    let layer = OAuthLayer::builder(Arc::clone(&source))
        .cache_policy(CachePolicy::new().attempts(1).attempt_timeout(millis(300)))
        .build()
        .expect("a layer");
    let tokens = layer.token_cache();
    let frozen = current_thread();
    frozen.block_on(async {
        assert!(timeout(millis(5), tokens.token()).await.is_err());
    });
    let rescued = current_thread()
        .block_on(tokens.token())
        .expect("taken over");
    assert_eq!(
        (rescued.generation(), source.0.load(Ordering::SeqCst)),
        (2, 2)
    );
    frozen.block_on(async { sleep(millis(50)).await });
    current_thread().block_on(async {
        let status = tokens.status();
        assert!(
            status.last_error.is_none() && status.next_attempt_in.is_none(),
            "{status:?}"
        );
        assert_eq!((status.generation, status.fetching), (Some(2), false));
        // This would fail during a backoff, had one been recorded.
        let other = tokens.with_params(TokenParams::new().with_audience("other"));
        other.token().await.expect("no backoff for other kinds");
    });
    assert_eq!(source.0.load(Ordering::SeqCst), 3);
}

// FC3
#[tokio::test(start_paused = true)]
async fn a_flight_that_fails_after_later_ones_have_succeeded_speaks_for_nobody() {
    let endpoint = Endpoint::new().then([Answer::Hang]);
    let tokens = builder(&endpoint)
        .cache_policy(CachePolicy::new().attempts(1))
        .build()
        .expect("a layer")
        .token_cache();
    let hung = {
        let tokens = tokens.clone();
        tokio::spawn(async move { tokens.token().await })
    };
    settle().await;
    for n in 0..5 {
        kind(&tokens, n)
            .token()
            .await
            .expect("the endpoint is well");
    }
    let start = Instant::now();
    hung.await
        .expect("no panic")
        .expect_err("its limit has passed");
    assert!(start.elapsed() <= secs(10));
    let status = tokens.status();
    assert!(
        status.last_error.is_none() && status.next_attempt_in.is_none(),
        "{status:?}"
    );
    kind(&tokens, 9)
        .token()
        .await
        .expect("no backoff for other kinds");
    tokens.token().await.expect("nor for this one");
    assert_eq!(endpoint.requests(), 8);
}

// FC3
#[tokio::test(start_paused = true)]
async fn a_kind_that_goes_on_failing_while_others_succeed_backs_off_alone() {
    let endpoint = Endpoint::new();
    let tokens = builder(&endpoint)
        .cache_policy(CachePolicy::new().attempts(1))
        .build()
        .expect("a layer")
        .token_cache();
    for n in 0..2 {
        endpoint.push(Answer::Hang);
        let hung = {
            let tokens = tokens.clone();
            tokio::spawn(async move { tokens.token().await })
        };
        settle().await;
        kind(&tokens, n)
            .token()
            .await
            .expect("the endpoint is well");
        hung.await
            .expect("no panic")
            .expect_err("its limit has passed");
    }
    tokens.token().await.expect_err("twice in a row");
    assert!(tokens.status().next_attempt_in.is_some());
    kind(&tokens, 9)
        .token()
        .await
        .expect("no backoff for other kinds");
    assert_eq!(endpoint.requests(), 5);
}
