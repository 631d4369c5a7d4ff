//! The seam between the cache and whatever brings a token.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use super::TokenRequest;
use crate::error::Error;
use crate::token::TokenResponse;

/// The future of [`TokenSource::token`].
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<TokenResponse, Error>> + Send + 'a>>;

/// Brings tokens: a grant.
///
/// [`ClientCredentials`](super::ClientCredentials) is one. Write your own for another grant, for a token service that does not speak OAuth, or for
/// a test:
///
/// ```
/// use tower_oauth::{Error, OAuthLayer, TokenRequest, TokenResponse, TokenFuture, TokenSource};
///
/// struct Fixed;
///
/// impl TokenSource for Fixed {
///     fn token<'a>(&'a self, _: &'a TokenRequest) -> TokenFuture<'a> {
///         Box::pin(async { TokenResponse::new("2YotnFZFEjr1zCsicMWpAA") })
///     }
/// }
///
/// let layer = OAuthLayer::new(Fixed);
/// ```
///
/// The cache calls it at most once at a time for each kind of token, inside a time limit, and may drop its future. What class of [`Error`] it
/// returns decides whether the same flight tries again and how long the backoff is. A panic in any of
/// its methods, or in the drop of its futures, is a failure like any other.
pub trait TokenSource: Send + Sync + 'static {
    /// One attempt to get a token of this kind. Each attempt authenticates anew.
    ///
    /// # Errors
    ///
    /// [`Error::transient`], [`Error::rejected`] or [`Error::invalid_response`], by the table of [`Error`].
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when its time is up, by default after 10 s
    /// ([`RefreshPolicy::attempt_timeout`](crate::RefreshPolicy::attempt_timeout)), and the next
    /// attempt may start at once. So a source that runs a child process must end it when the future
    /// is dropped (tokio's `Command::kill_on_drop`), or several run beside each other; one that
    /// takes longer than 10 s, such as a login plugin, needs a longer `attempt_timeout`, and a
    /// `flight_timeout` of at least that.
    fn token<'a>(&'a self, request: &'a TokenRequest) -> TokenFuture<'a>;

    /// The host that errors and events name. Default: none.
    fn endpoint(&self) -> Option<&str> {
        None
    }

    /// Whether the credentials are read from somewhere and so may change while a backoff is on. Default: no.
    fn credentials_can_change(&self) -> bool {
        false
    }

    /// Whether the credentials have changed since the last attempt. Asked at most once a second, during backoff, if
    /// [`credentials_can_change`](Self::credentials_can_change); `true` ends the backoff. No answer within a second counts as `false`.
    fn credentials_changed(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(ready(false))
    }
}

impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    fn token<'a>(&'a self, request: &'a TokenRequest) -> TokenFuture<'a> {
        (**self).token(request)
    }

    fn endpoint(&self) -> Option<&str> {
        (**self).endpoint()
    }

    fn credentials_can_change(&self) -> bool {
        (**self).credentials_can_change()
    }

    fn credentials_changed(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        (**self).credentials_changed()
    }
}
