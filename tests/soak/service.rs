//! The service: its callers, its own calls through the layer, and the API that they go to.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use bytes::Bytes;
use fastrand::Rng;
use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tower::util::MapRequest;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{BoxError, CloneBody, Error, OAuth, OAuthLayer, Replayed};

use crate::{Call, Outcome, World, now};

/// Requests per second that the load aims at; a slow machine makes fewer.
const RATE: u64 = 4_000;
pub(crate) const LOADERS: u64 = 64;

pub(crate) async fn load(
    world: Arc<World>,
    client: Client<HttpConnector, Full<Bytes>>,
    service: String,
    mut rng: Rng,
) {
    let mut tick = interval(Duration::from_nanos(1_000_000_000 * LOADERS / RATE));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !world.stop.load(Relaxed) {
        tick.tick().await;
        let path = ["plain", "plain", "replaying", "replaying", "hasty"][rng.usize(..5)];
        let call = Request::get(format!("{service}/{path}"));
        let answer = client.request(call.body(Full::default()).unwrap()).await;
        answer.unwrap().into_body().collect().await.unwrap();
        world.answered.fetch_add(1, Relaxed);
    }
}

type Upstream = MapRequest<Client<HttpConnector, Full<Bytes>>, fn(Call) -> Call>;

#[derive(Clone)]
struct App {
    world: Arc<World>,
    api: String,
    plain: OAuth<Upstream>,
    replaying: OAuth<Upstream, CloneBody>,
}

pub(crate) fn service(world: &Arc<World>, oauth: &OAuthLayer, api: String) -> Router {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let upstream = MapRequest::new(client, stamp as fn(Call) -> Call);
    let app = App {
        world: Arc::clone(world),
        api,
        plain: oauth.layer(upstream.clone()),
        replaying: oauth.clone().replay_unauthorized().layer(upstream),
    };
    let plain = |State(app): State<App>| async move { app.call(app.plain.clone()).await };
    let replaying = |State(app): State<App>| async move { app.call(app.replaying.clone()).await };
    let hasty = |State(app): State<App>| async move {
        let patience = if now() < WARM_UP { HASTE / 50 } else { HASTE };
        let call = timeout(patience, app.call(app.plain.clone()));
        call.await.unwrap_or_else(|_| app.end(Outcome::GivenUp))
    };
    Router::new()
        .route("/plain", get(plain))
        .route("/replaying", get(replaying))
        .route("/hasty", get(hasty))
        .with_state(app)
}

/// Less than a slow token request takes.
const HASTE: Duration = Duration::from_millis(250);
/// In nanoseconds. At first callers give up all the time, and connections with them, so that the
/// heap has found its size before it is measured.
const WARM_UP: u64 = 8_000_000_000;

thread_local! {
    /// When the call that is being polled began, and this poll of it.
    static POLLED: Cell<[u64; 2]> = const { Cell::new([0; 2]) };
}

const STAMP: &str = "x-stamp";

/// The first thing behind the layer: it tells the API no earlier moment than that of the layer's
/// decision, since that falls into the same poll.
fn stamp(mut call: Call) -> Call {
    let [began, polled] = POLLED.get();
    let stamp = HeaderValue::from_str(&format!("{began} {polled}")).unwrap();
    call.headers_mut().insert(STAMP, stamp);
    call
}

impl App {
    async fn call<S, B>(&self, client: S) -> StatusCode
    where
        S: Service<Call, Response = Response<B>, Error = BoxError>,
        B: Body<Error: std::fmt::Debug>,
    {
        let call = Request::get(&self.api).body(Full::default()).unwrap();
        let began = now();
        let (mut polled, mut answer) = (None, pin!(client.oneshot(call)));
        let answer = poll_fn(|cx| {
            // The first poll is at the very moment at which the call began.
            polled = Some(polled.map_or(began, |_| now()));
            POLLED.set([began, polled.unwrap_or(began)]);
            answer.as_mut().poll(cx)
        });
        let outcome = match answer.await {
            Ok(answer) => {
                let replayed = answer.extensions().get::<Replayed>().is_some();
                self.world.replayed.fetch_add(replayed.into(), Relaxed);
                let outcome = match answer.status() {
                    StatusCode::OK => Outcome::Ok,
                    StatusCode::UNAUTHORIZED => Outcome::Refused,
                    _ => Outcome::Broken,
                };
                let read = answer.into_body().collect().await;
                read.map_or(Outcome::Broken, |_| outcome)
            }
            Err(error) => match error.downcast_ref::<Error>() {
                Some(error) => {
                    let (polled, ended) = (polled.unwrap_or(began), now());
                    self.world.book().failed([began, polled], ended, error);
                    Outcome::NoToken
                }
                None => Outcome::Broken,
            },
        };
        self.end(outcome)
    }

    fn end(&self, outcome: Outcome) -> StatusCode {
        self.world.outcomes[outcome as usize].fetch_add(1, Relaxed);
        match outcome {
            Outcome::Ok => StatusCode::OK,
            Outcome::Refused | Outcome::Broken => StatusCode::BAD_GATEWAY,
            Outcome::NoToken => StatusCode::SERVICE_UNAVAILABLE,
            Outcome::GivenUp => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

pub(crate) fn api(world: &Arc<World>) -> Router {
    let answer = |State(world): State<Arc<World>>, headers: HeaderMap| async move {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let token = text("authorization").and_then(|value| value.strip_prefix("Bearer token-"));
        let stamp = text(STAMP).and_then(|stamp| stamp.split_once(' '));
        let (Some(token), Some((began, decided))) = (token, stamp) else {
            return StatusCode::BAD_REQUEST;
        };
        let [token, began, decided] = [token, began, decided].map(|text| text.parse().unwrap());
        if world.book().admits(token, began, decided) {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        }
    };
    Router::new().fallback(answer).with_state(Arc::clone(world))
}

pub(crate) async fn serve(
    servers: &mut JoinSet<()>,
    router: Router,
    stopped: &watch::Receiver<()>,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut stopped = stopped.clone();
    servers.spawn(async move {
        let stop = async move { _ = stopped.changed().await };
        let server = axum::serve(listener, router).with_graceful_shutdown(stop);
        server.await.unwrap();
    });
    format!("http://{address}")
}
