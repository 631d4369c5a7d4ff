//! The token as it is kept and as it is handed out.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::token::AccessTokenValue;
#[cfg(not(model))]
use crate::token::header_of;
use http::{HeaderValue, StatusCode};

use super::lifetime::Schedule;
use super::shared::Cache;
use crate::clock::Timestamp;
use crate::params::TokenParams;

/// One token in the cache, shared by everybody who uses it.
pub(crate) struct Token {
    /// `Bearer …`, made once, marked sensitive; its clones share the bytes.
    header: HeaderValue,
    pub(crate) generation: u64,
    /// The flight that brought it: a later flight's token displaces it, an earlier one's does not.
    pub(crate) flight: u64,
    pub(crate) schedule: Schedule,
    pub(crate) request: TokenParams,
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
        request: TokenParams,
        cache: Weak<Cache>,
        refusals: Arc<[StatusCode]>,
    ) -> Self {
        Self {
            header: value.header().clone(),
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
