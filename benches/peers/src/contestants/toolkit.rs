use std::sync::Arc;

use toolkit_auth::oauth2::BearerAuthLayer;
use toolkit_auth::{OAuthClientConfig, SecretString, TokenProvider};
use toolkit_http::HttpError;
use tower::Layer;

use super::{Contestant, Reached};
use crate::endpoint::Endpoint;
use crate::request::{Error, Sink, Tower};

pub struct Toolkit;

type BearerAuth = <BearerAuthLayer as Layer<Sink<HttpError>>>::Service;

impl Contestant for Toolkit {
    type Client = Tower<BearerAuth>;

    const NAME: &'static str = "`cf-gears-toolkit-auth`";
    const PACKAGE: Option<&'static str> = Some("cf-gears-toolkit-auth");
    const REACHED: Reached = Reached::Loopback;

    async fn client(endpoint: &Arc<Endpoint>) -> Result<Self::Client, Error> {
        let provider = TokenProvider::new(OAuthClientConfig {
            token_endpoint: Some(endpoint.serve().await?.parse()?),
            client_id: "id".into(),
            client_secret: SecretString::new("secret"),
            ..OAuthClientConfig::default()
        })?;
        Ok(Tower(BearerAuthLayer::new(provider).layer(Sink::new())))
    }
}
