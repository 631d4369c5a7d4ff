//! An API refuses a token: suspicion, budget, replay.

#[path = "../support/mod.rs"]
mod support;

mod budget;
mod replay;
mod verdict;

use http::Response;
use support::*;
use tower::{Layer, ServiceExt};
use tower_oauth::{OAuthLayer, ReplayBody};

async fn call<R>(layer: &OAuthLayer<R>, api: &Api) -> Response<String>
where
    R: ReplayBody<String> + Clone,
{
    call_at(layer, api, API).await
}

async fn call_at<R>(layer: &OAuthLayer<R>, api: &Api, uri: &str) -> Response<String>
where
    R: ReplayBody<String> + Clone,
{
    layer.layer(api.clone()).oneshot(get(uri)).await.unwrap()
}

/// Refuses these tokens with this challenge.
fn refusing(tokens: &'static [&'static str], challenge: &'static str) -> Api {
    Api::new(move |authorization| {
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        if tokens.contains(&token) {
            unauthorized(challenge)
        } else {
            Response::new(String::from("hello"))
        }
    })
}

fn status(status: u16) -> Response<String> {
    Response::builder()
        .status(status)
        .body(String::new())
        .unwrap()
}
