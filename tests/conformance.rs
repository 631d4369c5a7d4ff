//! The layer against authorization servers that others wrote, as they run.
//!
//! `tests/conformance/run` installs and starts them. Each test owns one table of
//! `src/docs/interop.md`: it checks that the table says what was seen, or writes it when
//! `TOWER_OAUTH_WRITE_INTEROP` is set.
#![cfg(feature = "aws-lc-rs")]

#[path = "conformance/page.rs"]
mod page;
#[path = "conformance/servers.rs"]
mod servers;

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use http::StatusCode;
use servers::{METHODS, Server, TestClient};
use tower::Layer;
use tower_oauth::challenge::Challenges;
use tower_oauth::observe::Event;
use tower_oauth::{BuildError, CachePolicy, ClientAuth, Error, Replayed};

/// Several hundred at once.
const MANY: usize = 300;

#[tokio::test]
#[ignore = "needs the servers of tests/conformance/; run by .ci/run"]
async fn the_servers_are_those_of_the_page() {
    let rows: Vec<_> = servers::running()
        .iter()
        .map(|server| vec![server.kind.name.to_owned(), server.version.clone()])
        .collect();
    page::settle("Servers", &["server", "version"], &rows);
}

// Q1, Q3, Q5, Q7
#[tokio::test]
#[ignore = "needs the servers of tests/conformance/; run by .ci/run"]
async fn each_server_gives_a_token_for_the_client_authentication_it_wants() {
    let mut rows = Vec::new();
    for server in servers::running() {
        let name = server.kind.name;
        for id in ["basic-client", "post-client", "sp1", "sp2:x +/%3A~", "sp3é"] {
            let client = TestClient::named(id);
            let mut seen = Vec::new();
            for method in &METHODS {
                seen.push(authenticate(&server, (method.auth)(&client)).await);
            }
            let (right, wrong) = if server.kind.encoded { (1, 0) } else { (0, 1) };
            match id {
                "basic-client" => assert_eq!(seen[..2], ["token", "token"], "{name}"),
                "sp1" => {
                    assert_eq!(seen[right], "token", "{name}");
                    assert_ne!(seen[wrong], "token", "{name}");
                }
                _ => {}
            }
            let mut row = vec![name.to_owned(), format!("`{id}`"), code(&client.secret)];
            row.append(&mut seen);
            rows.push(row);
        }
    }
    let mut columns = vec!["server", "client id", "secret"];
    columns.extend(METHODS.iter().map(|method| method.name));
    page::settle("Client authentication", &columns, &rows);
}

async fn authenticate(server: &Server, auth: ClientAuth) -> String {
    let layer = match servers::layer(server.token_url(), auth)
        .scope(server.scope())
        .build()
    {
        Ok(layer) => layer,
        Err(BuildError::ClientId { .. }) => return "refused by us: `:` in the id".to_owned(),
        Err(error) => panic!("{error}"),
    };
    let tokens = layer.token_cache();
    let seen = match tokens.token().await {
        Ok(_) => "token".to_owned(),
        Err(error) => describe(&error),
    };
    assert_eq!(tokens.status().token_requests, 1, "{}", server.kind.name);
    seen
}

// R26
#[tokio::test]
#[ignore = "needs the servers of tests/conformance/; run by .ci/run"]
async fn where_the_form_of_basic_is_wrong_the_error_names_the_other() {
    let client = TestClient::named("sp1");
    for server in servers::running() {
        let (wrong, other) = if server.kind.encoded {
            (&METHODS[0], "ClientAuth::basic_encoded")
        } else {
            (&METHODS[1], "ClientAuth::basic)")
        };
        let layer = servers::layer(server.token_url(), (wrong.auth)(&client))
            .scope(server.scope())
            .build()
            .unwrap();
        let error = layer.token_cache().token().await.unwrap_err();
        assert!(error.to_string().contains(other), "{error}");
        assert!(!error.to_string().contains(&client.secret), "{error}");
    }
}

// K3, K20, P32
#[tokio::test]
#[ignore = "needs the servers of tests/conformance/; run by .ci/run"]
async fn bad_credentials_are_rejected_by_one_request_and_no_more_during_the_backoff() {
    let cases = [
        ("wrong secret, `basic`", 0, "basic-client", "wrong"),
        ("wrong secret, `post`", 2, "post-client", "wrong"),
        ("unknown id, `basic`", 0, "nobody", "wrong"),
        ("unknown id, `post`", 2, "nobody", "wrong"),
    ];
    let mut rows = Vec::new();
    for server in servers::running() {
        for (case, method, id, secret) in cases {
            let auth = (METHODS[method].auth)(&TestClient::new(id, secret));
            let layer = servers::layer(server.token_url(), auth)
                .scope(server.scope())
                .build()
                .unwrap();
            let tokens = layer.token_cache();
            let error = tokens.token().await.unwrap_err();
            assert!(error.is_rejected(), "{} {case}: {error}", server.kind.name);
            let again = tokens.token().await.unwrap_err();
            assert!(again.retry_after().is_some(), "{again}");
            assert_eq!(again.status(), error.status());
            assert_eq!(tokens.status().token_requests, 1);
            rows.push(vec![
                server.kind.name.to_owned(),
                case.to_owned(),
                describe(&error),
            ]);
        }
    }
    let columns = ["server", "credentials", "error"];
    page::settle("Bad credentials", &columns, &rows);
}

#[tokio::test]
#[ignore = "needs the servers of tests/conformance/; run by .ci/run"]
async fn a_scope_is_asked_for_and_a_narrower_grant_is_told() {
    let client = TestClient::named("basic-client");
    let mut rows = Vec::new();
    for server in servers::running() {
        for &scope in server.kind.scopes {
            let granted = Arc::new(Mutex::new(None));
            let told = Arc::clone(&granted);
            let layer = servers::layer(server.token_url(), (METHODS[0].auth)(&client))
                .scope(scope)
                .observer(move |event: &Event<'_>| {
                    if let Event::ScopeNarrowed { granted, .. } = event {
                        *told.lock().unwrap() = Some((*granted).to_owned());
                    }
                })
                .build()
                .unwrap();
            let seen = match layer.token_cache().token().await {
                Ok(_) => match granted.lock().unwrap().take() {
                    Some(granted) => format!("token, narrowed to {}", code(&granted)),
                    None => "token".to_owned(),
                },
                Err(error) => describe(&error),
            };
            if scope == server.scope() {
                assert_eq!(seen, "token", "{}", server.kind.name);
            }
            rows.push(vec![server.kind.name.to_owned(), code(scope), seen]);
        }
    }
    let columns = ["server", "scope asked for", "answer"];
    page::settle("Scopes", &columns, &rows);
}

// K1, K9
#[tokio::test]
#[ignore = "needs the servers of tests/conformance/; run by .ci/run"]
async fn a_short_token_is_renewed_under_load_by_one_request_a_life() {
    let rows = join_all(servers::running().into_iter().map(renew_under_load)).await;
    let columns = [
        "server",
        "at once",
        "tokens",
        "token requests sent",
        "tokens issued by its count",
        "requests refused",
    ];
    page::settle("Renewal under load", &columns, &rows);
}

/// Waves of requests until the third token is in use: one cold start and two renewals ahead of
/// time.
async fn renew_under_load(server: Server) -> Vec<String> {
    let name = server.kind.name;
    let client = TestClient::named("short-client");
    let auth = (METHODS[0].auth)(&client);
    let layer = servers::layer(server.short_token_url(), auth)
        .scope(server.scope())
        .build()
        .unwrap();
    let tokens = layer.token_cache();
    let api = layer.layer(servers::https_client());
    let issued_before = server.issued(&client.id).await;
    let (mut refused, mut sent) = (0, 0);
    let began = Instant::now();
    loop {
        let wave = (0..MANY).map(|_| servers::get(api.clone(), server.short_api_url()));
        let answers = try_join_all(wave).await.unwrap();
        sent += answers.len();
        refused += answers
            .iter()
            .filter(|answer| answer.status() != StatusCode::OK)
            .count();
        if sent == MANY {
            assert_eq!(tokens.status().token_requests, 1, "{name}");
        }
        if tokens.status().generation == Some(3) {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{name}: no third token"
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let status = tokens.status();
    let issued = server.issued(&client.id).await - issued_before;
    println!(
        "{name}: {sent} requests in {:.1?}, {refused} refused",
        began.elapsed()
    );
    assert_eq!(
        (status.token_requests, issued, refused),
        (3, 3, 0),
        "{name}"
    );
    assert!(status.last_error.is_none(), "{name}: {status:?}");
    vec![
        name.to_owned(),
        MANY.to_string(),
        "3".to_owned(),
        status.token_requests.to_string(),
        issued.to_string(),
        refused.to_string(),
    ]
}

// P1, P2, P4
#[tokio::test]
#[ignore = "needs the servers of tests/conformance/; run by .ci/run"]
async fn a_revoked_token_costs_one_renewal_and_the_request_is_replayed() {
    let client = TestClient::named("basic-client");
    let mut rows = Vec::new();
    for server in servers::running() {
        let name = server.kind.name;
        let layer = servers::layer(server.token_url(), (METHODS[0].auth)(&client))
            .scope(server.scope())
            .build()
            .unwrap();
        let tokens = layer.token_cache();
        let plain = layer.layer(servers::https_client());
        let replaying = layer
            .clone()
            .replay_unauthorized()
            .layer(servers::https_client());
        let ok =
            |answer: &http::Response<()>| assert_eq!(answer.status(), StatusCode::OK, "{name}");
        let replayed =
            |answer: &http::Response<()>| answer.extensions().get::<Replayed>().is_some();

        ok(&servers::get(plain.clone(), server.api_url()).await.unwrap());
        server.revoke(&tokens, &client).await;
        let refusal = servers::get(plain.clone(), server.api_url()).await.unwrap();
        assert!(tokens.status().suspect, "{name}");
        let next = servers::get(plain, server.api_url()).await.unwrap();
        ok(&next);
        assert!(!replayed(&next));
        assert_eq!(tokens.status().token_requests, 2, "{name}");

        server.revoke(&tokens, &client).await;
        let answer = servers::get(replaying.clone(), server.api_url())
            .await
            .unwrap();
        ok(&answer);
        assert!(replayed(&answer), "{name}");
        assert_eq!(tokens.status().token_requests, 3, "{name}");

        server.revoke(&tokens, &client).await;
        let wave = (0..MANY).map(|_| servers::get(replaying.clone(), server.api_url()));
        let answers = try_join_all(wave).await.unwrap();
        answers.iter().for_each(ok);
        assert!(answers.iter().any(replayed), "{name}");
        let requests = tokens.status().token_requests;
        assert_eq!(requests, 4, "{name}");

        rows.push(vec![
            name.to_owned(),
            refusal_text(&refusal),
            format!("{}, renewed", next.status().as_u16()),
            format!("{}, replayed", answer.status().as_u16()),
            format!(
                "all {}, {} token request",
                answers[0].status().as_u16(),
                requests - 3
            ),
        ]);
    }
    let columns = [
        "server",
        "the API's answer to a revoked token",
        "the next request",
        "with replay",
        "300 at once, with replay",
    ];
    page::settle("Revocation", &columns, &rows);
}

fn refusal_text(answer: &http::Response<()>) -> String {
    let challenge = answer
        .extensions()
        .get::<Challenges>()
        .and_then(Challenges::bearer)
        .and_then(|bearer| bearer.error());
    match challenge {
        Some(error) => format!("{}, Bearer `{error}`", answer.status().as_u16()),
        None => format!("{}, no challenge", answer.status().as_u16()),
    }
}

// K19, K21, K22, K36, Q17
#[tokio::test]
#[ignore = "needs the servers of tests/conformance/; run by .ci/run"]
async fn what_a_front_answers_in_place_of_the_server_is_classed_by_kind() {
    let front = servers::front();
    let cases = [
        ("502 with HTML", "/502", "transient", 3),
        ("503 with `Retry-After: 7`", "/503", "transient", 1),
        ("200 with a sign-in page", "/html", "invalid response", 1),
        ("200 with an empty body", "/empty", "transient", 3),
        (
            "connection closed without an answer",
            "/drop",
            "transient",
            3,
        ),
        (
            "307 to the token endpoint",
            "/redirect",
            "invalid response",
            1,
        ),
        (
            "20 bytes a second, limit of an attempt 0.5 s",
            "/slow",
            "transient, timeout",
            3,
        ),
        ("certificate of an unknown CA", "", "transient", 1),
        ("429 with `Retry-After: 6`", "/limited", "transient", 1),
    ];
    let mut rows = Vec::new();
    for (case, fault, class, requests) in cases {
        if fault == "/limited" {
            tokens_behind(&front, fault, servers::https_client())
                .await
                .0
                .unwrap();
        }
        let client = if fault.is_empty() {
            servers::distrustful_client()
        } else {
            servers::https_client()
        };
        let (result, sent) = tokens_behind(&front, fault, client).await;
        let error = result.unwrap_err();
        assert!(describe(&error).starts_with(class), "{case}: {error}");
        assert_eq!(sent, requests, "{case}: {error}");
        if fault.is_empty() {
            assert!(causes(&error).contains("certificate"), "{}", causes(&error));
        }
        if let Some((_, seconds)) = case.split_once("Retry-After: ") {
            let seconds = seconds.trim_end_matches('`').parse().unwrap();
            let asked = Duration::from_secs(seconds);
            assert_eq!(error.server_retry_after(), Some(asked), "{case}");
            assert!(error.retry_after() >= Some(asked), "{case}: {error}");
        }
        rows.push(vec![case.to_owned(), describe(&error), sent.to_string()]);
    }
    let (result, sent) = tokens_behind(&front, "/gzip", servers::https_client()).await;
    result.unwrap();
    assert_eq!(sent, 1);
    rows.push(vec![
        "compression offered".to_owned(),
        "token".to_owned(),
        "1".to_owned(),
    ]);
    let columns = ["nginx-front answers", "what comes of it", "token requests"];
    page::settle("A front in between", &columns, &rows);
}

async fn tokens_behind(
    front: &Server,
    fault: &str,
    client: servers::HttpsClient,
) -> (Result<(), Error>, u64) {
    let auth = (METHODS[0].auth)(&TestClient::named("basic-client"));
    let policy = CachePolicy::new().attempt_timeout(if fault == "/slow" {
        Duration::from_millis(500)
    } else {
        Duration::from_secs(10)
    });
    let layer = servers::layer(front.fault_url(fault), auth)
        .token_client(client)
        .cache_policy(policy)
        .build()
        .unwrap();
    let tokens = layer.token_cache();
    let result = tokens.token().await.map(drop);
    (result, tokens.status().token_requests)
}

/// The class of an error, its status and its code.
fn describe(error: &Error) -> String {
    let class = match error {
        error if error.is_timeout() => "transient, timeout",
        error if error.is_transient() => "transient",
        error if error.is_rejected() => "rejected",
        error if error.is_invalid_response() => "invalid response",
        error => panic!("of no class: {error}"),
    };
    let mut text = class.to_owned();
    if let Some(status) = error.status() {
        text += &format!(": {}", status.as_u16());
    }
    if let Some(code) = error.oauth_code() {
        text += &format!(" `{code}`");
    }
    text
}

fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn code(text: &str) -> String {
    if text.is_empty() {
        "none".to_owned()
    } else {
        format!("`{text}`")
    }
}
