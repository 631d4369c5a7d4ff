//! tower-http's layers for clients: redirects, tracing, sensitive headers, decompression, a time
//! limit.

#[path = "../../../examples/gateway/mod.rs"]
mod gateway;

use std::future::pending;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::routing::{get as on_get, post};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use gateway::{Config, Gateway};
use http::header::{AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{advance, pause, resume};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::decompression::DecompressionLayer;
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http::follow_redirect::policy::{FilterCredentials, Limited, PolicyExt};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer};
use tower_oauth::{BoxError, ClientCredentials, Error, NoToken, OAuthLayer, OAuthLayerBuilder};
use tower_oauth_stacks::{Outgoing, Witness, client, client_behind, get, serve};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

// P24
#[tokio::test]
async fn a_redirect_layer_outside_has_each_hop_checked() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (a, b) = (Witness::start().await, Witness::start().await);
    let to_b = a.url("/to?") + &b.url("/end");

    let strict = builder(&gateway).allow_origin(a.origin()).build().unwrap();
    let client = FollowRedirectLayer::new().layer(strict.layer(client()));
    let error = client.oneshot(get(&to_b)).await.unwrap_err();
    let error = error.downcast_ref::<Error>().unwrap();
    assert!(error.is_destination(), "{error}");
    assert_eq!((a.seen().len(), b.seen().len()), (1, 0));

    // Told to pass other origins, it sends that hop without the token.
    let passing = builder(&gateway)
        .allow_origin(a.origin())
        .skip_other_origins();
    let client = passing.build().unwrap().layer(tower_oauth_stacks::client());
    let client = FollowRedirectLayer::new().layer(client);
    let answer = client.oneshot(get(&to_b)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(b.seen(), [None]);
    assert_eq!(gateway.token_requests(), 2);
}

// P27
#[tokio::test]
async fn a_redirect_layer_outside_comes_back_with_the_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (a, b) = (Witness::start().await, Witness::start().await);
    let oauth = builder(&gateway)
        .allow_origin(a.origin())
        .skip_other_origins();
    let oauth = oauth.build().unwrap();
    let client = FollowRedirectLayer::new().layer(oauth.layer(client()));

    let answer = client.oneshot(get(there_and_back(&a, &b))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let token = Some(header_of(&oauth).await);
    assert_eq!(a.seen(), [token.clone(), token]);
    assert_eq!(b.seen(), [None]);
    assert_eq!(gateway.token_requests(), 1);
}

#[tokio::test]
async fn a_redirect_layer_inside_comes_back_without_the_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (a, b) = (Witness::start().await, Witness::start().await);
    let oauth = open(&gateway);
    let client = oauth.layer(FollowRedirectLayer::new().layer(client()));

    let answer = client.oneshot(get(there_and_back(&a, &b))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(a.seen(), [Some(header_of(&oauth).await), None]);
    assert_eq!(b.seen(), [None]);
    assert_eq!(gateway.token_requests(), 1);
}

#[tokio::test]
async fn a_redirect_layer_inside_is_not_checked() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (a, b) = (Witness::start().await, Witness::start().await);
    let oauth = builder(&gateway).allow_origin(a.origin()).build().unwrap();
    // A policy without `FilterCredentials`, and only the first request was ours to judge.
    let careless = FollowRedirectLayer::with_policy(Limited::new(5));
    let client = oauth.layer(careless.layer(client()));

    let to_b = a.url("/to?") + &b.url("/end");
    client.oneshot(get(to_b)).await.unwrap();
    assert_eq!(b.seen(), [Some(header_of(&oauth).await)]);
}

#[tokio::test]
async fn a_hop_to_another_origin_drops_the_no_token_mark_unless_the_policy_keeps_it() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (a, b) = (Witness::start().await, Witness::start().await);
    let oauth = open(&gateway);
    let inner = oauth.layer(client());
    let request = || {
        let mut request = get(a.url("/to?") + &b.url("/end"));
        request.extensions_mut().insert(NoToken);
        request
    };

    let forgets = FollowRedirectLayer::new().layer(inner.clone());
    forgets.oneshot(request()).await.unwrap();
    let filter = FilterCredentials::new().allow_extension::<NoToken>();
    let keeps =
        FollowRedirectLayer::with_policy(Limited::new(5).and::<_, Full<Bytes>, BoxError>(filter));
    keeps.layer(inner).oneshot(request()).await.unwrap();
    assert_eq!(a.seen(), [None, None]);
    assert_eq!(b.seen(), [Some(header_of(&oauth).await), None]);
}

#[tokio::test]
async fn the_token_is_in_no_span_and_no_event() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_writer(log.clone())
        .finish();
    // For the process: events that another test's thread meets first, without a subscriber, would
    // be switched off for this one.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let trace = || {
        TraceLayer::new_for_http()
            .make_span_with(DefaultMakeSpan::new().include_headers(true))
            .on_request(DefaultOnRequest::new())
            .on_response(DefaultOnResponse::new().include_headers(true))
    };
    let oauth = builder(&gateway)
        .token_client(trace().layer(client()))
        .build()
        .unwrap();
    let client = ServiceBuilder::new()
        .layer(trace())
        .layer(oauth.clone().replay_unauthorized())
        .layer(trace())
        .service(client());

    client
        .clone()
        .oneshot(get(gateway.api_url("/accounts")))
        .await
        .unwrap();
    let first = oauth.token_cache().token().await.unwrap();
    gateway.revoke_all();
    client
        .oneshot(get(gateway.api_url("/accounts")))
        .await
        .unwrap();
    let second = oauth.token_cache().token().await.unwrap();
    assert_eq!(gateway.token_requests(), 2);

    let text = log.text();
    assert!(text.contains(r#""authorization": Sensitive"#), "{text}");
    for secret in [
        first.expose_secret(),
        second.expose_secret(),
        "consumer-secret",
        "Y29uc3VtZXIta2V5OmNvbnN1bWVyLXNlY3JldA==",
    ] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

#[tokio::test]
async fn the_token_is_sensitive_without_a_layer_that_says_so() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = {
        let seen = Arc::clone(&seen);
        move |request: Outgoing| {
            let token = &request.headers()[AUTHORIZATION];
            seen.lock().unwrap().push(token.is_sensitive());
            request
        }
    };
    let inner = ServiceBuilder::new().map_request(note).service(client());
    let mark = SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]);
    let url = gateway.api_url("/accounts");
    let oauth = open(&gateway);

    oauth.layer(inner.clone()).oneshot(get(&url)).await.unwrap();
    // Outside there is no token yet that it could mark; inside it marks what is marked.
    mark.layer(oauth.layer(inner.clone()))
        .oneshot(get(&url))
        .await
        .unwrap();
    oauth
        .layer(mark.layer(inner))
        .oneshot(get(&url))
        .await
        .unwrap();
    assert_eq!(*seen.lock().unwrap(), [true, true, true]);
    assert_eq!(gateway.token_requests(), 1);
}

#[tokio::test]
async fn answers_are_decompressed_on_either_side_and_for_the_token_client() {
    let answer = || async {
        let padding = "x".repeat(100);
        Json(json!({ "access_token": "zipped", "expires_in": 60, "padding": padding }))
    };
    let router = Router::new()
        .route("/token", post(answer))
        .fallback(on_get(answer))
        .layer(CompressionLayer::new());
    let origin = format!("http://{}", serve(router).await);
    let url = format!("{origin}/token");
    let oauth = OAuthLayer::client_credentials(url, "consumer-key", "consumer-secret")
        .token_client(DecompressionLayer::new().layer(client()))
        .build()
        .unwrap();
    let unzip = DecompressionLayer::new();

    let outside = unzip.layer(oauth.layer(client())).oneshot(get(&origin));
    let inside = oauth.layer(unzip.layer(client())).oneshot(get(&origin));
    for answer in try_join_all([outside.boxed(), inside.boxed()])
        .await
        .unwrap()
    {
        // The layer takes the header away with the compression.
        assert!(!answer.headers().contains_key(CONTENT_ENCODING));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(br#"{"access_token":"zipped""#));
    }
    assert_eq!(header_of(&oauth).await, "Bearer zipped");
    assert_eq!(oauth.token_cache().status().token_requests, 1);

    let plain = get(&origin);
    let answer = oauth.layer(client()).oneshot(plain).await.unwrap();
    assert!(!answer.headers().contains_key(CONTENT_ENCODING));
}

// Its answer is a 408, not an error.
#[tokio::test]
async fn a_time_limit_counts_the_wait_for_the_token_outside_and_not_inside() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let oauth = builder(&gateway).token_client(client_behind(&gate));
    let oauth = oauth.build().unwrap();
    let url = gateway.api_url("/accounts");
    let outside = limit().layer(oauth.layer(defaultable()));
    let inside = oauth.layer(limit().layer(defaultable()));

    let mut inside = Box::pin(inside.oneshot(get(&url)));
    assert!((&mut inside).now_or_never().is_none());
    pause();
    let answer = outside.oneshot(get(&url)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    advance(Duration::from_secs(5)).await;
    assert!((&mut inside).now_or_never().is_none());
    resume();
    gate.add_permits(1);
    assert_eq!(inside.await.unwrap().status(), StatusCode::OK);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_token_client_is_a_transient_failure() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let hangs = service_fn(|_: Outgoing| pending::<Result<Response<Body>, BoxError>>());
    let slow = limit().layer(hangs);
    let oauth = builder(&gateway).token_client(slow).build().unwrap();

    let call = oauth
        .layer(client())
        .oneshot(get(gateway.api_url("/accounts")));
    let error = *call.await.unwrap_err().downcast::<Error>().unwrap();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.status(), Some(StatusCode::REQUEST_TIMEOUT));
    assert_eq!(error.attempts(), 3);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (0, 0));
}

fn limit() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(1))
}

/// The time limit answers with an empty body, which hyper's cannot be.
fn defaultable() -> impl tower::Service<
    Outgoing,
    Response = Response<Body>,
    Error = hyper_util::client::legacy::Error,
    Future: Send,
> + Clone {
    ServiceBuilder::new()
        .map_response(|answer: Response<Incoming>| answer.map(Body::new))
        .service(client())
}

fn builder(gateway: &Gateway) -> OAuthLayerBuilder<ClientCredentials> {
    OAuthLayer::client_credentials(gateway.token_url(), "consumer-key", "consumer-secret")
}

fn open(gateway: &Gateway) -> OAuthLayer {
    builder(gateway).build().unwrap()
}

/// From A to B and back to A.
fn there_and_back(a: &Witness, b: &Witness) -> String {
    a.url("/to?") + &b.url("/to?") + &a.url("/end")
}

async fn header_of(oauth: &OAuthLayer) -> HeaderValue {
    oauth.token_cache().token().await.unwrap().header_value()
}

/// What a subscriber has written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
