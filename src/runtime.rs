//! The tokio runtime of a call, if a flight can be flown on it.
//!
//! Rules: R6.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::error::Error;
use crate::guard::guarded;

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRuntime {
    Outside,
    /// Flights and those who wait for them need timers.
    NoTimers,
}

pub(crate) fn current() -> Result<Handle, NoRuntime> {
    let handle = Handle::try_current().map_err(|_| NoRuntime::Outside)?;
    if has_timers(&handle) {
        Ok(handle)
    } else {
        Err(NoRuntime::NoTimers)
    }
}

/// A timer, if the call is on a runtime that has them.
pub(crate) fn timer(until: Instant) -> Option<Sleep> {
    current().ok().map(|_| sleep_until(until))
}

/// Tokio tells only by a panic whether a runtime has timers, so it is asked once for each runtime.
fn has_timers(handle: &Handle) -> bool {
    static KNOWN: Mutex<Vec<(Id, bool)>> = Mutex::new(Vec::new());

    // Without unwinding the question would end the process.
    if cfg!(panic = "abort") {
        return true;
    }
    let id = handle.id();
    let find = |known: &[(Id, bool)]| known.iter().find(|(known, _)| *known == id).copied();
    let known = find(&KNOWN.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some((_, has_timers)) = known {
        return has_timers;
    }
    // The panic hook is told, since it cannot be kept out of this for one thread alone.
    let has_timers = guarded(|| drop(sleep(Duration::ZERO))).is_some();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MAX_KNOWN {
        known.remove(0);
    }
    known.push((id, has_timers));
    has_timers
}

/// A program has one runtime, or a few; a test suite has one for each test.
const MAX_KNOWN: usize = 64;

impl From<NoRuntime> for Error {
    fn from(reason: NoRuntime) -> Self {
        let (what, advice) = match reason {
            NoRuntime::Outside => (
                "called outside of a tokio runtime",
                "poll the response future inside a tokio runtime with time enabled",
            ),
            NoRuntime::NoTimers => (
                "called on a tokio runtime without timers",
                "call enable_time() or enable_all() on the runtime's builder",
            ),
        };
        Self::transient(what).with_advice(advice)
    }
}
