//! Every number of the cache that a user may change, with its default.

use std::time::Duration;

use crate::error::{BuildError, Class};

/// When tokens are renewed, how long a fetch may take, and how failures back off.
///
/// | setting | default | meaning |
/// |---|---|---|
/// | [`refresh_ahead`](Self::refresh_ahead) | 5 min | renewal begins this long before the end, or a fifth of the life if that is less; jitter takes off up to a tenth of it |
/// | [`last_stretch`](Self::last_stretch) | 30 s | from here to the end (or a tenth of the life if that is less) callers wait a moment for the renewal |
/// | [`renewal_wait`](Self::renewal_wait) | 1 s | the longest such wait, or a quarter of what remains if that is less |
/// | [`default_lifetime`](Self::default_lifetime) | 5 min | the life of a token whose answer has no `expires_in` |
/// | [`attempts`](Self::attempts) | 3 | token requests in one flight, while the failure is one that may pass |
/// | [`attempt_timeout`](Self::attempt_timeout) | 10 s, or what the flight has time for | for each of them |
/// | [`flight_timeout`](Self::flight_timeout) | 30 s | for the flight as a whole |
/// | [`transient_backoff`](Self::transient_backoff) | 1 s, 15 s, 60 s | first step, longest without a live token, longest with one |
/// | [`rejected_backoff`](Self::rejected_backoff) | 5 s, 60 s, 5 min | the same after a rejection or an invalid response |
/// | [`retry_after_cap`](Self::retry_after_cap) | 5 min, 1 h | how long a `Retry-After` is honoured without a live token, and with one |
/// | [`refusal_budget`](Self::refusal_budget) | 3, 30 s | renewals that 401s may cause, per kind of token and origin, and the time one takes to come back |
/// | [`max_entries`](Self::max_entries) | 1,000 | kinds of token kept at once |
/// | [`max_flights`](Self::max_flights) | 64 | token requests at once, over all kinds |
///
/// Backoff steps double; a random part as large as the step is added, and the sum stays within the longest.
#[derive(Clone, Debug)]
pub struct CachePolicy {
    pub(crate) refresh_ahead: Duration,
    pub(crate) last_stretch: Duration,
    pub(crate) renewal_wait: Duration,
    pub(crate) default_lifetime: Duration,
    pub(crate) attempts: u32,
    attempt_timeout: Option<Duration>,
    pub(crate) flight_timeout: Duration,
    pub(crate) transient: Steps,
    pub(crate) rejected: Steps,
    pub(crate) retry_after_cap: Caps,
    pub(crate) refusal_budget: u32,
    pub(crate) refusal_interval: Duration,
    pub(crate) max_entries: usize,
    pub(crate) max_flights: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    pub(crate) first: Duration,
    pub(crate) longest: Caps,
}

impl Steps {
    /// Whether some step is none at all. Half of the longest is its random part, which may be nothing.
    fn is_none(&self) -> bool {
        let steps = [
            self.first,
            self.longest.without_token / 2,
            self.longest.with_token / 2,
        ];
        steps.iter().any(Duration::is_zero)
    }
}

/// An upper bound that depends on whether there is something to live on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    without_token: Duration,
    with_token: Duration,
}

impl Caps {
    pub(crate) fn get(self, live: bool) -> Duration {
        if live {
            self.with_token
        } else {
            self.without_token
        }
    }
}

impl CachePolicy {
    /// The defaults of the table above.
    #[must_use]
    pub fn new() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            refresh_ahead: minutes(5),
            last_stretch: Duration::from_secs(30),
            renewal_wait: Duration::from_secs(1),
            default_lifetime: minutes(5),
            attempts: 3,
            attempt_timeout: None,
            flight_timeout: Duration::from_secs(30),
            transient: Steps {
                first: Duration::from_secs(1),
                longest: Caps {
                    without_token: Duration::from_secs(15),
                    with_token: Duration::from_secs(60),
                },
            },
            rejected: Steps {
                first: Duration::from_secs(5),
                longest: Caps {
                    without_token: Duration::from_secs(60),
                    with_token: minutes(5),
                },
            },
            retry_after_cap: Caps {
                without_token: minutes(5),
                with_token: minutes(60),
            },
            refusal_budget: 3,
            refusal_interval: Duration::from_secs(30),
            max_entries: 1_000,
            max_flights: 64,
        }
    }

    /// How long before a token's end its renewal begins. Default 5 min; never more than a fifth of the life, so that a short
    /// token is not renewed all the time.
    #[must_use]
    pub fn refresh_ahead(mut self, span: Duration) -> Self {
        self.refresh_ahead = span;
        self
    }

    /// The last part of a token's life, in which callers wait for the renewal. Default 30 s; never more than a tenth of the
    /// life. It covers clocks that differ and requests that travel slowly.
    #[must_use]
    pub fn last_stretch(mut self, span: Duration) -> Self {
        self.last_stretch = span;
        self
    }

    /// How long a caller with a live token waits for the renewal, at most. Default 1 s; never more than a quarter of the
    /// token's remaining life.
    #[must_use]
    pub fn renewal_wait(mut self, span: Duration) -> Self {
        self.renewal_wait = span;
        self
    }

    /// The life of a token whose answer has no `expires_in` (which RFC 6749 §5.1 only recommends). Default 5 min.
    #[must_use]
    pub fn default_lifetime(mut self, span: Duration) -> Self {
        self.default_lifetime = span;
        self
    }

    /// Token requests in one flight, while the failure is one that may pass. Default 3; at least 1.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The time limit of one token request.
    ///
    /// Default 10 s, or less where the flight has no time for so long an attempt: never more than
    /// [`flight_timeout`](Self::flight_timeout), and with more than three
    /// [`attempts`](Self::attempts) an equal part of it, or 1 s if that is more. One that is set here and
    /// is longer than the flight is a [`BuildError::Policy`].
    #[must_use]
    pub fn attempt_timeout(mut self, span: Duration) -> Self {
        self.attempt_timeout = Some(span);
        self
    }

    /// The time limit of a flight, all its attempts and the pauses between them. Default 30 s; at
    /// most a day.
    ///
    /// A shorter one shortens the default of [`attempt_timeout`](Self::attempt_timeout) too.
    #[must_use]
    pub fn flight_timeout(mut self, span: Duration) -> Self {
        self.flight_timeout = span;
        self
    }

    /// The backoff after a transient failure: first step 1 s, longest 15 s while there is no live token, 60 s while there
    /// is one.
    #[must_use]
    pub fn transient_backoff(
        mut self,
        first: Duration,
        without_token: Duration,
        with_token: Duration,
    ) -> Self {
        self.transient = Steps {
            first,
            longest: Caps {
                without_token,
                with_token,
            },
        };
        self
    }

    /// The backoff after a rejection or an invalid response: first step 5 s, longest 60 s while there is no live token,
    /// 5 min while there is one.
    #[must_use]
    pub fn rejected_backoff(
        mut self,
        first: Duration,
        without_token: Duration,
        with_token: Duration,
    ) -> Self {
        self.rejected = Steps {
            first,
            longest: Caps {
                without_token,
                with_token,
            },
        };
        self
    }

    /// How long a server's `Retry-After` is honoured: 5 min while there is no live token, 1 h while there is one.
    #[must_use]
    pub fn retry_after_cap(mut self, without_token: Duration, with_token: Duration) -> Self {
        self.retry_after_cap = Caps {
            without_token,
            with_token,
        };
        self
    }

    /// How many renewals the 401s of one origin may cause (default 3), and how long one takes to come back (default 30 s,
    /// doubling up to 10 min while renewed tokens are refused too). With 0 no 401 causes a renewal.
    #[must_use]
    pub fn refusal_budget(mut self, renewals: u32, interval: Duration) -> Self {
        self.refusal_budget = renewals;
        self.refusal_interval = interval;
        self
    }

    /// How many kinds of token (scope, audience, resource, parameters) are kept. Default 1,000; the layer's own and what is being fetched
    /// come on top.
    #[must_use]
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// Token requests at once, over all kinds of token. Default 64; others queue.
    #[must_use]
    pub fn max_flights(mut self, flights: usize) -> Self {
        self.max_flights = flights;
        self
    }

    /// The time limit of one attempt, set or by default.
    pub(crate) fn attempt_limit(&self) -> Duration {
        self.attempt_timeout.unwrap_or_else(|| {
            // Three attempts of the default length fill the default flight; who asks for more of
            // them wants all to have their chance.
            let share = match self.attempts {
                0..=3 => self.flight_timeout,
                attempts => (self.flight_timeout / attempts).max(SHORTEST_ATTEMPT),
            };
            DEFAULT_ATTEMPT.min(share).min(self.flight_timeout)
        })
    }

    pub(crate) fn steps(&self, class: Class) -> Steps {
        match class {
            Class::Transient => self.transient,
            Class::Rejected | Class::InvalidResponse | Class::Destination => self.rejected,
        }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let reason = if self.attempts == 0 {
            "attempts is 0, so no token could be fetched"
        } else if self.attempt_limit().is_zero() || self.flight_timeout.is_zero() {
            "a time limit of 0 lets no token request finish"
        } else if self.attempt_limit() > self.flight_timeout {
            "attempt_timeout is longer than flight_timeout, which would cut it short; raise \
             flight_timeout to at least as much, or lower attempt_timeout"
        } else if self.flight_timeout > LONGEST_LIMIT {
            "flight_timeout is longer than a day"
        } else if self.refusal_interval.is_zero() {
            "a refusal_budget that comes back at once would renew once per 401"
        } else if self.max_flights == 0 || self.max_entries == 0 {
            "max_flights or max_entries is 0, so no token could be kept"
        } else if self.max_flights > MAX_FLIGHTS {
            "max_flights is larger than a million"
        } else if self.transient.is_none() || self.rejected.is_none() {
            "a backoff of 0 would ask the token endpoint once per call"
        } else {
            return Ok(());
        };
        Err(BuildError::Policy { reason })
    }
}

const DEFAULT_ATTEMPT: Duration = Duration::from_secs(10);

/// An attempt by default is never shorter than this, however many of them are to fit.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(1);

/// Far above any use. A deadline further away would be past the end of the clock.
const LONGEST_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Far above any use.
const MAX_FLIGHTS: usize = 1_000_000;

impl Default for CachePolicy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_lets_no_token_come_is_refused() {
        let (zero, second) = (Duration::ZERO, Duration::from_secs(1));
        let new = CachePolicy::new;
        for policy in [
            new().attempts(0),
            new().attempt_timeout(zero),
            new().attempt_timeout(Duration::from_secs(31)),
            new().flight_timeout(zero),
            new().flight_timeout(Duration::MAX),
            new().refusal_budget(3, zero),
            new().max_flights(0),
            new().max_flights(usize::MAX),
            new().max_entries(0),
            new().transient_backoff(second, Duration::from_nanos(1), second),
            new().rejected_backoff(second, second, Duration::from_nanos(1)),
        ] {
            let error = policy.check().expect_err("a setting that makes no sense");
            assert!(matches!(error, BuildError::Policy { .. }), "{policy:?}");
        }
        let largest = new()
            .flight_timeout(24 * 3600 * second)
            .attempt_timeout(24 * 3600 * second)
            .max_flights(1_000_000);
        for policy in [new(), largest] {
            assert!(policy.check().is_ok(), "{policy:?}");
        }
    }

    #[test]
    fn each_setting_is_kept_beside_the_others() {
        let secs = Duration::from_secs;
        let policy = CachePolicy::new()
            .refresh_ahead(secs(1))
            .last_stretch(secs(2))
            .renewal_wait(secs(3))
            .default_lifetime(secs(4))
            .attempts(5)
            .attempt_timeout(secs(6))
            .flight_timeout(secs(7))
            .transient_backoff(secs(8), secs(9), secs(10))
            .rejected_backoff(secs(11), secs(12), secs(13))
            .retry_after_cap(secs(14), secs(15))
            .refusal_budget(16, secs(17))
            .max_entries(18)
            .max_flights(19);
        let shown = format!("{policy:?}");
        let numbers = shown.split(|c: char| !c.is_ascii_digit());
        let numbers: Vec<u32> = numbers.filter_map(|number| number.parse().ok()).collect();
        assert_eq!(numbers, (1..=19).collect::<Vec<_>>(), "{shown}");
    }

    // FC18, R9
    #[test]
    fn the_default_attempt_is_as_long_as_its_flight_has_time_for() {
        let secs = Duration::from_secs;
        let new = CachePolicy::new;
        for (policy, limit) in [
            (new(), 10),
            (new().attempts(1), 10),
            (new().flight_timeout(secs(5)), 5),
            (new().flight_timeout(secs(60)), 10),
            (new().attempts(5), 6),
            (new().attempts(1000), 1),
            (new().attempts(u32::MAX), 1),
            (new().attempts(5).attempt_timeout(secs(10)), 10),
            (new().attempt_timeout(secs(30)), 30),
            (new().attempt_timeout(secs(60)).flight_timeout(secs(60)), 60),
        ] {
            assert!(policy.check().is_ok(), "{policy:?}");
            assert_eq!(policy.attempt_limit(), secs(limit), "{policy:?}");
        }
        let error = new().attempt_timeout(secs(60)).check().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("raise flight_timeout"), "{text}");
    }
}
