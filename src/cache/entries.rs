//! What the cache holds for each set of parameters, within bounds.
//!
//! What is evicted is forgotten, but for entries that keep somebody from asking again: a backoff, a
//! budget that is being spent, a suspect token. As many of those as may be kept are set aside, and
//! past that the oldest is forgotten.
//!
//! Rules: R13, R20.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;

use rustc_hash::FxBuildHasher;

use super::backoff::{Backoff, Budgets};
use super::lifetime::Lifetime;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::params::TokenParams;

/// A token that was brought for one set of parameters. `T` is what the shell hands out for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<T> {
    pub(super) token: T,
    /// The flight that brought it, which is also its generation: a later flight's token displaces
    /// it, an earlier one's does not.
    pub(super) generation: u64,
    pub(super) lifetime: Lifetime,
}

/// What is known for one set of parameters.
pub(super) struct Entry<T> {
    pub(super) held: Option<Held<T>>,
    /// An API refused the token, and it is used only if it cannot be renewed.
    pub(super) suspect: bool,
    /// Until when the token may be served without a decision. A moment that has passed says that
    /// the next call decides.
    pub(super) free_until: Timestamp,
    /// The flight under way.
    pub(super) flight: Option<u64>,
    /// The last flight, if it was given up: its token request may be under way for a moment more.
    pub(super) given_up: Option<u64>,
    pub(super) backoff: Option<Backoff>,
    /// Flights in a row that ended without saying anything of the endpoint.
    pub(super) missed: u32,
    pub(super) budgets: Budgets,
    /// Since eviction last looked at it.
    pub(super) used: bool,
    /// In the list of candidates for eviction; the layer's own entry is never to be.
    candidate: bool,
    /// Its place among those that were set aside in place of being forgotten.
    aside: Option<u64>,
}

impl<T> Entry<T> {
    fn new() -> Self {
        Self {
            held: None,
            suspect: false,
            free_until: Timestamp::ZERO,
            flight: None,
            given_up: None,
            backoff: None,
            missed: 0,
            budgets: Budgets::default(),
            // A newcomer has its first chance: what was just asked for is about to be fetched.
            used: true,
            candidate: true,
            aside: None,
        }
    }

    pub(super) fn live(&self, now: Timestamp) -> Option<&Held<T>> {
        self.held.as_ref().filter(|held| held.lifetime.is_live(now))
    }

    /// Whether to forget it would let somebody ask again who has been asked to wait.
    fn holds_back(&self) -> bool {
        self.backoff.is_some() || self.suspect || !self.budgets.is_empty()
    }
}

/// What the machine leaves to the shell since it was last asked.
#[derive(Default)]
pub(super) struct Left {
    /// Live tokens that were forgotten.
    pub(super) evicted: usize,
    /// To be dropped outside the lock: a source's own error may run anything then.
    pub(super) errors: Vec<Error>,
}

/// The entries by their parameters, and which of them may be evicted.
pub(super) struct Entries<T> {
    /// By a fast hash of the keyed hash that parameters have.
    map: HashMap<TokenParams, Entry<T>, FxBuildHasher>,
    /// In second-chance order. The layer's own entry is not among them.
    candidates: VecDeque<TokenParams>,
    max_candidates: usize,
    /// Those that were set aside, in the order in which they were.
    aside: BTreeMap<u64, TokenParams>,
    set_aside: u64,
    left: Left,
}

impl<T> Entries<T> {
    /// The entry of the layer's own parameters is there from the start and is never evicted.
    pub(super) fn new(own: TokenParams, max_candidates: usize) -> Self {
        Self {
            map: HashMap::from_iter([(own, Entry::new())]),
            candidates: VecDeque::new(),
            max_candidates,
            aside: BTreeMap::new(),
            set_aside: 0,
            left: Left::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get(&self, params: &TokenParams) -> Option<&Entry<T>> {
        self.map.get(params)
    }

    pub(super) fn get_mut(&mut self, params: &TokenParams) -> Option<&mut Entry<T>> {
        self.map.get_mut(params)
    }

    /// One that was set aside comes back by a decision only.
    pub(super) fn get_active(&mut self, params: &TokenParams) -> Option<&mut Entry<T>> {
        self.map
            .get_mut(params)
            .filter(|entry| entry.aside.is_none())
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Entry<T>> {
        self.map.values_mut()
    }

    pub(super) fn take_left(&mut self) -> Left {
        mem::take(&mut self.left)
    }

    /// A failure is out of date.
    pub(super) fn leave(&mut self, error: Option<Error>) {
        self.left.errors.extend(error);
    }

    /// The entry, made if it is not there.
    pub(super) fn admit(&mut self, params: &TokenParams, now: Timestamp) -> &mut Entry<T> {
        let newcomer = match self.map.get_mut(params) {
            None => {
                self.map.insert(params.clone(), Entry::new());
                true
            }
            Some(entry) => match entry.aside.take() {
                Some(place) => {
                    self.aside.remove(&place);
                    entry.used = true;
                    true
                }
                None => false,
            },
        };
        if newcomer {
            self.candidates.push_back(params.clone());
            self.shrink(now);
        }
        self.map
            .get_mut(params)
            .expect("a newcomer is the last to be evicted")
    }

    /// A flight of this entry is over. Returns whether it was still the one under way.
    pub(super) fn ended(&mut self, params: &TokenParams, flight: u64, now: Timestamp) -> bool {
        let Some(entry) = self.map.get_mut(params) else {
            return false;
        };
        let ended = entry.flight.take_if(|under_way| *under_way == flight);
        entry.given_up = ended.or(entry.given_up);
        // Keep it until someone has used the new token; the next call decides.
        entry.used = true;
        entry.free_until = Timestamp::ZERO;
        if entry.aside.is_none() && !mem::replace(&mut entry.candidate, true) {
            self.candidates.push_back(params.clone());
        }
        self.shrink(now);
        ended.is_some()
    }

    /// Evicts what was not used since it was last looked at. What is being fetched is no candidate
    /// and does not count: it is bounded by the callers who wait for it.
    ///
    /// Each turn either evicts, or takes back a chance that a use had given, or drops a candidate
    /// that a fetch had made none, so the work for each use is constant on average.
    fn shrink(&mut self, now: Timestamp) {
        while self.candidates.len() > self.max_candidates {
            let Some(oldest) = self.candidates.pop_front() else {
                return;
            };
            let Some(entry) = self.map.get_mut(&oldest) else {
                continue;
            };
            if entry.flight.is_some() {
                entry.candidate = false;
            } else if mem::take(&mut entry.used) {
                self.candidates.push_back(oldest);
            } else if entry.holds_back() {
                self.set_aside += 1;
                entry.aside = Some(self.set_aside);
                self.aside.insert(self.set_aside, oldest);
                if self.aside.len() > self.max_candidates {
                    let oldest = self.aside.pop_first();
                    oldest.inspect(|(_, oldest)| self.forget(oldest, now));
                }
            } else {
                self.forget(&oldest, now);
            }
        }
    }

    fn forget(&mut self, params: &TokenParams, now: Timestamp) {
        let Some(entry) = self.map.remove(params) else {
            return;
        };
        self.left.evicted += usize::from(entry.live(now).is_some());
        self.leave(entry.backoff.map(|backoff| backoff.error));
    }

    /// Checks that map and lists agree, for the tests of the machine.
    #[cfg(test)]
    pub(super) fn check(&self, own: &TokenParams) {
        let candidates: std::collections::HashSet<_> = self.candidates.iter().collect();
        assert_eq!(
            candidates.len(),
            self.candidates.len(),
            "a candidate stands in the list twice"
        );
        assert!(candidates.len() <= self.max_candidates);
        assert!(self.aside.len() <= self.max_candidates);
        for (place, params) in &self.aside {
            assert_eq!(self.map[params].aside, Some(*place));
        }
        for (params, entry) in &self.map {
            let (listed, aside) = (candidates.contains(params), entry.aside.is_some());
            assert_eq!(listed, entry.candidate && params != own && !aside);
            assert!(listed || params == own || entry.flight.is_some() || aside);
        }
    }
}
