//! Watching the cache: events for programs, and the same told to `tracing`.
//!
//! # `tracing`
//!
//! The target is `tower_oauth`. One flight is one span, `token_flight`, without a parent, since it outlives the request that started it.
//! The names of the fields are stable: `flight`, `cause` ([`FetchCause::name`]), `attempts`, `latency_ms`, `host`, `class` (`transient`, `rejected`,
//! `invalid_response`), `code`, `status`, `source` (the error's sources, joined), `waiters`, `remaining_ms`, `generation`, `asked`, `granted`, and for an attempt that is followed by
//! another `attempt` and `pause_ms`.
//!
//! | level | when |
//! |---|---|
//! | warn | a flight failed; a live token goes on being used after that; a budget is spent; a scope was narrowed; an observer panicked; a runtime has no timers |
//! | debug | everything else |
//!
//! All follow flights, never calls: the log of an outage grows with the attempts, not with the traffic.

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

/// Observes what happens in the cache.
///
/// Called outside of every lock, from the task of a flight or from the call that caused the event,
/// so it should return quickly. The end of a flight is told before its callers have their answer,
/// so that a program which ends with the first error has logged why. A panic in it is nobody's failure: it is caught, and reported once.
/// Closures are observers:
///
/// ```no_run
/// use tower_oauth::{OAuthLayer, observe::Event};
///
/// let layer = OAuthLayer::client_credentials("https://gw.example/oauth2/v1/token", "key", "secret")
///     .observer(|event: &Event<'_>| {
///         if let Event::FetchFinished { latency, error: Some(error), .. } = event {
///             eprintln!("token request failed after {latency:?}: {error}");
///         }
///     })
///     .build()?;
/// # Ok::<_, tower_oauth::BuildError>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Something happened. No event has a secret or a token in it.
    fn on_event(&self, event: &Event<'_>);
}

impl Observer for () {
    fn on_event(&self, _: &Event<'_>) {}
}

impl<F> Observer for F
where
    F: Fn(&Event<'_>) + Send + Sync + 'static,
{
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A flight has its turn and makes its first token request.
    #[non_exhaustive]
    FetchStarted {
        /// Why.
        cause: FetchCause,
    },
    /// A flight ended with a token or with an error.
    #[non_exhaustive]
    FetchFinished {
        /// Why it was started.
        cause: FetchCause,
        /// Token requests it made.
        attempts: u32,
        /// From its start to its end.
        latency: Duration,
        /// The token endpoint's host, where the source names one.
        host: Option<&'a str>,
        /// Why it failed; `None` when it brought a token.
        error: Option<&'a Error>,
    },
    /// A flight was given up: its runtime is gone or was not driven, or the process was frozen.
    ///
    /// Nothing is learnt about the token endpoint, and whoever needs a token starts another flight.
    #[non_exhaustive]
    FetchLost {
        /// Why it was started.
        cause: FetchCause,
    },
    /// A live token was forgotten to make room for another kind: more kinds are in use than
    /// [`CachePolicy::max_entries`](crate::CachePolicy::max_entries) lets the cache keep, and
    /// the one forgotten is fetched again when it is next needed.
    #[non_exhaustive]
    Evicted {
        /// The bound that is too small.
        max_entries: usize,
    },
    /// Callers who waited for a flight were told its outcome.
    #[non_exhaustive]
    WaitersReleased {
        /// How many.
        waiters: usize,
    },
    /// A renewal failed, and the live token goes on being used. Once per failed flight.
    #[non_exhaustive]
    StaleServe {
        /// How long it is still good for.
        remaining: Duration,
    },
    /// A 401 made a token suspect: the next call renews first.
    #[non_exhaustive]
    Suspected {
        /// The token refused.
        generation: u64,
    },
    /// A 401 changed nothing, since its origin has spent the renewals it may cause. Once until one comes back.
    #[non_exhaustive]
    BudgetSpent {
        /// The token refused.
        generation: u64,
    },
    /// The server granted less than was asked for (RFC 6749 §5.1).
    #[non_exhaustive]
    ScopeNarrowed {
        /// The scope asked for, space-separated.
        asked: &'a str,
        /// The scope granted.
        granted: &'a str,
    },
    /// The answer was not the JSON object of RFC 6749 §5.1, but could be read.
    #[non_exhaustive]
    LenientParse {
        /// The token endpoint's host, where the source names one.
        host: Option<&'a str>,
    },
}

/// The observers, and `tracing`.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    observers: Vec<Arc<dyn Observer>>,
    /// A panic of one of them, and a runtime without timers, have been reported.
    reported: Arc<Reported>,
}

#[derive(Default)]
struct Reported {
    panic: AtomicBool,
    no_timers: AtomicBool,
}

/// What is known of a flight when it has ended.
pub(crate) struct Landing<'a> {
    pub(crate) cause: FetchCause,
    pub(crate) attempts: u32,
    pub(crate) latency: Duration,
    pub(crate) host: Option<&'a str>,
}

impl Watch {
    pub(crate) fn add(&mut self, observer: impl Observer) {
        self.observers.push(Arc::new(observer));
    }

    /// Tells everybody, whoever of them panics.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        let mut panicked = guarded(|| trace::event(event)).is_none();
        for observer in &self.observers {
            panicked |= guarded(|| observer.on_event(event)).is_none();
        }
        // Relaxed: it orders nothing; one of those who find it false reports.
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
        landing: &Landing<'_>,
        request: &TokenParams,
        response: &TokenResponse,
    ) {
        self.tell(&landing.finished(None));
        if response.lenient {
            self.tell(&Event::LenientParse { host: landing.host });
        }
        if let Some(granted) = &response.scope {
            let narrower = request
                .scopes()
                .any(|asked| granted.split(' ').all(|scope| scope != asked));
            if narrower {
                let asked = request.scopes().collect::<Vec<_>>().join(" ");
                let granted = granted.get(..MAX_SCOPE).unwrap_or(granted);
                self.tell(&Event::ScopeNarrowed {
                    asked: &asked,
                    granted,
                });
            }
        }
    }

    /// `remaining` is how long a live token is still good for, when there is one.
    pub(crate) fn failed(&self, landing: &Landing<'_>, error: &Error, remaining: Option<Duration>) {
        self.tell(&landing.finished(Some(error)));
        if let Some(remaining) = remaining {
            self.tell(&Event::StaleServe { remaining });
        }
    }
}

impl<'a> Landing<'a> {
    fn finished(&self, error: Option<&'a Error>) -> Event<'a> {
        Event::FetchFinished {
            cause: self.cause,
            attempts: self.attempts,
            latency: self.latency,
            host: self.host,
            error,
        }
    }
}

/// What is told of a scope: enough for a line of a log.
const MAX_SCOPE: usize = 4096;

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({} observers)", self.observers.len())
    }
}
