use std::sync::Arc;

use google_cloud_auth::credentials::user_account::Builder;
use google_cloud_auth::credentials::{CacheableResource, Credentials};
use http::{Extensions, HeaderMap};
use tower::Service;

use super::{Contestant, Reached};
use crate::endpoint::Endpoint;
use crate::request::{Client, Error, Sink, authorization, fresh};

/// With the grant of its own that takes a token endpoint: a user's refresh token.
pub struct Google;

#[derive(Clone)]
pub struct GoogleClient(Credentials);

impl Contestant for Google {
    type Client = GoogleClient;

    const NAME: &'static str = "`google-cloud-auth`";
    const PACKAGE: Option<&'static str> = Some("google-cloud-auth");
    const REACHED: Reached = Reached::Loopback;

    async fn client(endpoint: &Arc<Endpoint>) -> Result<GoogleClient, Error> {
        let user = serde_json::json!({
            "type": "authorized_user",
            "client_id": "id",
            "client_secret": "secret",
            "refresh_token": "refresh",
        });
        let credentials = Builder::new(user)
            .with_token_uri(endpoint.serve().await?)
            .build()?;
        Ok(GoogleClient(credentials))
    }
}

impl Client for GoogleClient {
    type Sent = HeaderMap;

    async fn request(&mut self) -> Result<HeaderMap, Error> {
        let mut request = fresh();
        match self.0.headers(Extensions::new()).await? {
            CacheableResource::New { data, .. } => request.headers_mut().extend(data),
            CacheableResource::NotModified => return Err("no entity tag was sent".into()),
        }
        let response = Sink::<Error>::new().call(request).await?;
        Ok(response.into_body())
    }

    fn authorization(sent: &HeaderMap) -> Option<&str> {
        authorization(sent)
    }
}
