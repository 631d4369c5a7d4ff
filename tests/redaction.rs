//! Canary secrets appear nowhere: not in `Debug` or `Display` of any public type, nor in the whole
//! TRACE output of a run.

mod support;

use std::io;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use support::*;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::observe::Event;
use tower_oauth::{
    BoxError, ClientAuth, ClientCredentials, OAuthLayer, Secret, TokenParams, TokenResponse,
};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

const SECRET: &str = "canary-s3cret";
const TOKEN: &str = "canary-t0ken";
const REFRESH: &str = "canary-r3fresh";
const PARAMETER: &str = "canary-p4rameter";
/// `base64("id:canary-s3cret")`, and of the secret alone.
const ENCODED: [&str; 2] = ["aWQ6Y2FuYXJ5LXMzY3JldA", "Y2FuYXJ5LXMzY3JldA"];

fn assert_clean(text: &str, of: &str) {
    for canary in [SECRET, TOKEN, REFRESH, PARAMETER]
        .into_iter()
        .chain(ENCODED)
    {
        if let Some(at) = text.find(canary) {
            let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
            panic!(
                "{of} shows {canary}: {}",
                &text[from..(at + 80).min(text.len())]
            );
        }
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What every test of this binary has traced so far.
///
/// One subscriber for the process: with one for each thread, an event that is met first by a thread
/// without any is switched off for all of them.
fn trace() -> String {
    static LOG: LazyLock<Log> = LazyLock::new(|| {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    });
    LOG.text()
}

/// What servers echo back, and ours must not repeat.
fn echoing(status: u16) -> Answer {
    let text = format!("{SECRET} {} {}", ENCODED[0], ENCODED[1]);
    raw(
        status,
        &[("x-request-id", "r1")],
        &format!(r#"{{"error":"{SECRET}","error_description":"{text}"}}"#),
    )
}

fn token_answer() -> Answer {
    raw(
        200,
        &[],
        &format!(r#"{{"access_token":"{TOKEN}","refresh_token":"{REFRESH}","expires_in":100}}"#),
    )
}

fn auths() -> [ClientAuth; 3] {
    [
        ClientAuth::basic("id", SECRET),
        ClientAuth::basic_encoded("id", SECRET),
        ClientAuth::post("id", SECRET),
    ]
}

// R24
#[tokio::test(start_paused = true)]
async fn debug_and_display_of_every_public_type_are_clean() {
    trace();
    let mut shown = String::new();
    let mut show = |what: &dyn std::fmt::Debug| shown.push_str(&format!("{what:?}\n{what:#?}\n"));
    for auth in auths() {
        let endpoint = Endpoint::new().then([token_answer(), echoing(400)]);
        show(&auth);
        show(&ClientCredentials::builder(TOKEN_URL, auth.clone()));
        show(
            &ClientCredentials::builder(TOKEN_URL, auth.clone())
                .token_client(endpoint.clone())
                .build()
                .unwrap(),
        );
        let builder = OAuthLayer::client_credentials_with(TOKEN_URL, auth)
            .parameter("p", PARAMETER)
            .token_client(endpoint.clone());
        show(&builder);
        let layer = builder.build().unwrap();
        show(&layer);
        let mut service = layer.layer(Debugged(Api::ok()));
        let pending = service.ready().await.unwrap().call(get(API));
        show(&pending);
        pending.await.unwrap();
        let ready = service.call(get(API));
        show(&ready);
        show(&service);
        let tokens = layer.token_cache();
        show(&tokens);
        show(&tokens.status());
        show(&tokens.token().await.unwrap());
        let header = tokens.token().await.unwrap().header_value();
        assert!(header.is_sensitive());
        show(&header);
        tokens.invalidate();
        let error = tokens.token().await.unwrap_err();
        show(&error);
        show(&error.to_string());
        show(&tokens.status());
    }
    show(&Secret::new(SECRET));
    show(&Secret::provider(|| async { Ok::<_, BoxError>(SECRET) }));
    show(&TokenParams::new().with_parameter("p", PARAMETER).unwrap());
    show(
        &TokenResponse::new(TOKEN)
            .unwrap()
            .with_expires_in(Duration::from_secs(1)),
    );
    assert_clean(&shown, "Debug or Display");
    for name in [
        "AccessToken",
        "ClientAuth",
        "ClientCredentials",
        "ClientCredentialsBuilder",
        "OAuth",
        "OAuthLayer",
        "OAuthLayerBuilder",
        "ResponseFuture",
        "Secret",
        "CacheStatus",
        "TokenCache",
        "TokenParams",
        "TokenResponse",
    ] {
        let mut lines = shown.lines();
        let begins = |rest: &str| rest.starts_with([' ', '(']);
        assert!(
            lines.any(|line| line.strip_prefix(name).is_some_and(begins)),
            "{name} shows nothing"
        );
    }
}

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

// R24
#[tokio::test(start_paused = true)]
async fn the_whole_trace_of_a_run_with_successes_failures_and_refusals_is_clean() {
    trace();
    let seen = Log::default();
    for auth in auths() {
        let endpoint = Endpoint::new()
            .then([
                echoing(503),
                token_answer(),
                token_answer(),
                echoing(400),
                Answer::Refused,
            ])
            .always(token_answer());
        let events = seen.clone();
        let layer = OAuthLayer::client_credentials_with(TOKEN_URL, auth)
            .token_client(endpoint.clone())
            .scope("a b")
            .observer(move |event: &Event<'_>| {
                io::Write::write_all(&mut events.clone(), format!("{event:?}\n").as_bytes())
                    .unwrap();
            })
            .build()
            .unwrap();
        let refusing = Api::new(|_| unauthorized(INVALID_TOKEN));
        for api in [Api::ok(), refusing] {
            let service = layer.clone().replay_unauthorized().layer(api);
            for _ in 0..6 {
                let _ = service.clone().oneshot(get(API)).await;
            }
        }
        layer.token_cache().invalidate();
        let _ = layer.token_cache().token().await;
    }
    let traced = trace();
    for event in ["got a token", "token request failed, trying again"] {
        assert!(traced.contains(event), "{event}: {traced}");
    }
    assert!(traced.contains("connection refused"), "why: {traced}");
    assert!(seen.text().contains("FetchFinished") && seen.text().contains("Suspected"));
    assert_clean(&traced, "the trace");
    assert_clean(&seen.text(), "an event");
}

// R24
#[cfg(feature = "client")]
#[tokio::test]
async fn the_trace_of_a_run_over_real_sockets_is_clean_our_dependencies_included() {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::{get as on_get, post as on_post};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    trace();
    let token = move || async move {
        format!(r#"{{"access_token":"{TOKEN}","refresh_token":"{REFRESH}","expires_in":100}}"#)
    };
    let refused = || async {
        (
            StatusCode::BAD_REQUEST,
            format!(r#"{{"error":"x","error_description":"{SECRET}"}}"#),
        )
    };
    let app = Router::new()
        .route("/token", on_post(token))
        .route("/refused", on_post(refused))
        .route("/api", on_get(|| async { "hello" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let client = Client::builder(TokioExecutor::new()).build_http::<String>();
    for auth in auths() {
        let layer = OAuthLayer::client_credentials_with(format!("{origin}/token"), auth.clone())
            .build()
            .unwrap();
        let request = get(&format!("{origin}/api"));
        let answer = layer.layer(client.clone()).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let refused = OAuthLayer::client_credentials_with(format!("{origin}/refused"), auth)
            .build()
            .unwrap();
        refused.token_cache().token().await.unwrap_err();
    }
    let text = trace();
    assert!(
        text.contains("hyper"),
        "the trace has our dependencies in it"
    );
    assert_clean(&text, "the trace");
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

// FS11
#[test]
fn of_urls_in_debug_and_build_errors_user_info_and_query_are_cut() {
    let url = "https://user:canary-s3cret@a.example/b?apikey=canary-t0ken";
    let request = TokenParams::new()
        .with_audience(url)
        .with_resource(url)
        .unwrap();
    assert_clean(&format!("{request:?}"), "Debug of TokenParams");
    let builder = || OAuthLayer::client_credentials(TOKEN_URL, "id", "secret");
    let fragment = format!("{url}#x");
    for builder in [
        builder().resource(fragment),
        builder().allow_origin(url),
        builder().assume_origin(url),
    ] {
        let error = builder.build().unwrap_err();
        let text = format!("{error} {error:?}");
        assert_clean(&text, "a build error");
        assert!(text.contains("a.example"), "{text}");
    }
}

/// An inner service that can be shown.
#[derive(Clone)]
struct Debugged(Api);

impl std::fmt::Debug for Debugged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("inner")
    }
}

impl Service<http::Request<String>> for Debugged {
    type Response = <Api as Service<http::Request<String>>>::Response;
    type Error = BoxError;
    type Future = <Api as Service<http::Request<String>>>::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<String>) -> Self::Future {
        self.0.call(request)
    }
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
