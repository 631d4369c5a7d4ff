//! Single rows of the behaviour table; [`history`] has what holds in every history.

mod history;

use std::sync::Weak;

use super::*;
use crate::cache::lifetime::Schedule;
use crate::token::TokenResponse;

/// The machine, with a clock that a test sets, and every draw at its least.
struct Machine {
    state: State<Plan>,
    own: TokenParams,
    policy: CachePolicy,
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

impl Machine {
    fn new() -> Self {
        Self::with(CachePolicy::default())
    }

    fn with(policy: CachePolicy) -> Self {
        let own = TokenParams::new();
        Self {
            state: State::new(policy.clone(), own.clone()),
            own,
            policy,
            now: START,
        }
    }

    /// With a token of an hour.
    fn with_token() -> (Self, Arc<Token>) {
        let mut machine = Self::new();
        assert_eq!(machine.call(), Did::Wait(1, true, None));
        let token = machine.succeed(1, 3600);
        (machine, token)
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = START.after(Duration::from_secs(seconds));
        self
    }

    fn call(&mut self) -> Did {
        self.call_for(&self.own.clone(), None)
    }

    fn call_for(&mut self, request: &TokenParams, newer_than: Option<u64>) -> Did {
        let decision =
            self.state
                .call(request, self.now, newer_than, false, ANYTHING, |plan, _| {
                    plan
                });
        match decision {
            Decision::Serve { token, launch } => Did::Serve(token.generation, launch.is_some()),
            Decision::Wait {
                flight,
                launch,
                fallback,
            } => {
                let fallback = fallback.map(|fallback| fallback.token.generation);
                Did::Wait(flight.id, launch, fallback)
            }
            Decision::Fail(error) => Did::Fail(error.retry_after().expect("the wait is told")),
            Decision::Later { .. } => panic!("this caller can wait and launch"),
        }
    }

    fn succeed(&mut self, flight: u64, life: u64) -> Arc<Token> {
        self.succeed_for(&self.own.clone(), flight, life)
    }

    fn succeed_for(&mut self, request: &TokenParams, flight: u64, life: u64) -> Arc<Token> {
        let life = Some(Duration::from_secs(life));
        let schedule = Schedule::new(&self.policy, self.now, self.now, life, None, 0.0);
        self.state
            .succeeded(request, flight, self.now, |generation| {
                token(request, generation, flight, schedule)
            })
    }

    fn fail(&mut self, flight: u64, error: &Error) {
        self.fail_for(&self.own.clone(), flight, error);
    }

    fn fail_for(&mut self, request: &TokenParams, flight: u64, error: &Error) {
        self.state.failed(request, flight, self.now, error, 0.0);
    }

    fn lose(&mut self, flight: u64) {
        let own = self.own.clone();
        self.state.lost(&own, flight, self.now);
    }
}

fn token(request: &TokenParams, generation: u64, flight: u64, schedule: Schedule) -> Token {
    let value = TokenResponse::new("t").expect("a token").value;
    let refusals = Arc::from([]);
    Token::new(
        &value,
        generation,
        flight,
        schedule,
        request.clone(),
        Weak::new(),
        refusals,
    )
}

fn kind(name: impl ToString) -> TokenParams {
    TokenParams::new().with_audience(name.to_string())
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a caller on a runtime can do.
const ANYTHING: Ask = Ask {
    wait: true,
    launch: true,
};

const START: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

const API: u64 = 1;
const OTHER_API: u64 = 2;

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
    let mut machine = Machine::new();
    for (flight, kind) in (1..).zip(&kinds) {
        assert_eq!(machine.call_for(kind, None), Did::Wait(flight, true, None));
    }
    assert_eq!(machine.state.len(), 1 + kinds.len());
    let same = new().with_scope("b a").unwrap();
    assert_eq!(machine.call_for(&same, None), Did::Wait(1, false, None));
}

// K15
#[test]
fn a_thousand_kinds_stay_within_a_bound_of_a_hundred_and_none_in_flight_is_evicted() {
    let mut machine = Machine::with(CachePolicy::default().max_entries(100));
    let flying: Vec<_> = (0..50).map(|n| kind(format!("flying {n}"))).collect();
    for kind in &flying {
        machine.call_for(kind, None);
    }
    for (flight, name) in (51..).zip(0..1000) {
        let kind = kind(name);
        assert_eq!(machine.call_for(&kind, None), Did::Wait(flight, true, None));
        machine.succeed_for(&kind, flight, 3600);
        assert!(machine.state.len() <= 1 + 100 + flying.len());
    }
    for (flight, kind) in (1..).zip(&flying) {
        assert_eq!(machine.call_for(kind, None), Did::Wait(flight, false, None));
        machine.succeed_for(kind, flight, 3600);
    }
    assert_eq!(machine.state.len(), 1 + 100);
}

#[test]
fn a_newcomer_is_never_evicted_by_its_own_arrival() {
    for bound in 1..4 {
        let mut machine = Machine::with(CachePolicy::default().max_entries(bound));
        let kinds: Vec<_> = (0..6).map(kind).collect();
        for (flight, kind) in (1..).zip(&kinds) {
            assert_eq!(machine.call_for(kind, None), Did::Wait(flight, true, None));
        }
        for (flight, kind) in (1..).zip(&kinds) {
            machine.succeed_for(kind, flight, 3600);
        }
        assert_eq!(machine.state.len(), 1 + bound);
        for kind in &kinds {
            machine.call_for(kind, None);
            assert!(machine.state.token(kind).is_some() || machine.state.is_fetching(kind));
        }
    }
}

#[test]
fn what_was_used_since_the_last_look_outlives_what_was_not() {
    let mut machine = Machine::with(CachePolicy::default().max_entries(3));
    let kinds: Vec<_> = (0..5).map(kind).collect();
    let add = |machine: &mut Machine, name: usize| {
        machine.call_for(&kinds[name], None);
        machine.succeed_for(&kinds[name], name as u64 + 1, 3600);
    };
    for name in 0..4 {
        add(&mut machine, name);
    }
    let kept = |machine: &Machine| {
        let is_kept = |name: &usize| machine.state.token(&kinds[*name]).is_some();
        (0..5).filter(is_kept).collect::<Vec<_>>()
    };
    // The fourth made everybody look unused, and took the place of the first.
    assert_eq!(kept(&machine), [1, 2, 3]);
    machine.call_for(&kinds[1], None);
    add(&mut machine, 4);
    assert_eq!(kept(&machine), [1, 3, 4]);
}

// K16
#[test]
fn the_answer_of_a_superseded_flight_does_not_displace_a_newer_token() {
    let (mut machine, _) = Machine::with_token();
    assert_eq!(machine.at(3300).call(), Did::Serve(1, true));
    machine.lose(2);
    assert_eq!(machine.at(3340).call(), Did::Serve(1, true));
    let newer = machine.succeed(3, 3600);
    let in_force = machine.at(3341).succeed(2, 9000);
    assert!(Arc::ptr_eq(&in_force, &newer));
    assert_eq!(machine.call(), Did::Serve(newer.generation, false));
}

// K17
#[test]
fn a_renewal_ahead_of_time_and_one_that_a_401_forces_are_one_flight() {
    let (mut machine, token) = Machine::with_token();
    assert_eq!(machine.at(3300).call(), Did::Serve(1, true));
    let now = machine.now;
    assert_eq!(machine.state.refused(&token, API, now), Refusal::Suspected);
    assert_eq!(machine.call(), Did::Wait(2, false, Some(1)));
    machine.succeed(2, 3600);
    assert_eq!(machine.call(), Did::Serve(2, false));
}

// K18
#[test]
fn a_renewal_begins_when_the_server_hints_with_a_jitter_fixed_for_the_token() {
    for spread in [0.0, 0.5, 1.0] {
        let mut machine = Machine::new();
        machine.call();
        let own = machine.own.clone();
        let schedule = Schedule::new(
            &machine.policy,
            START,
            START,
            Some(secs(86_399)),
            Some(secs(43_199)),
            spread,
        );
        machine.state.succeeded(&own, 1, START, |generation| {
            token(&own, generation, 1, schedule)
        });
        assert_eq!(machine.at(43_198).call(), Did::Serve(1, false));
        let jitter = (30.0 * spread) as u64;
        assert_eq!(machine.at(43_199 + jitter).call(), Did::Serve(1, true));
    }
}

// K19
#[test]
fn a_retry_after_is_the_least_wait_and_is_capped_by_whether_a_live_token_is_left() {
    for (asked, without, with) in [(7, 7, 7), (99_999_999, 300, 3600)] {
        let busy = Error::transient("busy").with_retry_after(secs(asked));
        let mut machine = Machine::new();
        machine.call();
        machine.fail(1, &busy);
        assert_eq!(machine.call(), Did::Fail(secs(without)));
        assert_eq!(machine.at(without - 1).call(), Did::Fail(secs(1)));
        assert_eq!(machine.at(without).call(), Did::Wait(2, true, None));

        machine.succeed(2, 20_000);
        let begin = without + 20_000 - 300;
        assert_eq!(machine.at(begin).call(), Did::Serve(1, true));
        machine.fail(3, &busy);
        let until = (begin + with).min(without + 20_000);
        assert_eq!(machine.at(until - 1).call(), Did::Serve(1, false));
        if with < 300 {
            assert_eq!(machine.at(until).call(), Did::Serve(1, true));
        } else {
            // The token has ended first, so the shorter cap applies, and that time is over.
            assert_eq!(machine.at(until).call(), Did::Wait(4, true, None));
        }
    }
}

// K30
#[test]
fn a_server_that_repeats_a_nearly_expired_token_is_asked_once_a_second_at_most() {
    let mut machine = Machine::new();
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

// K34
#[test]
fn ten_thousand_kinds_share_one_backoff_of_the_endpoint() {
    let mut machine = Machine::new();
    let kinds: Vec<_> = (0..10_000).map(kind).collect();
    for (flight, kind) in (1..).zip(&kinds) {
        assert_eq!(machine.call_for(kind, None), Did::Wait(flight, true, None));
    }
    let now = machine.now;
    let down = Error::transient("down");
    assert!(
        kinds
            .iter()
            .all(|kind| machine.state.may_depart(kind, now).is_ok())
    );
    for (flight, kind) in (1..).zip(&kinds).take(64) {
        machine.state.failed(kind, flight, now, &down, 0.0);
    }
    for kind in &kinds[64..] {
        assert!(machine.state.may_depart(kind, now).is_err());
    }
    for (flight, kind) in (1..).zip(&kinds).skip(64) {
        machine.state.lost(kind, flight, now);
    }
    // The first step, since it is the first failure.
    let calls: Vec<_> = kinds
        .iter()
        .map(|kind| machine.call_for(kind, None))
        .collect();
    assert!(calls.iter().all(|did| *did == Did::Fail(secs(1))));
    assert_eq!(machine.state.len(), 1 + machine.policy.max_entries);

    assert_eq!(
        machine.at(1).call_for(&kinds[0], None),
        Did::Wait(10_001, true, None)
    );
}

#[test]
fn a_success_for_one_kind_lets_the_others_renew_at_once() {
    let (mut machine, _) = Machine::with_token();
    let other = kind("other");
    let busy = Error::transient("busy").with_retry_after(secs(200));
    machine.at(3300).call();
    machine.fail(2, &busy);
    assert_eq!(machine.at(3400).call(), Did::Serve(1, false));
    let now = machine.now;
    assert!(machine.state.free_token(&TokenParams::new(), now).is_some());

    machine.state.end_backoff(&other);
    assert!(machine.state.free_token(&TokenParams::new(), now).is_none());
    assert_eq!(machine.call(), Did::Serve(1, true));
    machine.fail(3, &busy);
    machine.call();
    machine.state.end_backoff(&other);
    assert_eq!(machine.call_for(&other, None), Did::Wait(4, true, None));
    // A call between the end of the backoff and the success may have found it free for long.
    let own = TokenParams::new();
    let held = machine.state.token(&own).expect("a token");
    held.set_free_until(Timestamp::MAX);
    machine.succeed_for(&other, 4, 3600);
    assert!(machine.state.free_token(&own, now).is_none());
    assert_eq!(machine.call(), Did::Serve(1, true));
}

#[test]
fn an_endpoint_that_stays_down_for_two_hours_is_asked_as_often_as_the_backoff_lets() {
    let down = Error::transient("down");
    let launches = |machine: &mut Machine| {
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
    assert_eq!(launches(&mut Machine::new()), 3 + (7200 - 7) * 2 / 15 + 1);
}

// P2
#[test]
fn after_a_401_the_next_call_renews_first() {
    let (mut machine, token) = Machine::with_token();
    let now = machine.at(10).now;
    assert_eq!(machine.state.refused(&token, API, now), Refusal::Suspected);
    assert!(machine.state.free_token(&TokenParams::new(), now).is_none());
    assert_eq!(machine.call(), Did::Wait(2, true, Some(1)));
    machine.succeed(2, 3600);
    assert_eq!(machine.call(), Did::Serve(2, false));
}

// P3
#[test]
fn a_401_for_an_older_token_costs_no_renewal() {
    let (mut machine, old) = Machine::with_token();
    machine.at(3300).call();
    machine.succeed(2, 3600);
    let now = machine.now;
    assert_eq!(machine.state.refused(&old, API, now), Refusal::Known);
    let replay = machine.call_for(&TokenParams::new(), Some(old.generation));
    assert_eq!(replay, Did::Serve(2, false));
}

// P4
#[test]
fn fifty_late_401s_for_one_token_cost_one_renewal() {
    let (mut machine, old) = Machine::with_token();
    let now = machine.at(10).now;
    let refusals: Vec<_> = (0..25)
        .map(|_| machine.state.refused(&old, API, now))
        .collect();
    assert_eq!(refusals[0], Refusal::Suspected);
    assert!(
        refusals[1..]
            .iter()
            .all(|refusal| *refusal == Refusal::Known)
    );
    assert_eq!(machine.call(), Did::Wait(2, true, Some(1)));
    machine.succeed(2, 3600);
    for _ in 25..50 {
        assert_eq!(machine.state.refused(&old, API, now), Refusal::Known);
        assert_eq!(machine.call(), Did::Serve(2, false));
    }
}

// P33
#[test]
fn a_stray_401_while_the_token_endpoint_is_down_causes_no_outage() {
    let (mut machine, token) = Machine::with_token();
    let now = machine.at(10).now;
    machine.state.refused(&token, API, now);
    let mut attempts = 0;
    for second in 10..3600 {
        match machine.at(second).call() {
            Did::Wait(flight, true, Some(1)) => {
                attempts += 1;
                machine.fail(flight, &Error::transient("down"));
                assert_eq!(machine.call(), Did::Serve(1, false));
            }
            did => assert_eq!(did, Did::Serve(1, false)),
        }
    }
    // FC9: not as with a token that nobody has refused. 1, 2, 4 and then always 7.5 seconds, with
    // every draw at its least, and a call each second.
    assert_eq!(attempts, 4 + (3600 - 25 + 7) / 8);
    assert!(matches!(machine.at(3601).call(), Did::Wait(..)));
}

// P34
#[test]
fn an_api_that_always_answers_401_spends_no_budget_but_its_own() {
    let (mut machine, mut token) = Machine::with_token();
    let mut renewals = 0;
    for second in 10..3000 {
        let now = machine.at(second).now;
        match machine.state.refused(&token, API, now) {
            Refusal::Suspected => {
                renewals += 1;
                let Did::Wait(flight, true, Some(_)) = machine.call() else {
                    panic!("the next call renews");
                };
                token = machine.succeed(flight, 3600);
            }
            Refusal::BudgetSpent { .. } => {
                assert_eq!(machine.call(), Did::Serve(token.generation, false));
            }
            Refusal::Known => panic!("the token is in force"),
        }
    }
    assert_eq!(renewals, 9);
    let now = machine.now;
    assert_eq!(
        machine.state.refused(&token, OTHER_API, now),
        Refusal::Suspected
    );
    assert!(matches!(machine.call(), Did::Wait(_, true, Some(_))));
}

#[test]
fn two_apis_that_always_answer_401_in_turn_are_both_slowed_down() {
    let (mut machine, mut token) = Machine::with_token();
    let mut renewals = [0, 0];
    for second in 10..3000 {
        for api in [API, OTHER_API] {
            let now = machine.at(second).now;
            if machine.state.refused(&token, api, now) == Refusal::Suspected {
                renewals[api as usize - 1] += 1;
                let Did::Wait(flight, true, Some(_)) = machine.call() else {
                    panic!("the next call renews");
                };
                token = machine.succeed(flight, 3600);
            }
        }
    }
    assert_eq!(renewals, [9, 9]);
}

// FC3, R15
#[test]
fn a_late_failure_that_asks_to_wait_is_heeded_by_its_own_kind() {
    let mut machine = Machine::new();
    let other = kind("other");
    assert_eq!(machine.call(), Did::Wait(1, true, None));
    machine.call_for(&other, None);
    machine.succeed_for(&other, 2, 3600);
    machine.fail(1, &Error::transient("busy").with_retry_after(secs(20)));
    assert_eq!(machine.call(), Did::Fail(secs(20)));
    assert_eq!(
        machine.call_for(&kind("third"), None),
        Did::Wait(3, true, None)
    );
}

// FC15
#[test]
fn refusals_older_than_a_success_are_not_among_the_eight_that_speak_for_the_client() {
    let mut machine = Machine::new();
    let kinds: Vec<_> = (0..9).map(kind).collect();
    for (flight, kind) in (1..).zip(&kinds) {
        assert_eq!(machine.call_for(kind, None), Did::Wait(flight, true, None));
    }
    machine.succeed_for(&kinds[8], 9, 3600);
    let refused = Error::rejected("invalid_target", "refused");
    for (flight, kind) in (1..).zip(&kinds[..8]) {
        machine.fail_for(kind, flight, &refused);
        assert!(matches!(machine.call_for(kind, None), Did::Fail(_)));
    }
    assert_eq!(
        machine.call_for(&kind("tenth"), None),
        Did::Wait(10, true, None)
    );
}

// R20
#[test]
fn a_budget_that_is_spent_is_told_once_until_one_has_come_back() {
    let (mut machine, mut token) = Machine::with_token();
    let mut told = Vec::new();
    for second in [10, 10, 10, 10, 10, 200, 200, 200] {
        let now = machine.at(second).now;
        let refusal = machine.state.refused(&token, API, now);
        if refusal == Refusal::Suspected {
            let Did::Wait(flight, true, Some(_)) = machine.call() else {
                panic!("the next call renews");
            };
            token = machine.succeed(flight, 3600);
        }
        told.push(refusal);
    }
    let spent = |first| Refusal::BudgetSpent { first };
    assert_eq!(told[..3], [Refusal::Suspected; 3]);
    assert_eq!(told[3..5], [spent(true), spent(false)]);
    assert_eq!(told[5..], [Refusal::Suspected, spent(true), spent(false)]);
}

// FC14
#[test]
fn a_kind_that_was_set_aside_is_not_served_before_it_is_back() {
    let mut machine = Machine::with(CachePolicy::default().max_entries(1));
    let [refused, other, third] = ["refused", "other", "third"].map(kind);
    machine.call_for(&refused, None);
    let token = machine.succeed_for(&refused, 1, 3600);
    let now = machine.now;
    assert_eq!(machine.state.refused(&token, API, now), Refusal::Suspected);
    machine.call_for(&refused, None);
    machine.succeed_for(&refused, 2, 3600);
    assert_eq!(machine.call_for(&refused, None), Did::Serve(2, false));
    for (flight, kind) in [(3, &other), (4, &third)] {
        machine.call_for(kind, None);
        machine.succeed_for(kind, flight, 3600);
    }
    let aside = |machine: &Machine| {
        let entry = machine.state.entries.get(&refused);
        entry.expect("kept for its budget").is_aside()
    };
    assert!(aside(&machine));
    assert!(machine.state.free_token(&refused, now).is_none());
    assert_eq!(machine.call_for(&refused, None), Did::Serve(2, false));
    assert!(!aside(&machine));
}

// FC19
#[test]
fn an_origin_has_the_place_of_one_whose_budget_is_full_again() {
    let (mut machine, mut token) = Machine::with_token();
    let mut renewals = |machine: &mut Machine, origin| {
        let mut renewals = 0;
        for _ in 0..5 {
            if machine.state.refused(&token, origin, machine.now) == Refusal::Suspected {
                renewals += 1;
                let Did::Wait(flight, true, Some(_)) = machine.call() else {
                    panic!("the next call renews");
                };
                token = machine.succeed(flight, 1_000_000);
            }
        }
        renewals
    };
    machine.at(10);
    for origin in 0..64 {
        assert_eq!(renewals(&mut machine, origin), 3);
    }
    assert_eq!(renewals(&mut machine, 64), 0, "no place of its own");
    machine.at(10_000);
    for origin in 64..128 {
        assert_eq!(renewals(&mut machine, origin), 3, "{origin}");
    }
}

// K13, R14
#[test]
fn time_that_steps_back_breaks_no_promise() {
    // The boot clock does not step back, but two callers that read it may take the lock in the other order.
    let mut draws = fastrand::Rng::with_seed(13);
    for _ in 0..300 {
        let mut machine = Machine::new();
        let (mut flight, mut newest) = (None, 0);
        for _ in 0..200 {
            let jump = secs(draws.u64(0..400));
            machine.now = if draws.u8(0..3) == 0 {
                machine.now.before(jump)
            } else {
                machine.now.after(jump)
            };
            let held = machine.state.token(&machine.own).cloned();
            let live = held.filter(|token| token.live(machine.now));
            match machine.call() {
                Did::Serve(generation, launch) => {
                    let live = live.expect("served past its end");
                    assert_eq!(generation, live.generation);
                    assert!(!(launch && flight.is_some()), "two flights");
                    if launch {
                        flight = Some(machine.state.flights);
                    }
                }
                Did::Wait(id, launch, fallback) => {
                    assert_eq!(fallback, live.map(|token| token.generation));
                    assert_eq!(launch, flight.is_none(), "two flights, or none");
                    flight = Some(id);
                }
                Did::Fail(_) => assert!(live.is_none(), "a live token was not served"),
            }
            match flight.filter(|_| draws.bool()) {
                Some(id) if draws.bool() => {
                    let token = machine.succeed(id, draws.u64(0..4000));
                    assert!(token.generation > newest, "an older token came back");
                    newest = token.generation;
                    flight = None;
                }
                Some(id) => {
                    machine.fail(id, &Error::transient("down"));
                    flight = None;
                }
                None => {}
            }
        }
        assert!(newest > 0);
    }
}
