//! The table of real servers' answers, through the public API, and the rules of the response
//! reader.

#[path = "../support/mod.rs"]
mod support;

mod errors;

use std::time::Duration;

use serde_json::Value;
use support::*;

const TABLE: &str = include_str!("../cases/token_responses.json");

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

// Not among them: what needs DPoP to be asked for; X16 and T05 are rows of a client without it and
// are run.
#[tokio::test(start_paused = true)]
async fn every_row_of_the_table_comes_out_as_expected() {
    let rows: Vec<Value> = serde_json::from_str(TABLE).unwrap();
    assert!(rows.len() >= 67);
    for row in rows {
        let id = row["id"].as_str().unwrap();
        let endpoint = Endpoint::new().always(answer(&row));
        let layer = builder(&endpoint)
            .cache_policy(one_attempt())
            .build()
            .unwrap();
        let expect = &row["expect"];
        match layer.token_cache().token().await {
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
    let token = layer(&endpoint).token_cache().token().await.unwrap();
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
        .cache_policy(one_attempt())
        .build()
        .unwrap();
    layer.token_cache().token().await.unwrap_err()
}

// P31
#[tokio::test(start_paused = true)]
async fn retry_after_on_a_success_is_ignored() {
    let token = r#"{"access_token":"t","expires_in":100}"#;
    let endpoint = Endpoint::new().always(raw(200, &[("retry-after", "3600")], token));
    let tokens = layer(&endpoint).token_cache();
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
    let token = layer.token_cache().token().await.unwrap();
    let shown = format!("{token:?} {:?} {layer:?}", layer.token_cache());
    assert!(!shown.contains("canary"), "{shown}");
    tokio::time::advance(Duration::from_secs(101)).await;
    layer.token_cache().token().await.unwrap();
    assert!(
        endpoint
            .seen()
            .iter()
            .all(|seen| seen.body == "grant_type=client_credentials")
    );
}

async fn token_of(body: &str) -> tower_oauth::AccessToken {
    let endpoint = Endpoint::new().always(raw(200, &[], body));
    let token = layer(&endpoint).token_cache().token().await;
    token.unwrap_or_else(|error| panic!("{}: {error}", &body[..body.len().min(99)]))
}

// FA1
#[tokio::test(start_paused = true)]
async fn a_form_begins_with_any_parameter_of_rfc_6749() {
    for body in [
        "access_token=T&token_type=bearer",
        "token_type=bearer&access_token=T",
        "expires_in=60&access_token=T",
        "refresh_token=R&access_token=T",
        "scope=a+b&access_token=T",
        "state=s&access_token=T",
        "access%5Ftoken=T",
        "\u{feff}access_token=T\r\n",
    ] {
        assert_eq!(token_of(body).await.expose_secret(), "T", "{body}");
    }
    let escaped = token_of("access_token=a%2Fb%3D&scope=a+b").await;
    assert_eq!(escaped.expose_secret(), "a/b=");
}

// FA4
#[tokio::test(start_paused = true)]
async fn a_member_that_is_repeated_with_the_same_value_is_taken() {
    for body in [
        r#"{"access_token":"T","access_token":"T"}"#,
        r#"{"access_token":"T","access_token":"\u0054","expires_in":9,"expires_in":"9"}"#,
        r#"{"access_token":"T","token_type":"Bearer","token_type":"Bearer"}"#,
        r#"{"access_token":"T","error":null,"error":null}"#,
        r#"{"access_token":"T","x":{"access_token":"other"},"y":1,"y":2}"#,
        "access_token=T&access_token=T",
    ] {
        assert_eq!(token_of(body).await.expose_secret(), "T", "{body}");
    }
}

// FA6
#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_never_makes_a_token_unusable() {
    let deep = "[".repeat(400_000) + &"]".repeat(400_000);
    let objects = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
    let pair = [
        "1e400",
        "-1e-400",
        r#""\ud800""#,
        r#""\udc00\ud800 \u0000""#,
        &deep,
        &objects,
    ];
    for odd in pair {
        for name in [
            "x",
            "message",
            "fault",
            "errors",
            "error_uri",
            "\\ud800",
            "refresh_token",
        ] {
            let body = format!(r#"{{"{name}":{odd},"access_token":"T","expires_in":60}}"#);
            let token = token_of(&body).await;
            assert_eq!(token.expose_secret(), "T");
            assert_eq!(token.remaining(), Duration::from_secs(60));
        }
        let refused = format!(r#"{{"error":"invalid_scope","errors":{odd}}}"#);
        let error = error_of(raw(400, &[], &refused)).await;
        assert_eq!(error.oauth_code(), Some("invalid_scope"));
    }
    for name in ["error", "scope", "expires_in"] {
        let body = format!(r#"{{"{name}":{deep},"access_token":"T"}}"#);
        assert_eq!(token_of(&body).await.expose_secret(), "T");
    }
}

// FA6
#[tokio::test(start_paused = true)]
async fn a_life_past_all_bounds_is_a_year_and_words_are_none() {
    for (life, seconds) in [
        ("1e400", YEAR),
        ("\"1e400\"", YEAR),
        ("1e19", YEAR),
        ("-1e400", 1),
        ("\"inf\"", 300),
        ("\"Infinity\"", 300),
        ("\"nan\"", 300),
        ("true", 300),
        ("\"0x10\"", 300),
    ] {
        let token = token_of(&format!(r#"{{"access_token":"T","expires_in":{life}}}"#)).await;
        assert_eq!(token.remaining().as_secs(), seconds, "{life}");
    }
}

// FS13
#[tokio::test(start_paused = true)]
async fn a_scope_that_holds_the_secret_is_not_taken_for_a_narrower_one() {
    use std::sync::{Arc, Mutex};

    use tower_oauth::observe::Event;

    let long = "x".repeat(5000);
    let words = "correct horse battery staple";
    for (secret, granted, narrowed) in [
        ("read", String::from("\"read write\""), None),
        ("read", String::from("[\"write\",\"read\"]"), None),
        ("read", String::from("[\"write\",7]"), Some("write")),
        ("read", String::from("7"), None),
        ("read", format!("\"{long} read write\""), None),
        (
            "read",
            String::from("\"write spread\""),
            Some("write sp***"),
        ),
        (words, format!("\"{words} write\""), Some("write ***")),
    ] {
        let seen = Arc::new(Mutex::new(None));
        let told = Arc::clone(&seen);
        let body = format!(r#"{{"access_token":"T","scope":{granted}}}"#);
        let layer = tower_oauth::OAuthLayer::client_credentials(TOKEN_URL, "id", secret)
            .token_client(Endpoint::new().always(raw(200, &[], &body)))
            .scope("read write")
            .observer(move |event: &Event<'_>| {
                if let Event::ScopeNarrowed { granted, .. } = event {
                    *told.lock().unwrap() = Some((*granted).to_owned());
                }
            })
            .build()
            .unwrap();
        layer.token_cache().token().await.unwrap();
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen.as_deref(), narrowed, "{granted}");
    }
}

// R6
#[tokio::test(start_paused = true)]
async fn a_scope_of_any_length_is_read_at_once() {
    let secret = "S3cr3t-value-0123456789-".repeat(4);
    for granted in [
        " ".repeat(900_000),
        "x ".repeat(450_000),
        "a b ".repeat(200_000),
        secret.clone() + " " + &"S3cr3t-v ".repeat(90_000),
    ] {
        let body = format!(r#"{{"access_token":"T","scope":"{granted}"}}"#);
        let endpoint = Endpoint::new().always(raw(200, &[], &body));
        let layer = tower_oauth::OAuthLayer::client_credentials(TOKEN_URL, "id", secret.as_str())
            .token_client(endpoint)
            .scope("b a")
            .build()
            .unwrap();
        // The clock of the machine: the one of the runtime stands still.
        let started = std::time::Instant::now();
        layer.token_cache().token().await.unwrap();
        let took = started.elapsed();
        assert!(
            took < Duration::from_secs(5),
            "{took:?} for {}",
            &granted[..20]
        );
    }
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
    let token = layer.token_cache().token().await.unwrap();
    assert_eq!(token.header_value(), "Bearer t");
}
