//! What the state machine answers.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::current::Token;
use crate::error::Error;
use crate::source::FetchCause;

/// What the shell needs to make a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) id: u64,
    pub(crate) cause: FetchCause,
}

/// What a caller can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// Wait for a flight.
    pub(crate) wait: bool,
    /// Launch one.
    pub(crate) launch: bool,
}

/// What a call may do now.
#[derive(Debug)]
pub(crate) enum Decision<F> {
    /// Use the token; `launch` is a renewal to start without waiting for it.
    Serve {
        token: Arc<Token>,
        launch: Option<F>,
    },
    /// Wait for the flight, which is to be launched first if it is new.
    Wait {
        flight: F,
        launch: bool,
        fallback: Option<Fallback>,
    },
    /// Backoff, and nothing to live on.
    Fail(Error),
    /// To launch a flight or to wait for one, which this caller cannot.
    Later { live: Option<Arc<Token>> },
}

/// A live token to use when the flight has not brought a better one within `wait`.
#[derive(Debug)]
pub(crate) struct Fallback {
    pub(crate) token: Arc<Token>,
    pub(crate) wait: Duration,
}

/// What a 401 changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token is suspect now: the next call renews first.
    Suspected,
    /// It was already, or another token is in its place.
    Known,
    /// Nothing changed: this origin has spent its renewals. `first` since it had any.
    BudgetSpent { first: bool },
}
