//! One token request serves any number of callers, whoever joins and leaves.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::*;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{BoxError, OAuthLayer};

type Answered = Result<http::Response<String>, tower::BoxError>;

fn callers(layer: &OAuthLayer, api: &Api, count: usize) -> JoinSet<Answered> {
    let service = layer.layer(api.clone());
    (0..count)
        .map(|_| service.clone().oneshot(get(API)))
        .collect()
}

// K1
#[tokio::test(start_paused = true)]
async fn fifty_cold_callers_are_one_token_request() {
    let (endpoint, api) = (Endpoint::new().closed(), Api::ok());
    let calls = callers(&layer(&endpoint), &api, 50);
    settle().await;
    assert_eq!((endpoint.requests(), api.requests()), (1, 0));
    endpoint.open();
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(endpoint.requests(), 1);
    assert_eq!(api.seen(), vec!["Bearer token-1"; 50]);
}

// K2
#[tokio::test(start_paused = true)]
async fn fifty_cold_callers_of_a_rejection_get_one_error_from_one_request() {
    let endpoint = Endpoint::new()
        .always(Answer::Error(400, "invalid_client"))
        .closed();
    let calls = callers(&layer(&endpoint), &Api::ok(), 50);
    settle().await;
    endpoint.open();
    let errors: Vec<_> = calls
        .join_all()
        .await
        .into_iter()
        .map(|call| ours(call.unwrap_err()))
        .collect();
    assert_eq!((errors.len(), endpoint.requests()), (50, 1));
    assert!(
        errors
            .iter()
            .all(|error| error.is_rejected() && error.oauth_code() == Some("invalid_client"))
    );
    // The same text, time taken included: one cause, not fifty.
    assert!(
        errors
            .iter()
            .all(|error| error.to_string() == errors[0].to_string())
    );
}

// K2
#[tokio::test(start_paused = true)]
async fn fifty_cold_callers_of_a_dead_endpoint_are_told_at_once_after_three_attempts() {
    let endpoint = Endpoint::new().always(Answer::Refused);
    let service = layer(&endpoint).layer(Api::ok());
    let calls: JoinSet<_> = (0..50)
        .map(|_| {
            let call = service.clone().oneshot(get(API));
            async move { (call.await.unwrap_err(), Instant::now()) }
        })
        .collect();
    let told = calls.join_all().await;
    assert_eq!(endpoint.requests(), 3);
    assert!(told.iter().all(|(_, at)| *at == told[0].1));
    let error = ours(told.into_iter().next().unwrap().0);
    assert!(error.is_transient() && error.attempts() == 3, "{error}");
}

// K5
#[tokio::test(start_paused = true)]
async fn dropping_the_caller_who_started_the_flight_changes_nothing_for_the_others() {
    let (endpoint, api) = (Endpoint::new().closed(), Api::ok());
    let layer = layer(&endpoint);
    let mut first = callers(&layer, &api, 1);
    settle().await;
    let rest = callers(&layer, &api, 9);
    settle().await;
    first.shutdown().await;
    endpoint.open();
    assert!(rest.join_all().await.iter().all(Result::is_ok));
    assert_eq!((endpoint.requests(), api.requests()), (1, 9));
}

// K6
#[tokio::test(start_paused = true)]
async fn a_waiter_with_a_short_deadline_fails_alone() {
    let endpoint = Endpoint::new().latency(Duration::from_millis(50));
    let layer = layer(&endpoint);
    let rest = callers(&layer, &Api::ok(), 9);
    settle().await;
    assert_eq!(
        endpoint.requests(),
        1,
        "the hasty one joins a flight of others"
    );
    let hasty = timeout(Duration::from_millis(10), layer.token_cache().token()).await;
    assert!(hasty.is_err());
    assert!(rest.join_all().await.iter().all(Result::is_ok));
    assert_eq!(endpoint.requests(), 1);
}

// K7
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_never_answers_times_out_for_all_and_may_be_asked_again_after_backoff() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let layer = layer(&endpoint);
    let start = Instant::now();
    let errors = callers(&layer, &Api::ok(), 5).join_all().await;
    assert!(
        start.elapsed() <= Duration::from_millis(30_001),
        "{:?}",
        start.elapsed()
    );
    for error in errors {
        let error = ours(error.unwrap_err());
        assert!(error.is_timeout() && error.is_transient(), "{error}");
        assert_eq!(error.host(), Some("127.0.0.1"));
    }
    let asked = endpoint.requests();
    endpoint.set(Answer::Token(3600));
    assert!(layer.token_cache().token().await.is_err(), "backoff");
    assert_eq!(endpoint.requests(), asked);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(layer.token_cache().token().await.is_ok());
    assert_eq!(endpoint.requests(), asked + 1);
}

// K8
#[tokio::test(start_paused = true)]
async fn the_token_is_kept_when_all_callers_are_gone() {
    let (endpoint, api) = (Endpoint::new().closed(), Api::ok());
    let layer = layer(&endpoint);
    let mut all = callers(&layer, &api, 20);
    settle().await;
    all.shutdown().await;
    endpoint.open();
    settle().await;
    assert!(layer.token_cache().status().generation.is_some());
    assert!(callers(&layer, &api, 1).join_all().await[0].is_ok());
    assert_eq!((endpoint.requests(), api.requests()), (1, 1));
}

// K24
#[tokio::test(start_paused = true)]
async fn a_flight_whose_layer_is_gone_ends_by_itself_and_no_task_is_left() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let alive = || runtime::Handle::current().metrics().num_alive_tasks();
    let layer = layer(&endpoint);
    assert_eq!(alive(), 0, "no task at construction");
    {
        let call = layer.layer(Api::ok()).oneshot(get(API));
        let _ = timeout(Duration::from_millis(1), call).await;
    }
    drop(layer);
    assert_eq!(alive(), 1, "the flight, and nothing else");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(alive(), 0);
}

// K27
#[tokio::test(start_paused = true)]
async fn ten_thousand_cold_callers_are_one_token_request() {
    let (endpoint, api) = (
        Endpoint::new().latency(Duration::from_millis(50)),
        Api::ok(),
    );
    let calls = callers(&layer(&endpoint), &api, 10_000);
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!((endpoint.requests(), api.requests()), (1, 10_000));
}

// K28
#[tokio::test(start_paused = true)]
async fn callers_more_hasty_than_the_endpoint_do_not_keep_the_flight_from_ending() {
    let endpoint = Endpoint::new().latency(Duration::from_millis(50));
    let service = layer(&endpoint).layer(Api::ok());
    let mut failed = 0;
    loop {
        let call = service.clone().oneshot(get(API));
        match timeout(Duration::from_millis(10), call).await {
            Ok(answer) => break assert!(answer.is_ok()),
            Err(_) => failed += 1,
        }
    }
    assert_eq!((failed, endpoint.requests()), (5, 1));
}

// K31
#[tokio::test(start_paused = true)]
async fn clones_of_a_layer_share_one_cache_across_services() {
    let (endpoint, api) = (Endpoint::new().closed(), Api::ok());
    let first = layer(&endpoint);
    let second = first.clone();
    let mut calls = callers(&first, &api, 5);
    let service = second.layer(api.clone());
    for _ in 0..5 {
        calls.spawn(service.clone().oneshot(get(API)));
    }
    settle().await;
    endpoint.open();
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!((endpoint.requests(), api.requests()), (1, 10));
}

// K32
#[tokio::test(start_paused = true)]
async fn a_starter_that_is_never_polled_again_holds_nobody_up() {
    let (endpoint, api) = (Endpoint::new().closed(), Api::ok());
    let layer = layer(&endpoint);
    let mut service = layer.layer(api.clone());
    let mut starter = tokio_test::task::spawn(service.ready().await.unwrap().call(get(API)));
    tokio_test::assert_pending!(starter.poll());
    let rest = callers(&layer, &api, 9);
    settle().await;
    endpoint.open();
    assert!(rest.join_all().await.iter().all(Result::is_ok));
    assert_eq!((endpoint.requests(), api.requests()), (1, 9));
    drop(starter);
}

// K33
#[tokio::test(start_paused = true)]
async fn a_source_that_panics_fails_all_waiters_backs_off_and_works_again() {
    let endpoint = Endpoint::new().then([Answer::Panic]);
    let layer = layer(&endpoint);
    let errors = callers(&layer, &Api::ok(), 10).join_all().await;
    assert!(
        errors
            .into_iter()
            .all(|error| ours(error.unwrap_err()).is_transient())
    );
    assert_eq!(endpoint.requests(), 1, "a panic ends the flight");
    assert!(
        layer
            .token_cache()
            .token()
            .await
            .unwrap_err()
            .retry_after()
            .is_some(),
        "backoff"
    );
    assert_eq!(endpoint.requests(), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(layer.token_cache().token().await.is_ok());
    assert_eq!(endpoint.requests(), 2);
}

// K36
#[tokio::test(start_paused = true)]
async fn an_html_page_of_a_proxy_backs_off_like_a_rejection() {
    let page = raw(
        200,
        &[("content-type", "text/html")],
        "<html>Sign in</html>",
    );
    let endpoint = Endpoint::new().always(page);
    let tokens = layer(&endpoint).token_cache();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(120) {
        let error = tokens.token().await.unwrap_err();
        assert!(error.is_invalid_response(), "{error}");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    // Steps of 5, 10, 20 and 30 seconds, each up to twice as long.
    let requests = endpoint.requests();
    assert!((4..=6).contains(&requests), "{requests}");
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_never_polled_starts_nothing() {
    let endpoint = Endpoint::new();
    let layer = layer(&endpoint);
    let (tokens, mut service) = (layer.token_cache(), layer.layer(Api::ok()));
    let mut drop_one = async |endpoint: &Endpoint, requests| {
        drop(service.ready().await.unwrap().call(get(API)));
        settle().await;
        assert_eq!(endpoint.requests(), requests);
    };
    drop_one(&endpoint, 0).await;
    tokens.token().await.unwrap();
    // Where a caller would wait for the renewal.
    tokio::time::advance(Duration::from_secs(3590)).await;
    drop_one(&endpoint, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_never_polled_looks_at_no_secret() {
    let endpoint = Endpoint::new().always(Answer::Error(401, "invalid_client"));
    let looks = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&looks);
    let secret = tower_oauth::Secret::provider(move || {
        seen.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, BoxError>("secret".to_owned()) }
    });
    let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", secret)
        .token_client(endpoint.clone())
        .clock(tower_oauth::ManualClock::new())
        .build()
        .unwrap();
    layer.token_cache().token().await.unwrap_err();
    let before = looks.load(Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(2)).await;
    let mut service = layer.layer(Api::ok());
    drop(service.ready().await.unwrap().call(get(API)));
    settle().await;
    assert_eq!(looks.load(Ordering::SeqCst), before);
    layer.token_cache().token().await.unwrap_err();
    assert_eq!(looks.load(Ordering::SeqCst), before + 1);
}
