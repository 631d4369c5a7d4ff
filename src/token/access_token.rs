//! The token as it is kept and as it is handed out.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use zeroize::{Zeroize, Zeroizing};

use super::{Schedule, Timestamp};
use crate::cache::Cache;
use crate::grant::TokenRequest;

/// One token in the cache, shared by everybody who uses it.
pub(crate) struct Token {
    /// `Bearer …`, made once, marked sensitive; its clones share the bytes.
    header: HeaderValue,
    pub(crate) generation: u64,
    /// The flight that brought it: a later flight's token displaces it, an earlier one's does not.
    pub(crate) flight: u64,
    pub(crate) schedule: Schedule,
    pub(crate) request: TokenRequest,
    /// The cache a 401 is reported to. Weak, since the cache holds the token.
    pub(crate) cache: Weak<Cache>,
    /// Statuses besides 401 that mean it was refused.
    pub(crate) refusals: Arc<[StatusCode]>,
    /// Until when this token may be used without asking the state machine, in nanoseconds of the boot clock.
    ///
    /// Written under the lock of the state machine only. Read without it: a reader that misses the newest value acts as if
    /// its call had come a moment earlier, which is why `Relaxed` is enough. Shared by the copies of a token.
    free_until: Arc<AtomicU64>,
}

impl Token {
    pub(crate) fn new(
        value: &AccessTokenValue,
        generation: u64,
        flight: u64,
        schedule: Schedule,
        request: TokenRequest,
        cache: Weak<Cache>,
        refusals: Arc<[StatusCode]>,
    ) -> Self {
        Self {
            header: value.0.clone(),
            generation,
            flight,
            schedule,
            request,
            cache,
            refusals,
            free_until: Arc::default(),
        }
    }

    /// The same token in memory of its own, for threads that would otherwise contend for its reference counts.
    #[cfg(not(model))]
    pub(crate) fn copy(&self) -> Self {
        Self {
            header: header_of(&[self.header.as_bytes()])
                .expect("a header value was made of these bytes before"),
            generation: self.generation,
            flight: self.flight,
            schedule: self.schedule,
            request: self.request.clone(),
            cache: Weak::clone(&self.cache),
            refusals: Arc::clone(&self.refusals),
            free_until: Arc::clone(&self.free_until),
        }
    }

    pub(crate) fn header(&self) -> &HeaderValue {
        &self.header
    }

    pub(crate) fn live(&self, now: Timestamp) -> bool {
        now < self.schedule.end
    }

    #[inline]
    pub(crate) fn is_free(&self, now: Timestamp) -> bool {
        now.as_nanos() < self.free_until.load(Ordering::Relaxed)
    }

    pub(crate) fn set_free_until(&self, until: Timestamp) {
        self.free_until.store(until.as_nanos(), Ordering::Relaxed);
    }

    pub(crate) fn same_value(&self, other: &Self) -> bool {
        self.header == other.header
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("generation", &self.generation)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

/// A token's characters, already in the shape of the header that carries them.
#[derive(Clone)]
pub(crate) struct AccessTokenValue(HeaderValue);

impl AccessTokenValue {
    /// `None` when the value is empty or has a character that RFC 6750 §2.1 and a header field cannot carry: white space,
    /// controls, anything outside ASCII. `|`, `:` and the like, which real servers issue, pass.
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
/// Got from [`TokenCache::token`](crate::TokenCache::token). `Debug` shows no character of it, and there is no `Display`.
#[derive(Clone)]
pub struct AccessToken {
    token: Arc<Token>,
    remaining: Duration,
}

impl AccessToken {
    pub(crate) fn new(token: Arc<Token>, now: Timestamp) -> Self {
        let remaining = token.schedule.end.since(now);
        Self { token, remaining }
    }

    /// The value for an `Authorization` header, `Bearer …`, marked sensitive.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.token.header.clone()
    }

    /// The token's characters. Whoever calls this keeps them out of logs.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        characters(&self.token.header)
    }

    /// Numbers the tokens of a layer as they come, over all kinds: a renewal has a higher generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.token.generation
    }

    /// How long it was good for when it was handed out.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.remaining
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("generation", &self.generation())
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}
