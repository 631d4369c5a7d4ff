//! Backoff: who backs off, for how long, and what ends it.

// The table itself, as the crate has it: what the docs show is its rendering.
#[allow(dead_code, unreachable_pub)]
#[path = "../src/error/class.rs"]
mod class;
mod support;

use std::future::ready;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use class::{Again, Class, Codes, Reach, Row, Success};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::Full;
use support::*;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_oauth::{
    CachePolicy, Error, ManualClock, OAuthLayer, Secret, TokenParams, TokenRequest, TokenSource,
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn other(scope: &str) -> TokenParams {
    TokenParams::new().with_scope(scope).unwrap()
}

// K3, R16
#[tokio::test(start_paused = true)]
async fn a_call_during_backoff_without_a_live_token_fails_at_once_with_the_cause_and_the_wait() {
    let endpoint = Endpoint::new().always(Answer::Error(401, "invalid_client"));
    let tokens = layer(&endpoint).token_cache();
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
        let tokens = layer(&endpoint).token_cache();
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
        let tokens = layer(&endpoint).token_cache();
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
async fn no_pause_and_no_attempt_begins_for_which_the_flight_has_no_time() {
    for seed in 0..5 {
        fastrand::seed(seed);
        let endpoint = Endpoint::new()
            .always(raw(503, &[], ""))
            .latency(Duration::from_micros(999_990));
        let tokens = builder(&endpoint)
            .cache_policy(
                CachePolicy::new()
                    .attempts(1)
                    .attempt_timeout(Duration::from_secs(1)),
            )
            .build()
            .unwrap()
            .token_cache();
        let error = tokens.token().await.unwrap_err();
        assert_eq!(
            error.status().map(|status| status.as_u16()),
            Some(503),
            "{error}"
        );
        assert_eq!(endpoint.requests(), 1);
    }
}

// R9
#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_within_the_flight_is_nobodys_failure() {
    let endpoint = Endpoint::new().then([Answer::Refused, raw(503, &[], "")]);
    let tokens = layer(&endpoint).token_cache();
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
    ];
    for (row, floor) in rows {
        let endpoint = Endpoint::new().always(row.clone());
        let tokens = layer(&endpoint).token_cache();
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

/// What a failure came to, seen from outside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    class: Class,
    /// Token requests in the first flight.
    requests: usize,
    /// Whether another kind of token of the same client waits too.
    reach: Reach,
}

impl Seen {
    fn of(row: Row) -> Self {
        let again = row.again != Again::No;
        Self {
            class: row.class,
            requests: if again { 3 } else { 1 },
            reach: row.reach,
        }
    }

    async fn come_of(endpoint: &Endpoint) -> (Self, Error) {
        let tokens = layer(endpoint).token_cache();
        let error = tokens.token().await.unwrap_err();
        let requests = endpoint.requests();
        let class = if error.is_transient() {
            Class::Transient
        } else if error.is_rejected() {
            Class::Rejected
        } else {
            assert!(error.is_invalid_response(), "{error}");
            Class::InvalidResponse
        };
        tokens.with_params(other("b")).token().await.unwrap_err();
        let reach = match endpoint.requests() == requests {
            true => Reach::Client,
            false => Reach::Kind,
        };
        let seen = Self {
            class,
            requests,
            reach,
        };
        (seen, error)
    }
}

fn coded(status: u16, code: Option<&str>) -> Answer {
    let body = code.map_or_else(String::new, |code| format!(r#"{{"error":"{code}"}}"#));
    raw(status, &[], &body)
}

// FA19, FA20, K20, K21
#[tokio::test(start_paused = true)]
async fn every_head_that_is_not_2xx_comes_to_the_first_row_that_fits() {
    let lines = class::NOT_2XX;
    // Both ends of each row's range, and the codes of each row under the statuses of all.
    let ends = lines.iter().flat_map(|line| line.when);
    let mut statuses: Vec<_> = ends
        .flat_map(|head| [head.statuses.0, head.statuses.1])
        .chain([302, 402, 409, 502, 503])
        .collect();
    statuses.sort_unstable();
    statuses.dedup();
    let mut codes = vec![None, Some("invalid_scope"), Some("of_a_vendor")];
    for head in lines.iter().flat_map(|line| line.when) {
        if let Codes::OneOf(some) | Codes::NoneOrOneOf(some) = head.codes {
            codes.extend(some.iter().copied().map(Some));
        }
    }
    codes.sort_unstable();
    codes.dedup();
    let mut met = vec![0; lines.len()];
    for &status in &statuses {
        for &code in &codes {
            let fits = |line: &class::Line<class::Head>| {
                line.when.iter().any(|head| head.fits(status, code))
            };
            let place = lines.iter().position(fits).unwrap();
            met[place] += 1;
            let endpoint = Endpoint::new().always(coded(status, code));
            let (seen, error) = Seen::come_of(&endpoint).await;
            let text = lines[place].text;
            assert_eq!(
                seen,
                Seen::of(lines[place].row.unwrap()),
                "{status} {code:?} is \"{text}\": {error}"
            );
            assert_eq!(error.status().unwrap().as_u16(), status);
            if (400..600).contains(&status) {
                assert_eq!(error.oauth_code(), code, "{status}");
            }
        }
    }
    assert!(met.iter().all(|met| *met > 0), "{met:?}");
}

// FA1, FA3, FA4, FA5, FA7, FA8
#[tokio::test(start_paused = true)]
async fn every_2xx_without_a_token_comes_to_its_row() {
    let token = r#""access_token":"t""#;
    let page = "<html><a href=\"?a=b&access_token=stranger&error=made_up\">x</a></html>";
    let rows = [
        (200, String::new(), Success::Empty),
        (200, String::from(" \r\n"), Success::Empty),
        (200, format!("{{{token}"), Success::Torn),
        (200, format!("{{{token},\"expires_in\":3."), Success::Torn),
        (200, String::from("{\"a\":[[[\"\\u12"), Success::Torn),
        (204, String::new(), Success::NoContent),
        (204, format!("{{{token}}}"), Success::NoContent),
        (205, String::new(), Success::NoContent),
        (201, String::new(), Success::Foreign),
        (200, String::from(page), Success::Foreign),
        (203, String::from(page), Success::Foreign),
        (200, format!("[{{{token}}}]"), Success::Foreign),
        (200, format!("\"access_token=t&{token}\""), Success::Foreign),
        (200, String::from("null"), Success::Foreign),
        (
            200,
            String::from("see ?x=1&access_token=t"),
            Success::Foreign,
        ),
        (200, String::from("access_token"), Success::Foreign),
        (
            200,
            String::from("token=t&access_token=t"),
            Success::Foreign,
        ),
        (200, format!("{{{token}}} {{}}"), Success::Foreign),
        (200, format!("{{{token},}}"), Success::Foreign),
        (200, "x".repeat(2 << 20), Success::Foreign),
        (
            200,
            String::from(r#"{"access_token":"a","access_token":"b"}"#),
            Success::Contradiction,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":"Bearer","token_type":"mac"}}"#),
            Success::Contradiction,
        ),
        (
            200,
            format!(r#"{{{token},"expires_in":1,"x":0,"expires_in":2}}"#),
            Success::Contradiction,
        ),
        (
            200,
            format!(r#"{{{token},"error":"","error":"invalid_client"}}"#),
            Success::Contradiction,
        ),
        (
            200,
            String::from("access_token=a&access_token=b"),
            Success::Contradiction,
        ),
        (200, String::from("{}"), Success::NoToken),
        (200, String::from("scope=a&state=b"), Success::NoToken),
        (200, String::from(r#"{"error":"0"}"#), Success::NoToken),
        (
            200,
            String::from(r#"{"error":"Not Found"}"#),
            Success::NoToken,
        ),
        (200, String::from("error=please+log+in"), Success::NoToken),
        (
            200,
            String::from(r#"{"access_token":["t"]}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":"mac"}}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":1}}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":true}}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":["Bearer"]}}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":{{}}}}"#),
            Success::NoToken,
        ),
    ];
    let mut met = Vec::new();
    for (status, body, success) in rows {
        let endpoint = Endpoint::new().always(raw(status, &[("retry-after", "60")], &body));
        let (seen, error) = Seen::come_of(&endpoint).await;
        let shown = &body[..body.len().min(99)];
        assert_eq!(
            seen,
            Seen::of(class::of_success(success)),
            "{status} {shown}: {error}"
        );
        assert_eq!(error.server_retry_after(), None, "{shown}");
        assert_eq!(
            (error.oauth_code(), error.status().unwrap().as_u16()),
            (None, status)
        );
        met.push(success);
    }
    let lines = class::SUCCESS.iter().filter(|line| line.row.is_some());
    for success in lines.flat_map(|line| line.when) {
        assert!(met.contains(success), "{success:?}");
    }
}

// FA7
#[tokio::test(start_paused = true)]
async fn a_2xx_with_a_code_is_as_a_400_with_that_code() {
    let codes = [
        "invalid_client",
        "server_error",
        "slow_down",
        "invalid_scope",
        "of_a_vendor",
    ];
    for code in codes {
        for body in [
            format!(r#"{{"error":"{code}"}}"#),
            format!(r#"{{"ErrorCode":"{code}"}}"#),
            format!(r#"{{"access_token":"t","token_type":"mac","error":"{code}"}}"#),
            format!("error={code}&access_token=t"),
        ] {
            let endpoint = Endpoint::new().always(raw(200, &[], &body));
            let (seen, error) = Seen::come_of(&endpoint).await;
            assert_eq!(seen, Seen::of(class::of_code(code)), "{body}");
            assert_eq!(
                (error.oauth_code(), error.status().unwrap().as_u16()),
                (Some(code), 200)
            );

            let endpoint = Endpoint::new().always(raw(200, &[("retry-after", "60")], &body));
            let (seen, error) = Seen::come_of(&endpoint).await;
            assert_eq!(
                (seen.class, seen.requests),
                (class::of_code(code).class, 1),
                "{body}"
            );
            assert_eq!(error.server_retry_after(), Some(secs(60)), "{body}");
        }
    }
}

// FA20
#[tokio::test(start_paused = true)]
async fn a_portals_page_holds_all_kinds_and_a_denied_audience_its_own() {
    let page = Endpoint::new().always(raw(200, &[("content-type", "text/html")], "<html>"));
    let tokens = layer(&page).token_cache();
    for n in 0..300 {
        let kind = tokens.with_params(other(&format!("s{n}")));
        assert!(kind.token().await.unwrap_err().is_invalid_response());
    }
    assert_eq!(page.requests(), 1);

    let denied = Endpoint::new().then([Answer::Error(403, "access_denied")]);
    let tokens = layer(&denied).token_cache();
    let audience = tokens.with_params(TokenParams::new().with_audience("payments"));
    assert!(audience.token().await.unwrap_err().is_rejected());
    tokens.token().await.unwrap();
    audience.token().await.unwrap_err();
    assert_eq!(denied.requests(), 2);
}

// FA18, FA19
#[tokio::test(start_paused = true)]
async fn a_rejection_with_retry_after_stays_one_and_waits_at_least_as_long() {
    for (status, code) in [
        (401, Some("invalid_client")),
        (400, Some("invalid_request")),
        (403, None),
        (404, None),
        (501, None),
    ] {
        let body = code.map_or_else(String::new, |code| format!(r#"{{"error":"{code}"}}"#));
        let endpoint = Endpoint::new().always(raw(status, &[("retry-after", "60")], &body));
        let tokens = layer(&endpoint).token_cache();
        let error = tokens.token().await.unwrap_err();
        assert!(error.is_rejected(), "{error}");
        assert_eq!(error.server_retry_after(), Some(secs(60)));
        advance(secs(59)).await;
        assert!(tokens.token().await.unwrap_err().is_rejected());
        assert_eq!(endpoint.requests(), 1, "{status}");
        advance(secs(7)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 2, "{status}");
    }
}

// FA18; a surviving mutant obeyed it
#[tokio::test(start_paused = true)]
async fn retry_after_means_nothing_on_answers_that_are_no_errors() {
    for (status, body) in [
        (200, "<html>"),
        (200, "{}"),
        (204, ""),
        (302, ""),
        (304, ""),
    ] {
        let endpoint = Endpoint::new().always(raw(status, &[("retry-after", "60")], body));
        let tokens = layer(&endpoint).token_cache();
        assert_eq!(tokens.token().await.unwrap_err().server_retry_after(), None);
        advance(secs(4)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 1, "backs off as a rejection");
        advance(secs(7)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 2, "{status} {body}");
    }
}

// FA18
#[tokio::test(start_paused = true)]
async fn a_retry_after_of_zero_or_in_the_past_is_none_and_the_flight_tries_again() {
    for value in ["0", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let endpoint = Endpoint::new().always(raw(503, &[("retry-after", value)], ""));
        let error = layer(&endpoint).token_cache().token().await.unwrap_err();
        assert_eq!(
            (error.server_retry_after(), endpoint.requests()),
            (None, 3),
            "{value}"
        );
    }
}

// FA18
#[tokio::test(start_paused = true)]
async fn of_several_retry_after_lines_the_longest_holds_and_a_date_counts_from_the_answers_own() {
    // Both the server's clock and the date are years from ours.
    let headers = [
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("retry-after", "7"),
        ("retry-after", "Sun, 06 Nov 1994 08:49:60 GMT"),
        ("retry-after", "5, 9"),
    ];
    let endpoint = Endpoint::new().always(raw(503, &headers, ""));
    let error = layer(&endpoint).token_cache().token().await.unwrap_err();
    assert_eq!(
        (error.server_retry_after(), endpoint.requests()),
        (Some(secs(23)), 1)
    );
}

/// What a body does, one after the other; then it stalls for ever, unless it ends.
#[derive(Clone, Copy, Debug)]
enum Step {
    Bytes(&'static str),
    Blanks(usize),
    /// In milliseconds.
    Pause(u64),
    Break,
    End,
}

struct Scripted {
    steps: std::slice::Iter<'static, Step>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl http_body::Body for Scripted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            return match self.steps.next() {
                Some(Step::Pause(span)) => {
                    self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(*span))));
                    continue;
                }
                Some(Step::Bytes(text)) => Poll::Ready(Some(Ok(Frame::data((*text).into())))),
                Some(Step::Blanks(count)) => {
                    Poll::Ready(Some(Ok(Frame::data(vec![b' '; *count].into()))))
                }
                Some(Step::Break) => Poll::Ready(Some(Err("connection reset".into()))),
                Some(Step::End) => Poll::Ready(None),
                None => Poll::Pending,
            };
        }
    }
}

/// Asks an endpoint whose answers have such a body; with how many token requests were made and how
/// long it took.
async fn ask(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    steps: &'static [Step],
    policy: CachePolicy,
) -> (Error, usize, Duration) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let client = service_fn(move |_: Request<Full<Bytes>>| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let body = Scripted {
            steps: steps.iter(),
            pause: None,
        };
        ready(Ok::<_, BoxError>(response.body(body).unwrap()))
    });
    let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", "secret")
        .token_client(client)
        .cache_policy(policy);
    let start = Instant::now();
    let error = layer
        .build()
        .unwrap()
        .token_cache()
        .token()
        .await
        .unwrap_err();
    (error, asked.load(Ordering::SeqCst), start.elapsed())
}

const TWENTY: &[(&str, &str)] = &[("retry-after", "20")];

// FA2, K22, P32
#[tokio::test(start_paused = true)]
async fn a_refusal_speaks_by_its_status_and_retry_after_whatever_becomes_of_its_body() {
    let bodies: [&[Step]; 6] = [
        &[Step::Break],
        &[Step::Bytes("{\"error\":\"inva"), Step::Break],
        &[Step::Bytes("error=inva"), Step::Break],
        &[Step::Blanks(2 << 20), Step::End],
        &[],
        &[
            Step::Bytes("{\"error\":"),
            Step::Pause(1000),
            Step::Bytes("\"inva"),
        ],
    ];
    for steps in bodies {
        for status in [429, 503, 401, 400] {
            let (error, requests, took) = ask(status, TWENTY, steps, CachePolicy::new()).await;
            assert_eq!(requests, 1, "{steps:?}: {error}");
            assert!(took <= Duration::from_millis(2100), "{took:?}");
            assert_eq!(error.status().unwrap().as_u16(), status);
            assert_eq!(error.is_rejected(), status < 429, "{error}");
            assert_eq!(error.server_retry_after(), Some(secs(20)), "{error}");
            assert_eq!(error.oauth_code(), None, "{steps:?}");
            assert!(!error.is_timeout());
        }
    }
}

// FA2
#[tokio::test(start_paused = true)]
async fn a_code_in_the_body_of_a_refusal_is_heeded_when_it_comes_within_two_seconds() {
    let bodies: [&[Step]; 5] = [
        &[
            Step::Pause(400),
            Step::Bytes("{\"error\":\"invalid_scope\"}"),
            Step::End,
        ],
        &[
            Step::Pause(900),
            Step::Bytes("{\"error\":"),
            Step::Pause(900),
            Step::Bytes("\"invalid_scope\"}"),
            Step::End,
        ],
        // It came, although the connection stalls or breaks after it.
        &[Step::Bytes("{\"error\":\"invalid_scope\"}")],
        &[Step::Bytes("{\"error\":\"invalid_scope\"}"), Step::Break],
        &[
            Step::Pause(400),
            Step::Bytes("error=invalid_scope"),
            Step::End,
        ],
    ];
    for steps in bodies {
        let (error, requests, _) = ask(403, &[], steps, CachePolicy::new()).await;
        assert_eq!(
            (error.oauth_code(), requests),
            (Some("invalid_scope"), 1),
            "{steps:?}"
        );
    }
    let too_late: &[Step] = &[
        Step::Pause(2100),
        Step::Bytes("{\"error\":\"invalid_scope\"}"),
        Step::End,
    ];
    let (error, _, took) = ask(403, &[], too_late, CachePolicy::new()).await;
    assert_eq!((error.oauth_code(), error.is_rejected()), (None, true));
    assert!(took < Duration::from_millis(2100), "{took:?}");
}

// FA2
#[tokio::test(start_paused = true)]
async fn a_short_attempt_ends_with_what_the_head_says_too() {
    // The code comes after a second where there is time for it.
    let steps: &[Step] = &[
        Step::Pause(1000),
        Step::Bytes("{\"error\":\"slow_down\"}"),
        Step::End,
    ];
    for limit in [1200, 1500, 2500, 3000].map(Duration::from_millis) {
        let policy = CachePolicy::new().attempt_timeout(limit);
        let (error, _, _) = ask(429, TWENTY, steps, policy).await;
        assert_eq!(error.oauth_code(), Some("slow_down"), "{limit:?}");
    }
    for limit in [10, 200, 1000, 2000, 3000].map(Duration::from_millis) {
        let policy = CachePolicy::new().attempt_timeout(limit);
        let (error, requests, took) = ask(429, TWENTY, &[], policy).await;
        assert_eq!(
            (error.server_retry_after(), requests),
            (Some(secs(20)), 1),
            "{limit:?}"
        );
        assert!(!error.is_timeout() && took < limit, "{took:?}");
    }
}

// R9
#[tokio::test(start_paused = true)]
async fn what_broke_an_answer_off_is_told_of_a_success_and_not_of_a_refusal() {
    let torn: &[Step] = &[Step::Bytes("{\"access_token\":\"t"), Step::Break];
    for (status, told) in [(200, true), (403, false)] {
        let (error, _, _) = ask(status, &[], torn, CachePolicy::new()).await;
        let text = error.to_string();
        assert_eq!(text.contains("connection reset"), told, "{text}");
    }
}

// R9
#[tokio::test(start_paused = true)]
async fn a_success_whose_body_stalls_is_a_timeout_that_says_so() {
    for steps in [&[] as &[Step], &[Step::Bytes("{\"access_token\":\"t")]] {
        let (error, requests, _) = ask(200, &[], steps, CachePolicy::new()).await;
        let text = error.to_string();
        assert!(
            error.is_timeout() && text.contains("began to answer"),
            "{text}"
        );
        assert_eq!(requests, 3);
    }
}

// R4
#[tokio::test(start_paused = true)]
async fn an_answer_of_the_largest_size_is_read_and_one_byte_more_is_too_much() {
    const TOKEN: &str = r#"{"access_token":"t"}"#;
    const LARGEST: usize = 1 << 20;
    for (blanks, read) in [
        (LARGEST - TOKEN.len(), true),
        (LARGEST - TOKEN.len() + 1, false),
    ] {
        let body = " ".repeat(blanks) + TOKEN;
        let endpoint = Endpoint::new().always(raw(200, &[], &body));
        let told = layer(&endpoint).token_cache().token().await;
        assert_eq!(told.is_ok(), read, "{:?}", told.err());
    }
}

// FA2
#[tokio::test(start_paused = true)]
async fn the_body_of_a_success_has_the_whole_attempt_and_its_breaking_off_is_tried_again() {
    let slow: &[Step] = &[
        Step::Pause(5000),
        Step::Bytes("{\"error\":\"x\"}"),
        Step::End,
    ];
    let (error, _, _) = ask(200, &[], slow, CachePolicy::new()).await;
    assert_eq!(error.oauth_code(), Some("x"));
    let broken: &[Step] = &[Step::Bytes("{\"access_token\":\"t\"}"), Step::Break];
    let (error, requests, _) = ask(200, TWENTY, broken, CachePolicy::new()).await;
    assert!(error.is_transient(), "{error}");
    assert_eq!((requests, error.server_retry_after()), (3, None));
    // Statuses that have no body, or none that matters.
    for status in [204, 205, 304, 302] {
        let (error, requests, took) = ask(status, &[], &[], CachePolicy::new()).await;
        assert!(error.is_invalid_response(), "{error}");
        assert_eq!((requests, took), (1, Duration::ZERO), "{status}");
    }
}

/// A refusal whose body comes later, from a thread of its own, to a caller that has no timers.
#[test]
fn without_timers_a_refusal_is_waited_for_and_nothing_panics() {
    struct Late(std::sync::mpsc::Sender<std::task::Waker>, Arc<AtomicUsize>);

    impl http_body::Body for Late {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            match self.1.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => {
                    self.0.send(cx.waker().clone()).unwrap();
                    Poll::Pending
                }
                2 => Poll::Ready(Some(Ok(Frame::data("{\"error\":\"x\"}".into())))),
                _ => Poll::Ready(None),
            }
        }
    }

    fn source() -> impl TokenSource {
        let (wakers, waiting) = std::sync::mpsc::channel::<std::task::Waker>();
        std::thread::spawn(move || {
            for waker in waiting {
                waker.wake();
            }
        });
        let polls = Arc::new(AtomicUsize::new(0));
        let client = service_fn(move |_: Request<Full<Bytes>>| {
            let body = Late(wakers.clone(), Arc::clone(&polls));
            let response = Response::builder().status(401).body(body).unwrap();
            ready(Ok::<_, BoxError>(response))
        });
        let builder = OAuthLayer::client_credentials(TOKEN_URL, "id", "secret");
        source_of(builder.token_client(client))
    }

    let params = TokenParams::new();
    let request = || TokenRequest::new(&params);
    let by_hand = futures::executor::block_on(source().token(request()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let untimed = runtime.block_on(source().token(request()));
    for error in [by_hand, untimed] {
        assert_eq!(error.unwrap_err().oauth_code(), Some("x"));
    }
}

// K19
#[tokio::test(start_paused = true)]
async fn an_absurd_retry_after_is_capped_and_garbage_is_ignored() {
    for (value, longest) in [("99999999", 301), ("soon", 2)] {
        let endpoint = Endpoint::new().always(raw(503, &[("retry-after", value)], ""));
        let layer = builder(&endpoint)
            .cache_policy(one_attempt())
            .build()
            .unwrap();
        let told = layer.token_cache().token().await.unwrap_err();
        assert!(
            told.retry_after().unwrap() <= secs(longest),
            "no promise that is not kept: {told}"
        );
        let wait = layer
            .token_cache()
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
        .cache_policy(one_attempt())
        .build()
        .unwrap();
    let tokens = layer.token_cache();
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
    let tokens = layer.token_cache();
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
    layer.token_cache().token().await.unwrap();
    file.write("new");
    layer.token_cache().invalidate();
    layer.token_cache().token().await.unwrap();
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
    let tokens = with_secret(&endpoint, provider).token_cache();
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

// R9
#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_is_laid_to_its_source_and_counts_as_no_token_request() {
    let hangs = Secret::provider(std::future::pending::<Result<String, Error>>);
    let fails = Secret::provider(|| ready(Err::<String, _>(Error::transient("sealed"))));
    for (secret, said) in [
        (hangs, "the client secret could not be read within"),
        (fails, "the secret provider failed"),
        (Secret::file("/no/such/file"), "/no/such/file"),
    ] {
        let endpoint = Endpoint::new();
        let tokens = with_secret(&endpoint, secret).token_cache();
        let error = tokens.token().await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_transient() && text.contains(said), "{text}");
        assert!(
            !text.contains("firewall") && !text.contains("is up"),
            "{text}"
        );
        assert_eq!(
            (error.attempts(), tokens.status().token_requests),
            (0, 0),
            "{text}"
        );
        assert_eq!(endpoint.requests(), 0);
    }
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
    let tokens = with_secret(&endpoint, provider).token_cache();
    tokens.token().await.unwrap_err();
    for tenth in 0..40 {
        for n in 0..5 {
            let kind = tokens.with_params(other(&format!("s{n}")));
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
        .cache_policy(one_attempt())
        .build()
        .unwrap();
    let calls: JoinSet<_> = (0..10_000)
        .map(|n| {
            let tokens = layer.token_cache().with_params(other(&format!("s{n}")));
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
        .token_cache()
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
            let tokens = layer.token_cache().with_params(other(&format!("s{n}")));
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
    let policy = CachePolicy::new()
        .max_flights(1)
        .attempts(1)
        .attempt_timeout(secs(60));
    let tokens = builder(&endpoint)
        .cache_policy(policy)
        .build()
        .unwrap()
        .token_cache();
    let mut calls = JoinSet::new();
    for n in 0..3 {
        let kind = tokens.with_params(other(&format!("s{n}")));
        calls.spawn(async move { kind.token().await });
        settle().await;
    }
    let start = Instant::now();
    for _ in 0..2 {
        let error = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(
            error.is_timeout() && error.to_string().contains("fewer kinds"),
            "{error}"
        );
        assert_eq!((error.retry_after(), start.elapsed()), (None, secs(30)));
    }
    // At this very moment, when a first backoff would not be over yet.
    assert_eq!(endpoint.requests(), 1);
    let queued = tokens.with_params(other("s1")).status();
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
    let tokens = layer(&endpoint).token_cache();
    let bad = tokens.with_params(other("bad"));
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
    let tokens = layer(&endpoint).token_cache();
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
    let tokens = layer(&endpoint).token_cache();
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
    let policy = CachePolicy::new().attempts(1);
    let tokens = builder(&endpoint)
        .cache_policy(policy)
        .build()
        .unwrap()
        .token_cache();
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
