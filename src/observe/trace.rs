//! The events as `tracing` sees them. [`observe`](super) documents targets, levels and fields.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use tracing::{Span, debug, debug_span, warn};

use super::Event;
use crate::error::Error;
use crate::guard::guarded;
use crate::source::FetchCause;

/// Runs the work of a flight within a span of its own.
///
/// The span has no parent, because the flight outlives the request that started it. Unlike
/// `tracing::Instrument` it lets no panic of a subscriber into the work: such a panic would end the
/// flight's task, and another flight would follow. It costs the flight its span and nothing else.
pub(crate) fn in_flight_span<F: Future>(
    flight: u64,
    cause: FetchCause,
    work: F,
) -> impl Future<Output = F::Output> {
    let span = Guarded(guarded(
        || debug_span!(target: TARGET, parent: None, "token_flight", flight, cause = cause.name()),
    ));
    async move {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let entered = guarded(|| span.0.as_ref().map(Span::enter));
            let polled = work.as_mut().poll(cx);
            guarded(|| drop(entered));
            polled
        })
        .await
    }
}

/// A span that lets no panic of a subscriber out when it ends.
struct Guarded(Option<Span>);

impl Drop for Guarded {
    fn drop(&mut self) {
        guarded(|| drop(self.0.take()));
    }
}

pub(crate) fn attempt_failed(attempt: u32, error: &Error, pause: Duration) {
    guarded(|| {
        debug!(
            target: TARGET,
            attempt,
            class = error.class().name(),
            status = error.status().map(|status| status.as_u16()),
            source = error.told_by_sources(),
            pause_ms = millis(pause),
            "token request failed, trying again"
        );
    });
}

/// Reported once for each layer.
pub(crate) fn observer_panicked() {
    guarded(|| {
        warn!(
            target: TARGET,
            "an observer of the token cache or a tracing subscriber panicked; it still receives \
             events, and further panics are not reported here"
        );
    });
}

/// Reported once for each layer.
pub(crate) fn no_timers() {
    guarded(|| {
        warn!(
            target: TARGET,
            "the tokio runtime has no timers, so it cannot fetch a token; \
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
            ..
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
            remaining,
        } => warn!(
            target: TARGET,
            cause = cause.name(),
            attempts,
            latency_ms = millis(latency),
            host,
            class = error.class().name(),
            code = error.oauth_code(),
            status = error.status().map(|status| status.as_u16()),
            source = error.told_by_sources(),
            remaining_ms = remaining.map(millis),
            "{error}{}",
            remaining.map_or("", |_| "; the live token stays in use")
        ),
        Event::FetchLost { cause } => debug!(
            target: TARGET,
            cause = cause.name(),
            "gave up a token request whose runtime is gone or was not driven"
        ),
        Event::Suspected { generation } => debug!(
            target: TARGET,
            generation,
            "an API refused the token; the next request renews it first"
        ),
        Event::BudgetSpent { generation } => warn!(
            target: TARGET,
            generation,
            "an API keeps refusing renewed tokens, so none is renewed until the budget recovers; \
             check scope, audience and the API's own settings"
        ),
        Event::ScopeNarrowed { asked, granted } => warn!(
            target: TARGET,
            asked,
            granted,
            "the server granted less than the scope asked for"
        ),
        Event::Evicted { max_entries } => debug!(
            target: TARGET,
            max_entries,
            "evicted a live token to make room for another; raise CachePolicy::max_entries"
        ),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

const TARGET: &str = "tower_oauth";
