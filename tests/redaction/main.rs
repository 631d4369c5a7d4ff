//! Canary secrets appear nowhere: not in `Debug` or `Display` of any public type, nor in the whole
//! TRACE output of a run.

#[path = "../support/mod.rs"]
mod support;

mod masked;

use std::io;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use support::*;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::observe::Event;
use tower_oauth::{BoxError, ClientAuth, OAuthLayer, Secret, TokenParams, TokenResponse};
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
        let builder = OAuthLayer::client_credentials_with(TOKEN_URL, auth)
            .parameter("p", PARAMETER)
            .token_client(endpoint.clone());
        show(&builder);
        let (tell, told) = std::sync::mpsc::channel();
        let builder = builder.wrap_source(move |source| {
            let source = Arc::new(source);
            tell.send(Arc::clone(&source)).unwrap();
            source
        });
        let layer = builder.build().unwrap();
        show(&told.recv().unwrap());
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
