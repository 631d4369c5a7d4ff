//! How many renewals the 401s of one origin may cause.

use std::time::Duration;

use super::policy::RefreshPolicy;
use crate::token::Timestamp;

/// A bucket of renewals for one key and origin, so that an API which answers 401 for ever cannot make us storm the token
/// endpoint, and spends nobody's budget but its own.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: u32,
    interval: Duration,
    /// When the bucket began to fill.
    since: Timestamp,
    told: bool,
}

impl Budget {
    pub(crate) fn new(policy: &RefreshPolicy, now: Timestamp) -> Self {
        Self {
            left: policy.refusal_budget,
            interval: policy.refusal_interval,
            since: now,
            told: false,
        }
    }

    /// The token that an earlier 401 of this origin brought is refused too: renewing does not help here, so it is done less
    /// and less often.
    pub(crate) fn slow_down(&mut self) {
        self.interval = (self.interval * 2).min(LONGEST_INTERVAL.max(self.interval));
    }

    /// Takes one renewal, if there is one.
    pub(crate) fn take(&mut self, policy: &RefreshPolicy, now: Timestamp) -> bool {
        self.refill(policy, now);
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.told = false;
        true
    }

    /// Whether this is the first time it is found empty since something was taken.
    pub(crate) fn tell_once(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    pub(crate) fn is_full(&mut self, policy: &RefreshPolicy, now: Timestamp) -> bool {
        self.refill(policy, now);
        self.left >= policy.refusal_budget
    }

    fn refill(&mut self, policy: &RefreshPolicy, now: Timestamp) {
        if self.left >= policy.refusal_budget {
            self.since = now;
            return;
        }
        let interval = self.interval.max(Duration::from_nanos(1));
        let back = now.since(self.since).as_nanos() / interval.as_nanos();
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        if back >= policy.refusal_budget - self.left {
            *self = Self::new(policy, now);
        } else {
            self.left += back;
            self.since = self.since.after(interval * back);
        }
    }
}

const LONGEST_INTERVAL: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn three_at_once_then_one_per_thirty_seconds() {
        let policy = RefreshPolicy::default();
        let mut budget = Budget::new(&policy, at(0));
        let taken = |budget: &mut Budget, t| budget.take(&policy, at(t));
        assert_eq!(
            [0, 0, 0, 0].map(|t| taken(&mut budget, t)),
            [true, true, true, false]
        );
        assert_eq!(
            [29, 30, 31, 59, 60].map(|t| taken(&mut budget, t)),
            [false, true, false, false, true]
        );
    }

    #[test]
    fn the_interval_doubles_to_ten_minutes_and_a_full_bucket_starts_afresh() {
        let policy = RefreshPolicy::default();
        let mut budget = Budget::new(&policy, at(0));
        while budget.take(&policy, at(0)) {
            budget.slow_down();
        }
        for _ in 0..10 {
            budget.slow_down();
        }
        assert!(!budget.take(&policy, at(599)));
        assert!(budget.take(&policy, at(600)));
        assert!(budget.is_full(&policy, at(600 + 3 * 600)));
        assert_eq!(budget.interval, Duration::from_secs(30));
    }
}
