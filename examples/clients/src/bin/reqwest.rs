//! reqwest inside the layer, and for the token requests too. To run it:
//! `cargo run -p tower-oauth-examples --bin reqwest`.
//!
//! reqwest's client is a tower service of its own request type. [`service`], which is there to be
//! copied, makes one of `http`'s types of it. Requests can still be built with reqwest and answers
//! read with it, as [`get`] does.
//!
//! It starts an emulated gateway on loopback and ends with an error when something is not as it
//! says.

#[path = "../../../gateway/mod.rs"]
mod gateway;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::Full;
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Response, StatusCode};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_oauth::{BoxError, OAuthLayer, Replayed};

use crate::gateway::{Config, Gateway};

/// reqwest's client with `http`'s types.
///
/// A request can fail to become reqwest's when its URI is not a URL, hence `filter` and not
/// `map_request`.
fn service(client: Client) -> impl HttpService<Body> {
    ServiceBuilder::new()
        .filter(reqwest::Request::try_from)
        .map_response(http::Response::<Body>::from)
        .service(client)
}

/// The same for token requests, whose body the layer makes.
fn token_client(client: Client) -> impl HttpService<Full<Bytes>> {
    ServiceBuilder::new()
        .map_request(|request: http::Request<Full<Bytes>>| request.map(Body::wrap))
        .service(service(client))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let gateway = Gateway::start(Config::default()).await?;
    // A client that follows redirects would take the client's credentials along.
    let tokens = Client::builder()
        .redirect(Policy::none())
        .timeout(Duration::from_secs(5))
        .build()?;
    let oauth =
        OAuthLayer::client_credentials(gateway.token_url(), "consumer-key", "consumer-secret")
            .scope("aisp")
            .token_client(token_client(tokens))
            .build()?
            // reqwest can tell whether a body is one that it can send again.
            .replay_with(|body: &Body| Some(Body::from(Bytes::copy_from_slice(body.as_bytes()?))));
    let client = Client::new();
    let api = oauth.layer(service(client.clone()));

    let url = gateway.api_url("/accounts");
    let calls = (0..CALLS).map(|_| get(&client, api.clone(), &url));
    let answers = try_join_all(calls).await?;
    let good = answers
        .iter()
        .filter(|answer| answer.status() == StatusCode::OK);
    let (good, requests) = (good.count(), gateway.token_requests());
    println!("{CALLS} calls at once: {good} are 200 OK, token requests: {requests}");
    assert_eq!((good, requests), (CALLS, 1));

    gateway.revoke_all();
    let answer = get(&client, api, &url).await?;
    let replayed = answer.extensions().get::<Replayed>().is_some();
    let (status, requests) = (answer.status(), gateway.token_requests());
    println!("after a revocation: {status}, sent again: {replayed}, token requests: {requests}");
    println!("the body, read by reqwest: {}", answer.text().await?);
    assert_eq!((status, replayed, requests), (StatusCode::OK, true, 2));
    Ok(())
}

/// One call, from reqwest's builder to reqwest's response.
async fn get(
    client: &Client,
    api: impl HttpService<Body>,
    url: &str,
) -> Result<Response, BoxError> {
    let request = client
        .get(url)
        .header("accept", "application/json")
        .build()?;
    let answer = api.oneshot(request.try_into()?).await?;
    Ok(answer.into())
}

/// A service that the layer can wrap, or use for its token requests.
trait HttpService<B>:
    Service<http::Request<B>, Response = http::Response<Body>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S, B> HttpService<B> for S where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

const CALLS: usize = 100;
