//! What a server says back is masked.

use super::*;

// R24
#[tokio::test(start_paused = true)]
async fn a_secret_that_the_server_echoes_is_masked() {
    trace();
    for auth in auths() {
        let endpoint = Endpoint::new().always(echoing(401));
        let layer = OAuthLayer::client_credentials_with(TOKEN_URL, auth)
            .token_client(endpoint)
            .build()
            .unwrap();
        let error = layer.token_cache().token().await.unwrap_err();
        assert_clean(
            &format!("{error} {error:?} {:?}", error.oauth_code()),
            "the error",
        );
        assert!(error.to_string().contains("***"), "{error}");
    }
}

// R24
#[tokio::test(start_paused = true)]
async fn a_content_type_that_echoes_the_secret_is_masked() {
    trace();
    let page = raw(200, &[("content-type", SECRET)], "<html>");
    let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", SECRET)
        .token_client(Endpoint::new().always(page))
        .build()
        .unwrap();
    let error = layer.token_cache().token().await.unwrap_err();
    assert_clean(&format!("{error} {error:?}"), "the error");
    assert!(error.to_string().contains("(***)"), "{error}");
}

// R24, FA21
#[tokio::test(start_paused = true)]
async fn a_secret_is_masked_wherever_the_server_says_it_and_never_by_half() {
    trace();
    // One that begins before the place where a text is cut and ends after it, and one that is not
    // all ASCII.
    for (secret, before) in [(SECRET, 250), ("canary-s\u{e9}cret", 0)] {
        let words = format!("{}{secret}", "x".repeat(before));
        let challenge = format!("Bearer error=\"x\", error_description=\"{words}\"");
        let header = [("www-authenticate", challenge.as_str())];
        for (headers, body) in [
            (&header[..], String::new()),
            (&[], format!(r#"{{"message":"{words}"}}"#)),
            (
                &[],
                format!(r#"{{"error":{{"message":"{words}","code":"{words}"}}}}"#),
            ),
            (&[], format!(r#"{{"error":"x","error_uri":"{words}"}}"#)),
            (&[], format!(r#"{{"errorCode":"{words}"}}"#)),
            (&[], format!(r#"{{"error":"not {words}"}}"#)),
        ] {
            let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", secret)
                .token_client(Endpoint::new().always(raw(401, headers, &body)))
                .build()
                .unwrap();
            let error = layer.token_cache().token().await.unwrap_err();
            let shown = format!("{error} {error:?} {:?}", error.error_uri());
            assert!(!shown.contains("can"), "{body}: {shown}");
        }
    }
}

fn json_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What comes of an answer in which the server repeats something, as error and as trace.
async fn shown_of(text: &str, secret: &str, parameter: &str) -> String {
    let body = format!(
        r#"{{"error":"invalid_client","error_description":{}}}"#,
        json_string(text)
    );
    let answer = raw(400, &[("x-request-id", text)], &body);
    let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", secret)
        .parameter("password", parameter)
        .token_client(Endpoint::new().always(answer))
        .build()
        .unwrap();
    let error = layer.token_cache().token().await.unwrap_err();
    assert_eq!(error.oauth_code(), Some("invalid_client"));
    format!(
        "{error} {error:?} {:?} {:?}",
        error.description(),
        error.request_id()
    )
}

// FS6
#[tokio::test(start_paused = true)]
async fn the_value_of_a_parameter_that_the_server_echoes_is_masked_from_eight_characters_on() {
    let value = "hunter2+&/x";
    for form in [
        value,
        "hunter2%2B%26%2Fx",
        "hunter2%2b%26/x",
        "hunter2+&amp;/x",
    ] {
        let shown = shown_of(&format!("wrong password {form}!"), SECRET, value).await;
        assert!(shown.contains("wrong password ***!"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let shown = shown_of("a value of true is wrong", SECRET, "true").await;
    assert!(shown.contains("a value of true is wrong"), "{shown}");
}

// FS8
#[tokio::test(start_paused = true)]
async fn a_secret_is_masked_in_the_forms_in_which_servers_repeat_it() {
    let secret = "can/ary&'s3cret\"<x>";
    for form in [
        "can/ary&amp;'s3cret&quot;&lt;x&gt;",
        "can/ary&amp;&#39;s3cret&#34;&lt;x&gt;",
        "can%2fary%26%27s3cret%22%3cx%3e",
        "can%2Fary%26%27s3cret%22%3Cx%3E",
        "can%2Fary%26'S3CRET%22%3cx%3E",
        "can\\/ary\\u0026's3cret\\\"<x>",
        "can\\\\/ary\\\\u0026's3cret\\\\\\\"\\\\u003cx>",
        // Both alphabets of base64, of the pair and of the secret alone, and what is left of a
        // value that was cut off.
        "aWQ6Y2FuL2FyeSYnczNjcmV0Ijx4Pg==",
        "aWQ6Y2FuL2FyeSYnczNjcmV0Ijx4Pg",
        "Y2FuL2FyeSYnczNjcmV0Ijx4Pg",
        "aWQ6Y2FuL2Fye",
    ] {
        let shown = shown_of(&format!("wrong: {form} end"), secret, "").await;
        assert!(shown.contains("wrong: ***"), "{form}: {shown}");
        let pieces = ["s3cret", "S3CRET", "can/", "can%", "aWQ6", "Y2Fu"];
        assert!(
            pieces.iter().all(|piece| !shown.contains(piece)),
            "{form}: {shown}"
        );
    }
    // `>>>???` of a secret is `-` and `_` in base64url.
    let shown = shown_of("wrong: aWQ6Pj4-Pz8_Pj4-Pz8_", ">>>???>>>???", "").await;
    assert!(shown.contains("wrong: ***"), "{shown}");
}

// R24
#[tokio::test(start_paused = true)]
async fn a_secret_is_masked_as_the_server_read_it_when_it_decoded_a_raw_one() {
    for (secret, form) in [
        ("Pa55+w0rd/Qx7+mN2+kL9+vB4", "Pa55 w0rd/Qx7 mN2 kL9 vB4"),
        ("Zk%41%42c%2Fd%43ef%2B%44gh%45", "ZkABc/dCef+DghE"),
        ("can+%61ry+s3%63ret", "can ary s3cret"),
        ("can+%61ry+s3%63ret", "can %61ry s3%63ret"),
        ("can+%61ry+s3%63ret", "can+ary+s3cret"),
    ] {
        let shown = shown_of(&format!("[{form}] is wrong"), secret, "").await;
        assert!(shown.contains("[***] is wrong"), "{form}: {shown}");
        // The value of a parameter, too.
        let shown = shown_of(&format!("[{form}] is wrong"), SECRET, secret).await;
        assert!(shown.contains("[***] is wrong"), "{form}: {shown}");
    }
}

// R24
#[tokio::test(start_paused = true)]
async fn a_secret_that_was_escaped_in_two_ways_is_masked() {
    let secret = "ab&cd\"ef\\gh<ij";
    for form in [
        "ab%26amp%3Bcd%26quot%3Bef%5Cgh%26lt%3Bij",
        "ab&cd%5C%22ef%5C%5Cgh<ij",
        "ab\\u0026amp\\u003bcd\\u0026quot;ef\\\\gh\\u0026lt;ij",
        "ab%26%2338%3Bcd%26%2334%3Bef%26%2392%3Bgh%26%2360%3Bij",
    ] {
        let shown = shown_of(&format!("wrong: {form} end"), secret, "").await;
        assert!(shown.contains("wrong: *** end"), "{form}: {shown}");
    }
}

// R6, R24
#[tokio::test(start_paused = true)]
async fn a_refusal_with_a_long_text_of_escapes_is_told_at_once() {
    for escape in ["&", "\\", "%", "&amp;", "\\u0026"] {
        let body = format!(
            r#"{{"error":"invalid_client","error_description":{}}}"#,
            json_string(&escape.repeat(20_000))
        );
        let endpoint = Endpoint::new().always(raw(400, &[], &body));
        let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", "S3cr3t-value-0123456789")
            .token_client(endpoint.clone())
            .build()
            .unwrap();
        // The clock of the machine: the one of the runtime stands still.
        let started = std::time::Instant::now();
        let error = layer.token_cache().token().await.unwrap_err();
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?} for {escape}");
        assert_eq!(error.oauth_code(), Some("invalid_client"), "{error}");
        assert_eq!(endpoint.requests(), 1);
    }
}

// R24
#[tokio::test(start_paused = true)]
async fn a_secret_in_an_error_of_the_token_client_is_masked_and_a_clean_error_stays_what_it_is() {
    let run = |error: fn() -> BoxError| async move {
        let fails = tower::service_fn(move |_| async move {
            Err::<http::Response<http_body_util::Full<bytes::Bytes>>, _>(error())
        });
        let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", SECRET)
            .token_client(fails)
            .cache_policy(one_attempt())
            .build()
            .unwrap();
        layer.token_cache().token().await.unwrap_err()
    };
    let echoing = run(|| format!("sent {SECRET}, got nothing").into()).await;
    let source = std::error::Error::source(&echoing).unwrap().to_string();
    assert_clean(&format!("{echoing} {echoing:?} {source}"), "the error");
    let clean = run(|| io::Error::from(io::ErrorKind::ConnectionRefused).into()).await;
    let source = std::error::Error::source(&clean).unwrap();
    assert!(source.is::<io::Error>(), "{source}");
}

// R24
#[tokio::test(start_paused = true)]
async fn a_token_that_the_server_says_elsewhere_too_is_masked_there() {
    const TOKEN: &str = "CANARYTOKEN-0123456789";
    for body in [
        format!(r#"{{"access_token":"{TOKEN}","token_type":"{TOKEN}"}}"#),
        format!(
            r#"{{"access_token":"{TOKEN}","token_type":"mac","error_description":"got {TOKEN}"}}"#
        ),
        format!(r#"{{"access_token":"{TOKEN}","error":"denied","error_description":"{TOKEN}"}}"#),
        format!("access_token={TOKEN}&token_type={TOKEN}"),
        format!(
            r#"{{"access_token":"{TOKEN}","token_type":"mac","error_description":"got {}"}}"#,
            TOKEN.replace('-', "%2d").to_ascii_lowercase()
        ),
    ] {
        for status in [200, 400, 401, 503] {
            let id = format!("of-{TOKEN}");
            let answer = raw(status, &[("x-request-id", &id)], &body);
            let endpoint = Endpoint::new().always(answer);
            let error = layer(&endpoint).token_cache().token().await.unwrap_err();
            let shown = format!("{error} {error:?} {:?}", error.description());
            assert!(!shown.to_ascii_uppercase().contains("CANARY"), "{shown}");
            assert_eq!(error.request_id(), Some("of-***"));
        }
    }
}
