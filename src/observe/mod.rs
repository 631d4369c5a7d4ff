//! Cache events for programs, and their `tracing` lines.
//!
//! # `tracing`
//!
//! The target is `tower_oauth`. Each flight has a span, `token_flight`, without a parent, because
//! the flight outlives the request that started it. The field names are stable: `flight`, `cause`
//! ([`FetchCause::name`]), `attempts`, `latency_ms`, `host`, `class` (`transient`, `rejected`,
//! `invalid_response`), `code`, `status`, `source` (the error's sources, joined), `remaining_ms`
//! (of a live token that stays in use), `generation`, `asked`, `granted`, `max_entries`. An attempt
//! that another one follows has `attempt` and `pause_ms`.
//!
//! | level | when |
//! |---|---|
//! | warn | a flight failed; a budget is spent; a scope was narrowed |
//! | warn, once | an observer panicked; a runtime has no timers |
//! | debug | everything else |
//!
//! A call logs nothing by itself: the log of an outage grows with the attempts, not with the
//! traffic.
//!
//! Rules: R6, R24.

#[cfg(feature = "metrics")]
mod metrics;
pub(crate) mod trace;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::Error;
use crate::guard::guarded;
use crate::params::TokenParams;
use crate::source::FetchCause;
use crate::token::TokenResponse;

#[cfg(feature = "metrics")]
pub use self::metrics::Metrics;

/// Receives cache events.
///
/// The cache calls an observer outside of every lock, from the task of a flight or from the call
/// that caused the event, so an observer should return quickly. It reports the end of a flight
/// before it answers the flight's callers, so that a program which exits on the first error has
/// logged the reason. A panic in an observer fails nothing: it is caught, and reported once.
/// Closures are observers:
///
/// ```no_run
/// use tower_oauth::{OAuthLayer, observe::Event};
///
/// let layer = OAuthLayer::client_credentials("https://gw.example/token", "key", "secret")
///     .observer(|event: &Event<'_>| {
///         if let Event::FetchFinished { latency, error: Some(error), .. } = event {
///             eprintln!("token request failed after {latency:?}: {error}");
///         }
///     })
///     .build()?;
/// # Ok::<_, tower_oauth::BuildError>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Receives an event. No event contains a secret or a token.
    fn on_event(&self, event: &Event<'_>);
}

impl<F> Observer for F
where
    F: Fn(&Event<'_>) + Send + Sync + 'static,
{
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// A cache event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A flight makes its first token request.
    #[non_exhaustive]
    FetchStarted {
        /// Why the flight was started.
        cause: FetchCause,
    },
    /// A flight ended with a token or with an error.
    #[non_exhaustive]
    FetchFinished {
        /// Why the flight was started.
        cause: FetchCause,
        /// The token requests that the flight made.
        attempts: u32,
        /// The time from the flight's start to its end.
        latency: Duration,
        /// The token endpoint's host, where the source names one.
        host: Option<&'a str>,
        /// Why the flight failed; `None` when it brought a token.
        error: Option<&'a Error>,
        /// How long the live token remains usable, when the flight failed and there is one.
        remaining: Option<Duration>,
    },
    /// A flight was given up: its runtime is gone or was not driven, or the process was frozen.
    ///
    /// This says nothing about the token endpoint. Whoever needs a token starts another flight.
    #[non_exhaustive]
    FetchLost {
        /// Why the flight was started.
        cause: FetchCause,
    },
    /// A live token was evicted, because more sets of parameters are in use than
    /// [`CachePolicy::max_entries`](crate::CachePolicy::max_entries) allows.
    ///
    /// It is fetched again when it is next needed.
    #[non_exhaustive]
    Evicted {
        /// The bound that is too small.
        max_entries: usize,
    },
    /// A 401 made a token suspect: the next call renews it first.
    #[non_exhaustive]
    Suspected {
        /// The generation of the refused token.
        generation: u64,
    },
    /// A 401 changed nothing, since its origin has spent the renewals that it may cause.
    ///
    /// Reported once until a renewal is available again.
    #[non_exhaustive]
    BudgetSpent {
        /// The generation of the refused token.
        generation: u64,
    },
    /// The server granted less than the scope asked for (RFC 6749 §5.1).
    #[non_exhaustive]
    ScopeNarrowed {
        /// The scope asked for, space-separated.
        asked: &'a str,
        /// The scope granted.
        granted: &'a str,
    },
}

/// The observers and `tracing`.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    observers: Vec<Arc<dyn Observer>>,
    reported: Arc<Reported>,
}

/// What was reported already.
#[derive(Default)]
struct Reported {
    panic: AtomicBool,
    no_timers: AtomicBool,
}

/// What is known of a flight that has ended.
pub(crate) struct Fetched<'a> {
    pub(crate) cause: FetchCause,
    pub(crate) attempts: u32,
    pub(crate) latency: Duration,
    pub(crate) host: Option<&'a str>,
}

impl Watch {
    pub(crate) fn add(&mut self, observer: impl Observer) {
        self.observers.push(Arc::new(observer));
    }

    /// Tells every observer, even after one of them has panicked.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        let mut panicked = guarded(|| trace::event(event)).is_none();
        for observer in &self.observers {
            panicked |= guarded(|| observer.on_event(event)).is_none();
        }
        // Relaxed: it orders nothing; whoever finds it false reports.
        if panicked && !self.reported.panic.swap(true, Ordering::Relaxed) {
            trace::observer_panicked();
        }
    }

    pub(crate) fn no_timers(&self) {
        if !self.reported.no_timers.swap(true, Ordering::Relaxed) {
            trace::no_timers();
        }
    }

    pub(crate) fn succeeded(
        &self,
        fetched: &Fetched<'_>,
        params: &TokenParams,
        response: &TokenResponse,
    ) {
        self.tell(&fetched.finished(None, None));
        let Some(granted) = &response.scope else {
            return;
        };
        if params
            .scopes()
            .any(|asked| granted.split(' ').all(|scope| scope != asked))
        {
            let asked = params.scopes().collect::<Vec<_>>().join(" ");
            let granted = granted.get(..MAX_SCOPE).unwrap_or(granted);
            self.tell(&Event::ScopeNarrowed {
                asked: &asked,
                granted,
            });
        }
    }

    /// `remaining` is how long the live token remains usable, if there is one.
    pub(crate) fn failed(&self, fetched: &Fetched<'_>, error: &Error, remaining: Option<Duration>) {
        self.tell(&fetched.finished(Some(error), remaining));
    }
}

impl<'a> Fetched<'a> {
    fn finished(&self, error: Option<&'a Error>, remaining: Option<Duration>) -> Event<'a> {
        Event::FetchFinished {
            cause: self.cause,
            attempts: self.attempts,
            latency: self.latency,
            host: self.host,
            error,
            remaining,
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({} observers)", self.observers.len())
    }
}

/// The longest scope that an event reports: enough for a line of a log.
const MAX_SCOPE: usize = 4096;
