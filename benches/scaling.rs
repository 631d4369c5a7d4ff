//! What a thread loses when another one uses the same layer: reference counts that both touch are contended cache lines.
//!
//! `cargo bench --bench scaling` prints the throughput of one of two threads as a share of that of one thread alone. The
//! machine needs two cores with nothing else to do. No gate: it measures time.

mod support;

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;

use support::{Body, NoOp, Prebuilt, everything, request, send, token};

fn main() {
    // `cargo test --benches` runs this too, to see that it still does.
    let (rounds, requests) = if std::env::args().any(|argument| argument == "--bench") {
        (31, 100_000)
    } else {
        (1, 10)
    };
    let measure = Measure { rounds, requests };
    println!("{:<34} {:>10} {:>10}", "", "ns, alone", "share of 2");
    measure.own_clones("no layer", &NoOp);
    measure.own_clones("prebuilt header", &Prebuilt::new(NoOp));
    measure.own_clones(
        "AddAuthorizationLayer",
        &AddAuthorizationLayer::bearer(&token()).layer(NoOp),
    );
    measure.own_clones("OAuthLayer, own clones", &everything().layer(NoOp));
    measure.fresh_clones("prebuilt header, fresh clones", &Prebuilt::new(NoOp));
    measure.fresh_clones("OAuthLayer, fresh clones", &everything().layer(NoOp));
}

struct Measure {
    rounds: usize,
    requests: usize,
}

impl Measure {
    /// Each thread has a clone of its own and keeps it.
    fn own_clones<S>(&self, name: &str, service: &S)
    where
        S: Service<Request<Body>, Response = Response<Body>> + Clone + Sync,
    {
        self.compare(name, || {
            let mut service = service.clone();
            move || send(&mut service, request())
        });
    }

    /// Each request has a clone of its own, as handlers make them of a service in their state.
    fn fresh_clones<S>(&self, name: &str, service: &S)
    where
        S: Service<Request<Body>, Response = Response<Body>> + Clone + Sync,
    {
        self.compare(name, || move || send(&mut service.clone(), request()));
    }

    fn compare<W: FnMut() -> StatusCode>(&self, name: &str, worker: impl Fn() -> W + Sync) {
        let (mut alone, mut shared) = (Vec::new(), Vec::new());
        // In turns, so that what slows the machine for a while slows both.
        for _ in 0..self.rounds {
            alone.push(self.round(1, &worker));
            shared.push(self.round(2, &worker));
        }
        let (alone, shared) = (median(alone), median(shared));
        println!("{name:<34} {alone:>10.1} {:>10.2}", alone / shared);
    }

    /// Nanoseconds for one request of one thread.
    fn round<W: FnMut() -> StatusCode>(
        &self,
        threads: u32,
        worker: &(impl Fn() -> W + Sync),
    ) -> f64 {
        let start = &Barrier::new(threads as usize);
        let work = || {
            let mut work = worker();
            start.wait();
            let began = Instant::now();
            for _ in 0..self.requests {
                work();
            }
            began.elapsed()
        };
        let total: Duration = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("a worker"))
                .sum()
        });
        total.as_nanos() as f64 / f64::from(threads) / self.requests as f64
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
