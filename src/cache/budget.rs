//! How many renewals the 401s of one origin may cause.

use std::time::Duration;

use super::policy::CachePolicy;
use crate::clock::Timestamp;

/// A bucket of renewals for one key and origin, so that an API which answers 401 for ever cannot make us storm the token
/// endpoint, and spends nobody's budget but its own.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: u32,
    interval: Duration,
    /// When the next one began to come back.
    since: Timestamp,
    /// One was taken since the bucket was new.
    begun: bool,
    told: bool,
}

impl Budget {
    pub(crate) fn new(policy: &CachePolicy, now: Timestamp) -> Self {
        Self {
            left: RENEWALS,
            interval: policy.paced(INTERVAL),
            since: now,
            begun: false,
            told: false,
        }
    }

    /// Takes one renewal, if there is one.
    ///
    /// Each but the first has been preceded by a renewal that did not help, or not for long: it is done less and less often.
    pub(crate) fn take(&mut self, policy: &CachePolicy, now: Timestamp) -> bool {
        self.refill(policy, now);
        if self.left == 0 {
            return false;
        }
        if self.left == RENEWALS {
            self.since = now;
        }
        if self.begun {
            self.interval = self
                .interval
                .saturating_mul(2)
                .min(LONGEST_INTERVAL.max(self.interval));
        }
        self.begun = true;
        self.left -= 1;
        self.told = false;
        true
    }

    /// Whether this is the first time it is found empty since something was taken.
    pub(crate) fn tell_once(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// Whether it says no more than a new one would.
    pub(crate) fn is_new(&mut self, policy: &CachePolicy, now: Timestamp) -> bool {
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

/// How many renewals the 401s of one origin may cause.
const RENEWALS: u32 = 3;

/// How long one takes to come back. It doubles while renewed tokens are refused too.
const INTERVAL: Duration = Duration::from_secs(30);

const LONGEST_INTERVAL: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

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
    fn three_at_once_then_the_interval_doubles_to_ten_minutes_and_a_bucket_that_stays_full_starts_afresh()
     {
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
