//! reqwest, as the inner service and as the token client.
//!
//! Its `Client` is a tower service of its own request type. To copy: [`http_service`] and
//! [`api_client`].

#[path = "../../../examples/gateway/mod.rs"]
mod gateway;

use axum::Router;
use axum::response::Redirect;
use axum::routing::post;
use bytes::Bytes;
use futures_util::future::try_join_all;
use gateway::{Config, Gateway};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use reqwest::redirect::Policy;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_oauth::{BoxError, OAuth, OAuthLayer};
use tower_oauth_stacks::{Witness, get, serve};

/// A reqwest client as a service of the `http` crate's types. What reqwest can't take, such as a
/// URI without a host, is an error.
fn http_service<B>(client: reqwest::Client) -> impl Http<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    ServiceBuilder::new()
        .filter(|request: Request<B>| reqwest::Request::try_from(request.map(reqwest::Body::wrap)))
        .map_response(Response::<reqwest::Body>::from)
        .service(client)
}

fn api_client(token_url: String) -> (OAuthLayer, OAuth<impl Http<Full<Bytes>>>) {
    // Tokens never follow a redirect, and hardly ever find a kept connection alive.
    let token_client = reqwest::Client::builder()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let oauth = OAuthLayer::client_credentials(token_url, "consumer-key", "consumer-secret")
        .token_client(http_service(token_client))
        .build()
        .unwrap();
    let api = reqwest::Client::new();
    (oauth.clone(), oauth.layer(http_service(api)))
}

#[tokio::test]
async fn requests_share_one_token_and_answers_can_be_reqwests_again() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (_, client) = api_client(gateway.token_url());

    let calls = (0..20).map(|_| client.clone().oneshot(get(gateway.api_url("/accounts"))));
    for answer in try_join_all(calls).await.unwrap() {
        let answer = reqwest::Response::from(answer);
        let body: serde_json::Value = answer.error_for_status().unwrap().json().await.unwrap();
        assert_eq!(body["message"], "hello");
    }
    assert_eq!(gateway.api_requests(), 20);
    assert_eq!(gateway.token_requests(), 1);
}

#[tokio::test]
async fn a_refused_request_is_sent_again_by_the_layer() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (oauth, client) = api_client(gateway.token_url());
    let client = oauth.replay_unauthorized().layer(client.into_inner());

    for (token_requests, api_requests) in [(1, 1), (2, 3)] {
        let call = client.clone().oneshot(get(gateway.api_url("/accounts")));
        assert_eq!(call.await.unwrap().status(), StatusCode::OK);
        assert_eq!(gateway.token_requests(), token_requests);
        assert_eq!(gateway.api_requests(), api_requests);
        gateway.revoke_all();
    }
}

#[tokio::test]
async fn a_failed_token_request_is_our_error_and_a_failed_api_request_is_reqwests() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (oauth, mut client) = api_client(gateway.token_url());
    gateway.fail_next(1, StatusCode::SERVICE_UNAVAILABLE, Some("5"));
    for _ in 0..2 {
        let call = client.ready().await.unwrap();
        let call = call.call(get(gateway.api_url("/accounts")));
        let error = call.await.unwrap_err();
        let error = error.downcast_ref::<tower_oauth::Error>().unwrap();
        assert!(error.is_transient() && error.retry_after().is_some());
    }
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (1, 0));

    oauth.token_cache().warm_up().await.unwrap();
    let gone = Gateway::start(Config::default()).await.unwrap();
    let nobody = gone.api_url("/accounts");
    gone.stop().await;
    let call = client.ready().await.unwrap().call(get(nobody));
    let error = call.await.unwrap_err();
    assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_connect());

    // FS2
    let call = client.ready().await.unwrap();
    let call = call.call(get("/only/a/path"));
    let error = call.await.unwrap_err();
    let error = error.downcast_ref::<tower_oauth::Error>().unwrap();
    assert!(error.is_destination(), "{error}");
    assert_eq!(gateway.token_requests(), 2);
}

// reqwest follows redirects by itself, below the layer, which sees the first request only.
#[tokio::test]
async fn a_redirect_to_another_origin_goes_without_the_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (_, client) = api_client(gateway.token_url());
    let (a, b) = (Witness::start().await, Witness::start().await);

    let to_b = a.url("/to?") + &b.url("/end");
    let answer = client.oneshot(get(to_b)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(b.seen(), [None]);
    assert!(a.seen()[0].is_some());
    assert_eq!(gateway.token_requests(), 1);
}

// Q17
#[tokio::test]
async fn the_token_client_does_not_follow_a_redirect() {
    let target = Witness::start().await;
    let to_target = Redirect::temporary(&target.url("/token"));
    let address = serve(Router::new().route("/token", post(move || async { to_target }))).await;
    let (_, client) = api_client(format!("http://{address}/token"));

    let error = client.oneshot(get(target.url("/"))).await.unwrap_err();
    let error = error.downcast_ref::<tower_oauth::Error>().unwrap();
    assert!(error.is_invalid_response(), "{error}");
    assert_eq!(error.status(), Some(StatusCode::TEMPORARY_REDIRECT));
    assert_eq!(target.seen(), []);
}

/// A short name for a long bound.
trait Http<B>:
    Service<Request<B>, Response = Response<reqwest::Body>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<B, S> Http<B> for S where
    S: Service<Request<B>, Response = Response<reqwest::Body>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}
