//! The seam between the cache and whatever brings a token.
//!
//! Rules: R6.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::attempt::Attempt;
use crate::error::Error;
use crate::guard::guarded;
use crate::params::TokenParams;
use crate::token::{AccessToken, TokenResponse};

/// The future of [`TokenSource::token`].
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<TokenResponse, Error>> + Send + 'a>>;

/// Brings tokens: a grant.
///
/// [`ClientCredentials`](crate::ClientCredentials) is one. Write your own for another grant, for a
/// token service that does not speak OAuth, or for a test:
///
/// ```
/// use tower_oauth::{OAuthLayer, TokenFuture, TokenRequest, TokenResponse, TokenSource};
///
/// struct Fixed;
///
/// impl TokenSource for Fixed {
///     fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
///         Box::pin(async { TokenResponse::new("2YotnFZFEjr1zCsicMWpAA") })
///     }
/// }
///
/// let layer = OAuthLayer::new(Fixed);
/// ```
///
/// The cache makes one call at a time for each set of parameters, within a time limit, and may drop
/// its future. The class of the [`Error`] decides whether the flight tries again and how long the
/// backoff is. A panic in [`token`](Self::token) or [`host`](Self::host), in a future, or while a
/// future is dropped that has not answered, counts as a transient failure.
pub trait TokenSource: Send + Sync + 'static {
    /// Makes one attempt to get a token. Each attempt authenticates anew.
    ///
    /// # Errors
    ///
    /// [`Error::transient`], [`Error::rejected`] or [`Error::invalid_response`], by the table of
    /// [`Error`].
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when [`attempt_timeout`](Self::attempt_timeout) is up, and the next
    /// attempt may start at once. A source that runs a child process must end it when the future is
    /// dropped (tokio's `Command::kill_on_drop`), or several run side by side.
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a>;

    /// The host that errors and events name for these parameters. Default: none.
    fn host(&self, params: &TokenParams) -> Option<&str> {
        let _ = params;
        None
    }

    /// How long one attempt may take, for a source that knows better than the default of
    /// [`CachePolicy::attempt_timeout`](crate::CachePolicy::attempt_timeout): a login plugin that
    /// waits for a person, say. A time that the user has set in the policy overrides it.
    fn attempt_timeout(&self) -> Option<Duration> {
        None
    }

    /// Whether the credentials have changed since the last attempt; `None`, the default, when they
    /// cannot change.
    ///
    /// A source whose credentials are read from somewhere returns a future. It is polled at most
    /// once a second during a backoff; `true` ends the backoff, and no answer within a second
    /// counts as `false`.
    fn credentials_changed(&self) -> Option<Pin<Box<dyn Future<Output = bool> + Send + '_>>> {
        None
    }
}

impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
        (**self).token(request)
    }

    fn host(&self, params: &TokenParams) -> Option<&str> {
        (**self).host(params)
    }

    fn attempt_timeout(&self) -> Option<Duration> {
        (**self).attempt_timeout()
    }

    fn credentials_changed(&self) -> Option<Pin<Box<dyn Future<Output = bool> + Send + '_>>> {
        (**self).credentials_changed()
    }
}

/// What a [`TokenSource`] is asked for, and why.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    params: &'a TokenParams,
    cause: FetchCause,
    attempt: u32,
    refused: Option<&'a AccessToken>,
    /// None where a source is called by hand.
    pub(crate) within: Option<&'a Attempt>,
}

impl<'a> TokenRequest<'a> {
    /// The first attempt for these parameters, as for a cache that holds no token.
    #[must_use]
    pub fn new(params: &'a TokenParams) -> Self {
        Self {
            params,
            cause: FetchCause::NoToken,
            attempt: 1,
            refused: None,
            within: None,
        }
    }

    /// What is asked for.
    #[must_use]
    pub fn params(&self) -> &'a TokenParams {
        self.params
    }

    /// Why the flight was started.
    #[must_use]
    pub fn cause(&self) -> FetchCause {
        self.cause
    }

    /// Counts the attempts of this flight, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The token that an API has refused and that this one is to replace. A source that keeps
    /// tokens of its own must not bring it back.
    #[must_use]
    pub fn refused(&self) -> Option<&'a AccessToken> {
        self.refused
    }

    pub(crate) fn with_cause(mut self, cause: FetchCause, attempt: u32) -> Self {
        self.cause = cause;
        self.attempt = attempt;
        self
    }

    pub(crate) fn with_refused(mut self, refused: Option<&'a AccessToken>) -> Self {
        self.refused = refused;
        self
    }

    pub(crate) fn within(mut self, attempt: &'a Attempt) -> Self {
        self.within = Some(attempt);
        self
    }
}

/// Why a flight was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchCause {
    /// There was no live token.
    NoToken,
    /// The token was stale: a renewal ahead of time, for which nobody waits.
    Ahead,
    /// The token was in its last stretch.
    LastStretch,
    /// An API had refused the token.
    Refused,
    /// The credentials may have changed during a backoff. A token request follows only if they
    /// have.
    Credentials,
}

impl FetchCause {
    /// The name in events and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Ahead => "ahead",
            Self::LastStretch => "last_stretch",
            Self::Refused => "refused",
            Self::Credentials => "credentials",
        }
    }
}

/// A token source whose panics become errors, so that a panic never looks like a lost flight, which
/// would be tried again at once.
///
/// It is the only place where the crate calls the user's [`TokenSource`].
pub(crate) struct Guarded(Arc<dyn TokenSource>);

/// The user's code panicked.
pub(crate) struct Panicked;

impl Guarded {
    pub(crate) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self(source)
    }

    pub(crate) fn token<'a>(
        &'a self,
        request: TokenRequest<'a>,
    ) -> GuardedFuture<'a, Result<TokenResponse, Error>> {
        GuardedFuture(guarded(|| self.0.token(request)))
    }

    pub(crate) fn host(&self, params: &TokenParams) -> Result<Option<&str>, Panicked> {
        guarded(|| self.0.host(params)).ok_or(Panicked)
    }

    pub(crate) fn attempt_timeout(&self) -> Option<Duration> {
        guarded(|| self.0.attempt_timeout()).flatten()
    }

    /// Credentials of which nothing can be learnt are taken for fixed ones.
    pub(crate) fn credentials_changed(&self) -> Option<GuardedFuture<'_, bool>> {
        let changed = guarded(|| self.0.credentials_changed()).flatten()?;
        Some(GuardedFuture(Some(changed)))
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

type UserFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A future of the user's. `None` when it has ended, or when the call that was to make it panicked.
pub(crate) struct GuardedFuture<'a, T>(Option<UserFuture<'a, T>>);

impl<T> GuardedFuture<'_, T> {
    /// Drops the future, whose drop is the user's code too.
    fn end(&mut self) {
        if let Some(future) = self.0.take() {
            guarded(|| drop(future));
        }
    }
}

impl<T> Future for GuardedFuture<'_, T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match &mut self.0 {
            Some(future) => guarded(|| future.as_mut().poll(cx)),
            None => None,
        };
        let output = match polled {
            Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(output)) => Ok(output),
            None => Err(Panicked),
        };
        self.end();
        Poll::Ready(output)
    }
}

impl<T> Drop for GuardedFuture<'_, T> {
    fn drop(&mut self) {
        self.end();
    }
}

impl From<Panicked> for Error {
    /// The panic's message may hold anything, so it is not repeated.
    fn from(_: Panicked) -> Self {
        Self::panicked("the token source panicked").with_advice(
            "look for the panic's own message; it comes from the TokenSource, the token client or \
             the secret provider",
        )
    }
}
