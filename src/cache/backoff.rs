//! How long a failure keeps us away: pure arithmetic.

use std::time::Duration;

use super::policy::CachePolicy;
use crate::clock::Timestamp;
use crate::error::{Class, Error};

/// The failure in force for an endpoint or a key.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    pub(crate) error: Error,
    /// Failures in a row that back off by the same steps, this one included. Others start over:
    /// what an outage has taught says nothing of a rejection that comes when it is over.
    streak: u32,
    transient: bool,
    /// The last flight that was launched before this failure came.
    last_flight: u64,
    without_token: Timestamp,
    with_token: Timestamp,
}

impl Backoff {
    /// The backoff after one more failure, of `flight`, when `last_flight` is the last that was launched.
    ///
    /// Flights that were already under way when the last failure came belong to the same outage: sixty-four that fail
    /// together are one step, not sixty-four. No failure shortens what is left of an earlier one, so a `Retry-After` that one of
    /// them was given holds whatever the others say.
    ///
    /// `spread` is the random part, in `0.0..1.0`, drawn once.
    pub(crate) fn after(
        policy: &CachePolicy,
        previous: Option<&Self>,
        error: &Error,
        flight: u64,
        last_flight: u64,
        now: Timestamp,
        spread: f64,
    ) -> Self {
        let transient = error.is_transient();
        let streak = match previous.filter(|previous| previous.transient == transient) {
            Some(previous) if flight <= previous.last_flight => previous.streak,
            Some(previous) => previous.streak.saturating_add(1),
            None => 1,
        };
        let until = |live| now.after(wait(policy, error, streak, live, spread));
        let next = Self {
            error: error.clone(),
            streak,
            transient,
            last_flight,
            without_token: until(false),
            with_token: until(true),
        };
        match previous {
            Some(previous) => next.or_longer(previous),
            None => next,
        }
    }

    fn or_longer(mut self, other: &Self) -> Self {
        if other.without_token > self.without_token {
            self.error = other.error.clone();
        }
        self.without_token = self.without_token.max(other.without_token);
        self.with_token = self.with_token.max(other.with_token);
        self
    }

    /// When the next attempt may start. It depends on whether a live token is left *now*, so that a token's end shortens a wait
    /// that was chosen while it lived.
    pub(crate) fn until(&self, live: bool) -> Timestamp {
        if live {
            self.with_token
        } else {
            self.without_token
        }
    }

    /// Whether a success of `flight` shows that the failure is over.
    pub(crate) fn is_over(&self, flight: u64) -> bool {
        flight > self.last_flight
    }

    /// Ends it early, on purpose: the next attempt may start at once, but the next failure is still one more in a row.
    pub(crate) fn end(&mut self) {
        self.without_token = Timestamp::ZERO;
        self.with_token = Timestamp::ZERO;
    }
}

/// What keeps flights from starting, and until when.
pub(super) struct Failing {
    pub(super) until: Timestamp,
    pub(super) error: Error,
}

/// What a caller without a token is told.
pub(super) fn no_attempt(failing: Option<Failing>, wait: Duration) -> Error {
    match failing {
        Some(failing) => failing.error.during_backoff(wait),
        // A token is held for at least as long as the rest after its arrival, so a caller without a token is never told to
        // rest; kept total rather than panicking on it.
        None => {
            Error::transient("the last token arrived less than a second ago").during_backoff(wait)
        }
    }
}

fn wait(policy: &CachePolicy, error: &Error, streak: u32, live: bool, spread: f64) -> Duration {
    let [first, without_token, with_token] = match error.class() {
        Class::Transient => TRANSIENT,
        Class::Rejected | Class::InvalidResponse | Class::Destination => REJECTED,
    };
    let [longest, cap] = match live {
        false => [without_token, RETRY_AFTER_CAP[0]],
        true => [with_token, RETRY_AFTER_CAP[1]],
    };
    let doublings = (streak - 1).min(31);
    let step = policy.paced(secs(first)).saturating_mul(1 << doublings);
    // The random part is as large as the step, so half of the longest is left to the step.
    let step = step.min(policy.paced(secs(longest)) / 2);
    let asked = error.server_retry_after().unwrap_or_default();
    let asked = asked.min(policy.paced(secs(cap)));
    let random = step.mul_f64(spread.clamp(0.0, 1.0));
    step.max(asked).saturating_add(random)
}

/// In seconds: the first step, the longest without a live token, the longest with one.
const TRANSIENT: [u64; 3] = [1, 15, 60];
const REJECTED: [u64; 3] = [5, 60, 300];

/// How long a `Retry-After` is honoured, in seconds: without a live token, with one.
const RETRY_AFTER_CAP: [u64; 2] = [300, 3600];

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    /// The backoff after so many failures, each of a flight launched after the one before.
    fn after(error: &Error, failures: u64, spread: f64) -> Backoff {
        let policy = CachePolicy::default();
        let next = |previous: Option<Backoff>, flight| {
            let previous = previous.as_ref();
            Some(Backoff::after(
                &policy, previous, error, flight, flight, NOW, spread,
            ))
        };
        (1..=failures).fold(None, next).unwrap()
    }

    fn wait(error: &Error, failures: u64, spread: f64, live: bool) -> f64 {
        let until = after(error, failures, spread).until(live);
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

    // R15
    #[test]
    fn the_first_rejection_after_an_outage_starts_with_its_own_first_step() {
        let policy = CachePolicy::default();
        let down = Error::transient("down");
        let mut backoff = after(&down, 6, 0.0);
        let mut next = |now: Timestamp, error: &Error, flight| {
            backoff = Backoff::after(&policy, Some(&backoff), error, flight, flight, now, 0.0);
            backoff.until(false).since(now).as_secs_f64()
        };
        let rejected = Error::rejected("invalid_client", "refused");
        let later = |seconds| NOW.after(Duration::from_secs(seconds));
        assert_eq!(next(later(60), &rejected, 7), 5.0);
        assert_eq!(next(later(120), &rejected, 8), 10.0);
        assert_eq!(next(later(180), &down, 9), 1.0);
    }

    // K34
    #[test]
    fn flights_of_one_outage_that_fail_together_are_one_step() {
        let policy = CachePolicy::default();
        let error = Error::transient("down");
        let mut backoff = None;
        for flight in 1..=64 {
            let previous = backoff.as_ref();
            backoff = Some(Backoff::after(
                &policy, previous, &error, flight, 64, NOW, 0.0,
            ));
        }
        let backoff = backoff.unwrap();
        assert_eq!(backoff.streak, 1);
        assert_eq!(backoff.until(false).since(NOW), Duration::from_secs(1));
    }

    // K22
    #[test]
    fn a_retry_after_holds_whatever_the_other_flights_of_the_outage_were_told() {
        let policy = CachePolicy::default();
        let after = |previous, error: &Error, flight| {
            Backoff::after(&policy, previous, error, flight, 2, NOW, 0.0)
        };
        let asked = Error::transient("busy").with_retry_after(Duration::from_secs(60));
        let told = after(None, &asked, 1);
        let both = after(Some(&told), &Error::transient("down"), 2);
        assert_eq!(both.until(false).since(NOW), Duration::from_secs(60));
        assert_eq!(both.error.server_retry_after(), asked.server_retry_after());

        let mut ended = told.clone();
        ended.end();
        let next = after(Some(&ended), &Error::transient("down"), 2);
        assert_eq!(next.until(false).since(NOW), Duration::from_secs(1));
    }
}
