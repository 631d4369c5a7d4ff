//! What one attempt of a flight and the exchange in it tell each other: how long it may take, and
//! what it was at when its time was up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// What an attempt is at. A source of the user's own does not say.
#[derive(Clone, Default)]
pub(crate) struct Stage(Arc<AtomicU8>);

const SECRET: u8 = 1;
const REQUEST: u8 = 2;
const BODY: u8 = 3;

impl Stage {
    // Relaxed: the attempt and whoever reads are the same task.
    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    /// The error of an attempt whose time is up.
    pub(crate) fn timed_out(&self, limit: Duration) -> Error {
        match self.0.load(Ordering::Relaxed) {
            SECRET => Error::timed_out(format!(
                "the client secret could not be read within {limit:.1?}"
            ))
            .with_advice(
                "check the file or the provider that it is read from; requests resume by \
                     themselves",
            )
            .before_sending(),
            BODY => Error::timed_out(format!(
                "the token endpoint began to answer and did not end within {limit:.1?}"
            )),
            _ => Error::timed_out(format!("no answer within {limit:.1?}")),
        }
    }
}

/// Tells the exchange in `attempt` how long it has, and lets it say what it is at.
pub(crate) fn within_attempt<F: Future>(
    limit: Duration,
    stage: &Stage,
    attempt: F,
) -> impl Future<Output = F::Output> + use<F> {
    ATTEMPT.scope((Instant::now() + limit, stage.clone()), attempt)
}

pub(super) fn reads_the_secret() {
    say(SECRET);
}

pub(super) fn sends_the_request() {
    say(REQUEST);
}

pub(super) fn reads_the_body() {
    say(BODY);
}

/// Nobody listens where a source is called by hand.
fn say(stage: u8) {
    let _ = ATTEMPT.try_with(|(_, said)| said.set(stage));
}

/// The time that is left; `None` where a source is called by hand.
pub(super) fn time_left() -> Option<Duration> {
    let left = |(end, _): &(Instant, Stage)| end.saturating_duration_since(Instant::now());
    ATTEMPT.try_with(left).ok()
}

tokio::task_local! {
    static ATTEMPT: (Instant, Stage);
}
