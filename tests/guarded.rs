//! Panics in code that is not ours: the token source, observers, subscribers, wakers.

mod support;

use std::panic::panic_any;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http::Response;
use support::*;
use tokio::task::JoinSet;
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_oauth::observe::Event;
use tower_oauth::{
    CachePolicy, ManualClock, OAuthLayer, TokenCache, TokenFuture, TokenParams, TokenRequest,
    TokenResponse, TokenSource,
};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Host,
    AttemptTimeout,
    CanChange,
    Changed,
    Token,
    Poll,
    /// The future panics when it is dropped, having answered.
    DropAfterAnswer,
    /// The future panics when it is dropped, its time being up.
    DropUnanswered,
    /// The payload of the panic panics when it is dropped.
    Payload,
}

struct Panics {
    at: At,
    requests: AtomicUsize,
}

impl Panics {
    fn when(&self, at: At) {
        if self.at == at {
            panic!("the source panics at {at:?}");
        }
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// A token request that may panic in its poll or its drop.
struct Request<'a> {
    source: &'a Panics,
}

impl Future for Request<'_> {
    type Output = Result<TokenResponse, tower_oauth::Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.source.at {
            At::Poll => panic!("the source panics when it is polled"),
            At::Payload => panic_any(PanicsWhenDropped),
            At::DropUnanswered => Poll::Pending,
            At::Changed => Poll::Ready(Err(tower_oauth::Error::transient("down"))),
            _ => Poll::Ready(TokenResponse::new("t")),
        }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if matches!(self.source.at, At::DropAfterAnswer | At::DropUnanswered) {
            panic!("the source panics when its future is dropped");
        }
    }
}

impl TokenSource for Panics {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.when(At::Token);
        Box::pin(Request { source: self })
    }

    fn host(&self, _: &TokenParams) -> Option<&str> {
        self.when(At::Host);
        Some("gw.example")
    }

    fn attempt_timeout(&self) -> Option<Duration> {
        self.when(At::AttemptTimeout);
        None
    }

    fn credentials_changed(&self) -> Option<Pin<Box<dyn Future<Output = bool> + Send + '_>>> {
        self.when(At::CanChange);
        if self.at != At::Changed {
            return None;
        }
        Some(Box::pin(async {
            self.when(At::Changed);
            true
        }))
    }
}

// FC4, K33, R5, R6
#[tokio::test(start_paused = true)]
async fn a_source_that_panics_anywhere_is_a_failure_with_a_backoff_and_never_a_lost_flight() {
    for (at, requests, serves) in [
        (At::Host, 0, false),
        (At::AttemptTimeout, 1, true),
        (At::CanChange, 1, true),
        (At::Changed, 3, false),
        (At::Token, 1, false),
        (At::Poll, 1, false),
        (At::DropAfterAnswer, 1, true),
        (At::DropUnanswered, 3, false),
        (At::Payload, 1, false),
    ] {
        let source = Arc::new(Panics {
            at,
            requests: AtomicUsize::new(0),
        });
        let layer = OAuthLayer::builder(Arc::clone(&source)).clock(ManualClock::new());
        let layer = layer.build().expect("a layer");
        let service = layer.layer(Api::ok());
        let calls: JoinSet<_> = (0..200)
            .map(|_| service.clone().oneshot(get(API)))
            .collect();
        for call in calls.join_all().await {
            match call {
                Ok(_) => assert!(serves, "{at:?}"),
                Err(error) => {
                    let error = ours(error);
                    assert!(!serves && error.is_transient(), "{at:?}: {error}");
                    assert!(error.retry_after().is_some(), "{at:?}: {error}");
                }
            }
        }
        for _ in 0..100 {
            assert_eq!(
                service.clone().oneshot(get(API)).await.is_ok(),
                serves,
                "{at:?}"
            );
        }
        assert_eq!(source.requests.load(Ordering::SeqCst), requests, "{at:?}");
    }
}

// FC4, R5
#[tokio::test(start_paused = true)]
async fn callers_whose_flights_a_runtime_drops_launch_no_more_than_three_each() {
    let endpoint = Endpoint::new();
    let layer = layer(&endpoint);
    let dead = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = dead.handle().clone();
    dead.shutdown_background();
    let lost = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lost);
    let layer_on_dead = builder(&endpoint)
        .observer(move |event: &Event<'_>| {
            if matches!(event, Event::FetchLost { .. }) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        })
        .build()
        .unwrap();
    let tokens = layer_on_dead.token_cache();
    let _ = std::thread::spawn(move || {
        let _context = handle.enter();
        futures::executor::block_on(tokens.token()).expect_err("nothing flies there");
    })
    .join();
    assert_eq!((lost.load(Ordering::SeqCst), endpoint.requests()), (3, 0));
    layer
        .token_cache()
        .token()
        .await
        .expect("elsewhere all is well");
}

/// Panics in whatever a subscriber is told.
struct Panicking;

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tower_oauth"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        panic!("new_span")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        panic!("record")
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {
        panic!("record_follows_from")
    }

    fn event(&self, _: &tracing::Event<'_>) {
        panic!("event")
    }

    fn enter(&self, _: &Id) {
        panic!("enter")
    }

    fn exit(&self, _: &Id) {
        panic!("exit")
    }

    fn try_close(&self, _: Id) -> bool {
        panic!("try_close")
    }
}

/// Makes spans, and panics when one is entered, left or closed.
struct PanicsInSpans;

impl Subscriber for PanicsInSpans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tower_oauth"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &Id) {
        panic!("enter")
    }

    fn exit(&self, _: &Id) {
        panic!("exit")
    }

    fn try_close(&self, _: Id) -> bool {
        panic!("try_close")
    }
}

// FC17, R6
#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_is_nobodys_failure() {
    for subscriber in [
        tracing::Dispatch::new(Panicking),
        tracing::Dispatch::new(PanicsInSpans),
    ] {
        let _default = tracing::dispatcher::set_default(&subscriber);
        let endpoint = Endpoint::new().then([Answer::Refused]);
        let layer = layer(&endpoint);
        let answer = layer.layer(Api::ok()).oneshot(get(API)).await;
        assert!(answer.is_ok());
        assert_eq!(endpoint.requests(), 2, "one flight of two attempts");
        advance(secs(3400)).await;
        layer
            .layer(Api::ok())
            .oneshot(get(API))
            .await
            .expect("served");
        settle().await;
        assert_eq!(endpoint.requests(), 3);
        assert_eq!(layer.token_cache().status().generation, Some(2));
    }
}

// FC17, R6
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_takes_no_answer_from_anybody_and_is_reported_once() {
    let lines = Lines::default();
    let subscriber = {
        let lines = lines.clone();
        tracing_subscriber::fmt()
            .with_writer(move || lines.clone())
            .finish()
    };
    let _default = tracing::subscriber::set_default(subscriber);
    let endpoint = Endpoint::new();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let layer = builder(&endpoint)
        .observer(|_: &Event<'_>| panic!("the observer panics"))
        .observer(move |event: &Event<'_>| {
            if matches!(event, Event::Suspected { .. } | Event::BudgetSpent { .. }) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        })
        .build()
        .unwrap();
    let api = Api::new(|_| unauthorized(INVALID_TOKEN));
    for _ in 0..10 {
        let answer: Response<String> = layer
            .layer(api.clone())
            .oneshot(get(API))
            .await
            .expect("the API's answer");
        assert_eq!(answer.status(), 401);
    }
    assert_eq!(endpoint.requests(), 4, "the first, and a budget of three");
    assert_eq!(told.load(Ordering::SeqCst), 4, "the next observer is told");
    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(
        lines.matches("an observer of the token cache").count(),
        1,
        "{lines}"
    );
}

#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// FC4
#[tokio::test(start_paused = true)]
async fn an_error_that_panics_when_it_is_shown_or_dropped_harms_nobody() {
    #[derive(Debug)]
    struct Explosive;
    impl std::fmt::Display for Explosive {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("explosive")
        }
    }
    impl std::error::Error for Explosive {}
    impl Drop for Explosive {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    struct Fails;
    impl TokenSource for Fails {
        fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
            let error = tower_oauth::Error::rejected("invalid_client", "no");
            Box::pin(async { Err(error.with_source(Explosive)) })
        }
    }
    let layer = OAuthLayer::builder(Fails)
        .clock(ManualClock::new())
        .build()
        .expect("a layer");
    for _ in 0..3 {
        let service = layer.layer(Api::ok());
        let calls: JoinSet<_> = (0..5).map(|_| service.clone().oneshot(get(API))).collect();
        for call in calls.join_all().await {
            assert!(ours(call.expect_err("rejected")).is_rejected());
        }
        advance(secs(60)).await;
    }
}

// R8: nothing of the user's runs under the lock.
#[tokio::test(start_paused = true)]
async fn an_error_that_asks_the_cache_when_it_is_dropped_is_answered() {
    #[derive(Debug)]
    struct Asks(Arc<OnceLock<TokenCache>>, Arc<AtomicUsize>);
    impl std::fmt::Display for Asks {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("asks")
        }
    }
    impl std::error::Error for Asks {}
    impl Drop for Asks {
        fn drop(&mut self) {
            let tokens = self.0.get().expect("set before the first call").clone();
            let (answer, answered) = std::sync::mpsc::channel();
            std::thread::spawn(move || answer.send(tokens.status()));
            let answered = answered.recv_timeout(secs(10));
            answered.expect("the lock is free");
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    #[derive(Default)]
    struct Fails {
        tokens: Arc<OnceLock<TokenCache>>,
        dropped: Arc<AtomicUsize>,
        succeeds: AtomicBool,
    }
    impl TokenSource for Fails {
        fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
            // With parameters of its own it fails for those, without for the client.
            let error = match request.params().audience() {
                Some(_) => tower_oauth::Error::rejected("invalid_target", "no"),
                None => tower_oauth::Error::rejected("invalid_client", "no"),
            };
            let answer = match self.succeeds.load(Ordering::SeqCst) {
                true => TokenResponse::new("a-token"),
                false => {
                    let asks = Asks(Arc::clone(&self.tokens), Arc::clone(&self.dropped));
                    Err(error.with_source(asks))
                }
            };
            Box::pin(async { answer })
        }
    }
    let source = Arc::new(Fails::default());
    let layer = OAuthLayer::builder(Arc::clone(&source))
        .cache_policy(CachePolicy::new().max_entries(1))
        .clock(ManualClock::new())
        .build()
        .expect("a layer");
    let tokens = layer.token_cache();
    source.tokens.set(tokens.clone()).expect("once");
    let kinds: Vec<_> = (0..4).map(|n| kind(&tokens, n)).collect();
    // Forgotten: two of the four are kept, one of them aside.
    for tokens in &kinds {
        tokens.warm_up().await.expect_err("rejected");
    }
    assert_eq!(source.dropped.load(Ordering::SeqCst), 2, "forgotten");
    // Replaced, for the parameters and for the client.
    kinds[3].warm_up().await.expect_err("rejected");
    for _ in 0..2 {
        tokens.warm_up().await.expect_err("rejected");
    }
    assert_eq!(source.dropped.load(Ordering::SeqCst), 4, "replaced");
    // Over, for both.
    source.succeeds.store(true, Ordering::SeqCst);
    kinds[3].warm_up().await.expect("a token");
    assert_eq!(source.dropped.load(Ordering::SeqCst), 6, "over");
}

// FC13
#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_keeps_nobody_else_asleep() {
    struct PanicsWhenWoken;
    impl Wake for PanicsWhenWoken {
        fn wake(self: Arc<Self>) {
            panic!("woken");
        }
    }
    let endpoint = Endpoint::new().closed();
    let layer = layer(&endpoint);
    let tokens = layer.token_cache();
    let mut first = Box::pin(tokens.token());
    let waker = Waker::from(Arc::new(PanicsWhenWoken));
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    let mut others: Vec<_> = (0..5)
        .map(|_| tokio_test::task::spawn(tokens.token()))
        .collect();
    assert!(others.iter_mut().all(|other| other.poll().is_pending()));
    settle().await;
    endpoint.open();
    settle().await;
    for other in &mut others {
        assert!(other.is_woken());
        assert!(matches!(other.poll(), Poll::Ready(Ok(_))));
    }
    assert_eq!(endpoint.requests(), 1);
}
