//! The request that every contestant sends, and the service that takes it.

use std::convert::Infallible;
use std::error;
use std::future::{Ready, poll_fn, ready};
use std::marker::PhantomData;
use std::task::{Context, Poll};

use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use tower::Service;

pub type Error = Box<dyn error::Error + Send + Sync>;

pub const URL: &str = "https://api.example/accounts";
pub const HEADERS: [(&str, &str); 3] = [
    ("accept", "application/json"),
    ("user-agent", "peers/1"),
    ("x-request-id", "8f14e45f-ceea-467f-a9d1-0c5cbdbd2c3a"),
];

/// As long as a signed token is.
pub const TOKEN: &str = match str::from_utf8(&[b't'; 1000]) {
    Ok(token) => token,
    Err(_) => panic!(),
};

/// What an application holds and clones for its callers.
pub trait Client: Clone + Send + 'static {
    /// The request as it arrived at the service, or its headers.
    type Sent: Send;

    /// Sends a fresh request.
    fn request(&mut self) -> impl Future<Output = Result<Self::Sent, Error>> + Send;

    fn authorization(sent: &Self::Sent) -> Option<&str>;
}

/// A GET with three headers, and room for a fourth.
pub fn fresh() -> Request<()> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(ACCEPT, HeaderValue::from_static(HEADERS[0].1));
    headers.insert(USER_AGENT, HeaderValue::from_static(HEADERS[1].1));
    headers.insert(
        HeaderName::from_static(HEADERS[2].0),
        HeaderValue::from_static(HEADERS[2].1),
    );
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_static(URL);
    *request.headers_mut() = headers;
    request
}

pub fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(http::header::AUTHORIZATION)?.to_str().ok()
}

/// Always ready. It answers at once, with the headers that it was sent.
pub struct Sink<E = Infallible>(PhantomData<fn() -> E>);

impl<E> Sink<E> {
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E> Clone for Sink<E> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<E> Service<Request<()>> for Sink<E> {
    type Response = Response<HeaderMap>;
    type Error = E;
    type Future = Ready<Result<Response<HeaderMap>, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        ready(Ok(Response::new(request.into_parts().0.headers)))
    }
}

/// The client that is a tower service.
#[derive(Clone)]
pub struct Tower<S>(pub S);

impl<S> Client for Tower<S>
where
    S: Service<Request<()>, Response = Response<HeaderMap>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Error>,
{
    type Sent = HeaderMap;

    async fn request(&mut self) -> Result<HeaderMap, Error> {
        let request = fresh();
        poll_fn(|cx| self.0.poll_ready(cx))
            .await
            .map_err(Into::into)?;
        let response = self.0.call(request).await.map_err(Into::into)?;
        Ok(response.into_body())
    }

    fn authorization(sent: &HeaderMap) -> Option<&str> {
        authorization(sent)
    }
}
