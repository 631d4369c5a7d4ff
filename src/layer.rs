//! The layer: where a user begins.

use std::fmt;
use std::sync::Arc;

use tower::Layer;

use crate::builder::OAuthLayerBuilder;
use crate::cache::TokenCache;
use crate::client_auth::ClientAuth;
use crate::error::BuildError;
use crate::grant::{ClientCredentials, ClientCredentialsBuilder, TokenRequest, TokenSource};
use crate::replay::{CloneBody, NoReplay};
use crate::secret::Secret;
use crate::service::{OAuth, Shared};

/// Wraps HTTP client services so that each request carries an access token. See the crate's page.
///
/// Clones share one token cache, and so do all the services they make: clone the layer for each client that calls the same gateway.
///
/// `R` says whether a request is sent again after a 401, see [`replay_unauthorized`](Self::replay_unauthorized).
#[derive(Clone)]
#[must_use]
pub struct OAuthLayer<R = NoReplay> {
    shared: Arc<Shared>,
    replay: R,
}

impl OAuthLayer {
    /// Starts building a layer that gets its tokens with the client-credentials grant (RFC 6749 §4.4), authenticating with
    /// HTTP Basic as API gateways do it.
    ///
    /// ```no_run
    /// use tower_oauth::OAuthLayer;
    ///
    /// let oauth = OAuthLayer::client_credentials("https://gw.example/oauth2/v1/token", "consumer-key", "consumer-secret")
    ///     .scope("aisp extended_transaction_history")
    ///     .allow_origin("https://api.example")
    ///     .build()?;
    /// # Ok::<_, tower_oauth::BuildError>(())
    /// ```
    pub fn client_credentials(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> OAuthLayerBuilder<ClientCredentialsBuilder> {
        Self::client_credentials_with(token_url, ClientAuth::basic(client_id, client_secret))
    }

    /// The same with another client authentication.
    ///
    /// ```no_run
    /// use tower_oauth::{ClientAuth, OAuthLayer};
    ///
    /// let auth = ClientAuth::post("my-client", "my-secret");
    /// let oauth = OAuthLayer::client_credentials_with("https://login.example/token", auth).build()?;
    /// # Ok::<_, tower_oauth::BuildError>(())
    /// ```
    pub fn client_credentials_with(
        token_url: impl Into<String>,
        auth: ClientAuth,
    ) -> OAuthLayerBuilder<ClientCredentialsBuilder> {
        OAuthLayerBuilder::new(ClientCredentials::builder(token_url, auth))
    }

    /// Starts building a layer from `OAUTH_TOKEN_URL`, `OAUTH_CLIENT_ID`, `OAUTH_CLIENT_SECRET` and, if it is set,
    /// `OAUTH_SCOPE`.
    ///
    /// # Errors
    ///
    /// [`BuildError::Environment`] names the variable that is missing, [`BuildError::Scope`] a scope outside the grammar.
    pub fn from_env() -> Result<OAuthLayerBuilder<ClientCredentialsBuilder>, BuildError> {
        let read =
            |variable| std::env::var(variable).map_err(|_| BuildError::Environment { variable });
        let builder = Self::client_credentials(
            read("OAUTH_TOKEN_URL")?,
            read("OAUTH_CLIENT_ID")?,
            read("OAUTH_CLIENT_SECRET")?,
        );
        Ok(match std::env::var("OAUTH_SCOPE") {
            Ok(scope) => builder.scope(scope),
            Err(_) => builder,
        })
    }

    /// A layer with a token source of your own, and every other setting at its default.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source)
            .build()
            .expect("the default settings are valid")
    }

    /// Starts building a layer with a token source of your own.
    pub fn builder<T: TokenSource>(source: T) -> OAuthLayerBuilder<T> {
        OAuthLayerBuilder::new(source)
    }

    pub(crate) fn from_shared(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            replay: NoReplay,
        }
    }
}

impl<R> OAuthLayer<R> {
    /// Sends a request again, once, when the API refuses its token and a new one can be had.
    ///
    /// Each request is cloned before it is sent, headers and all, which is what this costs; so the body must be `Clone`. A
    /// request is not sent again when the renewed token is the refused one, or when this API has spent the renewals that its 401s may
    /// cause. If renewing fails, the 401 is returned. An answer to a second request has [`Replayed`](crate::Replayed) in its extensions.
    ///
    /// Only for APIs where a request that was answered with 401 has had no effect, which RFC 9110 §15.5.2 leads one to expect.
    pub fn replay_unauthorized(self) -> OAuthLayer<CloneBody> {
        self.replay_with(CloneBody)
    }

    /// The same for bodies that cannot be cloned, or only sometimes: the hook makes the second body.
    pub fn replay_with<H>(self, hook: H) -> OAuthLayer<H> {
        OAuthLayer {
            shared: self.shared,
            replay: hook,
        }
    }

    /// The token cache, to warm it up, to look at it, or to get a token from it.
    #[must_use]
    pub fn tokens(&self) -> TokenCache {
        TokenCache::new(Arc::clone(&self.shared.cache))
    }

    /// What kind of token this layer asks for: a start for a [`TokenRequest`] that differs in one thing.
    #[must_use]
    pub fn token_request(&self) -> &TokenRequest {
        self.shared.cache.own()
    }
}

impl<S, R: Clone> Layer<S> for OAuthLayer<R> {
    type Service = OAuth<S, R>;

    fn layer(&self, inner: S) -> OAuth<S, R> {
        OAuth::new(inner, Arc::clone(&self.shared), self.replay.clone())
    }
}

impl<R> fmt::Debug for OAuthLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthLayer")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
