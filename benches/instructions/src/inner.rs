//! The inner services: what a client's types are, and how large its response.

use std::cell::RefCell;
use std::convert::Infallible;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower::Service;

use crate::support::Body;

/// A body that is used again where it cannot be made.
pub trait Answer: Sized {
    fn give_back(_: Response<Self>) {}
}

pub trait Inner:
    Service<Request<Body>, Response = Response<Self::Body>, Error = Self::Failure> + Clone + 'static
{
    type Body: Answer;
    type Failure: std::error::Error + Send + Sync + 'static;

    fn new() -> Self;
}

/// hyper-util's response and error, and a boxed future.
#[derive(Clone)]
pub struct Hyper;

/// The same with neither box nor error.
#[derive(Clone)]
pub struct Unboxed;

/// A response of some 110 bytes: one without a body.
#[derive(Clone)]
pub struct Sized110;

/// A response of 400 bytes.
#[derive(Clone)]
pub struct Sized400;

#[expect(dead_code, reason = "only its size counts")]
pub struct Large([u64; (400 - size_of::<Response<()>>()) / 8]);

thread_local! {
    /// Only an exchange makes an `Incoming`, so there is one for all requests.
    static REAL: RefCell<Option<Response<Incoming>>> = const { RefCell::new(None) };
}

impl Answer for Incoming {
    fn give_back(response: Response<Self>) {
        REAL.with(|real| *real.borrow_mut() = Some(response));
    }
}

impl Answer for Empty<Bytes> {}

impl Answer for Large {}

fn take() -> Response<Incoming> {
    let response = REAL.with(|real| real.borrow_mut().take());
    response.expect("it was given back")
}

/// Lets hyper-util's client get a response from a server on loopback.
fn exchange() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let response = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = [0; 1024];
            let read = stream.read(&mut head).await.expect("a request");
            assert_ne!(read, 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.expect("it is read");
        };
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let uri = format!("http://{address}/").parse().expect("a URI");
        let (response, ()) = futures_util::future::join(client.get(uri), server).await;
        response.expect("an answer")
    });
    let (mut parts, body) = response.into_parts();
    // What the cells count has no headers, whoever answers.
    parts.headers.clear();
    parts.extensions.clear();
    Incoming::give_back(Response::from_parts(parts, body));
}

impl Inner for Hyper {
    type Body = Incoming;
    type Failure = legacy::Error;

    fn new() -> Self {
        exchange();
        Self
    }
}

impl Inner for Unboxed {
    type Body = Incoming;
    type Failure = Infallible;

    fn new() -> Self {
        exchange();
        Self
    }
}

impl Inner for Sized110 {
    type Body = Empty<Bytes>;
    type Failure = Infallible;

    fn new() -> Self {
        assert!((100..120).contains(&size_of::<Response<Self::Body>>()));
        Self
    }
}

impl Inner for Sized400 {
    type Body = Large;
    type Failure = Infallible;

    fn new() -> Self {
        assert_eq!(size_of::<Response<Large>>(), 400);
        Self
    }
}

/// A client's calls can unwind. Were they known not to, as nothing real is, the compiler would
/// leave out copies of the request where there is no layer.
#[inline(always)]
fn unwind_perhaps() {
    assert!(!black_box(false), "a client may panic");
}

/// Answers when it is polled.
pub struct Later<T>(fn() -> T);

impl<T> Future for Later<T> {
    type Output = Result<T, Infallible>;

    #[inline(never)]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        unwind_perhaps();
        Poll::Ready(Ok((self.0)()))
    }
}

impl Service<Request<Body>> for Hyper {
    type Response = Response<Incoming>;
    type Error = legacy::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, legacy::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), legacy::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        black_box(&mut request);
        unwind_perhaps();
        Box::pin(async { Ok(take()) })
    }
}

macro_rules! later {
    ($inner:ty, $make:expr) => {
        impl Service<Request<Body>> for $inner {
            type Response = Response<<$inner as Inner>::Body>;
            type Error = Infallible;
            type Future = Later<Self::Response>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            #[inline(never)]
            fn call(&mut self, mut request: Request<Body>) -> Self::Future {
                black_box(&mut request);
                unwind_perhaps();
                Later($make)
            }
        }
    };
}

later!(Unboxed, take);
later!(Sized110, || Response::new(Empty::default()));
later!(Sized400, || Response::new(Large([0; _])));
