//! What an error tells whoever is paged at night: what is wrong, where, and what to do.

#[path = "../support/mod.rs"]
mod support;

mod answers;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use support::*;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_oauth::{
    CachePolicy, ClientAuth, Error, OAuthLayer, Secret, TokenFuture, TokenRequest, TokenSource,
};

const HTTPS_URL: &str = "https://gw.example:8443/oauth2/v1/token?tenant=canary";

async fn told_at(url: &str, answer: Answer) -> String {
    let endpoint = Endpoint::new().always(answer);
    let layer = OAuthLayer::client_credentials(url, "id", "secret")
        .scope("aisp pisp")
        .token_client(endpoint)
        .cache_policy(one_attempt())
        .build()
        .unwrap();
    layer.token_cache().token().await.unwrap_err().to_string()
}

async fn told(answer: Answer) -> String {
    told_at(HTTPS_URL, answer).await
}

/// What is said, and the number of attempts, when the token client fails with this.
async fn fails_with(url: &str, error: fn() -> BoxError) -> (Error, u32) {
    let fails = service_fn(move |_: Request<Full<bytes::Bytes>>| async move {
        Err::<Response<Full<bytes::Bytes>>, _>(error())
    });
    let layer = OAuthLayer::client_credentials(url, "id", "secret")
        .token_client(fails)
        .build()
        .unwrap();
    let error = layer.token_cache().token().await.unwrap_err();
    let attempts = error.attempts();
    (error, attempts)
}

// FA9
#[tokio::test(start_paused = true)]
async fn a_path_that_is_not_there_is_shown_and_checked_first() {
    for status in [404, 405, 410] {
        let text = told(raw(status, &[], "<html>not here</html>")).await;
        let (_, advice) = text.split_once("; ").unwrap();
        assert!(
            advice.starts_with("check the path of the token URL (/oauth2/v1/token)"),
            "{text}"
        );
        assert!(
            !text.contains("canary") && !text.contains("scope"),
            "{text}"
        );
    }
}

// FA10
#[tokio::test(start_paused = true)]
async fn each_way_not_to_get_an_answer_has_its_own_text_with_its_cause_and_what_to_do() {
    type Fails = fn() -> BoxError;
    let rows: [(Fails, u32, &str, &str); 12] = [
        (
            || "invalid peer certificate: UnknownIssuer".into(),
            1,
            "is not trusted here: invalid peer certificate: UnknownIssuer",
            "install the CA",
        ),
        (
            || "certificate verify failed: Hostname mismatch".into(),
            1,
            "is for another name",
            "a certificate for gw.example",
        ),
        (
            || "invalid peer certificate: Expired".into(),
            1,
            "has expired",
            "renew it",
        ),
        (
            || "received fatal alert: CertificateRequired".into(),
            1,
            "rejected the client certificate",
            "token_client()",
        ),
        (
            || "received corrupt message of type InvalidContentType".into(),
            3,
            "does not speak TLS",
            "gw.example:8443 answers without TLS",
        ),
        (
            || io::Error::from(io::ErrorKind::ConnectionRefused).into(),
            3,
            "accepts no connections",
            "gw.example:8443",
        ),
        (
            || "failed to lookup address information: Name or service not known".into(),
            3,
            "could not be resolved",
            "the spelling of gw.example",
        ),
        (
            || io::Error::from(io::ErrorKind::ConnectionReset).into(),
            3,
            "was closed before",
            "between here and gw.example:8443",
        ),
        (
            || io::Error::new(io::ErrorKind::TimedOut, "tcp connect: deadline has elapsed").into(),
            3,
            "could not be connected to in time",
            "a firewall drops",
        ),
        (
            || "something else".into(),
            3,
            "could not be reached: something else",
            "up and reachable from here",
        ),
        (
            || "invalid content-length parsed".into(),
            3,
            "does not speak proper HTTP: invalid content-length parsed",
            "the operator of gw.example",
        ),
        (
            || "message head is too large".into(),
            3,
            "does not speak proper HTTP: message head is too large",
            "the operator of gw.example",
        ),
    ];
    for (fails, attempts, what, advice) in rows {
        let (error, made) = fails_with(HTTPS_URL, fails).await;
        let text = error.to_string();
        assert!(error.is_transient(), "{text}");
        assert!(text.contains(what) && text.contains(advice), "{text}");
        assert_eq!(made, attempts, "{text}");
        let cause = fails().to_string();
        assert_eq!(text.matches(&cause).count(), 1, "{text}");
        assert!(StdError::source(&error).is_some());
    }
}

// FA10
#[cfg(feature = "client")]
#[tokio::test]
async fn a_server_that_speaks_broken_http_is_not_told_as_one_that_is_down() {
    use std::io::{Read, Write};

    let large = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(100_000));
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
        &large,
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = head.to_owned();
        std::thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            _ = tcp.read(&mut [0; 4096]);
            _ = tcp.write_all(answer.as_bytes());
            _ = tcp.read_to_end(&mut Vec::new());
        });
        let url = format!("http://{address}/token");
        let layer = OAuthLayer::client_credentials(url, "id", "secret")
            .cache_policy(one_attempt())
            .build()
            .unwrap();
        let error = layer.token_cache().token().await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_transient(), "{text}");
        assert!(text.contains("does not speak proper HTTP: "), "{text}");
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(!text.contains("is up"), "{text}");
    }
}

// FA10
#[tokio::test(start_paused = true)]
async fn http_to_a_port_that_speaks_tls_is_told_to_write_https() {
    for fails in [
        (|| BoxError::from("invalid HTTP version parsed")) as fn() -> BoxError,
        || "connection closed before message completed".into(),
    ] {
        let (error, _) = fails_with(TOKEN_URL, fails).await;
        assert!(error.to_string().contains("write https://"), "{error}");
    }
    let page = raw(
        400,
        &[],
        "Client sent an HTTP request to an HTTPS server.\n",
    );
    let text = told_at(TOKEN_URL, page).await;
    assert!(text.contains("write https://"), "{text}");
    let (error, _) = fails_with("https://127.0.0.1:9001/t", || "wrong version number".into()).await;
    assert!(error.to_string().contains("write http://"), "{error}");
}

// FA12
#[tokio::test(start_paused = true)]
async fn an_unknown_client_is_told_what_else_would_build() {
    let text = |auth| async move {
        let layer = OAuthLayer::client_credentials_with(TOKEN_URL, auth)
            .token_client(Endpoint::new().always(Answer::Error(401, "invalid_client")))
            .build()
            .unwrap();
        layer.token_cache().token().await.unwrap_err().to_string()
    };
    let with_colon = text(ClientAuth::basic_encoded("i:d", "s+cret")).await;
    assert!(with_colon.contains("ClientAuth::post"), "{with_colon}");
    assert!(!with_colon.contains("(ClientAuth::basic)"), "{with_colon}");
    let raw = text(ClientAuth::basic("id", "s+cret")).await;
    assert!(raw.contains("ClientAuth::basic_encoded"), "{raw}");
    assert!(raw.contains("ClientAuth::post"), "{raw}");
    let post = text(ClientAuth::post("i:d", "s+cret")).await;
    assert!(post.contains("(ClientAuth::basic_encoded)"), "{post}");
    assert!(!post.contains("ClientAuth::basic)"), "{post}");
}

struct Own(fn() -> Error);

impl TokenSource for Own {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(async { Err((self.0)()) })
    }
}

// FA13
#[tokio::test(start_paused = true)]
async fn a_source_of_ones_own_sends_nobody_to_a_token_endpoint() {
    let fails: [fn() -> Error; 3] = [
        || Error::transient("the login plugin failed").with_source("no such session"),
        || Error::invalid_response("the plugin printed no token"),
        || Error::rejected("invalid_client", "the plugin was rejected"),
    ];
    for fail in fails {
        let layer = OAuthLayer::builder(Own(fail)).cache_policy(one_attempt());
        let error = layer
            .build()
            .unwrap()
            .token_cache()
            .token()
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            !text.contains("endpoint") && !text.contains("URL"),
            "{text}"
        );
    }
    let sealed =
        Secret::provider(|| async { Err::<String, _>(io::Error::other("vault is sealed")) });
    let layer = OAuthLayer::client_credentials(HTTPS_URL, "id", sealed)
        .token_client(Endpoint::new())
        .cache_policy(CachePolicy::new().attempts(1))
        .build()
        .unwrap();
    let text = layer.token_cache().token().await.unwrap_err().to_string();
    assert!(
        text.contains("the secret provider failed: vault is sealed"),
        "{text}"
    );
    assert!(!text.contains("token endpoint is up"), "{text}");
}

/// An error type of a source's own.
#[derive(Debug)]
struct NoSession {
    id: u32,
}

impl fmt::Display for NoSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} is gone", self.id)
    }
}

impl StdError for NoSession {}

// FU26
#[tokio::test(start_paused = true)]
async fn a_sources_own_error_comes_back_through_source_and_stands_in_the_text_once() {
    let fails: [fn() -> Error; 2] = [
        || Error::transient("the login plugin failed").with_source(NoSession { id: 7 }),
        || {
            let shared: Arc<dyn StdError + Send + Sync> = Arc::new(NoSession { id: 7 });
            Error::transient("the login plugin failed").with_source(shared)
        },
    ];
    for fail in fails {
        let layer = OAuthLayer::builder(Own(fail)).cache_policy(one_attempt());
        let layer = layer.build().unwrap();
        let api = layer.layer(service_fn(|_: Request<String>| async {
            Ok::<_, BoxError>(Response::new(String::new()))
        }));
        let request = || Request::get("https://api.example/").body(String::new());
        // The flight's own error, and the one that is told during the backoff.
        for _ in 0..2 {
            let error = api.clone().oneshot(request().unwrap()).await.unwrap_err();
            let error = error.downcast_ref::<Error>().unwrap();
            let source = error.source().and_then(|source| source.downcast_ref());
            assert!(matches!(source, Some(NoSession { id: 7 })), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("the login plugin failed: session 7 is gone"),
                "{text}"
            );
            assert_eq!(text.matches("session 7 is gone").count(), 1, "{text}");
        }
    }
}

// FU13
#[tokio::test(start_paused = true)]
async fn what_main_prints_of_an_error_begins_with_its_text_and_advice() {
    let (error, _) = fails_with(HTTPS_URL, || {
        io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused)).into()
    })
    .await;
    let of_main: BoxError = error.clone().into();
    let printed = format!("{of_main:?}");
    assert!(printed.starts_with(&error.to_string()), "{printed}");
    assert!(printed.contains("connection refused"), "{printed}");
}

/// The README's, but for the times, which are another's each time.
#[tokio::test(start_paused = true)]
async fn the_error_in_the_readme_is_what_is_printed() {
    let readme = include_str!("../../README.md");
    let (_, sample) = readme.split_once("```text\nno access token").unwrap();
    let (sample, _) = sample.split_once("\n```").unwrap();
    let sample = format!("no access token{}", sample.replace('\n', " "));

    let body = r#"{"ErrorCode":"invalid_client","Error":"ClientId is Invalid"}"#;
    let endpoint = Endpoint::new().always(raw(401, &[], body));
    let endpoint = endpoint.latency(Duration::from_micros(203_700));
    let layer = OAuthLayer::client_credentials("https://gw.example/token", "id", "secret")
        .token_client(endpoint)
        .build()
        .unwrap();
    let printed = layer.token_cache().token().await.unwrap_err().to_string();

    let without_times = |text: &str| -> String {
        let words = text
            .split(' ')
            .filter(|word| !word.starts_with(char::is_numeric));
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(without_times(&sample), without_times(&printed));
}
