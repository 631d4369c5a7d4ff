//! What a thread loses when another one uses the same layer: reference counts that both touch are
//! contended cache lines.
//!
//! `cargo bench --bench scaling` prints the throughput of one of two threads as a share of that of
//! one thread alone. The machine needs two cores that are not too busy. No gate: it measures time.

mod support;

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use http::{Request, Response, StatusCode};
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;

use support::{Body, NoOp, Prebuilt, everything, request, send, token};

fn main() {
    // `cargo test --benches` runs this too, to see that it still does.
    let (rounds, requests) = if std::env::args().any(|argument| argument == "--bench") {
        (400, 3_000)
    } else {
        (1, 10)
    };
    let measure = Measure { rounds, requests };
    println!(
        "{:<34} {:>10} {:>10} {:>7}",
        "", "ns, alone", "one of two", "rounds"
    );
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
            alone.extend(self.round(1, &worker));
            shared.extend(self.round(2, &worker));
        }
        let rounds = shared.len();
        let [alone, shared] = [alone, shared].map(lower_quartile);
        let share = alone / shared;
        println!("{name:<34} {alone:>10.1} {share:>10.2} {rounds:>7}");
    }

    /// Nanoseconds for one request of the slower thread; nothing when the threads did not run at
    /// the same time. Rounds are short, so that in many of them no thread is interrupted.
    fn round<W: FnMut() -> StatusCode>(
        &self,
        threads: usize,
        worker: &(impl Fn() -> W + Sync),
    ) -> Option<f64> {
        let arrived = &AtomicUsize::new(0);
        let work = || {
            let mut work = worker();
            for _ in 0..self.requests / 10 {
                work();
            }
            arrived.fetch_add(1, Ordering::Relaxed);
            while arrived.load(Ordering::Relaxed) < threads {
                spin_loop();
            }
            let began = Instant::now();
            for _ in 0..self.requests {
                work();
            }
            (began, Instant::now())
        };
        let times: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let times = workers.into_iter().map(|worker| worker.join());
            times.map(|time| time.expect("a worker")).collect()
        });
        let longest = times.iter().map(|(began, ended)| *ended - *began).max()?;
        let together = times.iter().map(|(_, ended)| *ended).min()?
            - times.iter().map(|(began, _)| *began).max()?;
        let together = together.as_secs_f64() > 0.9 * longest.as_secs_f64();
        together.then(|| longest.as_nanos() as f64 / self.requests as f64)
    }
}

fn lower_quartile(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 4).copied().unwrap_or(f64::NAN)
}
