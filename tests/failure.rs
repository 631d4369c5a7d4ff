//! Backoff: who backs off, for how long, and what ends it.

mod support;

use std::future::ready;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::Full;
use support::*;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_oauth::{Error, ManualClock, OAuthLayer, RefreshPolicy, Secret, TokenRequest};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn other(scope: &str) -> TokenRequest {
    TokenRequest::new().scope(scope).unwrap()
}

// K3, R16
#[tokio::test(start_paused = true)]
async fn a_call_during_backoff_without_a_live_token_fails_at_once_with_the_cause_and_the_wait() {
    let endpoint = Endpoint::new().always(Answer::Error(401, "invalid_client"));
    let tokens = layer(&endpoint).tokens();
    let first = tokens.token().await.unwrap_err();
    assert!(
        first.retry_after().is_some(),
        "told to those who waited too"
    );
    let start = Instant::now();
    for _ in 0..1000 {
        let error = tokens.token().await.unwrap_err();
        assert_eq!(error.oauth_code(), Some("invalid_client"));
        let wait = error.retry_after().unwrap();
        assert!(wait > Duration::ZERO && wait <= secs(10), "{wait:?}");
        assert!(error.to_string().contains("next attempt in"), "{error}");
    }
    assert_eq!((endpoint.requests(), start.elapsed()), (1, Duration::ZERO));
}

// K4, R12
#[tokio::test(start_paused = true)]
async fn a_call_during_backoff_with_a_live_token_is_served_at_once() {
    let (endpoint, api) = (
        Endpoint::new()
            .then([Answer::Token(3600)])
            .always(Answer::Refused),
        Api::ok(),
    );
    let layer = layer(&endpoint);
    let service = layer.layer(api.clone());
    service.clone().oneshot(get(API)).await.unwrap();
    // In the last stretch, where a call would wait for a renewal if there were one.
    advance(secs(3585)).await;
    service.clone().oneshot(get(API)).await.unwrap();
    let start = Instant::now();
    let asked = endpoint.requests();
    for _ in 0..100 {
        service.clone().oneshot(get(API)).await.unwrap();
    }
    assert_eq!(
        (start.elapsed(), endpoint.requests()),
        (Duration::ZERO, asked)
    );
}

// K20
#[tokio::test(start_paused = true)]
async fn every_rejected_row_is_one_request_and_then_backoff() {
    let rows = [
        Answer::Error(400, "invalid_client"),
        Answer::Error(400, "unauthorized_client"),
        raw(401, &[], ""),
        raw(403, &[], ""),
        raw(404, &[], ""),
        Answer::Error(400, "invalid_scope"),
        Answer::Error(400, "invalid_target"),
        Answer::Error(400, "invalid_request"),
        Answer::Error(400, "unsupported_grant_type"),
        Answer::Error(400, "something_of_its_own"),
        raw(418, &[], ""),
        raw(200, &[], "<html>"),
        raw(200, &[], "{}"),
        raw(304, &[], ""),
        raw(200, &[], r#"{"access_token":"t","token_type":"mac"}"#),
    ];
    for row in rows {
        let endpoint = Endpoint::new().always(row.clone());
        let tokens = layer(&endpoint).tokens();
        for _ in 0..100 {
            let error = tokens.token().await.unwrap_err();
            assert!(
                error.is_rejected() || error.is_invalid_response(),
                "{row:?}: {error}"
            );
        }
        assert_eq!(endpoint.requests(), 1, "{row:?}");
        advance(secs(11)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 2, "{row:?}");
    }
}

// K21
#[tokio::test(start_paused = true)]
async fn every_transient_row_is_tried_three_times_and_then_backs_off() {
    let rows = [
        Answer::Refused,
        raw(408, &[], ""),
        raw(425, &[], ""),
        raw(500, &[], ""),
        raw(502, &[], "<html>"),
        raw(503, &[], ""),
        raw(599, &[], ""),
        raw(200, &[], ""),
        raw(200, &[], "{\"access_token\":"),
        Answer::Error(400, "server_error"),
        Answer::Error(400, "temporarily_unavailable"),
    ];
    for row in rows {
        let endpoint = Endpoint::new().always(row.clone());
        let tokens = layer(&endpoint).tokens();
        let start = Instant::now();
        for _ in 0..100 {
            assert!(tokens.token().await.unwrap_err().is_transient(), "{row:?}");
        }
        assert_eq!(endpoint.requests(), 3, "{row:?}");
        assert!(
            start.elapsed() <= Duration::from_millis(605),
            "short pauses: {:?}",
            start.elapsed()
        );
        advance(secs(3)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 6, "{row:?}");
    }
}

// R9
#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_within_the_flight_is_nobodys_failure() {
    let endpoint = Endpoint::new().then([Answer::Refused, raw(503, &[], "")]);
    let tokens = layer(&endpoint).tokens();
    assert!(tokens.token().await.is_ok());
    assert_eq!(endpoint.requests(), 3);
}

// K22
#[tokio::test(start_paused = true)]
async fn an_answer_that_asks_to_stay_away_ends_the_flight_and_is_obeyed() {
    let rows = [
        (raw(429, &[], ""), 1),
        (Answer::Error(400, "slow_down"), 1),
        (Answer::Error(400, "too_many_requests"), 1),
        (raw(503, &[("retry-after", "20")], ""), 20),
        (
            raw(500, &[("retry-after", "20")], r#"{"error":"server_error"}"#),
            20,
        ),
        (
            raw(
                400,
                &[("retry-after", "20")],
                r#"{"error":"invalid_request"}"#,
            ),
            20,
        ),
    ];
    for (row, floor) in rows {
        let endpoint = Endpoint::new().always(row.clone());
        let tokens = layer(&endpoint).tokens();
        let start = Instant::now();
        assert!(tokens.token().await.unwrap_err().is_transient(), "{row:?}");
        assert_eq!(
            (endpoint.requests(), start.elapsed()),
            (1, Duration::ZERO),
            "{row:?}"
        );
        advance(secs(floor) - Duration::from_millis(1)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 1, "{row:?}: before the time is over");
        advance(secs(2)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 2, "{row:?}");
    }
}

/// A body that breaks off before its first byte.
struct Torn;

impl http_body::Body for Torn {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Err("connection reset".into())))
    }
}

// K22, P32
#[tokio::test(start_paused = true)]
async fn a_refusal_speaks_by_its_status_and_retry_after_also_when_its_body_cannot_be_read() {
    async fn refused<B>(status: u16, body: fn() -> B) -> (Error, usize)
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let client = service_fn(move |_: Request<Full<Bytes>>| {
            count.fetch_add(1, Ordering::SeqCst);
            let response = Response::builder().status(status);
            let response = match status {
                401 => response,
                _ => response.header("retry-after", "20"),
            };
            ready(Ok::<_, BoxError>(response.body(body()).unwrap()))
        });
        let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", "secret").token_client(client);
        let error = layer.build().unwrap().tokens().token().await.unwrap_err();
        (error, asked.load(Ordering::SeqCst))
    }
    let endless = || Full::from(vec![b' '; 2 << 20]);
    for status in [429, 503] {
        for (error, asked) in [
            refused(status, || Torn).await,
            refused(status, endless).await,
        ] {
            assert_eq!(asked, 1, "{error}");
            assert!(error.is_transient(), "{error}");
            let wait = error
                .retry_after()
                .expect("the time until the next attempt");
            assert!(wait >= secs(20) && wait <= secs(21), "{error}");
        }
    }
    for (error, asked) in [refused(401, || Torn).await, refused(401, endless).await] {
        assert_eq!(asked, 1, "{error}");
        assert!(error.is_rejected(), "{error}");
    }
}

#[test]
fn a_backoff_without_length_is_a_build_error() {
    let second = secs(1);
    for (first, without_token, with_token) in [
        (Duration::ZERO, second, second),
        (second, Duration::ZERO, second),
        (second, second, Duration::ZERO),
    ] {
        let policy = RefreshPolicy::new;
        for policy in [
            policy().transient_backoff(first, without_token, with_token),
            policy().rejected_backoff(first, without_token, with_token),
        ] {
            let error = builder(&Endpoint::new()).refresh_policy(policy).build();
            let error = error.unwrap_err().to_string();
            assert!(error.contains("backoff of 0"), "{error}");
        }
    }
}

// K19
#[tokio::test(start_paused = true)]
async fn an_absurd_retry_after_is_capped_and_garbage_is_ignored() {
    for (value, longest) in [("99999999", 301), ("soon", 2)] {
        let endpoint = Endpoint::new().always(raw(503, &[("retry-after", value)], ""));
        let layer = builder(&endpoint)
            .refresh_policy(one_attempt())
            .build()
            .unwrap();
        let told = layer.tokens().token().await.unwrap_err();
        assert!(
            told.retry_after().unwrap() <= secs(longest),
            "no promise that is not kept: {told}"
        );
        let wait = layer
            .tokens()
            .token()
            .await
            .unwrap_err()
            .retry_after()
            .unwrap();
        assert!(
            wait <= secs(longest) && wait > secs(longest - 2),
            "{value}: {wait:?}"
        );
    }
}

// R15
#[tokio::test(start_paused = true)]
async fn the_end_of_the_live_token_shortens_a_backoff_chosen_while_it_lived() {
    let endpoint = Endpoint::new().then([Answer::Token(100)]);
    let layer = builder(&endpoint)
        .refresh_policy(one_attempt())
        .build()
        .unwrap();
    let tokens = layer.tokens();
    tokens.token().await.unwrap();
    advance(secs(85)).await;
    endpoint.set(raw(503, &[("retry-after", "3600")], ""));
    tokens.token().await.unwrap();
    settle().await;
    assert!(
        tokens.status().next_attempt_in.unwrap() > secs(3590),
        "honoured for an hour while a token lives"
    );
    advance(secs(15)).await;
    let wait = tokens.token().await.unwrap_err().retry_after().unwrap();
    assert!(
        wait <= secs(301),
        "and for five minutes when it is gone: {wait:?}"
    );
}

struct SecretFile(std::path::PathBuf);

impl SecretFile {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-oauth-{name}-{}", std::process::id()));
        let file = Self(path);
        file.write(content);
        file
    }

    fn write(&self, content: &str) {
        std::fs::File::create(&self.0)
            .unwrap()
            .write_all(content.as_bytes())
            .unwrap();
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn with_secret(endpoint: &Endpoint, secret: Secret) -> OAuthLayer {
    OAuthLayer::client_credentials(TOKEN_URL, "id", secret)
        .token_client(endpoint.clone())
        .clock(ManualClock::new())
        .build()
        .unwrap()
}

// K25, R17
#[tokio::test(start_paused = true)]
async fn a_changed_secret_file_is_tried_at_once_in_spite_of_backoff() {
    let file = SecretFile::new("k25", "old\n");
    let endpoint = Endpoint::new().then([Answer::Error(401, "invalid_client")]);
    let layer = with_secret(&endpoint, Secret::file(&file.0));
    let tokens = layer.tokens();
    tokens.token().await.unwrap_err();
    for _ in 0..20 {
        assert_eq!(
            tokens.token().await.unwrap_err().oauth_code(),
            Some("invalid_client")
        );
    }
    assert_eq!(endpoint.requests(), 1, "the same secret is not tried again");
    file.write("new\n");
    advance(secs(1)).await;
    tokens.token().await.unwrap();
    let sent: Vec<_> = endpoint
        .seen()
        .iter()
        .map(|seen| seen.authorization().to_owned())
        .collect();
    assert_eq!(sent, ["Basic aWQ6b2xk", "Basic aWQ6bmV3"]);
}

// K25
#[tokio::test(start_paused = true)]
async fn a_secret_that_changed_before_the_backoff_is_simply_read() {
    let file = SecretFile::new("k25b", "old");
    let endpoint = Endpoint::new();
    let layer = with_secret(&endpoint, Secret::file(&file.0));
    layer.tokens().token().await.unwrap();
    file.write("new");
    layer.tokens().invalidate();
    layer.tokens().token().await.unwrap();
    assert_eq!(endpoint.seen()[1].authorization(), "Basic aWQ6bmV3");
}

// R17
#[tokio::test(start_paused = true)]
async fn a_provider_is_asked_at_most_once_a_second_during_backoff_and_may_hang() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let provider = Secret::provider(move || {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if !first {
                std::future::pending::<()>().await;
            }
            Ok::<_, Error>("secret")
        }
    });
    let endpoint = Endpoint::new().always(Answer::Error(400, "invalid_client"));
    let tokens = with_secret(&endpoint, provider).tokens();
    tokens.token().await.unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 1, "for the token request");
    // Every look hangs, is given up after a second, and is not repeated within that second.
    for look in 1..=4 {
        let start = Instant::now();
        tokens.token().await.unwrap_err();
        assert_eq!(start.elapsed(), secs(1), "look {look}");
        assert_eq!(asked.load(Ordering::SeqCst), 1 + look);
        // A look is due again at the very moment at which this one has ended.
    }
    assert_eq!(endpoint.requests(), 1);
}

// R17
#[tokio::test(start_paused = true)]
async fn a_provider_that_answers_is_looked_at_once_a_second_for_all_kinds_together() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let provider = Secret::provider(move || {
        count.fetch_add(1, Ordering::SeqCst);
        ready(Ok::<_, Error>("secret"))
    });
    let endpoint = Endpoint::new().always(Answer::Error(400, "invalid_client"));
    let tokens = with_secret(&endpoint, provider).tokens();
    tokens.token().await.unwrap_err();
    for tenth in 0..40 {
        for n in 0..5 {
            let kind = tokens.for_request(other(&format!("s{n}")));
            kind.token().await.unwrap_err();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2 + tenth / 10, "{tenth}");
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(endpoint.requests(), 1);
}

// K34, R15
#[tokio::test(start_paused = true)]
async fn ten_thousand_keys_of_a_dead_endpoint_share_one_backoff_and_at_most_sixty_four_flights() {
    let endpoint = Endpoint::new()
        .always(Answer::Refused)
        .latency(Duration::from_millis(50));
    let layer = builder(&endpoint)
        .refresh_policy(one_attempt())
        .build()
        .unwrap();
    let calls: JoinSet<_> = (0..10_000)
        .map(|n| {
            let tokens = layer.tokens().for_request(other(&format!("s{n}")));
            async move { tokens.token().await.unwrap_err() }
        })
        .collect();
    let errors = calls.join_all().await;
    assert_eq!(errors.len(), 10_000);
    assert!(errors.iter().all(Error::is_transient));
    assert_eq!(endpoint.most_at_once(), 64);
    assert_eq!(
        endpoint.requests(),
        64,
        "those that queued fail with the first ones"
    );
    let wait = layer
        .tokens()
        .token()
        .await
        .unwrap_err()
        .retry_after()
        .unwrap();
    assert!(wait <= secs(2), "one outage is one step: {wait:?}");
}

// K34
#[tokio::test(start_paused = true)]
async fn sixty_four_flights_at_once_and_the_others_queue() {
    let endpoint = Endpoint::new().latency(Duration::from_millis(50));
    let layer = layer(&endpoint);
    let calls: JoinSet<_> = (0..200)
        .map(|n| {
            let tokens = layer.tokens().for_request(other(&format!("s{n}")));
            async move { tokens.token().await.is_ok() }
        })
        .collect();
    assert!(calls.join_all().await.into_iter().all(|ok| ok));
    assert_eq!((endpoint.most_at_once(), endpoint.requests()), (64, 200));
}

// K34, R15
#[tokio::test(start_paused = true)]
async fn a_flight_whose_turn_does_not_come_is_no_failure_of_the_endpoint() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let policy = RefreshPolicy::new()
        .max_flights(1)
        .attempts(1)
        .flight_timeout(secs(60));
    // Its one attempt is as long as the flight, so that it is still under way.
    let policy = policy.attempt_timeout(secs(60));
    let tokens = builder(&endpoint)
        .refresh_policy(policy)
        .build()
        .unwrap()
        .tokens();
    let mut calls = JoinSet::new();
    for n in 0..3 {
        let kind = tokens.for_request(other(&format!("s{n}")));
        calls.spawn(async move { kind.token().await });
        settle().await;
    }
    let start = Instant::now();
    for _ in 0..2 {
        let error = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(
            error.is_timeout() && error.to_string().contains("max_flights"),
            "{error}"
        );
        assert_eq!((error.retry_after(), start.elapsed()), (None, secs(30)));
    }
    // At this very moment, when a first backoff would not be over yet.
    assert_eq!(endpoint.requests(), 1);
    let queued = tokens.for_request(other("s1")).status();
    assert!(
        queued.last_error.is_none() && queued.next_attempt_in.is_none(),
        "{queued:?}"
    );
    endpoint.set(Answer::Token(3600));
    assert!(tokens.token().await.is_ok(), "no backoff for anyone");
    assert_eq!((endpoint.requests(), start.elapsed()), (2, secs(30)));
}

// R15
#[tokio::test(start_paused = true)]
async fn a_rejected_scope_backs_off_its_own_kind_of_token_and_no_other() {
    let endpoint = Endpoint::new().then([Answer::Error(400, "invalid_scope")]);
    let tokens = layer(&endpoint).tokens();
    let bad = tokens.for_request(other("bad"));
    bad.token().await.unwrap_err();
    assert!(tokens.token().await.is_ok());
    assert!(bad.token().await.is_err());
    assert_eq!(endpoint.requests(), 2);
}

// K35
#[tokio::test(start_paused = true)]
async fn warm_up_and_invalidate_end_a_backoff() {
    let endpoint = Endpoint::new().then([
        Answer::Error(401, "invalid_client"),
        Answer::Error(401, "invalid_client"),
    ]);
    let tokens = layer(&endpoint).tokens();
    tokens.token().await.unwrap_err();
    tokens.warm_up().await.unwrap_err();
    assert_eq!(endpoint.requests(), 2);
    tokens.invalidate();
    tokens.token().await.unwrap();
    assert_eq!(endpoint.requests(), 3);
    tokens.warm_up().await.unwrap();
    assert_eq!(endpoint.requests(), 3, "with a live token it sends nothing");
}

// R15
#[tokio::test(start_paused = true)]
async fn no_error_is_for_ever() {
    let endpoint = Endpoint::new().always(Answer::Error(401, "invalid_client"));
    let tokens = layer(&endpoint).tokens();
    let start = Instant::now();
    while start.elapsed() < secs(3600) {
        tokens.token().await.unwrap_err();
        advance(secs(1)).await;
    }
    endpoint.set(Answer::Token(3600));
    advance(secs(60)).await;
    assert!(tokens.token().await.is_ok(), "a minute at the most");
}

// R8, R16
#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_and_a_thousand_calls_after_them_are_one_flight_on_a_failing_endpoint()
{
    let endpoint = Endpoint::new()
        .always(raw(503, &[], ""))
        .latency(Duration::from_millis(5));
    let layer = layer(&endpoint);
    let service = layer.layer(Api::ok());
    let calls: JoinSet<_> = (0..10_000)
        .map(|_| service.clone().oneshot(get(API)))
        .collect();
    assert!(calls.join_all().await.iter().all(Result::is_err));
    assert_eq!(endpoint.requests(), 3);
    for _ in 0..1000 {
        service.clone().oneshot(get(API)).await.unwrap_err();
        advance(Duration::from_micros(990)).await;
    }
    assert_eq!(endpoint.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn status_tells_how_things_stand() {
    let endpoint = Endpoint::new()
        .then([Answer::Token(3600)])
        .always(Answer::Refused);
    let policy = RefreshPolicy::new().attempts(1);
    let tokens = builder(&endpoint)
        .refresh_policy(policy)
        .build()
        .unwrap()
        .tokens();
    let cold = tokens.status();
    assert!(cold.generation.is_none() && cold.is_ready() && cold.token_requests == 0);
    tokens.token().await.unwrap();
    advance(secs(3400)).await;
    tokens.token().await.unwrap();
    settle().await;
    let status = tokens.status();
    assert_eq!(
        (status.age, status.remaining),
        (Some(secs(3400)), Some(secs(200)))
    );
    assert_eq!(status.token_requests, 2);
    assert!(status.last_error.unwrap().is_transient() && status.next_attempt_in.is_some());
    advance(secs(200)).await;
    tokens.token().await.unwrap_err();
    assert!(!tokens.status().is_ready());
}
