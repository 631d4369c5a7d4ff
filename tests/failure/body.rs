//! Answers whose body stalls, breaks off or is too large.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::Full;
use tokio::time::Instant;
use tower::{BoxError, service_fn};
use tower_oauth::{CachePolicy, Error, OAuthLayer, TokenParams, TokenRequest, TokenSource};

use crate::support::*;

/// A step of a body, which stalls after its last one unless that ends it.
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

/// Asks an endpoint that answers with such a body. Returns the error, the number of token requests
/// and the time taken.
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
async fn an_error_answer_speaks_by_its_status_and_retry_after_whatever_becomes_of_its_body() {
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
async fn a_code_in_the_body_of_an_error_answer_is_heeded_when_it_comes_within_two_seconds() {
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
        // The code came, although the connection stalls or breaks after it.
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
async fn what_broke_an_answer_off_is_told_of_a_success_and_not_of_an_error_answer() {
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
    // Statuses without a body, or with one that does not matter.
    for status in [204, 205, 304, 302] {
        let (error, requests, took) = ask(status, &[], &[], CachePolicy::new()).await;
        assert!(error.is_invalid_response(), "{error}");
        assert_eq!((requests, took), (1, Duration::ZERO), "{status}");
    }
}

/// The body of the answer comes later, from a thread of its own.
#[test]
fn without_timers_an_error_answer_is_waited_for_and_nothing_panics() {
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
