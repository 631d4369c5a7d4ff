//! What an error tells whoever is paged at night: what is wrong, where, and what to do.

mod support;

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
            "gw.example:8443 answers in the clear",
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

// FA11
#[tokio::test(start_paused = true)]
async fn advice_is_by_cause_and_names_what_was_asked() {
    let description = r#"{"error_description":"this client may not have the scope"}"#;
    for answer in [
        Answer::Error(400, "invalid_scope"),
        raw(400, &[], description),
        raw(403, &[], description),
    ] {
        let text = told(answer).await;
        assert!(text.contains("\"aisp pisp\""), "{text}");
        assert!(!text.contains("client id"), "{text}");
    }
    let words = r#"{"error":"E401","error_description":"The credentials passed are incorrect."}"#;
    for answer in [
        Answer::Error(400, "incorrect_client_credentials"),
        raw(400, &[], words),
    ] {
        let text = told(answer).await;
        assert!(
            text.contains("look it up there; check the client id"),
            "{text}"
        );
    }
    let location = "https://user:canary@login.example/sign-in?next=canary";
    let text = told(raw(302, &[("location", location)], "")).await;
    assert!(text.contains("https://login.example/sign-in"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    let text = told(raw(307, &[("location", "/v2/token?x=canary")], "")).await;
    assert!(text.contains("redirect to /v2/token,"), "{text}");
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

// FA24
#[tokio::test(start_paused = true)]
async fn a_rejection_by_a_page_says_that_something_in_front_rejected_it() {
    for (status, body) in [
        (403, "<html><h1>Forbidden</h1></html>"),
        (403, "Request blocked"),
        (418, "<html>"),
    ] {
        let text = told(raw(status, &[("content-type", "text/html")], body)).await;
        assert!(
            text.contains("something in front of the token endpoint"),
            "{text}"
        );
        assert!(text.contains("user_agent()"), "{text}");
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

const TOKEN_ENDPOINT: &str = "https://gw.example:8443/oauth2/v1/token";

/// What comes after what happened.
fn advice(text: &str) -> &str {
    text.split_once("; ").map_or("", |(_, advice)| advice)
}

// FA11
#[tokio::test(start_paused = true)]
async fn only_a_code_of_no_specification_is_called_the_servers_own() {
    for (code, wanted) in [
        ("invalid_grant", "use the client-credentials grant"),
        ("use_dpop_nonce", "DPoP"),
        ("invalid_dpop_proof", "DPoP"),
        ("insufficient_scope", "check the path of the token URL"),
        ("insufficient_user_authentication", "check the path"),
        ("invalid_token", "check the path of the token URL"),
        ("authorization_pending", "check the path of the token URL"),
        ("login_required", "check the path of the token URL"),
        ("unsupported_token_type", "check the path of the token URL"),
        ("invalid_redirect_uri", "check the path of the token URL"),
        ("invalid_authorization_details", "the authorization_details"),
        ("access_denied", "what this client may have"),
    ] {
        let text = told(Answer::Error(400, code)).await;
        assert!(!text.contains("own code"), "{text}");
        assert!(advice(&text).contains(wanted), "{text}");
    }
    let text = told(Answer::Error(400, "of_its_own")).await;
    assert!(
        text.contains("of_its_own is the server's own code"),
        "{text}"
    );
}

// FA9
#[tokio::test(start_paused = true)]
async fn a_rejection_that_does_not_name_the_client_names_the_token_url_too() {
    let challenge = |value| raw(401, &[("www-authenticate", value)], "");
    for answer in [
        raw(401, &[], ""),
        raw(400, &[], ""),
        raw(403, &[], ""),
        raw(400, &[], r#"{"message":"no"}"#),
        raw(403, &[], r#"{"message":"no"}"#),
        challenge("Bearer realm=\"api\""),
        Answer::Error(400, "invalid_request"),
        Answer::Error(400, "of_its_own"),
        Answer::Error(401, "of_its_own"),
    ] {
        let text = told(answer).await;
        assert!(text.contains(TOKEN_ENDPOINT), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
    let words = r#"{"message":"The credentials are wrong"}"#;
    for status in [400, 401, 403] {
        let text = told(raw(status, &[], words)).await;
        assert!(advice(&text).starts_with("check the client id"), "{text}");
        assert!(!text.contains("the token URL"), "{text}");
    }
    let of_an_api = challenge("Bearer error=\"invalid_token\"");
    let text = told(of_an_api).await;
    let (path, client) = (text.find("(/oauth2/v1/token)"), text.find("the client id"));
    assert!(path.is_some() && path < client, "{text}");
    assert!(text.contains("gw.example:8443"), "{text}");
    let text = told(Answer::Error(403, "insufficient_scope")).await;
    let (path, scope) = (text.find("(/oauth2/v1/token)"), text.find("aisp pisp"));
    assert!(path.is_some() && path < scope, "{text}");
    let revocation =
        r#"{"error":"invalid_request","error_description":"Missing token parameter."}"#;
    let text = told(raw(400, &[], revocation)).await;
    assert!(text.contains("check the path of the token URL"), "{text}");
    let query =
        r#"{"error":"invalid_request","error_description":"URL query parameters are not allowed"}"#;
    let text = told(raw(400, &[], query)).await;
    assert!(text.contains("leave the query out"), "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn a_bare_403_speaks_of_the_scope_too() {
    let text = told(raw(403, &[], "")).await;
    assert!(
        advice(&text).starts_with("check the scope (\"aisp pisp\")"),
        "{text}"
    );
    assert!(text.contains("user_agent()"), "{text}");
    let layer = OAuthLayer::client_credentials(HTTPS_URL, "id", "secret")
        .token_client(Endpoint::new().always(raw(403, &[], "")))
        .build()
        .unwrap();
    let text = layer.token_cache().token().await.unwrap_err().to_string();
    assert!(text.contains("set it with scope()"), "{text}");
    assert!(text.contains("user_agent()"), "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn an_unauthorized_client_is_sent_to_the_grant_first_and_to_its_credentials_last() {
    let text = told(Answer::Error(400, "unauthorized_client")).await;
    let grant = text.find("lets this client use the client-credentials grant");
    let client = text.find("check the client id");
    assert!(grant.is_some() && grant < client, "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn a_status_that_says_what_is_wrong_is_not_laid_to_the_scope() {
    for (status, wanted) in [
        (413, "too large"),
        (415, "check the path of the token URL"),
        (421, "gw.example:8443"),
        (426, "another protocol"),
        (431, "headers too large"),
        (451, "legal reasons"),
    ] {
        for body in ["", "<html>no</html>"] {
            let text = told(raw(status, &[], body)).await;
            assert!(advice(&text).contains(wanted), "{text}");
            assert!(!text.contains("the audience"), "{text}");
            assert!(!text.contains("check the client id"), "{text}");
        }
    }
    let text = told_at(TOKEN_URL, raw(426, &[], "")).await;
    assert!(text.contains("write https://"), "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn a_code_under_a_status_that_says_something_else_is_told_with_it() {
    let text = told(Answer::Error(429, "invalid_client")).await;
    assert!(text.contains("check the client id"), "{text}");
    assert!(text.contains("too many token requests"), "{text}");
    assert!(text.contains("requests resume by themselves"), "{text}");
    let text = told(Answer::Error(503, "invalid_target")).await;
    assert!(text.contains("the audience and the resource"), "{text}");
    assert!(text.contains("requests resume by themselves"), "{text}");
    let text = told(raw(429, &[], "")).await;
    assert_eq!(text.matches("resume by themselves").count(), 1, "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn an_answer_of_the_token_endpoint_that_is_no_token_is_its_operators_to_mend() {
    for (body, wanted) in [
        (r#"{"access_token":123}"#, "the access_token is a number"),
        (r#"{"access_token":null}"#, "the access_token is null"),
        (r#"{"access_token":""}"#, "the access_token is empty"),
        (r#"{"access_token":["t"]}"#, "the access_token is a list"),
        (
            r#"{"access_token":{"t":1}}"#,
            "the access_token is an object",
        ),
        (
            r#"{"access_token":true}"#,
            "the access_token is true or false",
        ),
        (
            "access_token=&token_type=Bearer",
            "the access_token is empty",
        ),
        (r#"{"access_token":"a\u0001"}"#, "characters that a header"),
        (
            r#"{"access_token":"a","access_token":"b"}"#,
            "two different values",
        ),
        (r#"{"access_token":"a","token_type":1}"#, "not a string"),
    ] {
        let text = told(raw(200, &[("content-type", "application/json")], body)).await;
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains("has to mend its answer"), "{text}");
        assert!(!text.contains("has no access_token"), "{text}");
        assert!(
            !text.contains("login page") && !text.contains("proxy"),
            "{text}"
        );
    }
    let text = told(raw(200, &[], r#"{"ok":true}"#)).await;
    assert!(text.contains("has no access_token"), "{text}");
    assert!(text.contains("login page"), "{text}");
    let zipped = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let text = told(raw(200, &zipped, "\u{1f}\u{8b}\u{8}")).await;
    assert!(
        text.contains("(application/json) is encoded as gzip"),
        "{text}"
    );
}

/// The README's, but for the times, which are another's each time.
#[tokio::test(start_paused = true)]
async fn the_error_in_the_readme_is_what_is_printed() {
    let readme = include_str!("../README.md");
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
