//! Sends requests through one cell: `instructions CELL COUNT`.
//!
//! A cell is an inner service and what is around it, `hyper/oauth` say. Two runs under callgrind
//! whose counts differ tell what one request costs, start-up excluded. Less what the same request
//! costs without any layer (`hyper/none`), that is the layer's own share.

mod inner;
mod minimal;
#[path = "../../support/mod.rs"]
mod support;

use http::{Request, Uri};
use std::sync::LazyLock;
use tower::Layer;
use tower_http::auth::AddAuthorizationLayer;

use inner::{Hyper, Inner, Sized110, Sized400, Unboxed};
use minimal::Minimal;
use support::{Body, Prebuilt, asking_request, everything, other, plain, request, token};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cells = cells();
    match arguments[..] {
        ["list"] => cells.iter().for_each(|(name, _)| println!("{name}")),
        [name, count] => {
            let known = cells.iter().find(|(known, _)| known == name);
            let (_, run) = known.expect("a cell, see `instructions list`");
            run(count.parse().expect("a count"));
        }
        _ => panic!("usage: instructions (CELL COUNT | list)"),
    }
}

/// A name, and what sends so many requests.
type Cell = (String, Run);

type Run = fn(usize);

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    // The types of hyper-util's client, as most stacks have them; the same with a future that is
    // not boxed and an error that cannot come; and responses of 110 and 400 bytes.
    add::<Hyper>(&mut cells, "hyper");
    add::<Unboxed>(&mut cells, "unboxed");
    add::<Sized110>(&mut cells, "110");
    add::<Sized400>(&mut cells, "400");
    let rest: [(&str, Run); 6] = [
        ("110/prebuilt-header", |count| {
            repeat(count, request, Prebuilt::new(Sized110::new()));
        }),
        ("110/add-authorization", |count| {
            let layer = AddAuthorizationLayer::bearer(&token()).as_sensitive(true);
            repeat(count, request, layer.layer(Sized110::new()));
        }),
        ("110/oauth-fresh-clone", |count| {
            let service = everything().layer(Sized110::new());
            for _ in 0..count {
                drop(support::call(&mut service.clone(), request()));
            }
        }),
        ("110/oauth-replay", |count| {
            let layer = everything().replay_unauthorized();
            repeat(count, request, layer.layer(Sized110::new()));
        }),
        ("110/none-params", |count| {
            let other = other();
            repeat(count, || asking_request(&other), Sized110::new());
        }),
        ("110/oauth-params", |count| {
            let other = other();
            repeat(
                count,
                || asking_request(&other),
                everything().layer(Sized110::new()),
            );
        }),
    ];
    cells.extend(rest.map(|(name, run)| (String::from(name), run)));
    cells
}

fn add<S: Inner>(cells: &mut Vec<Cell>, inner: &str) {
    let runs: [(&str, Run); 6] = [
        ("none", |count| repeat(count, request, S::new())),
        ("minimal", |count| {
            repeat(count, request, Minimal::new(S::new()));
        }),
        ("oauth", |count| {
            repeat(count, request, plain().layer(S::new()));
        }),
        ("oauth-list", |count| {
            repeat(count, request, everything().layer(S::new()));
        }),
        ("none-loopback", |count| repeat(count, loopback, S::new())),
        ("oauth-loopback", |count| {
            repeat(count, loopback, plain().layer(S::new()));
        }),
    ];
    cells.extend(runs.map(|(name, run)| (format!("{inner}/{name}"), run)));
}

#[inline(never)]
fn loopback() -> Request<Body> {
    static URI: LazyLock<Uri> =
        LazyLock::new(|| Uri::from_static("http://127.0.0.1:8080/v1/accounts"));

    let mut request = request();
    *request.uri_mut() = URI.clone();
    request
}

fn repeat<S, T>(count: usize, make: impl Fn() -> Request<Body>, mut service: S)
where
    S: tower::Service<Request<Body>, Response = http::Response<T>>,
    T: inner::Answer,
{
    for _ in 0..count {
        T::give_back(support::call(&mut service, make()));
    }
}
