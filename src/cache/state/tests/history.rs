//! Random histories of several keys, against a model.
//!
//! The model is written from the rules, not from the code: where a rule leaves something to chance, it knows the earliest and
//! the latest moment and accepts what lies between.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::cache::entry::Entry;

/// A flight as the shell would hold it.
#[derive(Clone, Copy, Debug)]
struct Launched {
    id: u64,
    cause: FetchCause,
    key: usize,
    started: Timestamp,
}

/// A row of the failure table.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Down,
    SlowDown,
    Busy(u64),
    Client,
    ClientBusy(u64),
    Scope,
    Garbage,
}

/// What the table says of a row: first step, longest step without and with a live token, whether it speaks for the endpoint,
/// and the server's own wish, all in seconds.
struct Row {
    first: u64,
    longest: [u64; 2],
    endpoint: bool,
    asked: u64,
}

impl Failure {
    fn error(self) -> Error {
        let secs = Duration::from_secs;
        match self {
            Self::Down => Error::transient("down"),
            Self::SlowDown => Error::rejected("slow_down", "busy"),
            Self::Busy(asked) => Error::transient("busy").with_retry_after(secs(asked)),
            Self::Client => Error::rejected("invalid_client", "refused"),
            Self::ClientBusy(asked) => {
                Error::rejected("invalid_client", "refused").with_retry_after(secs(asked))
            }
            Self::Scope => Error::rejected("invalid_scope", "refused"),
            Self::Garbage => Error::invalid_response("a page of a proxy"),
        }
    }

    fn row(self) -> Row {
        let transient = |asked| Row {
            first: 1,
            longest: [15, 60],
            endpoint: true,
            asked,
        };
        let rejected = |endpoint| Row {
            first: 5,
            longest: [60, 300],
            endpoint,
            asked: 0,
        };
        match self {
            Self::Down | Self::SlowDown => transient(0),
            Self::Busy(asked) => transient(asked),
            Self::ClientBusy(asked) => Row {
                asked,
                ..rejected(true)
            },
            Self::Client => rejected(true),
            Self::Scope | Self::Garbage => rejected(false),
        }
    }
}

/// Failures in a row, of the endpoint or of one key. The arrays hold the case without a live token, then the one with.
#[derive(Clone, Debug)]
struct Outage {
    streak: u32,
    /// The first step: failures that back off by other steps start over.
    first: u64,
    /// The last flight launched before the last of them: an earlier one that fails too is no new failure.
    last_flight: u64,
    earliest: [Timestamp; 2],
    latest: [Timestamp; 2],
}

impl Outage {
    fn after(
        previous: Option<&Self>,
        row: &Row,
        flight: u64,
        flights: u64,
        now: Timestamp,
    ) -> Self {
        let alike = previous.filter(|previous| previous.first == row.first);
        let same = alike.filter(|previous| flight <= previous.last_flight);
        let before = alike.map_or(0, |previous| previous.streak);
        let streak = before + u32::from(same.is_none());
        let span = |live: usize, spread: u32| {
            let half = Duration::from_secs(row.longest[live]) / 2;
            let step = Duration::from_secs(row.first << (streak - 1).min(20)).min(half);
            let cap = [300, 3600][live];
            step.max(Duration::from_secs(row.asked.min(cap))) + step * spread
        };
        let mut outage = Self {
            streak,
            first: row.first,
            last_flight: flights,
            earliest: [0, 1].map(|live| now.after(span(live, 0))),
            latest: [0, 1].map(|live| now.after(span(live, 1))),
        };
        for live in [0, 1] {
            if let Some(previous) = previous {
                outage.earliest[live] = outage.earliest[live].max(previous.earliest[live]);
                outage.latest[live] = outage.latest[live].max(previous.latest[live]);
            }
        }
        outage
    }

    fn end(&mut self) {
        self.earliest = [Timestamp::ZERO; 2];
        self.latest = [Timestamp::ZERO; 2];
    }
}

/// One key.
#[derive(Default)]
struct Kind {
    token: Option<Arc<Token>>,
    suspect: bool,
    flight: Option<u64>,
    outage: Option<Outage>,
    /// Failures in a row that were older than the last success.
    missed: u32,
    rest_until: Timestamp,
    /// When 401s of an origin were granted a renewal.
    granted: BTreeMap<u64, Vec<Timestamp>>,
}

#[derive(Clone, Debug)]
enum Op {
    Call {
        key: usize,
        refused: Option<Index>,
    },
    Free {
        key: usize,
    },
    Depart {
        flight: Index,
    },
    Succeed {
        flight: Index,
        sent: f64,
        life: Option<Duration>,
        hint: Option<Duration>,
        spread: f64,
    },
    Fail {
        flight: Index,
        failure: Failure,
        spread: f64,
    },
    Lose {
        flight: Index,
    },
    Refuse {
        token: Index,
        origin: u64,
    },
    /// An API refuses the token in force again and again, and each renewal is quick.
    Renew {
        key: usize,
        origin: u64,
        times: usize,
    },
    Forget {
        key: usize,
    },
    EndBackoff {
        key: usize,
    },
    Pass(Duration),
    /// To just before, at or just after a moment that matters.
    PassTo {
        moment: Index,
        nanos: u64,
    },
}

/// What the histories have come by: a test whose histories are dull proves nothing.
#[derive(Default)]
struct Seen([Cell<u32>; SIGHTS.len()]);

const SIGHTS: [&str; 19] = [
    "served fresh",
    "served with a renewal launched",
    "served during backoff",
    "waited with a fallback",
    "launched a flight and waited",
    "failed at once",
    "joined a flight",
    "probed",
    "kept from departing",
    "evicted",
    "discarded a late token",
    "landed a lost flight",
    "suspected",
    "refused a known one",
    "budget spent",
    "free",
    "several failures of one outage",
    "failed later than others succeeded",
    "set aside",
];

impl Seen {
    fn see(&self, sight: &str) {
        let place = SIGHTS.iter().position(|known| *known == sight);
        let cell = &self.0[place.expect("a known sight")];
        cell.set(cell.get() + 1);
    }
}

struct World<'a> {
    state: State<Launched>,
    can_change: bool,
    max_entries: usize,
    policy: CachePolicy,
    now: Timestamp,
    requests: Vec<TokenParams>,
    kinds: Vec<Kind>,
    endpoint: Option<Outage>,
    probed: Option<Timestamp>,
    /// Those whose answer may still come, the lost ones included.
    flights: Vec<Launched>,
    launched: u64,
    last_success: u64,
    generations: u64,
    tokens: Vec<Arc<Token>>,
    seen: &'a Seen,
}

impl<'a> World<'a> {
    fn new(max_entries: usize, can_change: bool, start: u64, seen: &'a Seen) -> Self {
        let policy = CachePolicy::default().max_entries(max_entries);
        let requests: Vec<_> = (0..KEYS)
            .map(|key| TokenParams::new().with_audience(format!("{key}")))
            .collect();
        Self {
            state: State::new(policy.clone(), requests[0].clone()),
            can_change,
            max_entries,
            policy,
            now: Timestamp::from_nanos(start),
            requests,
            kinds: (0..KEYS).map(|_| Kind::default()).collect(),
            endpoint: None,
            probed: None,
            flights: Vec::new(),
            launched: 0,
            last_success: 0,
            generations: 0,
            tokens: Vec::new(),
            seen,
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Call { key, refused } => {
                let refused = refused.and_then(|index| {
                    // A refusal comes before the wish for a newer token, so a token in force is suspect by then.
                    let kind = &self.kinds[key];
                    let is_refused = |token: &&Arc<Token>| {
                        token.request == self.requests[key]
                            && (kind.suspect || !is_same(kind.token.as_ref(), token))
                    };
                    let tokens: Vec<_> = self.tokens.iter().filter(is_refused).collect();
                    (!tokens.is_empty()).then(|| index.get(&tokens).generation)
                });
                self.call(key, refused);
            }
            Op::Free { key } => {
                let kind = &self.kinds[key];
                let entry = self.state.entries.get(&self.requests[key]);
                let aside = entry.is_some_and(Entry::is_aside);
                let free = kind.token.clone();
                let free = free.filter(|token| !aside && token.is_free(self.now));
                let got = self.state.free_token(&self.requests[key], self.now);
                assert_eq!(
                    got.map(|token| token.generation),
                    free.map(|token| token.generation)
                );
            }
            Op::Depart { flight } => self.depart(flight),
            Op::Succeed {
                flight,
                sent,
                life,
                hint,
                spread,
            } => {
                if let Some(place) = self.pick(flight) {
                    self.succeed(place, sent, life, hint, spread);
                }
            }
            Op::Fail {
                flight,
                failure,
                spread,
            } => {
                if let Some(place) = self.pick(flight) {
                    self.fail(place, failure, spread);
                }
            }
            Op::Lose { flight } => {
                if let Some(flight) = self.pick(flight).map(|place| self.flights[place]) {
                    let request = &self.requests[flight.key];
                    self.state.lost(request, flight.id, self.now);
                    self.land(flight);
                }
            }
            Op::Refuse { token, origin } => {
                // Mostly a recent one.
                let recent = &self.tokens[self.tokens.len().saturating_sub(4)..];
                if !recent.is_empty() {
                    let token = Arc::clone(token.get(recent));
                    self.refuse(&token, origin);
                }
            }
            Op::Renew { key, origin, times } => {
                for _ in 0..times {
                    if let Some(token) = self.kinds[key].token.clone() {
                        self.refuse(&token, origin);
                        self.call(key, None);
                    }
                    let flight = self.kinds[key].flight;
                    let place = self
                        .flights
                        .iter()
                        .position(|known| Some(known.id) == flight);
                    if let Some(place) = place {
                        self.succeed(place, 0.0, Some(Duration::from_secs(3600)), None, 0.0);
                    }
                    self.check();
                }
            }
            Op::Forget { key } => {
                self.state.forget(&self.requests[key]);
                self.end_backoff(key);
                let kind = &mut self.kinds[key];
                kind.token = None;
                kind.suspect = false;
                kind.rest_until = Timestamp::ZERO;
            }
            Op::EndBackoff { key } => {
                self.state.end_backoff(&self.requests[key]);
                self.end_backoff(key);
            }
            Op::Pass(span) => self.now = self.now.after(span),
            Op::PassTo { moment, nanos } => {
                let moments = self.moments();
                if !moments.is_empty() {
                    let moment = moment.get(&moments);
                    let moment = moment.before(Duration::from_nanos(1));
                    self.now = self.now.max(moment.after(Duration::from_nanos(nanos)));
                }
            }
        }
        self.check();
    }

    fn call(&mut self, key: usize, refused: Option<u64>) {
        let now = self.now;
        let kind = &self.kinds[key];
        let live = kind.token.clone().filter(|token| now < token.schedule.end);
        let (earliest, latest) = self.next_launch(key);
        let failing = self.failing(key);
        let usable = live.filter(|token| refused.is_none_or(|old| token.generation > old));
        let joins = kind.flight;
        let fresh = usable
            .as_ref()
            .is_some_and(|token| now < token.schedule.stale && !kind.suspect);
        let cause = match &usable {
            None if refused.is_some() => FetchCause::Refused,
            None => FetchCause::NoToken,
            Some(_) if kind.suspect => FetchCause::Refused,
            Some(token) if now < token.schedule.last_stretch => FetchCause::Ahead,
            Some(_) => FetchCause::LastStretch,
        };

        let mut plan = None;
        let depart = |new: Plan, _| {
            plan = Some(new);
            Launched {
                id: new.id,
                cause: new.cause,
                key,
                started: now,
            }
        };
        let request = self.requests[key].clone();
        let decision = self
            .state
            .call(&request, now, refused, self.can_change, ANYTHING, depart);

        match plan {
            Some(plan) => {
                assert!(joins.is_none(), "two flights of one key");
                assert!(!fresh, "a fresh token was renewed");
                if plan.cause == FetchCause::Credentials {
                    assert!(self.can_change && failing.1 > now, "nothing to probe for");
                    assert!(
                        self.rest(key) <= now,
                        "a probe could bring a token too early"
                    );
                    assert!(self.probe_is_due(), "probed more than once a second");
                    self.probed = Some(now);
                    self.seen.see("probed");
                } else {
                    assert!(
                        now >= earliest,
                        "launched {:?} too early",
                        earliest.since(now)
                    );
                    assert_eq!(plan.cause, cause);
                }
                self.launched += 1;
                assert_eq!(plan.id, self.launched);
                let flight = Launched {
                    id: plan.id,
                    cause: plan.cause,
                    key,
                    started: now,
                };
                self.flights.push(flight);
                self.kinds[key].flight = Some(plan.id);
            }
            None if !fresh && joins.is_none() => {
                assert!(now < latest, "kept from launching for no reason");
                let probe = self.can_change && failing.0 > now && self.rest(key) <= now;
                assert!(
                    !(probe && self.probe_is_due()),
                    "no look at the credentials"
                );
            }
            None => {}
        }

        let flying = self.kinds[key].flight;
        match (usable, decision) {
            (Some(usable), Decision::Serve { token, launch }) => {
                assert!(Arc::ptr_eq(&usable, &token));
                assert_eq!(launch.map(|flight| flight.id), plan.map(|plan| plan.id));
                let at_once = fresh || cause == FetchCause::Ahead || flying.is_none();
                assert!(at_once, "served before a renewal that was worth a moment");
                self.seen.see(match plan {
                    Some(_) => "served with a renewal launched",
                    None if fresh => "served fresh",
                    None => "served during backoff",
                });
            }
            (
                Some(usable),
                Decision::Wait {
                    flight,
                    launch,
                    fallback: Some(fallback),
                },
            ) => {
                assert!(matches!(cause, FetchCause::Refused | FetchCause::LastStretch) && !fresh);
                assert!(Arc::ptr_eq(&usable, &fallback.token));
                let quarter = usable.schedule.end.since(now) / 4;
                assert_eq!(fallback.wait, quarter.min(Duration::from_secs(1)));
                assert_eq!(Some(flight.id), flying);
                assert_eq!(launch, plan.is_some());
                self.seen.see("waited with a fallback");
            }
            (
                None,
                Decision::Wait {
                    flight,
                    launch,
                    fallback: None,
                },
            ) => {
                assert_eq!(Some(flight.id), flying);
                assert_eq!(launch, plan.is_some());
                let launched = plan.is_some();
                self.seen.see(if launched {
                    "launched a flight and waited"
                } else {
                    "joined a flight"
                });
            }
            (None, Decision::Fail(error)) => {
                assert!(flying.is_none() && plan.is_none());
                let wait = error
                    .retry_after()
                    .expect("the time until the next attempt");
                assert!(
                    !wait.is_zero() && now.after(wait) >= failing.0 && now.after(wait) <= failing.1
                );
                self.seen.see("failed at once");
            }
            (usable, decision) => panic!("{decision:?} with {usable:?}"),
        }
    }

    fn depart(&mut self, flight: Index) {
        let Some(flight) = self.pick(flight).map(|place| self.flights[place]) else {
            return;
        };
        let failing = self.failing(flight.key);
        match self.state.may_depart(&self.requests[flight.key], self.now) {
            Ok(()) => assert!(self.now >= failing.0, "departed during backoff"),
            Err(_) => {
                assert!(self.now < failing.1, "kept from departing for no reason");
                self.seen.see("kept from departing");
            }
        }
    }

    fn succeed(
        &mut self,
        place: usize,
        sent: f64,
        life: Option<Duration>,
        hint: Option<Duration>,
        spread: f64,
    ) {
        let flight = self.take(place);
        let now = self.now;
        let sent = flight
            .started
            .after(now.since(flight.started).mul_f64(sent));
        let schedule = Schedule::new(&self.policy, sent, now, life, hint, spread);
        check_schedule(&schedule, sent, now, life, hint);

        self.last_success = self.last_success.max(flight.id);
        let request = self.requests[flight.key].clone();
        let token = self
            .state
            .succeeded(&request, flight.id, now, |generation| {
                token(&request, generation, flight.id, schedule)
            });
        if self
            .endpoint
            .as_ref()
            .is_some_and(|outage| flight.id > outage.last_flight)
        {
            self.endpoint = None;
        }
        self.land(flight);
        let kind = &mut self.kinds[flight.key];
        match kind.token.as_ref().filter(|held| held.flight > flight.id) {
            Some(held) => {
                assert!(Arc::ptr_eq(held, &token), "a newer token was displaced");
                self.seen.see("discarded a late token");
            }
            None => {
                assert!(token.generation > self.generations);
                self.generations = token.generation;
                kind.token = Some(Arc::clone(&token));
                kind.suspect = false;
                kind.outage = None;
                kind.missed = 0;
                kind.rest_until = now.after(Duration::from_secs(1));
                self.tokens.push(token);
            }
        }
    }

    fn fail(&mut self, place: usize, failure: Failure, spread: f64) {
        let flight = self.take(place);
        let now = self.now;
        let error = failure.error();
        let request = &self.requests[flight.key];
        self.state.failed(request, flight.id, now, &error, spread);

        let under_way = self.kinds[flight.key].flight == Some(flight.id);
        self.land(flight);
        if !under_way {
            return;
        }
        let row = failure.row();
        let outdated = row.endpoint && flight.id < self.last_success;
        let kind = &mut self.kinds[flight.key];
        if outdated {
            self.seen.see("failed later than others succeeded");
        }
        // Who was asked to wait waits.
        if outdated && row.asked == 0 {
            kind.missed += 1;
            if kind.missed < 2 {
                return;
            }
        }
        if !outdated {
            kind.missed = 0;
        }
        let outage = if row.endpoint && !outdated {
            &mut self.endpoint
        } else {
            &mut kind.outage
        };
        let streak = outage.as_ref().map(|outage| outage.streak);
        let next = Outage::after(outage.as_ref(), &row, flight.id, self.launched, now);
        if streak == Some(next.streak) {
            self.seen.see("several failures of one outage");
        }
        *outage = Some(next);
    }

    fn refuse(&mut self, token: &Arc<Token>, origin: u64) {
        let now = self.now;
        let key = self
            .requests
            .iter()
            .position(|known| *known == token.request);
        let kind = &mut self.kinds[key.expect("a key of ours")];
        let in_force = is_same(kind.token.as_ref(), token);
        let counts = in_force && token.live(now) && !kind.suspect;
        let granted = kind.granted.entry(origin).or_default();
        match self.state.refused(token, origin, now) {
            Refusal::Known => {
                assert!(!counts, "a refusal was overlooked");
                self.seen.see("refused a known one");
            }
            Refusal::Suspected => {
                assert!(counts);
                granted.push(now);
                for (place, first) in granted.iter().enumerate() {
                    let back = now.since(*first).as_secs() / 30;
                    let in_window = (granted.len() - place) as u64;
                    assert!(in_window <= 3 + back, "more renewals than the budget has");
                }
                kind.suspect = true;
                self.seen.see("suspected");
            }
            Refusal::BudgetSpent { .. } => {
                assert!(counts);
                assert!(granted.len() >= 3);
                let last = granted.last().expect("three at least");
                assert!(
                    now.since(*last) < Duration::from_secs(600),
                    "none came back"
                );
                self.seen.see("budget spent");
            }
        }
    }

    fn end_backoff(&mut self, key: usize) {
        let own = self.kinds[key].outage.as_mut();
        for outage in own.into_iter().chain(self.endpoint.as_mut()) {
            outage.end();
        }
    }

    fn pick(&self, flight: Index) -> Option<usize> {
        (!self.flights.is_empty()).then(|| flight.index(self.flights.len()))
    }

    /// Takes a flight out of the air. One that looked at the credentials has found them changed.
    fn take(&mut self, place: usize) -> Launched {
        let flight = self.flights.swap_remove(place);
        if flight.cause == FetchCause::Credentials {
            self.state.end_every_backoff();
            (0..KEYS).for_each(|key| self.end_backoff(key));
        }
        if self.kinds[flight.key].flight != Some(flight.id) {
            self.seen.see("landed a lost flight");
        }
        flight
    }

    fn land(&mut self, flight: Launched) {
        let kind = &mut self.kinds[flight.key];
        if kind.flight == Some(flight.id) {
            kind.flight = None;
        }
    }

    /// Whether there is a token to rest on: live, and not suspect.
    fn is_live(&self, key: usize) -> bool {
        let kind = &self.kinds[key];
        let token = kind.token.as_ref().filter(|_| !kind.suspect);
        token.is_some_and(|token| self.now < token.schedule.end)
    }

    /// The earliest and the latest end of the failures in force.
    fn failing(&self, key: usize) -> (Timestamp, Timestamp) {
        let live = usize::from(self.is_live(key));
        let outages = [self.endpoint.as_ref(), self.kinds[key].outage.as_ref()];
        outages.into_iter().flatten().fold(
            (Timestamp::ZERO, Timestamp::ZERO),
            |(earliest, latest), outage| {
                (
                    earliest.max(outage.earliest[live]),
                    latest.max(outage.latest[live]),
                )
            },
        )
    }

    /// Between these a flight may start or not; before it must not, and after it must when it is needed.
    fn next_launch(&self, key: usize) -> (Timestamp, Timestamp) {
        let (earliest, latest) = self.failing(key);
        let rest = self.rest(key);
        (earliest.max(rest), latest.max(rest))
    }

    fn rest(&self, key: usize) -> Timestamp {
        let kind = &self.kinds[key];
        if kind.suspect {
            Timestamp::ZERO
        } else {
            kind.rest_until
        }
    }

    fn probe_is_due(&self) -> bool {
        self.probed
            .is_none_or(|last| self.now.since(last) >= Duration::from_secs(1))
    }

    fn moments(&self) -> Vec<Timestamp> {
        let mut moments = Vec::new();
        moments.extend(self.probed.map(|last| last.after(Duration::from_secs(1))));
        for (key, kind) in self.kinds.iter().enumerate() {
            let (earliest, latest) = self.next_launch(key);
            moments.extend([earliest, latest, kind.rest_until]);
            if let Some(token) = &kind.token {
                let Schedule {
                    stale,
                    last_stretch,
                    end,
                    ..
                } = token.schedule;
                moments.extend([stale, last_stretch, end]);
            }
        }
        moments.retain(|moment| *moment >= self.now);
        moments
    }

    /// What holds at any time.
    fn check(&mut self) {
        for key in 0..KEYS {
            let request = &self.requests[key];
            if self.state.entries.get(request).is_none() {
                assert_ne!(key, 0, "the layer's own kind was evicted");
                assert_eq!(self.kinds[key].flight, None, "evicted in flight");
                if self.kinds[key].token.is_some() || self.kinds[key].outage.is_some() {
                    self.seen.see("evicted");
                }
                self.kinds[key] = Kind::default();
            }
            let entry = self.state.entries.get(request);
            if entry.is_some_and(Entry::is_aside) {
                self.seen.see("set aside");
            }
            self.check_key(key);
        }
        let flying = self
            .kinds
            .iter()
            .filter(|kind| kind.flight.is_some())
            .count();
        // The layer's own kind comes on top, and as many as are kept may be set aside.
        let bound = 2 * self.max_entries + flying + 1;
        assert!(self.state.len() <= bound, "the bound is not kept");
        self.state.entries.check(&self.requests[0]);
    }

    fn check_key(&self, key: usize) {
        let (kind, request, now) = (&self.kinds[key], &self.requests[key], self.now);
        assert_eq!(self.state.is_fetching(request), kind.flight.is_some());
        assert_eq!(self.state.is_suspect(request), kind.suspect);
        let held = self.state.token(request);
        assert_eq!(held.map(Arc::as_ptr), kind.token.as_ref().map(Arc::as_ptr));
        for token in self.tokens.iter().filter(|token| token.request == *request) {
            assert!(
                is_same(held, token) || held.is_none_or(|held| held.generation > token.generation)
            );
        }

        let Some(token) = held.filter(|token| token.is_free(now)) else {
            return;
        };
        self.seen.see("free");
        assert!(token.live(now), "free after its end");
        if now < token.schedule.stale && !kind.suspect {
            return;
        }
        if kind.flight.is_some() {
            let waits = kind.suspect || now >= token.schedule.last_stretch;
            assert!(!waits, "free where a call would wait");
        } else {
            assert!(
                now < self.next_launch(key).1,
                "free where a call would launch"
            );
            let probes = self.can_change && self.failing(key).0 > now && self.rest(key) <= now;
            assert!(
                !(probes && self.probe_is_due()),
                "free where a call would probe"
            );
        }
    }
}

/// R10, R11 and R13.
fn check_schedule(
    schedule: &Schedule,
    sent: Timestamp,
    received: Timestamp,
    life: Option<Duration>,
    hint: Option<Duration>,
) {
    let secs = Duration::from_secs;
    let life = life.unwrap_or(secs(300)).min(secs(365 * 86_400));
    let end = sent.after(life).max(received.after(secs(1)));
    assert_eq!(schedule.end, end);
    let life = end.since(sent);
    let last_stretch = end.before(secs(30).min(life / 10));
    assert_eq!(schedule.last_stretch, last_stretch);
    let ahead = secs(300).min(life / 5);
    let begins = match hint {
        None => end.before(ahead),
        Some(hint) => sent.after(hint.max(life / 4)).min(last_stretch),
    };
    assert!(schedule.stale >= begins && schedule.stale <= last_stretch);
    assert!(schedule.stale <= begins.after(ahead / 10));
}

fn is_same(held: Option<&Arc<Token>>, token: &Arc<Token>) -> bool {
    held.is_some_and(|held| Arc::ptr_eq(held, token))
}

const KEYS: usize = 4;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || 0..KEYS;
    let flight = any::<Index>;
    let spread = || prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
    let span = || {
        prop_oneof![
            Just(Duration::ZERO),
            (0..4000_u64).prop_map(Duration::from_secs),
            (0..2_000_000_000_u64).prop_map(Duration::from_nanos),
            Just(Duration::MAX),
        ]
    };
    let pass = prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        (0..2_000_000_000_u64).prop_map(Duration::from_nanos),
        (0..100_000_u64).prop_map(Duration::from_millis),
        (0..8000_u64).prop_map(Duration::from_secs),
        (0..900_u64).prop_map(|days| Duration::from_secs(days * 86_400)),
    ];
    let asked = || prop_oneof![Just(0), Just(7), 0..10_000_u64, Just(u64::MAX)];
    let failure = prop_oneof![
        3 => Just(Failure::Down),
        1 => Just(Failure::SlowDown),
        1 => asked().prop_map(Failure::Busy),
        1 => Just(Failure::Client),
        1 => asked().prop_map(Failure::ClientBusy),
        2 => Just(Failure::Scope),
        1 => Just(Failure::Garbage),
    ];
    let hint = proptest::option::weighted(0.3, span());
    let life = proptest::option::weighted(0.8, span());
    let op = prop_oneof![
        10 => (key(), proptest::option::weighted(0.2, any::<Index>()))
            .prop_map(|(key, refused)| Op::Call { key, refused }),
        1 => key().prop_map(|key| Op::Free { key }),
        1 => flight().prop_map(|flight| Op::Depart { flight }),
        4 => (flight(), 0.0..1.0, life, hint, spread()).prop_map(
            |(flight, sent, life, hint, spread)| Op::Succeed { flight, sent, life, hint, spread }
        ),
        4 => (flight(), failure, spread())
            .prop_map(|(flight, failure, spread)| Op::Fail { flight, failure, spread }),
        2 => flight().prop_map(|flight| Op::Lose { flight }),
        3 => (any::<Index>(), 0..2_u64).prop_map(|(token, origin)| Op::Refuse { token, origin }),
        4 => (key(), 0..2_u64, 1..5_usize).prop_map(|(key, origin, times)| Op::Renew { key, origin, times }),
        1 => key().prop_map(|key| Op::Forget { key }),
        1 => key().prop_map(|key| Op::EndBackoff { key }),
        3 => pass.prop_map(Op::Pass),
        5 => (any::<Index>(), 0..3_u64).prop_map(|(moment, nanos)| Op::PassTo { moment, nanos }),
    ];
    proptest::collection::vec(op, 1..120)
}

#[test]
fn no_history_of_calls_answers_refusals_and_time_breaks_a_rule() {
    let seen = Seen::default();
    let config = Config {
        cases: 1000,
        max_shrink_iters: 20_000,
        ..Config::with_source_file(file!())
    };
    let history = (1..=5_usize, any::<bool>(), 0..1_u64 << 60, ops());
    let outcome = TestRunner::new(config).run(&history, |(entries, can_change, start, ops)| {
        let mut world = World::new(entries, can_change, start, &seen);
        for op in ops {
            world.step(op);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    for (sight, count) in SIGHTS.iter().zip(&seen.0) {
        assert!(count.get() > 10, "{sight}: {}", count.get());
    }
}
