//! The layer: what its clones and services share, and whether requests are replayed.
//!
//! Rules: R21.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::cache::TokenCache;
use crate::params::TokenParams;
use crate::replay::CloneBody;
use crate::service::{OAuth, Shared};

/// Wraps HTTP client services so that each request carries an access token. See the crate's page.
///
/// Clones share one token cache, and so do all the services they make: clone the layer for each
/// client that calls the same gateway.
///
/// `R` says whether a request is sent again after a 401, see
/// [`replay_unauthorized`](Self::replay_unauthorized). With `()`, the default, none is.
///
/// # Ordering
///
/// Innermost, next to the HTTP client, with retry, timeout, limits and redirects outside. The page
/// [`docs::ordering`](crate::docs::ordering) says why, and what happens otherwise.
#[derive(Clone)]
#[must_use]
pub struct OAuthLayer<R = ()> {
    shared: Arc<Shared>,
    replay: R,
}

impl OAuthLayer {
    pub(crate) fn from_shared(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            replay: (),
        }
    }
}

impl<R> OAuthLayer<R> {
    /// Sends a request again, once, when the API refuses its token and a new one can be had.
    ///
    /// Each request is cloned before it is sent, headers and all: that is the price, and the reason
    /// why the body must be `Clone`. A request is not sent again when the renewed token is the
    /// refused one, or when this API has spent the renewals that its 401s may cause. If renewing
    /// fails, or the inner service does not become ready again, the 401 is returned. It is withheld
    /// until the renewal ends, for at most the time that one flight may take, or two where nobody
    /// drives the first. The answer to a second request has [`Replayed`](crate::Replayed) in its
    /// extensions.
    ///
    /// Use it only for APIs where a request that was answered with 401 has had no effect, as
    /// RFC 9110 §15.5.2 leads one to expect.
    pub fn replay_unauthorized(self) -> OAuthLayer<CloneBody> {
        self.replay_with(CloneBody)
    }

    /// Like [`replay_unauthorized`](Self::replay_unauthorized), for bodies that cannot be cloned,
    /// or only sometimes: the hook makes the second body. It is a
    /// [`ReplayBody`](crate::ReplayBody) for the body type in use, and `Clone`.
    pub fn replay_with<H>(self, hook: H) -> OAuthLayer<H> {
        OAuthLayer {
            shared: self.shared,
            replay: hook,
        }
    }

    /// The token cache: to warm it up, to look at it, or to get a token from it.
    #[must_use]
    pub fn token_cache(&self) -> TokenCache {
        TokenCache::new(Arc::clone(&self.shared.cache))
    }

    /// The parameters of this layer's token requests: a start for [`TokenParams`] that ask for
    /// more.
    #[must_use]
    pub fn params(&self) -> &TokenParams {
        self.shared.cache.own()
    }
}

impl<S, R: Clone> Layer<S> for OAuthLayer<R> {
    type Service = OAuth<S, R>;

    fn layer(&self, inner: S) -> OAuth<S, R> {
        OAuth::new(inner, Arc::clone(&self.shared), self.replay.clone())
    }
}

impl<R> fmt::Debug for OAuthLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthLayer")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
