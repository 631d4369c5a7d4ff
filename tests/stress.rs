//! Real threads: callers on three runtimes join and leave at random, one of the runtimes dies again
//! and again, and the token source is slow, fails, panics and hangs at random.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use tokio::runtime::{self, Runtime};
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::{
    BoxError, CachePolicy, Error, OAuthLayer, TokenFuture, TokenParams, TokenRequest,
    TokenResponse, TokenSource,
};

/// Counts the token requests that are under way for each kind.
struct Shaky {
    under_way: HashMap<TokenParams, AtomicUsize>,
    most: AtomicUsize,
    requests: AtomicU64,
}

impl Shaky {
    async fn answer(&self, request: &TokenParams) -> Result<TokenResponse, Error> {
        let _under_way = UnderWay::new(self, request);
        self.requests.fetch_add(1, Ordering::Relaxed);
        sleep(millis(0..10)).await;
        match fastrand::u8(0..100) {
            0..60 => {
                let life = *fastrand::choice(&[0, 1, 2, 3600]).expect("one of them");
                Ok(TokenResponse::new("token")?.with_expires_in(Duration::from_secs(life)))
            }
            60..65 => Err(Error::transient("down")),
            65..80 => Err(Error::rejected("slow_down", "busy")),
            80..90 => Err(Error::rejected("invalid_scope", "rejected")),
            90..97 => Err(Error::invalid_response("a page of a proxy")),
            97..99 => pending().await,
            _ => panic!("a source that panics now and then"),
        }
    }
}

impl TokenSource for Shaky {
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(self.answer(request.params()))
    }
}

struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(source: &'a Shaky, request: &TokenParams) -> Self {
        let count = &source.under_way[request];
        let now = count.fetch_add(1, Ordering::SeqCst) + 1;
        source.most.fetch_max(now, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How the calls ended.
#[derive(Default)]
struct Tally {
    begun: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    left: AtomicU64,
    /// The longest wait, in milliseconds.
    longest: AtomicU64,
}

/// Counts a call as one that left, unless it ends first.
struct Call<'a> {
    tally: &'a Tally,
    begun: Instant,
    end: &'a AtomicU64,
}

impl<'a> Call<'a> {
    fn begin(tally: &'a Tally) -> Self {
        tally.begun.fetch_add(1, Ordering::Relaxed);
        Self {
            tally,
            begun: Instant::now(),
            end: &tally.left,
        }
    }

    fn end<T>(mut self, outcome: &Result<T, BoxError>) {
        self.end = match outcome {
            Ok(_) => &self.tally.served,
            Err(error) => {
                assert!(error.is::<Error>(), "{error}");
                &self.tally.failed
            }
        };
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let waited = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tally.longest.fetch_max(waited, Ordering::Relaxed);
        self.end.fetch_add(1, Ordering::Relaxed);
    }
}

/// One caller, until the time is over.
async fn caller(layer: OAuthLayer, kinds: Arc<[TokenParams]>, tally: Arc<Tally>, end: Instant) {
    let api = layer.clone().replay_unauthorized().layer(service_fn(|_| {
        let refuses = fastrand::u8(..) < 8;
        let status = if refuses {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        let mut response = Response::new(());
        *response.status_mut() = status;
        ready(Ok::<_, Infallible>(response))
    }));
    while Instant::now() < end {
        let kind = fastrand::choice(&*kinds).expect("there are kinds").clone();
        let tokens = layer.token_cache().with_params(kind.clone());
        match fastrand::u16(0..2000) {
            0..20 => tokens.invalidate(),
            20 => drop(tokens.warm_up().await),
            21..1000 => {
                let call = Call::begin(&tally);
                let outcome = tokens.token().await;
                if let Ok(token) = &outcome {
                    assert!(!token.remaining().is_zero());
                }
                call.end(&outcome.map_err(BoxError::from));
            }
            1000..1500 => {
                let call = Call::begin(&tally);
                // Hastier than the source: some are served, most leave.
                if let Ok(outcome) = timeout(millis(0..5), tokens.token()).await {
                    call.end(&outcome.map_err(BoxError::from));
                }
            }
            _ => {
                let mut request = Request::new(());
                *request.uri_mut() = "https://api.example/".parse().expect("a URI");
                request.extensions_mut().insert(kind);
                let call = Call::begin(&tally);
                call.end(&api.clone().oneshot(request).await);
            }
        }
        sleep(millis(0..40)).await;
    }
}

fn millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_micros(fastrand::u64(range.start * 1000..range.end * 1000))
}

fn new_runtime() -> Runtime {
    let mut builder = runtime::Builder::new_multi_thread();
    builder
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime")
}

#[test]
fn under_stress_each_kind_has_one_token_request_nobody_is_forgotten_and_no_task_is_left() {
    // The panics are intended, and their messages would bury anything else.
    std::panic::set_hook(Box::new(|panic| {
        if !panic.to_string().contains("now and then") {
            eprintln!("{panic}");
        }
    }));
    let kinds: Arc<[_]> = ["own", "b", "c"]
        .map(|name| TokenParams::new().with_audience(name))
        .into();
    let source = Arc::new(Shaky {
        under_way: kinds
            .iter()
            .map(|kind| (kind.clone(), AtomicUsize::new(0)))
            .collect(),
        most: AtomicUsize::new(0),
        requests: AtomicU64::new(0),
    });
    let ms = Duration::from_millis;
    let policy = CachePolicy::default().attempt_timeout(ms(50)).sped_up(500);
    let layer = OAuthLayer::builder(Arc::clone(&source))
        .audience("own")
        .cache_policy(policy)
        .build()
        .expect("a layer");
    let tally = Arc::new(Tally::default());
    let end = Instant::now() + Duration::from_secs(3);

    let crowd = |runtime: &Runtime, size| {
        (0..size)
            .map(|_| {
                let (layer, kinds, tally) = (layer.clone(), kinds.clone(), tally.clone());
                runtime.spawn(caller(layer, kinds, tally, end))
            })
            .collect::<Vec<_>>()
    };
    let runtimes = [new_runtime(), new_runtime()];
    let crowds = runtimes.each_ref().map(|runtime| crowd(runtime, 300));
    while Instant::now() < end {
        let mortal = new_runtime();
        crowd(&mortal, 50);
        std::thread::sleep(millis(20..200));
        mortal.shutdown_background();
    }
    for (runtime, crowd) in runtimes.iter().zip(crowds) {
        for caller in crowd {
            runtime
                .block_on(caller)
                .expect("a caller met a broken promise");
        }
    }

    let sent = layer.token_cache().status().token_requests;
    drop(layer);
    let longest_flight = Instant::now() + FLIGHT_TIMEOUT;
    for runtime in &runtimes {
        while runtime.metrics().num_alive_tasks() > 0 {
            assert!(
                Instant::now() < longest_flight,
                "a task outlives its flight"
            );
            std::thread::sleep(ms(5));
        }
    }
    drop(runtimes);

    assert_eq!(
        source.most.load(Ordering::SeqCst),
        1,
        "token requests at once for one kind"
    );
    let requests = source.requests.load(Ordering::Relaxed);
    assert!(requests > 100, "{requests}");
    assert!(
        sent <= requests && requests - sent < 10,
        "{sent} of {requests}"
    );

    let [begun, served, failed, left, longest] = [
        &tally.begun,
        &tally.served,
        &tally.failed,
        &tally.left,
        &tally.longest,
    ]
    .map(|count| count.load(Ordering::Relaxed));
    println!(
        "{begun} calls: {served} served, {failed} failed, {left} left; {requests} token requests; \
         longest wait {longest} ms"
    );
    assert_eq!(begun, served + failed + left);
    assert!(served > 1000 && failed > 100 && left > 100);
    assert!(
        u128::from(longest) < FLIGHT_TIMEOUT.as_millis(),
        "{longest} ms"
    );
}

/// Enough for three attempts and their pauses, even on a busy machine.
const FLIGHT_TIMEOUT: Duration = Duration::from_secs(5);
