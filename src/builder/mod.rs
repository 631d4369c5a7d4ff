//! The builder of a layer: what it asks for, and what it does with the tokens.

mod client_credentials;
mod start;

use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use crate::cache::{Cache, CacheConfig, CachePolicy};
use crate::clock::Clock;
use crate::destination::Destinations;
use crate::endpoint::{ClientCredentials, Settings};
use crate::error::BuildError;
use crate::layer::OAuthLayer;
use crate::observe::{Observer, Watch};
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
    layer: LayerSettings,
    /// The first wrong value.
    error: Option<BuildError>,
}

/// What does not depend on the source.
#[derive(Default)]
struct LayerSettings {
    params: TokenParams,
    destinations: Destinations,
    keep_authorization: bool,
    unauthorized: Vec<StatusCode>,
    policy: CachePolicy,
    watch: Watch,
    clock: Clock,
}

/// A source that is built last, when all its settings are known, or one of the user's own.
enum Source<T> {
    ClientCredentials(Box<Settings>, Wrap<ClientCredentials, T>),
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
            layer: LayerSettings::default(),
            error: None,
        }
    }

    /// Adds scopes to ask for, space-separated (RFC 6749 §3.3).
    ///
    /// Default: no `scope` is sent, and the server grants its default.
    pub fn scope(self, scope: impl AsRef<str>) -> Self {
        let params = self.layer.params.clone().with_scope(scope);
        self.ask(params)
    }

    /// Sets the `audience` parameter that some servers require.
    ///
    /// Default: not sent.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.layer.params = self.layer.params.with_audience(audience);
        self
    }

    /// Adds a resource indicator (RFC 8707), an absolute URI. For a server that expects something
    /// else under that name, use `parameter("resource", ..)`.
    ///
    /// Default: not sent.
    pub fn resource(self, resource: impl Into<String>) -> Self {
        let params = self.layer.params.clone().with_resource(resource);
        self.ask(params)
    }

    /// Adds a parameter that this server defines to the token request. A name may be given several
    /// times: all values are sent, in order. The value is treated as a secret, see
    /// [`TokenParams::with_parameter`].
    ///
    /// Default: none.
    pub fn parameter(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let params = self.layer.params.clone().with_parameter(name, value);
        self.ask(params)
    }

    fn ask(self, params: Result<TokenParams, BuildError>) -> Self {
        self.checked(params, |builder, params| builder.layer.params = params)
    }

    fn checked<V>(mut self, value: Result<V, BuildError>, set: impl FnOnce(&mut Self, V)) -> Self {
        match value {
            Ok(value) => set(&mut self, value),
            Err(error) => drop(self.error.get_or_insert(error)),
        }
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
        self.checked(origin.as_ref().parse(), |builder, origin| {
            builder.layer.destinations.allowed.push(origin);
        })
    }

    /// Sends requests to origins that are not allowed as they are, without a token. A request whose
    /// URI does not clearly say where it goes, such as `https://api.example:99999/`, still fails.
    ///
    /// Default: such requests fail, since a call without its token hides the mistake.
    pub fn skip_other_origins(mut self) -> Self {
        self.layer.destinations.skip_others = true;
        self
    }

    /// Names the origin of requests whose URI is only a path. Those of tonic are at this point: its
    /// channel adds the origin further in. It must also be among the
    /// [allowed](Self::allow_origin) origins, if there are any.
    ///
    /// Default: such requests fail before a token is asked for.
    pub fn assume_origin(self, origin: impl AsRef<str>) -> Self {
        self.checked(origin.as_ref().parse(), |builder, origin| {
            builder.layer.destinations.assumed = Some(origin);
        })
    }

    /// Leaves requests alone that already have an `Authorization` header.
    ///
    /// Default: the header is replaced, so that every request carries the token.
    pub fn keep_existing_authorization(mut self) -> Self {
        self.layer.keep_authorization = true;
        self
    }

    /// Treats this status like 401, for APIs that answer a dead token with 403 or 419. May be
    /// called again for more. 1xx, 2xx and 304 cannot be treated so and are a
    /// [`BuildError::Setting`].
    ///
    /// Default: only 401, since a new token does not help with a 403 of most APIs.
    pub fn treat_as_unauthorized(mut self, status: StatusCode) -> Self {
        self.layer.unauthorized.push(status);
        self
    }

    /// Sets when tokens are renewed, how long a fetch may take, and how many tokens are kept.
    ///
    /// Default: [`CachePolicy::new`].
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.layer.policy = policy;
        self
    }

    /// Adds an observer, which receives cache events.
    ///
    /// Default: none.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.layer.watch.add(observer);
        self
    }

    /// Sets a clock that a test can move.
    #[cfg(feature = "test-util")]
    pub fn clock(mut self, clock: crate::clock::ManualClock) -> Self {
        self.layer.clock = Clock::Manual(clock);
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
            layer: self.layer,
            error: self.error,
        }
    }

    /// Checks every setting and makes the layer. Needs no runtime, spawns nothing and does no
    /// network I/O.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting at fault and never prints a secret.
    pub fn build(self) -> Result<OAuthLayer, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let layer = self.layer;
        layer.policy.check()?;
        // A status that a healthy API answers with would make every call renew the token.
        let healthy = |status: &&StatusCode| {
            status.is_informational() || status.is_success() || **status == StatusCode::NOT_MODIFIED
        };
        if let Some(&status) = layer.unauthorized.iter().find(healthy) {
            return Err(BuildError::treat_as_unauthorized(status));
        }
        let config = CacheConfig {
            policy: layer.policy,
            own: layer.params,
            unauthorized: layer.unauthorized.into(),
            clock: layer.clock,
            watch: layer.watch,
        };
        layer.destinations.check_assumed()?;
        let source = match self.source {
            Source::ClientCredentials(settings, wrap) => wrap(settings.build()?),
            Source::Own(source) => source,
        };
        Ok(OAuthLayer::from_shared(Shared {
            cache: Cache::new(Arc::new(source), config),
            destinations: layer.destinations,
            keep_authorization: layer.keep_authorization,
        }))
    }
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
            .field("params", &self.layer.params)
            .field("destinations", &self.layer.destinations)
            .field("policy", &self.layer.policy)
            .finish_non_exhaustive()
    }
}
