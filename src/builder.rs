//! The builder of a layer: what the grant needs, and what the layer does with the token.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tower::Service;

use crate::cache::{Cache, CacheConfig, CachePolicy};
use crate::clock::Clock;
use crate::destination::Destinations;
use crate::endpoint::ClientCredentialsBuilder;
use crate::error::{BoxError, BuildError};
use crate::layer::OAuthLayer;
use crate::observe::{Observer, Watch};
use crate::origin::Origin;
use crate::params::TokenParams;
use crate::service::Shared;
use crate::source::TokenSource;

/// Builds an [`OAuthLayer`].
///
/// `G` is the grant: [`ClientCredentialsBuilder`], which has settings of its own here, or a [`TokenSource`] of yours. A value that is
/// wrong is reported by `build`, not where it is given.
#[must_use]
pub struct OAuthLayerBuilder<G> {
    grant: G,
    params: Result<TokenParams, BuildError>,
    destinations: Result<Destinations, BuildError>,
    keep_authorization: bool,
    unauthorized: Vec<StatusCode>,
    policy: CachePolicy,
    watch: Watch,
    clock: Clock,
}

impl<G> OAuthLayerBuilder<G> {
    pub(crate) fn new(grant: G) -> Self {
        Self {
            grant,
            params: Ok(TokenParams::new()),
            destinations: Ok(Destinations::default()),
            keep_authorization: false,
            unauthorized: Vec::new(),
            policy: CachePolicy::default(),
            watch: Watch::default(),
            clock: Clock::default(),
        }
    }

    /// Adds scopes to ask for, space-separated (RFC 6749 §3.3). Default: none sent, and the server gives its default.
    pub fn scope(self, scope: impl AsRef<str>) -> Self {
        self.ask(|params| params.with_scope(scope))
    }

    /// The `audience` parameter that some servers ask for. Default: not sent.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.ask(|params| Ok(params.with_audience(audience)))
    }

    /// Adds a resource indicator (RFC 8707), an absolute URI. A server that wants something else under that name gets it by
    /// `parameter("resource", ..)`.
    pub fn resource(self, resource: impl Into<String>) -> Self {
        self.ask(|params| params.with_resource(resource))
    }

    /// Adds a parameter of the server's own to the token request. One name may be given several times, and all are sent, in their
    /// order. The value is taken for a secret, see [`TokenParams::with_parameter`].
    pub fn parameter(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.ask(|params| params.with_parameter(name, value))
    }

    fn ask(mut self, ask: impl FnOnce(TokenParams) -> Result<TokenParams, BuildError>) -> Self {
        self.params = self.params.and_then(ask);
        self
    }

    /// Lets the token go to this origin (`https://api.example`, `https://api.example:8443`), and no longer to any other that was
    /// not named. May be called again for more.
    ///
    /// Recommended: without it the token goes to every `https` origin and to loopback. Naming an
    /// `http` origin here is the consent to send the token to it in the clear. A name with letters
    /// outside ASCII is written in punycode (`xn--`).
    pub fn allow_origin(self, origin: impl AsRef<str>) -> Self {
        self.destine(|destinations| {
            destinations.allowed.push(origin.as_ref().parse()?);
            Ok(())
        })
    }

    /// Sends requests for origins that may not get the token as they are, without one. Default:
    /// they fail. A request whose URI does not clearly say where it goes, such as
    /// `https://api.example:99999/`, fails all the same.
    pub fn skip_other_origins(self) -> Self {
        self.destine(|destinations| {
            destinations.skip_others = true;
            Ok(())
        })
    }

    /// The origin that requests go to whose URI is only a path, as tonic's are here: its channel adds the origin further in.
    /// Without it such requests fail before a token is asked for.
    /// Once [`allow_origin`](Self::allow_origin) is used, it must be named there too.
    pub fn assume_origin(self, origin: impl AsRef<str>) -> Self {
        self.destine(|destinations| {
            destinations.assumed = Some(origin.as_ref().parse::<Origin>()?);
            Ok(())
        })
    }

    fn destine(
        mut self,
        destine: impl FnOnce(&mut Destinations) -> Result<(), BuildError>,
    ) -> Self {
        self.destinations = self.destinations.and_then(|mut destinations| {
            destine(&mut destinations)?;
            Ok(destinations)
        });
        self
    }

    /// Leaves a request alone that has an `Authorization` header already. Default: the header is replaced.
    pub fn keep_existing_authorization(mut self) -> Self {
        self.keep_authorization = true;
        self
    }

    /// Takes this status for a refused token too, as 401 is. For APIs that answer a dead token with 403 or 419. May be called again for
    /// more. Default: 401 alone. 1xx, 2xx and 304 refuse nothing and are a [`BuildError::Setting`].
    pub fn treat_as_unauthorized(mut self, status: StatusCode) -> Self {
        self.unauthorized.push(status);
        self
    }

    /// When tokens are renewed, how long a fetch may take, and how failures back off. Default: [`CachePolicy::new`].
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// An observer that is told what happens in the cache. May be called again for more.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.watch.add(observer);
        self
    }

    /// A clock for tests.
    #[cfg(feature = "test-util")]
    pub fn clock(mut self, clock: crate::clock::ManualClock) -> Self {
        self.clock = Clock::Manual(clock);
        self
    }

    fn build_with<T: TokenSource>(
        self,
        source: impl FnOnce(G) -> Result<T, BuildError>,
    ) -> Result<OAuthLayer, BuildError> {
        self.policy.check()?;
        // A status that a healthy API answers with would make every call renew the token.
        let refuses = |status: &&StatusCode| {
            !(status.is_informational() || status.is_success())
                && **status != StatusCode::NOT_MODIFIED
        };
        if let Some(&status) = self.unauthorized.iter().find(|status| !refuses(status)) {
            return Err(BuildError::treat_as_unauthorized(status));
        }
        let config = CacheConfig {
            policy: self.policy,
            own: self.params?,
            unauthorized: self.unauthorized.into(),
            clock: self.clock,
            watch: self.watch,
        };
        let destinations = self.destinations?;
        destinations.check_assumed()?;
        Ok(OAuthLayer::from_shared(Shared {
            cache: Cache::new(Arc::new(source(self.grant)?), config),
            destinations,
            keep_authorization: self.keep_authorization,
        }))
    }
}

impl OAuthLayerBuilder<ClientCredentialsBuilder> {
    /// The HTTP client for token requests, see [`ClientCredentialsBuilder::token_client`].
    pub fn token_client<S, B>(self, client: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.grant(|grant| grant.token_client(client))
    }

    /// Takes answers with this `token_type` too, see [`ClientCredentialsBuilder::accept_token_type`].
    pub fn accept_token_type(self, token_type: impl Into<String>) -> Self {
        self.grant(|grant| grant.accept_token_type(token_type))
    }

    /// The `User-Agent` of token requests, see [`ClientCredentialsBuilder::user_agent`].
    pub fn user_agent(self, user_agent: impl AsRef<str>) -> Self {
        self.grant(|grant| grant.user_agent(user_agent))
    }

    /// Allows an `http` token URL to a host that is not loopback. The client's credentials cross the network in the clear.
    pub fn dangerous_http_token_endpoint(self) -> Self {
        self.grant(ClientCredentialsBuilder::dangerous_http_token_endpoint)
    }

    fn grant(
        mut self,
        change: impl FnOnce(ClientCredentialsBuilder) -> ClientCredentialsBuilder,
    ) -> Self {
        self.grant = change(self.grant);
        self
    }

    /// Checks everything and makes the layer. Needs no runtime, spawns nothing and does no network I/O.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting at fault and never prints a secret.
    pub fn build(self) -> Result<OAuthLayer, BuildError> {
        self.build_with(ClientCredentialsBuilder::build)
    }
}

impl<T: TokenSource> OAuthLayerBuilder<T> {
    /// Checks everything and makes the layer. Needs no runtime, spawns nothing and does no network I/O.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting at fault and never prints a secret.
    pub fn build(self) -> Result<OAuthLayer, BuildError> {
        self.build_with(Ok)
    }
}

impl<G: fmt::Debug> fmt::Debug for OAuthLayerBuilder<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthLayerBuilder")
            .field("grant", &self.grant)
            .field("params", &self.params)
            .field("destinations", &self.destinations)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
