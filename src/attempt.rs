//! One attempt of a flight, as the exchange in it sees it: how long it may take, and what it was
//! doing when its time was up.
//!
//! Rules: R9.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

#[derive(Debug)]
pub(crate) struct Attempt {
    end: Instant,
    /// A source of the user's own does not say.
    stage: AtomicU8,
}

pub(crate) const READS_SECRET: u8 = 1;
pub(crate) const ASKS_HOOK: u8 = 2;
pub(crate) const SENDS_REQUEST: u8 = 3;
pub(crate) const READS_BODY: u8 = 4;

impl Attempt {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            end: Instant::now() + limit,
            stage: AtomicU8::new(0),
        }
    }

    /// Says what the attempt is doing.
    pub(crate) fn now(&self, stage: u8) {
        // Relaxed: the attempt and its reader are the same task.
        self.stage.store(stage, Ordering::Relaxed);
    }

    pub(crate) fn time_left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// The error of an attempt whose time is up.
    pub(crate) fn timed_out(&self, limit: Duration) -> Error {
        match self.stage.load(Ordering::Relaxed) {
            READS_SECRET => Error::timed_out(format!(
                "the client secret could not be read within {limit:.1?}"
            ))
            .with_advice(
                "check the file or the provider that it is read from; requests recover on their \
                 own once this is fixed",
            )
            .before_sending(),
            ASKS_HOOK => Error::timed_out(format!(
                "the hook of ClientAuth::custom did not answer within {limit:.1?}"
            ))
            .with_advice(
                "look at what the hook waits for; requests recover on their own once this is fixed",
            )
            .before_sending(),
            READS_BODY => Error::timed_out(format!(
                "the token endpoint began to answer but did not finish within {limit:.1?}"
            )),
            _ => Error::timed_out(format!("no answer within {limit:.1?}")),
        }
    }
}
