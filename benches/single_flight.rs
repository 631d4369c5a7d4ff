//! A burst of callers who find no token, against an endpoint that answers after 50 ms.
//!
//! `cargo bench --bench single_flight`. The times are those beyond the endpoint's delay: what it costs to gather the callers
//! and to wake them. That there was one token request is asserted each time.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::OAuthLayer;

use support::{NoOp, Slow, request};

criterion_main!(benches);
criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = single_flight
}

fn single_flight(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("single_flight, beyond the delay");
    for callers in [1, 100, 10_000] {
        group.bench_function(BenchmarkId::from_parameter(callers), |bencher| {
            bencher
                .iter_custom(|bursts| (0..bursts).map(|_| runtime.block_on(burst(callers))).sum());
        });
    }
    group.finish();
}

/// How much longer than the endpoint the last caller took.
async fn burst(callers: usize) -> Duration {
    let source = Arc::new(Slow::new(DELAY));
    let service = OAuthLayer::new(Arc::clone(&source)).layer(NoOp);
    let began = Instant::now();
    let mut tasks = Vec::with_capacity(callers);
    for _ in 0..callers {
        let mut service = service.clone();
        tasks.push(tokio::spawn(async move {
            service.ready().await?.call(request()).await
        }));
    }
    for task in tasks {
        task.await.expect("no panic").expect("a token");
    }
    let took = began.elapsed();
    assert_eq!(source.requests(), 1, "token requests for {callers} callers");
    took.saturating_sub(DELAY)
}

const DELAY: Duration = Duration::from_millis(50);
