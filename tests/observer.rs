//! What an observer is told, and how often.

mod support;

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use support::*;
use tokio::task::JoinSet;
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_oauth::FetchCause;
use tower_oauth::OAuthLayer;
use tower_oauth::observe::Event;
use tracing::Level;

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn layer(&self, builder: Builder) -> OAuthLayer {
        let told = self.clone();
        let observer = move |event: &Event<'_>| {
            let line = match event {
                Event::FetchStarted { cause, .. } => format!("started {}", cause.name()),
                Event::FetchFinished {
                    cause,
                    attempts,
                    host,
                    error,
                    remaining,
                    ..
                } => {
                    let end = error.map_or("ok", |error| {
                        if error.is_transient() {
                            "transient"
                        } else {
                            "other"
                        }
                    });
                    let left = remaining.map(|left| format!(", {} s left", left.as_secs()));
                    format!(
                        "finished {} {attempts} {} {end}{}",
                        cause.name(),
                        host.unwrap_or("-"),
                        left.unwrap_or_default()
                    )
                }
                Event::Suspected { generation, .. } => format!("suspected {generation}"),
                Event::BudgetSpent { generation, .. } => format!("spent {generation}"),
                Event::ScopeNarrowed { asked, granted, .. } => {
                    format!("narrowed {asked} to {granted}")
                }
                _ => unreachable!(),
            };
            told.0.lock().unwrap().push(line);
        };
        builder.observer(observer).build().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_is_told_once_however_many_wait_for_it() {
    let (told, endpoint) = (
        Told::default(),
        Endpoint::new().latency(Duration::from_millis(50)),
    );
    let layer = told.layer(builder(&endpoint));
    let service = layer.layer(Api::ok());
    let calls: JoinSet<_> = (0..50).map(|_| service.clone().oneshot(get(API))).collect();
    calls.join_all().await;
    settle().await;
    assert_eq!(
        told.take(),
        ["started no_token", "finished no_token 1 127.0.0.1 ok"]
    );
}

/// Before those who waited are, the first of whom may end the process.
#[tokio::test(start_paused = true)]
async fn a_thousand_failed_calls_are_told_as_one_failed_flight() {
    let (told, endpoint) = (Told::default(), Endpoint::new().always(Answer::Refused));
    let tokens = told.layer(builder(&endpoint)).token_cache();
    for _ in 0..1000 {
        tokens.token().await.unwrap_err();
    }
    settle().await;
    assert_eq!(
        told.take(),
        [
            "started no_token",
            "finished no_token 3 127.0.0.1 transient"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_told_with_what_the_live_token_has_left() {
    let (told, endpoint) = (
        Told::default(),
        Endpoint::new()
            .then([Answer::Token(3600)])
            .always(Answer::Error(400, "x")),
    );
    let tokens = told.layer(builder(&endpoint)).token_cache();
    tokens.token().await.unwrap();
    told.take();
    advance(Duration::from_secs(3400)).await;
    tokens.token().await.unwrap();
    settle().await;
    assert_eq!(
        told.take(),
        [
            "started ahead",
            "finished ahead 1 127.0.0.1 other, 200 s left"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_one_line_that_says_whether_a_live_token_stays_in_use() {
    LazyLock::force(&SUBSCRIBER);
    let endpoint = Endpoint::new()
        .then([Answer::Token(3600)])
        .always(Answer::Error(400, "x"));
    let tokens = builder(&endpoint).build().unwrap().token_cache();
    tokens.token().await.unwrap();
    for (later, in_use) in [(3400, true), (3600, false)] {
        LOG.take();
        advance(Duration::from_secs(later)).await;
        assert_eq!(tokens.token().await.is_ok(), in_use);
        settle().await;
        let log = String::from_utf8(LOG.take()).unwrap();
        assert_eq!(log.matches("WARN").count(), 1, "{log}");
        for part in ["remaining_ms=200000", "; the live token stays in use"] {
            assert_eq!(log.contains(part), in_use, "{log}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn suspicion_and_a_spent_budget_are_told_once_each() {
    let (told, endpoint) = (Told::default(), Endpoint::new());
    let layer = told.layer(builder(&endpoint));
    let service = layer.layer(Api::new(|_| unauthorized("")));
    for _ in 0..100 {
        service.clone().oneshot(get(API)).await.unwrap();
    }
    settle().await;
    let told: Vec<_> = told
        .take()
        .into_iter()
        .filter(|line| line.starts_with('s') && !line.starts_with("started no"))
        .collect();
    let renewal = |n: usize| [format!("suspected {n}"), String::from("started refused")];
    let mut expected: Vec<_> = (1..=3).flat_map(renewal).collect();
    expected.push(String::from("spent 4"));
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_narrower_scope_is_told() {
    let told = Told::default();
    let body = r#"{"access_token":"t","scope":"a"}"#;
    let endpoint = Endpoint::new().always(raw(200, &[], body));
    let tokens = told.layer(builder(&endpoint).scope("a b")).token_cache();
    tokens.token().await.unwrap();
    settle().await;
    assert_eq!(
        told.take()[1..],
        ["finished no_token 1 127.0.0.1 ok", "narrowed a b to a"]
    );
}

/// One for the process: with one for each thread, an event that a thread without any meets first
/// would be switched off for all of them.
static SUBSCRIBER: LazyLock<()> = LazyLock::new(|| {
    tracing_subscriber::fmt()
        .with_max_level(Level::DEBUG)
        .with_writer(|| Log)
        .init();
});

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What this thread logs. A test and its flights share one.
struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn causes_have_stable_names() {
    let names = [
        FetchCause::NoToken,
        FetchCause::Ahead,
        FetchCause::LastStretch,
        FetchCause::Refused,
        FetchCause::Credentials,
    ]
    .map(FetchCause::name);
    assert_eq!(
        names,
        [
            "no_token",
            "ahead",
            "last_stretch",
            "refused",
            "credentials"
        ]
    );
}
