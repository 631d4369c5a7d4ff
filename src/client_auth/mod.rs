//! Client authentication: how the token endpoint knows who asks (RFC 6749 §2.3).

mod basic;
mod post;

use std::fmt;

use form_urlencoded::Serializer;
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::error::{BuildError, Error};
use crate::secret::{Secret, is_printable};

/// How a client authenticates to the token endpoint.
///
/// | constructor | method | what is sent |
/// |---|---|---|
/// | [`basic`](Self::basic) | `client_secret_basic`, raw | `Authorization: Basic base64(id:secret)`, as gateways do it |
/// | [`basic_encoded`](Self::basic_encoded) | `client_secret_basic` | the same with both percent-encoded first, as RFC 6749 §2.3.1 has it |
/// | [`post`](Self::post) | `client_secret_post` | id and secret in the form |
/// | [`none`](Self::none) | `none` | the id in the form, for a public client or one known by its certificate |
///
/// The two Basic forms differ only when the id or the secret has characters other than letters, digits, `-`, `.`, `_` and `~`.
/// No form fits all servers, so it is a choice and never a guess: a wrong guess is an authentication failure on a live
/// client's account. When they differ and the server answers `invalid_client`, the error names the form used and the other.
#[derive(Clone)]
pub struct ClientAuth {
    method: Method,
    client_id: String,
    secret: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Basic,
    BasicEncoded,
    Post,
    None,
}

impl ClientAuth {
    /// `client_secret_basic` with the pair as it is. The id must not have a `:`.
    #[must_use]
    pub fn basic(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self::new(Method::Basic, client_id.into(), Some(client_secret.into()))
    }

    /// `client_secret_basic` with id and secret percent-encoded first, in the one form that every server which decodes can read:
    /// unreserved characters left alone, a space as `%20`.
    #[must_use]
    pub fn basic_encoded(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self::new(
            Method::BasicEncoded,
            client_id.into(),
            Some(client_secret.into()),
        )
    }

    /// `client_secret_post`: id and secret as form parameters. An empty secret is not sent.
    #[must_use]
    pub fn post(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self::new(Method::Post, client_id.into(), Some(client_secret.into()))
    }

    /// The client id as a form parameter, and nothing else.
    #[must_use]
    pub fn none(client_id: impl Into<String>) -> Self {
        Self::new(Method::None, client_id.into(), None)
    }

    fn new(method: Method, client_id: String, secret: Option<Secret>) -> Self {
        Self {
            method,
            client_id,
            secret,
        }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let reason = if self.client_id.is_empty() {
            "it is empty"
        } else if !is_printable(&self.client_id) {
            "it has control characters"
        } else if self.method == Method::Basic && self.client_id.contains(':') {
            "it has a ':', which raw Basic cannot carry; use ClientAuth::basic_encoded or ClientAuth::post"
        } else {
            return self.secret.as_ref().map_or(Ok(()), Secret::check);
        };
        Err(BuildError::ClientId { reason })
    }

    /// Whether a later attempt may authenticate with another secret.
    pub(crate) fn can_change(&self) -> bool {
        self.secret.as_ref().is_some_and(Secret::can_change)
    }

    /// What this attempt authenticates with, read anew.
    pub(crate) async fn credentials(&self) -> Result<Credentials<'_>, Error> {
        let secret = match &self.secret {
            Some(secret) => secret.read().await?,
            None => SecretString::default(),
        };
        Ok(Credentials { auth: self, secret })
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth")
            .field("method", &self.method)
            .field("client_id", &self.client_id)
            .field("secret", &self.secret)
            .finish()
    }
}

/// The credentials of one attempt.
pub(crate) struct Credentials<'a> {
    auth: &'a ClientAuth,
    secret: SecretString,
}

impl Credentials<'_> {
    /// Puts them on a token request under construction.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, form: &mut Serializer<'_, String>) {
        let (id, secret) = (self.auth.client_id.as_str(), self.secret.expose_secret());
        match self.auth.method {
            Method::Basic => basic::apply(headers, id, secret),
            Method::BasicEncoded => basic::apply_encoded(headers, id, secret),
            Method::Post => post::apply(form, id, secret),
            Method::None => post::apply(form, id, ""),
        }
    }

    pub(crate) fn expose_secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// Replaces every form in which the secret was sent, in a text from the server.
    pub(crate) fn mask(&self, text: &str) -> String {
        let secret = self.secret.expose_secret();
        if secret.is_empty() {
            return text.to_owned();
        }
        let id = self.auth.client_id.as_str();
        let percent_encoded = Zeroizing::new(basic::percent_encode(secret));
        // Whole pairs before the secrets in them, so that nothing is left of a longer form because a shorter one was cut out
        // of it.
        let forms: [Zeroizing<String>; 6] = [
            basic::encode_pair(id, secret),
            basic::encode_pair(&basic::percent_encode(id), &percent_encoded),
            basic::encode(secret),
            Zeroizing::new(secret.to_owned()),
            percent_encoded,
            Zeroizing::new(form_urlencoded::byte_serialize(secret.as_bytes()).collect()),
        ];
        // Base64 is repeated without its padding as often as with it.
        let forms = forms.iter().map(|form| form.trim_end_matches('='));
        forms
            .filter(|form| !form.is_empty())
            .fold(text.to_owned(), |text, form| text.replace(form, "***"))
    }

    /// What to say when the server does not know this client.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        let (id, secret) = (&self.auth.client_id, self.secret.expose_secret());
        let differ = basic::percent_encode(id) != *id || basic::percent_encode(secret) != secret;
        match self.auth.method {
            Method::Basic if differ => Some(
                "check the client id and secret; they were sent raw (ClientAuth::basic) and have characters for which some \
                 servers want them percent-encoded first (ClientAuth::basic_encoded)",
            ),
            Method::BasicEncoded if differ => Some(
                "check the client id and secret; they were sent percent-encoded (ClientAuth::basic_encoded) and have \
                 characters for which some servers want them raw (ClientAuth::basic)",
            ),
            _ => None,
        }
    }
}
