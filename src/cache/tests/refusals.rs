//! What a 401 changes (rules R18 and R20).

use super::*;

const OTHER_API: u64 = 2;

// P2
#[test]
fn after_a_401_the_next_call_renews_first() {
    let own = TokenParams::new();
    let (mut machine, token) = World::with_token();
    machine.at(10);
    assert_eq!(machine.refuse(token, API), Refusal::Suspected);
    assert!(!machine.is_free(&own));
    assert_eq!(machine.call(), Did::Wait(2, true, Some(1)));
    machine.succeed(2, 3600);
    assert_eq!(machine.call(), Did::Serve(2, false));
}

// P3
#[test]
fn a_401_for_an_older_token_costs_no_renewal() {
    let (mut machine, old) = World::with_token();
    machine.at(3300).call();
    machine.succeed(2, 3600);
    assert_eq!(machine.refuse(old, API), Refusal::Known);
    let replay = machine.call_newer(&TokenParams::new(), Some(old));
    assert_eq!(replay, Did::Serve(2, false));
}

// P4
#[test]
fn fifty_late_401s_for_one_token_cost_one_renewal() {
    let (mut machine, old) = World::with_token();
    machine.at(10);
    let refusals: Vec<_> = (0..25).map(|_| machine.refuse(old, API)).collect();
    assert_eq!(refusals[0], Refusal::Suspected);
    assert!(
        refusals[1..]
            .iter()
            .all(|refusal| *refusal == Refusal::Known)
    );
    assert_eq!(machine.call(), Did::Wait(2, true, Some(1)));
    machine.succeed(2, 3600);
    for _ in 25..50 {
        assert_eq!(machine.refuse(old, API), Refusal::Known);
        assert_eq!(machine.call(), Did::Serve(2, false));
    }
}

// P33
#[test]
fn a_stray_401_while_the_token_endpoint_is_down_causes_no_outage() {
    let (mut machine, token) = World::with_token();
    machine.at(10);
    machine.refuse(token, API);
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
    let (mut machine, mut token) = World::with_token();
    let mut renewals = 0;
    for second in 10..3000 {
        machine.at(second);
        match machine.refuse(token, API) {
            Refusal::Suspected => {
                renewals += 1;
                let Did::Wait(flight, true, Some(_)) = machine.call() else {
                    panic!("the next call renews");
                };
                token = machine.succeed(flight, 3600);
            }
            Refusal::BudgetSpent { .. } => {
                assert_eq!(machine.call(), Did::Serve(token, false));
            }
            Refusal::Known => panic!("the token is in force"),
        }
    }
    assert_eq!(renewals, 9);
    assert_eq!(machine.refuse(token, OTHER_API), Refusal::Suspected);
    assert!(matches!(machine.call(), Did::Wait(_, true, Some(_))));
}

#[test]
fn two_apis_that_always_answer_401_in_turn_are_both_slowed_down() {
    let (mut machine, mut token) = World::with_token();
    let mut renewals = [0, 0];
    for second in 10..3000 {
        for api in [API, OTHER_API] {
            machine.at(second);
            if machine.refuse(token, api) == Refusal::Suspected {
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

// R20
#[test]
fn a_budget_that_is_spent_is_told_once_until_one_has_come_back() {
    let (mut machine, mut token) = World::with_token();
    let mut told = Vec::new();
    for second in [10, 10, 10, 10, 10, 200, 200, 200] {
        machine.at(second);
        let refusal = machine.refuse(token, API);
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
    let mut machine = World::with(CachePolicy::default().max_entries(1));
    let [refused, other, third] = ["refused", "other", "third"].map(kind);
    machine.call_for(&refused);
    let token = machine.succeed_for(&refused, 1, 3600);
    assert_eq!(machine.refuse_for(&refused, token, API), Refusal::Suspected);
    machine.call_for(&refused);
    machine.succeed_for(&refused, 2, 3600);
    assert_eq!(machine.call_for(&refused), Did::Serve(2, false));
    for (flight, kind) in [(3, &other), (4, &third)] {
        machine.call_for(kind);
        machine.succeed_for(kind, flight, 3600);
    }
    let aside = |machine: &mut World| machine.core.entries.get_active(&refused).is_none();
    assert!(aside(&mut machine));
    assert!(!machine.is_free(&refused));
    assert_eq!(machine.call_for(&refused), Did::Serve(2, false));
    assert!(!aside(&mut machine));
}

// FC19
#[test]
fn an_origin_has_the_place_of_one_whose_budget_is_full_again() {
    let (mut machine, mut token) = World::with_token();
    let mut renewals = |machine: &mut World, origin| {
        let mut renewals = 0;
        for _ in 0..5 {
            if machine.refuse(token, origin) == Refusal::Suspected {
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
