//! tower's layers that retry, wait, queue and limit: on either side of the token.

#[path = "../../../examples/gateway/mod.rs"]
mod gateway;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::{Router, extract::Request, routing::get as on_get};
use futures_util::FutureExt;
use futures_util::future::{join, join_all, try_join_all};
use gateway::{Config, Gateway};
use http::{Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, pause, resume, sleep};
use tower::buffer::Buffer;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::error::Overloaded;
use tower::retry::{Policy, Retry};
use tower::timeout::{TimeoutLayer, error::Elapsed};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_oauth::{BoxError, CachePolicy, Error, OAuthLayer};
use tower_oauth_stacks::{Outgoing, client, client_behind, get, serve};

/// Up to four retries: of a refused token and of a server error at once, of a missing token when it
/// may be had again.
#[derive(Clone)]
struct Again(usize);

impl<B> Policy<Outgoing, Response<B>, BoxError> for Again {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        _: &mut Outgoing,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Self::Future> {
        let wait = match result {
            Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => Duration::ZERO,
            Ok(answer) if answer.status().is_server_error() => Duration::ZERO,
            Ok(_) => return None,
            Err(error) => {
                let error = error.downcast_ref::<Error>()?;
                if !error.is_transient() {
                    return None;
                }
                // Sooner the layer would say the same again, without asking the endpoint.
                error.retry_after().unwrap_or_default()
            }
        };
        self.0 = self.0.checked_sub(1)?;
        Some(Box::pin(sleep(wait)))
    }

    fn clone_request(&mut self, request: &Outgoing) -> Option<Outgoing> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn a_retry_outside_sends_a_refused_request_again_with_a_new_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let client = Retry::new(Again(4), open(&gateway).layer(client()));
    let url = gateway.api_url("/accounts");
    client.clone().oneshot(get(&url)).await.unwrap();

    gateway.revoke_all();
    let answer = client.oneshot(get(&url)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!((gateway.api_requests(), gateway.api_refused()), (3, 1));
    assert_eq!(gateway.token_requests(), 2);
}

#[tokio::test]
async fn a_retry_outside_that_heeds_retry_after_outlives_an_outage() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let oauth = builder(&gateway)
        .cache_policy(CachePolicy::new().sped_up(100))
        .build()
        .unwrap();
    // It ends the flight, so the layer does not try again by itself, and it asks for much more
    // than the first step of the backoff.
    gateway.fail_next(1, StatusCode::TOO_MANY_REQUESTS, Some("1"));
    let start = Instant::now();

    let client = Retry::new(Again(4), oauth.layer(client()));
    let calls = (0..20).map(|_| client.clone().oneshot(get(gateway.api_url("/accounts"))));
    for answer in try_join_all(calls).await.unwrap() {
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(gateway.token_requests(), 2);
    assert_eq!(gateway.api_requests(), 20);
}

#[tokio::test]
async fn a_retry_inside_cures_a_server_error_and_not_a_refused_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let inner = ServiceBuilder::new()
        .map_err(BoxError::from)
        .service(client());
    let client = open(&gateway).layer(Retry::new(Again(1), inner));
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let flaky = serve(Router::new().fallback(on_get(async move |_: Request| {
        match counted.fetch_add(1, Relaxed) {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        }
    })));
    let flaky = format!("http://{}/", flaky.await);
    let answer = client.clone().oneshot(get(flaky)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(requests.load(Relaxed), 2);
    assert_eq!(gateway.token_requests(), 1);

    // The retry has the same token, as it happens below the layer; the next call has another.
    gateway.revoke_all();
    for (status, refused) in [(StatusCode::UNAUTHORIZED, 2), (StatusCode::OK, 2)] {
        let call = client.clone().oneshot(get(gateway.api_url("/accounts")));
        assert_eq!(call.await.unwrap().status(), status);
        assert_eq!(gateway.api_refused(), refused);
    }
    assert_eq!(gateway.token_requests(), 2);
}

// K28
#[tokio::test]
async fn a_timeout_outside_counts_the_wait_for_the_token_which_comes_all_the_same() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (oauth, gate) = held(&gateway);
    let client = TimeoutLayer::new(SECOND).layer(oauth.layer(client()));
    let url = gateway.api_url("/accounts");

    pause();
    let calls = (0..5).map(|_| client.clone().oneshot(get(&url)));
    for failure in join_all(calls).await {
        assert!(failure.unwrap_err().is::<Elapsed>());
    }
    resume();
    gate.add_permits(1);
    oauth.token_cache().token().await.unwrap();
    let answer = client.oneshot(get(&url)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(gateway.token_requests(), 1);
}

#[tokio::test]
async fn a_timeout_inside_counts_the_exchange_with_the_api_alone() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (oauth, gate) = held(&gateway);
    let client = oauth.layer(TimeoutLayer::new(SECOND).layer(client()));

    let mut call = Box::pin(client.oneshot(get(gateway.api_url("/accounts"))));
    assert!((&mut call).now_or_never().is_none());
    pause();
    advance(5 * SECOND).await;
    assert!((&mut call).now_or_never().is_none());
    resume();
    gate.add_permits(1);
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(gateway.token_requests(), 1);
}

// R1
#[tokio::test]
async fn a_buffer_outside_lives_through_an_outage_of_the_token_endpoint() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let oauth = open(&gateway);
    let mut client = Buffer::new(oauth.layer(client()), 8);
    gateway.fail_next(1, StatusCode::SERVICE_UNAVAILABLE, Some("5"));

    for _ in 0..3 {
        let client = client.ready().await.unwrap();
        let call = client.call(get(gateway.api_url("/accounts")));
        assert!(ours(call.await.unwrap_err()).is_transient());
    }
    assert_eq!(gateway.token_requests(), 1);
    oauth.token_cache().warm_up().await.unwrap();
    let client = client.ready().await.unwrap();
    let call = client.call(get(gateway.api_url("/accounts")));
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(gateway.token_requests(), 2);
}

#[tokio::test]
async fn a_buffer_inside_gets_requests_that_have_their_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    // As many places as requests: each takes one before it waits for the token.
    let client = open(&gateway).layer(Buffer::new(client(), 20));

    let calls = (0..20).map(|_| client.clone().oneshot(get(gateway.api_url("/accounts"))));
    for answer in try_join_all(calls).await.unwrap() {
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(gateway.token_requests(), 1);
}

// R2
#[tokio::test]
async fn a_request_holds_its_place_in_a_limit_while_it_waits_for_the_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let limit = || GlobalConcurrencyLimitLayer::new(1);
    let url = gateway.api_url("/accounts");
    // Inside and outside: the place is taken before the layer is asked.
    for outside in [true, false] {
        let (oauth, gate) = held(&gateway);
        let mut client = if outside {
            limit().layer(oauth.layer(client())).boxed_clone()
        } else {
            oauth.layer(limit().layer(client())).boxed_clone()
        };
        let mut other = client.clone();
        let first = client.ready().await.unwrap().call(get(&url));
        let mut first = Box::pin(first);
        assert!((&mut first).now_or_never().is_none());
        assert!(other.ready().now_or_never().is_none());

        gate.add_permits(1);
        let second = async { other.ready().await?.call(get(&url)).await };
        let (first, second) = join(first, second).await;
        assert_eq!(first.unwrap().status(), StatusCode::OK);
        assert_eq!(second.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(gateway.token_requests(), 2);
}

// R2
#[tokio::test(start_paused = true)]
async fn a_token_client_in_the_apis_limit_starves_until_its_time_is_up() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let shared = GlobalConcurrencyLimitLayer::new(1);
    let oauth = builder(&gateway)
        .token_client(shared.layer(client()))
        .build()
        .unwrap();
    let client = oauth.layer(shared.layer(client()));

    // The API request has the one place and waits for a token, whose request waits for the place.
    let call = client.clone().oneshot(get(gateway.api_url("/accounts")));
    let error = ours(call.await.unwrap_err());
    assert!(error.is_timeout(), "{error}");
    assert_eq!(error.attempts(), 3);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (0, 0));
}

#[tokio::test]
async fn a_token_client_in_a_limit_of_its_own_does_not_starve() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let limit = || GlobalConcurrencyLimitLayer::new(1);
    let oauth = builder(&gateway).token_client(limit().layer(client()));
    let client = oauth.build().unwrap().layer(limit().layer(client()));

    let calls = (0..20).map(|_| client.clone().oneshot(get(gateway.api_url("/accounts"))));
    for answer in try_join_all(calls).await.unwrap() {
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(gateway.token_requests(), 1);
}

#[tokio::test]
async fn a_rate_limit_outside_counts_neither_token_requests_nor_replays() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let mut client = ServiceBuilder::new()
        .rate_limit(2, 3600 * SECOND)
        .layer(open(&gateway).replay_unauthorized())
        .service(client());

    for _ in 0..2 {
        let call = client.ready().await.unwrap();
        let call = call.call(get(gateway.api_url("/accounts")));
        assert_eq!(call.await.unwrap().status(), StatusCode::OK);
        gateway.revoke_all();
    }
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (2, 3));
    assert!(client.ready().now_or_never().is_none());
}

#[tokio::test]
async fn a_rate_limit_inside_counts_the_replay() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    // The buffer, because a rate limit is not `Clone`.
    let oauth = open(&gateway);
    let client = ServiceBuilder::new()
        .layer(oauth.clone().replay_unauthorized())
        .buffer(8)
        .rate_limit(2, 600 * SECOND)
        .service(client());
    let url = gateway.api_url("/accounts");
    client.clone().oneshot(get(&url)).await.unwrap();

    gateway.revoke_all();
    let call = tokio::spawn(client.oneshot(get(&url)));
    while oauth.token_cache().status().generation != Some(2) {
        yield_now().await;
    }
    // From here on there is nothing to wait for but the limit. The replay has its token by now, and
    // that grows old.
    pause();
    let start = Instant::now();
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(start.elapsed() > 500 * SECOND);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (2, 3));
}

#[tokio::test]
async fn load_shed_outside_refuses_while_requests_wait_for_a_token() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (oauth, gate) = held(&gateway);
    let client = ServiceBuilder::new()
        .load_shed()
        .layer(oauth.clone())
        .concurrency_limit(1)
        .service(client());
    let url = gateway.api_url("/accounts");
    let mut first = Box::pin(client.clone().oneshot(get(&url)));
    assert!((&mut first).now_or_never().is_none());
    let shed = client.clone().oneshot(get(&url)).await;
    assert!(shed.unwrap_err().is::<Overloaded>());
    gate.add_permits(1);
    assert_eq!(first.await.unwrap().status(), StatusCode::OK);

    // A token that cannot be had is no overload.
    oauth.token_cache().invalidate();
    gateway.fail_next(1, StatusCode::SERVICE_UNAVAILABLE, Some("5"));
    for _ in 0..2 {
        let call = client.clone().oneshot(get(&url));
        assert!(ours(call.await.unwrap_err()).is_transient());
    }
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (2, 1));
}

#[tokio::test]
async fn load_shed_inside_refuses_when_the_token_is_there() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let (oauth, gate) = held(&gateway);
    let client = ServiceBuilder::new()
        .layer(oauth)
        .load_shed()
        .concurrency_limit(1)
        .service(client());
    let url = gateway.api_url("/accounts");
    let mut first = Box::pin(client.clone().oneshot(get(&url)));
    let mut shed = Box::pin(client.clone().oneshot(get(&url)));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut shed).now_or_never().is_none());

    gate.add_permits(1);
    let (first, shed) = join(first, shed).await;
    assert_eq!(first.unwrap().status(), StatusCode::OK);
    assert!(shed.unwrap_err().is::<Overloaded>());
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (1, 1));
}

const SECOND: Duration = Duration::from_secs(1);

type Builder = tower_oauth::OAuthLayerBuilder<tower_oauth::ClientCredentials>;

fn builder(gateway: &Gateway) -> Builder {
    OAuthLayer::client_credentials(gateway.token_url(), "consumer-key", "consumer-secret")
}

fn open(gateway: &Gateway) -> OAuthLayer {
    builder(gateway).build().unwrap()
}

/// A layer whose token requests wait until the gate has a permit.
fn held(gateway: &Gateway) -> (OAuthLayer, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let oauth = builder(gateway).token_client(client_behind(&gate)).build();
    (oauth.unwrap(), gate)
}

fn ours(error: BoxError) -> Error {
    *error.downcast().unwrap()
}
