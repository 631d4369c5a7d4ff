//! One kind of token in the cache.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::budget::Budget;
use super::decision::Plan;
use super::policy::CachePolicy;
use crate::cache::current::Token;
use crate::clock::Timestamp;
use crate::source::FetchCause;

/// What is known of one kind of token.
pub(super) struct Entry<F> {
    pub(super) token: Option<Arc<Token>>,
    /// The token was refused by an API and is used only if it cannot be renewed.
    pub(super) suspect: bool,
    pub(super) flight: Option<Ticket<F>>,
    /// The last flight, if it was given up: its token request may be under way for a moment more.
    given_up: Option<F>,
    pub(super) backoff: Option<Backoff>,
    /// Flights in a row that ended without saying anything of the endpoint.
    pub(super) missed: u32,
    /// No renewal before this, whatever the server's `expires_in` says.
    pub(super) rest_until: Timestamp,
    budgets: Vec<(u64, Budget)>,
    /// Since eviction last looked at it.
    pub(super) used: bool,
    /// In the list of candidates for eviction, or, for the layer's own kind of token, never to be.
    pub(super) candidate: bool,
    /// Its place among those that were set aside in place of being forgotten.
    pub(super) aside: Option<u64>,
}

/// The flight under way for it.
pub(super) struct Ticket<F> {
    id: u64,
    pub(super) handle: F,
}

impl<F> Entry<F> {
    pub(super) fn new() -> Self {
        Self {
            token: None,
            suspect: false,
            flight: None,
            given_up: None,
            backoff: None,
            missed: 0,
            rest_until: Timestamp::ZERO,
            budgets: Vec::new(),
            // A newcomer has its first chance: what was just asked for is about to be fetched.
            used: true,
            candidate: true,
            aside: None,
        }
    }

    pub(super) fn is_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// Whether to forget it would let somebody ask again who has been asked to wait.
    pub(super) fn holds_back(&self) -> bool {
        self.backoff.is_some() || self.suspect || !self.budgets.is_empty()
    }

    pub(super) fn live(&self, now: Timestamp) -> Option<&Arc<Token>> {
        self.token.as_ref().filter(|token| token.live(now))
    }

    /// The end of the rest after the token's arrival, while it lasts.
    pub(super) fn rest(&self, now: Timestamp) -> Option<Timestamp> {
        (!self.suspect && self.rest_until > now).then_some(self.rest_until)
    }

    pub(super) fn depart(
        &mut self,
        flights: &mut u64,
        cause: FetchCause,
        depart: impl FnOnce(Plan, Option<F>) -> F,
    ) -> F
    where
        F: Clone,
    {
        *flights += 1;
        let plan = Plan {
            id: *flights,
            cause,
        };
        let handle = depart(plan, self.given_up.take());
        self.flight = Some(Ticket {
            id: *flights,
            handle: handle.clone(),
        });
        handle
    }

    /// The flight is over. Whatever it brought, the token's freedom is decided anew by the next call.
    ///
    /// Returns whether it was still the one under way, and had not been given up.
    pub(super) fn land(&mut self, id: u64) -> bool {
        let ticket = self.flight.take_if(|ticket| ticket.id == id);
        let under_way = ticket.is_some();
        self.given_up = ticket.map(|ticket| ticket.handle).or(self.given_up.take());
        // Nor is it forgotten before anyone has used what the flight brought.
        self.used = true;
        if let Some(token) = &self.token {
            token.set_free_until(Timestamp::ZERO);
        }
        under_way
    }

    /// Its flight has brought an answer, so nothing of it is under way any more.
    pub(super) fn is_answered(&mut self) {
        self.given_up = None;
    }

    pub(super) fn budget(
        &mut self,
        policy: &CachePolicy,
        origin: u64,
        now: Timestamp,
    ) -> &mut Budget {
        let known = self.budgets.iter().position(|(other, _)| *other == origin);
        let place = known.unwrap_or_else(|| {
            let budget = (origin, Budget::new(policy, now));
            if self.budgets.len() < MAX_BUDGETS {
                self.budgets.push(budget);
                return self.budgets.len() - 1;
            }
            let mut budgets = self.budgets.iter_mut();
            match budgets.position(|(_, known)| known.is_new(policy, now)) {
                Some(spare) => {
                    self.budgets[spare] = budget;
                    spare
                }
                // All are being spent. A budget for each newcomer would be no bound at all, so it shares one.
                None => (origin % MAX_BUDGETS as u64) as usize,
            }
        });
        &mut self.budgets[place].1
    }
}

/// No successful flight follows another of its key within this time, so that no answer of a server makes us ask once per call.
pub(super) const REST: Duration = Duration::from_secs(1);

/// Origins whose 401s are remembered for each kind of token.
const MAX_BUDGETS: usize = 64;
