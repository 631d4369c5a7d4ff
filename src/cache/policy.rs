//! The numbers of the cache that a user may change, with their defaults.
//!
//! Rules: R9, R10, R11.

use std::time::Duration;

use crate::error::BuildError;

/// When tokens are renewed, and how long a fetch may take.
///
/// | setting | default | meaning |
/// |---|---|---|
/// | [`refresh_ahead`](Self::refresh_ahead) | 5 min | renewal begins this long before the end |
/// | [`last_stretch`](Self::last_stretch) | 30 s | callers wait a moment for the renewal |
/// | [`default_lifetime`](Self::default_lifetime) | 5 min | life without `expires_in` |
/// | [`attempts`](Self::attempts) | 3 | token requests in one flight |
/// | [`attempt_timeout`](Self::attempt_timeout) | 10 s | time limit of each of them |
/// | [`max_entries`](Self::max_entries) | 1,000 | sets of parameters kept at once |
///
/// Everything else is fixed, and [`docs::rules`](crate::docs::rules) says how: the backoff (R15),
/// the renewals that 401s may cause (R20), and how many token requests run at once (64).
#[derive(Clone, Debug)]
pub struct CachePolicy {
    pub(crate) refresh_ahead: Duration,
    pub(crate) last_stretch: Duration,
    pub(crate) default_lifetime: Duration,
    pub(crate) attempts: u32,
    attempt_timeout: Option<Duration>,
    pub(crate) max_entries: usize,
    pub(crate) max_flights: usize,
    speed: u32,
}

impl CachePolicy {
    /// The defaults of the table above.
    #[must_use]
    pub fn new() -> Self {
        Self {
            refresh_ahead: Duration::from_secs(300),
            last_stretch: Duration::from_secs(30),
            default_lifetime: Duration::from_secs(300),
            attempts: 3,
            attempt_timeout: None,
            max_entries: 1_000,
            max_flights: 64,
            speed: 1,
        }
    }

    /// How long before a token's end its renewal begins. Default 5 min; never more than a fifth of
    /// the life, so that a short token is not renewed all the time. Jitter takes off up to a tenth.
    #[must_use]
    pub fn refresh_ahead(mut self, span: Duration) -> Self {
        self.refresh_ahead = span;
        self
    }

    /// The last part of a token's life, in which callers wait for the renewal: up to 1 s, or a
    /// quarter of what remains if that is less. Default 30 s; never more than a tenth of the life.
    /// It covers clocks that differ and requests that travel slowly.
    #[must_use]
    pub fn last_stretch(mut self, span: Duration) -> Self {
        self.last_stretch = span;
        self
    }

    /// The life of a token whose answer has no `expires_in` (which RFC 6749 §5.1 only recommends).
    /// Default 5 min.
    #[must_use]
    pub fn default_lifetime(mut self, span: Duration) -> Self {
        self.default_lifetime = span;
        self
    }

    /// How many token requests one flight makes while the failure may pass. Default 3; at least 1.
    /// For a token client that retries by itself, set 1.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The time limit of one token request. Default 10 s, or what the
    /// [source](crate::TokenSource::attempt_timeout) says.
    ///
    /// A flight as a whole may take this long for each of its [`attempts`](Self::attempts), 30 s by
    /// default, and so may a call that has to wait for its token.
    #[must_use]
    pub fn attempt_timeout(mut self, span: Duration) -> Self {
        self.attempt_timeout = Some(span);
        self
    }

    /// How many sets of parameters (scope, audience, resource) are kept. Default 1,000; the layer's
    /// own and those being fetched come on top.
    #[must_use]
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// Makes backoffs, 401 budgets and the wait for a renewal so many times shorter, for tests in
    /// real time.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn sped_up(mut self, times: u32) -> Self {
        self.speed = times.max(1);
        self
    }

    /// For the tests of this crate.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    #[must_use]
    pub fn max_flights(mut self, flights: usize) -> Self {
        self.max_flights = flights;
        self
    }

    /// Takes what the source says where the user says nothing.
    pub(crate) fn or_attempt_timeout(mut self, span: Option<Duration>) -> Self {
        self.attempt_timeout = self.attempt_timeout.or(span);
        self
    }

    /// The time limit of one attempt.
    pub(crate) fn attempt_limit(&self) -> Duration {
        let limit = self.attempt_timeout.unwrap_or(ATTEMPT_TIMEOUT);
        limit.clamp(Duration::from_millis(1), LONGEST_FLIGHT)
    }

    /// The time limit of a flight.
    pub(crate) fn flight_limit(&self) -> Duration {
        let limit = self.attempt_limit().saturating_mul(self.attempts);
        limit.min(LONGEST_FLIGHT)
    }

    /// A fixed time, divided by `sped_up`.
    pub(crate) fn scaled(&self, span: Duration) -> Duration {
        span / self.speed
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let reason = if self.attempts == 0 {
            "attempts is 0, so no token could be fetched"
        } else if self.attempt_timeout.is_some_and(|span| span.is_zero()) {
            "an attempt_timeout of 0 lets no token request finish"
        } else if self.max_entries == 0 {
            "max_entries is 0, so no token could be kept"
        } else {
            return Ok(());
        };
        Err(BuildError::Policy { reason })
    }
}

impl Default for CachePolicy {
    fn default() -> Self {
        Self::new()
    }
}

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Far above any use. A deadline further away would be past the end of the clock.
const LONGEST_FLIGHT: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_lets_no_token_come_is_an_error() {
        for policy in [
            CachePolicy::new().attempts(0),
            CachePolicy::new().attempt_timeout(Duration::ZERO),
            CachePolicy::new().max_entries(0),
        ] {
            let error = policy.check().expect_err("a setting that makes no sense");
            assert!(matches!(error, BuildError::Policy { .. }), "{policy:?}");
        }
        assert!(CachePolicy::new().check().is_ok());
    }

    // FC18, R9
    #[test]
    fn a_flight_has_time_for_all_its_attempts() {
        let secs = Duration::from_secs;
        let new = CachePolicy::new;
        for (policy, attempt, flight) in [
            (new(), 10, 30),
            (new().attempts(1), 10, 10),
            (new().attempt_timeout(secs(60)), 60, 180),
            (new().attempts(5).attempt_timeout(secs(6)), 6, 30),
            (new().or_attempt_timeout(Some(secs(40))), 40, 120),
            (
                new()
                    .attempt_timeout(secs(5))
                    .or_attempt_timeout(Some(secs(40))),
                5,
                15,
            ),
            (new().attempts(u32::MAX), 10, 24 * 3600),
        ] {
            assert_eq!(policy.attempt_limit(), secs(attempt), "{policy:?}");
            assert_eq!(policy.flight_limit(), secs(flight), "{policy:?}");
        }
        let zero = new().or_attempt_timeout(Some(Duration::ZERO));
        assert!(!zero.flight_limit().is_zero(), "a source that says 0");
    }
}
