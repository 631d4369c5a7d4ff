//! How long a failure keeps us away, and how many renewals the 401s of one
//! origin may cause: pure arithmetic.
//!
//! Rules: R15, R16, R20.

use std::time::Duration;

use super::policy::CachePolicy;
use crate::clock::Timestamp;
use crate::error::{Class, Error};

/// The failure in force for a client or for one set of parameters.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    pub(super) error: Error,
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
    /// The backoff after one more failure, that of `flight`, when `last_flight` is the last that
    /// was launched.
    ///
    /// Flights that were under way when the last failure came belong to the same outage: sixty-four
    /// that fail together are one step. No failure shortens what is left of an earlier one, so a
    /// `Retry-After` that one of them was given holds whatever the others say.
    ///
    /// `draw` is the random part, in `0.0..1.0`.
    pub(super) fn after(
        policy: &CachePolicy,
        previous: Option<&Self>,
        error: &Error,
        flight: u64,
        last_flight: u64,
        now: Timestamp,
        draw: f64,
    ) -> Self {
        let transient = error.is_transient();
        let streak = match previous.filter(|previous| previous.transient == transient) {
            Some(previous) if flight <= previous.last_flight => previous.streak,
            Some(previous) => previous.streak.saturating_add(1),
            None => 1,
        };
        let until = |live| now.after(wait(policy, error, streak, live, draw));
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

    /// When the next attempt may start. It depends on whether a live token is left *now*, so the
    /// end of a token shortens a wait that was chosen while it lived.
    pub(super) fn until(&self, live: bool) -> Timestamp {
        if live {
            self.with_token
        } else {
            self.without_token
        }
    }

    /// Whether a success of `flight` shows that the failure is over.
    pub(super) fn is_over(&self, flight: u64) -> bool {
        flight > self.last_flight
    }

    /// Ends it early, on purpose. The next attempt may start at once, but the next failure is still
    /// one more in a row.
    pub(super) fn end(&mut self) {
        self.without_token = Timestamp::ZERO;
        self.with_token = Timestamp::ZERO;
    }
}

fn wait(policy: &CachePolicy, error: &Error, streak: u32, live: bool, draw: f64) -> Duration {
    let [first, without_token, with_token] = match error.class() {
        Class::Transient => TRANSIENT,
        Class::Rejected | Class::InvalidResponse | Class::Destination => REJECTED,
    };
    let (longest, cap) = if live {
        (with_token, RETRY_AFTER_CAP[1])
    } else {
        (without_token, RETRY_AFTER_CAP[0])
    };
    let [first, longest, cap] = [first, longest, cap].map(|secs| policy.scaled(secs));
    let doublings = (streak - 1).min(31);
    // The random part is as large as the step, so half of the longest is left to the step.
    let step = first.saturating_mul(1 << doublings).min(longest / 2);
    let asked = error.server_retry_after().unwrap_or_default().min(cap);
    let random = step.mul_f64(draw.clamp(0.0, 1.0));
    step.max(asked).saturating_add(random)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The first step, the longest without a live token, the longest with one.
const TRANSIENT: [Duration; 3] = [secs(1), secs(15), secs(60)];
const REJECTED: [Duration; 3] = [secs(5), secs(60), secs(300)];

/// How long a `Retry-After` is honoured: without a live token, with one.
const RETRY_AFTER_CAP: [Duration; 2] = [secs(300), secs(3600)];

/// The renewals that 401s may still cause for one set of parameters, by the origin that answers.
#[derive(Debug, Default)]
pub(super) struct Budgets(Vec<(u64, Budget)>);

impl Budgets {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of(&mut self, policy: &CachePolicy, origin: u64, now: Timestamp) -> &mut Budget {
        let known = self.0.iter().position(|(other, _)| *other == origin);
        let place = known.unwrap_or_else(|| {
            let budget = (origin, Budget::new(policy, now));
            if self.0.len() < MAX_BUDGETS {
                self.0.push(budget);
                return self.0.len() - 1;
            }
            let mut budgets = self.0.iter_mut();
            match budgets.position(|(_, known)| known.is_new(policy, now)) {
                Some(spare) => {
                    self.0[spare] = budget;
                    spare
                }
                // All are being spent. A budget for each newcomer would be no bound at all, so it
                // shares one.
                None => (origin % MAX_BUDGETS as u64) as usize,
            }
        });
        &mut self.0[place].1
    }
}

/// A bucket of renewals, so that an API which answers 401 for ever cannot make us storm the token
/// endpoint, and spends nobody's budget but its own.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    interval: Duration,
    /// When the next one began to come back.
    since: Timestamp,
    /// One was taken since the bucket was new.
    begun: bool,
    told: bool,
}

impl Budget {
    fn new(policy: &CachePolicy, now: Timestamp) -> Self {
        Self {
            left: RENEWALS,
            interval: policy.scaled(INTERVAL),
            since: now,
            begun: false,
            told: false,
        }
    }

    /// Takes one renewal, if there is one.
    ///
    /// Each but the first follows a renewal that did not help, or not for long, so they come less
    /// and less often.
    pub(super) fn take(&mut self, policy: &CachePolicy, now: Timestamp) -> bool {
        self.refill(policy, now);
        if self.left == 0 {
            return false;
        }
        if self.left == RENEWALS {
            self.since = now;
        }
        if self.begun {
            self.interval = (self.interval * 2).min(policy.scaled(LONGEST_INTERVAL));
        }
        self.begun = true;
        self.left -= 1;
        self.told = false;
        true
    }

    /// Whether this is the first time it is found empty since something was taken.
    pub(super) fn tell_once(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// Whether it says no more than a new one would.
    fn is_new(&mut self, policy: &CachePolicy, now: Timestamp) -> bool {
        self.refill(policy, now);
        !self.begun
    }

    /// A bucket that has been full for as long as one more would have taken is a new one.
    fn refill(&mut self, policy: &CachePolicy, now: Timestamp) {
        let interval = self.interval.max(Duration::from_nanos(1));
        let back = now.since(self.since).as_nanos() / interval.as_nanos();
        let missing = RENEWALS - self.left;
        match u32::try_from(back) {
            Ok(back) if back <= missing => {
                self.left += back;
                self.since = self.since.after(interval * back);
            }
            _ => *self = Self::new(policy, now),
        }
    }
}

const RENEWALS: u32 = 3;

/// How long a renewal takes to come back. It doubles while renewed tokens are refused too.
const INTERVAL: Duration = secs(30);

const LONGEST_INTERVAL: Duration = secs(600);

/// Origins whose 401s are remembered for each set of parameters.
const MAX_BUDGETS: usize = 64;

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

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn one_comes_back_after_thirty_seconds_and_no_earlier() {
        let policy = CachePolicy::default();
        for (again, left) in [(29, 1), (30, 2), (59, 2), (60, 2)] {
            let mut budget = Budget::new(&policy, at(0));
            assert!(budget.take(&policy, at(0)));
            assert!(budget.take(&policy, at(again)));
            assert_eq!(budget.left, left, "{again}");
        }
    }

    #[test]
    fn three_at_once_then_the_interval_doubles_to_ten_minutes_until_it_stays_full() {
        let policy = CachePolicy::default();
        let mut budget = Budget::new(&policy, at(0));
        let taken: Vec<_> = (0..3600).filter(|t| budget.take(&policy, at(*t))).collect();
        assert_eq!(taken, [0, 1, 2, 120, 360, 840, 1440, 2040, 2640, 3240]);

        assert!(!budget.is_new(&policy, at(3240 + 4 * 600 - 1)));
        assert!(budget.is_new(&policy, at(3240 + 4 * 600)));
        assert_eq!(budget.interval, Duration::from_secs(30));
    }

    #[test]
    fn the_time_to_the_next_counts_from_when_one_was_taken_and_not_from_before() {
        let policy = CachePolicy::default();
        let mut budget = Budget::new(&policy, at(0));
        assert!(budget.take(&policy, at(29)) && budget.take(&policy, at(30)));
        assert_eq!(budget.left, 1, "nothing has come back a second later");
    }
}
