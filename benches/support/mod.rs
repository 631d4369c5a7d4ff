//! The request that all benches send, and those who send it.
#![allow(dead_code, unreachable_pub)] // Each bench uses a part.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use tower::Service;
use tower_oauth::{OAuthLayer, TokenFuture, TokenParams, TokenRequest, TokenResponse, TokenSource};

pub type Body = Empty<Bytes>;

// What a bench compares is never inlined into one contestant and not into another.

/// A fresh GET with three headers, in a `HeaderMap` that has room for a fourth.
#[inline(never)]
pub fn request() -> Request<Body> {
    /// Parsed once: parsing would be the greater part of what is measured.
    static URI: LazyLock<Uri> =
        LazyLock::new(|| Uri::from_static("https://api.example/v1/accounts"));

    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(HOST, HeaderValue::from_static("api.example"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("bench"));
    let mut request = Request::new(Body::default());
    *request.uri_mut() = URI.clone();
    *request.headers_mut() = headers;
    request
}

/// The same, asking for another kind of token.
pub fn asking_request(other: &TokenParams) -> Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(other.clone());
    request
}

pub fn other() -> TokenParams {
    TokenParams::new().with_audience("another")
}

/// Sends one request, and takes the answer that must be there at once.
#[inline(never)]
pub fn call<S, T>(service: &mut S, request: Request<Body>) -> Response<T>
where
    S: Service<Request<Body>, Response = Response<T>>,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut response = pin!(service.call(request));
    match response.as_mut().poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        _ => panic!("the service did not answer at once"),
    }
}

pub fn send<S>(service: &mut S, request: Request<Body>) -> StatusCode
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    call(service, request).status()
}

/// Always ready, takes the request as a client would, and answers when it is polled.
#[derive(Clone)]
pub struct NoOp;

pub struct Answer;

impl Service<Request<Body>> for NoOp {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, mut request: Request<Body>) -> Answer {
        black_box(&mut request);
        Answer
    }
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(Response::new(Body::default())))
    }
}

/// The least that can be done: the header value is there, and a clone of it is put on the request.
#[derive(Clone)]
pub struct Prebuilt<S> {
    inner: S,
    value: HeaderValue,
}

impl<S> Prebuilt<S> {
    pub fn new(inner: S) -> Self {
        let value = format!("Bearer {}", token());
        let mut value = HeaderValue::try_from(value).expect("a header value");
        value.set_sensitive(true);
        Self { inner, value }
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Prebuilt<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    #[inline(never)]
    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request
            .headers_mut()
            .insert(AUTHORIZATION, self.value.clone());
        self.inner.call(request)
    }
}

/// A token of 1,000 bytes.
pub fn token() -> String {
    "t".repeat(1000)
}

/// Brings it, at once.
pub struct Fixed;

impl TokenSource for Fixed {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(ready(TokenResponse::new(token())))
    }
}

/// A layer at its defaults, with a token at hand.
pub fn plain() -> OAuthLayer {
    warm(OAuthLayer::new(Fixed))
}

/// A layer with every check that a user can turn on, and a token at hand.
pub fn everything() -> OAuthLayer {
    let layer = OAuthLayer::builder(Fixed)
        .allow_origin("https://api.example")
        .allow_origin("https://auth.example")
        .treat_as_unauthorized(StatusCode::from_u16(419).expect("a status"))
        .build();
    warm(layer.expect("the settings are valid"))
}

fn warm(layer: OAuthLayer) -> OAuthLayer {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for tokens in [
            layer.token_cache(),
            layer.token_cache().with_params(other()),
        ] {
            // Twice: the first call waits for the flight, the second finds the token and frees it
            // for the cached path.
            for _ in 0..2 {
                tokens.token().await.expect("a token");
            }
        }
    });
    layer
}

/// Brings it after a delay, and counts how often it is asked.
pub struct Slow {
    delay: Duration,
    requests: AtomicUsize,
}

impl Slow {
    pub fn new(delay: Duration) -> Self {
        let requests = AtomicUsize::new(0);
        Self { delay, requests }
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl TokenSource for Slow {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            tokio::time::sleep(self.delay).await;
            TokenResponse::new(token())
        })
    }
}
