//! The future of a caller who has no token at hand.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use super::decision::{Decision, Fallback};
use super::flight::{Outcome, Waiter};
use super::shared::Cache;
use super::sync::Arc;
use crate::cache::current::Token;
use crate::error::Error;
use crate::params::TokenParams;

pin_project! {
    /// Asks the cache for a token and waits for the flight that brings it.
    ///
    /// Nothing happens before the first poll. Dropping it gives up one place among the waiters; the flight goes on.
    pub(crate) struct Wait {
        cache: Arc<Cache>,
        request: TokenParams,
        newer_than: Option<u64>,
        launches: u8,
        // When a caller with a live token has waited enough, however many flights are lost meanwhile.
        patience: Option<Instant>,
        #[pin]
        stage: Stage,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage {
        Asking,
        Waiting {
            waiter: Waiter,
            // A live token to fall back on when the timer rings first.
            fallback: Option<Arc<Token>>,
            // Rings when the caller has waited enough, or when the flight is overdue: a runtime that is no longer driven
            // drops nothing, so only the waiter's own runtime can notice.
            #[pin]
            timer: Sleep,
        },
    }
}

impl Wait {
    /// Any live token of this kind.
    pub(crate) fn new(cache: Arc<Cache>, request: TokenParams) -> Self {
        Self {
            cache,
            request,
            newer_than: None,
            launches: 0,
            patience: None,
            stage: Stage::Asking,
        }
    }

    /// A token of a later generation than the one that was refused.
    pub(crate) fn newer_than(cache: Arc<Cache>, refused: &Token) -> Self {
        Self {
            newer_than: Some(refused.generation),
            ..Self::new(cache, refused.request.clone())
        }
    }
}

impl Future for Wait {
    type Output = Result<Arc<Token>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // Asking => (Waiting => Asking)*
        loop {
            match this.stage.as_mut().project() {
                StageProj::Asking => {
                    let launch = *this.launches < MAX_LAUNCHES;
                    let decision = this.cache.call(this.request, *this.newer_than, launch);
                    match decision.map_err(Error::from)? {
                        Decision::Serve { token, .. } => return Poll::Ready(Ok(token)),
                        Decision::Fail(error) => return Poll::Ready(Err(error)),
                        Decision::Later { live } => {
                            return Poll::Ready(live.ok_or_else(abandoned));
                        }
                        Decision::Wait {
                            flight,
                            launch,
                            fallback,
                        } => {
                            *this.launches += u8::from(launch);
                            let (fallback, wait) = match fallback {
                                Some(Fallback { token, wait }) => {
                                    let now = Instant::now();
                                    let enough = *this.patience.get_or_insert(now + wait);
                                    let left = enough.saturating_duration_since(now);
                                    (Some(token), wait.min(left))
                                }
                                None => (None, flight.time_left(this.cache.clock.now())),
                            };
                            this.stage.set(Stage::Waiting {
                                waiter: Waiter::new(flight),
                                fallback,
                                timer: sleep(wait),
                            });
                        }
                    }
                }
                StageProj::Waiting {
                    waiter,
                    fallback,
                    mut timer,
                } => {
                    if let Poll::Ready(outcome) = waiter.poll(cx) {
                        let now = this.cache.clock.now();
                        match outcome {
                            Outcome::Token(token) if token.live(now) => {
                                return Poll::Ready(Ok(token));
                            }
                            Outcome::Failed(error) => {
                                let fallback = fallback.take().filter(|token| token.live(now));
                                // Or one that came meanwhile by a flight that had been given up.
                                let live = fallback.or_else(|| {
                                    this.cache.live_token(this.request, *this.newer_than)
                                });
                                return Poll::Ready(live.ok_or(error));
                            }
                            // Lost, or polled so late that the token has ended meanwhile.
                            Outcome::Token(_) | Outcome::Lost => this.stage.set(Stage::Asking),
                        }
                        continue;
                    }
                    ready!(timer.as_mut().poll(cx));
                    let now = Instant::now();
                    let wait = waiter.flight().time_left(this.cache.clock.now());
                    if wait.is_zero() && fallback.is_none() && now - timer.deadline() > MOMENT {
                        // Whoever waits has stood still too, as a frozen process does as a whole.
                        // The flight's answer may have come meanwhile.
                        timer.as_mut().reset(now + MOMENT);
                        continue;
                    }
                    if wait.is_zero() {
                        // Also by those who can do without: nobody else waits for a renewal ahead of time.
                        this.cache.miss(waiter.flight());
                    }
                    let fallback = fallback.take();
                    if let Some(token) = fallback.filter(|token| token.live(this.cache.clock.now()))
                    {
                        return Poll::Ready(Ok(token));
                    }
                    // Given up or not: were its outcome never told, this would not spin.
                    timer.reset(now + wait.max(MOMENT));
                }
            }
        }
    }
}

/// What a flight needs to be polled after a process has stood still.
const MOMENT: Duration = Duration::from_millis(500);

fn abandoned() -> Error {
    Error::transient("every token request was dropped by its runtime before it ended")
        .with_advice("the tokio runtime is shutting down; call from one that is not")
}

/// A runtime that is shutting down drops what is spawned on it at once, again and again.
const MAX_LAUNCHES: u8 = 3;
