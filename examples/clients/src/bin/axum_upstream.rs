//! An axum service whose handlers call an API with the layer. To run it:
//! `cargo run -p tower-oauth-examples --bin axum_upstream`.
//!
//! The client is in the router's state and cloned for each request: clones share connections, and
//! the layer shares one token cache. A failure to get a token becomes a 502 or 503 that says when
//! to come again.
//!
//! It starts an emulated gateway on loopback and ends with an error when something is not as it
//! says.

#[path = "../../../gateway/mod.rs"]
mod gateway;

use std::future::IntoFuture;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use futures_util::future::try_join_all;
use http::{Request, StatusCode, header};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower::{Layer, ServiceExt};
use tower_oauth::{BoxError, OAuth, OAuthLayer, TokenCache};

use crate::gateway::{Config, Gateway};

#[derive(Clone)]
struct App {
    upstream: OAuth<Client<HttpConnector, Body>, IfEmpty>,
    tokens: TokenCache,
    url: String,
}

type IfEmpty = fn(&Body) -> Option<Body>;

/// Only requests without a body are sent again: a stream cannot be cloned.
fn if_empty(body: &Body) -> Option<Body> {
    body.is_end_stream().then(Body::empty)
}

fn app(oauth: &OAuthLayer, url: String) -> Router {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let oauth = oauth.clone().replay_with(if_empty as IfEmpty);
    let state = App {
        tokens: oauth.token_cache(),
        upstream: oauth.layer(client),
        url,
    };
    Router::new()
        .route("/accounts/{id}", get(account))
        .route("/ready", get(ready))
        .with_state(state)
}

/// Passes the API's answer on, its body as it comes.
async fn account(State(app): State<App>, Path(id): Path<u32>) -> Result<Response, Failure> {
    let request = Request::get(format!("{}/accounts/{id}", app.url)).body(Body::empty())?;
    let answer = app.upstream.oneshot(request).await?;
    Ok((answer.status(), Body::new(answer.into_body())).into_response())
}

async fn ready(State(app): State<App>) -> StatusCode {
    match app.tokens.status().is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Why the API could not be asked.
struct Failure(BoxError);

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        eprintln!("   upstream: {}", self.0);
        let error = self.0.downcast_ref::<tower_oauth::Error>();
        match error.and_then(|error| error.retry_after()) {
            Some(wait) => {
                let seconds = wait.as_millis().div_ceil(1000).to_string();
                let status = StatusCode::SERVICE_UNAVAILABLE;
                (status, [(header::RETRY_AFTER, seconds)]).into_response()
            }
            None => StatusCode::BAD_GATEWAY.into_response(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let gateway = Gateway::start(Config {
        token_latency: Duration::from_millis(300),
        ..Config::default()
    })
    .await?;
    let oauth =
        OAuthLayer::client_credentials(gateway.token_url(), "consumer-key", "consumer-secret")
            .scope("aisp")
            .build()?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = axum::serve(listener, app(&oauth, gateway.api_url("")));
    let serve = serve.with_graceful_shutdown(async { _ = stopped.await });
    let service = tokio::spawn(serve.into_future());
    let callers: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let call = async |id: usize| {
        let request = Request::get(format!("{url}/accounts/{id}")).body(Body::empty())?;
        Ok::<_, BoxError>(callers.request(request).await?)
    };

    let answers = try_join_all((0..CALLS).map(&call)).await?;
    let good = answers
        .iter()
        .filter(|answer| answer.status() == StatusCode::OK);
    let (good, requests) = (good.count(), gateway.token_requests());
    println!("{CALLS} calls at once: {good} are 200 OK, token requests: {requests}");
    assert_eq!((good, requests), (CALLS, 1));

    gateway.revoke_all();
    let status = call(1).await?.status();
    let requests = gateway.token_requests();
    println!("after a revocation: {status}, token requests: {requests}");
    assert_eq!((status, requests), (StatusCode::OK, 2));

    gateway.revoke_all();
    oauth.token_cache().invalidate();
    gateway.fail_next(1, StatusCode::SERVICE_UNAVAILABLE, Some("2"));
    let answer = call(2).await?;
    let (status, wait) = (answer.status(), answer.headers().get(header::RETRY_AFTER));
    println!("token endpoint down: {status}, Retry-After: {wait:?}");
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(wait.is_some());

    // Ends the backoff, so that the next call starts a flight; it is under way when the service is
    // asked to stop.
    oauth.token_cache().invalidate();
    let last = call(3);
    let stop = async {
        while !oauth.token_cache().status().fetching {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stop);
    };
    let (answer, ()) = tokio::join!(last, stop);
    let status = answer?.status();
    service.await??;
    println!("stopped while a token was on its way: the call under way got {status}");
    assert_eq!(status, StatusCode::OK);
    Ok(())
}

const CALLS: usize = 100;
