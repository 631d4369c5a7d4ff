use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use middle::{Authorizer, BasicClientCredentialAuthorizer, BasicClientCredentialAuthorizerBuilder};
use tower::Service;

use super::{Contestant, Kind, Reached};
use crate::endpoint::Endpoint;
use crate::request::{Client, Error, Sink, authorization, fresh};

pub struct Middle;

#[derive(Clone)]
pub struct MiddleClient(BasicClientCredentialAuthorizer);

impl Contestant for Middle {
    type Client = MiddleClient;

    const NAME: &'static str = "`middle`";
    const PACKAGE: Option<&'static str> = Some("middle");
    const KIND: Kind = Kind::Eager;
    const REACHED: Reached = Reached::Loopback;

    async fn client(endpoint: &Arc<Endpoint>) -> Result<MiddleClient, Error> {
        let url = endpoint.serve().await?.parse()?;
        let authorizer = BasicClientCredentialAuthorizerBuilder::new("id", "secret", url)
            .build()
            .await?;
        Ok(MiddleClient(authorizer))
    }
}

impl Client for MiddleClient {
    type Sent = HeaderMap;

    // As its `HttpClient` does for reqwest.
    async fn request(&mut self) -> Result<HeaderMap, Error> {
        let mut request = fresh();
        let value = Arc::unwrap_or_clone(self.0.authorization_header()?);
        request.headers_mut().insert(AUTHORIZATION, value);
        let response = Sink::<Error>::new().call(request).await?;
        Ok(response.into_body())
    }

    fn authorization(sent: &HeaderMap) -> Option<&str> {
        authorization(sent)
    }
}
