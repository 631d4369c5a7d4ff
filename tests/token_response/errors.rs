//! Answers that are errors: their code, their description and what is told of them.

use super::*;

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
        "no access token from 127.0.0.1: the token endpoint rejected the request: \
         invalid_scope, status 400, \"no such scope\", request id req-7 (1 attempt in 0.0ns); \
         no scope was asked for, and the server may want one: set it with scope()"
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
