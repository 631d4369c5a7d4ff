//! The client-credentials grant (RFC 6749 §4.4).
//!
//! Rules: R17.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderValue, Uri};

use super::body::Answer;
use super::client::{TokenClient, default_client};
use super::fields::is_page;
use super::token_url::{self, host};
use super::{answer, request};
use crate::attempt::{ASKS_HOOK, Attempt, READS_SECRET, SENDS_REQUEST};
use crate::client_auth::{ClientAuth, Credentials};
use crate::error::{Asked, BuildError, Error};
use crate::params::TokenParams;
use crate::source::{TokenFuture, TokenRequest, TokenSource};
use crate::sync::{Mutex, lock};
use crate::token::TokenResponse;

/// Gets tokens from a token endpoint with the client's own credentials.
///
/// [`OAuthLayer::client_credentials`](crate::OAuthLayer::client_credentials) makes one, and
/// [`OAuthLayerBuilder::wrap_source`](crate::OAuthLayerBuilder::wrap_source) wraps it in a
/// [`TokenSource`] of your own.
pub struct ClientCredentials {
    uri: Uri,
    /// What is known before a token is asked for.
    asked: Asked,
    auth: ClientAuth,
    client: Arc<dyn TokenClient>,
    accepted_types: Vec<String>,
    user_agent: HeaderValue,
    last_secret: Mutex<LastSecret>,
    hasher: RandomState,
}

/// What [`ClientCredentials`] are built from.
pub(crate) struct Settings {
    pub(crate) token_url: String,
    pub(crate) auth: ClientAuth,
    pub(crate) client: Option<Arc<dyn TokenClient>>,
    pub(crate) accepted_types: Vec<String>,
    pub(crate) user_agent: HeaderValue,
    pub(crate) allow_http: bool,
}

impl Settings {
    pub(crate) fn new(token_url: String, auth: ClientAuth) -> Self {
        Self {
            token_url,
            auth,
            client: None,
            accepted_types: Vec::new(),
            user_agent: OUR_USER_AGENT,
            allow_http: false,
        }
    }

    pub(crate) fn build(self) -> Result<ClientCredentials, BuildError> {
        self.auth.check()?;
        let (uri, mut asked) = token_url::parse(&self.token_url, self.allow_http)?;
        asked.own_client = self.client.is_some();
        let client = match self.client {
            Some(client) => client,
            None => default_client(asked.https)?,
        };
        Ok(ClientCredentials {
            uri,
            asked,
            auth: self.auth,
            client,
            accepted_types: self.accepted_types,
            user_agent: self.user_agent,
            last_secret: Mutex::default(),
            hasher: RandomState::new(),
        })
    }
}

/// Some firewalls reject requests that do not name their client.
const OUR_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tower-oauth/", env!("CARGO_PKG_VERSION")));

impl TokenSource for ClientCredentials {
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(async move {
            let token = self.attempt(request.params(), request.within).await;
            token.map_err(|error| error.at_host(Some(host(&self.uri))))
        })
    }

    fn host(&self, _: &TokenParams) -> Option<&str> {
        Some(host(&self.uri))
    }

    fn credentials_changed(&self) -> Option<Pin<Box<dyn Future<Output = bool> + Send + '_>>> {
        self.auth.can_change().then(|| {
            Box::pin(async {
                let credentials = self.auth.credentials().await;
                credentials
                    .is_ok_and(|now| lock(&self.last_secret).has_changed(self.fingerprint(&now)))
            }) as _
        })
    }
}

impl ClientCredentials {
    async fn attempt(
        &self,
        params: &TokenParams,
        attempt: Option<&Attempt>,
    ) -> Result<TokenResponse, Error> {
        let now = |stage| attempt.into_iter().for_each(|attempt| attempt.now(stage));
        now(READS_SECRET);
        let credentials = self.auth.credentials().await;
        let credentials = credentials.map_err(Error::before_sending)?;
        now(ASKS_HOOK);
        let asking = credentials.asking(params, &self.uri);
        let credentials = asking.await.map_err(Error::before_sending)?;
        lock(&self.last_secret).is_used(self.fingerprint(&credentials));
        now(SENDS_REQUEST);
        let mut page = false;
        let token = self.exchange(params, &credentials, attempt).await;
        let token = token.and_then(|answer| {
            page = is_page(&answer.body);
            answer::read(answer, &self.accepted_types, params, &credentials)
        });
        let mut token = token.map_err(|error| {
            let asked = Asked {
                scope: params.scopes().collect::<Vec<_>>().join(" "),
                client: credentials.advice(),
                page,
                ..self.asked.clone()
            };
            error
                .with_asked(asked)
                .with_masked_source(|text| credentials.mask(text, None))
        })?;
        token.by_new_credentials = lock(&self.last_secret).tell_change();
        Ok(token)
    }

    /// One exchange, without a time limit of its own.
    async fn exchange(
        &self,
        params: &TokenParams,
        credentials: &Credentials<'_>,
        attempt: Option<&Attempt>,
    ) -> Result<Answer, Error> {
        let request = request::build(&self.uri, params, credentials, &self.user_agent);
        match self.client.exchange(request).await {
            Ok(response) => Ok(Answer::read(response, attempt).await),
            Err(error) => Err(Error::of_users(error, Error::no_answer)),
        }
    }

    /// A keyed hash of the secret shows a change without a copy of the secret being kept.
    fn fingerprint(&self, credentials: &Credentials<'_>) -> u64 {
        self.hasher.hash_one(credentials.expose_secret())
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("endpoint", &host(&self.uri))
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// The secret last used, by its fingerprint.
#[derive(Default)]
struct LastSecret {
    fingerprint: Option<u64>,
    /// A token request used a secret other than the one before, and the cache has not been told:
    /// other parameters may back off because of the old secret.
    untold: bool,
}

impl LastSecret {
    fn is_used(&mut self, now: u64) {
        let last = self.fingerprint.replace(now);
        self.untold |= last.is_some_and(|last| last != now);
    }

    /// Whether it differs from the one that the last token request used.
    fn has_changed(&mut self, now: u64) -> bool {
        let changed = self.fingerprint.replace(now) != Some(now);
        self.untold &= !changed;
        changed
    }

    /// A token request succeeded: whether its secret differs from one used before.
    fn tell_change(&mut self) -> bool {
        mem::take(&mut self.untold)
    }
}
