//! A refused request is sent again with a renewed token.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, ServiceExt};
use tower_oauth::Replayed;
use tower_oauth::challenge::Challenges;

use crate::support::*;
use crate::{call, refusing};

// P1, P7, P29
#[tokio::test(start_paused = true)]
async fn with_replay_a_refused_request_is_renewed_and_sent_again_once() {
    for challenge in [
        INVALID_TOKEN,
        "Bearer",
        "Bearer error=\"what_is_this\"",
        "",
        "error=invalid_request, error_description=\"no scheme\"",
    ] {
        let (endpoint, api) = (Endpoint::new(), refusing(&["token-1"], challenge));
        let layer = layer(&endpoint).replay_unauthorized();
        let answer = call(&layer, &api).await;
        assert_eq!(answer.status(), StatusCode::OK, "{challenge}");
        assert!(answer.extensions().get::<Replayed>().is_some());
        assert_eq!(
            api.seen(),
            ["Bearer token-1", "Bearer token-2"],
            "{challenge}"
        );
        assert_eq!(endpoint.requests(), 2);
    }
}

// P2
#[tokio::test(start_paused = true)]
async fn a_body_that_the_hook_cannot_copy_is_not_replayed() {
    let (endpoint, api) = (Endpoint::new(), refusing(&["token-1"], INVALID_TOKEN));
    let layer = layer(&endpoint).replay_with(|body: &String| body.is_empty().then(String::new));
    let request = Request::post(API).body(String::from("once")).unwrap();
    let answer = layer.layer(api.clone()).oneshot(request).await.unwrap();
    assert_eq!(
        (answer.status(), api.requests()),
        (StatusCode::UNAUTHORIZED, 1)
    );
}

// P1
#[tokio::test(start_paused = true)]
async fn a_replay_is_the_same_request_with_another_token() {
    let (endpoint, seen) = (Endpoint::new(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let log = Arc::clone(&seen);
    let api = tower::service_fn(move |request: Request<String>| {
        let refused = request.headers()["authorization"] == "Bearer token-1";
        let (mut parts, body) = request.into_parts();
        parts.headers.remove("authorization");
        let marked = parts.extensions.get::<u8>().copied();
        log.lock().unwrap().push(format!(
            "{} {} {:?} {:?} {marked:?} {body}",
            parts.method, parts.uri, parts.version, parts.headers
        ));
        let answer = if refused {
            unauthorized("")
        } else {
            Response::new(String::new())
        };
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let layer = layer(&endpoint).replay_unauthorized();
    let mut request = Request::put("https://api.example/x?y=1")
        .header("x-trace", "7")
        .body(String::from("body"))
        .unwrap();
    *request.version_mut() = http::Version::HTTP_2;
    request.extensions_mut().insert(7_u8);
    layer.layer(api).oneshot(request).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), &seen[0]), (2, &seen[1]));
    assert!(
        seen[0].contains("x-trace") && seen[0].contains("Some(7) body"),
        "{}",
        seen[0]
    );
}

// P3
#[tokio::test(start_paused = true)]
async fn a_late_401_for_an_older_token_is_replayed_with_the_newer_one_without_a_token_request() {
    let endpoint = Endpoint::new();
    let layer = layer(&endpoint).replay_unauthorized();
    let (answer, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Arc::new(tokio::sync::Mutex::new(Some(wait)));
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let slow = tower::service_fn(move |request: Request<String>| {
        count.fetch_add(1, Ordering::SeqCst);
        let wait = Arc::clone(&wait);
        async move {
            if request.headers()["authorization"] == "Bearer token-1" {
                let wait = wait.lock().await.take();
                wait.unwrap().await.unwrap();
                return Ok::<_, tower::BoxError>(unauthorized(INVALID_TOKEN));
            }
            Ok(Response::new(String::new()))
        }
    });
    let late = tokio::spawn(layer.layer(slow).oneshot(get(API)));
    settle().await;
    layer.token_cache().invalidate();
    layer.token_cache().token().await.unwrap();
    assert_eq!(endpoint.requests(), 2);
    answer.send(()).unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!((endpoint.requests(), seen.load(Ordering::SeqCst)), (2, 2));
    assert!(
        !layer.token_cache().status().suspect,
        "the newer token is not suspected for the older one's sake"
    );
}

// P6
#[tokio::test(start_paused = true)]
async fn a_renewed_token_that_is_the_refused_one_is_not_sent_again() {
    let endpoint = Endpoint::new().always(Answer::Fixed("same", 3600));
    let api = refusing(&["same"], INVALID_TOKEN);
    let layer = layer(&endpoint).replay_unauthorized();
    let answer = call(&layer, &api).await;
    assert_eq!(
        (answer.status(), api.requests(), endpoint.requests()),
        (StatusCode::UNAUTHORIZED, 1, 2)
    );
    assert!(answer.extensions().get::<Replayed>().is_none());
}

// P21
#[tokio::test(start_paused = true)]
async fn when_renewing_fails_the_original_401_is_returned() {
    let endpoint = Endpoint::new()
        .then([Answer::Token(3600)])
        .always(Answer::Refused);
    let api = refusing(
        &["token-1"],
        "Bearer error=\"invalid_token\", error_description=\"the first\"",
    );
    let layer = layer(&endpoint).replay_unauthorized();
    let answer = call(&layer, &api).await;
    let challenges = answer.extensions().get::<Challenges>().unwrap();
    assert_eq!(
        challenges.bearer().unwrap().error_description(),
        Some("the first")
    );
    assert_eq!(
        (answer.status(), api.requests()),
        (StatusCode::UNAUTHORIZED, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_is_replayed_also_when_the_layer_and_the_service_are_gone() {
    let endpoint = Endpoint::new();
    let layer = layer(&endpoint);
    layer.token_cache().warm_up().await.unwrap();
    let pending = layer
        .replay_unauthorized()
        .layer(refusing(&["token-1"], ""))
        .oneshot(get(API));
    assert_eq!(
        pending.await.unwrap().status(),
        StatusCode::OK,
        "what is to be replayed keeps the cache alive"
    );
}

// R10, R21
#[tokio::test(start_paused = true)]
async fn a_replay_waits_for_its_renewal_for_as_long_as_that_takes() {
    let endpoint = Endpoint::new();
    let api = refusing(&["token-1"], INVALID_TOKEN);
    let layer = layer(&endpoint).replay_unauthorized();
    layer.token_cache().token().await.unwrap();
    endpoint.set_latency(Duration::from_secs(9));
    assert_eq!(call(&layer, &api).await.status(), 200);
    assert_eq!(api.seen(), ["Bearer token-1", "Bearer token-2"]);
}

// R10, R21
#[tokio::test(start_paused = true)]
async fn a_replay_is_not_sent_with_a_token_that_ended_while_the_service_was_not_ready() {
    for (life, status, requests) in [(2, 401, 1), (60, 200, 2)] {
        let endpoint = Endpoint::new().then([Answer::Token(3600), Answer::Token(life)]);
        let api = refusing(&["token-1"], INVALID_TOKEN);
        let layer = layer(&endpoint).replay_unauthorized();
        layer.token_cache().warm_up().await.unwrap();
        endpoint.set_latency(Duration::from_secs(1));
        let slots = Arc::new(Semaphore::new(1));
        let service = ConcurrencyLimit::with_semaphore(api.clone(), Arc::clone(&slots));
        let call = tokio::spawn(layer.layer(service).oneshot(get(API)));
        settle().await;
        let taken = slots.acquire().await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(taken);
        assert_eq!(call.await.unwrap().unwrap().status(), status);
        assert_eq!(api.requests(), requests);
    }
}

// FC10, R21
#[tokio::test(start_paused = true)]
async fn the_401_of_a_replay_makes_the_renewed_token_suspect() {
    let endpoint = Endpoint::new();
    let api = refusing(&["token-1", "token-2"], INVALID_TOKEN);
    let layer = layer(&endpoint).replay_unauthorized();
    assert_eq!(call(&layer, &api).await.status(), 401);
    assert!(layer.token_cache().status().suspect);
    assert_eq!(call(&layer, &api).await.status(), 200);
    assert_eq!(
        api.seen(),
        ["Bearer token-1", "Bearer token-2", "Bearer token-3"]
    );
}
