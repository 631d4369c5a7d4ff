//! All kinds of token in the cache, within bounds.
//!
//! What is evicted is forgotten, but for entries that keep somebody from asking again: a backoff, a
//! budget that is being spent, a suspect token. As many of those as may be kept are set aside, and
//! past that the oldest is forgotten.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::entry::Entry;
use crate::clock::Timestamp;
use crate::params::TokenParams;

/// The entries by what is asked for, and which of them may be evicted.
pub(super) struct Entries<F> {
    map: HashMap<TokenParams, Entry<F>>,
    /// In second-chance order. The layer's own kind of token is not among them.
    candidates: VecDeque<TokenParams>,
    max_candidates: usize,
    /// Those that were set aside, in the order in which they were.
    aside: BTreeMap<u64, TokenParams>,
    set_aside: u64,
    /// Live tokens forgotten since this was last asked.
    evicted: usize,
}

impl<F> Entries<F> {
    /// `own` is the layer's own kind of token, whose entry is there from the start and is never evicted.
    pub(super) fn new(own: TokenParams, max_candidates: usize) -> Self {
        Self {
            map: HashMap::from([(own, Entry::new())]),
            candidates: VecDeque::new(),
            max_candidates,
            aside: BTreeMap::new(),
            set_aside: 0,
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get(&self, request: &TokenParams) -> Option<&Entry<F>> {
        self.map.get(request)
    }

    pub(super) fn get_mut(&mut self, request: &TokenParams) -> Option<&mut Entry<F>> {
        self.map.get_mut(request)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry<F>> {
        self.map.values()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Entry<F>> {
        self.map.values_mut()
    }

    pub(super) fn take_evicted(&mut self) -> usize {
        std::mem::take(&mut self.evicted)
    }

    /// The entry, made if it is not there.
    pub(super) fn admit(&mut self, request: &TokenParams, now: Timestamp) -> &mut Entry<F> {
        let newcomer = match self.map.get_mut(request) {
            None => {
                self.map.insert(request.clone(), Entry::new());
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
            self.candidates.push_back(request.clone());
            self.shrink(now);
        }
        self.map
            .get_mut(request)
            .expect("a newcomer is the last to be evicted")
    }

    /// A flight of this key is over. Returns whether it was still the one under way.
    pub(super) fn land(&mut self, request: &TokenParams, flight: u64, now: Timestamp) -> bool {
        let Some(entry) = self.map.get_mut(request) else {
            return false;
        };
        let under_way = entry.land(flight);
        if !entry.is_aside() && !std::mem::replace(&mut entry.candidate, true) {
            self.candidates.push_back(request.clone());
        }
        self.shrink(now);
        under_way
    }

    /// Evicts what was not used since it was last looked at. What is being fetched is no candidate and does not count: it
    /// is bounded by the callers who wait for it.
    ///
    /// Each turn either evicts, or takes back a chance that a use had given, or drops a candidate that a fetch had made none, so
    /// the work per use is constant on average, however many entries there are.
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
            } else if std::mem::take(&mut entry.used) {
                self.candidates.push_back(oldest);
            } else if entry.holds_back() {
                self.set_aside += 1;
                entry.aside = Some(self.set_aside);
                self.aside.insert(self.set_aside, oldest);
                self.forget_oldest(now);
            } else {
                self.forget(&oldest, now);
            }
        }
    }

    fn forget_oldest(&mut self, now: Timestamp) {
        if self.aside.len() > self.max_candidates
            && let Some((_, oldest)) = self.aside.pop_first()
        {
            self.forget(&oldest, now);
        }
    }

    fn forget(&mut self, request: &TokenParams, now: Timestamp) {
        let entry = self.map.remove(request);
        let live = entry.is_some_and(|entry| entry.live(now).is_some());
        self.evicted += usize::from(live);
    }

    /// That both halves agree, for the tests of the state machine.
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
        for (place, request) in &self.aside {
            assert_eq!(self.map[request].aside, Some(*place));
        }
        for (request, entry) in &self.map {
            let listed = candidates.contains(request);
            assert_eq!(
                listed,
                entry.candidate && request != own && !entry.is_aside()
            );
            assert!(listed || request == own || entry.flight.is_some() || entry.is_aside());
        }
    }
}
