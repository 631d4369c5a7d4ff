//! `ClientAuth::custom`: what a hook may add to a token request, and what becomes of it.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::*;
use tower_oauth::{AuthRequest, BoxError, ClientAuth, Error, ManualClock, OAuthLayer, Secret};

type Asked = Result<AuthRequest, BoxError>;

fn none(hook: impl Fn(AuthRequest) -> Asked + Clone + Send + Sync + 'static) -> ClientAuth {
    with(ClientAuth::none("id"), hook)
}

fn with(
    auth: ClientAuth,
    hook: impl Fn(AuthRequest) -> Asked + Clone + Send + Sync + 'static,
) -> ClientAuth {
    ClientAuth::custom(auth, move |request| {
        let hook = hook.clone();
        async move {
            tokio::task::yield_now().await;
            hook(request)
        }
    })
}

fn built(endpoint: &Endpoint, auth: ClientAuth) -> OAuthLayer {
    OAuthLayer::client_credentials_with(TOKEN_URL, auth)
        .token_client(endpoint.clone())
        .scope("aisp")
        .parameter("tenant", "eight-or-more")
        .clock(ManualClock::new())
        .build()
        .unwrap()
}

async fn failure(endpoint: &Endpoint, auth: ClientAuth) -> Error {
    let tokens = built(endpoint, auth).token_cache();
    tokens.token().await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn headers_and_parameters_of_a_hook_arrive_and_it_sees_what_is_asked_for() {
    let endpoint = Endpoint::new();
    let auth = none(|request| {
        assert_eq!(request.client_id(), "id");
        assert_eq!(request.token_url(), TOKEN_URL);
        assert_eq!(request.params().scopes().collect::<Vec<_>>(), ["aisp"]);
        Ok(request
            .with_header("X-Signature", "keyId=\"a\", signature=\"b=\"")
            .with_parameter("client_assertion", "a.b+c"))
    });
    built(&endpoint, auth).token_cache().token().await.unwrap();
    let seen = endpoint.seen().remove(0);
    assert_eq!(
        seen.body,
        "grant_type=client_credentials&scope=aisp&tenant=eight-or-more&client_id=id\
         &client_assertion=a.b%2Bc"
    );
    assert_eq!(seen.headers["x-signature"], "keyId=\"a\", signature=\"b=\"");
    assert!(seen.headers["x-signature"].is_sensitive());
}

#[tokio::test(start_paused = true)]
async fn a_hook_adds_to_the_credentials_and_several_are_asked_from_the_inside_out() {
    let endpoint = Endpoint::new();
    let first = with(ClientAuth::basic("id", "secret"), |request| {
        Ok(request
            .with_header("x-key", "1")
            .with_header("x-first", "1"))
    });
    let both = with(first, |request| Ok(request.with_header("x-key", "2")));
    built(&endpoint, both).token_cache().token().await.unwrap();
    let seen = endpoint.seen().remove(0);
    assert_eq!(seen.authorization(), "Basic aWQ6c2VjcmV0");
    assert_eq!(
        (&seen.headers["x-key"], &seen.headers["x-first"]),
        (&"2".parse().unwrap(), &"1".parse().unwrap())
    );
}

// R9
#[tokio::test(start_paused = true)]
async fn a_hook_is_asked_anew_for_each_attempt() {
    let endpoint = Endpoint::new().always(Answer::Refused);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let auth = none(move |request| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        Ok(request.with_header("x-nonce", n.to_string()))
    });
    failure(&endpoint, auth).await;
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let nonces = endpoint.seen().into_iter();
    let nonces: Vec<_> = nonces.map(|seen| seen.headers["x-nonce"].clone()).collect();
    assert_eq!(nonces, ["0", "1", "2"]);
}

// R17
#[tokio::test(start_paused = true)]
async fn a_look_at_the_secret_during_a_backoff_asks_no_hook() {
    let endpoint = Endpoint::new().always(Answer::Error(401, "invalid_client"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let provided = Secret::provider(|| async { Ok::<_, BoxError>("secret") });
    let auth = with(ClientAuth::post("id", provided), move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(request)
    });
    let tokens = built(&endpoint, auth).token_cache();
    tokens.token().await.unwrap_err();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokens.token().await.unwrap_err();
    assert_eq!((asked.load(Ordering::SeqCst), endpoint.requests()), (1, 1));
}

// R6, R9
#[tokio::test(start_paused = true)]
async fn what_goes_wrong_in_a_hook_is_a_failure_like_any_other_and_nothing_is_sent() {
    let endpoint = Endpoint::new();
    let sealed = || none(|_| Err(io::Error::other("the HSM is sealed").into()));
    let error = failure(&endpoint, sealed()).await;
    let text = error.to_string();
    assert!(
        text.contains("the hook of ClientAuth::custom failed: the HSM is sealed"),
        "{text}"
    );
    assert!(error.is_transient() && error.attempts() == 0, "{text}");

    let rejected = none(|_| Err(Error::rejected("invalid_client", "no such key").into()));
    let error = failure(&endpoint, rejected).await;
    assert!(
        error.is_rejected() && error.to_string().contains("no such key"),
        "{error}"
    );
    assert_eq!(error.oauth_code(), Some("invalid_client"));

    let error = failure(&endpoint, none(|_| panic!("canary"))).await;
    assert!(
        error.is_transient() && error.to_string().contains("panicked"),
        "{error}"
    );
    assert!(!error.to_string().contains("canary"), "{error}");

    let stuck = |_| std::future::pending::<Asked>();
    let error = failure(&endpoint, ClientAuth::custom(ClientAuth::none("id"), stuck)).await;
    assert!(error.is_timeout(), "{error}");
    assert!(
        error
            .to_string()
            .contains("the hook of ClientAuth::custom did not answer"),
        "{error}"
    );
    assert_eq!(endpoint.requests(), 0);

    // Nothing of it is for ever.
    let calls = Arc::new(AtomicUsize::new(0));
    let auth = none(move |request| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("once"),
        _ => Ok(request),
    });
    let tokens = built(&endpoint, auth).token_cache();
    tokens.token().await.unwrap_err();
    tokio::time::advance(Duration::from_secs(15)).await;
    tokens.token().await.unwrap();
}

// R22, R24
#[tokio::test(start_paused = true)]
async fn a_hook_can_neither_set_what_the_grant_sets_nor_inject_anything() {
    type Add = fn(AuthRequest) -> AuthRequest;
    const ROWS: &[(Add, &str)] = &[
        (
            |request| request.with_parameter("grant_type", "canary"),
            "grant_type",
        ),
        (|request| request.with_parameter("scope", "canary"), "scope"),
        (
            |request| request.with_parameter("audience", "canary"),
            "audience",
        ),
        (
            |request| request.with_parameter("resource", "canary"),
            "resource",
        ),
        (
            |request| request.with_parameter("client_id", "canary"),
            "client_id",
        ),
        (
            |request| request.with_parameter("tenant", "canary"),
            "tenant",
        ),
        (|request| request.with_parameter("", "canary"), "parameter"),
        (
            |request| {
                request
                    .with_parameter("x", "1")
                    .with_parameter("x", "canary")
            },
            "\"x\"",
        ),
        (
            |request| request.with_header("x-a", "canary\r\nx-b: 1"),
            "x-a",
        ),
        (|request| request.with_header("x-a\r\nx-b", "canary"), "x-b"),
        (|request| request.with_header("x a", "canary"), "x a"),
        (
            |request| request.with_header("content-type", "canary"),
            "content-type",
        ),
        (
            |request| request.with_header("Content-Length", "1"),
            "Content-Length",
        ),
        (
            |request| request.with_header("transfer-encoding", "canary"),
            "transfer-encoding",
        ),
        (|request| request.with_header("host", "canary"), "host"),
    ];
    for (add, named) in ROWS {
        let endpoint = Endpoint::new();
        let error = failure(&endpoint, none(|request| Ok(add(request)))).await;
        let text = format!("{error} {error:?}");
        assert!(
            error.is_transient() && text.contains(named),
            "{named}: {text}"
        );
        assert!(
            !text.contains("canary") && !text.contains('\r'),
            "{named}: {text}"
        );
        assert_eq!(endpoint.requests(), 0, "{named}");
    }
    // What looks like two parameters is the value of one.
    let endpoint = Endpoint::new();
    let auth = none(|request| Ok(request.with_parameter("x", "1&grant_type=password")));
    built(&endpoint, auth).token_cache().token().await.unwrap();
    let body = endpoint.seen().remove(0).body;
    assert!(body.ends_with("&x=1%26grant_type%3Dpassword"), "{body}");
}

// R24
#[tokio::test(start_paused = true)]
async fn what_a_hook_adds_is_masked_in_what_the_server_says_and_in_errors_of_the_token_client() {
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let add = move |request: AuthRequest| {
        Ok(request
            .with_header("x-api-key", "canary-key-0123456789")
            .with_header("x-signature", "HMAC canary+signature/0123456789==")
            .with_parameter("client_assertion_type", kind)
            .with_parameter("client_assertion", "canary.assertion.0123456789")
            .with_parameter("once", "true"))
    };
    for (said, shown) in [
        ("key canary-key-0123456789", "key ***"),
        ("key canary%2Dkey-01234567", "key ***"),
        (
            "header canary%2Bsignature%2F0123456789==, true",
            "header ***, true",
        ),
        ("assertion canary.assertion.01234...", "assertion ***..."),
        (
            "a client_assertion of jwt-bearer is wrong",
            "a client_assertion of jwt-bearer is wrong",
        ),
    ] {
        let body = format!(r#"{{"error":"invalid_client","error_description":"{said}"}}"#);
        let endpoint = Endpoint::new().always(raw(401, &[], &body));
        let error = failure(&endpoint, none(add)).await;
        assert_eq!(error.description(), Some(shown));
        let text = format!("{error} {error:?}");
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("ClientAuth::custom"), "{text}");
    }
    let fails = tower::service_fn(|_| async {
        let error = io::Error::other("sent canary-key-0123456789, got nothing");
        Err::<http::Response<http_body_util::Full<bytes::Bytes>>, _>(error)
    });
    let layer = OAuthLayer::client_credentials_with(TOKEN_URL, none(add))
        .token_client(fails)
        .build()
        .unwrap();
    let error = layer.token_cache().token().await.unwrap_err();
    let text = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
    assert!(
        text.contains("sent ***") && !text.contains("canary"),
        "{text}"
    );
}

// R24
#[tokio::test(start_paused = true)]
async fn debug_shows_the_names_of_what_a_hook_adds_and_no_value() {
    let endpoint = Endpoint::new();
    let auth = none(|request| {
        let request = request
            .with_header("x-api-key", "canary")
            .with_parameter("client_assertion", "canary");
        let shown = format!("{request:?} {request:#?}");
        assert!(
            shown.contains("x-api-key") && shown.contains("client_assertion"),
            "{shown}"
        );
        assert!(
            !shown.contains("canary") && !shown.contains("eight-or-more"),
            "{shown}"
        );
        Ok(request)
    });
    assert!(format!("{auth:?}").contains("hooks: 1"));
    built(&endpoint, auth).token_cache().token().await.unwrap();
}
