//! The least that a layer has to do whose token ends: look at the clock, put a header value on the
//! request, look at the answer's status, and box the error.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response, StatusCode};
use nix::time::{ClockId, clock_gettime};
use pin_project_lite::pin_project;
use tower::Service;

use crate::support::token;

pub struct Minimal<S> {
    inner: S,
    value: HeaderValue,
    end: i64,
}

impl<S> Minimal<S> {
    pub fn new(inner: S) -> Self {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token())).expect("a value");
        value.set_sensitive(true);
        Self {
            inner,
            value,
            end: i64::MAX,
        }
    }
}

impl<S, B, T> Service<Request<B>> for Minimal<S>
where
    S: Service<Request<B>, Response = Response<T>>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<T>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = MinimalFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline(never)]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock");
        assert!(now.tv_sec() < self.end, "the token has ended");
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.value.clone());
        MinimalFuture {
            response: self.inner.call(request),
        }
    }
}

pin_project! {
    pub struct MinimalFuture<F> {
        #[pin]
        response: F,
    }
}

impl<F, T, E> Future for MinimalFuture<F>
where
    F: Future<Output = Result<Response<T>, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = Result<Response<T>, Box<dyn Error + Send + Sync>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.project().response.poll(cx)) {
            Ok(response) if response.status() == StatusCode::UNAUTHORIZED => refused(response),
            Ok(response) => Poll::Ready(Ok(response)),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

#[cold]
#[inline(never)]
fn refused<T>(response: Response<T>) -> Poll<Result<Response<T>, Box<dyn Error + Send + Sync>>> {
    Poll::Ready(Ok(response))
}
