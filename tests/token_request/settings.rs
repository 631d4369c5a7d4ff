//! Settings that would make a wrong token request, or one that exposes a secret.

use super::*;

// Q5
#[tokio::test]
async fn raw_basic_sends_the_pair_as_it_is_and_an_id_with_a_colon_is_a_build_error() {
    let seen = sent(|layer| layer, basic("id", "a+b:c")).await;
    assert_eq!(seen.authorization(), "Basic aWQ6YStiOmM=");
    assert!(matches!(
        refused(basic("i:d", "s")),
        BuildError::ClientId { .. }
    ));
}

// Q6
#[test]
fn control_characters_in_id_or_secret_are_errors_that_do_not_print_the_value() {
    for auth in [
        basic("can\u{7}ary", "x"),
        basic("x", "can\nary"),
        ClientAuth::post("x", "can\0ary"),
    ] {
        let error = refused(auth);
        let text = format!("{error} {error:?}");
        assert!(!text.contains("ary"), "{text}");
    }
    assert!(matches!(
        refused(basic("", "x")),
        BuildError::ClientId { .. }
    ));
}

// Q6
#[tokio::test]
async fn a_secret_file_that_is_not_utf8_is_an_error_that_does_not_print_it() {
    let file = std::env::temp_dir().join(format!("tower-oauth-q6-{}", std::process::id()));
    std::fs::write(&file, b"canary\xff").unwrap();
    let endpoint = Endpoint::new();
    let auth = ClientAuth::basic("id", Secret::file(&file));
    let layer = OAuthLayer::client_credentials_with(TOKEN_URL, auth)
        .token_client(endpoint.clone())
        .cache_policy(one_attempt())
        .build()
        .unwrap();
    let error = layer.token_cache().token().await.unwrap_err();
    std::fs::remove_file(&file).unwrap();
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains("tower-oauth-q6") && !shown.contains("canary"),
        "{shown}"
    );
    assert_eq!(endpoint.requests(), 0);
}

// Q12, Q13
#[test]
fn a_bad_scope_or_a_reserved_parameter_is_a_build_error_that_names_it() {
    let build = |configure: fn(Builder) -> Builder| {
        let builder = OAuthLayer::client_credentials(TOKEN_URL, "a", "b");
        configure(builder).build().unwrap_err().to_string()
    };
    assert!(build(|layer| layer.scope("a\\b")).contains("a\\\\b"));
    assert!(build(|layer| layer.parameter("client_secret", "x")).contains("client_secret"));
    assert!(build(|layer| layer.resource("nowhere")).contains("nowhere"));
}

// Q15, Q16
#[test]
fn a_token_url_that_would_expose_the_credentials_is_refused() {
    let build = |url: &str| {
        OAuthLayer::client_credentials(url, "id", "secret")
            .token_client(Endpoint::new())
            .build()
    };
    assert!(matches!(
        build("http://gw.example/token"),
        Err(BuildError::TokenUrl { reason, .. }) if reason.starts_with("http to gw.example ")
    ));
    for url in [
        "https://user:pw@gw.example/token",
        "https://gw.example/token#part",
        "/token",
        "gw.example",
        "ftp://gw.example/",
        "not a url",
        "",
    ] {
        let error = build(url).unwrap_err();
        assert!(matches!(error, BuildError::TokenUrl { .. }), "{url}");
        assert!(!error.to_string().contains("pw"));
    }
    for url in [
        "https://gw.example/token?x=1",
        "http://localhost:8080/token",
        "http://127.0.0.1/",
        "http://[::1]:80/",
    ] {
        assert!(build(url).is_ok(), "{url}");
    }
    let lab = OAuthLayer::client_credentials("http://gw.example/token", "id", "secret")
        .token_client(Endpoint::new());
    assert!(lab.dangerous_http_token_endpoint().build().is_ok());
}

// FS9, FA26, Q20
#[test]
fn an_empty_or_blank_secret_is_a_build_error_that_names_none() {
    for secret in ["", "  "] {
        for auth in [
            basic("id", secret),
            ClientAuth::basic_encoded("id", secret),
            ClientAuth::post("id", secret),
        ] {
            let error = refused(auth);
            assert!(matches!(error, BuildError::ClientSecret { .. }), "{error}");
            assert!(error.to_string().contains("ClientAuth::none"), "{error}");
        }
    }
}

// FS9
#[tokio::test(start_paused = true)]
async fn an_empty_secret_file_or_provider_sends_nothing_and_works_once_it_is_filled() {
    let path = std::env::temp_dir().join(format!("tower-oauth-empty-{}", std::process::id()));
    for content in ["", "\n"] {
        std::fs::write(&path, content).unwrap();
        let provider = move || async move { Ok::<_, tower_oauth::BoxError>(content) };
        for secret in [Secret::file(&path), Secret::provider(provider)] {
            let endpoint = Endpoint::new();
            let auth = ClientAuth::post("id", secret);
            let layer = OAuthLayer::client_credentials_with(TOKEN_URL, auth)
                .token_client(endpoint.clone())
                .build()
                .unwrap();
            let error = layer.token_cache().token().await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            assert!(error.to_string().contains("is empty"), "{error}");
            assert_eq!(endpoint.requests(), 0);
        }
    }
    let endpoint = Endpoint::new();
    let auth = basic("id", Secret::file(&path));
    let layer = OAuthLayer::client_credentials_with(TOKEN_URL, auth)
        .token_client(endpoint.clone())
        .clock(ManualClock::new())
        .build()
        .unwrap();
    let tokens = layer.token_cache();
    tokens.token().await.unwrap_err();
    std::fs::write(&path, "s\n").unwrap();
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    tokens.token().await.unwrap();
    assert_eq!(endpoint.seen()[0].authorization(), "Basic aWQ6cw==");
    std::fs::remove_file(&path).unwrap();
}

// FA16, FA26
#[test]
fn a_wrong_setting_is_named_with_what_to_write_instead() {
    type Change = fn(Builder) -> Builder;
    let status = |code| http::StatusCode::from_u16(code).unwrap();
    let rows: [(Change, &str); 12] = [
        (|layer| layer.accept_token_type(""), "accept_token_type"),
        (
            |layer| layer.accept_token_type(" "),
            "as the server names it",
        ),
        (|layer| layer.user_agent(""), "user_agent"),
        (|layer| layer.user_agent("a\r\nb: c"), "payments/1.0"),
        (
            |layer| {
                layer
                    .allow_origin("https://a.example")
                    .assume_origin("https://b.example")
            },
            "https://b.example:443 would never get the token",
        ),
        (
            |layer| layer.assume_origin("http://b.example"),
            "allow_origin()",
        ),
        (|layer| layer.parameter("scope", "a"), "is set by scope()"),
        (
            |layer| layer.parameter("client_id", "a"),
            "ClientAuth::post",
        ),
        (|layer| layer.parameter(" ", "a"), "is no name"),
        (
            |layer| layer.resource("resource1"),
            "parameter(\"resource\", ..)",
        ),
        (|layer| layer.scope("\"a b\""), "leave the quotes out"),
        (|layer| layer.scope("a\nb"), "single spaces"),
    ];
    for (change, part) in rows {
        let builder = OAuthLayer::client_credentials(TOKEN_URL, "id", "secret");
        let error = change(builder).build().unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(
            format!("{error:?}").starts_with(&error.to_string()),
            "{error:?}"
        );
    }
    for code in [100, 200, 204, 304] {
        let error = OAuthLayer::client_credentials(TOKEN_URL, "id", "secret")
            .treat_as_unauthorized(status(code))
            .build()
            .unwrap_err();
        assert!(error.to_string().contains(&code.to_string()), "{error}");
    }
    for code in [302, 401, 403, 419, 500] {
        let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", "secret")
            .treat_as_unauthorized(status(code))
            .token_client(Endpoint::new());
        assert!(layer.build().is_ok(), "{code}");
    }
    for id in [" ", " id", "id\n", "\"id\"", "\u{feff}id"] {
        let error = refused(basic(id, "secret"));
        assert!(matches!(error, BuildError::ClientId { .. }), "{error}");
    }
}

// FA16
#[test]
fn a_token_url_that_was_written_wrong_is_told_what_to_write() {
    for (url, part) in [
        ("127.0.0.1:9001/t", "http:// for loopback"),
        ("gw.example/token", "https:// in front"),
        ("https://b\u{fc}cher.example/t", "xn--"),
        ("\"https://gw.example/t\"", "quotes"),
        ("https://gw.example/t\n", "line break"),
        ("https://${HOST}/t", "placeholder"),
    ] {
        let builder = OAuthLayer::client_credentials(url, "id", "secret");
        let error = builder.token_client(Endpoint::new()).build().unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_wrong_setting_of_a_wrapped_source_is_reported_by_build() {
    let nowhere = OAuthLayer::client_credentials("nowhere", "id", "secret");
    let error = nowhere.wrap_source(Arc::new).build().unwrap_err();
    assert!(matches!(error, BuildError::TokenUrl { .. }), "{error}");
    let own = OAuthLayer::builder(source_of(builder(&Endpoint::new())));
    let layer = own.scope("\"").wrap_source(Arc::new).build();
    assert!(matches!(layer, Err(BuildError::Scope { .. })), "{layer:?}");
}
