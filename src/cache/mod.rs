//! The token cache as users see it, [`TokenCache`], and the rooms behind it.
//!
//! | file | what it is | rules |
//! |---|---|---|
//! | `flight` | a flight's task, its attempts and limits; the future of a waiting call | R6–R9 |
//! | `shell` | the lock around the machine, and what is told and published | R5, R8 |
//! | `machine` | what a call may do now, and what an event changes: pure | R5, R12, R13, R15–R18 |
//! | `waiters` | who waits for a flight, and its outcome | R8 |
//! | `current` | the layer's own token as readers see it without a lock | R4 |
//! | `entries` | what is held for each set of parameters, within bounds | R13 |
//! | `lifetime` | the ages of a token | R10, R11, R13 |
//! | `backoff` | how long a failure keeps us away; renewals that 401s cause | R15, R16, R20 |
//! | `turns` | which flights may make token requests | R15 |
//! | `policy` | the numbers that a user may change | |

mod backoff;
pub(crate) mod current;
mod entries;
mod flight;
mod lifetime;
mod machine;
#[cfg(all(test, model))]
#[path = "tests/model.rs"]
mod model;
mod policy;
mod shell;
mod turns;
mod waiters;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::flight::{Wait, at_once, wait};
pub use self::machine::CacheStatus;
pub(crate) use self::machine::Refusal;
pub use self::policy::CachePolicy;
pub(crate) use self::shell::{Cache, CacheConfig};
use crate::error::Error;
use crate::params::TokenParams;
use crate::token::AccessToken;

/// A handle on the tokens of a layer, for start-up checks, operations and clients that are not
/// tower services.
///
/// [`OAuthLayer::token_cache`](crate::OAuthLayer::token_cache) returns it. Clones, and the layer
/// with all its clones, share one cache. The handle is for the layer's own parameters;
/// [`with_params`](Self::with_params) returns one for others.
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
    params: TokenParams,
}

impl TokenCache {
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        let params = cache.own().clone();
        Self { cache, params }
    }

    /// A handle on the token for other parameters in the same cache.
    #[must_use]
    pub fn with_params(&self, params: TokenParams) -> Self {
        Self {
            cache: Arc::clone(&self.cache),
            params,
        }
    }

    /// Returns a live token, from the cache or from a flight that this call joins or starts.
    ///
    /// # Errors
    ///
    /// The [`Error`] of the flight, or, during a backoff, the stored one at once. Also when there
    /// is no live token and no tokio runtime with timers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up waiting. The flight goes on and its token is kept.
    pub async fn token(&self) -> Result<AccessToken, Error> {
        let wait = wait(Arc::clone(&self.cache), self.params.clone(), None);
        let token = wait.await?;
        Ok(token.access_token(self.cache.clock.now()))
    }

    /// Like [`token`](Self::token), but ends a backoff first, so that the next attempt starts now.
    /// With a fresh token it sends nothing.
    ///
    /// For start-up, and for an operator who does not want to wait. The backoff of the client is
    /// shared, so it ends for all parameters. A probe that comes every few seconds should read
    /// [`status`](Self::status) instead: while there is no token, each call here is a flight, and
    /// the token endpoint would be asked at the pace of the probe during an outage.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token), but never a stored error.
    ///
    /// # Cancel safety
    ///
    /// As [`token`](Self::token).
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.cache
            .update(|machine| machine.end_backoff(&self.params));
        self.token().await.map(drop)
    }

    /// Forgets the token and ends a backoff, as [`warm_up`](Self::warm_up) does: the next call
    /// fetches.
    ///
    /// A flight under way is not stopped, and its token is kept. Not needed after a 401, which does
    /// less: it makes only the token that was refused suspect.
    pub fn invalidate(&self) {
        self.cache.update(|machine| machine.forget(&self.params));
    }

    /// A snapshot of the cache, for health endpoints and metrics. It takes one lock for a few lines
    /// and does no I/O.
    #[must_use]
    pub fn status(&self) -> CacheStatus {
        self.cache.status(&self.params)
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("params", &self.params)
            .field("status", &self.status())
            .finish()
    }
}
