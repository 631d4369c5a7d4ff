//! Client authentication: how the token endpoint knows who asks (RFC 6749 §2.3).
//!
//! Rules kept here: R24 (secrets are wiped, marked sensitive and masked) and R26 (the two forms of
//! Basic, and the advice where the server does not know the client).
//!
//! Rules: R17, R24, R26.

mod credentials;
mod custom;
mod mask;

use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;

pub(crate) use self::credentials::Credentials;
pub use self::custom::AuthRequest;
use self::custom::Hook;
use crate::error::{BoxError, BuildError, Error, wrapping};
use crate::secret::{Secret, is_printable};

/// How a client authenticates to the token endpoint.
///
/// | constructor | method | what is sent |
/// |---|---|---|
/// | [`basic`](Self::basic) | `client_secret_basic`, raw | `Basic base64(id:secret)` |
/// | [`basic_encoded`](Self::basic_encoded) | `client_secret_basic` | both percent-encoded |
/// | [`post`](Self::post) | `client_secret_post` | id and secret in the form |
/// | [`none`](Self::none) | `none` | the id in the form |
/// | [`custom`](Self::custom) | your own | one of the above, and what a hook of yours adds |
///
/// Gateways take the raw form of Basic; RFC 6749 §2.3.1 asks for the encoded one. A client without
/// a secret is a public one or known by its certificate.
///
/// The two Basic forms differ only when the id or the secret has characters other than letters,
/// digits, `-`, `.`, `_` and `~`. No form fits all servers, so you choose: a wrong guess would be
/// an authentication failure on a live client's account. When the server does not know the client,
/// the error names the form used and the others that this client could use.
///
/// An empty or blank secret is a [`BuildError::ClientSecret`]; a client that has none is
/// [`none`](Self::none).
///
/// The secret, and everything made of it here, is wiped from memory when it is dropped. The buffers
/// of the HTTP client and of its TLS, the environment of the process and the caller's own copies
/// are not ours to wipe.
#[derive(Clone)]
pub struct ClientAuth {
    method: Method,
    client_id: String,
    secret: Option<Secret>,
    hooks: Vec<Hook>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Basic,
    BasicEncoded,
    Post,
    None,
}

impl ClientAuth {
    /// `client_secret_basic` with the pair as it is. The id must not contain a `:`.
    #[must_use]
    pub fn basic(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self::new(Method::Basic, client_id, Some(client_secret.into()))
    }

    /// `client_secret_basic` with id and secret percent-encoded first, in the one form that every
    /// decoding server reads: unreserved characters left alone, a space as `%20`.
    #[must_use]
    pub fn basic_encoded(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self::new(Method::BasicEncoded, client_id, Some(client_secret.into()))
    }

    /// `client_secret_post`: id and secret as form parameters.
    #[must_use]
    pub fn post(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self::new(Method::Post, client_id, Some(client_secret.into()))
    }

    /// The client id as a form parameter, and nothing else.
    #[must_use]
    pub fn none(client_id: impl Into<String>) -> Self {
        Self::new(Method::None, client_id, None)
    }

    /// Another authentication, and what a hook adds to it: a signed assertion, a signature in a
    /// header, an API key beside the credentials.
    ///
    /// ```
    /// use tower_oauth::{AuthRequest, BoxError, ClientAuth};
    ///
    /// # async fn sign(by: &str, to: String) -> Result<String, BoxError> { Ok(to + by) }
    /// let auth = ClientAuth::custom(ClientAuth::none("my-client"), |request: AuthRequest| async {
    ///     let audience = request.token_url().to_string();
    ///     let assertion = sign(request.client_id(), audience).await?;
    ///     let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    ///     Ok::<_, BoxError>(
    ///         request
    ///             .with_parameter("client_assertion_type", kind)
    ///             .with_parameter("client_assertion", assertion),
    ///     )
    /// });
    /// # let _ = auth;
    /// ```
    ///
    /// The hook is asked anew for each attempt, within the attempt's time limit; with several, the
    /// inner ones first. If it fails, nothing is sent. An [`Error`](crate::Error) that it returns
    /// keeps its class; any other error, and a panic, is a transient failure. The error becomes the
    /// source of the one that callers see, so it must not contain a secret.
    #[must_use]
    pub fn custom<F, Fut, E>(mut auth: Self, hook: F) -> Self
    where
        F: Fn(AuthRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<AuthRequest, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        auth.hooks.push(Arc::new(move |request| {
            let request = hook(request);
            Box::pin(async move { request.await.map_err(Into::into) })
        }));
        auth
    }

    fn new(method: Method, client_id: impl Into<String>, secret: Option<Secret>) -> Self {
        Self {
            method,
            client_id: client_id.into(),
            secret,
            hooks: Vec::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let reason = if !is_printable(self.client_id.trim_end_matches(['\r', '\n'])) {
            "it has control characters"
        } else if let Some(reason) = wrapping(&self.client_id) {
            reason
        } else if self.method == Method::Basic && self.client_id.contains(':') {
            "it has a ':', which raw Basic cannot carry; use ClientAuth::basic_encoded or \
             ClientAuth::post"
        } else {
            return self.secret.as_ref().map_or(Ok(()), Secret::check);
        };
        Err(BuildError::ClientId { reason })
    }

    /// Whether a later attempt may authenticate with another secret.
    pub(crate) fn can_change(&self) -> bool {
        self.secret.as_ref().is_some_and(Secret::can_change)
    }

    /// The credentials of one attempt, the secret read anew.
    pub(crate) async fn credentials(&self) -> Result<Credentials<'_>, Error> {
        let secret = match &self.secret {
            Some(secret) => secret.read().await?,
            None => SecretString::default(),
        };
        Ok(Credentials {
            auth: self,
            secret,
            request: None,
        })
    }

    /// The parameters that are in the form before a hook adds any.
    fn reserved(&self) -> &'static [&'static str] {
        let all = &[
            "grant_type",
            "scope",
            "audience",
            "resource",
            CLIENT_ID,
            CLIENT_SECRET,
        ];
        match self.method {
            Method::Basic | Method::BasicEncoded => &all[..4],
            Method::None => &all[..5],
            Method::Post => all,
        }
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth")
            .field("method", &self.method)
            .field("client_id", &self.client_id)
            .field("secret", &self.secret)
            .field("hooks", &self.hooks.len())
            .finish()
    }
}

const CLIENT_ID: &str = "client_id";
const CLIENT_SECRET: &str = "client_secret";
