//! What holds in every history: random calls, ends, 401s and times for several parameters.
//!
//! Nothing here knows the policy's numbers but the three that the rules promise to everybody: the
//! rest of R13, the pace of R17 and the budget of R20. The machine is held to what it has said:
//! who is told to wait does wait, and a token that is served is one that a flight brought.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Call {
        key: usize,
        newer: bool,
        able: bool,
    },
    Succeed {
        flight: Index,
        life: u64,
        slow: u64,
        new_credentials: bool,
    },
    Fail {
        flight: Index,
        error: usize,
    },
    End {
        flight: Index,
        how: usize,
    },
    Refuse {
        token: Index,
        origin: u64,
    },
    /// An API refuses each token in force, and each renewal is quick.
    RefuseAll {
        key: usize,
        origin: u64,
    },
    Forget(usize),
    EndBackoff(usize),
    Pass(Duration),
    /// Two callers that read the clock may take the lock in the other order.
    StepBack(Duration),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = 0..KEYS;
    let index = any::<Index>;
    let life = prop_oneof![0..3_u64, 3..60_u64, 60..4_000_u64];
    let span = prop_oneof![
        (0..2_000_u64).prop_map(Duration::from_millis),
        (0..30_000_u64).prop_map(Duration::from_millis),
        (0..4_000_u64).prop_map(Duration::from_secs),
    ];
    let op = prop_oneof![
        12 => (key.clone(), prop::bool::weighted(0.1), prop::bool::weighted(0.9))
            .prop_map(|(key, newer, able)| Op::Call { key, newer, able }),
        5 => (index(), life, 0..10_u64, prop::bool::weighted(0.05)).prop_map(
            |(flight, life, slow, new_credentials)| Op::Succeed {
                flight,
                life,
                slow,
                new_credentials,
            }
        ),
        4 => (index(), 0..ERRORS).prop_map(|(flight, error)| Op::Fail { flight, error }),
        2 => (index(), 0..4_usize).prop_map(|(flight, how)| Op::End { flight, how }),
        3 => (index(), 0..2_u64).prop_map(|(token, origin)| Op::Refuse { token, origin }),
        1 => (key.clone(), 0..2_u64).prop_map(|(key, origin)| Op::RefuseAll { key, origin }),
        1 => key.clone().prop_map(Op::Forget),
        1 => key.prop_map(Op::EndBackoff),
        6 => span.clone().prop_map(Op::Pass),
        1 => (0..500_u64).prop_map(|millis| Op::StepBack(Duration::from_millis(millis))),
    ];
    prop::collection::vec(op, 1..200)
}

const KEYS: usize = 6;
const ERRORS: usize = 5;

fn error(number: usize) -> Error {
    let down = Error::transient("down");
    match number {
        0 => down,
        1 => down.with_retry_after(secs(90)),
        2 => Error::rejected("invalid_client", "rejected"),
        3 => Error::rejected("invalid_scope", "rejected"),
        _ => Error::invalid_response("a page of a proxy"),
    }
}

#[derive(Clone, Copy)]
struct Launched {
    id: u64,
    key: usize,
    /// Nobody has ended it or given it up.
    under_way: bool,
}

/// What an observer knows of one set of parameters.
#[derive(Default)]
struct Known {
    /// The generation in force, its end, and when it came.
    token: Option<(u64, Timestamp, Timestamp)>,
    suspect: bool,
    flight: Option<u64>,
    /// Until when a caller without a token was told to wait.
    told: Option<Timestamp>,
    /// When 401s of an origin made a token suspect.
    suspected: [Vec<Timestamp>; 2],
}

impl Known {
    fn live(&self, now: Timestamp) -> Option<u64> {
        let live = self.token.filter(|(_, end, _)| now < *end);
        live.map(|(generation, ..)| generation)
    }
}

struct History<'a> {
    machine: Machine<u64>,
    can_change: bool,
    max_entries: usize,
    now: Timestamp,
    latest: Timestamp,
    keys: Vec<TokenParams>,
    known: Vec<Known>,
    flights: Vec<Launched>,
    tokens: Vec<(usize, u64)>,
    looked: Option<Timestamp>,
    seen: &'a Seen,
}

impl History<'_> {
    fn step(&mut self, op: &Op) {
        match *op {
            Op::Call { key, newer, able } => self.call(key, newer, able),
            Op::Succeed {
                flight,
                life,
                slow,
                new_credentials,
            } => {
                let (policy, now) = (CachePolicy::default(), self.now);
                let sent = now.before(secs(slow));
                let lifetime = Lifetime::new(&policy, sent, now, Some(secs(life)), None, 0.5);
                if let Some(flight) = self.pick(flight) {
                    self.succeed(flight.id, lifetime, new_credentials);
                }
            }
            Op::Fail { flight, error: n } => self.end(flight, End::Failed(error(n))),
            Op::End { flight, how } => self.end(
                flight,
                match how {
                    0 => End::Lost,
                    1 => End::Unchanged,
                    2 => End::Missed(error(0)),
                    _ => End::NotAttempted(error(0)),
                },
            ),
            Op::Refuse { token, origin } => {
                if !self.tokens.is_empty() {
                    let (key, token) = self.tokens[token.index(self.tokens.len())];
                    self.refuse(key, token, origin);
                }
            }
            Op::RefuseAll { key, origin } => {
                for _ in 0..5 {
                    let Some((token, ..)) = self.known[key].token else {
                        break;
                    };
                    self.refuse(key, token, origin);
                    self.call(key, false, true);
                    let Some(flight) = self.known[key].flight else {
                        break;
                    };
                    let (policy, now) = (CachePolicy::default(), self.now);
                    let lifetime = Lifetime::new(&policy, now, now, Some(secs(600)), None, 0.5);
                    self.succeed(flight, lifetime, false);
                    self.check();
                }
            }
            Op::Forget(key) => {
                self.machine.forget(&self.keys[key]);
                self.known[key].token = None;
                self.known[key].suspect = false;
                self.forget_told();
            }
            Op::EndBackoff(key) => {
                self.machine.end_backoff(&self.keys[key]);
                self.forget_told();
            }
            Op::Pass(span) => self.now = self.now.after(span),
            Op::StepBack(span) => self.now = self.now.before(span),
        }
        self.latest = self.latest.max(self.now);
        self.check();
    }

    fn forget_told(&mut self) {
        for known in &mut self.known {
            known.told = None;
        }
    }

    fn call(&mut self, key: usize, newer: bool, able: bool) {
        let params = self.keys[key].clone();
        let held = self.known[key].token.map(|(generation, ..)| generation);
        let wish = Wish {
            newer_than: held.filter(|_| newer && self.known[key].suspect),
            can_wait: able,
            can_launch: able,
        };
        let free = self
            .machine
            .free(&params)
            .map(|(token, until)| (*token, until));
        let (decision, launch) = self.machine.ask(&params, wish, self.now);
        let now = self.now;
        let usable = self.known[key]
            .live(now)
            .filter(|generation| wish.newer_than.is_none_or(|old| *generation > old));
        if let Some(launch) = &launch {
            self.launched(key, launch, able);
        }
        match decision {
            Decision::Serve(token) => {
                assert_eq!(Some(token), usable, "a live token, and the latest one");
                self.seen
                    .see(if launch.is_some() { "ahead" } else { "served" });
            }
            Decision::Wait { flight, fallback } => {
                assert_eq!(self.known[key].flight, Some(flight), "one flight for all");
                assert_eq!(fallback.map(|(token, _)| token), usable);
                if let Some((_, wait)) = fallback {
                    assert!(wait <= secs(1), "R10");
                    self.seen.see("waited with a token");
                }
                self.seen.see("waited");
            }
            Decision::Fail(error) => {
                assert_eq!(usable, None, "a live token always wins");
                let wait = error.retry_after().expect("how long is told");
                self.told(key, wait);
                self.seen.see("failed at once");
            }
            Decision::Unable(token) => {
                assert!(!able);
                assert_eq!(token, usable);
            }
        }
        if let Some((token, until)) = free.filter(|(_, until)| now < *until) {
            if wish.newer_than.is_none() {
                assert_eq!(Some(token), usable, "what is free is live and in force");
                assert!(launch.is_none());
            }
            let end = self.known[key].token.map(|(_, end, _)| end);
            assert!(Some(until) <= end, "free past its end");
            self.seen.see("free");
        }
    }

    fn launched(&mut self, key: usize, launch: &Launch<u64>, able: bool) {
        let (now, known) = (self.now, &mut self.known[key]);
        assert!(able && known.flight.is_none(), "two flights");
        if launch.cause == FetchCause::Credentials {
            assert!(self.can_change);
            let since = self.looked.replace(now);
            assert!(since.is_none_or(|last| now >= last.after(secs(1))), "R17");
            self.seen.see("looked at the credentials");
        } else {
            let waits = known.told.is_some_and(|until| now < until);
            assert!(!waits, "who was told to wait waits: R15, R16");
        }
        match known.token {
            Some((.., came)) if known.live(now).is_some() && !known.suspect => {
                assert!(now >= came.after(secs(1)), "R13");
            }
            _ => {}
        }
        known.flight = Some(launch.flight);
        self.flights.push(Launched {
            id: launch.flight,
            key,
            under_way: true,
        });
    }

    /// A caller without a token was told to wait for so long.
    fn told(&mut self, key: usize, wait: Duration) {
        let known = &mut self.known[key];
        if known.suspect || known.live(self.now).is_none() {
            known.told = known.told.max(Some(self.now.after(wait)));
        }
    }

    fn pick(&self, flight: Index) -> Option<Launched> {
        let any = !self.flights.is_empty();
        any.then(|| self.flights[flight.index(self.flights.len())])
    }

    fn succeed(&mut self, id: u64, lifetime: Lifetime, new_credentials: bool) {
        let place = self.flights.iter().position(|launched| launched.id == id);
        let Launched { key, .. } = self.flights.remove(place.expect("it was launched"));
        self.known[key].flight.take_if(|flight| *flight == id);
        let end = End::Token {
            token: id,
            lifetime,
            new_credentials,
        };
        let told = self.machine.ended(&self.keys[key], id, end, self.now, 0.5);
        let known = &mut self.known[key];
        let in_force = known.live(self.now).max(Some(id));
        assert!(matches!(told, Some(Outcome::Token(token)) if Some(token) == in_force));
        if in_force == Some(id) {
            known.token = Some((id, lifetime.end, self.now));
            known.suspect = false;
        } else {
            self.seen.see("discarded a late token");
        }
        self.tokens.push((key, id));
        // It may have ended the backoff of the client.
        self.forget_told();
    }

    /// A flight that brings no token. It may be one that was given up and goes on.
    fn end(&mut self, flight: Index, end: End<u64>) {
        let Some(Launched { id, key, under_way }) = self.pick(flight) else {
            return;
        };
        self.known[key].flight.take_if(|flight| *flight == id);
        let lost = matches!(end, End::Lost | End::Missed(_));
        let params = self.keys[key].clone();
        let before = self.machine.view(&params, self.now);
        let told = self.machine.ended(&params, id, end, self.now, 0.5);
        assert_eq!(
            told.is_some(),
            under_way,
            "what was given up records nothing"
        );
        match told {
            Some(Outcome::Failed(error)) => {
                if let Some(wait) = error.retry_after() {
                    self.told(key, wait);
                }
                self.seen.see("failed");
            }
            Some(Outcome::Lost) => self.seen.see("lost"),
            Some(Outcome::Token(_)) => panic!("it brought none"),
            None => {
                let after = self.machine.view(&params, self.now);
                assert_eq!(before.next_attempt_in, after.next_attempt_in);
                self.seen.see("late failure");
            }
        }
        if lost {
            let mut flights = self.flights.iter_mut();
            let launched = flights.find(|launched| launched.id == id);
            launched.expect("it was launched").under_way = false;
        } else {
            self.flights.retain(|launched| launched.id != id);
        }
    }

    fn refuse(&mut self, key: usize, generation: u64, origin: u64) {
        let (now, params) = (self.now, &self.keys[key]);
        let refusal = self.machine.refused(params, generation, origin, now);
        let known = &mut self.known[key];
        let failure = known.live(now) == Some(generation) && !known.suspect;
        assert_eq!(
            refusal != Refusal::Known,
            failure,
            "only the one refused: R18"
        );
        match refusal {
            Refusal::Suspected => {
                known.suspect = true;
                let suspected = &mut known.suspected[origin as usize];
                suspected.push(now);
                let since = |from: &Timestamp| self.latest.since(*from).as_secs() / 30;
                for (place, from) in suspected.iter().enumerate() {
                    let taken = (suspected.len() - place) as u64;
                    assert!(taken <= 3 + since(from) + 1, "R20: {suspected:?}");
                }
                let free = self.machine.free(&self.keys[key]);
                assert!(
                    free.is_none_or(|(_, until)| until <= now),
                    "free and suspect"
                );
                self.seen.see("suspected");
            }
            Refusal::BudgetSpent { .. } => self.seen.see("budget spent"),
            Refusal::Known => {}
        }
    }

    fn check(&mut self) {
        self.machine.entries.check(&self.keys[0]);
        for (key, known) in self.known.iter_mut().enumerate() {
            assert_eq!(self.machine.flight(&self.keys[key]), known.flight);
            if self.machine.entries.get(&self.keys[key]).is_some() {
                continue;
            }
            // Nothing is promised for what is evicted and past the memory for those set aside.
            if known.token.is_some() || known.told.is_some() {
                assert!(key > 0 && self.max_entries < KEYS - 1, "nobody evicted it");
                self.seen.see("evicted");
            }
            *known = Known::default();
        }
    }
}

/// What the histories have come by: a test whose histories are dull proves nothing.
#[derive(Default)]
struct Seen([Cell<u32>; SIGHTS.len()]);

const SIGHTS: [&str; 14] = [
    "served",
    "ahead",
    "waited",
    "waited with a token",
    "failed at once",
    "free",
    "evicted",
    "looked at the credentials",
    "discarded a late token",
    "failed",
    "lost",
    "late failure",
    "suspected",
    "budget spent",
];

impl Seen {
    fn see(&self, sight: &str) {
        let place = SIGHTS.iter().position(|known| *known == sight);
        let cell = &self.0[place.expect("a known sight")];
        cell.set(cell.get() + 1);
    }
}

// R5, R6, R10, R12, R13, R15 to R18, R20, K13
#[test]
fn in_every_history_a_live_token_wins_and_what_was_told_is_kept() {
    let seen = Seen::default();
    let mut runner = TestRunner::new(Config {
        cases: 1_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "proptest-regressions",
        ))),
        source_file: Some(file!()),
        ..Config::default()
    });
    let strategy = (ops(), 1..8_usize, any::<bool>());
    runner
        .run(&strategy, |(ops, max_entries, can_change)| {
            let policy = CachePolicy::default().max_entries(max_entries);
            let keys: Vec<_> = (0..KEYS).map(kind).collect();
            let mut history = History {
                machine: Machine::new(policy, keys[0].clone(), can_change),
                can_change,
                max_entries,
                now: START,
                latest: START,
                known: keys.iter().map(|_| Known::default()).collect(),
                keys,
                flights: Vec::new(),
                tokens: Vec::new(),
                looked: None,
                seen: &seen,
            };
            ops.iter().for_each(|op| history.step(op));
            Ok(())
        })
        .expect("every history keeps the promises");
    for (sight, count) in SIGHTS.iter().zip(&seen.0) {
        assert!(count.get() >= 3, "seen too rarely: {sight} {}", count.get());
    }
}
