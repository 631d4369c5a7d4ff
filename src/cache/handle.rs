//! The cache as users see it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::shared::Cache;
use super::wait::Wait;
use crate::error::Error;
use crate::params::TokenParams;
use crate::token::AccessToken;

/// A handle on the tokens of a layer, for start-up checks, operations and clients that are not tower services.
///
/// Got from [`OAuthLayer::token_cache`](crate::OAuthLayer::token_cache). Clones, and the layer with all its clones, share one cache. It speaks of the layer's
/// own kind of token; [`with_params`](Self::with_params) gives a handle on another kind.
///
/// ```no_run
/// # async fn ready(layer: tower_oauth::OAuthLayer) -> Result<(), tower_oauth::Error> {
/// // At start-up, so that the first request does not wait and a wrong secret shows at once:
/// layer.token_cache().warm_up().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenCache {
    cache: Arc<Cache>,
    request: TokenParams,
}

impl TokenCache {
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        let request = cache.own().clone();
        Self { cache, request }
    }

    /// A handle on another kind of token in the same cache.
    #[must_use]
    pub fn with_params(&self, request: TokenParams) -> Self {
        Self {
            cache: Arc::clone(&self.cache),
            request,
        }
    }

    /// A live token, from the cache or from a flight that this call joins or starts.
    ///
    /// # Errors
    ///
    /// The [`Error`] of the flight, or, during backoff, the stored one at once. Also when there is no live token and
    /// no tokio runtime with timers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up waiting. The flight goes on and its token is kept.
    pub async fn token(&self) -> Result<AccessToken, Error> {
        let wait = Wait::new(Arc::clone(&self.cache), self.request.clone());
        let token = wait.await?;
        let remaining = token.schedule.end.since(self.cache.clock.now());
        let header = token.header().clone();
        Ok(AccessToken::new(header, token.generation, remaining))
    }

    /// Like [`token`](Self::token), but ends a backoff first, so that the next attempt starts now. With a fresh token it sends nothing.
    ///
    /// For start-up, and for an operator who does not want to wait. The backoff of the endpoint is shared, so it ends for every kind of token.
    /// A probe that comes every few seconds should read [`status`](Self::status) instead: while there is no token, each call here
    /// is a flight, and the token endpoint of an outage would be asked at the pace of the probe.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token), but of a flight of now and not the stored one.
    ///
    /// # Cancel safety
    ///
    /// As [`token`](Self::token).
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.cache.end_backoff(&self.request);
        self.token().await.map(drop)
    }

    /// Forgets the token and ends a backoff, as [`warm_up`](Self::warm_up) does: the next call fetches.
    ///
    /// A flight under way is not stopped, and its token is kept. Not needed after a 401, which does less: it makes only the
    /// token that was refused suspect.
    pub fn invalidate(&self) {
        self.cache.forget(&self.request);
    }

    /// How things stand now. One lock for a few lines, no I/O; meant for health endpoints and metrics.
    #[must_use]
    pub fn status(&self) -> CacheStatus {
        let token_requests = self.cache.attempts.load(Ordering::Relaxed);
        self.cache.look(|state, now| {
            let token = state.token(&self.request).filter(|token| token.live(now));
            let backoff = state.backoff(&self.request, now);
            CacheStatus {
                generation: token.map(|token| token.generation),
                age: token.map(|token| now.since(token.schedule.sent)),
                remaining: token.map(|token| token.schedule.end.since(now)),
                suspect: state.is_suspect(&self.request),
                fetching: state.is_fetching(&self.request),
                next_attempt_in: backoff.as_ref().map(|(_, wait)| *wait),
                last_error: state.last_error(&self.request).cloned(),
                entries: state.len(),
                token_requests,
            }
        })
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("request", &self.request)
            .field("status", &self.status())
            .finish()
    }
}

/// A snapshot of the cache, from [`TokenCache::status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheStatus {
    /// The generation of the live token; `None` when there is none.
    pub generation: Option<u64>,
    /// How long ago its token request was sent.
    pub age: Option<Duration>,
    /// How long it is still good for.
    pub remaining: Option<Duration>,
    /// An API refused it, and it has not been renewed yet.
    pub suspect: bool,
    /// A flight is under way.
    pub fetching: bool,
    /// During backoff, the time until the next attempt may start; `None` when one may start now.
    pub next_attempt_in: Option<Duration>,
    /// Why the last flight failed: one for this kind of token, or for another if the failure speaks for the endpoint. `None` after a
    /// success.
    pub last_error: Option<Error>,
    /// Kinds of token in the cache, the layer's own included.
    pub entries: usize,
    /// Token requests sent so far, over all kinds of token: each attempt counts.
    pub token_requests: u64,
}

impl CacheStatus {
    /// Whether there is a live token, or one may be fetched now: what a readiness probe wants to know.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.generation.is_some() || self.next_attempt_in.is_none()
    }
}
