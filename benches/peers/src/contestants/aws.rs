use std::future::ready;
use std::sync::Arc;
use std::time::SystemTime;

use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::auth::http::BearerAuthScheme;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::endpoints::StaticUriEndpointResolver;
use aws_smithy_runtime::client::retries::strategy::NeverRetryStrategy;
use aws_smithy_runtime_api::client::auth::http::HTTP_BEARER_AUTH_SCHEME_ID;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{AuthScheme, AuthSchemeEndpointConfig};
use aws_smithy_runtime_api::client::identity::http::Token;
use aws_smithy_runtime_api::client::identity::{
    Identity, IdentityFuture, ResolveCachedIdentity, ResolveIdentity, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{
    RuntimeComponents, RuntimeComponentsBuilder,
};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;

use super::{Contestant, Dialect, Kind};
use crate::endpoint::{Endpoint, LIFE};
use crate::request::{Client, Error, HEADERS, URL};

fn fresh() -> Result<HttpRequest, Error> {
    let mut request = HttpRequest::new(SdkBody::empty());
    request.set_uri(URL)?;
    for (name, value) in HEADERS {
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// The identity cache with the bearer scheme, without the rest of an SDK client.
pub struct Smithy;

#[derive(Clone)]
pub struct SmithyClient(Arc<SmithyState>);

struct SmithyState {
    resolver: SharedIdentityResolver,
    scheme: BearerAuthScheme,
    components: RuntimeComponents,
    config: ConfigBag,
}

#[derive(Debug)]
struct Resolver(Arc<Endpoint>);

impl ResolveIdentity for Resolver {
    fn resolve_identity<'a>(
        &'a self,
        _: &'a RuntimeComponents,
        _: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async {
            let token = self.0.token().await?;
            let end = Some(SystemTime::now() + LIFE);
            Ok(Identity::new(Token::new(token, end), end))
        })
    }
}

impl Contestant for Smithy {
    type Client = SmithyClient;

    const NAME: &'static str = "`aws-smithy-runtime`'s identity cache";
    const PACKAGE: Option<&'static str> = Some("aws-smithy-runtime");
    const DIALECT: Dialect = Dialect::Smithy;

    async fn client(endpoint: &Arc<Endpoint>) -> Result<SmithyClient, Error> {
        let resolver = SharedIdentityResolver::new(Resolver(Arc::clone(endpoint)));
        let options = StaticAuthSchemeOptionResolver::new(vec![HTTP_BEARER_AUTH_SCHEME_ID]);
        let components = RuntimeComponentsBuilder::new("peers")
            .with_auth_scheme_option_resolver(Some(options))
            .with_auth_scheme(BearerAuthScheme::new())
            .with_identity_resolver(HTTP_BEARER_AUTH_SCHEME_ID, resolver.clone())
            .with_identity_cache(Some(IdentityCache::lazy().build()))
            .with_endpoint_resolver(Some(StaticUriEndpointResolver::uri(URL)))
            .with_retry_strategy(Some(NeverRetryStrategy::new()))
            .with_time_source(Some(SystemTimeSource::new()))
            .with_sleep_impl(Some(SharedAsyncSleep::new(TokioSleep::new())))
            .build()?;
        Ok(SmithyClient(Arc::new(SmithyState {
            resolver,
            scheme: BearerAuthScheme::new(),
            components,
            config: ConfigBag::base(),
        })))
    }
}

impl Client for SmithyClient {
    type Sent = HttpRequest;

    async fn request(&mut self) -> Result<HttpRequest, Error> {
        let SmithyState {
            resolver,
            scheme,
            components,
            config,
        } = &*self.0;
        let mut request = fresh()?;
        let identity = components
            .identity_cache()
            .resolve_cached_identity(resolver.clone(), components, config)
            .await?;
        scheme.signer().sign_http_request(
            &mut request,
            &identity,
            AuthSchemeEndpointConfig::empty(),
            components,
            config,
        )?;
        Ok(ready(request).await)
    }

    fn authorization(sent: &HttpRequest) -> Option<&str> {
        sent.headers().get("authorization")
    }
}

pub struct BareSmithy;

#[derive(Clone)]
pub struct BareSmithyClient;

impl Contestant for BareSmithy {
    type Client = BareSmithyClient;

    const NAME: &'static str = "no layer, an `aws-smithy` request";
    const KIND: Kind = Kind::Bare;
    const DIALECT: Dialect = Dialect::Smithy;

    async fn client(_: &Arc<Endpoint>) -> Result<BareSmithyClient, Error> {
        Ok(BareSmithyClient)
    }
}

impl Client for BareSmithyClient {
    type Sent = HttpRequest;

    async fn request(&mut self) -> Result<HttpRequest, Error> {
        Ok(ready(fresh()?).await)
    }

    fn authorization(sent: &HttpRequest) -> Option<&str> {
        sent.headers().get("authorization")
    }
}
