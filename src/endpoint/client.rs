//! The token endpoint: where it is, and one exchange with it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use zeroize::Zeroizing;

use super::attempt;
use super::fields::Fields;
use crate::error::{Asked, BoxError, BuildError, Error, Success};
use crate::origin::{self, Parts};
use crate::params::TokenParams;
use crate::runtime::timer;

/// The largest answer that is read. Real ones are a few kilobytes.
pub(super) const MAX_BODY: usize = 1 << 20;

/// A checked token URL and the client that reaches it.
pub(super) struct Endpoint {
    uri: Uri,
    client: Arc<dyn TokenClient>,
    /// The client is the user's.
    own_client: bool,
}

/// An answer as it came, its body within bounds.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    #[cfg(feature = "tower-http")]
    extensions: http::Extensions,
    /// What has come of it.
    pub(super) body: Zeroizing<Vec<u8>>,
    pub(super) end: End,
}

/// How the reading of a body ended.
pub(super) enum End {
    Whole,
    /// Reset, or shorter than announced.
    Torn(BoxError),
    TooLarge,
    /// It was not waited for, or no longer.
    Late,
}

impl Endpoint {
    pub(super) fn new(
        url: &str,
        allow_http: bool,
        client: Option<Arc<dyn TokenClient>>,
    ) -> Result<Self, BuildError> {
        let bad = |reason: &'static str| BuildError::TokenUrl {
            reason: reason.into(),
        };
        let uri = origin::parse(url).map_err(bad)?;
        // `http::Uri` drops a fragment without a word.
        if url.contains('#') {
            return Err(bad("it has a fragment (RFC 6749 §3.2 forbids one)"));
        }
        let (scheme, authority) = origin::absolute(&uri).map_err(bad)?;
        if authority.as_str().contains('@') {
            return Err(bad("it has user-info; give the credentials by ClientAuth"));
        }
        let parts = Parts::read(scheme, authority).map_err(bad)?;
        parts.check_setting().map_err(bad)?;
        if !parts.is_https() && !allow_http && !parts.is_loopback() {
            return Err(BuildError::insecure_token_url(authority.host()));
        }
        let own_client = client.is_some();
        let client = match client {
            Some(client) => client,
            None => default_client(parts.is_https())?,
        };
        Ok(Self {
            uri,
            client,
            own_client,
        })
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn host(&self) -> &str {
        self.uri.host().expect("a checked token URL has a host")
    }

    /// What was asked, for the advice of an error.
    pub(super) fn asked(&self, request: &TokenParams, client: &'static str, page: bool) -> Asked {
        let authority = self
            .uri
            .authority()
            .map_or("", |authority| authority.as_str());
        let absolute = origin::absolute(&self.uri);
        let parts = absolute.and_then(|(scheme, authority)| Parts::read(scheme, authority));
        Asked {
            https: self.uri.scheme_str() == Some("https"),
            loopback: parts.is_ok_and(|parts| parts.is_loopback()),
            authority: authority.to_owned(),
            path: self.uri.path().to_owned(),
            own_client: self.own_client,
            scope: request.scopes().collect::<Vec<_>>().join(" "),
            client,
            page,
        }
    }

    /// One exchange, without a time limit of its own.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let answer = self.client.send(request).await?;
        if let Some(host) = redirected_to(&answer, &self.uri) {
            let what = format!(
                "the token client followed a redirect to {host} and may have carried the credentials there"
            );
            return Err(Error::of_success(Success::Foreign, answer.status, what)
            .with_advice("give token_client() a client that does not follow redirects, and change the client secret"));
        }
        Ok(answer)
    }
}

impl Answer {
    /// Whether its body is something that no token endpoint sends: a page of a firewall or a proxy.
    pub(super) fn is_page(&self) -> bool {
        let body = self.body.trim_ascii_start();
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        !body.is_empty() && !body.starts_with(b"{") && Fields::parse(body).is_err()
    }
}

#[cfg(feature = "client")]
fn default_client(https: bool) -> Result<Arc<dyn TokenClient>, BuildError> {
    Ok(if https {
        Arc::new(ErasedClient::new(crate::client::https()?))
    } else {
        Arc::new(ErasedClient::new(crate::client::http()))
    })
}

#[cfg(not(feature = "client"))]
fn default_client(_: bool) -> Result<Arc<dyn TokenClient>, BuildError> {
    Err(BuildError::NO_TOKEN_CLIENT)
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
            attempt::reads_the_body();
            let mut bytes = Zeroizing::default();
            let end = match parts.status {
                // They have no body (RFC 9110 §15.3.5, §15.3.6), and what decides below 200 and
                // from 300 on is the status.
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => End::Late,
                status if status.is_success() => collect(body, &mut bytes).await,
                status if status.is_client_error() || status.is_server_error() => {
                    let reading = collect(body, &mut bytes);
                    briefly(reading).await.unwrap_or(End::Late)
                }
                _ => End::Late,
            };
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                #[cfg(feature = "tower-http")]
                extensions: parts.extensions,
                body: bytes,
                end,
            })
        })
    }
}

/// An [`Error`] of ours, from a token client that is built of this crate's parts, keeps its class.
fn failed(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::no_answer(error),
    }
}

/// Reads into `bytes`, which keeps what has come when the reading is given up.
async fn collect<B>(body: B, bytes: &mut Zeroizing<Vec<u8>>) -> End
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(MAX_BODY);
    reserve(bytes, expected.min(MAX_BODY));
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return End::Torn(error.into()),
        };
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.remaining() > MAX_BODY {
            return End::TooLarge;
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            reserve(bytes, chunk.len());
            bytes.extend_from_slice(chunk);
            let read = chunk.len();
            data.advance(read);
        }
    }
    End::Whole
}

/// Makes room for so many bytes more, without leaving a copy of what there is in freed memory.
fn reserve(bytes: &mut Zeroizing<Vec<u8>>, more: usize) {
    let needed = bytes.len() + more;
    if needed > bytes.capacity() {
        let size = needed.max(2 * bytes.capacity());
        let mut larger = Zeroizing::new(Vec::with_capacity(size));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
}

/// Waits for the body of an answer whose head says enough by itself: a server that stalls here must
/// not turn a refusal into a timeout.
async fn briefly<T>(reading: impl Future<Output = T>) -> Option<T> {
    let mut reading = std::pin::pin!(reading);
    if let Some(read) = reading.as_mut().now_or_never() {
        return Some(read);
    }
    // A source may be called by hand, on another executor or on a runtime without timers.
    let Some(limit) = timer(Instant::now() + longest_wait()) else {
        return Some(reading.await);
    };
    match select(reading, std::pin::pin!(limit)).await {
        Either::Left((read, _)) => Some(read),
        Either::Right(_) => None,
    }
}

/// Never all that the attempt has left, so that it ends with what the head says and not by its own
/// time limit.
fn longest_wait() -> Duration {
    attempt::time_left().map_or(BODY_OF_A_REFUSAL, |left| {
        BODY_OF_A_REFUSAL.min(left - MARGIN.min(left / 2))
    })
}

/// What an attempt needs to end by itself.
const MARGIN: Duration = Duration::from_millis(100);

/// How long an error code in the body of a refusal is waited for.
const BODY_OF_A_REFUSAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn a_body_of_known_length_is_read_into_memory_of_that_length() {
        let mut bytes = Zeroizing::default();
        let end = collect(Full::new(Bytes::from(vec![1; 5000])), &mut bytes).await;
        assert!(matches!(end, End::Whole));
        assert_eq!((bytes.len(), bytes.capacity()), (5000, 5000));
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        let pieces: Vec<_> = (0..100u8).map(|n| vec![n; 1 + usize::from(n)]).collect();
        let frames = pieces
            .clone()
            .into_iter()
            .map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from(piece))));
        let mut bytes = Zeroizing::default();
        let end = collect(StreamBody::new(stream::iter(frames)), &mut bytes).await;
        assert!(matches!(end, End::Whole));
        assert_eq!(*bytes, pieces.concat());
    }
}
