//! What a tower middleware owes its neighbours.

mod support;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::poll_fn;
use http::{Request, Response};
use support::*;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::limit::ConcurrencyLimitLayer;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_oauth::{OAuth, OAuthLayer};
use tower_test::mock;

type Mock = mock::Mock<Request<String>, Response<String>>;
type Handle = mock::Handle<Request<String>, Response<String>>;

fn mocked(layer: &OAuthLayer) -> (task::Spawn<OAuth<Mock>>, Handle) {
    let (inner, handle) = mock::pair();
    (task::spawn(layer.layer(inner)), handle)
}

fn poll_ready(service: &mut task::Spawn<OAuth<Mock>>) -> Poll<Result<(), BoxError>> {
    service.enter(|cx, mut service| service.poll_ready(cx))
}

// R1
#[tokio::test(start_paused = true)]
async fn poll_ready_is_the_inner_services_and_asks_for_no_token() {
    let endpoint = Endpoint::new();
    let (mut service, mut inner) = mocked(&layer(&endpoint));
    inner.allow(0);
    assert_pending!(poll_ready(&mut service));
    inner.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(poll_ready(&mut service));
    settle().await;
    assert_eq!(endpoint.requests(), 0);
}

// R1
#[tokio::test(start_paused = true)]
async fn a_token_failure_comes_out_of_the_response_future_and_the_service_stays_ready() {
    let endpoint = Endpoint::new().always(Answer::Error(401, "invalid_client"));
    let mut service = layer(&endpoint).layer(Api::ok());
    for _ in 0..2 {
        let error = service
            .ready()
            .await
            .unwrap()
            .call(get(API))
            .await
            .unwrap_err();
        assert!(ours(error).is_rejected());
    }
    // A Buffer dies of an error in poll_ready; it must survive ours.
    let buffered = ServiceBuilder::new()
        .buffer(4)
        .layer(layer(&endpoint))
        .service(Api::ok());
    for _ in 0..2 {
        let error = buffered.clone().oneshot(get(API)).await.unwrap_err();
        assert!(error.is::<tower_oauth::Error>(), "{error}");
    }
}

// R1
#[tokio::test(start_paused = true)]
async fn an_error_of_the_inner_poll_ready_passes_through() {
    let (mut service, mut inner) = mocked(&layer(&Endpoint::new()));
    inner.send_error("broken");
    assert_eq!(
        assert_ready_err!(poll_ready(&mut service)).to_string(),
        "broken"
    );
}

/// Counts how often each instance is polled ready and called; a clone starts unready.
struct Strict {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            calls: Arc::clone(&self.calls),
        }
    }
}

impl Service<Request<String>> for Strict {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without being polled ready"
        );
        self.calls.fetch_add(1, Ordering::SeqCst);
        let authorization = request.headers()[http::header::AUTHORIZATION]
            .to_str()
            .unwrap();
        ready(Ok(
            if authorization == "Bearer token-1" && request.uri().path() == "/refuse" {
                unauthorized(INVALID_TOKEN)
            } else {
                Response::new(authorization.to_owned())
            },
        ))
    }
}

// R2, P28
#[tokio::test(start_paused = true)]
async fn the_instance_polled_ready_is_the_one_called_with_and_without_a_wait_and_on_replay() {
    let endpoint = Endpoint::new().latency(Duration::from_millis(20));
    let calls = Arc::new(AtomicUsize::new(0));
    let inner = Strict {
        ready: false,
        calls: Arc::clone(&calls),
    };
    let mut service = layer(&endpoint).replay_unauthorized().layer(inner);
    for path in ["/", "/", "/refuse"] {
        let request = get(&format!("https://api.example{path}"));
        service.ready().await.unwrap().call(request).await.unwrap();
    }
    assert_eq!((calls.load(Ordering::SeqCst), endpoint.requests()), (4, 2));
}

// R2
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_token_keeps_its_permit_meanwhile() {
    let endpoint = Endpoint::new().closed();
    let limited = ServiceBuilder::new()
        .layer(ConcurrencyLimitLayer::new(1))
        .service(Api::ok());
    let mut service = layer(&endpoint).layer(limited);
    let mut first = task::spawn(service.ready().await.unwrap().call(get(API)));
    assert_pending!(first.poll());
    let mut cx = Context::from_waker(futures::task::noop_waker_ref());
    assert!(
        service.poll_ready(&mut cx).is_pending(),
        "the one permit waits with the first request"
    );
    endpoint.open();
    settle().await;
    assert_ready_ok!(first.poll());
    drop(first);
    assert!(service.poll_ready(&mut cx).is_ready());
}

// R2
#[tokio::test(start_paused = true)]
async fn a_token_client_that_shares_the_limit_waits_in_vain_until_its_time_is_up() {
    let endpoint = Endpoint::new();
    let permits = Arc::new(tokio::sync::Semaphore::new(1));
    let (token_permits, asked) = (Arc::clone(&permits), endpoint.clone());
    let token_client = tower::service_fn(move |request| {
        let (permits, endpoint) = (Arc::clone(&token_permits), asked.clone());
        async move {
            let _permit = permits.acquire_owned().await?;
            endpoint.oneshot(request).await
        }
    });
    let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", "secret")
        .token_client(token_client)
        .build()
        .unwrap();
    let limited = tower::limit::ConcurrencyLimit::with_semaphore(Api::ok(), permits);
    let error = layer.layer(limited).oneshot(get(API)).await.unwrap_err();
    assert!(ours(error).is_timeout());
    assert_eq!(endpoint.requests(), 0);
}

// R3
#[tokio::test(start_paused = true)]
async fn inner_errors_pass_through_unwrapped() {
    let layer = layer(&Endpoint::new());
    let failing = tower::service_fn(|_: Request<String>| async {
        Err::<Response<String>, _>(std::io::Error::other("the wire"))
    });
    let error = layer.layer(failing).oneshot(get(API)).await.unwrap_err();
    assert_eq!(
        error.downcast_ref::<std::io::Error>().unwrap().to_string(),
        "the wire"
    );
}

/// Neither `Clone`, `Default`, `Send` nor `Debug`.
struct Odd(#[allow(dead_code)] std::rc::Rc<()>);

// R3
#[tokio::test(start_paused = true)]
async fn bodies_need_nothing_but_what_the_inner_service_asks() {
    let layer = layer(&Endpoint::new());
    let inner = tower::service_fn(|request: Request<Odd>| {
        let authorized = request.headers().contains_key("authorization");
        ready(Ok::<_, Infallible>(Response::new((
            authorized,
            request.into_body(),
        ))))
    });
    let mut service = layer.layer(inner);
    let request = Request::builder()
        .uri(API)
        .body(Odd(std::rc::Rc::new(())))
        .unwrap();
    let mut call = pin!(async {
        poll_fn(|cx| Service::<Request<Odd>>::poll_ready(&mut service, cx))
            .await
            .unwrap();
        service.call(request).await
    });
    let response = poll_fn(|cx| call.as_mut().poll(cx)).await.unwrap();
    assert!(response.into_body().0);
}

#[tokio::test(start_paused = true)]
async fn a_warm_call_is_ready_as_soon_as_the_inner_service_is() {
    let layer = layer(&Endpoint::new());
    layer.token_cache().warm_up().await.unwrap();
    let mut service = layer.layer(Api::ok());
    let mut call = task::spawn(service.ready().await.unwrap().call(get(API)));
    assert_ready_ok!(call.poll());
    let (mut service, mut inner) = mocked(&layer);
    assert_ready_ok!(poll_ready(&mut service));
    let mut call = task::spawn(service.call(get(API)));
    assert_pending!(call.poll());
    let (request, respond) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
    assert_eq!(request.headers()["authorization"], "Bearer token-1");
    respond.send_response(Response::new(String::new()));
    assert!(call.is_woken());
    assert_ready_ok!(call.poll());
}

/// A service with one slot, which the body of its answer holds.
#[derive(Default)]
struct OneSlot {
    slot: Arc<Slot>,
    ready: bool,
}

impl Clone for OneSlot {
    fn clone(&self) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
            ready: false,
        }
    }
}

#[derive(Default)]
struct Slot {
    taken: std::sync::Mutex<bool>,
    waiting: std::sync::Mutex<Vec<std::task::Waker>>,
}

/// Frees the slot when it is dropped.
#[derive(Clone)]
struct Held(#[allow(dead_code)] Arc<Free>);

struct Free(Arc<Slot>);

impl Drop for Free {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap() = false;
        for waker in self.0.waiting.lock().unwrap().drain(..) {
            waker.wake();
        }
    }
}

impl Service<Request<String>> for OneSlot {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = Ready<Result<Response<String>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut taken = self.slot.taken.lock().unwrap();
        if *taken && !self.ready {
            self.slot.waiting.lock().unwrap().push(cx.waker().clone());
            return Poll::Pending;
        }
        (*taken, self.ready) = (true, true);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without being polled ready"
        );
        let mut answer = unauthorized(INVALID_TOKEN);
        let held = Held(Arc::new(Free(Arc::clone(&self.slot))));
        answer.extensions_mut().insert(held);
        ready(Ok(answer))
    }
}

// FC5, R21
#[tokio::test(start_paused = true)]
async fn a_replay_whose_service_does_not_become_ready_gives_the_401_back_within_the_flights_limit()
{
    let endpoint = Endpoint::new();
    let layer = layer(&endpoint).replay_unauthorized();
    let start = tokio::time::Instant::now();
    let answer = layer
        .layer(OneSlot::default())
        .oneshot(get(API))
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(start.elapsed(), Duration::from_secs(30));
    assert_eq!(
        endpoint.requests(),
        2,
        "the renewal is kept for the next call"
    );
}

// FC6, R4
#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_sent_gives_back_what_was_reserved_for_it() {
    let endpoint = Endpoint::new().always(Answer::Error(401, "invalid_client"));
    let layer = builder(&endpoint)
        .allow_origin("https://api.example")
        .build()
        .unwrap();
    let limited = ConcurrencyLimitLayer::new(1).layer(Api::ok());
    let mut first = layer.layer(limited);
    let mut second = first.clone();
    let elsewhere = "https://elsewhere.example/";
    for uri in [elsewhere, API, API, elsewhere] {
        let call = first.ready().await.unwrap().call(get(uri));
        let error = ours(call.await.unwrap_err());
        assert!(error.is_destination() || error.is_rejected(), "{error}");
        let ready = tokio::time::timeout(Duration::from_secs(1), second.ready()).await;
        let ready = ready.expect("the idle service holds no permit");
        let error = ours(ready.unwrap().call(get(elsewhere)).await.unwrap_err());
        assert!(error.is_destination());
    }
    assert_eq!(endpoint.requests(), 1);

    // Also when it had to wait for its failure, and its future is still there.
    layer.token_cache().invalidate();
    let mut call = std::pin::pin!(first.ready().await.unwrap().call(get(API)));
    assert!(ours(call.as_mut().await.unwrap_err()).is_rejected());
    assert_eq!(endpoint.requests(), 2);
    let ready = tokio::time::timeout(Duration::from_secs(1), second.ready()).await;
    ready.expect("the failed call holds no permit").unwrap();
}

/// Counts how often it is cloned.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    #[allow(dead_code)]
    clones: Clones,
}

#[derive(Default)]
struct Clones(Arc<AtomicUsize>);

impl Clone for Clones {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl Service<Request<String>> for Counted<Api> {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = Ready<Result<Response<String>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        self.inner.call(request)
    }
}

// R4
#[tokio::test(start_paused = true)]
async fn what_needs_no_waiting_is_decided_when_it_is_called() {
    let endpoint = Endpoint::new();
    let clones = Clones::default();
    let count = Arc::clone(&clones.0);
    let inner = Counted {
        inner: Api::ok(),
        clones,
    };
    let mut service = layer(&endpoint).layer(inner);
    service.ready().await.unwrap().call(get(API)).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1, "the first one waits");
    // The first call after a token has come, the one that starts its renewal, and those beside it.
    for pause in [0, 3400, 0] {
        tokio::time::advance(Duration::from_secs(pause)).await;
        service.ready().await.unwrap().call(get(API)).await.unwrap();
        settle().await;
    }
    assert_eq!((count.load(Ordering::SeqCst), endpoint.requests()), (1, 2));
}
