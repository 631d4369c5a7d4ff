//! What a flight and the exchange of its attempt tell each other: how long the attempt may take,
//! and what it was doing when its time was up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// What an attempt is doing. A source of the user's own does not say.
#[derive(Clone, Default)]
pub(crate) struct Stage(Arc<AtomicU8>);

pub(super) const READS_SECRET: u8 = 1;
pub(super) const SENDS_REQUEST: u8 = 2;
pub(super) const READS_BODY: u8 = 3;

impl Stage {
    /// The error of an attempt whose time is up.
    pub(crate) fn timed_out(&self, limit: Duration) -> Error {
        match self.0.load(Ordering::Relaxed) {
            READS_SECRET => Error::timed_out(format!(
                "the client secret could not be read within {limit:.1?}"
            ))
            .with_advice(
                "check the file or the provider that it is read from; requests resume by \
                 themselves",
            )
            .before_sending(),
            READS_BODY => Error::timed_out(format!(
                "the token endpoint began to answer but did not finish within {limit:.1?}"
            )),
            _ => Error::timed_out(format!("no answer within {limit:.1?}")),
        }
    }
}

/// Tells the exchange in `attempt` how long it has, and lets it say what it is doing.
pub(crate) fn within_attempt<F: Future>(
    limit: Duration,
    stage: &Stage,
    attempt: F,
) -> impl Future<Output = F::Output> + use<F> {
    ATTEMPT.scope((Instant::now() + limit, stage.clone()), attempt)
}

/// Says what the attempt is doing. Nobody listens where a source is called by hand.
pub(super) fn now(stage: u8) {
    // Relaxed: the attempt and its reader are the same task.
    let _ = ATTEMPT.try_with(|(_, said)| said.0.store(stage, Ordering::Relaxed));
}

/// The time that is left; `None` where a source is called by hand.
pub(super) fn time_left() -> Option<Duration> {
    let left = |(end, _): &(Instant, Stage)| end.saturating_duration_since(Instant::now());
    ATTEMPT.try_with(left).ok()
}

tokio::task_local! {
    static ATTEMPT: (Instant, Stage);
}
