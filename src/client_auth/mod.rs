//! Client authentication: how the token endpoint knows who asks (RFC 6749 §2.3).

mod basic;
mod mask;
mod post;

use std::fmt;

use form_urlencoded::Serializer;
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};

use self::mask::Needle;
use crate::error::{BuildError, Error, wrapping};
use crate::params::TokenParams;
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
/// client's account. When the server does not know the client, the error names the form used and the others that this client could use.
///
/// An empty or blank secret is a [`BuildError::ClientSecret`]: a client that has none is [`none`](Self::none).
///
/// The characters of the secret and everything made of them here are wiped from memory when they are dropped. Not ours to wipe are
/// the buffers of the HTTP client and of its TLS, the environment of the process, and copies that the caller keeps.
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

    /// `client_secret_post`: id and secret as form parameters.
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
        let reason = if !is_printable(self.client_id.trim_end_matches(['\r', '\n'])) {
            "it has control characters"
        } else if let Some(reason) = wrapping(&self.client_id) {
            reason
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
        Ok(Credentials {
            auth: self,
            secret,
            request: None,
        })
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
    request: Option<&'a TokenParams>,
}

impl<'a> Credentials<'a> {
    /// Says what is asked for, whose parameters may be secrets too.
    pub(crate) fn asking(mut self, request: &'a TokenParams) -> Self {
        self.request = Some(request);
        self
    }

    /// Puts them on a token request under construction.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, form: &mut Serializer<'_, String>) {
        let (id, secret) = (self.auth.client_id.as_str(), self.secret.expose_secret());
        match self.auth.method {
            Method::Basic => basic::apply(headers, id, secret),
            Method::BasicEncoded => basic::apply_encoded(headers, id, secret),
            Method::Post => post::apply(form, id, Some(secret)),
            Method::None => post::apply(form, id, None),
        }
    }

    /// At most how many bytes [`apply`](Self::apply) adds to the form.
    pub(crate) fn form_size(&self) -> usize {
        match self.auth.method {
            Method::Basic | Method::BasicEncoded => 0,
            Method::Post | Method::None => {
                post::size(&self.auth.client_id, self.secret.expose_secret())
            }
        }
    }

    pub(crate) fn expose_secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// Replaces the secret, in every form in which it was sent or a server may have rewritten it, in a text from the server;
    /// and so the values of extra parameters, from eight characters on: `true` is no secret and would eat words of the text.
    /// Likewise a token that came with the text.
    pub(crate) fn mask(&self, text: &str, token: Option<&str>) -> String {
        let (id, secret) = (self.auth.client_id.as_str(), self.secret.expose_secret());
        let encoded_secret = basic::percent_encode(secret);
        let encoded = if secret.is_empty() {
            Vec::new()
        } else {
            vec![
                basic::encode_pair(id, secret),
                basic::encode_pair(&basic::percent_encode(id), &encoded_secret),
                basic::encode(secret),
                basic::encode(&encoded_secret),
            ]
        };
        let values = self.request.into_iter().flat_map(TokenParams::parameters);
        let values = values.filter(|(_, value)| value.chars().count() >= SHORTEST_VALUE);
        let needles: Vec<_> = encoded
            .iter()
            .map(|encoded| Needle::base64(encoded))
            .chain([Needle::secret(secret)])
            .chain(values.map(|(_, value)| Needle::value(value)))
            .chain(token.map(Needle::value))
            .collect();
        mask::mask(text, &needles)
    }

    /// What to check when the server does not know this client: how it was sent, and what else would build.
    pub(crate) fn advice(&self) -> &'static str {
        let (id, secret) = (&self.auth.client_id, self.secret.expose_secret());
        let plain = basic::is_plain(id) && basic::is_plain(secret);
        let raw = !id.contains(':');
        if wrapping(secret).is_some() {
            return "check the secret: it has white space or quotes around it, which the server takes \
                    for a part of it; then the client id";
        }
        match self.auth.method {
            Method::Basic if plain => {
                "check the client id and the secret; they were sent in the header (ClientAuth::basic), and some servers want \
                 them in the form (ClientAuth::post)"
            }
            Method::Basic => {
                "check the client id and the secret; they were sent raw (ClientAuth::basic) and have characters for which some \
                 servers want them percent-encoded first (ClientAuth::basic_encoded), or in the form (ClientAuth::post)"
            }
            Method::BasicEncoded if plain => {
                "check the client id and the secret; they were sent in the header (ClientAuth::basic_encoded), and some \
                 servers want them in the form (ClientAuth::post)"
            }
            Method::BasicEncoded if raw => {
                "check the client id and the secret; they were sent percent-encoded (ClientAuth::basic_encoded) and have \
                 characters for which some servers want them raw (ClientAuth::basic), or in the form (ClientAuth::post)"
            }
            Method::BasicEncoded => {
                "check the client id and the secret; they were sent percent-encoded (ClientAuth::basic_encoded), and some \
                 servers want them in the form (ClientAuth::post)"
            }
            Method::Post if plain => {
                "check the client id and the secret; they were sent in the form (ClientAuth::post), and some servers want \
                 them in the header (ClientAuth::basic)"
            }
            Method::Post if raw => {
                "check the client id and the secret; they were sent in the form (ClientAuth::post), and some servers want \
                 them in the header, raw (ClientAuth::basic) or percent-encoded (ClientAuth::basic_encoded)"
            }
            Method::Post => {
                "check the client id and the secret; they were sent in the form (ClientAuth::post), and some servers want \
                 them in the header (ClientAuth::basic_encoded)"
            }
            Method::None => {
                "check the client id; it was sent without a secret (ClientAuth::none), and the server may want one or a client \
                 certificate"
            }
        }
    }
}

const SHORTEST_VALUE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    // FA12
    #[tokio::test]
    async fn a_secret_with_white_space_or_quotes_around_it_is_told_of_first() {
        for secret in ["secret ", "\"secret\"", "'secret'"] {
            let auth = ClientAuth::basic("id", secret);
            let credentials = auth.credentials().await.unwrap();
            let advice = credentials.advice();
            assert!(advice.contains("white space or quotes"), "{secret}");
        }
    }

    // FA12
    #[tokio::test]
    async fn no_advice_names_a_method_that_would_not_build() {
        for id in ["id", "i d", "i:d"] {
            for secret in ["plain", "s+cret/", "s:cret"] {
                let methods: [(&str, ClientAuth); 3] = [
                    ("ClientAuth::basic)", ClientAuth::basic(id, secret)),
                    (
                        "ClientAuth::basic_encoded)",
                        ClientAuth::basic_encoded(id, secret),
                    ),
                    ("ClientAuth::post)", ClientAuth::post(id, secret)),
                ];
                for (used, auth) in methods.iter().filter(|(_, auth)| auth.check().is_ok()) {
                    let credentials = auth.credentials().await.unwrap();
                    let advice = credentials.advice();
                    assert!(advice.contains(used), "{advice}");
                    for (name, other) in &methods {
                        assert!(
                            !advice.contains(name) || other.check().is_ok(),
                            "{id}: {advice}"
                        );
                    }
                    assert!(advice.matches("ClientAuth::").count() > 1, "{advice}");
                    assert!(advice.contains("ClientAuth::post"), "{advice}");
                }
            }
        }
    }
}
