use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::http::headers::{AUTHORIZATION, HeaderName, HeaderValue, Headers};
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{AsyncRawResponse, Context, Method, Request, StatusCode, Url};
use azure_core::time::OffsetDateTime;
use bytes::Bytes;

use super::{Contestant, Dialect, Kind};
use crate::endpoint::{Endpoint, LIFE};
use crate::request::{Client, Error, HEADERS, URL};

static PARSED_URL: LazyLock<Url> = LazyLock::new(|| URL.parse().expect("a valid URL"));

fn fresh() -> Request {
    let mut headers = HashMap::with_capacity(4);
    for (name, value) in HEADERS {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let mut request = Request::new(PARSED_URL.clone(), Method::Get);
    *request.headers_mut() = Headers::from(headers);
    request
}

/// The bearer-token policy, without the rest of an SDK client.
pub struct Azure;

/// A pipeline: the policies of which the last one is the transport.
#[derive(Clone)]
pub struct Pipeline(Arc<[Arc<dyn Policy>]>);

#[derive(Debug)]
struct Transport;

#[async_trait]
impl Policy for Transport {
    async fn send(&self, _: &Context, _: &mut Request, _: &[Arc<dyn Policy>]) -> PolicyResult {
        Ok(AsyncRawResponse::from_bytes(
            StatusCode::Ok,
            Headers::new(),
            Bytes::new(),
        ))
    }
}

#[derive(Debug)]
struct Credential(Arc<Endpoint>);

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let token = self.0.token().await?;
        Ok(AccessToken::new(token, OffsetDateTime::now_utc() + LIFE))
    }
}

impl Contestant for Azure {
    type Client = Pipeline;

    const NAME: &'static str = "`azure_core`'s bearer-token policy";
    const PACKAGE: Option<&'static str> = Some("azure_core");
    const DIALECT: Dialect = Dialect::Azure;

    async fn client(endpoint: &Arc<Endpoint>) -> Result<Pipeline, Error> {
        let credential = Arc::new(Credential(Arc::clone(endpoint)));
        let policy = BearerTokenAuthorizationPolicy::new(credential, ["scope"]);
        Ok(Pipeline(Arc::new([Arc::new(policy), Arc::new(Transport)])))
    }
}

pub struct BareAzure;

impl Contestant for BareAzure {
    type Client = Pipeline;

    const NAME: &'static str = "no layer, an `azure_core` request";
    const KIND: Kind = Kind::Bare;
    const DIALECT: Dialect = Dialect::Azure;

    async fn client(_: &Arc<Endpoint>) -> Result<Pipeline, Error> {
        Ok(Pipeline(Arc::new([Arc::new(Transport)])))
    }
}

impl Client for Pipeline {
    type Sent = Request;

    async fn request(&mut self) -> Result<Request, Error> {
        let mut request = fresh();
        let context = Context::new();
        self.0[0].send(&context, &mut request, &self.0[1..]).await?;
        Ok(request)
    }

    fn authorization(sent: &Request) -> Option<&str> {
        sent.headers().get_optional_str(&AUTHORIZATION)
    }
}
