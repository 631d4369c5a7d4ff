//! The events as `tracing` sees them; targets, levels and field names are documented in [`observe`](super).

use std::error::Error as _;
use std::iter::successors;
use std::time::Duration;

use tracing::{Span, debug, debug_span, warn};

use super::Event;
use crate::cache::Flight;
use crate::error::Error;

/// The flight outlives the request that started it, so its span is no child of that request's.
pub(crate) fn flight_span(flight: &Flight) -> Span {
    debug_span!(target: TARGET, parent: None, "token_flight", flight = flight.id, cause = flight.cause.name())
}

pub(crate) fn attempt_failed(attempt: u32, error: &Error, pause: Duration) {
    debug!(
        target: TARGET,
        attempt,
        class = error.class().name(),
        status = error.status().map(|status| status.as_u16()),
        source = sources(error),
        pause_ms = millis(pause),
        "token request failed, trying again"
    );
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
            endpoint,
            error: None,
        } => debug!(
            target: TARGET,
            cause = cause.name(),
            attempts,
            latency_ms = millis(latency),
            endpoint,
            "got a token"
        ),
        Event::FetchFinished {
            cause,
            attempts,
            latency,
            endpoint,
            error: Some(error),
        } => warn!(
            target: TARGET,
            cause = cause.name(),
            attempts,
            latency_ms = millis(latency),
            endpoint,
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
        Event::LenientParse { endpoint } => {
            debug!(target: TARGET, endpoint, "the token response was not JSON of RFC 6749 5.1, but could be read");
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
