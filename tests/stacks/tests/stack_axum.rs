//! An axum service whose handlers call an upstream API.
//!
//! To copy: everything down to the tests. The client stands in the state, is cloned for each
//! request, and all clones share one token.

#[path = "../../../examples/gateway/mod.rs"]
mod gateway;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::try_join_all;
use gateway::{Config, Gateway};
use http::header::RETRY_AFTER;
use http::{Request, StatusCode, Uri};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt};
use tower_oauth::{BoxError, OAuth, OAuthLayer, TokenCache};
use tower_oauth_stacks::{client, client_behind, get as fetch};

#[derive(Clone)]
struct App {
    upstream: Uri,
    api: OAuth<Client<HttpConnector, Body>>,
    tokens: TokenCache,
}

fn app(oauth: &OAuthLayer, upstream: Uri) -> Router {
    let client = Client::builder(TokioExecutor::new()).build_http();
    Router::new()
        .route("/hello", get(hello))
        .route("/ready", get(ready))
        .with_state(App {
            upstream,
            api: oauth.layer(client),
            tokens: oauth.token_cache(),
        })
}

/// The answer is passed on as it comes in, without being collected.
async fn hello(State(app): State<App>) -> Result<Response, Failure> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = app.upstream;
    let answer = app.api.oneshot(request).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        // This service's credentials were refused, not those of its caller.
        return Err(Failure(StatusCode::BAD_GATEWAY, None));
    }
    Ok(answer.map(Body::new))
}

async fn ready(State(app): State<App>) -> StatusCode {
    if app.tokens.status().is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// What the caller is told: nothing of the token endpoint, but when to come back.
struct Failure(StatusCode, Option<u64>);

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        match error.downcast_ref::<tower_oauth::Error>() {
            Some(error) if error.is_transient() => {
                let seconds = error.retry_after().map(|wait| wait.as_secs() + 1);
                Self(StatusCode::SERVICE_UNAVAILABLE, seconds)
            }
            _ => Self(StatusCode::BAD_GATEWAY, None),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut answer = self.0.into_response();
        if let Some(seconds) = self.1 {
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        answer
    }
}

#[tokio::test]
async fn handlers_share_one_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let service = Running::start(&gateway, &Arc::new(Semaphore::new(1))).await;

    let client = client();
    let calls = (0..20).map(|_| client.request(fetch(service.url("/hello"))));
    for answer in try_join_all(calls).await.unwrap() {
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(gateway.api_requests(), 20);
    assert_eq!(gateway.token_requests(), 1);
}

#[tokio::test]
async fn an_outage_of_the_token_endpoint_is_a_503_with_retry_after_until_it_is_over() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let service = Running::start(&gateway, &Arc::new(Semaphore::new(1))).await;
    let client = client();
    gateway.fail_next(1, StatusCode::SERVICE_UNAVAILABLE, Some("5"));

    for _ in 0..3 {
        let answer = client.request(fetch(service.url("/hello"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key(RETRY_AFTER));
    }
    let answer = client.request(fetch(service.url("/ready"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (1, 0));

    service.oauth.token_cache().warm_up().await.unwrap();
    for path in ["/hello", "/ready"] {
        let answer = client.request(fetch(service.url(path))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (2, 1));
}

#[tokio::test]
async fn a_graceful_shutdown_waits_for_a_request_that_waits_for_a_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let service = Running::start(&gateway, &gate).await;
    let (client, url) = (client(), service.url("/hello"));
    let call = tokio::spawn(client.request(fetch(&url)));
    service.until_it_fetches().await;

    drop(service.running);
    tokio::task::yield_now().await;
    assert!(!service.server.is_finished());

    gate.add_permits(1);
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    service.server.await.unwrap().unwrap();
    assert_eq!(gateway.token_requests(), 1);
    client.request(fetch(url)).await.unwrap_err();
}

// K5
#[tokio::test]
async fn a_caller_who_hangs_up_leaves_the_token_to_the_next() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let service = Running::start(&gateway, &gate).await;
    let impatient = tokio::spawn(client().request(fetch(service.url("/hello"))));
    service.until_it_fetches().await;
    impatient.abort();
    assert!(impatient.await.unwrap_err().is_cancelled());

    gate.add_permits(1);
    let answer = client().request(fetch(service.url("/hello"))).await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    assert_eq!(gateway.token_requests(), 1);
}

struct Running {
    oauth: OAuthLayer,
    origin: String,
    server: JoinHandle<std::io::Result<()>>,
    running: oneshot::Sender<()>, // the server stops when this is dropped
}

impl Running {
    async fn start(gateway: &Gateway, gate: &Arc<Semaphore>) -> Self {
        let oauth =
            OAuthLayer::client_credentials(gateway.token_url(), "consumer-key", "consumer-secret")
                .token_client(client_behind(gate))
                .build()
                .unwrap();
        let app = app(&oauth, gateway.api_url("/accounts").parse().unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (running, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, app).with_graceful_shutdown(async {
            _ = stopped.await;
        });
        Self {
            oauth,
            origin,
            server: tokio::spawn(server.into_future()),
            running,
        }
    }

    fn url(&self, path: &str) -> String {
        self.origin.clone() + path
    }

    async fn until_it_fetches(&self) {
        while !self.oauth.token_cache().status().fetching {
            tokio::task::yield_now().await;
        }
    }
}
