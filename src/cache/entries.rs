//! All kinds of token in the cache, within bounds.

use std::collections::{HashMap, VecDeque};

use super::entry::Entry;
use crate::grant::TokenRequest;

/// The entries by what is asked for, and which of them may be evicted.
pub(super) struct Entries<F> {
    map: HashMap<TokenRequest, Entry<F>>,
    /// In second-chance order. The layer's own kind of token is not among them.
    candidates: VecDeque<TokenRequest>,
    max_candidates: usize,
}

impl<F> Entries<F> {
    /// `own` is the layer's own kind of token, whose entry is there from the start and is never evicted.
    pub(super) fn new(own: TokenRequest, max_candidates: usize) -> Self {
        Self {
            map: HashMap::from([(own, Entry::new())]),
            candidates: VecDeque::new(),
            max_candidates,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get(&self, request: &TokenRequest) -> Option<&Entry<F>> {
        self.map.get(request)
    }

    pub(super) fn get_mut(&mut self, request: &TokenRequest) -> Option<&mut Entry<F>> {
        self.map.get_mut(request)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry<F>> {
        self.map.values()
    }

    /// The entry, made if it is not there.
    pub(super) fn admit(&mut self, request: &TokenRequest) -> &mut Entry<F> {
        if !self.map.contains_key(request) {
            self.map.insert(request.clone(), Entry::new());
            self.candidates.push_back(request.clone());
            self.shrink();
        }
        self.map
            .get_mut(request)
            .expect("a newcomer is the last to be evicted")
    }

    /// A flight of this key is over.
    pub(super) fn land(&mut self, request: &TokenRequest, flight: u64) {
        let Some(entry) = self.map.get_mut(request) else {
            return;
        };
        entry.land(flight);
        if !std::mem::replace(&mut entry.candidate, true) {
            self.candidates.push_back(request.clone());
        }
        self.shrink();
    }

    /// Evicts what was not used since it was last looked at. What is being fetched is no candidate and does not count: it
    /// is bounded by the callers who wait for it.
    ///
    /// Each turn either evicts, or takes back a chance that a use had given, or drops a candidate that a fetch had made none, so
    /// the work per use is constant on average, however many entries there are.
    fn shrink(&mut self) {
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
            } else {
                self.map.remove(&oldest);
            }
        }
    }

    /// That both halves agree, for the tests of the state machine.
    #[cfg(test)]
    pub(super) fn check(&self, own: &TokenRequest) {
        let candidates: std::collections::HashSet<_> = self.candidates.iter().collect();
        assert_eq!(
            candidates.len(),
            self.candidates.len(),
            "a candidate stands in the list twice"
        );
        assert!(candidates.len() <= self.max_candidates);
        for (request, entry) in &self.map {
            let listed = candidates.contains(request);
            assert_eq!(listed, entry.candidate && request != own);
            assert!(listed || request == own || entry.flight.is_some());
        }
    }
}
