//! What a grant brings back: a token and what the server said about it.

use std::fmt;
use std::time::Duration;

use super::access_token::AccessTokenValue;
use crate::error::Error;

/// A successful answer to a token request (RFC 6749 §5.1).
///
/// A [`TokenSource`](crate::TokenSource) returns it; for a source of your own, or in a test:
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::TokenResponse;
///
/// let response = TokenResponse::new("2YotnFZFEjr1zCsicMWpAA")?.expires_in(Duration::from_secs(3600));
/// assert_eq!(response.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
/// # Ok::<_, tower_oauth::Error>(())
/// ```
///
/// A refresh token in the answer is not kept: a client with its own credentials has no use for one (RFC 6749 §4.4.3).
#[derive(Clone)]
pub struct TokenResponse {
    pub(crate) value: AccessTokenValue,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) refresh_in: Option<Duration>,
    pub(crate) scope: Option<String>,
    pub(crate) lenient: bool,
    /// The credentials have changed since others were refused for them.
    pub(crate) by_new_credentials: bool,
}

impl TokenResponse {
    /// An answer with this access token and nothing else said.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid_response`] when the token is empty or has characters that an `Authorization` header cannot carry.
    pub fn new(access_token: impl Into<String>) -> Result<Self, Error> {
        let access_token = access_token.into();
        let wrong = match access_token.is_empty() {
            true => "the access token is empty",
            false => "the access token has characters that a header cannot carry",
        };
        let value =
            AccessTokenValue::parse(access_token).ok_or_else(|| Error::invalid_response(wrong))?;
        Ok(Self {
            value,
            expires_in: None,
            refresh_in: None,
            scope: None,
            lenient: false,
            by_new_credentials: false,
        })
    }

    /// The token's life, counted from when the token request was sent. Without it, the policy's default lifetime applies.
    #[must_use]
    pub fn expires_in(mut self, life: Duration) -> Self {
        self.expires_in = Some(life);
        self
    }

    /// The server's hint when to renew, counted like [`expires_in`](Self::expires_in).
    #[must_use]
    pub fn refresh_in(mut self, span: Duration) -> Self {
        self.refresh_in = Some(span);
        self
    }

    /// The scope granted, space-separated.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// The token's characters, for a source that wraps another one. Whoever calls this keeps them out of logs.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.value.expose_secret()
    }

    /// The life that the server gave, if it gave one.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        self.expires_in
    }

    /// The scope that the server says it granted, space-separated: first what was asked for of it,
    /// then the rest, of which 4,096 characters are kept.
    #[must_use]
    pub fn granted_scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("expires_in", &self.expires_in)
            .field("refresh_in", &self.refresh_in)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_can_be_read() {
        let bare = TokenResponse::new("t").unwrap();
        assert_eq!((bare.expose_secret(), bare.lifetime()), ("t", None));
        assert_eq!(bare.granted_scope(), None);
        let life = Duration::from_secs(9);
        let full = bare.expires_in(life).scope("a b");
        assert_eq!(full.lifetime(), Some(life));
        assert_eq!(full.granted_scope(), Some("a b"));
    }
}
