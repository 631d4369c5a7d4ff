//! Many callers and many kinds of token: one token request, memory, and the cost of a look-up.
//!
//! `cargo bench --bench herd` prints a table. No gate on time.

#[path = "support/burst.rs"]
mod burst;
mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use http::{Request, Response};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{CachePolicy, OAuth, OAuthLayer, TokenParams};

use support::{Body, Fixed, NoOp, Slow, asking_request, request, send};

fn main() {
    // `cargo test --benches` runs this too, to see that it still does.
    let full = std::env::args().any(|argument| argument == "--bench");
    let callers = if full { 10_000 } else { 100 };
    burst(callers);
    waiting_memory(callers);
    let keys = if full { 100_000 } else { 200 };
    many_keys(keys, keys / 10);
    for keys in [1, 100, keys / 10] {
        look_up(keys, if full { 2_000_000 } else { 100 });
    }
}

/// Cold callers, an endpoint that answers after 50 ms, all threads of the machine.
fn burst(callers: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let mut times: Vec<_> = (0..11)
        .map(|_| runtime.block_on(burst::cold(callers, DELAY)))
        .collect();
    times.sort();
    println!(
        "{callers} cold callers, endpoint {DELAY:?}: 1 token request, \
         last caller done after {:.1?} (median; {:.1?} to {:.1?})",
        times[5], times[0], times[10],
    );
}

/// What a task holds while it waits for a token, above one whose service waits for something else.
fn waiting_memory(callers: usize) {
    let held = |service: OAuth<Hanging>| {
        let runtime = current_thread();
        let info = measure(|| {
            runtime.block_on(async {
                for _ in 0..callers {
                    let mut service = service.clone();
                    drop(tokio::spawn(async move {
                        service.ready().await?.call(request()).await
                    }));
                }
                // Until each has been polled: the runtime comes back here after a number of tasks.
                for _ in 0..callers {
                    tokio::task::yield_now().await;
                }
            });
        });
        info.bytes_current / callers as i64
    };
    let waits = held(OAuthLayer::new(Slow::new(DELAY)).layer(Hanging));
    let never_waits = held(support::plain().layer(Hanging));
    println!(
        "{callers} callers who wait: {waits} bytes each, {never_waits} for one who never waits"
    );
}

/// Distinct kinds of token, more than the cache may keep.
fn many_keys(keys: usize, bound: usize) {
    let runtime = current_thread();
    let layer = bounded(bound);
    let tokens = layer.token_cache();
    let mut service = layer.layer(NoOp);
    let mut peaks = Vec::new();
    let mut took = Duration::ZERO;
    let mut entries = 0;
    let all = measure(|| {
        for tenth in 0..10 {
            let peak = measure(|| {
                let began = Instant::now();
                runtime.block_on(async {
                    for key in tenth * keys / 10..(tenth + 1) * keys / 10 {
                        let request = asking_request(&kind(key));
                        let sent = service.ready().await.expect("ready").call(request).await;
                        sent.expect("a token");
                    }
                });
                took += began.elapsed();
            });
            peaks.push(peak.bytes_current);
        }
        entries = tokens.status().entries;
    });
    let each = took / u32::try_from(keys).expect("a count");
    println!(
        "{keys} keys under a bound of {bound}: {entries} entries; \
         {} KiB held after the first {bound}, {} KiB after all; {each:.1?} for each",
        peaks[0] / 1024,
        all.bytes_current / 1024,
    );
}

/// What it costs to find one of so many tokens, in a request with its making.
fn look_up(keys: usize, requests: usize) {
    let layer = bounded(keys);
    let kinds: Vec<_> = (0..keys).map(kind).collect();
    current_thread().block_on(async {
        for kind in &kinds {
            let tokens = layer.token_cache().with_params(kind.clone());
            // Twice: the first call waits for the flight, the second finds the token and frees it
            // for the cached path.
            for _ in 0..2 {
                tokens.token().await.expect("a token");
            }
        }
    });
    let mut service = layer.layer(NoOp);
    let mut place = 0;
    let began = Instant::now();
    for _ in 0..requests {
        // Far apart, so that a big table is not found in the cache line just used.
        place = (place + 7919) % keys;
        send(&mut service, asking_request(&kinds[place]));
    }
    let each = began.elapsed() / u32::try_from(requests).expect("a count");
    println!("a request that asks for one of {keys} kinds of token: {each:?}");
}

fn kind(key: usize) -> TokenParams {
    TokenParams::new().with_audience(key.to_string())
}

fn bounded(entries: usize) -> OAuthLayer {
    let policy = CachePolicy::default().max_entries(entries);
    let layer = OAuthLayer::builder(Fixed).cache_policy(policy).build();
    layer.expect("the settings are valid")
}

fn current_thread() -> Runtime {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime")
}

/// Takes a request and holds it for ever.
#[derive(Clone)]
struct Hanging;

impl Service<Request<Body>> for Hanging {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Held;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Held {
        Held {
            _request: Box::new(request),
        }
    }
}

/// Boxed, as the futures of HTTP clients are.
struct Held {
    _request: Box<Request<Body>>,
}

impl Future for Held {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}

const DELAY: Duration = Duration::from_millis(50);
