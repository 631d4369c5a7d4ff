//! What the stacks share and a reader need not copy: a plain client, and servers and gates for the
//! tests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Request as ServerRequest, State};
use axum::response::{IntoResponse, Redirect, Response as ServerResponse};
use axum::{Router, routing::any};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::Layer;
use tower::limit::{ConcurrencyLimit, GlobalConcurrencyLimitLayer};

/// A request with a body that can be sent again.
pub type Outgoing = Request<Full<Bytes>>;

/// hyper-util's client, without TLS.
pub type Client = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

pub fn client() -> Client {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http()
}

pub fn get(uri: impl AsRef<str>) -> Outgoing {
    let request = Request::get(uri.as_ref()).body(Full::default());
    request.expect("the tests' URIs are valid")
}

/// A token client that waits at a gate, which is shut while it has no permit.
pub fn client_behind(gate: &Arc<Semaphore>) -> ConcurrencyLimit<Client> {
    GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(gate)).layer(client())
}

/// Serves on a free loopback port from a task of the current runtime.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

/// An API that asks for nothing and remembers what each request had in `Authorization`.
///
/// `/to?URL` redirects there.
#[derive(Clone)]
pub struct Witness {
    address: SocketAddr,
    seen: Seen,
}

impl Witness {
    pub async fn start() -> Self {
        let seen = Arc::default();
        let router = Router::new().fallback(any(witness));
        let address = serve(router.with_state(Arc::clone(&seen))).await;
        Self { address, seen }
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn url(&self, path: &str) -> String {
        self.origin() + path
    }

    pub fn seen(&self) -> Vec<Option<HeaderValue>> {
        self.seen.lock().expect("no holder panics").clone()
    }
}

type Seen = Arc<Mutex<Vec<Option<HeaderValue>>>>;

async fn witness(State(seen): State<Seen>, request: ServerRequest) -> ServerResponse {
    let token = request.headers().get(AUTHORIZATION).cloned();
    seen.lock().expect("no holder panics").push(token);
    match request.uri().query() {
        Some(target) if request.uri().path() == "/to" => {
            Redirect::temporary(target).into_response()
        }
        _ => "hello".into_response(),
    }
}
