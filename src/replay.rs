//! Whether a request can be sent a second time after a 401.

use http::{Request, Response};
use http_body::Body;

/// Makes the copy of a body that is sent again when the API refuses the token.
///
/// The copy is made before the request goes out, since the first one is used up by then; so an implementation should be
/// cheap, and say `None` for a body it cannot or should not copy. The layer and its services clone the hook with themselves, so it
/// must be `Clone`. Closures implement it:
///
/// ```no_run
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use tower_oauth::OAuthLayer;
///
/// let layer = OAuthLayer::client_credentials("https://gw.example/oauth2/v1/token", "key", "secret")
///     .build()?
///     .replay_with(|body: &Full<Bytes>| Some(body.clone()));
/// # Ok::<_, tower_oauth::BuildError>(())
/// ```
pub trait ReplayBody<B> {
    /// A second body like `body`, or `None` when there can be none.
    fn copy(&self, body: &B) -> Option<B>;
}

/// Requests are sent once; a 401 is the caller's to see, and makes the next request renew the token. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReplay;

/// Replays every request by cloning its body; from [`replay_unauthorized`](crate::OAuthLayer::replay_unauthorized).
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

/// Replays requests without a body, for body types that cannot be cloned but have a default, such as a stream that may be empty.
///
/// A body counts as empty when it says so at once ([`Body::is_end_stream`]); the second one is `B::default()`.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyBody;

impl<B> ReplayBody<B> for NoReplay {
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

impl<B: Body + Default> ReplayBody<B> for EmptyBody {
    fn copy(&self, body: &B) -> Option<B> {
        body.is_end_stream().then(B::default)
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

/// In the extensions of a response whose request was sent twice.
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
