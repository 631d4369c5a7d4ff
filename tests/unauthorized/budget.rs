//! How many renewals the 401s of an API cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_oauth::Replayed;

use crate::support::*;
use crate::{call, call_at, refusing};

// P2, R18
#[tokio::test(start_paused = true)]
async fn without_replay_the_401_is_returned_and_the_next_request_renews_first() {
    let (endpoint, api) = (Endpoint::new(), refusing(&["token-1"], INVALID_TOKEN));
    let layer = layer(&endpoint);
    let answer = call(&layer, &api).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.extensions().get::<Replayed>().is_none());
    settle().await;
    assert_eq!(
        endpoint.requests(),
        1,
        "nothing is asked until somebody needs it"
    );
    assert!(layer.token_cache().status().suspect);
    assert_eq!(call(&layer, &api).await.status(), StatusCode::OK);
    assert_eq!(api.seen(), ["Bearer token-1", "Bearer token-2"]);
    assert!(!layer.token_cache().status().suspect);
}

// P4
#[tokio::test(start_paused = true)]
async fn fifty_late_401s_for_one_token_cost_one_renewal() {
    for replay in [false, true] {
        let (endpoint, api) = (Endpoint::new(), refusing(&["token-1"], INVALID_TOKEN));
        // The 401s come once all fifty requests are out, one after another.
        let (out, late) = (api.clone(), Arc::new(AtomicUsize::new(0)));
        let slow = tower::service_fn(move |request: Request<String>| {
            let turn = late.fetch_add(1, Ordering::SeqCst) as u64;
            let answer = out.clone().oneshot(request);
            async move {
                tokio::time::sleep(secs(1) + Duration::from_millis(turn)).await;
                answer.await
            }
        });
        let layer = layer(&endpoint);
        layer.token_cache().warm_up().await.unwrap();
        let statuses: Vec<_> = if replay {
            let service = layer.clone().replay_unauthorized().layer(slow);
            let calls = (0..50).map(|_| service.clone().oneshot(get(API)));
            futures::future::join_all(calls).await
        } else {
            let service = layer.layer(slow);
            let calls = (0..50).map(|_| service.clone().oneshot(get(API)));
            futures::future::join_all(calls).await
        }
        .into_iter()
        .map(|answer| answer.unwrap().status())
        .collect();
        let wanted = if replay {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(statuses, vec![wanted; 50]);
        assert_eq!(call(&layer, &api).await.status(), StatusCode::OK);
        let refused = api
            .seen()
            .iter()
            .filter(|seen| *seen == "Bearer token-1")
            .count();
        assert_eq!((refused, endpoint.requests()), (50, 2));
    }
}

// P5, R20
#[tokio::test(start_paused = true)]
async fn an_api_that_always_answers_401_gets_no_third_try_and_renewals_within_its_budget() {
    let (endpoint, api) = (Endpoint::new(), Api::new(|_| unauthorized(INVALID_TOKEN)));
    let layer = layer(&endpoint).replay_unauthorized();
    let answer = call(&layer, &api).await;
    assert_eq!(
        (answer.status(), api.requests()),
        (StatusCode::UNAUTHORIZED, 2)
    );
    for _ in 0..1000 {
        call(&layer, &api).await;
    }
    assert_eq!(
        endpoint.requests(),
        1 + 3,
        "the first token, and three renewals"
    );
    let mut hours = Vec::new();
    for _ in 0..3 {
        let before = endpoint.requests();
        for _ in 0..3600 {
            advance(secs(1)).await;
            call(&layer, &api).await;
        }
        hours.push(endpoint.requests() - before);
    }
    // Ten minutes apart in the end, plus one renewal ahead of time each hour.
    assert!(hours[2] <= 8, "{hours:?}");
}

// P33, R12
#[tokio::test(start_paused = true)]
async fn a_stray_401_while_the_token_endpoint_is_down_is_no_outage_of_our_making() {
    let stray = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&stray);
    let api = Api::new(move |_| {
        if now.swap(false, Ordering::SeqCst) {
            unauthorized("")
        } else {
            Response::new(String::new())
        }
    });
    for dead in [Answer::Refused, Answer::Hang] {
        let endpoint = Endpoint::new().then([Answer::Token(3600)]).always(dead);
        let layer = layer(&endpoint);
        call(&layer, &api).await;
        stray.store(true, Ordering::SeqCst);
        assert_eq!(call(&layer, &api).await.status(), StatusCode::UNAUTHORIZED);
        for _ in 0..100 {
            let start = tokio::time::Instant::now();
            assert_eq!(call(&layer, &api).await.status(), StatusCode::OK);
            assert!(start.elapsed() <= secs(1), "{:?}", start.elapsed());
            advance(secs(1)).await;
        }
    }
}

// P34, R20
#[tokio::test(start_paused = true)]
async fn a_healthy_api_never_waits_for_the_budget_of_another() {
    let (endpoint, healthy) = (Endpoint::new(), refusing(&["revoked"], INVALID_TOKEN));
    let sick = Api::new(|_| unauthorized(INVALID_TOKEN));
    let layer = layer(&endpoint);
    for _ in 0..50 {
        call_at(&layer, &sick, "https://sick.example/").await;
        call_at(&layer, &healthy, "https://healthy.example/").await;
    }
    let asked = endpoint.requests();
    assert_eq!(asked, 1 + 3);
    // The failing API has spent its own budget; the healthy one's 401 renews at once.
    endpoint.push(Answer::Fixed("revoked", 3600));
    layer.token_cache().invalidate();
    call_at(&layer, &healthy, "https://healthy.example/").await;
    assert_eq!(
        call_at(&layer, &healthy, "https://healthy.example/")
            .await
            .status(),
        StatusCode::OK
    );
    assert_eq!(endpoint.requests(), asked + 2);
}

// R20
#[tokio::test(start_paused = true)]
async fn a_hundred_apis_that_always_answer_401_cannot_make_a_storm_either() {
    let endpoint = Endpoint::new();
    let sick = Api::new(|_| unauthorized(INVALID_TOKEN));
    let layer = layer(&endpoint);
    for call in 0..2000 {
        call_at(&layer, &sick, &format!("https://{}.example/", call % 100)).await;
    }
    // 64 origins have budgets of their own; the others share them once all are in use.
    let asked = endpoint.requests();
    assert!((1 + 3..=1 + 3 * 64).contains(&asked), "{asked}");
}

// FS16, R20
#[tokio::test(start_paused = true)]
async fn one_origin_has_one_budget_however_it_is_written() {
    let spelled = [
        "https://sick.example/a",
        "https://SICK.example/b",
        "https://sick.example:443/",
        "https://sick.example:0443/",
        "https://sick.example:/",
        "https://sick.example./",
        "https://Sick.Example.:443/",
        "https://user:pw@sick.example/",
        "/path",
    ];
    let sick = Api::new(|_| unauthorized(INVALID_TOKEN));
    for listed in [false, true] {
        let endpoint = Endpoint::new();
        let mut builder = builder(&endpoint).assume_origin("https://sick.example");
        if listed {
            builder = builder
                .allow_origin("https://other.example")
                .allow_origin("https://sick.example");
        }
        let layer = builder.build().unwrap();
        for turn in 0..20 {
            for uri in spelled {
                call_at(&layer, &sick, uri).await;
            }
            let changing = format!("https://user-{turn}@sick.example/");
            call_at(&layer, &sick, &changing).await;
        }
        assert_eq!(endpoint.requests(), 1 + 3, "listed: {listed}");
    }
}

// FS16, R20
#[tokio::test(start_paused = true)]
async fn scheme_and_port_keep_budgets_apart() {
    let endpoint = Endpoint::new();
    let sick = Api::new(|_| unauthorized(INVALID_TOKEN));
    let layer = layer(&endpoint);
    let origins = [
        "https://127.0.0.1/",
        "http://127.0.0.1/",
        "https://127.0.0.1:80/",
    ];
    for (place, uri) in origins.into_iter().enumerate() {
        for _ in 0..20 {
            call_at(&layer, &sick, uri).await;
        }
        // Each origin spends its own three; the last renewal of one is the first token of the next.
        assert_eq!(endpoint.requests(), 1 + 3 * (place + 1), "{uri}");
    }
}
