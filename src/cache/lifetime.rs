//! The ages of a token, fresh, stale, in its last stretch and expired: a pure function of what the
//! server said.
//!
//! Rules: R10, R11, R13.

use std::time::Duration;

use super::policy::CachePolicy;
use crate::clock::Timestamp;

/// The turning points in the life of one token, fixed when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// When the token request was sent. Life is counted from here: the server starts counting no
    /// earlier.
    pub(crate) sent: Timestamp,
    /// No renewal before this, whatever the server's `expires_in` says, unless an API refuses it.
    pub(crate) rest: Timestamp,
    /// From here on a call starts a renewal and does not wait for it.
    pub(crate) stale: Timestamp,
    /// From here on a call waits a moment for the renewal.
    pub(crate) last_stretch: Timestamp,
    /// From here on the token is not used.
    pub(crate) end: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    Stale,
    LastStretch,
}

impl Lifetime {
    /// `draw` is the jitter of this token and instance, in `0.0..1.0`.
    pub(crate) fn new(
        policy: &CachePolicy,
        sent: Timestamp,
        received: Timestamp,
        expires_in: Option<Duration>,
        refresh_in: Option<Duration>,
        draw: f64,
    ) -> Self {
        let life = expires_in
            .unwrap_or(policy.default_lifetime)
            .min(MAX_LIFETIME);
        // However short the life and however slow the server, a token that has just arrived serves
        // the callers that waited for it. Otherwise an `expires_in` of 0 would make every call a
        // token request.
        let rest = received.after(REST);
        let end = sent.after(life).max(rest);
        let life = end.since(sent);

        let last_stretch = end.before(policy.last_stretch.min(life / 10));
        let ahead = policy.refresh_ahead.min(life / 5);
        let jitter = (ahead / 10).mul_f64(draw.clamp(0.0, 1.0));
        let stale = match refresh_in {
            Some(hint) => sent.after(hint.max(life / 4)),
            None => end.before(ahead),
        };
        Self {
            sent,
            rest,
            stale: stale.after(jitter).min(last_stretch),
            last_stretch,
            end,
        }
    }

    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        now < self.end
    }

    /// Of a token that is live.
    pub(crate) fn freshness(&self, now: Timestamp) -> Freshness {
        if now < self.stale {
            Freshness::Fresh
        } else if now < self.last_stretch {
            Freshness::Stale
        } else {
            Freshness::LastStretch
        }
    }
}

/// A year. A server that says more means "for ever", which cannot be renewed.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The least time from the arrival of a token to its end, and to the next renewal.
const REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    fn lifetime(life: Option<u64>, hint: Option<u64>, spread: f64) -> [u64; 3] {
        let life = life.map(Duration::from_secs);
        let hint = hint.map(Duration::from_secs);
        let plan = Lifetime::new(
            &CachePolicy::default(),
            SENT,
            SENT.after(Duration::from_millis(20)),
            life,
            hint,
            spread,
        );
        [plan.stale, plan.last_stretch, plan.end].map(|t| t.since(SENT).as_secs())
    }

    #[test]
    fn an_hour_is_renewed_five_minutes_ahead_and_used_freely_until_thirty_seconds_before_its_end() {
        assert_eq!(lifetime(Some(3600), None, 0.0), [3300, 3570, 3600]);
    }

    #[test]
    fn each_stretch_of_a_life_begins_at_its_own_moment() {
        let at = |stale, last_stretch| Lifetime {
            sent: SENT,
            rest: SENT,
            stale,
            last_stretch,
            end: SENT.after(Duration::from_secs(9)),
        };
        let later = SENT.after(Duration::from_secs(5));
        assert_eq!(at(later, later).freshness(SENT), Freshness::Fresh);
        assert_eq!(at(SENT, later).freshness(SENT), Freshness::Stale);
        assert_eq!(at(SENT, SENT).freshness(SENT), Freshness::LastStretch);
    }

    #[test]
    fn jitter_takes_at_most_a_tenth_of_the_lead() {
        assert_eq!(lifetime(Some(3600), None, 1.0), [3330, 3570, 3600]);
    }

    #[test]
    fn a_short_life_is_renewed_in_its_last_fifth() {
        assert_eq!(lifetime(Some(100), None, 0.0), [80, 90, 100]);
    }

    #[test]
    fn no_expires_in_means_the_default_lifetime() {
        assert_eq!(lifetime(None, None, 0.0), [240, 270, 300]);
    }

    // K18
    #[test]
    fn the_servers_refresh_in_wins_within_a_quarter_of_the_life_and_the_last_stretch() {
        assert_eq!(lifetime(Some(86_399), Some(43_199), 0.0)[0], 43_199);
        assert!(lifetime(Some(86_399), Some(43_199), 1.0)[0] <= 43_199 + 30);
        assert_eq!(lifetime(Some(86_400), Some(0), 0.0)[0], 21_600);
        assert_eq!(lifetime(Some(3600), Some(99_999), 0.0)[0], 3570);
    }

    #[test]
    fn a_life_of_nothing_is_held_for_a_second_after_it_arrived() {
        assert_eq!(lifetime(Some(0), None, 0.0)[2], 1);
    }

    #[test]
    fn an_absurd_life_is_clamped_to_a_year() {
        let [_, _, end] = lifetime(Some(u64::MAX), Some(u64::MAX), 0.5);
        assert_eq!(end, MAX_LIFETIME.as_secs());
    }
}
