//! The one seam for time.
//!
//! A token ages while the machine sleeps, and it does not age when an operator sets the wall clock.
//! So the age is read from a clock that runs on during suspend and ignores steps:
//!
//! | platform | clock |
//! |---|---|
//! | Linux, Android | `CLOCK_BOOTTIME` |
//! | other Unix | `CLOCK_MONOTONIC`, which on macOS and FreeBSD runs on during sleep |
//! | elsewhere | [`std::time::Instant`], which may stand still during sleep on some machines |
//!
//! One read is one vDSO call on Linux: no system call, no lock, no allocation. libc makes it,
//! since libc also knows when there is no vDSO to call, as under valgrind.
//!
//! Rules: R14.

use std::time::Duration;

/// A point on the boot clock, in nanoseconds; 584 years fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(u64);

impl Timestamp {
    pub(crate) const ZERO: Self = Self(0);
    pub(crate) const MAX: Self = Self(u64::MAX);

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Later by `span`; stops at the end of time instead of overflowing.
    pub(crate) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// Earlier by `span`; stops at zero.
    pub(crate) fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    /// Time from `earlier` to here; zero when `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    /// The clock of the table above.
    #[default]
    Boot,
    #[cfg(feature = "test-util")]
    Manual(ManualClock),
}

impl Clock {
    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Self::Boot => boot_clock(),
            #[cfg(feature = "test-util")]
            Self::Manual(clock) => clock.now(),
        }
    }
}

#[cfg(unix)]
#[inline]
fn boot_clock() -> Timestamp {
    use nix::time::{ClockId, clock_gettime};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

    let time = clock_gettime(CLOCK).expect("the platform has this clock");
    // Both fields are never negative on these clocks.
    Timestamp::from_nanos(
        (time.tv_sec() as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(time.tv_nsec() as u64),
    )
}

#[cfg(not(unix))]
fn boot_clock() -> Timestamp {
    use std::sync::LazyLock;
    use std::time::Instant;

    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    Timestamp::ZERO.after(ORIGIN.elapsed())
}

#[cfg(feature = "test-util")]
pub use self::manual::ManualClock;

#[cfg(feature = "test-util")]
mod manual {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Timestamp, nanos};

    /// A clock for tests: it follows tokio's clock, which a test can pause, and can be moved ahead
    /// of it.
    ///
    /// With tokio's time paused (`#[tokio::test(start_paused = true)]`) nothing ages by itself:
    /// tokens grow older by what tokio auto-advances and by what [`advance`](Self::advance) adds.
    /// `advance` alone is a suspend of the machine: the boot clock runs on while timers stand
    /// still. To let an hour pass for both, use `tokio::time::advance`.
    ///
    /// Clones share one clock.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use std::time::Duration;
    /// use tower_oauth::ManualClock;
    ///
    /// tokio::time::pause();
    /// let clock = ManualClock::new();
    /// clock.advance(Duration::from_secs(3600));
    /// assert_eq!(clock.elapsed(), Duration::from_secs(3600));
    /// # }
    /// ```
    #[derive(Clone, Debug)]
    pub struct ManualClock(Arc<Inner>);

    #[derive(Debug)]
    struct Inner {
        origin: Instant,
        ahead: AtomicU64,
    }

    impl ManualClock {
        /// A clock that starts now.
        #[must_use]
        pub fn new() -> Self {
            Self(Arc::new(Inner {
                origin: Instant::now(),
                ahead: AtomicU64::new(0),
            }))
        }

        /// Moves this clock ahead of tokio's by `span`, as a suspend of the machine does.
        pub fn advance(&self, span: Duration) {
            // Relaxed: one number, and no other memory is published with it.
            self.0.ahead.fetch_add(nanos(span), Ordering::Relaxed);
        }

        /// What this clock has counted since it was made.
        #[must_use]
        pub fn elapsed(&self) -> Duration {
            self.0.origin.elapsed() + Duration::from_nanos(self.0.ahead.load(Ordering::Relaxed))
        }

        pub(crate) fn now(&self) -> Timestamp {
            // A day is added so that "long before the first event" can be written in tests.
            Timestamp::ZERO
                .after(Duration::from_secs(86_400))
                .after(self.elapsed())
        }
    }

    impl Default for ManualClock {
        fn default() -> Self {
            Self::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_clock_moves_forward() {
        let first = Clock::Boot.now();
        assert!(first > Timestamp::ZERO);
        assert!(Clock::Boot.now() >= first);
    }

    #[test]
    fn arithmetic_stops_at_both_ends() {
        assert_eq!(Timestamp::MAX.after(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO.before(Duration::MAX), Timestamp::ZERO);
        assert_eq!(Timestamp::ZERO.since(Timestamp::MAX), Duration::ZERO);
    }
}
