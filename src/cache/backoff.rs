//! How long a failure keeps us away: pure arithmetic.

use std::time::Duration;

use super::policy::RefreshPolicy;
use crate::error::Error;
use crate::token::Timestamp;

/// The failure in force for an endpoint or a key.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    pub(crate) error: Error,
    since: Timestamp,
    /// Failures in a row, this one included.
    streak: u32,
    /// The random part, in `0.0..1.0`, drawn once.
    spread: f64,
    /// Ended early on purpose: the next attempt may start at once, but the next failure is still one more in a row.
    ended: bool,
}

impl Backoff {
    /// The backoff after one more failure of a flight that started at `started`.
    ///
    /// Flights that were already under way when the last failure came belong to the same outage: sixty-four that fail
    /// together are one step, not sixty-four.
    pub(crate) fn after(
        previous: Option<&Self>,
        error: Error,
        started: Timestamp,
        now: Timestamp,
        spread: f64,
    ) -> Self {
        let streak = match previous {
            Some(previous) if started < previous.since => previous.streak,
            Some(previous) => previous.streak.saturating_add(1),
            None => 1,
        };
        Self {
            error,
            since: now,
            streak,
            spread: spread.clamp(0.0, 1.0),
            ended: false,
        }
    }

    /// When the next attempt may start. It depends on whether a live token is left *now*, so that a token's end shortens a wait
    /// that was chosen while it lived.
    pub(crate) fn until(&self, policy: &RefreshPolicy, live: bool) -> Timestamp {
        if self.ended {
            return Timestamp::ZERO;
        }
        let steps = policy.steps(self.error.class());
        // The random part is as large as the step, so half of the longest is left to the step.
        let longest = steps.longest.get(live) / 2;
        let doublings = (self.streak - 1).min(31);
        let step = steps.first.saturating_mul(1 << doublings).min(longest);
        let random = step.mul_f64(self.spread);
        let asked = self
            .error
            .server_retry_after()
            .map_or(Duration::ZERO, |span| {
                span.min(policy.retry_after_cap.get(live))
            });
        self.since.after(step.max(asked) + random)
    }

    /// Whether a success of a flight that started at `started` shows that the failure is over.
    pub(crate) fn is_over(&self, started: Timestamp) -> bool {
        started >= self.since
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    fn wait(error: &Error, failures: u32, spread: f64, live: bool) -> f64 {
        let mut backoff: Option<Backoff> = None;
        for _ in 0..failures {
            backoff = Some(Backoff::after(
                backoff.as_ref(),
                error.clone(),
                NOW,
                NOW,
                spread,
            ));
        }
        let until = backoff.unwrap().until(&RefreshPolicy::default(), live);
        until.since(NOW).as_secs_f64()
    }

    #[test]
    fn transient_steps_double_from_one_second_to_fifteen_without_a_live_token_and_sixty_with_one() {
        let error = Error::transient("down");
        let steps = |live, spread| [1, 2, 3, 4, 5, 9].map(|n| wait(&error, n, spread, live));
        assert_eq!(steps(false, 0.0), [1.0, 2.0, 4.0, 7.5, 7.5, 7.5]);
        assert_eq!(steps(false, 1.0), [2.0, 4.0, 8.0, 15.0, 15.0, 15.0]);
        assert_eq!(steps(true, 0.0), [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]);
        assert_eq!(steps(true, 1.0)[5], 60.0);
    }

    #[test]
    fn rejected_steps_double_from_five_seconds_to_a_minute_and_to_five_with_a_live_token() {
        let error = Error::rejected("invalid_client", "refused");
        assert_eq!(
            [1, 2, 9].map(|n| wait(&error, n, 0.0, false)),
            [5.0, 10.0, 30.0]
        );
        assert_eq!(wait(&error, 9, 1.0, false), 60.0);
        assert_eq!(wait(&error, 99, 1.0, true), 300.0);
    }

    // K19
    #[test]
    fn retry_after_is_a_floor_with_jitter_on_top_and_is_capped() {
        let asked = |span| Error::transient("busy").with_retry_after(Duration::from_secs(span));
        assert_eq!(wait(&asked(7), 1, 0.0, false), 7.0);
        assert_eq!(wait(&asked(7), 1, 1.0, false), 8.0);
        assert_eq!(wait(&asked(99_999_999), 1, 0.0, false), 300.0);
        assert_eq!(wait(&asked(99_999_999), 1, 0.0, true), 3600.0);
        assert_eq!(wait(&asked(0), 1, 0.0, false), 1.0);
    }

    // K34
    #[test]
    fn flights_of_one_outage_that_fail_together_are_one_step() {
        let error = Error::transient("down");
        let first = Backoff::after(
            None,
            error.clone(),
            NOW,
            NOW.after(Duration::from_secs(1)),
            0.0,
        );
        let second = Backoff::after(
            Some(&first),
            error,
            NOW,
            NOW.after(Duration::from_secs(2)),
            0.0,
        );
        assert_eq!(second.streak, 1);
    }
}
