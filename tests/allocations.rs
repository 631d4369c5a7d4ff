//! What the layer asks of the allocator, counted exactly.

#[path = "../benches/support/mod.rs"]
mod support;

use std::task::{Context, Waker};

use allocation_counter::measure;
use http::header::HeaderMap;
use http::{Request, Response, StatusCode};
use tower::{Layer, Service};
use tower_oauth::{OAuthLayer, TokenFuture, TokenRequest, TokenSource};

use support::{Body, NoOp, Prebuilt, asking_request, everything, other, plain, request, send};

/// Allocations of one request, its making and the answer included, once others have gone before it.
fn count<S>(service: S, make: impl Fn() -> Request<Body>) -> u64
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    count_each(|| {
        let mut service = service.clone();
        move || send(&mut service, make())
    })
}

fn count_each<W: FnMut() -> StatusCode>(worker: impl FnOnce() -> W) -> u64 {
    let mut work = worker();
    work();
    let counts = [(); 3].map(|()| measure(|| _ = work()).count_total);
    assert_eq!(counts, [counts[0]; 3], "each request costs the same");
    counts[0]
}

#[test]
fn the_cached_path_allocates_nothing_beyond_the_header_map() {
    let grown = || {
        let mut request = request();
        let headers = request.headers_mut();
        let mut exact = HeaderMap::new();
        exact.extend(std::mem::take(headers));
        *headers = exact;
        request
    };
    for make in [request as fn() -> _, grown] {
        let floor = count(Prebuilt::new(NoOp), make);
        assert_eq!(count(plain().layer(NoOp), make), floor);
        assert_eq!(count(everything().layer(NoOp), make), floor);
    }
}

#[test]
fn a_destination_that_is_written_in_an_unusual_way_allocates_nothing_either() {
    let unusual = || {
        let mut request = request();
        *request.uri_mut() = http::Uri::from_static("https://API.example.:443/v1/accounts");
        request
    };
    let floor = count(Prebuilt::new(NoOp), unusual);
    assert_eq!(count(everything().layer(NoOp), unusual), floor);
}

#[test]
fn a_fresh_clone_for_each_request_allocates_nothing_either() {
    let floor = count(Prebuilt::new(NoOp), request);
    let service = everything().layer(NoOp);
    let cloned = count_each(|| || send(&mut service.clone(), request()));
    assert_eq!(cloned, floor);
}

#[test]
fn another_kind_of_token_allocates_nothing_beyond_the_extension() {
    let other = other();
    let make = || asking_request(&other);
    let floor = count(Prebuilt::new(NoOp), make);
    assert!(floor > count(Prebuilt::new(NoOp), request));
    assert_eq!(count(everything().layer(NoOp), make), floor);
}

#[test]
fn replay_costs_three_allocations_for_the_copy_of_the_request() {
    let floor = count(Prebuilt::new(NoOp), request);
    // One box, and the two tables of the header map's clone.
    let replaying = everything().replay_unauthorized().layer(NoOp);
    assert_eq!(count(replaying, request), floor + 3);
}

/// Never brings a token.
struct Silent;

impl TokenSource for Silent {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_caller_holds_at_most_a_few_hundred_bytes_beyond_its_request() {
    const CALLERS: usize = 1000;

    let service = OAuthLayer::new(Silent).layer(NoOp);
    let call = || Box::pin(service.clone().call(request()));
    let mut waiting = Vec::with_capacity(CALLERS);
    let mut context = Context::from_waker(Waker::noop());
    let held = measure(|| {
        for _ in 0..CALLERS {
            waiting.push(call());
            let last = waiting.last_mut().expect("one was pushed");
            assert!(last.as_mut().poll(&mut context).is_pending());
        }
    });
    let per_caller = u64::try_from(held.bytes_current).expect("memory is held") / CALLERS as u64;
    let per_request = measure(|| drop(request())).bytes_max;
    assert!(
        (per_request..=per_request + 576).contains(&per_caller),
        "{per_caller} bytes, of which {per_request} are the request"
    );
}
