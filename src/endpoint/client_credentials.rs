//! The client-credentials grant (RFC 6749 §4.4).

use std::cell::OnceCell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::Service;

use super::answer::Reader;
use super::client::{Endpoint, ErasedClient, TokenClient};
use super::{attempt, request};
use crate::client_auth::ClientAuth;
use crate::error::{BoxError, BuildError, Error};
use crate::params::TokenParams;
use crate::source::{TokenFuture, TokenRequest, TokenSource};
use crate::token::TokenResponse;

/// Gets tokens from a token endpoint with the client's own credentials.
///
/// Usually made by [`OAuthLayer::client_credentials`](crate::OAuthLayer::client_credentials); by itself it is a [`TokenSource`] to wrap in one of your own.
pub struct ClientCredentials {
    endpoint: Endpoint,
    auth: ClientAuth,
    accepted_types: Vec<String>,
    user_agent: HeaderValue,
    last_secret: Mutex<LastSecret>,
    hasher: RandomState,
}

impl ClientCredentials {
    /// Starts from the token endpoint's URL and the client's authentication.
    pub fn builder(token_url: impl Into<String>, auth: ClientAuth) -> ClientCredentialsBuilder {
        ClientCredentialsBuilder {
            token_url: token_url.into(),
            auth,
            accepted_types: Vec::new(),
            user_agent: Some(request::OURS),
            client: None,
            allow_http: false,
        }
    }

    async fn attempt(&self, token_request: &TokenParams) -> Result<TokenResponse, Error> {
        attempt::reads_the_secret();
        let credentials = self
            .auth
            .credentials()
            .await
            .map_err(Error::before_sending)?;
        let asking = credentials.asking(token_request, self.endpoint.uri());
        let credentials = asking.await.map_err(Error::before_sending)?;
        let now = self.hasher.hash_one(credentials.expose_secret());
        self.last_secret().is_used(now);
        attempt::sends_the_request();
        let request = request::build(
            self.endpoint.uri(),
            token_request,
            &credentials,
            &self.user_agent,
        );
        let mask = |text: &str, token: Option<&str>| credentials.mask(text, token);
        let mut page = false;
        let token = self.endpoint.send(request).await.and_then(|answer| {
            page = answer.is_page();
            let reader = Reader {
                accepted_types: &self.accepted_types,
                asked: token_request,
                mask: &mask,
                token: OnceCell::new(),
            };
            reader.read(answer)
        });
        let mut token = token.map_err(|error| {
            let asked = self
                .endpoint
                .asked(token_request, credentials.advice(), page);
            error
                .with_asked(asked)
                .with_masked_source(|text| mask(text, None))
        })?;
        token.by_new_credentials = self.last_secret().tell_change();
        Ok(token)
    }

    fn last_secret(&self) -> MutexGuard<'_, LastSecret> {
        self.last_secret
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of the secret last used, by a keyed hash, so that a change can be seen without
/// keeping a copy.
#[derive(Default)]
struct LastSecret {
    fingerprint: Option<u64>,
    /// A token request has used another one than those before it, and the cache has not been told:
    /// that request was for one kind of token, and others may back off for the old secret.
    untold: bool,
}

impl LastSecret {
    fn is_used(&mut self, now: u64) {
        let last = self.fingerprint.replace(now);
        self.untold |= last.is_some_and(|last| last != now);
    }

    /// Whether it is another one than the last token request used.
    fn has_changed(&mut self, now: u64) -> bool {
        let changed = self.fingerprint.replace(now) != Some(now);
        self.untold &= !changed;
        changed
    }

    /// A token request succeeded: whether it was with another secret than some before it.
    fn tell_change(&mut self) -> bool {
        std::mem::take(&mut self.untold)
    }
}

impl TokenSource for ClientCredentials {
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(async move {
            let token = self.attempt(request.params()).await;
            token.map_err(|error| error.at_host(Some(self.endpoint.host())))
        })
    }

    fn host(&self, _: &TokenParams) -> Option<&str> {
        Some(self.endpoint.host())
    }

    fn credentials_changed(&self) -> Option<Pin<Box<dyn Future<Output = bool> + Send + '_>>> {
        if !self.auth.can_change() {
            return None;
        }
        Some(Box::pin(async {
            let Ok(now) = self.auth.credentials().await else {
                return false;
            };
            let now = self.hasher.hash_one(now.expose_secret());
            self.last_secret().has_changed(now)
        }))
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("endpoint", &self.endpoint.host())
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// Builds [`ClientCredentials`].
#[must_use]
pub struct ClientCredentialsBuilder {
    token_url: String,
    auth: ClientAuth,
    accepted_types: Vec<String>,
    /// `None` when it was given one that is no header value.
    user_agent: Option<HeaderValue>,
    client: Option<Arc<dyn TokenClient>>,
    allow_http: bool,
}

impl ClientCredentialsBuilder {
    /// The HTTP client for token requests, in place of the default one: the place for a proxy, a private CA, tracing or a
    /// time limit of your own.
    ///
    /// It must not follow redirects, since it would carry the client's credentials along; with the feature `tower-http` an answer that
    /// tower-http's `FollowRedirect` has been redirected for is an error. It is cloned for each attempt and polled ready before each call. It
    /// must not share a concurrency limit with the API client: requests hold their permit while they wait for a token.
    pub fn token_client<S, B>(mut self, client: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.client = Some(Arc::new(ErasedClient::new(client)));
        self
    }

    /// Takes answers with this `token_type` too (without regard to case). `Bearer`, `BearerToken` and none at all are
    /// taken anyway. The token is sent as `Bearer` all the same.
    pub fn accept_token_type(mut self, token_type: impl Into<String>) -> Self {
        self.accepted_types.push(token_type.into());
        self
    }

    /// The `User-Agent` of token requests, such as `payments/1.0`. Default: `tower-oauth/` and the version of this crate.
    ///
    /// Firewalls exist that refuse requests without one, or from clients that they do not know.
    pub fn user_agent(mut self, user_agent: impl AsRef<str>) -> Self {
        let user_agent = user_agent.as_ref();
        let blank = user_agent.trim().is_empty();
        self.user_agent = HeaderValue::from_str(user_agent).ok().filter(|_| !blank);
        self
    }

    /// Allows an `http` token URL to a host that is not loopback. The client's credentials cross the network in the clear.
    pub fn dangerous_http_token_endpoint(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Checks everything. Needs no runtime and does no network I/O.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting at fault and never prints a secret.
    pub fn build(self) -> Result<ClientCredentials, BuildError> {
        self.auth.check()?;
        let blank = |kind: &String| kind.trim().is_empty() || kind.contains(char::is_control);
        if self.accepted_types.iter().any(blank) {
            return Err(BuildError::TokenType);
        }
        let user_agent = self.user_agent.ok_or(BuildError::UserAgent)?;
        let endpoint = Endpoint::new(&self.token_url, self.allow_http, self.client)?;
        Ok(ClientCredentials {
            endpoint,
            auth: self.auth,
            accepted_types: self.accepted_types,
            user_agent,
            last_secret: Mutex::default(),
            hasher: RandomState::new(),
        })
    }
}

impl fmt::Debug for ClientCredentialsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may have user-info in it until `build` refuses that.
        f.debug_struct("ClientCredentialsBuilder")
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}
