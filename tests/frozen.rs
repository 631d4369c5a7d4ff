//! Processes that are stopped and runtimes that nobody drives, with an endpoint that is well: no
//! call fails, and no two token requests of one kind are under way at once.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, thread};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use support::*;
use tokio::runtime::{self, Runtime};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_oauth::{
    CachePolicy, ManualClock, OAuthLayer, TokenCache, TokenFuture, TokenParams, TokenRequest,
    TokenResponse, TokenSource,
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the endpoint does with the token request of a process that it then stops.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// The answer arrives while the process stands still.
    Answers,
    Closes,
    /// The answer never comes.
    Forgets,
}

/// A process that makes one call, and is stopped for so long while its first token request is
/// under way. Returns what it printed, and how many token requests there were.
fn freeze(meanwhile: Meanwhile, span: Duration) -> (String, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/token", listener.local_addr().expect("bound"));
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args([
            "--exact",
            "the_process_that_is_frozen",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD_URL, url)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let requests = Arc::new(AtomicUsize::new(0));

    let (mut first, _) = listener.accept().expect("the first token request");
    read_request(&mut first);
    requests.fetch_add(1, Ordering::SeqCst);
    signal(&child, "STOP");
    let held = match meanwhile {
        Meanwhile::Answers => {
            answer(&mut first);
            None
        }
        Meanwhile::Closes => {
            first.shutdown(Shutdown::Both).expect("closed");
            None
        }
        Meanwhile::Forgets => Some(first),
    };
    thread::sleep(span);
    let count = Arc::clone(&requests);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            read_request(&mut connection);
            count.fetch_add(1, Ordering::SeqCst);
            answer(&mut connection);
        }
    });
    signal(&child, "CONT");
    let mut printed = String::new();
    let out = child.stdout.take().expect("piped");
    BufReader::new(out)
        .read_to_string(&mut printed)
        .expect("text");
    child.wait().expect("ended");
    drop(held);
    let line = printed.lines().find(|line| line.contains(RESULT));
    let line = line.unwrap_or_else(|| panic!("no result in {printed}"));
    (line.to_owned(), requests.load(Ordering::SeqCst))
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status();
    assert!(status.expect("kill").success());
}

fn read_request(connection: &mut TcpStream) {
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().expect("a number");
        }
        if line.is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).expect("a body");
}

fn answer(connection: &mut TcpStream) {
    let body = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    // The connection may be gone: what it was for has been given up.
    let _ = write!(
        connection,
        "{head}content-length: {}\r\n\r\n{body}",
        body.len()
    );
}

const CHILD_URL: &str = "TOWER_OAUTH_TEST_TOKEN_URL";
const RESULT: &str = "the call:";

#[test]
#[ignore = "the process that other tests start and stop"]
fn the_process_that_is_frozen() {
    let Ok(url) = env::var(CHILD_URL) else {
        return;
    };
    let result = two_threads().block_on(async {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http::<Full<Bytes>>();
        // Short, so that a stop of a few seconds outlasts them.
        let policy = CachePolicy::new().attempts(2).attempt_timeout(secs(1));
        let layer = OAuthLayer::client_credentials(url, "id", "secret")
            .token_client(client)
            .cache_policy(policy)
            .build()
            .expect("a layer");
        let call = layer.layer(Api::ok()).oneshot(get(API)).await;
        call.map(|answer| answer.status())
    });
    println!("{RESULT} {result:?}");
}

// FC1
#[test]
fn a_process_that_is_stopped_in_the_middle_of_a_flight_serves_its_call_when_it_goes_on() {
    let days = [
        (Meanwhile::Answers, 1),
        (Meanwhile::Closes, 2),
        (Meanwhile::Forgets, 2),
    ];
    let runs = days.map(|(meanwhile, requests)| {
        thread::spawn(move || (meanwhile, requests, freeze(meanwhile, secs(4))))
    });
    for run in runs {
        let (meanwhile, wanted, (result, requests)) = run.join().expect("it ran");
        assert!(result.ends_with("Ok(200)"), "{meanwhile:?}: {result}");
        assert_eq!(requests, wanted, "{meanwhile:?}");
    }
}

/// A layer on a runtime whose time stands still but for what a test lets pass.
fn half_driven(endpoint: &Endpoint) -> (Runtime, ManualClock, OAuthLayer) {
    let runtime = paused();
    let (clock, layer) = runtime.block_on(async {
        let clock = ManualClock::new();
        let layer = builder(endpoint)
            .clock(clock.clone())
            .build()
            .expect("a layer");
        (clock, layer)
    });
    (runtime, clock, layer)
}

/// Makes calls with these pauses between them, in each of which the process or the runtime stands
/// still, on a runtime that is driven by one `block_on` for each call.
fn call_now_and_then(pauses: &[u64], stop: impl Fn(&Runtime, &ManualClock, Duration)) -> usize {
    let endpoint = Endpoint::new()
        .always(Answer::Token(10))
        .latency(millis(20));
    let (runtime, clock, layer) = half_driven(&endpoint);
    let service = layer.layer(Api::ok());
    for (n, pause) in pauses.iter().enumerate() {
        let call = runtime.block_on(service.clone().oneshot(get(API)));
        let status = runtime.block_on(async { layer.token_cache().status() });
        assert!(
            call.is_ok(),
            "call {n} of {pauses:?}: {}",
            ours(call.unwrap_err())
        );
        assert!(
            status.last_error.is_none(),
            "call {n} of {pauses:?}: {status:?}"
        );
        stop(&runtime, &clock, millis(*pause));
    }
    assert_eq!(endpoint.most_at_once(), 1, "{pauses:?}");
    endpoint.requests()
}

// FC1
#[test]
fn calls_with_a_block_on_for_each_find_a_token_however_long_they_are_apart() {
    let suspended = |_: &Runtime, clock: &ManualClock, span| clock.advance(span);
    let idle = |runtime: &Runtime, _: &ManualClock, span| runtime.block_on(advance(span));
    let mut draws = fastrand::Rng::with_seed(1);
    let mut histories = vec![
        vec![8_500, 33_000, 100, 8_500, 33_000, 1],
        vec![9_200; 12],
        vec![8_100, 30_000, 8_100, 29_900, 8_100, 30_600, 8_100, 31_001],
        vec![8_500, 31_500, 8_500, 32_000, 8_500, 33_500],
        vec![40_000; 6],
    ];
    histories.extend((0..100).map(|_| {
        let pause = |draws: &mut fastrand::Rng| match draws.u8(0..3) {
            0 => draws.u64(7_500..10_500),
            1 => draws.u64(0..45_000),
            _ => draws.u64(29_000..34_000),
        };
        (0..20).map(|_| pause(&mut draws)).collect()
    }));
    for pauses in &histories {
        for requests in [
            call_now_and_then(pauses, suspended),
            call_now_and_then(pauses, idle),
        ] {
            // A call finds a token, renews one or starts over a renewal that was never driven.
            assert!(requests <= 2 * pauses.len(), "{requests} for {pauses:?}");
        }
    }
}

// FC1
#[test]
fn renewals_that_nobody_waits_for_and_nobody_drives_are_no_failures() {
    let endpoint = Endpoint::new().latency(millis(20));
    let (runtime, clock, layer) = half_driven(&endpoint);
    let service = layer.layer(Api::ok());
    let call = || {
        runtime
            .block_on(service.clone().oneshot(get(API)))
            .expect("served")
    };
    call();
    clock.advance(secs(3335));
    // In the renewal window: each call meets the renewal that the one before has left behind, gives
    // it up and leaves another.
    for _ in 0..5 {
        call();
        clock.advance(secs(40));
        let status = runtime.block_on(async { layer.token_cache().status() });
        assert!(status.last_error.is_none(), "{status:?}");
    }
    clock.advance(secs(3600));
    call();
    assert_eq!(endpoint.most_at_once(), 1);
}

// FC1, R6
#[test]
fn a_flight_has_its_whole_time_from_when_it_is_first_polled() {
    let endpoint = Endpoint::new().always(Answer::Token(10));
    let (runtime, clock, layer) = half_driven(&endpoint);
    let service = layer.layer(Api::ok());
    let call = || {
        runtime
            .block_on(service.clone().oneshot(get(API)))
            .expect("served")
    };
    call();
    clock.advance(millis(8500));
    // Leaves a renewal behind that has not been polled yet.
    call();
    assert_eq!(endpoint.requests(), 1);
    clock.advance(secs(29));
    endpoint.set_latency(secs(5));
    call();
    assert_eq!(endpoint.requests(), 2);
}

// FC1, R9
#[tokio::test(start_paused = true)]
async fn a_process_that_stands_still_between_two_attempts_fails_no_call() {
    for seed in 0..5 {
        fastrand::seed(seed);
        let endpoint = Endpoint::new().then([Answer::Refused]);
        let tokens = layer(&endpoint).token_cache();
        let mut call = tokio_test::task::spawn(tokens.token());
        assert!(call.poll().is_pending());
        settle().await;
        assert_eq!(endpoint.requests(), 1);
        advance(secs(40)).await;
        settle().await;
        let call = timeout(secs(1), call).await.expect("flown anew");
        assert!(call.is_ok(), "{}", call.unwrap_err());
        assert_eq!(endpoint.requests(), 2);
    }
}

// FC1
#[tokio::test(start_paused = true)]
async fn only_the_second_flight_in_a_row_that_was_not_driven_is_a_failure() {
    let endpoint = Endpoint::new().always(Answer::Hang);
    let tokens = layer(&endpoint).token_cache();
    let mut call = tokio_test::task::spawn(tokens.token());
    assert!(call.poll().is_pending());
    settle().await;
    assert_eq!(endpoint.requests(), 1);
    // The process stands still for so long.
    advance(secs(40)).await;
    sleep(secs(1)).await;
    assert!(call.poll().is_pending(), "lost, and flown anew");
    settle().await;
    assert_eq!((endpoint.requests(), endpoint.most_at_once()), (2, 1));
    assert!(tokens.status().last_error.is_none());

    advance(secs(40)).await;
    sleep(secs(1)).await;
    let error = match call.poll() {
        std::task::Poll::Ready(told) => told.expect_err("no storm"),
        std::task::Poll::Pending => panic!("it would fly for ever"),
    };
    assert!(
        error.is_transient() && error.retry_after().is_some(),
        "{error}"
    );
    assert_eq!(endpoint.requests(), 2);
    tokens.token().await.expect_err("a backoff");
    assert_eq!(endpoint.requests(), 2);
}

// FC1, FC2
#[tokio::test(start_paused = true)]
async fn a_process_that_stands_still_while_flights_queue_fails_none_of_them() {
    for still in [5, 15, 19, 21, 25, 29, 32, 60].map(secs) {
        let endpoint = Endpoint::new().latency(millis(300));
        let policy = CachePolicy::new().max_flights(1);
        let tokens = builder(&endpoint)
            .cache_policy(policy)
            .build()
            .expect("a layer")
            .token_cache();
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..3 {
            let kind = kind(&tokens, n);
            calls.spawn(async move { kind.token().await });
            settle().await;
        }
        advance(still).await;
        for call in calls.join_all().await {
            assert!(call.is_ok(), "{still:?}: {}", call.unwrap_err());
        }
        assert_eq!(endpoint.most_at_once(), 1, "{still:?}");
    }
}

// FC1
#[tokio::test(start_paused = true)]
async fn a_process_that_stands_still_when_an_attempts_time_ends_fails_no_call() {
    for policy in [
        one_attempt(),
        CachePolicy::new().attempts(1).attempt_timeout(secs(10)),
        CachePolicy::new(),
    ] {
        for still in [2_000, 9_990, 10_010, 10_500, 10_990, 11_500].map(millis) {
            let endpoint = Endpoint::new().then([Answer::Hang]);
            let tokens = builder(&endpoint)
                .cache_policy(policy.clone())
                .build()
                .expect("a layer")
                .token_cache();
            let mut call = tokio_test::task::spawn(tokens.token());
            assert!(call.poll().is_pending());
            settle().await;
            advance(still).await;
            let call = timeout(secs(15), call).await.expect("flown anew");
            assert!(call.is_ok(), "{still:?}: {}", call.unwrap_err());
            assert_eq!(endpoint.requests(), 2);
        }
    }
}

// FC1, FC2
#[tokio::test(start_paused = true)]
async fn a_process_that_stands_still_takes_no_patience_from_those_who_queue() {
    for still in [10, 18, 19, 25].map(secs) {
        let endpoint = Endpoint::new().latency(secs(1));
        let tokens = layer(&endpoint).token_cache();
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..200 {
            let kind = kind(&tokens, n);
            calls.spawn(async move { kind.token().await });
        }
        sleep(millis(510)).await;
        advance(still).await;
        for call in calls.join_all().await {
            assert!(call.is_ok(), "{still:?}: {}", call.unwrap_err());
        }
        assert!(endpoint.most_at_once() <= 64, "{still:?}");
    }
}

/// One turn for all kinds, and long attempts.
fn one_at_a_time(endpoint: &Endpoint, attempt_timeout: Duration) -> TokenCache {
    let policy = CachePolicy::new()
        .max_flights(1)
        .attempt_timeout(attempt_timeout);
    let layer = builder(endpoint).cache_policy(policy).build();
    layer.expect("a layer").token_cache()
}

// FC2
#[tokio::test(start_paused = true)]
async fn whoever_queues_and_stood_still_judges_nobody_by_that_time() {
    let endpoint = Endpoint::new().latency(secs(12));
    let tokens = one_at_a_time(&endpoint, secs(25));
    let call = |n| {
        let tokens = kind(&tokens, n);
        tokio::spawn(async move { tokens.token().await })
    };
    let first = call(0);
    settle().await;
    sleep(millis(100)).await;
    let second = call(1);
    settle().await;
    // Between the regular polls of the two, so that the one in the queue is the next to be polled.
    sleep(millis(450)).await;
    advance(secs(3)).await;
    for call in [first, second] {
        call.await.expect("no panic").expect("in its turn");
    }
    assert_eq!((endpoint.requests(), endpoint.most_at_once()), (2, 1));
}

// FC1
#[tokio::test(start_paused = true)]
async fn a_flight_that_stood_still_in_the_queue_is_flown_anew_when_its_time_there_is_over() {
    let endpoint = Endpoint::new().latency(secs(16));
    let tokens = one_at_a_time(&endpoint, secs(28));
    let calls = [0, 1].map(|n| {
        let tokens = kind(&tokens, n);
        tokio::spawn(async move { tokens.token().await })
    });
    settle().await;
    advance(secs(10)).await;
    // The first one holds its turn for longer than the second has time for.
    for call in calls {
        call.await.expect("no panic").expect("in its turn");
    }
    assert_eq!((endpoint.requests(), endpoint.most_at_once()), (2, 1));
}

// FC1
#[tokio::test(start_paused = true)]
async fn a_refusal_between_two_flights_that_were_not_driven_makes_them_none_in_a_row() {
    // Of the kind, and of the client.
    for code in ["invalid_scope", "invalid_client"] {
        let refused = Answer::Error(400, code);
        let endpoint = Endpoint::new().then([Answer::Hang, refused, Answer::Hang]);
        let tokens = layer(&endpoint).token_cache();
        for served in [false, true] {
            let mut call = tokio_test::task::spawn(tokens.token());
            assert!(call.poll().is_pending());
            settle().await;
            advance(secs(40)).await;
            let told = call.await;
            assert_eq!(told.is_ok(), served, "{code}: {told:?}");
            sleep(secs(60)).await;
        }
        assert_eq!(endpoint.requests(), 4);
    }
}

// FC1, FC2
#[test]
fn a_flight_after_one_that_nobody_drives_has_time_however_short_its_limit_is() {
    let endpoint = Endpoint::new().latency(millis(100));
    let clock = ManualClock::new();
    let tokens = builder(&endpoint)
        .clock(clock.clone())
        .cache_policy(CachePolicy::new().attempts(1).attempt_timeout(millis(200)))
        .build()
        .expect("a layer")
        .token_cache();
    let frozen = current_thread();
    let told = paused().block_on(async {
        {
            let _entered = frozen.enter();
            assert!(tokio_test::task::spawn(tokens.token()).poll().is_pending());
        }
        clock.advance(secs(1));
        tokens.token().await
    });
    told.expect("flown anew");
    assert_eq!(endpoint.requests(), 1);
}

// FC1
#[tokio::test(start_paused = true)]
async fn a_caller_that_stood_still_too_leaves_the_flight_a_moment_for_its_answer() {
    let endpoint = Endpoint::new().latency(millis(40_100));
    let tokens = layer(&endpoint).token_cache();
    let mut call = tokio_test::task::spawn(tokens.token());
    assert!(call.poll().is_pending());
    settle().await;
    advance(secs(40)).await;
    // Before the flight is polled again.
    assert!(call.poll().is_pending());
    let told = timeout(secs(1), call).await.expect("the answer of then");
    assert!(told.is_ok(), "{}", told.unwrap_err());
    assert_eq!(endpoint.requests(), 1);
}

// K29
#[test]
fn a_renewal_ahead_of_time_whose_runtime_is_no_longer_driven_is_taken_over_by_the_next_call() {
    let endpoint = Endpoint::new();
    let (frozen, clock, layer) = half_driven(&endpoint);
    let tokens = layer.token_cache();
    let generation = async || tokens.token().await.expect("served").generation();
    assert_eq!(frozen.block_on(generation()), 1);
    clock.advance(secs(3400));
    // Launches the renewal, and is over before it has its first turn.
    assert_eq!(frozen.block_on(generation()), 1);
    assert!(tokens.status().fetching);

    clock.advance(secs(180));
    paused().block_on(async {
        assert_eq!(generation().await, 2);
    });
    assert_eq!(endpoint.requests(), 2);
}

// K29
#[test]
fn a_renewal_that_is_no_longer_driven_is_started_anew_within_the_renewal_window() {
    let endpoint = Endpoint::new();
    let (frozen, clock, layer) = half_driven(&endpoint);
    let service = layer.layer(Api::ok());
    let call = async || service.clone().oneshot(get(API)).await.expect("served");
    frozen.block_on(call());
    clock.advance(secs(3350));
    frozen.block_on(call());
    assert!(layer.token_cache().status().fetching);
    // The token may be used for three minutes yet before anybody would wait for its renewal.
    clock.advance(secs(40));
    paused().block_on(async {
        call().await;
        sleep(secs(1)).await;
        call().await;
    });
    assert_eq!(endpoint.requests(), 2);
    assert_eq!(layer.token_cache().status().generation, Some(2));
}

// FC1, R11
#[test]
fn a_renewal_that_nobody_drives_is_flown_anew_by_the_next_call_after_its_limit() {
    let endpoint = Endpoint::new();
    let (driven, clock, layer) = half_driven(&endpoint);
    let tokens = layer.token_cache();
    let frozen = current_thread();
    driven.block_on(async {
        tokens.token().await.expect("the first one");
        clock.advance(secs(3600 - 200));
        {
            let _entered = frozen.enter();
            assert!(tokio_test::task::spawn(tokens.token()).poll().is_ready());
        }
        assert!(tokens.status().fetching);
        clock.advance(secs(30));
        tokens.token().await.expect("the live one");
        settle().await;
        assert_eq!(endpoint.requests(), 1, "not overdue yet");
        clock.advance(secs(2));
        tokens.token().await.expect("the live one");
        // The one before it is given a moment to end.
        sleep(secs(1)).await;
        assert_eq!(endpoint.requests(), 2);
        assert_eq!(tokens.token().await.expect("renewed").generation(), 2);
    });
}

/// Answers its calls in turn; the second one blocks its thread until it is let go.
#[derive(Default)]
struct Blocking {
    calls: AtomicUsize,
    blocked: AtomicBool,
    go: AtomicBool,
}

impl TokenSource for Blocking {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(async {
            match self.calls.fetch_add(1, Ordering::SeqCst) + 1 {
                2 => {
                    self.blocked.store(true, Ordering::SeqCst);
                    wait_for(&self.go);
                    TokenResponse::new("t2")
                }
                3 => Err(tower_oauth::Error::rejected("access_denied", "no more")),
                n => TokenResponse::new(format!("t{n}")),
            }
        })
    }
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        thread::sleep(millis(1));
    }
}

// R12
#[test]
fn a_token_that_comes_although_its_flight_was_given_up_wins_over_the_failure_of_the_next() {
    let source = Arc::new(Blocking::default());
    let (clock, layer) = with_clock(Arc::clone(&source));
    let tokens = layer.token_cache();
    let api = Api::new(|authorization| match authorization {
        "Bearer t1" => unauthorized(INVALID_TOKEN),
        _ => http::Response::new(String::new()),
    });
    let service = layer.replay_unauthorized().layer(api.clone());
    current_thread()
        .block_on(tokens.token())
        .expect("the first one");
    let replayed = {
        let service = service.clone();
        thread::spawn(move || {
            let call = service.oneshot(get(API));
            two_threads().block_on(call).expect("an answer")
        })
    };
    wait_for(&source.blocked);
    clock.advance(secs(31));
    current_thread().block_on(async {
        // Gives the renewal up, and flies another, which waits a moment for the first to end.
        let mut call = tokio_test::task::spawn(service.oneshot(get(API)));
        while source.calls.load(Ordering::SeqCst) < 3 {
            let _ = call.poll();
            source.go.store(true, Ordering::SeqCst);
            sleep(millis(1)).await;
        }
        assert_eq!(call.await.expect("an answer").status(), 200);
    });
    assert_eq!(replayed.join().expect("no panic").status(), 200);
    assert_eq!(tokens.status().generation, Some(2));
    assert!(
        !api.seen().contains(&"Bearer t4".to_owned()),
        "{:?}",
        api.seen()
    );
}

/// Answers after a moment, and counts.
#[derive(Clone, Default)]
struct Healthy(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    requests: usize,
    under_way: Vec<TokenParams>,
}

impl Healthy {
    fn requests(&self) -> usize {
        self.0.lock().unwrap().requests
    }
}

impl TokenSource for Healthy {
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
        let request = request.params();
        Box::pin(async move {
            {
                let mut counts = self.0.lock().unwrap();
                counts.requests += 1;
                assert!(!counts.under_way.contains(request), "two of one kind");
                counts.under_way.push(request.clone());
            }
            sleep(millis(200)).await;
            self.0
                .lock()
                .unwrap()
                .under_way
                .retain(|known| known != request);
            Ok(TokenResponse::new("t")?.with_expires_in(secs(3600)))
        })
    }
}

/// Leaves so many flights on a runtime that is not driven from here on.
fn leave(runtime: &Runtime, tokens: &TokenCache, kinds: usize) {
    runtime.block_on(async {
        for n in 0..kinds {
            let tokens = kind(tokens, n);
            tokio::spawn(async move { tokens.token().await });
        }
        for _ in 0..8 {
            yield_now().await;
        }
    });
}

// FC2
#[test]
fn a_runtime_that_nobody_drives_keeps_no_turn_from_another_one() {
    for (max_flights, kinds) in [(1, 1), (1, 3), (64, 65), (64, 200)] {
        let source = Healthy::default();
        let layer = OAuthLayer::builder(source.clone())
            .cache_policy(CachePolicy::new().max_flights(max_flights))
            .build()
            .expect("a layer");
        let tokens = layer.token_cache();
        let frozen = current_thread();
        leave(&frozen, &tokens, kinds);
        assert_eq!(source.requests(), max_flights.min(kinds));
        let start = std::time::Instant::now();
        current_thread().block_on(async {
            // The layer's own kind has a turn of its own.
            assert!(
                timeout(millis(1500), tokens.token())
                    .await
                    .expect("at once")
                    .is_ok()
            );
            for n in 1000..1003 {
                let token = kind(&tokens, n).token().await;
                assert!(token.is_ok(), "{kinds} kinds: {}", token.unwrap_err());
            }
        });
        assert!(start.elapsed() < secs(5), "{:?}", start.elapsed());
        // Driven again, each of the flights that were left ends as if nothing had been.
        let calls = frozen.block_on(async {
            let calls = (0..kinds).map(|n| kind(&tokens, n));
            let calls: tokio::task::JoinSet<_> = calls
                .map(|tokens| async move { tokens.token().await.is_ok() })
                .collect();
            calls.join_all().await
        });
        assert!(calls.into_iter().all(|served| served));
        assert_eq!(source.requests(), 1 + 3 + kinds);
    }
}

// FC1, R5
#[test]
fn a_flight_that_is_given_up_drops_its_token_request_before_the_next_one_makes_its_own() {
    /// Under way until it is dropped, which takes a while.
    struct UnderWay<'a>(&'a Slow);
    impl Drop for UnderWay<'_> {
        fn drop(&mut self) {
            thread::sleep(millis(50));
            self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        }
    }
    #[derive(Default)]
    struct Slow {
        requests: AtomicUsize,
        under_way: AtomicUsize,
        most: AtomicUsize,
    }
    impl TokenSource for Slow {
        fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
            Box::pin(async {
                let first = self.requests.fetch_add(1, Ordering::SeqCst) == 0;
                let others = self.under_way.fetch_add(1, Ordering::SeqCst);
                self.most.fetch_max(others + 1, Ordering::SeqCst);
                let _under_way = UnderWay(self);
                if first {
                    std::future::pending::<()>().await;
                }
                TokenResponse::new("t")
            })
        }
    }
    let source = Arc::new(Slow::default());
    let (clock, layer) = with_clock(Arc::clone(&source));
    let tokens = layer.token_cache();
    two_threads().block_on(async {
        let first = tokio::spawn({
            let tokens = tokens.clone();
            async move { tokens.token().await }
        });
        while source.requests.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
        clock.advance(secs(31));
        assert!(tokens.token().await.is_ok(), "flown anew");
        assert!(first.await.expect("no panic").is_ok());
    });
    let counts = [&source.requests, &source.most].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counts, [2, 1]);
}

// FC2
#[test]
fn a_flight_that_has_lost_its_turn_waits_for_another_before_its_next_attempt() {
    #[derive(Default)]
    struct Told {
        events: Mutex<Vec<&'static str>>,
    }
    impl Told {
        fn tell(&self, event: &'static str) -> usize {
            let mut events = self.events.lock().unwrap();
            events.push(event);
            events.iter().filter(|known| **known == event).count()
        }
    }
    impl TokenSource for Told {
        fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
            Box::pin(async move {
                if *request.params() == TokenParams::new().with_audience("0") {
                    if self.tell("the first kind") == 1 {
                        sleep(millis(20)).await;
                        return Err(tower_oauth::Error::transient("not now"));
                    }
                } else {
                    self.tell("another kind");
                    sleep(secs(1)).await;
                    self.tell("it has ended");
                }
                TokenResponse::new("t")
            })
        }
    }
    let source = Arc::new(Told::default());
    let tokens = OAuthLayer::builder(Arc::clone(&source))
        .cache_policy(CachePolicy::new().max_flights(1))
        .build()
        .expect("a layer")
        .token_cache();
    let frozen = current_thread();
    leave(&frozen, &tokens, 1);
    let other = {
        let tokens = kind(&tokens, 1);
        thread::spawn(move || current_thread().block_on(tokens.token()))
    };
    // Nobody drives the first one until the other has taken its turn.
    while source.events.lock().unwrap().len() < 2 {
        thread::sleep(millis(10));
    }
    frozen
        .block_on(kind(&tokens, 0).token())
        .expect("in its turn");
    other.join().expect("no panic").expect("undisturbed");
    let events = source.events.lock().unwrap();
    assert_eq!(
        *events,
        [
            "the first kind",
            "another kind",
            "it has ended",
            "the first kind"
        ]
    );
}

// FC3, R6
#[test]
fn a_flight_that_was_given_up_records_nothing_when_it_ends() {
    /// Hangs on its first call, for as long as its own limit, and fails then.
    struct FailsLate(AtomicUsize);
    impl TokenSource for FailsLate {
        fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
            let first = self.0.fetch_add(1, Ordering::SeqCst) == 0;
            Box::pin(async move {
                if first {
                    sleep(millis(200)).await;
                    return Err(tower_oauth::Error::rejected("invalid_client", "too late"));
                }
                Ok(TokenResponse::new("rescued")?.with_expires_in(secs(3600)))
            })
        }
    }
    let source = Arc::new(FailsLate(AtomicUsize::new(0)));
    let layer = OAuthLayer::builder(Arc::clone(&source))
        .cache_policy(CachePolicy::new().attempts(1).attempt_timeout(millis(300)))
        .build()
        .expect("a layer");
    let tokens = layer.token_cache();
    let frozen = current_thread();
    frozen.block_on(async {
        assert!(timeout(millis(5), tokens.token()).await.is_err());
    });
    let rescued = current_thread()
        .block_on(tokens.token())
        .expect("taken over");
    assert_eq!(
        (rescued.generation(), source.0.load(Ordering::SeqCst)),
        (1, 2)
    );
    frozen.block_on(async { sleep(millis(50)).await });
    current_thread().block_on(async {
        let status = tokens.status();
        assert!(
            status.last_error.is_none() && status.next_attempt_in.is_none(),
            "{status:?}"
        );
        assert_eq!((status.generation, status.fetching), (Some(1), false));
        // What would wait out a backoff, had one been recorded.
        let other = tokens.with_params(TokenParams::new().with_audience("other"));
        other.token().await.expect("no backoff for other kinds");
    });
    assert_eq!(source.0.load(Ordering::SeqCst), 3);
}

// FC3
#[tokio::test(start_paused = true)]
async fn a_flight_that_fails_after_later_ones_have_succeeded_speaks_for_nobody() {
    let endpoint = Endpoint::new().then([Answer::Hang]);
    let tokens = builder(&endpoint)
        .cache_policy(CachePolicy::new().attempts(1))
        .build()
        .expect("a layer")
        .token_cache();
    let hung = {
        let tokens = tokens.clone();
        tokio::spawn(async move { tokens.token().await })
    };
    settle().await;
    for n in 0..5 {
        kind(&tokens, n)
            .token()
            .await
            .expect("the endpoint is well");
    }
    let start = Instant::now();
    hung.await
        .expect("no panic")
        .expect_err("its limit has passed");
    assert!(start.elapsed() <= secs(10));
    let status = tokens.status();
    assert!(
        status.last_error.is_none() && status.next_attempt_in.is_none(),
        "{status:?}"
    );
    kind(&tokens, 9)
        .token()
        .await
        .expect("no backoff for other kinds");
    tokens.token().await.expect("nor for this one");
    assert_eq!(endpoint.requests(), 8);
}

// FC3
#[tokio::test(start_paused = true)]
async fn a_kind_that_goes_on_failing_while_others_succeed_backs_off_alone() {
    let endpoint = Endpoint::new();
    let tokens = builder(&endpoint)
        .cache_policy(CachePolicy::new().attempts(1))
        .build()
        .expect("a layer")
        .token_cache();
    for n in 0..2 {
        endpoint.push(Answer::Hang);
        let hung = {
            let tokens = tokens.clone();
            tokio::spawn(async move { tokens.token().await })
        };
        settle().await;
        kind(&tokens, n)
            .token()
            .await
            .expect("the endpoint is well");
        hung.await
            .expect("no panic")
            .expect_err("its limit has passed");
    }
    tokens.token().await.expect_err("twice in a row");
    assert!(tokens.status().next_attempt_in.is_some());
    kind(&tokens, 9)
        .token()
        .await
        .expect("no backoff for other kinds");
    assert_eq!(endpoint.requests(), 5);
}

// FC12
#[test]
fn on_a_runtime_without_timers_a_stale_token_is_served_and_no_flight_is_started() {
    let lines = Arc::new(Mutex::new(Vec::<u8>::new()));
    let writer = {
        let lines = Arc::clone(&lines);
        move || Lines(Arc::clone(&lines))
    };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let source = Healthy::default();
    let (clock, layer) = with_clock(source.clone());
    current_thread()
        .block_on(layer.token_cache().token())
        .expect("a token of an hour");
    clock.advance(secs(3400));

    let timerless = runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let service = layer.layer(Api::ok());
    for _ in 0..100 {
        timerless
            .block_on(service.clone().oneshot(get(API)))
            .expect("served");
        timerless
            .block_on(layer.token_cache().token())
            .expect("served");
    }
    assert!(!layer.token_cache().status().fetching);
    clock.advance(secs(190));
    timerless
        .block_on(service.clone().oneshot(get(API)))
        .expect("served to its end");
    assert_eq!(
        (source.requests(), timerless.metrics().num_alive_tasks()),
        (1, 0)
    );
    clock.advance(secs(11));
    let error = timerless
        .block_on(layer.token_cache().token())
        .expect_err("nothing to wait with");
    assert!(error.to_string().contains("enable_time"), "{error}");
    let error = timerless
        .block_on(service.clone().oneshot(get(API)))
        .expect_err("likewise");
    assert!(ours(error).to_string().contains("enable_time"));
    let told = String::from_utf8(lines.lock().unwrap().clone()).expect("text");
    assert_eq!(told.matches("has no timers").count(), 1, "{told}");
    current_thread()
        .block_on(service.oneshot(get(API)))
        .expect("with timers all is well");
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
