//! What an observer sees, and what of it breaks a promise.
//!
//! The book knows nothing of the policy: no backoff steps, no budgets, no lifetimes but those that
//! the token endpoint states. So that a busy machine cannot make it wrong, each moment is taken
//! from the side that favours the layer:
//!
//! - A request *began* before the layer saw it, and the layer *decided* on its token no earlier
//!   than the poll in which the request left. The time in flight after that is not counted.
//! - A token request was *sent* after its flight started or the attempt before it ended, and before
//!   the token client was called. So a token's end is known within those two, and the later one is
//!   what no request may pass.
//! - A caller was told to stay away after its poll began and before it ended, so that the backoff
//!   ends no earlier than the one moment and no later than the other say.
//! - A token is known to be held from the event on that tells of its flight's success.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Display;
use std::time::Duration;

use tower_oauth::observe::Event;
use tower_oauth::{Error, FetchCause};

use crate::faults::{Faults, Phase};
use crate::process::shows_a_secret;
use crate::{nanos, now};

/// The default of the policy, and how long a token is held at least (rule R13).
const ATTEMPTS: u32 = 3;
const HELD: u64 = 1_000_000_000;
/// More than can be in use; a longer list would count as the layer's growth.
const TOKENS: usize = 32;

/// What was seen. It forgets what it needs no more, since its own growth would count as the
/// layer's.
pub(crate) struct Book {
    pub(crate) faults: Faults,
    /// When the file got its secret, and which one.
    pub(crate) written: (u64, u64),
    pub(crate) count: Count,
    pub(crate) violations: Vec<String>,

    tokens: VecDeque<Token>,
    /// Tokens that have come, by the number of their attempt, whose flight is not yet told of.
    arrived: VecDeque<u64>,
    /// The flight that has started and made no token request yet.
    started: Option<FetchCause>,
    /// After which the next token request is sent.
    since: u64,
    attempt: Attempt,
    under_way: u32,
    /// No token request before the first, and no call that fails at once after the second.
    stay_away: [u64; 2],
    /// Causes of failures, as events told them and as callers heard them.
    told: BTreeSet<String>,
    heard: BTreeSet<String>,
}

#[derive(Default)]
pub(crate) struct Count {
    pub(crate) attempts: u64,
    /// As the events tell them.
    pub(crate) attempts_told: u64,
    pub(crate) tokens: u64,
    pub(crate) failed_flights: u64,
    pub(crate) lost_flights: u64,
    /// Tokens that the API has revoked, and those that it has refused since.
    pub(crate) revoked: u64,
    pub(crate) refused: u64,
    pub(crate) suspected: u64,
    pub(crate) budgets_spent: u64,
}

/// A token that the endpoint made, by the number of the attempt that asked for it.
struct Token {
    number: u64,
    /// It was sent for after this and before that.
    sent: [u64; 2],
    life: u64,
    over: u64,
    held_from: Option<u64>,
    revoked: bool,
    refused: bool,
}

/// The last token request.
#[derive(Clone, Copy, Default)]
struct Attempt {
    number: u64,
    sent: [u64; 2],
    secret: u64,
    /// When the endpoint asked to stay away, and for how long.
    asked: Option<(u64, Duration)>,
}

impl Book {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            faults,
            written: (0, 0),
            count: Count::default(),
            violations: Vec::new(),
            tokens: VecDeque::new(),
            arrived: VecDeque::new(),
            started: None,
            since: 0,
            attempt: Attempt::default(),
            under_way: 0,
            stay_away: STAY,
            told: BTreeSet::new(),
            heard: BTreeSet::new(),
        }
    }

    pub(crate) fn violation(&mut self, what: impl Display) {
        if self.violations.len() < 10 {
            let (time, phase) = (now() as f64 / 1e9, self.faults.phase);
            self.violations
                .push(format!("{time:.3} s, {phase:?}: {what}"));
        }
    }

    pub(crate) fn revoke(&mut self) {
        for token in self.tokens.iter_mut().filter(|token| !token.revoked) {
            token.revoked = true;
            self.count.revoked += 1;
        }
    }

    /// A token request leaves.
    pub(crate) fn attempt(&mut self, secret: u64) -> u64 {
        self.count.attempts += 1;
        let (time, before) = (now(), self.attempt);
        let cause = self.started.take();
        if self.under_way > 0 {
            self.violation("two token requests at once");
        }
        if cause == Some(FetchCause::Credentials) {
            if secret == before.secret {
                self.violation("a backoff ended for a secret that had not changed");
            }
        } else if time < self.stay_away[0] {
            let early = Duration::from_nanos(self.stay_away[0] - time);
            self.violation(format!("{cause:?}: a token request {early:?} too early"));
        }
        if self.since >= self.written.0 && secret < self.written.1 {
            let newest = self.written.1;
            self.violation(format!("secret {secret} after {newest} was there"));
        }
        self.under_way += 1;
        self.stay_away = STAY;
        self.attempt = Attempt {
            number: self.count.attempts,
            sent: [self.since, time],
            secret,
            asked: None,
        };
        self.attempt.number
    }

    /// The endpoint has a token of such a life for this attempt.
    pub(crate) fn issue(&mut self, number: u64, life: Duration) {
        // Whose client has given up already gets nothing of it.
        if self.attempt.number != number {
            return;
        }
        self.tokens.push_back(Token {
            number,
            sent: self.attempt.sent,
            life: nanos(life),
            over: 0,
            held_from: None,
            revoked: false,
            refused: false,
        });
        if self.tokens.len() > TOKENS {
            self.tokens.pop_front();
        }
    }

    /// The endpoint asks for so much time without a token request.
    pub(crate) fn ask_to_stay_away(&mut self, number: u64, span: Duration) {
        if self.attempt.number == number {
            self.attempt.asked = Some((now(), span));
        }
    }

    /// A token request has ended, with an answer or without.
    pub(crate) fn attempt_over(&mut self, number: u64, arrived: bool) {
        self.under_way -= 1;
        self.since = now();
        if !arrived {
            return;
        }
        if let Some((since, span)) = self.attempt.asked {
            self.stay_away[0] = self.stay_away[0].max(since + nanos(span));
        }
        let mut tokens = self.tokens.iter_mut();
        if let Some(token) = tokens.find(|token| token.number == number) {
            token.over = self.since;
            self.arrived.push_back(number);
        }
    }

    pub(crate) fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::FetchStarted { cause, .. } => {
                self.started = Some(*cause);
                self.since = now();
            }
            Event::FetchFinished {
                attempts, error, ..
            } => {
                self.count.attempts_told += u64::from(*attempts);
                if *attempts > ATTEMPTS {
                    self.violation(format!("{attempts} attempts in a flight"));
                }
                match error {
                    None => self.token_held(),
                    Some(error) => {
                        self.count.failed_flights += 1;
                        self.told.insert(cause_of(error));
                    }
                }
            }
            Event::FetchLost { .. } => self.count.lost_flights += 1,
            Event::Suspected { .. } => {
                self.count.suspected += 1;
                // A 401 is given before it is told of.
                if self.count.suspected > self.count.refused {
                    self.violation("more suspicions than tokens that were refused");
                }
            }
            Event::BudgetSpent { .. } => self.count.budgets_spent += 1,
            _ => {}
        }
    }

    fn token_held(&mut self) {
        self.count.tokens += 1;
        let time = now();
        let number = self.arrived.pop_front();
        let place = self
            .tokens
            .iter()
            .position(|token| Some(token.number) == number);
        let Some(place) = place else {
            return self.violation("a flight brought a token that nobody made");
        };
        let before = self
            .tokens
            .range(..place)
            .rfind(|token| token.held_from.is_some());
        if before.is_some_and(|before| !before.refused && time < before.over + HELD) {
            self.violation("two tokens within a second, though nobody refused the first");
        }
        self.tokens[place].held_from = Some(time);
    }

    /// Whether the API takes this token, from a request that began and was given it then.
    pub(crate) fn admits(&mut self, number: u64, began: u64, decided: u64) -> bool {
        let place = self.tokens.iter().position(|token| token.number == number);
        let Some(place) = place else {
            self.violation(format!("token {number} is not one of the newest {TOKENS}"));
            return false;
        };
        let renewed = |token: &Token| token.held_from.is_some_and(|from| from <= began);
        if self.tokens.range(place + 1..).any(renewed) {
            self.violation(format!("token {number} after a renewal"));
        }
        if self.faults.phase == Phase::Storm && !self.tokens[place].revoked {
            self.tokens[place].revoked = true;
            self.count.revoked += 1;
        }
        let token = &mut self.tokens[place];
        self.count.refused += u64::from(token.revoked && !token.refused);
        token.refused |= token.revoked;
        let (admitted, end) = (!token.revoked, token.sent[1] + token.life);
        let end = token.held_from.map(|from| end.max(from + HELD));
        if let Some(late) = end.and_then(|end| decided.checked_sub(end)) {
            let late = Duration::from_nanos(late);
            self.violation(format!("token {number} {late:?} past its end"));
        }
        admitted
    }

    /// A call that began then failed for want of a token, in a poll that began then and is over.
    pub(crate) fn failed(&mut self, [began, polled]: [u64; 2], ended: u64, error: &Error) {
        let mut tokens = self.tokens.iter().rev();
        let held = tokens.find_map(|token| Some((token, token.held_from?)));
        let live =
            |(token, from): &(&Token, u64)| *from <= began && ended < token.sent[0] + token.life;
        if let Some((token, _)) = held.filter(live) {
            let number = token.number;
            self.violation(format!("failed although token {number} was live: {error}"));
        }
        self.heard.insert(cause_of(error));
        // One who waited was told by a flight, and one who is late here by a backoff that is over.
        if began < polled || polled <= self.attempt.sent[1] {
            return;
        }
        let Some(wait) = error.retry_after() else {
            return self.violation(format!("a backoff without an end: {error}"));
        };
        let [from, until] = &mut self.stay_away;
        *from = (*from).max(polled + nanos(wait));
        if began > *until {
            let late = Duration::from_nanos(began - *until);
            return self.violation(format!("failed {late:?} after the backoff: {error}"));
        }
        *until = (*until).min(ended + nanos(wait));
    }

    /// What can be judged when all has ended.
    pub(crate) fn close(&mut self) {
        let unheard = |cause: &&String| !self.told.contains(*cause);
        if let Some(cause) = self.heard.iter().find(unheard) {
            self.violation(format!("callers heard what no flight told: {cause}"));
        }
        let mut causes = self.told.iter().chain(&self.heard);
        if let Some(cause) = causes.find(|cause| shows_a_secret(cause)) {
            self.violation(format!("a secret in an error: {cause}"));
        }
        if !self.arrived.is_empty() {
            self.violation("a token came, and no flight brought it");
        }
    }
}

/// What all who wait for a flight, or fail after it, hear of it; how long it took is part of it.
fn cause_of(error: &Error) -> String {
    let text = error.to_string();
    match text.split_once("; next attempt in") {
        Some((cause, _)) => cause.to_owned(),
        None => text,
    }
}

const STAY: [u64; 2] = [0, u64::MAX];
