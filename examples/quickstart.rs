//! The main job, end to end: `cargo run --example quickstart`.
//!
//! Without environment variables it needs nothing: it starts an emulated gateway on loopback and
//! shows against it what the layer does. It ends with an error when something is not as it says.
//!
//! With `OAUTH_TOKEN_URL`, `OAUTH_CLIENT_ID`, `OAUTH_CLIENT_SECRET`, `API_URL` and, where the
//! gateway wants one, `OAUTH_SCOPE`, it gets a token from a real gateway and makes one `GET` to
//! `API_URL`.

mod gateway;

use std::env;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_oauth::FetchCause;
use tower_oauth::observe::Event;
use tower_oauth::{BoxError, Error, OAuthLayer};

use crate::gateway::{Config, Gateway};

#[tokio::main]
async fn main() -> ExitCode {
    let configured = VARIABLES.iter().any(|name| env::var_os(name).is_some());
    let end = if configured {
        call_a_real_gateway().await
    } else {
        tour().await
    };
    let Err(error) = end else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error}");
    // An error of tower-oauth says its cause itself; hyper's leaves that to its sources.
    let mut source = error.source().filter(|_| !error.is::<Error>());
    while let Some(error) = source {
        eprintln!("  because: {error}");
        source = error.source();
    }
    ExitCode::FAILURE
}

/// One token and one call, with what the environment says.
async fn call_a_real_gateway() -> Result<(), BoxError> {
    let url = env::var("API_URL")
        .map_err(|_| "environment: API_URL is not set, or is not Unicode")?
        .parse::<Uri>()
        .ok()
        .filter(|url| url.scheme().is_some())
        .ok_or("environment: API_URL is not an absolute URL")?;
    let mut oauth = OAuthLayer::from_env()?;
    if let Some(authority) = url
        .authority()
        .filter(|_| url.scheme() == Some(&Scheme::HTTPS))
    {
        oauth = oauth.allow_origin(format!("https://{authority}"));
    }
    let oauth = oauth.build()?;

    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_platform_verifier(aws_lc_rs::default_provider())?
        .https_or_http()
        .enable_http1()
        .build();
    let client = ServiceBuilder::new()
        .layer(oauth.clone())
        .service(Client::builder(TokioExecutor::new()).build(connector));

    let start = Instant::now();
    let token = oauth.token_cache().token().await?;
    row(
        "token",
        format!(
            "in {:.0?}, good for {:.0?}",
            start.elapsed(),
            token.remaining()
        ),
    );

    let start = Instant::now();
    let request = Request::get(&url).body(Empty::<Bytes>::new())?;
    let response = client.oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let (took, length) = (start.elapsed(), body.len());
    row(
        "API call",
        format!("{status} in {took:.0?}, {length} bytes, GET {url}"),
    );
    if status == StatusCode::UNAUTHORIZED {
        return Err("the API refused a token that is a moment old; \
            check that it belongs to this gateway, and the scope"
            .into());
    }
    Ok(())
}

/// What the layer does, shown against the emulated gateway.
async fn tour() -> Result<(), BoxError> {
    let gateway = Gateway::start(Config {
        token_latency: Duration::from_millis(200),
        ..Config::default()
    })
    .await?;
    one_token_for_all(&gateway).await?;
    a_wrong_secret(&gateway).await?;
    gateway.stop().await;
    a_token_grows_old().await
}

async fn one_token_for_all(gateway: &Gateway) -> Result<(), BoxError> {
    println!("\n1. {CALLS} API calls at once, and no token yet");
    let flights = Flights::default();
    let oauth = oauth(gateway, SECRET, &flights)?;
    let client = client(&oauth);
    let calls_at_once = async || {
        let url = gateway.api_url("/accounts");
        let calls = (0..CALLS).map(|_| get(client.clone(), url.clone()));
        let calls: JoinSet<_> = calls.collect();
        let statuses: Result<Vec<_>, _> = calls.join_all().await.into_iter().collect();
        statuses
    };

    let statuses = calls_at_once().await?;
    let good = good(&statuses);
    row("answers", format!("{good} of {CALLS} are 200 OK"));
    row(
        "token requests",
        format!("{}, to {}", gateway.token_requests(), gateway.token_url()),
    );
    flights.show();
    assert_eq!((good, gateway.token_requests()), (CALLS, 1));

    println!("\n2. {CALLS} more");
    let start = Instant::now();
    let statuses = calls_at_once().await?;
    let good = self::good(&statuses);
    row(
        "answers",
        format!("{good} of {CALLS} are 200 OK, in {:.0?}", start.elapsed()),
    );
    row(
        "token requests",
        format!(
            "{} more: the token came from the cache",
            gateway.token_requests() - 1
        ),
    );
    assert_eq!((good, gateway.token_requests()), (CALLS, 1));
    assert_eq!(gateway.api_requests(), 2 * CALLS as u64);
    assert_eq!(gateway.distinct_tokens_seen(), 1);
    Ok(())
}

async fn a_wrong_secret(gateway: &Gateway) -> Result<(), BoxError> {
    println!("\n3. A wrong secret");
    let before = (gateway.token_requests(), gateway.api_requests());
    let oauth = oauth(gateway, "not-the-secret", &Flights::default())?;
    let client = client(&oauth);
    let mut errors = Vec::new();
    for _ in 0..2 {
        let error = get(client.clone(), gateway.api_url("/accounts")).await;
        let error = error.expect_err("the gateway does not know this secret");
        errors.push(*error.downcast::<Error>()?);
    }
    let [first, second] = &errors[..] else {
        unreachable!("two calls were made")
    };
    row("the error", first);
    let (code, status) = (first.oauth_code(), first.status());
    row(
        "its class",
        format!(
            "rejected: {}, code: {code:?}, status: {status:?}",
            first.is_rejected()
        ),
    );
    row(
        "the next call",
        format!(
            "the same at once, and \"next attempt in {:.1?}\"",
            second.retry_after().unwrap_or_default()
        ),
    );
    let token_requests = gateway.token_requests() - before.0;
    let api_requests = gateway.api_requests() - before.1;
    row("token requests", token_requests);
    row("reached the API", format!("{api_requests} calls"));
    assert!(first.is_rejected() && second.is_rejected());
    assert_eq!(code, Some("invalid_client"));
    assert_eq!(status, Some(StatusCode::UNAUTHORIZED));
    assert_eq!((token_requests, api_requests), (1, 0));
    Ok(())
}

async fn a_token_grows_old() -> Result<(), BoxError> {
    println!("\n4. A token that lives 2 s, and a call every 50 ms");
    let gateway = Gateway::start(Config {
        token_lifetime: Duration::from_secs(2),
        ..Config::default()
    })
    .await?;
    let flights = Flights::default();
    let oauth = oauth(&gateway, SECRET, &flights)?;
    let client = client(&oauth);
    let start = Instant::now();
    let mut statuses = Vec::new();
    while gateway.distinct_tokens_seen() < 2 && start.elapsed() < Duration::from_secs(4) {
        statuses.push(get(client.clone(), gateway.api_url("/accounts")).await?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let good = good(&statuses);
    row(
        "answers",
        format!(
            "{good} of {} are 200 OK, in {:.1?}",
            statuses.len(),
            start.elapsed()
        ),
    );
    row("token requests", gateway.token_requests());
    flights.show();
    row(
        "refused by the API",
        format!("{} calls", gateway.api_refused()),
    );
    assert_eq!((good, gateway.api_refused()), (statuses.len(), 0));
    assert_eq!(
        (gateway.token_requests(), gateway.distinct_tokens_seen()),
        (2, 2)
    );
    gateway.stop().await;
    Ok(())
}

fn oauth(gateway: &Gateway, secret: &str, flights: &Flights) -> Result<OAuthLayer, BoxError> {
    let flights = flights.clone();
    let oauth = OAuthLayer::client_credentials(gateway.token_url(), "consumer-key", secret)
        .scope("aisp")
        .observer(move |event: &Event<'_>| flights.note(event))
        .build()?;
    Ok(oauth)
}

/// A hyper client with the layer around it.
///
/// Only some connections, since each one costs two file descriptors in this process. The limit
/// stands inside the layer, with a queue between them, so that all calls are in the layer at once.
fn client(oauth: &OAuthLayer) -> impl Api + use<> {
    ServiceBuilder::new()
        .layer(oauth.clone())
        .buffer(CALLS)
        .concurrency_limit(50)
        .and_then(|response: Response<_>| async {
            let (parts, body) = response.into_parts();
            let body = BodyExt::collect(body).await?.to_bytes();
            Ok::<_, BoxError>(Response::from_parts(parts, body))
        })
        .service(Client::builder(TokioExecutor::new()).build_http())
}

async fn get(client: impl Api, url: String) -> Result<StatusCode, BoxError> {
    let request = Request::get(url).body(Empty::new())?;
    let response = client.oneshot(request).await?;
    Ok(response.status())
}

trait Api:
    Service<Request<Empty<Bytes>>, Response = Response<Bytes>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Api for S where
    S: Service<Request<Empty<Bytes>>, Response = Response<Bytes>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// The flights of one layer, as the observer was told of them.
#[derive(Clone, Default)]
struct Flights(Arc<Mutex<Vec<String>>>);

impl Flights {
    fn note(&self, event: &Event<'_>) {
        let Event::FetchFinished {
            cause,
            latency,
            error: None,
            ..
        } = event
        else {
            return;
        };
        let cause = match cause {
            FetchCause::NoToken => "there was no token",
            FetchCause::Ahead => "the token was old, and still good meanwhile",
            FetchCause::LastStretch => "the token was about to end",
            _ => cause.name(),
        };
        let mut notes = self.0.lock().expect("no holder panics");
        notes.push(format!("a token in {latency:.0?}, because {cause}"));
    }

    fn show(&self) {
        for flight in self.0.lock().expect("no holder panics").iter() {
            row("", flight);
        }
    }
}

fn good(statuses: &[StatusCode]) -> usize {
    statuses
        .iter()
        .filter(|status| **status == StatusCode::OK)
        .count()
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("   {name:<18} {value}");
}

const CALLS: usize = 1_000;
const SECRET: &str = "consumer-secret";
const VARIABLES: [&str; 5] = [
    "OAUTH_TOKEN_URL",
    "OAUTH_CLIENT_ID",
    "OAUTH_CLIENT_SECRET",
    "OAUTH_SCOPE",
    "API_URL",
];
