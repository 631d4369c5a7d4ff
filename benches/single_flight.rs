//! A burst of callers who find no token, against an endpoint that answers after 50 ms.
//!
//! `cargo bench --bench single_flight`. The times are those beyond the endpoint's delay: what it
//! costs to gather the callers and to wake them. That there was one token request is asserted each
//! time.

#[path = "support/burst.rs"]
mod burst;
mod support;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;

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
            bencher.iter_custom(|bursts| {
                (0..bursts)
                    .map(|_| runtime.block_on(beyond_the_delay(callers)))
                    .sum()
            });
        });
    }
    group.finish();
}

/// How much longer than the endpoint the last caller took.
async fn beyond_the_delay(callers: usize) -> Duration {
    burst::cold(callers, DELAY).await.saturating_sub(DELAY)
}

const DELAY: Duration = Duration::from_millis(50);
