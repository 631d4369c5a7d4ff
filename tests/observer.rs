//! What an observer is told, and how often.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::*;
use tokio::task::JoinSet;
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_oauth::FetchCause;
use tower_oauth::OAuthLayer;
use tower_oauth::observe::Event;

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
                    ..
                } => {
                    let end = error.map_or("ok", |error| {
                        if error.is_transient() {
                            "transient"
                        } else {
                            "other"
                        }
                    });
                    format!(
                        "finished {} {attempts} {} {end}",
                        cause.name(),
                        host.unwrap_or("-")
                    )
                }
                Event::WaitersReleased { waiters, .. } => format!("released {waiters}"),
                Event::StaleServe { remaining, .. } => format!("stale {}", remaining.as_secs()),
                Event::Suspected { generation, .. } => format!("suspected {generation}"),
                Event::BudgetSpent { generation, .. } => format!("spent {generation}"),
                Event::ScopeNarrowed { asked, granted, .. } => {
                    format!("narrowed {asked} to {granted}")
                }
                Event::LenientParse { .. } => String::from("lenient"),
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
        [
            "started no_token",
            "finished no_token 1 127.0.0.1 ok",
            "released 50"
        ]
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
            "finished no_token 3 127.0.0.1 transient",
            "released 1"
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
            "finished ahead 1 127.0.0.1 other",
            "stale 200"
        ]
    );
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
async fn a_narrower_scope_and_an_odd_answer_are_told() {
    let told = Told::default();
    let form = raw(
        200,
        &[("content-type", "text/plain")],
        "access_token=t&scope=a&expires_in=100",
    );
    let endpoint = Endpoint::new().always(form);
    told.layer(builder(&endpoint).scope("a b"))
        .token_cache()
        .token()
        .await
        .unwrap();
    settle().await;
    assert_eq!(
        told.take()[1..],
        [
            "finished no_token 1 127.0.0.1 ok",
            "lenient",
            "narrowed a b to a",
            "released 1"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_odd_by_its_body_or_by_its_type() {
    let (json, form) = (r#"{"access_token":"t"}"#, "access_token=t");
    for (kind, body, odd) in [
        ("application/json", json, false),
        ("application/vnd.api+json; charset=utf-8", json, false),
        ("text/plain", json, true),
        ("application/json", form, true),
    ] {
        let told = Told::default();
        let endpoint = Endpoint::new().always(raw(200, &[("content-type", kind)], body));
        let tokens = told.layer(builder(&endpoint)).token_cache();
        tokens.token().await.unwrap();
        settle().await;
        let told = told.take();
        assert_eq!(
            told.contains(&"lenient".to_owned()),
            odd,
            "{kind}: {told:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_json_answer_is_not_odd_whatever_the_secret() {
    let told = Told::default();
    let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", "s")
        .token_client(Endpoint::new())
        .scope("a");
    told.layer(layer).token_cache().token().await.unwrap();
    settle().await;
    assert_eq!(
        told.take()[1..],
        ["finished no_token 1 127.0.0.1 ok", "released 1"]
    );
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
