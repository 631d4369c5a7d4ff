//! The events as `tracing` sees them; targets, levels and field names are documented in [`observe`](super).

use std::error::Error as _;
use std::iter::successors;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tracing::{Span, debug, debug_span, warn};

use super::Event;
use crate::error::Error;
use crate::guard::guarded;
use crate::source::FetchCause;

/// The flight outlives the request that started it, so its span is no child of that request's.
///
/// A subscriber that panics costs the flight its span and nothing else.
pub(crate) fn flight_span(flight: u64, cause: FetchCause) -> Span {
    let span = guarded(|| {
        debug_span!(
            target: TARGET,
            parent: None,
            "token_flight",
            flight,
            cause = cause.name()
        )
    });
    span.unwrap_or_else(Span::none)
}

/// Polls `future` within `span`.
///
/// Unlike `tracing::Instrument` it lets no panic of a subscriber into the future: that one would
/// end the task of a flight, which would then be flown again.
pub(crate) fn within<F: Future>(span: Span, future: F) -> Within<F> {
    Within {
        future,
        span: Some(span),
    }
}

pin_project! {
    pub(crate) struct Within<F> {
        #[pin]
        future: F,
        span: Option<Span>,
    }

    impl<F> PinnedDrop for Within<F> {
        fn drop(this: Pin<&mut Self>) {
            let span = this.project().span.take();
            guarded(|| drop(span));
        }
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let entered = guarded(|| this.span.as_ref().map(Span::enter));
        let polled = this.future.poll(cx);
        guarded(|| drop(entered));
        polled
    }
}

pub(crate) fn attempt_failed(attempt: u32, error: &Error, pause: Duration) {
    guarded(|| {
        debug!(
            target: TARGET,
            attempt,
            class = error.class().name(),
            status = error.status().map(|status| status.as_u16()),
            source = sources(error),
            pause_ms = millis(pause),
            "token request failed, trying again"
        );
    });
}

/// An observer or a subscriber has panicked; said once for each layer.
pub(crate) fn observer_panicked() {
    guarded(|| {
        warn!(
            target: TARGET,
            "an observer of the token cache, or a tracing subscriber, panicked; it is still told \
             what happens, and its further panics are not reported here"
        );
    });
}

/// Said once for each layer.
pub(crate) fn no_timers() {
    guarded(|| {
        warn!(
            target: TARGET,
            "the tokio runtime has no timers, so no token can be fetched on it; \
             call enable_time() or enable_all() on its builder"
        );
    });
}

pub(crate) fn event(event: &Event<'_>) {
    match *event {
        Event::FetchStarted { cause } => {
            debug!(target: TARGET, cause = cause.name(), "fetching a token");
        }
        Event::FetchFinished {
            cause,
            attempts,
            latency,
            host,
            error: None,
        } => debug!(
            target: TARGET,
            cause = cause.name(),
            attempts,
            latency_ms = millis(latency),
            host,
            "got a token"
        ),
        Event::FetchFinished {
            cause,
            attempts,
            latency,
            host,
            error: Some(error),
        } => warn!(
            target: TARGET,
            cause = cause.name(),
            attempts,
            latency_ms = millis(latency),
            host,
            class = error.class().name(),
            code = error.oauth_code(),
            status = error.status().map(|status| status.as_u16()),
            source = sources(error),
            "{error}"
        ),
        Event::WaitersReleased { waiters } => {
            debug!(target: TARGET, waiters, "told the waiters");
        }
        Event::StaleServe { remaining } => warn!(
            target: TARGET,
            remaining_ms = millis(remaining),
            "renewal failed, the live token goes on being used"
        ),
        Event::Suspected { generation } => {
            debug!(target: TARGET, generation, "an API refused the token, renewing before the next request");
        }
        Event::BudgetSpent { generation } => warn!(
            target: TARGET,
            generation,
            "an API goes on refusing renewed tokens, no renewal until its budget is back; check scope, audience and the API's own settings"
        ),
        Event::ScopeNarrowed { asked, granted } => {
            warn!(target: TARGET, asked, granted, "the server granted less than was asked for");
        }
        Event::FetchLost { cause } => debug!(
            target: TARGET,
            cause = cause.name(),
            "gave a token request up, since its runtime is gone or was not driven"
        ),
        Event::Evicted { max_entries } => debug!(
            target: TARGET,
            max_entries,
            "forgot a live token to make room for another kind; raise CachePolicy::max_entries"
        ),
        Event::LenientParse { host } => {
            debug!(target: TARGET, host, "the token response was not JSON of RFC 6749 5.1, but could be read");
        }
    }
}

/// What the error's own text leaves to its sources: without them a name that does not resolve, a refused connection and a
/// certificate that does not verify read the same. `None` when there are none.
fn sources(error: &Error) -> Option<String> {
    let first = error.source()?;
    let chain = successors(Some(first), |&error| error.source());
    Some(
        chain
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": "),
    )
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

const TARGET: &str = "tower_oauth";
