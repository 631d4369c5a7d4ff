//! One flight: a fetch that many wait for.
//!
//! # Invariants
//!
//! 1. The outcome is set once and never changes.
//! 2. A waiter either sees the outcome or has its waker registered before the outcome is set, since both happen under the
//!    same lock; so nobody sleeps through it.
//! 3. Wakers are called after the lock is released.

use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::sync::{Arc, Mutex, lock};
use crate::error::Error;
use crate::grant::TokenRequest;
use crate::observe::Cause;
use crate::token::{Timestamp, Token};

/// A fetch under way, shared by the task that flies it and by everybody who waits.
pub(crate) struct Flight {
    pub(crate) id: u64,
    pub(crate) cause: Cause,
    pub(crate) request: TokenRequest,
    /// When whoever still waits may take over: the flight has ended itself before this, if its runtime is alive.
    pub(crate) deadline: Timestamp,
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    outcome: Option<Outcome>,
    waiters: Slab<Waker>,
}

/// How a flight ended, the same for all its waiters.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Token(Arc<Token>),
    Failed(Error),
    /// It ended without an answer; whoever still needs a token asks again.
    Lost,
}

impl Flight {
    pub(crate) fn new(id: u64, cause: Cause, request: TokenRequest, deadline: Timestamp) -> Self {
        Self {
            id,
            cause,
            request,
            deadline,
            board: Mutex::new(Board::default()),
        }
    }

    /// Sets the outcome, unless there is one, and wakes the waiters. Returns how many there were.
    pub(crate) fn finish(&self, outcome: Outcome) -> Option<usize> {
        let waiters = {
            let mut board = lock(&self.board);
            if board.outcome.is_some() {
                return None;
            }
            board.outcome = Some(outcome);
            std::mem::take(&mut board.waiters)
        };
        let count = waiters.len();
        for (_, waker) in waiters {
            waker.wake();
        }
        Some(count)
    }

    pub(crate) fn is_finished(&self) -> bool {
        lock(&self.board).outcome.is_some()
    }
}

/// A place among those who wait for a flight. Dropping it gives the place up and changes nothing for the others.
pub(crate) struct Waiter {
    flight: Arc<Flight>,
    place: Option<usize>,
}

impl Waiter {
    pub(crate) fn new(flight: Arc<Flight>) -> Self {
        Self {
            flight,
            place: None,
        }
    }

    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Outcome> {
        let mut board = lock(&self.flight.board);
        if let Some(outcome) = &board.outcome {
            self.place = None;
            return Poll::Ready(outcome.clone());
        }
        match self.place {
            Some(place) => board.waiters[place].clone_from(cx.waker()),
            None => self.place = Some(board.waiters.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let waker = {
            let mut board = lock(&self.flight.board);
            // With an outcome the list was taken as a whole, and places mean nothing any more.
            match board.outcome {
                None => board.waiters.try_remove(place),
                Some(_) => None,
            }
        };
        // Dropped outside the lock: a waker's drop may run anything, even another waiter's drop.
        drop(waker);
    }
}
