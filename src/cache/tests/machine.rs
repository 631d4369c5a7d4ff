//! Single rows of the behaviour table, with a clock that the test sets and every draw at its least.
//! [`histories`] has what holds in every history.

mod histories;
mod refusals;

use super::*;

/// The machine, with a clock that a test sets. A token's handle is its generation.
struct World {
    core: Machine<u64>,
    now: Timestamp,
}

/// A decision without its handles.
#[derive(Debug, PartialEq, Eq)]
enum Did {
    /// The generation, and whether a renewal was launched.
    Serve(u64, bool),
    /// The flight, whether it is new, and the generation to fall back on.
    Wait(u64, bool, Option<u64>),
    Fail(Duration),
}

impl World {
    fn new() -> Self {
        Self::with(CachePolicy::default())
    }

    fn with(policy: CachePolicy) -> Self {
        Self {
            core: Machine::new(policy, TokenParams::new(), false),
            now: START,
        }
    }

    /// With a token of an hour.
    fn with_token() -> (Self, u64) {
        let mut machine = Self::new();
        assert_eq!(machine.call(), Did::Wait(1, true, None));
        let token = machine.succeed(1, 3600);
        (machine, token)
    }

    /// After 3,340 s, with the flight of a renewal given up and another one, 3, in its place.
    fn with_superseded_flight() -> (Self, u64) {
        let (mut machine, _) = Self::with_token();
        assert_eq!(machine.at(3300).call(), Did::Serve(1, true));
        machine.lose(2);
        assert_eq!(machine.at(3340).call(), Did::Serve(1, true));
        (machine, 2)
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = START.after(secs(seconds));
        self
    }

    fn call(&mut self) -> Did {
        self.call_for(&TokenParams::new())
    }

    fn call_for(&mut self, params: &TokenParams) -> Did {
        self.call_newer(params, None)
    }

    /// Of a caller on a runtime, who can wait and launch.
    fn call_newer(&mut self, params: &TokenParams, newer_than: Option<u64>) -> Did {
        let wish = Wish {
            newer_than,
            can_wait: true,
            can_launch: true,
        };
        let (decision, launch) = self.core.ask(params, wish, self.now);
        match decision {
            Decision::Serve(token) => Did::Serve(token, launch.is_some()),
            Decision::Wait { flight, fallback } => {
                Did::Wait(flight, launch.is_some(), fallback.map(|(token, _)| token))
            }
            Decision::Fail(error) => Did::Fail(error.retry_after().expect("the wait is told")),
            Decision::Unable(_) => panic!("this caller can wait and launch"),
        }
    }

    fn succeed(&mut self, flight: u64, life: u64) -> u64 {
        self.succeed_for(&TokenParams::new(), flight, life)
    }

    fn succeed_for(&mut self, params: &TokenParams, flight: u64, life: u64) -> u64 {
        let (policy, now) = (CachePolicy::default(), self.now);
        let lifetime = Lifetime::new(&policy, now, now, Some(secs(life)), None, 0.0);
        self.succeed_with(params, flight, lifetime)
    }

    /// Returns the generation in force.
    fn succeed_with(&mut self, params: &TokenParams, flight: u64, lifetime: Lifetime) -> u64 {
        let end = End::Token {
            token: flight,
            lifetime,
            new_credentials: false,
        };
        match self.end(params, flight, end) {
            Some(Outcome::Token(token)) => token,
            other => panic!("{other:?}"),
        }
    }

    fn fail(&mut self, flight: u64, error: &Error) {
        self.fail_for(&TokenParams::new(), flight, error);
    }

    fn fail_for(&mut self, params: &TokenParams, flight: u64, error: &Error) {
        self.end(params, flight, End::Failed(error.clone()));
    }

    fn lose(&mut self, flight: u64) {
        self.end(&TokenParams::new(), flight, End::Lost);
    }

    fn end(&mut self, params: &TokenParams, flight: u64, end: End<u64>) -> Option<Outcome<u64>> {
        self.core.ended(params, flight, end, self.now, 0.0)
    }

    fn refuse(&mut self, generation: u64, origin: u64) -> Refusal {
        self.refuse_for(&TokenParams::new(), generation, origin)
    }

    fn refuse_for(&mut self, params: &TokenParams, generation: u64, origin: u64) -> Refusal {
        self.core.refused(params, generation, origin, self.now)
    }

    /// Whether a token may be served without a decision.
    fn is_free(&mut self, params: &TokenParams) -> bool {
        let free = self.core.free(params);
        free.is_some_and(|(_, until)| self.now < until)
    }

    fn holds(&self, params: &TokenParams) -> bool {
        self.core.live(params, None, self.now).is_some()
    }

    fn status(&self) -> CacheStatus {
        self.core.view(&TokenParams::new(), self.now)
    }
}

fn kind(name: impl ToString) -> TokenParams {
    TokenParams::new().with_audience(name.to_string())
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const API: u64 = 1;

const START: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

// K14
#[test]
fn what_changes_the_token_has_an_entry_of_its_own_and_the_order_of_scopes_does_not() {
    let new = TokenParams::new;
    let kinds = [
        new().with_scope("a b").unwrap(),
        new().with_scope("a").unwrap(),
        new().with_resource("https://a.example").unwrap(),
        new().with_audience("a"),
        new().with_audience("b"),
        new().with_parameter("a", "b").unwrap(),
        new().with_parameter("a", "c").unwrap(),
    ];
    let mut machine = World::new();
    for (flight, kind) in (1..).zip(&kinds) {
        assert_eq!(machine.call_for(kind), Did::Wait(flight, true, None));
    }
    assert_eq!(machine.status().entries, 1 + kinds.len());
    let same = new().with_scope("b a").unwrap();
    assert_eq!(machine.call_for(&same), Did::Wait(1, false, None));
}

// K15
#[test]
fn a_thousand_kinds_stay_within_a_bound_of_a_hundred_and_none_in_flight_is_evicted() {
    let mut machine = World::with(CachePolicy::default().max_entries(100));
    let flying: Vec<_> = (0..50).map(|n| kind(format!("flying {n}"))).collect();
    for kind in &flying {
        machine.call_for(kind);
    }
    for (flight, name) in (51..).zip(0..1000) {
        let kind = kind(name);
        assert_eq!(machine.call_for(&kind), Did::Wait(flight, true, None));
        machine.succeed_for(&kind, flight, 3600);
        assert!(machine.status().entries <= 1 + 100 + flying.len());
    }
    for (flight, kind) in (1..).zip(&flying) {
        assert_eq!(machine.call_for(kind), Did::Wait(flight, false, None));
        machine.succeed_for(kind, flight, 3600);
    }
    assert_eq!(machine.status().entries, 1 + 100);
}

#[test]
fn a_newcomer_is_never_evicted_by_its_own_arrival() {
    for bound in 1..4 {
        let mut machine = World::with(CachePolicy::default().max_entries(bound));
        let kinds: Vec<_> = (0..6).map(kind).collect();
        for (flight, kind) in (1..).zip(&kinds) {
            assert_eq!(machine.call_for(kind), Did::Wait(flight, true, None));
        }
        for (flight, kind) in (1..).zip(&kinds) {
            machine.succeed_for(kind, flight, 3600);
        }
        assert_eq!(machine.status().entries, 1 + bound);
        for kind in &kinds {
            machine.call_for(kind);
            assert!(machine.holds(kind) || machine.core.flight(kind).is_some());
        }
    }
}

#[test]
fn what_was_used_since_the_last_look_outlives_what_was_not() {
    let mut machine = World::with(CachePolicy::default().max_entries(3));
    let kinds: Vec<_> = (0..5).map(kind).collect();
    let add = |machine: &mut World, name: usize| {
        machine.call_for(&kinds[name]);
        machine.succeed_for(&kinds[name], name as u64 + 1, 3600);
    };
    for name in 0..4 {
        add(&mut machine, name);
    }
    let kept = |machine: &World| {
        let is_kept = |name: &usize| machine.holds(&kinds[*name]);
        (0..5).filter(is_kept).collect::<Vec<_>>()
    };
    // The fourth made everybody look unused, and took the place of the first.
    assert_eq!(kept(&machine), [1, 2, 3]);
    machine.call_for(&kinds[1]);
    add(&mut machine, 4);
    assert_eq!(kept(&machine), [1, 3, 4]);
}

// K16
#[test]
fn the_answer_of_a_superseded_flight_does_not_displace_a_newer_token() {
    let (mut machine, superseded) = World::with_superseded_flight();
    let newer = machine.succeed(3, 3600);
    let in_force = machine.at(3341).succeed(superseded, 9000);
    assert!(in_force == newer);
    assert_eq!(machine.call(), Did::Serve(newer, false));
}

// R10
#[test]
fn the_late_answer_of_a_superseded_flight_takes_the_place_of_a_token_that_has_ended() {
    let (mut machine, superseded) = World::with_superseded_flight();
    machine.succeed(3, 2);
    let late = machine.at(3343).succeed(superseded, 9000);
    assert_eq!(machine.call(), Did::Serve(late, false));
}

// K17
#[test]
fn a_renewal_ahead_of_time_and_one_that_a_401_forces_are_one_flight() {
    let (mut machine, token) = World::with_token();
    assert_eq!(machine.at(3300).call(), Did::Serve(1, true));
    assert_eq!(machine.refuse(token, API), Refusal::Suspected);
    assert_eq!(machine.call(), Did::Wait(2, false, Some(1)));
    machine.succeed(2, 3600);
    assert_eq!(machine.call(), Did::Serve(2, false));
}

// K18
#[test]
fn a_renewal_begins_when_the_server_hints_with_a_jitter_fixed_for_the_token() {
    for draw in [0.0, 0.5, 1.0] {
        let mut machine = World::new();
        machine.call();
        let (life, hint) = (Some(secs(86_399)), Some(secs(43_199)));
        let policy = CachePolicy::default();
        let lifetime = Lifetime::new(&policy, START, START, life, hint, draw);
        machine.succeed_with(&TokenParams::new(), 1, lifetime);
        assert_eq!(machine.at(43_198).call(), Did::Serve(1, false));
        let jitter = (30.0 * draw) as u64;
        assert_eq!(machine.at(43_199 + jitter).call(), Did::Serve(1, true));
    }
}

// K19
#[test]
fn a_retry_after_is_the_least_wait_and_is_capped_by_whether_a_live_token_is_left() {
    for (asked, without, with) in [(7, 7, 7), (99_999_999, 300, 3600)] {
        let busy = Error::transient("busy").with_retry_after(secs(asked));
        let mut machine = World::new();
        machine.call();
        machine.fail(1, &busy);
        assert_eq!(machine.call(), Did::Fail(secs(without)));
        assert_eq!(machine.at(without - 1).call(), Did::Fail(secs(1)));
        assert_eq!(machine.at(without).call(), Did::Wait(2, true, None));

        machine.succeed(2, 20_000);
        let begin = without + 20_000 - 300;
        assert_eq!(machine.at(begin).call(), Did::Serve(2, true));
        machine.fail(3, &busy);
        let until = (begin + with).min(without + 20_000);
        assert_eq!(machine.at(until - 1).call(), Did::Serve(2, false));
        if with < 300 {
            assert_eq!(machine.at(until).call(), Did::Serve(2, true));
        } else {
            // The token has ended first, so the shorter cap applies, and that time is over.
            assert_eq!(machine.at(until).call(), Did::Wait(4, true, None));
        }
    }
}

// K30
#[test]
fn a_server_that_repeats_a_nearly_expired_token_is_asked_once_a_second_at_most() {
    let mut machine = World::new();
    let mut flights = 0;
    for tenth in 0..100 {
        machine.now = START.after(Duration::from_millis(100 * tenth));
        match machine.call() {
            Did::Wait(flight, true, _) | Did::Serve(flight, true) => {
                flights += 1;
                let flight = flight.max(flights);
                machine.succeed(flight, 0);
            }
            Did::Serve(_, false) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(flights, 10);
}

// R13, R16
#[test]
fn a_token_without_a_life_is_renewed_as_soon_as_it_has_ended_however_late_the_machine_heard_of_it()
{
    let mut machine = World::new();
    machine.call();
    let (policy, came) = (CachePolicy::default(), machine.now);
    let lifetime = Lifetime::new(&policy, came, came, Some(Duration::ZERO), None, 0.0);
    machine.now = came.after(Duration::from_millis(500));
    machine.succeed_with(&TokenParams::new(), 1, lifetime);
    machine.now = came.after(Duration::from_millis(999));
    assert_eq!(machine.call(), Did::Serve(1, false));
    machine.now = came.after(secs(1));
    assert_eq!(machine.call(), Did::Wait(2, true, None));
}

// R18
#[test]
fn a_replay_is_never_handed_the_token_that_was_refused() {
    let (mut machine, token) = World::with_token();
    let live = |machine: &World, newer_than| {
        let own = TokenParams::new();
        machine.core.live(&own, newer_than, machine.now).copied()
    };
    machine.refuse(token, API);
    assert_eq!(live(&machine, None), Some(token));
    assert_eq!(live(&machine, Some(token)), None);
    machine.call();
    machine.succeed(2, 3600);
    assert_eq!(live(&machine, Some(token)), Some(2));
}

// K34
#[test]
fn ten_thousand_kinds_share_one_backoff_of_the_endpoint() {
    let mut machine = World::new();
    let kinds: Vec<_> = (0..10_000).map(kind).collect();
    for (flight, kind) in (1..).zip(&kinds) {
        assert_eq!(machine.call_for(kind), Did::Wait(flight, true, None));
    }
    let now = machine.now;
    let down = Error::transient("down");
    assert!(
        kinds
            .iter()
            .all(|kind| machine.core.may_attempt(kind, now).is_ok())
    );
    for (flight, kind) in (1..).zip(&kinds).take(64) {
        machine.fail_for(kind, flight, &down);
    }
    for kind in &kinds[64..] {
        assert!(machine.core.may_attempt(kind, now).is_err());
    }
    for (flight, kind) in (1..).zip(&kinds).skip(64) {
        machine.end(kind, flight, End::Lost);
    }
    // The first step, since it is the first failure.
    let calls: Vec<_> = kinds.iter().map(|kind| machine.call_for(kind)).collect();
    assert!(calls.iter().all(|did| *did == Did::Fail(secs(1))));
    assert_eq!(
        machine.status().entries,
        1 + CachePolicy::default().max_entries
    );

    assert_eq!(
        machine.at(1).call_for(&kinds[0]),
        Did::Wait(10_001, true, None)
    );
}

#[test]
fn a_success_for_one_kind_lets_the_others_renew_at_once() {
    let own = TokenParams::new();
    let (mut machine, _) = World::with_token();
    let other = kind("other");
    let busy = Error::transient("busy").with_retry_after(secs(200));
    machine.at(3300).call();
    machine.fail(2, &busy);
    assert_eq!(machine.at(3400).call(), Did::Serve(1, false));
    assert!(machine.is_free(&own));

    machine.core.end_backoff(&other);
    assert!(!machine.is_free(&own));
    assert_eq!(machine.call(), Did::Serve(1, true));
    machine.fail(3, &busy);
    machine.call();
    machine.core.end_backoff(&other);
    assert_eq!(machine.call_for(&other), Did::Wait(4, true, None));
    machine.succeed_for(&other, 4, 3600);
    assert!(!machine.is_free(&own));
    assert_eq!(machine.call(), Did::Serve(1, true));
}

#[test]
fn an_endpoint_that_stays_down_for_two_hours_is_asked_as_often_as_the_backoff_lets() {
    let down = Error::transient("down");
    let launches = |machine: &mut World| {
        let mut launches = 0;
        for tenth in 0..72_000 {
            machine.now = START.after(Duration::from_millis(100 * tenth));
            if let Did::Wait(flight, true, _) = machine.call() {
                launches += 1;
                machine.fail(flight, &down);
            }
        }
        launches
    };
    // 1, 2, 4 and then always 7.5 seconds, with every draw at its least.
    assert_eq!(launches(&mut World::new()), 3 + (7200 - 7) * 2 / 15 + 1);
}

// FC3, R15
#[test]
fn a_late_failure_that_asks_to_wait_is_heeded_by_its_own_kind() {
    let mut machine = World::new();
    let other = kind("other");
    assert_eq!(machine.call(), Did::Wait(1, true, None));
    machine.call_for(&other);
    machine.succeed_for(&other, 2, 3600);
    machine.fail(1, &Error::transient("busy").with_retry_after(secs(20)));
    assert_eq!(machine.call(), Did::Fail(secs(20)));
    assert_eq!(machine.call_for(&kind("third")), Did::Wait(3, true, None));
}

// FC15
#[test]
fn refusals_older_than_a_success_are_not_among_the_eight_that_speak_for_the_client() {
    let mut machine = World::new();
    let kinds: Vec<_> = (0..9).map(kind).collect();
    for (flight, kind) in (1..).zip(&kinds) {
        assert_eq!(machine.call_for(kind), Did::Wait(flight, true, None));
    }
    machine.succeed_for(&kinds[8], 9, 3600);
    let refused = Error::rejected("invalid_target", "refused");
    for (flight, kind) in (1..).zip(&kinds[..8]) {
        machine.fail_for(kind, flight, &refused);
        assert!(matches!(machine.call_for(kind), Did::Fail(_)));
    }
    assert_eq!(machine.call_for(&kind("tenth")), Did::Wait(10, true, None));
}
