//! A request with a token at hand, around a service that does nothing; the making of the request is
//! not timed.
//!
//! `cargo bench --bench hot_path`. Time is the machine's; for figures that can be compared, count
//! instructions (`.ci/instructions`).

mod support;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;

use support::{
    Body, NoOp, Prebuilt, asking_request, everything, other, plain, request, send, token,
};

criterion_main!(benches);
criterion_group!(benches, hot_path);

fn hot_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot_path");
    let add_authorization = AddAuthorizationLayer::bearer(&token()).as_sensitive(true);
    bench(&mut group, "no layer", request, NoOp);
    bench(&mut group, "prebuilt header", request, Prebuilt::new(NoOp));
    bench(
        &mut group,
        "AddAuthorizationLayer",
        request,
        add_authorization.layer(NoOp),
    );
    bench(&mut group, "OAuthLayer", request, plain().layer(NoOp));
    bench(
        &mut group,
        "OAuthLayer, every check",
        request,
        everything().layer(NoOp),
    );
    let replaying = everything().replay_unauthorized();
    bench(
        &mut group,
        "OAuthLayer, replay",
        request,
        replaying.layer(NoOp),
    );

    let other = other();
    let asking = || asking_request(&other);
    bench(&mut group, "no layer, TokenParams", asking, NoOp);
    bench(
        &mut group,
        "OAuthLayer, TokenParams",
        asking,
        everything().layer(NoOp),
    );
    group.finish();
}

fn bench<S>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    make: impl Fn() -> Request<Body>,
    mut service: S,
) where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    group.bench_function(name, |bencher| {
        bencher.iter_batched(
            &make,
            |request| send(&mut service, request),
            BatchSize::SmallInput,
        );
    });
}
