use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::BodyExt;
use huskarl::authorizer::HttpAuthorizer;
use huskarl::cache::{GrantTokenSource, InMemoryRefreshTokenStore, InMemoryTokenCache};
use huskarl::core::client_auth::ClientSecret;
use huskarl::core::http::{HttpClient, HttpResponse, Idempotency};
use huskarl::core::platform::MaybeSendBoxFuture;
use huskarl::core::secrets::{ProvidedSecret, SecretString};
use huskarl::grant::client_credentials::{
    ClientCredentialsGrant, ClientCredentialsGrantParameters,
};
use tower::Service;

use super::Contestant;
use crate::endpoint::Endpoint;
use crate::request::{Client, Error, Sink, URL, authorization, fresh};

pub struct Huskarl;

#[derive(Clone)]
pub struct HuskarlClient(Arc<HttpAuthorizer>);

struct TokenClient(Arc<Endpoint>);

impl HttpClient for TokenClient {
    fn execute(
        &self,
        _: Request<Bytes>,
        _: Idempotency,
    ) -> MaybeSendBoxFuture<'_, Result<HttpResponse, huskarl::core::Error>> {
        Box::pin(async {
            let (parts, body) = self.0.answer().await.into_parts();
            let Ok(body) = body.collect().await;
            Ok(HttpResponse {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            })
        })
    }
}

impl Contestant for Huskarl {
    type Client = HuskarlClient;

    const NAME: &'static str = "`huskarl`";
    const PACKAGE: Option<&'static str> = Some("huskarl");

    async fn client(endpoint: &Arc<Endpoint>) -> Result<HuskarlClient, Error> {
        let secret = ProvidedSecret::new(SecretString::new("secret"));
        let grant = ClientCredentialsGrant::builder()
            .client_id("id")
            .client_auth(ClientSecret::new(secret))
            .token_endpoint("https://gw.example/token".parse()?)
            .http_client(TokenClient(Arc::clone(endpoint)))
            .build();
        let source = GrantTokenSource::builder()
            .grant(grant)
            .grant_parameters(ClientCredentialsGrantParameters::new())
            .refresh_store(InMemoryRefreshTokenStore::default())
            .build();
        let cache = InMemoryTokenCache::builder().source(source).build();
        let authorizer = HttpAuthorizer::builder().cache(cache).build();
        Ok(HuskarlClient(Arc::new(authorizer)))
    }
}

impl Client for HuskarlClient {
    type Sent = HeaderMap;

    // Its documentation asks for `process_response` after every answer.
    async fn request(&mut self) -> Result<HeaderMap, Error> {
        let uri = Uri::from_static(URL);
        let mut request = fresh();
        let headers = self.0.get_headers(&Method::GET, &uri).await?;
        request.headers_mut().extend(headers);
        let response = Sink::<Error>::new().call(request).await?;
        self.0.process_response(&uri, response.headers());
        Ok(response.into_body())
    }

    fn authorization(sent: &HeaderMap) -> Option<&str> {
        authorization(sent)
    }
}
