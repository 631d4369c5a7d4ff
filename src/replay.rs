//! Whether a request can be sent a second time after a 401.
//!
//! Rules: R21.

use http::{Request, Response};

/// Makes the body that is sent again when the API refuses the token.
///
/// It is made before the request goes out, since that uses up the first body. So an implementation
/// should be cheap, and return `None` for a body it cannot or should not copy. The layer and its
/// services clone the hook along with themselves, so it must be `Clone`. Closures implement it.
/// This one replays only requests without a body, for body types such as streams, which cannot be
/// cloned:
///
/// ```no_run
/// use http_body::Body;
/// use tower_oauth::OAuthLayer;
///
/// # type Stream = http_body_util::Full<bytes::Bytes>;
/// let url = "https://gw.example/oauth2/v1/token";
/// let layer = OAuthLayer::client_credentials(url, "key", "secret")
///     .build()?
///     .replay_with(|body: &Stream| body.is_end_stream().then(Stream::default));
/// # Ok::<_, tower_oauth::BuildError>(())
/// ```
pub trait ReplayBody<B> {
    /// A second body like `body`, or `None` when there can be none.
    fn copy(&self, body: &B) -> Option<B>;
}

/// Replays every request by cloning its body: see
/// [`replay_unauthorized`](crate::OAuthLayer::replay_unauthorized).
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

/// Sends each request once: the caller sees the 401, and the next request renews the token.
impl<B> ReplayBody<B> for () {
    #[inline]
    fn copy(&self, _: &B) -> Option<B> {
        None
    }
}

impl<B: Clone> ReplayBody<B> for CloneBody {
    fn copy(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

impl<B, F> ReplayBody<B> for F
where
    F: Fn(&B) -> Option<B>,
{
    fn copy(&self, body: &B) -> Option<B> {
        self(body)
    }
}

/// A second request like the first.
pub(crate) fn copy<B>(hook: &impl ReplayBody<B>, request: &Request<B>) -> Option<Request<B>> {
    let mut copy = Request::new(hook.copy(request.body())?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Marks a response, in its extensions, whose request was sent twice.
///
/// ```
/// # fn show(response: http::Response<()>) {
/// let replayed = response.extensions().get::<tower_oauth::Replayed>().is_some();
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed;

pub(crate) fn mark<B>(response: &mut Response<B>) {
    response.extensions_mut().insert(Replayed);
}
