//! A reverse proxy on loopback that puts the token on each request, for programs that are not
//! written in Rust.
//!
//! `cargo run -p tower-oauth-examples --bin sidecar`, and then
//! `curl -i http://127.0.0.1:8080/accounts`. Without environment variables it starts an emulated
//! gateway and passes requests to that.
//!
//! The environment variables:
//!
//! - `OAUTH_TOKEN_URL`, `OAUTH_CLIENT_ID`, `OAUTH_CLIENT_SECRET`, `OAUTH_SCOPE`: as for
//!   `OAuthLayer::from_env`.
//! - `API_URL`: where requests go: an origin, or an origin and a path to put before theirs. No
//!   other origin gets the token; `http://` is your consent to send it there in the clear.
//! - `LISTEN`: a loopback address and port; default `127.0.0.1:8080`.
//! - `SIDECAR_HEADER`: `NAME:VALUE`, a header that every request must have, once; it is not passed
//!   on. Default: none.
//!
//! How it behaves:
//!
//! - Bodies are streamed both ways. A request without a body is sent again when the API refuses its
//!   token, once.
//! - `/-/healthz` says that the process runs, `/-/readyz` whether requests can have a token.
//! - Our own failures are 502 (somebody has to act) or 503 (it may pass by itself), with
//!   `Retry-After` where it is known.
//! - The API may take as long as it likes to answer: a time limit is the caller's to set.
//! - SIGTERM and ctrl-c end it when the requests under way are answered, at the latest after 25 s.
//!
//! # What is refused
//!
//! Whoever reaches the port can use the token. So it listens on loopback only, and refuses what a
//! web page in a browser on the same machine may send. The refusal covers all paths, `/-/healthz`
//! and `/-/readyz` too: a probe runs on this machine (in Kubernetes an `exec` probe) and asks for
//! `127.0.0.1`. Nothing that is refused reaches the API or causes a token request.
//!
//! | request | answer |
//! |---|---|
//! | no `Host`, or two | 400 |
//! | a `Host` other than `localhost`, 127/8 or `[::1]`, any port or none; no trailing dot | 403 |
//! | the absolute form (`GET http://…`) with another host than `Host` | 403 |
//! | the absolute form with another scheme than `http` | 403 |
//! | an `Origin`, whatever its value | 403 |
//! | `Sec-Fetch-Site` other than `none`; any `Sec-Fetch-…` header twice | 403 |
//! | `SIDECAR_HEADER` is set and the header is missing, wrong, or there twice | 403 |
//! | a target that does not begin with `/` (`*`, `host:port`) | 400 |
//! | a `.` or `..` segment, also percent-encoded or with `\` for `/` | 400 |
//! | such a segment with `;`, `?` or `#` after it (`..;x`, `..%3fx`) | 400 |
//! | a path with a control character, overlong UTF-8 or `%u` (`%09`, `%c0%ae`, `%u002e`) | 400 |
//! | `CONNECT`, `TRACE`, `TRACK` | 501 |
//! | `Upgrade` other than `h2c`, which is not passed on | 501 |
//! | `Transfer-Encoding` of more than `chunked`, but with `chunked` as the last | 501 |
//! | `Transfer-Encoding` without `chunked` as the last, so that the body has no end | 400 |
//! | both `Content-Length` and `Transfer-Encoding` | 400 |
//! | `Expect` other than `100-continue` | 417 |
//! | a body that ends early or whose chunks are broken | 400; the API may have seen its beginning |
//! | not HTTP by RFC 9112 (a folded header, a blank in a name, differing lengths) | 400, by hyper |
//! | a head of more than 64 KiB or 100 headers | 431, by hyper |
//! | HTTP/2 | the connection is closed |
//!
//! Not told from a program are a browser of before 2023, which sends no `Sec-Fetch-Site`, and no
//! `Origin` with a form or a picture; a page opened from the address bar or a bookmark that
//! redirects here, which makes one GET with `Sec-Fetch-Site: none`; and another user of the
//! machine. Where such are possible, set `SIDECAR_HEADER`: a page cannot add a header without
//! asking first, which is refused.

#[path = "../../../../gateway/mod.rs"]
mod gateway;
mod guard;
mod wire;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::{env, sync::Arc, time::Duration};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use http::header::{self, HeaderMap};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use tokio::signal::{ctrl_c, unix};
use tokio::{net::TcpListener, sync::oneshot, time::sleep};
use tower::{Layer, ServiceExt};
use tower_oauth::{BoxError, OAuth, OAuthLayer, TokenCache};

use crate::gateway::{Config, Gateway};
use crate::guard::{Required, guard, has_dots};
use crate::wire::serve;

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {}", told(&*error));
    ExitCode::FAILURE
}

async fn run() -> Result<(), BoxError> {
    // One that is there and another that is misspelt are no call for the emulated gateway.
    let configured = env::vars_os().any(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("OAUTH_") || name == "API_URL"
    });
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
    let api: Api = api.parse()?;
    // Named always, so that no other origin can get the token whatever a request asks for.
    let oauth = oauth.allow_origin(format!("{}://{}", api.scheme, api.authority));
    let required = Required::from_env()?;
    let oauth = oauth.build()?;
    let listener = listen(configured).await?;
    println!("http://{} passes to {api}", listener.local_addr()?);

    let tokens = oauth.token_cache();
    tokio::spawn(async move {
        if let Err(error) = tokens.warm_up().await {
            eprintln!("{error}");
        }
    });
    let sidecar = Sidecar {
        tokens: oauth.token_cache(),
        client: oauth.replay_with(if_empty as IfEmpty).layer(client()?),
        api: Arc::new(api),
    };
    let routes = Router::new()
        .route("/-/healthz", get("ok\n"))
        .route("/-/readyz", get(ready))
        .fallback(forward)
        .layer(from_fn_with_state(required, guard))
        .with_state(sidecar);
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let (stopping, stopped) = oneshot::channel();
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = ctrl_c() => {} }
        // Not `println!`, which panics when nobody reads any more, and would cut the requests off.
        _ = writeln!(io::stdout(), "stopping");
        _ = stopping.send(());
    };
    tokio::select! {
        () = serve(listener, routes, stop) => {}
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
        bound => bound.map_err(|error| format!("LISTEN: {address}: {error}").into()),
    }
}

type HttpsClient = Client<HttpsConnector<HttpConnector>, Body>;
type IfEmpty = fn(&Body) -> Option<Body>;

/// Only requests without a body are sent again: a stream cannot be cloned.
fn if_empty(body: &Body) -> Option<Body> {
    body.is_end_stream().then(Body::empty)
}

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
    client: OAuth<HttpsClient, IfEmpty>,
    tokens: TokenCache,
    api: Arc<Api>,
}

/// Where requests go.
struct Api {
    scheme: Scheme,
    authority: Authority,
    /// What stands before the path of each request: empty, or beginning with `/` and not ending
    /// with one.
    prefix: String,
}

impl FromStr for Api {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "API_URL is not a URL")?;
        let parts = uri.into_parts();
        let scheme = parts
            .scheme
            .filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        let scheme = scheme.ok_or("API_URL begins neither with http:// nor with https://")?;
        let authority = parts.authority.ok_or("API_URL has no host")?;
        if authority.as_str().contains('@') {
            return Err("API_URL has a user in it: it takes a token, not a password");
        }
        let path = parts
            .path_and_query
            .unwrap_or(PathAndQuery::from_static("/"));
        if path.query().is_some() || text.contains('#') {
            return Err("API_URL has a query or a fragment: only a path can stand before others");
        }
        if has_dots(path.path()) {
            return Err("API_URL has dot segments in its path");
        }
        let prefix = path.path().trim_end_matches('/').to_owned();
        Ok(Self {
            scheme,
            authority,
            prefix,
        })
    }
}

impl Api {
    /// Host and port, for whoever looks for what is down.
    fn place(&self) -> String {
        let port = match self.scheme == Scheme::HTTPS {
            true => 443,
            false => 80,
        };
        let port = self.authority.port_u16().unwrap_or(port);
        format!("{}:{port}", self.authority.host())
    }

    /// The URI of a request there. It is made of parts, so that nothing a request asks for can
    /// become a part of the host.
    fn uri(&self, asked: &Uri) -> Result<Uri, http::Error> {
        let path = asked.path();
        let target = match asked.query() {
            Some(query) => format!("{}{path}?{query}", self.prefix),
            None => format!("{}{path}", self.prefix),
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

async fn ready(State(sidecar): State<Sidecar>) -> (StatusCode, String) {
    let status = sidecar.tokens.status();
    let state = match (status.remaining, &status.last_error) {
        (Some(remaining), _) => format!("a token is at hand, good for {remaining:.0?}\n"),
        (None, Some(error)) => format!("{error}\n"),
        (None, None) => "no token was needed yet\n".to_owned(),
    };
    match status.is_ready() {
        true => (StatusCode::OK, state),
        false => (StatusCode::SERVICE_UNAVAILABLE, state),
    }
}

async fn forward(State(sidecar): State<Sidecar>, mut request: Request) -> Response {
    let Ok(target) = sidecar.api.uri(request.uri()) else {
        return (StatusCode::BAD_REQUEST, "this is not the path of a URL\n").into_response();
    };
    *request.uri_mut() = target;
    *request.version_mut() = Version::HTTP_11;
    remove_hop_by_hop(request.headers_mut());
    // The inbound `Host` must go, in any proxy: an API that serves several hosts goes by it and not
    // by the address, and the layer judges the URI alone. The client makes the right one.
    request.headers_mut().remove(header::HOST);
    // `100 Continue` is said by this server when the body is first read.
    request.headers_mut().remove(header::EXPECT);
    let request = request.map(|body| Body::new(body.map_err(|error| Torn(error.into_inner()))));
    match sidecar.client.oneshot(request).await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => (
            StatusCode::BAD_GATEWAY,
            "the API switched protocols unasked\n",
        )
            .into_response(),
        Ok(mut response) => {
            // RFC 9112 §6.3: of two lengths this one is void, and our own server would obey it.
            if response.headers().contains_key(header::TRANSFER_ENCODING) {
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            remove_hop_by_hop(response.headers_mut());
            response.map(Body::new)
        }
        Err(error) => match Torn::find(&*error) {
            Some(torn) => (StatusCode::BAD_REQUEST, format!("{}\n", told(torn))).into_response(),
            None => explain(&*error, &sidecar.api),
        },
    }
}

/// An error of the body that the caller sends, to tell it from one of the API.
#[derive(Debug)]
struct Torn(BoxError);

impl Torn {
    fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut errors = std::iter::successors(Some(error), |&error| error.source());
        errors.find_map(|error| error.downcast_ref())
    }
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request's body cannot be read to its end")
    }
}

impl Error for Torn {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
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
fn explain(error: &(dyn Error + 'static), api: &Api) -> Response {
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
    let text = match ours {
        Some(ours) => format!("{ours}\n"),
        None => format!(
            "no answer from the API at {}: {}\n",
            api.place(),
            told(error)
        ),
    };
    eprint!("{text}");
    (status, wait, text).into_response()
}

/// An error with its causes, unless its text has them already, as those of the layer have.
fn told(error: &(dyn Error + 'static)) -> String {
    if error.is::<tower_oauth::Error>() || error.is::<tower_oauth::BuildError>() {
        return error.to_string();
    }
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

const HOP_BY_HOP: &str = "connection keep-alive proxy-authenticate proxy-authorization \
                          proxy-connection te trailer transfer-encoding upgrade";
const GRACE: Duration = Duration::from_secs(25);
