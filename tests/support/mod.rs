//! A scripted token endpoint and a scripted API, for tests with paused time.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;
use tower::{BoxError, Service};
use tower_oauth::{
    CachePolicy, ManualClock, OAuthLayer, OAuthLayerBuilder, TokenCache, TokenParams, TokenSource,
};

pub const TOKEN_URL: &str = "http://127.0.0.1/oauth2/v1/token";
pub const API: &str = "https://api.example/accounts";

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One answer of the token endpoint.
#[derive(Clone, Debug)]
pub enum Answer {
    /// `token-N`, N counting the requests, with this `expires_in`.
    Token(i64),
    /// A given token with this `expires_in`.
    Fixed(&'static str, i64),
    Error(u16, &'static str),
    Raw(Raw),
    /// The connection is refused.
    Refused,
    /// No answer, ever.
    Hang,
    Panic,
}

#[derive(Clone, Debug, Default)]
pub struct Raw {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub fn raw(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    Answer::Raw(Raw {
        status,
        headers: headers
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect(),
        body: body.as_bytes().to_vec(),
    })
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: String,
    pub at: tokio::time::Instant,
}

impl Seen {
    pub fn authorization(&self) -> &str {
        self.headers
            .get(AUTHORIZATION)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// The token endpoint, as a token client: clones share it.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    seen: Mutex<Vec<Seen>>,
    script: Mutex<VecDeque<Answer>>,
    otherwise: Mutex<Answer>,
    latency: Mutex<Duration>,
    open: watch::Sender<bool>,
    under_way: Mutex<(usize, usize)>,
}

impl Endpoint {
    /// Answers with `token-1`, `token-2`, … of an hour each.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            seen: Mutex::default(),
            script: Mutex::default(),
            otherwise: Mutex::new(Answer::Token(3600)),
            latency: Mutex::default(),
            open: watch::Sender::new(true),
            under_way: Mutex::default(),
        }))
    }

    pub fn always(self, answer: Answer) -> Self {
        self.set(answer);
        self
    }

    pub fn set(&self, answer: Answer) {
        *self.0.otherwise.lock().unwrap() = answer;
    }

    /// The next answers, before what it always answers.
    pub fn then(self, answers: impl IntoIterator<Item = Answer>) -> Self {
        self.0.script.lock().unwrap().extend(answers);
        self
    }

    pub fn push(&self, answer: Answer) {
        self.0.script.lock().unwrap().push_back(answer);
    }

    pub fn latency(self, latency: Duration) -> Self {
        *self.0.latency.lock().unwrap() = latency;
        self
    }

    pub fn set_latency(&self, latency: Duration) {
        *self.0.latency.lock().unwrap() = latency;
    }

    /// Holds every answer back until `open`.
    pub fn closed(self) -> Self {
        self.close();
        self
    }

    pub fn close(&self) {
        self.0.open.send_replace(false);
    }

    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    pub fn requests(&self) -> usize {
        self.0.seen.lock().unwrap().len()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap().clone()
    }

    /// The most token requests that were under way at one time.
    pub fn most_at_once(&self) -> usize {
        self.0.under_way.lock().unwrap().1
    }

    pub fn under_way(&self) -> usize {
        self.0.under_way.lock().unwrap().0
    }

    async fn answer(&self, number: usize) -> Result<Response<Full<Bytes>>, BoxError> {
        let latency = *self.0.latency.lock().unwrap();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let mut open = self.0.open.subscribe();
        open.wait_for(|open| *open).await?;
        let scripted = self.0.script.lock().unwrap().pop_front();
        let answer = scripted.unwrap_or_else(|| self.0.otherwise.lock().unwrap().clone());
        let token = |token: &str, life: i64| {
            let body = format!(
                r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{life}}}"#
            );
            json(200, body)
        };
        match answer {
            Answer::Token(life) => token(&format!("token-{number}"), life),
            Answer::Fixed(value, life) => token(value, life),
            Answer::Error(status, code) => json(status, format!(r#"{{"error":"{code}"}}"#)),
            Answer::Raw(raw) => {
                let mut response = Response::builder().status(raw.status);
                for (name, value) in &raw.headers {
                    response = response.header(name, value);
                }
                Ok(response.body(Full::from(raw.body))?)
            }
            Answer::Refused => {
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
            }
            Answer::Hang => std::future::pending().await,
            Answer::Panic => panic!("the token client panics"),
        }
    }
}

fn json(status: u16, body: String) -> Result<Response<Full<Bytes>>, BoxError> {
    Ok(Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body))?)
}

/// Counts a request as under way until it is dropped.
struct UnderWay(Arc<Inner>);

impl UnderWay {
    fn new(inner: &Arc<Inner>) -> Self {
        let mut count = inner.under_way.lock().unwrap();
        count.0 += 1;
        count.1 = count.1.max(count.0);
        Self(Arc::clone(inner))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.lock().unwrap().0 -= 1;
    }
}

impl Service<Request<Full<Bytes>>> for Endpoint {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let _under_way = UnderWay::new(&this.0);
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let number = {
                let mut seen = this.0.seen.lock().unwrap();
                seen.push(Seen {
                    method: parts.method,
                    uri: parts.uri,
                    headers: parts.headers,
                    body: String::from_utf8(body.to_vec()).unwrap(),
                    at: tokio::time::Instant::now(),
                });
                seen.len()
            };
            this.answer(number).await
        })
    }
}

pub type Builder = OAuthLayerBuilder<tower_oauth::ClientCredentials>;

/// A layer on this endpoint, its clock following tokio's.
pub fn builder(endpoint: &Endpoint) -> Builder {
    OAuthLayer::client_credentials(TOKEN_URL, "consumer-key", "consumer-secret")
        .token_client(endpoint.clone())
        .clock(ManualClock::new())
}

pub fn layer(endpoint: &Endpoint) -> OAuthLayer {
    builder(endpoint).build().unwrap()
}

/// The source of a layer, to be called by hand.
pub fn source_of(builder: Builder) -> impl TokenSource {
    let (tell, told) = std::sync::mpsc::channel();
    let builder = builder.wrap_source(move |source| {
        let source = Arc::new(source);
        tell.send(Arc::clone(&source)).unwrap();
        source
    });
    drop(builder.build().unwrap());
    told.recv().unwrap()
}

/// A layer on a source of one's own, and its clock.
pub fn with_clock(source: impl TokenSource) -> (ManualClock, OAuthLayer) {
    let clock = ManualClock::new();
    let layer = OAuthLayer::builder(source).clock(clock.clone()).build();
    (clock, layer.expect("a layer"))
}

pub fn of_audience(n: usize) -> TokenParams {
    TokenParams::new().with_audience(n.to_string())
}

/// One of many kinds of token.
pub fn kind(tokens: &TokenCache, n: usize) -> TokenCache {
    tokens.with_params(of_audience(n))
}

pub fn current_thread() -> Runtime {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

/// A runtime whose time is paused.
pub fn paused() -> Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build();
    runtime.expect("a runtime")
}

pub fn two_threads() -> Runtime {
    let mut builder = runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

/// One attempt per flight, so that counts of flights and of requests are the same.
pub fn one_attempt() -> CachePolicy {
    CachePolicy::new().attempts(1)
}

/// An API that keeps the `Authorization` of each request and answers as it is told.
#[derive(Clone)]
pub struct Api(Arc<ApiInner>);

/// The answer to a request with this `Authorization`.
type ApiAnswer = dyn Fn(&str) -> Response<String> + Send + Sync;

struct ApiInner {
    seen: Mutex<Vec<String>>,
    answer: Box<ApiAnswer>,
}

impl Api {
    pub fn ok() -> Self {
        Self::new(|_| Response::new(String::from("hello")))
    }

    /// `answer` is given the `Authorization` header.
    pub fn new(answer: impl Fn(&str) -> Response<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ApiInner {
            seen: Mutex::default(),
            answer: Box::new(answer),
        }))
    }

    /// The `Authorization` headers received, in order; empty where there was none.
    pub fn seen(&self) -> Vec<String> {
        self.0.seen.lock().unwrap().clone()
    }

    pub fn requests(&self) -> usize {
        self.0.seen.lock().unwrap().len()
    }
}

impl Service<Request<String>> for Api {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = Ready<Result<Response<String>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let values: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
        assert!(values.len() <= 1, "more than one Authorization header");
        let authorization = values
            .first()
            .map_or("", |value| value.to_str().unwrap())
            .to_owned();
        let answer = (self.0.answer)(&authorization);
        self.0.seen.lock().unwrap().push(authorization);
        ready(Ok(answer))
    }
}

pub fn unauthorized(challenge: &str) -> Response<String> {
    let mut response = Response::new(String::from("no"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    if !challenge.is_empty() {
        let value = http::HeaderValue::from_bytes(challenge.as_bytes()).unwrap();
        response
            .headers_mut()
            .insert(http::header::WWW_AUTHENTICATE, value);
    }
    response
}

pub const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";

pub fn get(uri: &str) -> Request<String> {
    Request::builder().uri(uri).body(String::new()).unwrap()
}

/// The error of this crate in a service's error.
pub fn ours(error: BoxError) -> tower_oauth::Error {
    *error
        .downcast::<tower_oauth::Error>()
        .expect("an error of tower-oauth")
}

/// Lets every task run until all wait for something.
pub async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}
