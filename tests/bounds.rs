//! What stays bounded, whatever is evicted, given up or rejected.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::*;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, timeout};
use tower::{Layer, ServiceExt};
use tower_oauth::observe::Event;
use tower_oauth::{CachePolicy, ManualClock};

// FC7, R6
#[tokio::test(start_paused = true)]
async fn what_callers_leave_behind_who_poll_once_is_bounded() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let tokens = layer(&endpoint).token_cache();
    for n in 0..50_000 {
        let kind = kind(&tokens, n);
        let mut call = tokio_test::task::spawn(kind.token());
        assert!(call.poll().is_pending());
        if n % 100 == 0 {
            settle().await;
        }
    }
    settle().await;
    assert_eq!(endpoint.requests(), 64, "those that had their turn");
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 64);
    let entries = tokens.status().entries;
    assert!(entries <= 1 + 64 + 1000, "{entries}");
}

// FC7
#[tokio::test(start_paused = true)]
async fn a_flight_that_queues_goes_on_for_those_who_stay() {
    let endpoint = Endpoint::new().closed();
    let policy = CachePolicy::new().max_flights(1);
    let tokens = builder(&endpoint)
        .cache_policy(policy)
        .build()
        .unwrap()
        .token_cache();
    let mut first = tokio_test::task::spawn(async { kind(&tokens, 1).token().await });
    assert!(first.poll().is_pending());
    settle().await;
    let mut leaves = Box::pin(tokio_test::task::spawn(async {
        kind(&tokens, 2).token().await
    }));
    let mut stays = tokio_test::task::spawn(async { kind(&tokens, 2).token().await });
    assert!(leaves.poll().is_pending() && stays.poll().is_pending());
    settle().await;
    drop(leaves);
    settle().await;
    endpoint.open();
    settle().await;
    assert!(stays.is_woken());
    assert!(matches!(stays.poll(), std::task::Poll::Ready(Ok(_))));
    assert_eq!(endpoint.requests(), 2);
}

// FC7
#[tokio::test(start_paused = true)]
async fn a_flight_that_queues_goes_on_for_one_who_joins_as_the_last_one_leaves() {
    let (endpoint, lost) = (Endpoint::new().closed(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&lost);
    let tokens = builder(&endpoint)
        .cache_policy(CachePolicy::new().max_flights(1))
        .observer(move |event: &Event<'_>| {
            if matches!(event, Event::FetchLost { .. }) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        })
        .build()
        .unwrap()
        .token_cache();
    let mut first = tokio_test::task::spawn(async { kind(&tokens, 1).token().await });
    assert!(first.poll().is_pending());
    settle().await;
    let mut leaves = Box::pin(tokio_test::task::spawn(async {
        kind(&tokens, 2).token().await
    }));
    assert!(leaves.poll().is_pending());
    settle().await;
    drop(leaves);
    let mut joins = tokio_test::task::spawn(async { kind(&tokens, 2).token().await });
    assert!(joins.poll().is_pending());
    settle().await;
    assert_eq!(lost.load(Ordering::SeqCst), 0);
    endpoint.open();
    settle().await;
    assert!(matches!(joins.poll(), std::task::Poll::Ready(Ok(_))));
}

// FC2
#[tokio::test(start_paused = true)]
async fn a_queue_that_has_stood_still_takes_no_turn_from_those_who_stood_still_with_it() {
    let clock = ManualClock::new();
    let endpoint = Endpoint::new().always(Answer::Hang);
    let policy = CachePolicy::new().max_flights(3);
    let tokens = builder(&endpoint)
        .cache_policy(policy)
        .clock(clock.clone())
        .build()
        .unwrap()
        .token_cache();
    let mut stuck = JoinSet::new();
    for n in 0..6 {
        let kind = kind(&tokens, n);
        stuck.spawn(async move { kind.token().await.is_ok() });
    }
    tokio::time::sleep(secs(1)).await;
    // Both clocks advance, then only the one that counts suspend.
    advance(secs(5)).await;
    settle().await;
    assert_eq!(endpoint.requests(), 3);
    clock.advance(secs(3));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(endpoint.requests(), 3);
}

// FC7, R9
#[tokio::test(start_paused = true)]
async fn a_flight_that_has_had_its_turn_goes_on_when_all_callers_have_left() {
    let endpoint = Endpoint::new().then([Answer::Refused]);
    let tokens = layer(&endpoint).token_cache();
    let first = kind(&tokens, 1);
    let mut call = tokio_test::task::spawn(first.token());
    assert!(call.poll().is_pending());
    settle().await;
    drop(call);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(endpoint.requests(), 2, "the second attempt");
    assert_eq!(first.status().generation, Some(1), "and its token is kept");
}

// FC8, R15
#[tokio::test(start_paused = true)]
async fn sixty_four_kinds_that_hang_do_not_keep_the_layers_own_waiting() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let layer = layer(&endpoint);
    let tokens = layer.token_cache();
    let mut stuck = JoinSet::new();
    for n in 0..100 {
        let kind = kind(&tokens, n);
        stuck.spawn(async move { kind.token().await.is_ok() });
    }
    settle().await;
    assert_eq!(endpoint.requests(), 64);
    endpoint.set(Answer::Token(3600));
    let start = Instant::now();
    tokens.token().await.expect("its own turn");
    assert_eq!((start.elapsed(), endpoint.requests()), (Duration::ZERO, 65));
}

// FC9, R15
#[tokio::test(start_paused = true)]
async fn a_token_that_an_api_has_refused_is_renewed_soon_after_an_outage() {
    // The seed decides how long the steps are.
    for seed in 0..20 {
        fastrand::seed(seed);
        let endpoint = Endpoint::new().then([Answer::Token(3600)]);
        let (api, refuses) = refusing_when_told();
        let layer = layer(&endpoint);
        let call = async || {
            let answer = layer.layer(api.clone()).oneshot(get(API)).await;
            answer.expect("a live token is used").status()
        };
        call().await;
        advance(secs(3300)).await;
        // In the renewal window, the steps grow to the longest one with a live token.
        endpoint.set(Answer::Refused);
        for second in 0..60 {
            if second == 59 {
                refuses.store(1, Ordering::SeqCst);
            }
            call().await;
            advance(secs(1)).await;
        }
        endpoint.set(Answer::Token(3600));
        let mut refused = Duration::ZERO;
        while call().await == 401 {
            advance(Duration::from_millis(100)).await;
            refused += Duration::from_millis(100);
        }
        assert!(refused <= secs(15), "seed {seed}: {refused:?}");
    }
}

/// Refuses the first token once it is told to.
fn refusing_when_told() -> (Api, Arc<AtomicUsize>) {
    let refuses = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&refuses);
    let api = Api::new(move |authorization| {
        if told.load(Ordering::SeqCst) == 1 && authorization == "Bearer token-1" {
            unauthorized(INVALID_TOKEN)
        } else {
            http::Response::new(String::new())
        }
    });
    (api, refuses)
}

// FC14, R20
#[tokio::test(start_paused = true)]
async fn the_budget_of_an_api_that_always_refuses_outlives_eviction() {
    let api = Api::new(|_| unauthorized(INVALID_TOKEN));
    for bound in [30, 20] {
        let endpoint = Endpoint::new();
        let policy = CachePolicy::new().max_entries(bound);
        let layer = builder(&endpoint).cache_policy(policy).build().unwrap();
        let service = layer.replay_unauthorized().layer(api.clone());
        for n in 0..3000 {
            let mut request = get(API);
            request.extensions_mut().insert(of_audience(n % 30));
            assert_eq!(
                service.clone().oneshot(request).await.unwrap().status(),
                401
            );
        }
        assert_eq!(endpoint.requests(), 30 * 4, "bound {bound}");
    }
}

// FC15, R13
#[tokio::test(start_paused = true)]
async fn a_backoff_outlives_the_eviction_of_its_kind() {
    let endpoint = Endpoint::new();
    let tokens = layer(&endpoint).token_cache();
    for n in 0..1500 {
        // A success now and then, so that each failure concerns its own parameters alone.
        if n % 7 == 0 {
            endpoint.set(Answer::Token(3600));
            tokens.invalidate();
            tokens.token().await.expect("the client is well");
            endpoint.set(Answer::Error(400, "invalid_target"));
        }
        kind(&tokens, n).token().await.expect_err("rejected");
    }
    let asked = endpoint.requests();
    assert_eq!(asked, 1500 + 1500_usize.div_ceil(7));
    for _ in 0..2 {
        for n in 0..1500 {
            kind(&tokens, n).token().await.expect_err("a backoff");
        }
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(endpoint.requests(), asked);
    let entries = tokens.status().entries;
    assert!(entries <= 1 + 2 * 1000, "{entries}");
}

// FC15, R13
#[tokio::test(start_paused = true)]
async fn an_event_says_that_a_live_token_was_forgotten_for_want_of_room() {
    let (endpoint, evicted) = (Endpoint::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&evicted);
    let layer = builder(&endpoint)
        .cache_policy(CachePolicy::new().max_entries(10))
        .observer(move |event: &Event<'_>| {
            if let Event::Evicted { max_entries, .. } = event {
                assert_eq!(*max_entries, 10);
                count.fetch_add(1, Ordering::SeqCst);
            }
        })
        .build()
        .unwrap();
    for n in 0..15 {
        kind(&layer.token_cache(), n).token().await.unwrap();
    }
    assert_eq!(evicted.load(Ordering::SeqCst), 5);
    // Evicting an expired token raises no event.
    advance(secs(3601)).await;
    for n in 20..25 {
        kind(&layer.token_cache(), n).token().await.unwrap();
    }
    assert_eq!(evicted.load(Ordering::SeqCst), 5);
    kind(&layer.token_cache(), 0)
        .token()
        .await
        .expect("fetched again at once");
    assert_eq!(endpoint.requests(), 21);
}

// FC19, R20
#[tokio::test(start_paused = true)]
async fn sixty_four_origins_have_budgets_of_their_own_and_a_newcomer_has_one_when_they_are_back() {
    let refuse = Arc::new(AtomicUsize::new(1));
    let told = Arc::clone(&refuse);
    let endpoint = Endpoint::new();
    let api = Api::new(move |_| match told.load(Ordering::SeqCst) {
        1 => unauthorized(INVALID_TOKEN),
        _ => http::Response::new(String::new()),
    });
    let service = layer(&endpoint).layer(api);
    let call = async |n: usize| {
        let uri = format!("https://api-{n}.example/");
        service.clone().oneshot(get(&uri)).await.unwrap();
    };
    for n in 0..64 {
        for _ in 0..5 {
            call(n).await;
        }
    }
    // The token is suspect after the last refusal that had a budget, and renewed by the next call.
    assert_eq!(endpoint.requests(), 1 + 64 * 3);
    for _ in 0..5 {
        call(64).await;
    }
    assert_eq!(
        endpoint.requests(),
        1 + 64 * 3,
        "it shares a budget that is spent"
    );
    // All budgets are full again, and have been for long enough.
    refuse.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        advance(secs(1200)).await;
        call(0).await;
    }
    settle().await;
    let asked = endpoint.requests();
    refuse.store(1, Ordering::SeqCst);
    for _ in 0..5 {
        call(65).await;
    }
    assert_eq!(endpoint.requests(), asked + 3);
}

// FC5 is about what a replay waits for; see tests/service_contract.rs.
#[tokio::test(start_paused = true)]
async fn a_caller_with_less_patience_than_a_queue_gets_an_answer() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let policy = CachePolicy::new().max_flights(1);
    let tokens = builder(&endpoint)
        .cache_policy(policy)
        .build()
        .unwrap()
        .token_cache();
    let mut stuck = JoinSet::new();
    let first = kind(&tokens, 0);
    stuck.spawn(async move { first.token().await.is_ok() });
    settle().await;
    assert!(timeout(secs(1), kind(&tokens, 1).token()).await.is_err());
    settle().await;
    assert!(!kind(&tokens, 1).status().fetching, "nobody waits for it");
}
