//! Sends requests through one contestant: `instructions CONTESTANT COUNT`.
//!
//! Two runs under callgrind whose counts differ tell what one request costs, start-up excluded. Less what the same request
//! costs without any layer, that is the contestant's own share.

#[path = "../../support/mod.rs"]
mod support;

use http::Request;
use tower::Layer;
use tower_http::auth::AddAuthorizationLayer;

use support::{
    Body, NoOp, Prebuilt, asking_request, everything, other, plain, request, send, token,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["list"] => CONTESTANTS.iter().for_each(|(name, _)| println!("{name}")),
        [name, count] => {
            let known = CONTESTANTS.iter().find(|(known, _)| *known == name);
            let (_, run) = known.expect("a contestant, see `instructions list`");
            run(count.parse().expect("a count"));
        }
        _ => panic!("usage: instructions (CONTESTANT COUNT | list)"),
    }
}

/// A name, and what sends so many requests.
type Contestant = (&'static str, fn(usize));

const CONTESTANTS: &[Contestant] = &[
    ("none", |count| repeat(count, request, NoOp)),
    ("none-token-request", |count| {
        let other = other();
        repeat(count, || asking_request(&other), NoOp);
    }),
    ("prebuilt-header", |count| {
        repeat(count, request, Prebuilt::new(NoOp))
    }),
    ("add-authorization", |count| {
        let layer = AddAuthorizationLayer::bearer(&token()).as_sensitive(true);
        repeat(count, request, layer.layer(NoOp));
    }),
    ("oauth", |count| repeat(count, request, plain().layer(NoOp))),
    ("oauth-all", |count| {
        repeat(count, request, everything().layer(NoOp))
    }),
    ("oauth-fresh-clone", |count| {
        let service = everything().layer(NoOp);
        for _ in 0..count {
            send(&mut service.clone(), request());
        }
    }),
    ("oauth-replay", |count| {
        let layer = everything().replay_unauthorized();
        repeat(count, request, layer.layer(NoOp));
    }),
    ("oauth-token-request", |count| {
        let other = other();
        repeat(count, || asking_request(&other), everything().layer(NoOp));
    }),
];

fn repeat<S>(count: usize, make: impl Fn() -> Request<Body>, mut service: S)
where
    S: tower::Service<Request<Body>, Response = http::Response<Body>>,
{
    for _ in 0..count {
        send(&mut service, make());
    }
}
