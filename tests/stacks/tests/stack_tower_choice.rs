//! tower's services that choose: a balancer, a hedge, a steer, and types that are only known at run
//! time.

#[path = "../../../examples/gateway/mod.rs"]
mod gateway;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get as on_get;
use futures_util::future::{join, try_join_all};
use gateway::{Config, Gateway};
use http::{Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Error as ClientError;
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::hedge::{Hedge, Policy};
use tower::load::{CompleteOnResponse, PendingRequests};
use tower::steer::Steer;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_oauth::{BoxError, OAuthLayer};
use tower_oauth_stacks::{Outgoing, Witness, client, get, serve};

#[tokio::test]
async fn the_endpoints_of_a_balancer_share_one_cache() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (a, b) = (Witness::start().await, Witness::start().await);
    let oauth = oauth(&gateway);
    // Inside the balancer, and below what says where the endpoint is, so that each token's
    // destination is checked.
    let endpoint = |origin: String| {
        let service = ServiceBuilder::new()
            .map_request(move |request: Outgoing| at(&origin, request))
            .layer(oauth.clone())
            .service(client());
        PendingRequests::new(service, CompleteOnResponse::default())
    };
    let endpoints = [a.origin(), b.origin()].map(endpoint);
    let mut balance = Balance::new(ServiceList::new(endpoints));

    // The second finds the first pending, so it goes to the other endpoint.
    let first = balance.ready().await.unwrap().call(get("/accounts"));
    let second = balance.ready().await.unwrap().call(get("/accounts"));
    let (first, second) = join(first, second).await;
    assert_eq!(first.unwrap().status(), StatusCode::OK);
    assert_eq!(second.unwrap().status(), StatusCode::OK);
    assert!(a.seen()[0].is_some());
    assert_eq!(a.seen(), b.seen());
    assert_eq!(gateway.token_requests(), 1);
}

#[tokio::test]
async fn a_failure_to_get_a_token_takes_no_endpoint_out_of_the_balancer() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let oauth = oauth(&gateway);
    gateway.fail_next(1, StatusCode::SERVICE_UNAVAILABLE, Some("5"));
    let endpoint = |_| PendingRequests::new(oauth.layer(client()), CompleteOnResponse::default());
    let mut balance = Balance::new(ServiceList::new([0, 1].map(endpoint)));

    for _ in 0..5 {
        let call = balance.ready().await.unwrap();
        let call = call.call(get(gateway.api_url("/accounts")));
        assert!(call.await.unwrap_err().is::<tower_oauth::Error>());
    }
    assert_eq!(balance.len(), 2);
    oauth.token_cache().warm_up().await.unwrap();
    let call = balance.ready().await.unwrap();
    let call = call.call(get(gateway.api_url("/accounts")));
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(gateway.token_requests(), 2);
}

#[tokio::test]
async fn both_requests_of_a_hedge_share_one_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    // Nobody is answered before two have asked.
    let both = Arc::new(Barrier::new(2));
    let api = on_get(async move || {
        both.wait().await;
    });
    let api = serve(Router::new().fallback(api)).await;
    // With no latencies known the second request leaves at once.
    let client = oauth(&gateway).layer(client());
    let mut hedge = Hedge::new(client, Always, 0, 0.9, Duration::from_secs(10));

    let call = hedge.ready().await.unwrap();
    let call = call.call(get(format!("http://{api}/accounts")));
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(gateway.token_requests(), 1);
}

#[derive(Clone)]
struct Always;

impl Policy<Outgoing> for Always {
    fn clone_request(&self, request: &Outgoing) -> Option<Outgoing> {
        Some(request.clone())
    }

    fn can_retry(&self, _: &Outgoing) -> bool {
        true
    }
}

#[tokio::test]
async fn a_steer_sends_what_needs_no_token_past_the_layer() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let api = Witness::start().await;
    let with_token = BoxCloneSyncService::new(oauth(&gateway).layer(client()));
    let without = ServiceBuilder::new().map_err(BoxError::from);
    let without = BoxCloneSyncService::new(without.service(client()));
    let pick = |request: &Outgoing, _: &[_]| usize::from(request.uri().path() == "/public");
    let mut steer = Steer::new([with_token, without], pick);

    for path in ["/public", "/accounts", "/public", "/accounts"] {
        let call = steer.ready().await.unwrap().call(get(api.url(path)));
        assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    }
    let had_token: Vec<_> = api.seen().iter().map(Option::is_some).collect();
    assert_eq!(had_token, [false, true, false, true]);
    assert_eq!(gateway.token_requests(), 1);
}

/// A struct that names neither the client nor the layers.
#[derive(Clone)]
struct Accounts {
    http: BoxCloneSyncService<Outgoing, Response<Incoming>, BoxError>,
    url: String,
}

impl Accounts {
    async fn list(&self) -> Result<StatusCode, BoxError> {
        let answer = self.http.clone().oneshot(get(&self.url)).await?;
        Ok(answer.status())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boxed_client_is_shared_between_threads() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let accounts = Accounts {
        http: BoxCloneSyncService::new(oauth(&gateway).layer(client())),
        url: gateway.api_url("/accounts"),
    };
    let accounts: &'static Accounts = Box::leak(Box::new(accounts));

    let calls = (0..20).map(|_| tokio::spawn(accounts.list()));
    for status in try_join_all(calls).await.unwrap() {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(gateway.token_requests(), 1);
}

#[tokio::test]
async fn the_layer_can_be_left_out_by_configuration() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let url = gateway.api_url("/accounts");
    let configured = |oauth: Option<OAuthLayer>| {
        ServiceBuilder::new()
            .option_layer(oauth)
            // `option_layer` wants one error type with the layer and without.
            .map_err(BoxError::from)
            .service(client())
    };

    let without = configured(None).oneshot(get(&url)).await.unwrap();
    assert_eq!(without.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(gateway.token_requests(), 0);
    let with = configured(Some(oauth(&gateway))).oneshot(get(&url)).await;
    assert_eq!(with.unwrap().status(), StatusCode::OK);
    assert_eq!(gateway.token_requests(), 1);

    // What hyper says can still be found.
    let unused = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let nobody = format!("http://{}/", unused.local_addr().unwrap());
    drop(unused);
    let error = configured(Some(oauth(&gateway))).oneshot(get(nobody));
    assert!(error.await.unwrap_err().is::<ClientError>());
}

fn at(origin: &str, mut request: Outgoing) -> Outgoing {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let uri = format!("{origin}{path}").parse::<Uri>();
    *request.uri_mut() = uri.expect("an origin and a path");
    request
}

fn oauth(gateway: &Gateway) -> OAuthLayer {
    OAuthLayer::client_credentials(gateway.token_url(), "consumer-key", "consumer-secret")
        .build()
        .unwrap()
}
