//! The whole way over real sockets: a hyper client with the layer around it, and the emulated
//! gateway of the examples.
//!
//! Without the feature `client` the layer gets a token client from here; with it, its own is the
//! one that is tested.

#[path = "../../examples/gateway/mod.rs"]
mod gateway;

mod failures;
mod revoked;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_oauth::FetchCause;
use tower_oauth::observe::{Event, Observer};
use tower_oauth::{
    BoxError, ClientAuth, ClientCredentials, Error, OAuthLayer, OAuthLayerBuilder, ReplayBody,
    Replayed,
};

use crate::gateway::{Config, Gateway};

/// Both steps of the gateway, and the second one again with the token from the cache.
// Q0
#[tokio::test]
async fn a_token_is_fetched_and_sent_and_kept() {
    let gateway = gateway().await;
    let api = with(&oauth(&gateway).scope("aisp").build().unwrap());

    let response = get(&api, &gateway).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, r#"{"message":"hello"}"#);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (1, 1));

    assert_eq!(status(get(&api, &gateway).await), 200);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_cost_one_token_request() {
    let gateway = gateway().await;
    let (events, mut ends) = flight_ends();
    let oauth = oauth(&gateway).observer(events).build().unwrap();
    let api = with(&oauth);

    for answer in burst(1_000, &api, &gateway).await {
        assert_eq!(status(answer), 200);
    }
    assert_eq!(gateway.token_requests(), 1);
    assert_eq!(gateway.api_requests(), 1_000);
    assert_eq!(gateway.distinct_tokens_seen(), 1);
    assert_eq!(next(&mut ends).await, (FetchCause::NoToken, 1, true));
    assert!(ends.try_recv().is_err());
}

// K31
#[tokio::test]
async fn services_of_cloned_layers_share_one_token() {
    let gateway = gateway().await;
    let oauth = oauth(&gateway).build().unwrap();
    let (one, other) = (with(&oauth), with(&oauth.clone()));

    let (one, other) = tokio::join!(get(&one, &gateway), get(&other, &gateway));
    assert_eq!((status(one), status(other)), (200, 200));
    assert_eq!(gateway.token_requests(), 1);
}

// K9
#[cfg(feature = "test-util")]
#[tokio::test]
async fn an_old_token_is_renewed_and_goes_on_being_used_meanwhile() {
    let gateway = gateway().await;
    let (events, mut ends) = flight_ends();
    let oauth = oauth(&gateway).observer(events);
    let api = with(
        &oauth
            .clock(tower_oauth::ManualClock::new())
            .build()
            .unwrap(),
    );
    assert_eq!(status(get(&api, &gateway).await), 200);
    assert_eq!(next(&mut ends).await, (FetchCause::NoToken, 1, true));

    // Of 1,799 s, the renewal begins 300 s before the end at the earliest.
    pass(Duration::from_secs(1_490)).await;
    assert_eq!(status(get(&api, &gateway).await), 200);
    assert_eq!(gateway.token_requests(), 1);

    pass(Duration::from_secs(60)).await;
    assert_eq!(status(get(&api, &gateway).await), 200);
    assert_eq!(gateway.distinct_tokens_seen(), 1);
    assert_eq!(next(&mut ends).await, (FetchCause::Ahead, 1, true));

    assert_eq!(status(get(&api, &gateway).await), 200);
    assert_eq!(gateway.distinct_tokens_seen(), 2);
    assert_eq!(gateway.token_requests(), 2);
    assert_eq!(gateway.api_refused(), 0);
}

#[cfg(feature = "test-util")]
#[tokio::test]
async fn an_expired_token_is_never_sent() {
    let gateway = gateway().await;
    let oauth = oauth(&gateway)
        .clock(tower_oauth::ManualClock::new())
        .build()
        .unwrap();
    let api = with(&oauth);
    assert_eq!(status(get(&api, &gateway).await), 200);
    let expired = oauth.token_cache().token().await.unwrap().header_value();

    pass(Duration::from_secs(1_800)).await;
    for answer in burst(50, &api, &gateway).await {
        assert_eq!(status(answer), 200);
    }
    assert_eq!(gateway.token_requests(), 2);
    assert_eq!(gateway.api_refused(), 0);

    // The gateway would have noticed.
    let response = get_with(&connect(), &gateway, expired).await;
    assert_eq!(status(response), 401);
}

async fn with_replay_the_caller_never_sees_the_401(challenge: Option<&'static str>) {
    let config = Config {
        challenge,
        ..Config::default()
    };
    let gateway = Gateway::start(config).await.unwrap();
    let oauth = oauth(&gateway).build().unwrap().replay_unauthorized();
    let api = with(&oauth);
    let first = get(&api, &gateway).await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.extensions().get::<Replayed>(), None);

    gateway.revoke_all();
    let second = get(&api, &gateway).await.unwrap();
    assert_eq!(second.status(), StatusCode::OK);
    assert!(second.extensions().get::<Replayed>().is_some());
    assert_eq!(gateway.api_refused(), 1);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (2, 3));
}

// P22
#[tokio::test]
async fn basic_credentials_never_reach_the_api() {
    let gateway = gateway().await;
    let basic = HeaderValue::from_static("Basic Y29uc3VtZXIta2V5OmNvbnN1bWVyLXNlY3JldA==");
    let api = with(&oauth(&gateway).build().unwrap());
    assert_eq!(status(get(&api, &gateway).await), 200);
    let replaced = get_with(&api, &gateway, basic.clone()).await;
    assert_eq!(status(replaced), 200);

    // The gateway would have noticed.
    let leak = get_with(&connect(), &gateway, basic).await.unwrap();
    assert_eq!(leak.status(), StatusCode::BAD_REQUEST);
    assert!(text(leak).await.contains("emulation.leak"));
}

#[tokio::test]
async fn a_token_client_of_the_users_own_carries_every_token_request() {
    let gateway = gateway().await;
    gateway.fail_next(1, StatusCode::BAD_GATEWAY, None);
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    let client = ServiceBuilder::new()
        .map_request(move |request: Request<Full<Bytes>>| {
            count.fetch_add(1, Relaxed);
            request
        })
        .timeout(Duration::from_secs(10))
        .service(connect());
    let oauth = oauth(&gateway).token_client(client).build().unwrap();

    assert_eq!(status(get(&with(&oauth), &gateway).await), 200);
    assert_eq!(seen.load(Relaxed), 2);
    assert_eq!(gateway.token_requests(), 2);
}

#[tokio::test]
async fn warm_up_fetches_before_the_first_call() {
    let gateway = gateway().await;
    let oauth = oauth(&gateway).build().unwrap();
    oauth.token_cache().warm_up().await.unwrap();
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (1, 0));

    assert_eq!(status(get(&with(&oauth), &gateway).await), 200);
    assert_eq!(gateway.token_requests(), 1);
    assert_eq!(oauth.token_cache().status().token_requests, 1);
}

async fn gateway() -> Gateway {
    Gateway::start(Config::default()).await.unwrap()
}

fn oauth(gateway: &Gateway) -> OAuthLayerBuilder<ClientCredentials> {
    oauth_with(
        gateway,
        ClientAuth::basic("consumer-key", "consumer-secret"),
    )
}

fn oauth_with(gateway: &Gateway, auth: ClientAuth) -> OAuthLayerBuilder<ClientCredentials> {
    let oauth = OAuthLayer::client_credentials_with(gateway.token_url(), auth);
    #[cfg(not(feature = "client"))]
    let oauth = oauth.token_client(connect());
    oauth
}

/// A hyper client, with or without the layer around it.
type Http = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError>;

/// Only some connections, since each one costs two file descriptors in this process; a queue in
/// front of them, so that the layer can have all calls of a burst at once.
fn connect() -> Http {
    let client = ServiceBuilder::new()
        .buffer(1_000)
        .concurrency_limit(50)
        .and_then(|response: Response<_>| async {
            let (parts, body) = response.into_parts();
            let body = BodyExt::collect(body).await?.to_bytes();
            Ok::<_, BoxError>(Response::from_parts(parts, Full::new(body)))
        })
        .service(Client::builder(TokioExecutor::new()).build_http());
    Http::new(client)
}

fn with<R>(oauth: &OAuthLayer<R>) -> Http
where
    R: ReplayBody<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    Http::new(oauth.layer(connect()))
}

async fn get(api: &Http, gateway: &Gateway) -> Result<Response<Full<Bytes>>, BoxError> {
    let request = Request::get(gateway.api_url("/accounts"));
    api.clone().oneshot(request.body(Full::default())?).await
}

async fn get_with(
    api: &Http,
    gateway: &Gateway,
    authorization: HeaderValue,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let request = Request::get(gateway.api_url("/accounts")).header(AUTHORIZATION, authorization);
    api.clone().oneshot(request.body(Full::default())?).await
}

/// So many calls at once.
async fn burst(
    calls: usize,
    api: &Http,
    gateway: &Gateway,
) -> Vec<Result<Response<Full<Bytes>>, BoxError>> {
    join_all((0..calls).map(|_| get(api, gateway))).await
}

/// The status of an answer that there must be.
fn status(answer: Result<Response<Full<Bytes>>, BoxError>) -> u16 {
    answer.unwrap().status().as_u16()
}

/// The error of a call that must have got no token.
fn refused(answer: Result<Response<Full<Bytes>>, BoxError>) -> Error {
    *answer.unwrap_err().downcast().unwrap()
}

async fn text(response: Response<Full<Bytes>>) -> String {
    let body = response.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().into()).unwrap()
}

/// An observer, and what it is told of each flight's end: why it was started, its attempts, and
/// whether it brought a token.
fn flight_ends() -> (impl Observer, UnboundedReceiver<(FetchCause, u32, bool)>) {
    let (sender, receiver) = unbounded_channel();
    let observer = move |event: &Event<'_>| {
        if let Event::FetchFinished {
            cause,
            attempts,
            error,
            ..
        } = event
        {
            _ = sender.send((*cause, *attempts, error.is_none()));
        }
    };
    (observer, receiver)
}

/// The end of the next flight. Bounded, so that a flight which never starts is a failure and not a
/// test that hangs.
async fn next(ends: &mut UnboundedReceiver<(FetchCause, u32, bool)>) -> (FetchCause, u32, bool) {
    let end = timeout(Duration::from_secs(10), ends.recv()).await;
    end.expect("a flight ends").expect("the layer lives")
}

/// Time passes, for the layer with its manual clock as for the gateway. Not paused otherwise: with
/// sockets, a paused clock would run ahead of what is on its way.
#[cfg(feature = "test-util")]
async fn pass(span: Duration) {
    tokio::time::pause();
    tokio::time::advance(span).await;
    tokio::time::resume();
}
