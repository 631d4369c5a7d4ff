//! What a grant brings back: a token and what the server said about it.
//!
//! Rules: R24, R27.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;

/// A successful answer to a token request (RFC 6749 §5.1).
///
/// A [`TokenSource`](crate::TokenSource) returns it; for a source of your own, or in a test:
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::TokenResponse;
///
/// let hour = Duration::from_secs(3600);
/// let response = TokenResponse::new("2YotnFZFEjr1zCsicMWpAA")?.with_expires_in(hour);
/// assert_eq!(response.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
/// # Ok::<_, tower_oauth::Error>(())
/// ```
///
/// A refresh token in the answer is not kept: a client with its own credentials has no use for one
/// (RFC 6749 §4.4.3).
#[derive(Clone)]
pub struct TokenResponse {
    pub(crate) value: AccessTokenValue,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) refresh_in: Option<Duration>,
    pub(crate) scope: Option<String>,
    /// The credentials have changed since others were refused for them.
    pub(crate) by_new_credentials: bool,
}

impl TokenResponse {
    /// A response that holds only this access token.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid_response`] when the token is empty or has characters that an
    /// `Authorization` header cannot carry.
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
            by_new_credentials: false,
        })
    }

    /// The token's life, counted from when the token request was sent. Without it, the policy's
    /// default lifetime applies.
    #[must_use]
    pub fn with_expires_in(mut self, life: Duration) -> Self {
        self.expires_in = Some(life);
        self
    }

    /// The server's hint when to renew, counted like [`expires_in`](Self::with_expires_in).
    #[must_use]
    pub fn with_refresh_in(mut self, span: Duration) -> Self {
        self.refresh_in = Some(span);
        self
    }

    /// The scope granted, space-separated.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// The token's characters, for a source that wraps another one. Whoever calls this keeps them
    /// out of logs.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.value.expose_secret()
    }

    /// The life that the server gave, if it gave one.
    #[must_use]
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// The scope that the server says it granted, space-separated: first what was asked for of it,
    /// then the rest, of which 4,096 characters are kept.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
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

/// A token's characters, already in the shape of the header that carries them.
#[derive(Clone)]
pub(crate) struct AccessTokenValue(HeaderValue);

impl AccessTokenValue {
    /// The whole value, `Bearer …`.
    pub(crate) fn header(&self) -> &HeaderValue {
        &self.0
    }

    /// `None` when the value is empty or has a character that RFC 6750 §2.1 and a header field
    /// cannot carry: white space, controls, anything outside ASCII. `|`, `:` and the like, which
    /// real servers issue, pass.
    pub(crate) fn parse(mut value: String) -> Option<Self> {
        let usable = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
        let header = usable.then(|| header_of(&[SCHEME, value.as_bytes()]));
        value.zeroize();
        header.flatten().map(Self)
    }

    pub(crate) fn expose_secret(&self) -> &str {
        characters(&self.0)
    }
}

/// The token's characters in a header value made of them.
fn characters(header: &HeaderValue) -> &str {
    std::str::from_utf8(&header.as_bytes()[SCHEME.len()..])
        .expect("an access token is visible ASCII, checked when it was parsed")
}

/// The same value in memory of its own.
#[cfg_attr(
    model,
    expect(dead_code, reason = "the model has one place for all threads")
)]
pub(crate) fn copy_header(header: &HeaderValue) -> HeaderValue {
    header_of(&[header.as_bytes()]).expect("a header value was made of these bytes before")
}

/// Marked sensitive. The bytes are wiped when the last header value that shares them is dropped.
fn header_of(parts: &[&[u8]]) -> Option<HeaderValue> {
    // Made in its full size, since growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        parts.iter().map(|part| part.len()).sum(),
    ));
    for part in parts {
        bytes.extend_from_slice(part);
    }
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
    header.set_sensitive(true);
    Some(header)
}

const SCHEME: &[u8] = b"Bearer ";

/// A live access token, for a caller who needs it outside of this layer.
///
/// [`TokenCache::token`](crate::TokenCache::token) returns it. Its `Debug` shows no character of
/// the token, and there is no `Display`.
#[derive(Clone)]
pub struct AccessToken {
    header: HeaderValue,
    generation: u64,
    remaining: Duration,
}

impl AccessToken {
    pub(crate) fn new(header: HeaderValue, generation: u64, remaining: Duration) -> Self {
        Self {
            header,
            generation,
            remaining,
        }
    }

    /// The value for an `Authorization` header, `Bearer …`, marked sensitive.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.header.clone()
    }

    /// The token's characters. Keep them out of logs.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        characters(&self.header)
    }

    /// Tells the tokens of a layer apart, over all parameters: that of a later flight has a higher
    /// generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How long the token was good for when it was handed out.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.remaining
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("generation", &self.generation)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_can_be_read() {
        let bare = TokenResponse::new("t").unwrap();
        assert_eq!((bare.expose_secret(), bare.expires_in()), ("t", None));
        assert_eq!(bare.scope(), None);
        let life = Duration::from_secs(9);
        let full = bare.with_expires_in(life).with_scope("a b");
        assert_eq!(full.expires_in(), Some(life));
        assert_eq!(full.scope(), Some("a b"));
    }
}
