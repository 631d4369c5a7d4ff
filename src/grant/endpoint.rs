//! The token endpoint: where it is, and one exchange with it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::uri::Scheme;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceExt};
use zeroize::Zeroizing;

use crate::destination::is_loopback;
use crate::error::{BoxError, BuildError, Error};

/// The largest answer that is read. Real ones are a few kilobytes.
pub(super) const MAX_BODY: usize = 1 << 20;

/// A checked token URL and the client that reaches it.
pub(super) struct Endpoint {
    uri: Uri,
    client: Arc<dyn TokenClient>,
}

/// An answer as it came, its body within bounds.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    #[cfg(feature = "tower-http")]
    extensions: http::Extensions,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Endpoint {
    pub(super) fn new(
        url: &str,
        allow_http: bool,
        client: Option<Arc<dyn TokenClient>>,
    ) -> Result<Self, BuildError> {
        let bad = |reason| BuildError::TokenUrl { reason };
        // `http::Uri` drops a fragment without a word.
        if url.contains('#') {
            return Err(bad("it has a fragment (RFC 6749 §3.2 forbids one)"));
        }
        let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(bad("it is not an absolute URL"));
        };
        if authority.as_str().contains('@') {
            return Err(bad("it has user-info; give the credentials by ClientAuth"));
        }
        let host = authority.host();
        let https = *scheme == Scheme::HTTPS;
        if !https && *scheme != Scheme::HTTP {
            return Err(bad("its scheme is neither https nor http"));
        }
        if !https && !allow_http && !is_loopback(host) {
            let host = host.to_owned();
            return Err(BuildError::InsecureTokenUrl { host });
        }
        let client = match client {
            Some(client) => client,
            None => default_client(https)?,
        };
        Ok(Self { uri, client })
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn host(&self) -> &str {
        self.uri.host().expect("a checked token URL has a host")
    }

    /// One exchange, without a time limit of its own.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let answer = self.client.send(request).await?;
        if let Some(host) = redirected_to(&answer, &self.uri) {
            return Err(Error::invalid_response(format!(
                "the token client followed a redirect to {host} and may have carried the credentials there"
            ))
            .with_advice("give token_client() a client that does not follow redirects, and change the client secret"));
        }
        Ok(answer)
    }
}

#[cfg(feature = "client")]
fn default_client(https: bool) -> Result<Arc<dyn TokenClient>, BuildError> {
    super::default_client::new(https)
}

#[cfg(not(feature = "client"))]
fn default_client(_: bool) -> Result<Arc<dyn TokenClient>, BuildError> {
    Err(BuildError::TokenClient)
}

/// A token client with its type erased: a box for each attempt.
pub(super) trait TokenClient: Send + Sync {
    fn send(&self, request: Request<Full<Bytes>>) -> Exchange;
}

type Exchange = Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send>>;

/// Where a redirect has led that the token client has followed.
#[cfg(feature = "tower-http")]
fn redirected_to(answer: &Answer, asked: &Uri) -> Option<String> {
    let tower_http::follow_redirect::RequestUri(answered) = answer.extensions.get()?;
    let host = answered.host().unwrap_or("another path");
    (answered != asked).then(|| host.to_owned())
}

#[cfg(not(feature = "tower-http"))]
fn redirected_to(_: &Answer, _: &Uri) -> Option<String> {
    None
}

pub(super) struct ErasedClient<S>(S);

impl<S> ErasedClient<S> {
    pub(super) fn new(client: S) -> Self {
        Self(client)
    }
}

impl<S, B> TokenClient for ErasedClient<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn send(&self, request: Request<Full<Bytes>>) -> Exchange {
        let client = self.0.clone();
        Box::pin(async move {
            let response = client.oneshot(request).await;
            let response = response.map_err(|error| failed(error.into()))?;
            let (parts, body) = response.into_parts();
            let body = match collect(body).await {
                Ok(body) => body,
                // A refusal speaks by its status and `Retry-After`; a body that breaks off or is too large takes nothing from them.
                Err(_) if !parts.status.is_success() => Zeroizing::default(),
                Err(error) => return Err(error),
            };
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                #[cfg(feature = "tower-http")]
                extensions: parts.extensions,
                body,
            })
        })
    }
}

/// An [`Error`] of ours, from a token client that is built of this crate's parts, keeps its class.
fn failed(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => {
            Error::transient("the token endpoint could not be reached").with_source(error)
        }
    }
}

async fn collect<B>(body: B) -> Result<Zeroizing<Vec<u8>>, Error>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut bytes = Zeroizing::new(Vec::new());
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Error::transient("the answer broke off").with_source(error))?;
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.remaining() > MAX_BODY {
            return Err(Error::invalid_response("the answer is larger than 1 MiB"));
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            let read = chunk.len();
            data.advance(read);
        }
    }
    Ok(bytes)
}
