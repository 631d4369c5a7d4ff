//! The builder of a layer: how it gets tokens, and what it does with them.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, StatusCode};

use crate::cache::{Cache, CacheConfig, CachePolicy};
use crate::client_auth::ClientAuth;
use crate::clock::Clock;
use crate::destination::Destinations;
use crate::endpoint::{ClientCredentials, Settings, TokenClient};
use crate::error::BuildError;
use crate::layer::OAuthLayer;
use crate::observe::{Observer, Watch};
use crate::origin::Origin;
use crate::params::TokenParams;
use crate::service::Shared;
use crate::source::TokenSource;

/// Builds an [`OAuthLayer`].
///
/// `T` is the [`TokenSource`]: [`ClientCredentials`], which has settings of its own here, or one of
/// yours. [`build`](Self::build) reports a wrong value, not the setter that got it.
#[must_use]
pub struct OAuthLayerBuilder<T> {
    source: Source<T>,
    params: Result<TokenParams, BuildError>,
    destinations: Result<Destinations, BuildError>,
    keep_authorization: bool,
    unauthorized: Vec<StatusCode>,
    policy: CachePolicy,
    watch: Watch,
    clock: Clock,
}

/// A source that is built last, when all its settings are known, or one of the user's own.
enum Source<T> {
    ClientCredentials(Settings, Wrap<ClientCredentials, T>),
    Own(T),
}

type Wrap<T, U> = Box<dyn FnOnce(T) -> U + Send + Sync>;

impl<T: TokenSource> OAuthLayerBuilder<T> {
    pub(crate) fn new(source: T) -> Self {
        Self::of(Source::Own(source))
    }

    fn of(source: Source<T>) -> Self {
        Self {
            source,
            params: Ok(TokenParams::new()),
            destinations: Ok(Destinations::default()),
            keep_authorization: false,
            unauthorized: Vec::new(),
            policy: CachePolicy::default(),
            watch: Watch::default(),
            clock: Clock::default(),
        }
    }

    /// Adds scopes to ask for, space-separated (RFC 6749 §3.3).
    ///
    /// Default: no `scope` is sent, and the server grants its default.
    pub fn scope(self, scope: impl AsRef<str>) -> Self {
        self.ask(|params| params.with_scope(scope))
    }

    /// Sets the `audience` parameter that some servers require.
    ///
    /// Default: not sent.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.ask(|params| Ok(params.with_audience(audience)))
    }

    /// Adds a resource indicator (RFC 8707), an absolute URI. For a server that expects something
    /// else under that name, use `parameter("resource", ..)`.
    ///
    /// Default: not sent.
    pub fn resource(self, resource: impl Into<String>) -> Self {
        self.ask(|params| params.with_resource(resource))
    }

    /// Adds a parameter that this server defines to the token request. A name may be given several
    /// times: all values are sent, in order. The value is treated as a secret, see
    /// [`TokenParams::with_parameter`].
    ///
    /// Default: none.
    pub fn parameter(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.ask(|params| params.with_parameter(name, value))
    }

    fn ask(mut self, ask: impl FnOnce(TokenParams) -> Result<TokenParams, BuildError>) -> Self {
        self.params = self.params.and_then(ask);
        self
    }

    /// Allows the token to go to this origin (`https://api.example`, `https://api.example:8443`),
    /// and to no other that is not named. May be called again to name more.
    ///
    /// Default: every `https` origin and loopback get the token. Name the origins of your API here:
    /// a request that goes astray then fails instead of handing over the token.
    ///
    /// Naming an `http` origin is the consent to send the token there in the clear. A name with
    /// letters outside ASCII is written in punycode (`xn--`).
    pub fn allow_origin(self, origin: impl AsRef<str>) -> Self {
        self.destine(|destinations| {
            destinations.allowed.push(origin.as_ref().parse()?);
            Ok(())
        })
    }

    /// Sends requests to origins that are not allowed as they are, without a token. A request whose
    /// URI does not clearly say where it goes, such as `https://api.example:99999/`, still fails.
    ///
    /// Default: such requests fail, since a call without its token hides the mistake.
    pub fn skip_other_origins(self) -> Self {
        self.destine(|destinations| {
            destinations.skip_others = true;
            Ok(())
        })
    }

    /// Names the origin of requests whose URI is only a path. Those of tonic are at this point: its
    /// channel adds the origin further in. It must also be among the
    /// [allowed](Self::allow_origin) origins, if there are any.
    ///
    /// Default: such requests fail before a token is asked for.
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

    /// Leaves requests alone that already have an `Authorization` header.
    ///
    /// Default: the header is replaced, so that every request carries the token.
    pub fn keep_existing_authorization(mut self) -> Self {
        self.keep_authorization = true;
        self
    }

    /// Treats this status like 401, for APIs that answer a dead token with 403 or 419. May be
    /// called again for more. 1xx, 2xx and 304 cannot be treated so and are a
    /// [`BuildError::TreatAsUnauthorized`].
    ///
    /// Default: only 401, since a new token does not help with a 403 of most APIs.
    pub fn treat_as_unauthorized(mut self, status: StatusCode) -> Self {
        self.unauthorized.push(status);
        self
    }

    /// Sets when tokens are renewed, how long a fetch may take, and how failures back off.
    ///
    /// Default: [`CachePolicy::new`].
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Adds an observer, which receives cache events.
    ///
    /// Default: none.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.watch.add(observer);
        self
    }

    /// Sets a clock that a test can move.
    #[cfg(feature = "test-util")]
    pub fn clock(mut self, clock: crate::clock::ManualClock) -> Self {
        self.clock = Clock::Manual(clock);
        self
    }

    /// Wraps the token source in one of your own, which decides when to ask the inner one. All
    /// settings are kept.
    ///
    /// Forward the other methods of [`TokenSource`] as well: a changed secret ends a backoff only
    /// through [`credentials_changed`](TokenSource::credentials_changed).
    ///
    /// ```
    /// use tower_oauth::{ClientCredentials, OAuthLayer, TokenFuture, TokenRequest, TokenSource};
    ///
    /// struct Logged(ClientCredentials);
    ///
    /// impl TokenSource for Logged {
    ///     fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
    ///         println!("asking for {:?}", request.params());
    ///         self.0.token(request)
    ///     }
    /// }
    ///
    /// let oauth = OAuthLayer::client_credentials("https://gw.example/token", "key", "secret")
    ///     .scope("aisp")
    ///     .wrap_source(Logged);
    /// ```
    pub fn wrap_source<U: TokenSource>(
        self,
        wrap: impl FnOnce(T) -> U + Send + Sync + 'static,
    ) -> OAuthLayerBuilder<U> {
        OAuthLayerBuilder {
            source: match self.source {
                Source::ClientCredentials(settings, inner) => {
                    Source::ClientCredentials(settings, Box::new(|source| wrap(inner(source))))
                }
                Source::Own(source) => Source::Own(wrap(source)),
            },
            params: self.params,
            destinations: self.destinations,
            keep_authorization: self.keep_authorization,
            unauthorized: self.unauthorized,
            policy: self.policy,
            watch: self.watch,
            clock: self.clock,
        }
    }

    /// Checks every setting and makes the layer. Needs no runtime, spawns nothing and does no
    /// network I/O.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting at fault and never prints a secret.
    pub fn build(self) -> Result<OAuthLayer, BuildError> {
        self.policy.check()?;
        // A status that a healthy API answers with would make every call renew the token.
        let healthy = |status: &&StatusCode| {
            status.is_informational() || status.is_success() || **status == StatusCode::NOT_MODIFIED
        };
        if let Some(&status) = self.unauthorized.iter().find(healthy) {
            return Err(BuildError::TreatAsUnauthorized { status });
        }
        let config = CacheConfig {
            policy: self.policy,
            own: self.params?,
            refusals: self.unauthorized.into(),
            clock: self.clock,
            watch: self.watch,
        };
        let destinations = self.destinations?;
        check_assumed(&destinations)?;
        let source = match self.source {
            Source::ClientCredentials(settings, wrap) => wrap(settings.build()?),
            Source::Own(source) => source,
        };
        Ok(OAuthLayer::from_shared(Shared {
            cache: Cache::new(Arc::new(source), config),
            destinations,
            keep_authorization: self.keep_authorization,
        }))
    }
}

impl OAuthLayerBuilder<ClientCredentials> {
    pub(crate) fn client_credentials(token_url: String, auth: ClientAuth) -> Self {
        let settings = Settings::new(token_url, auth);
        Self::of(Source::ClientCredentials(
            settings,
            Box::new(|source| source),
        ))
    }

    /// Sets the HTTP client for token requests: the place for a proxy, a private CA, tracing or a
    /// time limit of your own. It is any tower service that takes
    /// `http::Request<http_body_util::Full<Bytes>>` and is `Clone + Send + Sync + 'static`, see
    /// [`TokenClient`].
    ///
    /// It is cloned for each attempt and polled ready before each call. It must not:
    ///
    /// - follow redirects, since it would carry the client's credentials along. A redirect that it
    ///   leaves alone is an error. One that it has followed cannot be seen from here;
    /// - share a concurrency limit with the API client: requests hold their permit while they wait
    ///   for a token.
    ///
    /// Default (feature `client`): HTTP/1.1 over rustls with the platform's certificate verifier,
    /// without proxy, and a new connection for each token request.
    pub fn token_client(self, client: impl TokenClient) -> Self {
        self.set(|settings| settings.client = Some(Arc::new(client)))
    }

    /// Accepts answers with this `token_type` too, whatever its case. The token is still sent as
    /// `Bearer`. May be called again for more.
    ///
    /// Default: `Bearer`, `BearerToken` and none at all are accepted, since a client must not use a
    /// token of a type that it does not know (RFC 6749 §7.1).
    pub fn accept_token_type(self, token_type: impl Into<String>) -> Self {
        self.set(|settings| settings.accepted_types.push(token_type.into()))
    }

    /// Sets the `User-Agent` of token requests, such as `payments/1.0`.
    ///
    /// Default: `tower-oauth/` and the version of this crate. Some firewalls reject requests
    /// without one, or from clients they do not know.
    pub fn user_agent(self, user_agent: impl AsRef<str>) -> Self {
        let user_agent = user_agent.as_ref();
        let blank = user_agent.trim().is_empty();
        let user_agent = HeaderValue::from_str(user_agent).ok();
        self.set(|settings| settings.user_agent = user_agent.filter(|_| !blank))
    }

    /// Allows an `http` token URL to a host that is not loopback. The client's credentials cross
    /// the network in the clear.
    ///
    /// Default: such a URL is a [`BuildError::InsecureTokenUrl`].
    pub fn dangerous_http_token_endpoint(self) -> Self {
        self.set(|settings| settings.allow_http = true)
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        if let Source::ClientCredentials(settings, _) = &mut self.source {
            set(settings);
        }
        self
    }
}

/// Finds an assumed origin that is not allowed. Only the first call would find it otherwise.
fn check_assumed(destinations: &Destinations) -> Result<(), BuildError> {
    let Some(assumed) = &destinations.assumed else {
        return Ok(());
    };
    let mut only_a_path = Request::new(());
    *only_a_path.method_mut() = Method::POST;
    if destinations.find(&only_a_path).is_some() {
        return Ok(());
    }
    Err(BuildError::AssumedOrigin {
        origin: assumed.to_string(),
        listed: !destinations.allowed.is_empty(),
    })
}

impl<T> fmt::Debug for OAuthLayerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auth = match &self.source {
            // The URL may have user-info in it until `build` rejects that.
            Source::ClientCredentials(settings, _) => Some(&settings.auth),
            Source::Own(_) => None,
        };
        f.debug_struct("OAuthLayerBuilder")
            .field("auth", &auth)
            .field("params", &self.params)
            .field("destinations", &self.destinations)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
