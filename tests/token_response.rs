//! The table of real servers' answers, through the public API, and the rules of the response
//! reader.

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

// FA3, FA8, FA22
#[tokio::test(start_paused = true)]
async fn an_error_that_is_no_code_and_a_type_that_is_not_given_leave_the_token_usable() {
    for member in [
        r#""error":"""#,
        r#""error":"0""#,
        r#""error":0"#,
        r#""error":null"#,
        r#""error":false"#,
        r#""error":{}"#,
        r#""error":"none""#,
        r#""error":"None""#,
        r#""error":"NULL""#,
        r#""error":"ok""#,
        r#""error":"Success""#,
        r#""error":"OK""#,
        r#""error":"no error occurred""#,
        r#""ErrorCode":"0""#,
        r#""token_type":null"#,
        r#""token_type":"""#,
    ] {
        let body = format!(r#"{{"access_token":"T",{member}}}"#);
        assert_eq!(token_of(&body).await.expose_secret(), "T", "{member}");
    }
}

// FA8, FA22
#[tokio::test(start_paused = true)]
async fn what_stands_in_the_place_of_a_code_and_is_none_is_a_description() {
    for text in [
        "0",
        "Not Found",
        "no credentials",
        "Forbidden",
        "Unauthorized",
        "none",
        "The client is unknown to us.",
    ] {
        let body = format!(r#"{{"error":"{text}"}}"#);
        for status in [200, 400, 401] {
            let error = error_of(raw(status, &[], &body)).await;
            assert_eq!(
                (error.oauth_code(), error.description()),
                (None, Some(text))
            );
            assert_eq!(error.is_invalid_response(), status == 200, "{error}");
            assert_eq!(error.is_rejected(), status != 200, "{error}");
        }
    }
    let spring = r#"{"status":401,"error":"Unauthorized","message":"Bad credentials"}"#;
    let error = error_of(raw(401, &[], spring)).await;
    assert_eq!(
        (error.oauth_code(), error.description()),
        (None, Some("Bad credentials"))
    );
    let code = error_of(raw(401, &[], r#"{"error":"unauthorized"}"#)).await;
    assert_eq!(code.oauth_code(), Some("unauthorized"), "a vendor's code");
}

// FA21
#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_shown_wherever_a_vendor_says_it() {
    for (body, words) in [
        (r#"{"error_description":"why","message":"less"}"#, "why"),
        (r#"{"ErrorCode":"invalid_client","Error":"why"}"#, "why"),
        (r#"{"message":"why"}"#, "why"),
        (r#"{"errorCode":"E0000004","errorSummary":"why"}"#, "why"),
        (r#"{"error":{"code":401,"message":"why"}}"#, "why"),
        (r#"{"error":"invalid_client","message":"why"}"#, "why"),
        (r#"{"detail":"why"}"#, "why"),
        (r#"{"detail":[{"msg":"why"}]}"#, "why"),
        (
            r#"{"type":"about:blank","title":"why","status":401}"#,
            "why",
        ),
        (r#"{"title":"less","detail":"why"}"#, "why"),
        (r#"{"errors":[{"errorType":"x","message":"why"}]}"#, "why"),
        (r#"{"fault":{"faultstring":"why"}}"#, "why"),
        (r#"{"error_description":"","message":"why"}"#, "why"),
        (
            r#"{"error":"Realm does not exist","error_description":"see the log"}"#,
            "Realm does not exist: see the log",
        ),
        (r#"{"error":"Not Found","message":"why"}"#, "why"),
        (
            r#"{"error":"no such realm","message":"no such realm: x"}"#,
            "no such realm: x",
        ),
        (r#"{"error_description":null,"message":"why"}"#, "why"),
        ("error=invalid_client&error_description=why", "why"),
    ] {
        let error = error_of(raw(401, &[], body)).await;
        assert_eq!(error.description(), Some(words), "{body}");
        let quoted = format!("\"{words}\"");
        assert!(error.to_string().contains(&quoted), "{error}");
    }
    for (body, code) in [
        (
            r#"{"errorCode":"E0000004","errorSummary":"why"}"#,
            "E0000004",
        ),
        (
            r#"{"fault":{"faultstring":"why","detail":{"errorcode":"oauth.v2.InvalidClient"}}}"#,
            "oauth.v2.InvalidClient",
        ),
        (r#"{"errorCode":"invalid_client"}"#, "invalid_client"),
    ] {
        let error = error_of(raw(400, &[], body)).await;
        assert_eq!(error.oauth_code(), None, "it decides nothing: {error}");
        assert!(error.to_string().contains(code), "{error}");
    }
    let portal = r#"{"success":false,"message":"wrong secret","error_uri":"https://as.example/e"}"#;
    let error = error_of(raw(200, &[], portal)).await;
    assert!(error.is_invalid_response());
    assert_eq!(error.description(), Some("wrong secret"));
    assert_eq!(error.error_uri(), Some("https://as.example/e"));
}

// FA21, R24
#[tokio::test(start_paused = true)]
async fn the_error_uri_has_a_getter_and_follows_the_rules_of_the_description() {
    let body = format!(
        r#"{{"error":"invalid_scope","error_uri":"https://as.example/consumer-secret?\n{}"}}"#,
        "x".repeat(999)
    );
    let error = error_of(raw(400, &[], &body)).await;
    let uri = error.error_uri().unwrap();
    assert!(uri.starts_with("https://as.example/***??xxx"), "{uri}");
    assert_eq!(uri.len(), 256);
    assert!(error.to_string().contains(uri), "{error}");
    let none = error_of(Answer::Error(400, "invalid_scope")).await;
    assert_eq!(none.error_uri(), None);
}

// FA21
#[tokio::test(start_paused = true)]
async fn code_and_description_of_a_challenge_count_where_the_body_has_no_code() {
    let challenge =
        "Basic realm=\"x\", Bearer error=\"invalid_request\", error_description=\"why\"";
    let headers = &[("www-authenticate", challenge)];
    let error = error_of(raw(401, headers, "")).await;
    assert_eq!(
        (error.oauth_code(), error.description()),
        (Some("invalid_request"), Some("why"))
    );
    let words = error_of(raw(401, headers, r#"{"message":"words"}"#)).await;
    assert_eq!(
        (words.oauth_code(), words.description()),
        (Some("invalid_request"), Some("words"))
    );
    let page = error_of(raw(401, headers, "<html>")).await;
    assert_eq!(page.oauth_code(), Some("invalid_request"));
    let body = error_of(raw(401, headers, r#"{"error":"invalid_client"}"#)).await;
    assert_eq!(body.oauth_code(), Some("invalid_client"));
    let phrase = &[("www-authenticate", "Bearer error=\"Unauthorized\"")];
    assert_eq!(error_of(raw(401, phrase, "")).await.oauth_code(), None);
    let only_words = &[("www-authenticate", "Bearer error_description=\"why\"")];
    let error = error_of(raw(401, only_words, "")).await;
    assert_eq!(
        (error.oauth_code(), error.description()),
        (None, Some("why"))
    );

    // It decides as a code of the body does.
    let busy = &[(
        "www-authenticate",
        "Bearer error=\"temporarily_unavailable\"",
    )];
    assert!(error_of(raw(400, busy, "")).await.is_transient());
    let endpoint = Endpoint::new().always(raw(
        200,
        &[("www-authenticate", "Bearer error=\"invalid_token\"")],
        r#"{"access_token":"T"}"#,
    ));
    layer(&endpoint).token_cache().token().await.unwrap();
}

// FS13
#[tokio::test(start_paused = true)]
async fn the_class_follows_what_the_server_said_and_not_what_is_shown_of_it() {
    for (secret, code, shown, transient) in [
        ("client", "invalid_client", "invalid_client", false),
        ("server_error", "server_error", "server_error", true),
        ("slow", "slow_down", "slow_down", true),
        (
            "e",
            "temporarily_unavailable",
            "temporarily_unavailable",
            true,
        ),
        ("client", "no_such_client", "no_such_***", false),
    ] {
        for status in [400, 200] {
            let endpoint = Endpoint::new().always(Answer::Error(status, code));
            let layer = tower_oauth::OAuthLayer::client_credentials(TOKEN_URL, "id", secret)
                .token_client(endpoint)
                .cache_policy(one_attempt())
                .build()
                .unwrap();
            let error = layer.token_cache().token().await.unwrap_err();
            assert_eq!(error.oauth_code(), Some(shown), "{secret}");
            assert_eq!(error.is_transient(), transient, "{error}");
        }
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

#[tokio::test(start_paused = true)]
async fn an_error_names_endpoint_status_code_description_request_id_and_what_to_do() {
    let body = r#"{"error":"invalid_scope","error_description":"no such scope"}"#;
    let error = error_of(raw(400, &[("x-request-id", "req-7")], body)).await;
    assert_eq!(error.description(), Some("no such scope"));
    assert_eq!(error.request_id(), Some("req-7"));
    assert_eq!(error.host(), Some("127.0.0.1"));
    let text = error.to_string();
    let (text, next) = text.split_once("; next attempt in ").unwrap();
    assert!(next.ends_with('s'), "{next}");
    assert_eq!(
        text,
        "no access token from 127.0.0.1: the token endpoint rejected the request: invalid_scope, status 400, \"no such scope\", \
         request id req-7 (1 attempt in 0.0ns); no scope was asked for, and the server may want one: set it with scope()"
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
        let text = layer.token_cache().token().await.unwrap_err().to_string();
        assert_eq!(
            text.contains("ClientAuth::basic_encoded"),
            names_both,
            "{text}"
        );
    }
}
