use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service};
use tower_oauth::{BoxError, OAuth, OAuthLayer};

use super::Contestant;
use crate::endpoint::Endpoint;
use crate::request::{Error, Sink, Tower};

/// This crate, with its defaults and the destination check.
pub struct TowerOAuth;

#[derive(Clone)]
struct TokenClient(Arc<Endpoint>);

impl Service<Request<Full<Bytes>>> for TokenClient {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        let endpoint = Arc::clone(&self.0);
        Box::pin(async move { Ok(endpoint.answer().await) })
    }
}

impl Contestant for TowerOAuth {
    type Client = Tower<OAuth<Sink>>;

    const NAME: &'static str = "**tower-oauth**";
    const PACKAGE: Option<&'static str> = Some("tower-oauth");

    async fn client(endpoint: &Arc<Endpoint>) -> Result<Self::Client, Error> {
        let layer = OAuthLayer::client_credentials("https://gw.example/token", "id", "secret")
            .allow_origin("https://api.example")
            .token_client(TokenClient(Arc::clone(endpoint)))
            .build()?;
        Ok(Tower(layer.layer(Sink::new())))
    }
}
