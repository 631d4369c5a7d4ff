//! A reverse proxy on loopback that puts the token on each request, for programs that are not written in Rust.
//!
//! `cargo run -p tower-oauth-examples --bin sidecar`, and then `curl -i http://127.0.0.1:8080/accounts`. Without environment
//! variables it starts an emulated gateway and passes requests to that.
//!
//! | variable | meaning |
//! |---|---|
//! | `OAUTH_TOKEN_URL`, `OAUTH_CLIENT_ID`, `OAUTH_CLIENT_SECRET`, `OAUTH_SCOPE` | as for `OAuthLayer::from_env` |
//! | `API_URL` | where requests go: an origin, or an origin and a path to put before theirs |
//! | `LISTEN` | a loopback address and port; default `127.0.0.1:8080` |
//!
//! - Bodies are streamed both ways. A request without a body is sent again when the API refuses its token, once.
//! - `/-/healthz` says that the process runs, `/-/readyz` whether requests can have a token.
//! - Our own failures are 502 (somebody has to act) or 503 (it may pass by itself), with `Retry-After` where it is known.
//! - Whoever reaches the port can use the token. So it listens on loopback only, and refuses web pages.
//! - SIGTERM and ctrl-c end it when the requests under way are answered, at the latest after 25 s.

#[path = "../../../gateway/mod.rs"]
mod gateway;

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::{env, sync::Arc, time::Duration};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get, serve::ListenerExt};
use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Uri, uri::Authority};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use tokio::signal::{ctrl_c, unix};
use tokio::{net::TcpListener, sync::oneshot, time::sleep};
use tower::{Layer, ServiceExt};
use tower_oauth::{BoxError, EmptyBody, OAuth, OAuthLayer, TokenCache};

use crate::gateway::{Config, Gateway};

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {}", chain(&*error));
    ExitCode::FAILURE
}

async fn run() -> Result<(), BoxError> {
    let configured = env::var_os("OAUTH_TOKEN_URL").is_some() || env::var_os("API_URL").is_some();
    let gateway = match configured {
        true => None,
        false => Some(Gateway::start(Config::default()).await?),
    };
    let (oauth, api) = match &gateway {
        None => (
            OAuthLayer::from_env()?,
            env::var("API_URL").map_err(|_| "API_URL is not set")?,
        ),
        Some(gateway) => {
            println!("no variable is set: the API is that of an emulated gateway");
            let (url, id, secret) = (gateway.token_url(), "consumer-key", "consumer-secret");
            (
                OAuthLayer::client_credentials(url, id, secret),
                gateway.api_url(""),
            )
        }
    };
    let target: Uri = api.parse().map_err(|_| "API_URL is not a URL")?;
    let authority = target.authority().ok_or("API_URL has no host")?;
    let oauth = match target.scheme_str() {
        Some("https") => oauth.allow_origin(format!("https://{authority}")),
        _ => oauth, // in the clear, the layer sends tokens to loopback only
    };
    let oauth = oauth.build()?;
    let listener = listen(configured).await?;
    println!("http://{} passes to {api}", listener.local_addr()?);

    let tokens = oauth.tokens();
    tokio::spawn(async move {
        if let Err(error) = tokens.warm_up().await {
            eprintln!("{}", chain(&error));
        }
    });
    let sidecar = Sidecar {
        tokens: oauth.tokens(),
        client: oauth.replay_with(EmptyBody).layer(client()?),
        api: api.trim_end_matches('/').into(),
    };
    let routes = Router::new()
        .route("/-/healthz", get("ok\n"))
        .route("/-/readyz", get(ready))
        .fallback(forward)
        .with_state(sidecar);
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let (stopping, stopped) = oneshot::channel();
    let listener = listener.tap_io(|tcp| _ = tcp.set_nodelay(true));
    let serve = axum::serve(listener, routes).with_graceful_shutdown(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = ctrl_c() => {} }
        println!("stopping");
        _ = stopping.send(());
    });
    tokio::select! {
        end = serve.into_future() => end?,
        () = async { _ = stopped.await; sleep(GRACE).await } => println!("cut off after {GRACE:?}"),
    }
    Ok(())
}

async fn listen(configured: bool) -> Result<TcpListener, BoxError> {
    let address = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let address: SocketAddr = address.parse().map_err(|_| "LISTEN is not IP:PORT")?;
    if !address.ip().is_loopback() {
        return Err("LISTEN is not loopback: whoever reaches the port can use the token".into());
    }
    match TcpListener::bind(address).await {
        Err(_) if !configured => Ok(TcpListener::bind((address.ip(), 0)).await?),
        bound => Ok(bound?),
    }
}

type HttpsClient = Client<HttpsConnector<HttpConnector>, Body>;

fn client() -> Result<HttpsClient, BoxError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_secs(5)));
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_platform_verifier(aws_lc_rs::default_provider())?
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

#[derive(Clone)]
struct Sidecar {
    client: OAuth<HttpsClient, EmptyBody>,
    tokens: TokenCache,
    api: Arc<str>,
}

async fn ready(State(sidecar): State<Sidecar>) -> (StatusCode, String) {
    let status = sidecar.tokens.status();
    let state = match (status.remaining, &status.last_error) {
        (Some(remaining), _) => format!("a token is at hand, good for {remaining:.0?}\n"),
        (None, Some(error)) => format!("{}\n", chain(error)),
        (None, None) => "no token was needed yet\n".to_owned(),
    };
    match status.is_ready() {
        true => (StatusCode::OK, state),
        false => (StatusCode::SERVICE_UNAVAILABLE, state),
    }
}

async fn forward(State(sidecar): State<Sidecar>, mut request: Request) -> Response {
    if let Some((status, reason)) = refuse(&request) {
        return (status, format!("{reason}\n")).into_response();
    }
    let asked = request.uri().path_and_query();
    let asked = asked.map_or("/", |asked| asked.as_str());
    let Ok(target) = format!("{}{asked}", sidecar.api).parse() else {
        return (StatusCode::BAD_REQUEST, "this is not the path of a URL\n").into_response();
    };
    *request.uri_mut() = target;
    remove_hop_by_hop(request.headers_mut());
    // `Host` is made anew, and `100 Continue` is said by this server when the body is first read.
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::EXPECT);
    match sidecar.client.oneshot(request).await {
        Ok(mut response) => {
            remove_hop_by_hop(response.headers_mut());
            response.map(Body::new)
        }
        Err(error) => explain(&*error),
    }
}

/// What is not passed on, and why.
fn refuse(request: &Request) -> Option<(StatusCode, &'static str)> {
    let text = |name: &str| request.headers().get(name)?.to_str().ok();
    let authority = request.uri().authority().map(Authority::as_str);
    let host = authority.or(text("host"));
    // Java's client offers h2c on every request; to go on in HTTP/1.1 is an answer to that.
    if request.method() == Method::CONNECT || text("upgrade").is_some_and(|to| to != "h2c") {
        let reason = "neither upgrades (WebSocket) nor tunnels (CONNECT) are passed on";
        Some((StatusCode::NOT_IMPLEMENTED, reason))
    } else if host.is_some_and(|host| !is_loopback(host)) {
        let reason = "not a forward proxy: ask for the path only, with a loopback host";
        Some((StatusCode::FORBIDDEN, reason))
    } else if text("origin").is_some() || text("sec-fetch-site").is_some_and(|s| s != "none") {
        Some((StatusCode::FORBIDDEN, "web pages are not served"))
    } else {
        None
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let host = authority.host().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// RFC 9110 §7.6.1.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let connection = headers.get_all(header::CONNECTION).iter();
    let named: Vec<String> = connection
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    let named = named.iter().map(String::as_str);
    for name in named.chain(HOP_BY_HOP.split(' ')) {
        headers.remove(name);
    }
}

/// An answer of our own, with the cause for the operator: no error of the layer has a secret in it.
fn explain(error: &(dyn Error + 'static)) -> Response {
    let ours = error.downcast_ref::<tower_oauth::Error>();
    let status = match ours.is_some_and(tower_oauth::Error::is_transient) {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::BAD_GATEWAY,
    };
    let wait = ours.and_then(tower_oauth::Error::retry_after);
    let wait = wait.map(|wait| {
        [(
            header::RETRY_AFTER,
            wait.as_millis().div_ceil(1000).to_string(),
        )]
    });
    let what = ours.map_or("no answer from the API: ", |_| "");
    let text = format!("{what}{}\n", chain(error));
    eprint!("{text}");
    (status, wait, text).into_response()
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

const HOP_BY_HOP: &str = "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer \
                          transfer-encoding upgrade";
const GRACE: Duration = Duration::from_secs(25);
