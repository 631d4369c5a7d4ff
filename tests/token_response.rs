//! The table of real servers' answers, through the public API, and the rules of the response reader.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::*;

const TABLE: &str = include_str!("cases/token_responses.json");

const YEAR: u64 = 365 * 24 * 3600;

fn answer(row: &Value) -> Answer {
    let mut body = row["body"].as_str().unwrap().to_owned();
    if let Some(repeat) = row["repeat_at"].as_u64() {
        body = body.replace("@@", &"x".repeat(repeat as usize));
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    if let Some(kind) = row["content_type"].as_str() {
        headers.push((String::from("content-type"), kind.to_owned()));
    }
    for header in row["headers"].as_array().into_iter().flatten() {
        headers.push((
            header[0].as_str().unwrap().to_owned(),
            header[1].as_str().unwrap().to_owned(),
        ));
    }
    Answer::Raw(Raw {
        status: row["status"].as_u64().unwrap() as u16,
        headers,
        body: body.into_bytes(),
    })
}

// Not among them: what needs DPoP to be asked for; X16 and T05 are rows of a client without it and are run.
#[tokio::test(start_paused = true)]
async fn every_row_of_the_table_comes_out_as_expected() {
    let rows: Vec<Value> = serde_json::from_str(TABLE).unwrap();
    assert!(rows.len() >= 67);
    for row in rows {
        let id = row["id"].as_str().unwrap();
        let endpoint = Endpoint::new().always(answer(&row));
        let layer = builder(&endpoint)
            .refresh_policy(one_attempt())
            .build()
            .unwrap();
        let expect = &row["expect"];
        match layer.tokens().token().await {
            Ok(token) => {
                let expect = expect
                    .get("token")
                    .unwrap_or_else(|| panic!("{id}: got a token"));
                let life = match &expect["lifetime_s"] {
                    Value::Null => 300,
                    Value::String(max) if max == "max" => YEAR,
                    // Held for a second, however short its life.
                    life => life.as_u64().unwrap().max(1),
                };
                assert_eq!(token.remaining().as_secs(), life, "{id}");
                if let Some(value) = expect["value"].as_str() {
                    assert_eq!(token.expose_secret(), value, "{id}");
                }
            }
            Err(error) => {
                let expect = expect
                    .get("error")
                    .unwrap_or_else(|| panic!("{id}: {error}"));
                let class = (
                    error.is_rejected(),
                    error.is_transient(),
                    error.is_invalid_response(),
                );
                let wanted = expect["class"].as_str().unwrap();
                assert_eq!(
                    class,
                    (
                        wanted == "rejected",
                        wanted == "transient",
                        wanted == "invalid_response"
                    ),
                    "{id}: {error}"
                );
                if let Some(code) = expect["oauth_code"].as_str() {
                    assert_eq!(error.oauth_code(), Some(code), "{id}");
                }
                if let Some(seconds) = expect["retry_after_s"].as_u64() {
                    assert_eq!(
                        error.retry_after().map(|span| span.as_secs()),
                        Some(seconds),
                        "{id}"
                    );
                }
                assert_eq!(
                    expect["redirect"] == true,
                    error.to_string().contains("redirect"),
                    "{id}: {error}"
                );
                assert_eq!(
                    expect["too_large"] == true,
                    error.to_string().contains("larger than"),
                    "{id}: {error}"
                );
                if expect["too_large"] != true
                    && !row["body"].as_str().unwrap().is_empty()
                    && wanted != "transient"
                {
                    assert_eq!(
                        error.status().map(|status| u64::from(status.as_u16())),
                        row["status"].as_u64(),
                        "{id}"
                    );
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_not_utf8_spoil_only_the_member_they_stand_in() {
    let latin1 = |status, body: &[u8]| {
        Answer::Raw(Raw {
            status,
            headers: Vec::new(),
            body: body.to_vec(),
        })
    };
    let named =
        b"{\"access_token\":\"TOK\",\"expires_in\":60,\"application_name\":\"Soci\xe9t\xe9\"}";
    let endpoint = Endpoint::new().always(latin1(200, named));
    let token = layer(&endpoint).tokens().token().await.unwrap();
    assert_eq!(token.expose_secret(), "TOK");
    assert_eq!(token.remaining(), Duration::from_secs(60));

    let refused = b"{\"error\":\"invalid_client\",\"error_description\":\"refus\xe9\"}";
    let error = error_of(latin1(400, refused)).await;
    assert_eq!(error.oauth_code(), Some("invalid_client"));
    assert_eq!(error.description(), Some("refus?"));

    let spoilt = b"{\"access_token\":\"TO\xe9K\"}";
    assert!(error_of(latin1(200, spoilt)).await.is_invalid_response());
}

async fn error_of(answer: Answer) -> tower_oauth::Error {
    let endpoint = Endpoint::new().always(answer);
    let layer = builder(&endpoint)
        .refresh_policy(one_attempt())
        .build()
        .unwrap();
    layer.tokens().token().await.unwrap_err()
}

// P32
#[tokio::test(start_paused = true)]
async fn an_invalid_client_is_rejected_in_every_shape_servers_say_it() {
    let json = r#"{"error":"invalid_client"}"#;
    let shapes = [
        (
            raw(401, &[("www-authenticate", "Basic realm=\"x\"")], json),
            Some("invalid_client"),
        ),
        (
            raw(
                401,
                &[("www-authenticate", "Bearer error=\"invalid_client\"")],
                json,
            ),
            Some("invalid_client"),
        ),
        (
            raw(401, &[("www-authenticate", "Unknown")], json),
            Some("invalid_client"),
        ),
        (raw(401, &[], json), Some("invalid_client")),
        (raw(400, &[], json), Some("invalid_client")),
        (raw(403, &[], ""), None),
        (raw(404, &[], ""), None),
        (
            raw(
                401,
                &[],
                r#"{"ErrorCode":"invalid_client","Error":"ClientId is Invalid"}"#,
            ),
            Some("invalid_client"),
        ),
    ];
    for (shape, code) in shapes {
        let error = error_of(shape.clone()).await;
        assert!(error.is_rejected(), "{shape:?}: {error}");
        assert!(error.status().is_some());
        assert_eq!(error.oauth_code(), code, "{shape:?}");
    }
}

// P31
#[tokio::test(start_paused = true)]
async fn retry_after_on_a_success_is_ignored() {
    let token = r#"{"access_token":"t","expires_in":100}"#;
    let endpoint = Endpoint::new().always(raw(200, &[("retry-after", "3600")], token));
    let tokens = layer(&endpoint).tokens();
    assert!(tokens.token().await.is_ok());
    tokens.invalidate();
    assert!(tokens.token().await.is_ok());
    assert_eq!(endpoint.requests(), 2);
}

// K26
#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_ignored_and_never_shown() {
    let body = r#"{"access_token":"t-canary","refresh_token":"r-canary","expires_in":100}"#;
    let endpoint = Endpoint::new().always(raw(200, &[], body));
    let layer = layer(&endpoint);
    let token = layer.tokens().token().await.unwrap();
    let shown = format!("{token:?} {:?} {layer:?}", layer.tokens());
    assert!(!shown.contains("canary"), "{shown}");
    tokio::time::advance(Duration::from_secs(101)).await;
    layer.tokens().token().await.unwrap();
    assert!(
        endpoint
            .seen()
            .iter()
            .all(|seen| seen.body == "grant_type=client_credentials")
    );
}

// R27
#[tokio::test(start_paused = true)]
async fn another_token_type_is_taken_only_by_name_and_sent_as_bearer() {
    let odd = raw(
        200,
        &[],
        r#"{"access_token":"t","token_type":"Application Access Token","expires_in":100}"#,
    );
    let error = error_of(odd.clone()).await;
    assert!(error.to_string().contains("accept_token_type"), "{error}");
    let endpoint = Endpoint::new().always(odd);
    let layer = builder(&endpoint)
        .accept_token_type("application access token")
        .build()
        .unwrap();
    let token = layer.tokens().token().await.unwrap();
    assert_eq!(token.header_value(), "Bearer t");
}

#[tokio::test(start_paused = true)]
async fn an_error_names_endpoint_status_code_description_request_id_and_what_to_do() {
    let body = r#"{"error":"invalid_scope","error_description":"no such scope"}"#;
    let error = error_of(raw(400, &[("x-request-id", "req-7")], body)).await;
    assert_eq!(error.description(), Some("no such scope"));
    assert_eq!(error.request_id(), Some("req-7"));
    assert_eq!(error.endpoint(), Some("127.0.0.1"));
    let text = error.to_string();
    let (text, next) = text.split_once("; next attempt in ").unwrap();
    assert!(next.ends_with('s'), "{next}");
    assert_eq!(
        text,
        "no access token from 127.0.0.1: the token endpoint refused: invalid_scope, status 400, \"no such scope\", \
         request id req-7 (1 attempt in 0.0ns); check the scope, audience, resource and extra parameters"
    );
}

#[tokio::test(start_paused = true)]
async fn a_description_is_shown_as_one_short_line_of_printable_ascii() {
    let body = format!(
        r#"{{"error":"invalid_scope","error_description":"a\r\nb\u001b[31m{}"}}"#,
        "x".repeat(999)
    );
    let error = error_of(raw(400, &[], &body)).await;
    let text = error.to_string();
    assert!(
        text.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
        "{text}"
    );
    assert!(text.len() < 500, "{}", text.len());
}

// R26
#[tokio::test(start_paused = true)]
async fn where_the_two_forms_of_basic_differ_an_unknown_client_is_told_both() {
    let invalid_client = Answer::Error(401, "invalid_client");
    let bad_scope = Answer::Error(400, "invalid_scope");
    for (answer, secret, names_both) in [
        (invalid_client.clone(), "plain-secret", false),
        (invalid_client, "s+cret/", true),
        (raw(401, &[], ""), "s+cret/", true),
        (raw(403, &[], ""), "s+cret/", true),
        (raw(404, &[], ""), "s+cret/", false),
        (bad_scope, "s+cret/", false),
    ] {
        let endpoint = Endpoint::new().always(answer);
        let layer = tower_oauth::OAuthLayer::client_credentials(TOKEN_URL, "id", secret)
            .token_client(endpoint)
            .build()
            .unwrap();
        let text = layer.tokens().token().await.unwrap_err().to_string();
        assert_eq!(
            text.contains("ClientAuth::basic_encoded"),
            names_both,
            "{text}"
        );
    }
}
