//! The credentials of one attempt: how they are sent, masked in what the server says, and told of
//! when the server does not know the client.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use form_urlencoded::Serializer;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::custom::{AuthRequest, sensitive};
use super::mask::{Needle, SHORTEST_VALUE, mask};
use super::{CLIENT_ID, CLIENT_SECRET, ClientAuth, Method};
use crate::error::{Error, wrapping};
use crate::params::{TokenParams, form_size};

/// The credentials of one attempt.
pub(crate) struct Credentials<'a> {
    pub(super) auth: &'a ClientAuth,
    pub(super) secret: SecretString,
    /// What is asked for with them, and what the hooks add.
    pub(super) request: Option<AuthRequest>,
}

impl Credentials<'_> {
    /// Asks the hooks about a request for these parameters.
    pub(crate) async fn asking(
        mut self,
        params: &TokenParams,
        token_url: &Uri,
    ) -> Result<Self, Error> {
        let id = &self.auth.client_id;
        let mut request = AuthRequest::new(id, token_url, params, self.auth.reserved());
        for hook in &self.auth.hooks {
            request = request.asked_of(hook).await?;
        }
        self.request = Some(request);
        Ok(self)
    }

    /// Puts them on a token request under construction.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, form: &mut Serializer<'_, String>) {
        let (id, secret) = (self.auth.client_id.as_str(), self.expose_secret());
        match self.auth.method {
            Method::Basic => basic(headers, &pair(id, secret)),
            Method::BasicEncoded => basic(headers, &encoded_pair(id, secret)),
            Method::Post => {
                form.append_pair(CLIENT_ID, id);
                form.append_pair(CLIENT_SECRET, secret);
            }
            Method::None => {
                form.append_pair(CLIENT_ID, id);
            }
        }
        if let Some(request) = &self.request {
            request.apply(headers, form);
        }
    }

    /// At most how many bytes [`apply`](Self::apply) adds to the form.
    pub(crate) fn form_size(&self) -> usize {
        form_size(CLIENT_ID, &self.auth.client_id)
            + form_size(CLIENT_SECRET, self.expose_secret())
            + self.request.as_ref().map_or(0, AuthRequest::form_size)
    }

    pub(crate) fn expose_secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// Masks the secret in a text from the server, in every form in which it was sent or a server
    /// may have rewritten it; what a hook has added and the values of extra parameters, from eight
    /// characters on: `true` is no secret and would eat words of the text. Likewise a token that
    /// came with the text.
    pub(crate) fn mask(&self, text: &str, token: Option<&str>) -> String {
        let (id, secret) = (self.auth.client_id.as_str(), self.expose_secret());
        let sent = [
            pair(id, secret),
            encoded_pair(id, secret),
            Zeroizing::new(secret.to_owned()),
            percent_encode(secret),
        ];
        let encode = |sent: &Zeroizing<String>| {
            [STANDARD_NO_PAD, URL_SAFE_NO_PAD].map(|base64| Zeroizing::new(base64.encode(sent)))
        };
        let sent = sent.iter().filter(|_| !secret.is_empty());
        let encoded: Vec<_> = sent.flat_map(encode).collect();
        let request = self.request.iter();
        let values = request
            .clone()
            .flat_map(|request| request.params().parameters());
        let values = values.map(|(_, value)| value);
        let values = values.filter(|value| value.chars().count() >= SHORTEST_VALUE);
        let needles: Vec<_> = encoded
            .iter()
            .map(|encoded| encoded.as_str())
            .chain([secret])
            .chain(request.flat_map(AuthRequest::secrets))
            .map(Needle::secret)
            .chain(values.chain(token).map(Needle::value))
            .collect();
        mask(text, &needles)
    }

    /// What to check when the server does not know this client: how it was sent, and what else
    /// would build.
    pub(crate) fn advice(&self) -> &'static str {
        macro_rules! sent {
            ($how:literal, others: $others:literal) => {
                concat!(
                    "check the client id and the secret; they were sent ",
                    $how,
                    " some servers want them ",
                    $others
                )
            };
        }
        let (id, secret) = (&self.auth.client_id, self.expose_secret());
        if self.auth.secret.is_some() && wrapping(secret).is_some() {
            return "check the secret: it has white space or quotes around it, which the server \
                    takes for a part of it; then the client id";
        }
        if !self.auth.hooks.is_empty() {
            return "check the client id, the secret if there is one, and what the hook of \
                    ClientAuth::custom adds";
        }
        let plain = [id, secret]
            .iter()
            .all(|text| *percent_encode(text) == **text);
        let raw = !id.contains(':');
        match self.auth.method {
            Method::Basic if plain => sent!(
                "in the header (ClientAuth::basic), and",
                others: "in the form (ClientAuth::post)"
            ),
            Method::Basic => sent!(
                "raw (ClientAuth::basic) and have characters for which",
                others: "percent-encoded first (ClientAuth::basic_encoded), or in the form \
                         (ClientAuth::post)"
            ),
            Method::BasicEncoded if plain || !raw => sent!(
                "percent-encoded in the header (ClientAuth::basic_encoded), and",
                others: "in the form (ClientAuth::post)"
            ),
            Method::BasicEncoded => sent!(
                "percent-encoded (ClientAuth::basic_encoded) and have characters for which",
                others: "raw (ClientAuth::basic), or in the form (ClientAuth::post)"
            ),
            Method::Post if plain => sent!(
                "in the form (ClientAuth::post), and",
                others: "in the header (ClientAuth::basic)"
            ),
            Method::Post if raw => sent!(
                "in the form (ClientAuth::post), and",
                others: "in the header, raw (ClientAuth::basic) or percent-encoded \
                         (ClientAuth::basic_encoded)"
            ),
            Method::Post => sent!(
                "in the form (ClientAuth::post), and",
                others: "in the header (ClientAuth::basic_encoded)"
            ),
            Method::None => {
                "check the client id; it was sent without a secret (ClientAuth::none), and the \
                 server may want one or a client certificate"
            }
        }
    }
}

fn basic(headers: &mut HeaderMap, pair: &str) {
    let encoded = Zeroizing::new(STANDARD.encode(pair));
    let value = sensitive(Zeroizing::new(["Basic ", &encoded].concat()));
    headers.insert(AUTHORIZATION, value.expect("base64 is visible ASCII"));
}

// `concat` makes its string in full size, as all buffers of secrets are made: growing would leave
// copies behind that nobody wipes.
fn pair(id: &str, secret: &str) -> Zeroizing<String> {
    Zeroizing::new([id, ":", secret].concat())
}

fn encoded_pair(id: &str, secret: &str) -> Zeroizing<String> {
    pair(&percent_encode(id), &percent_encode(secret))
}

/// Everything but the unreserved characters of RFC 3986 §2.3.
///
/// RFC 6749 §2.3.1 asks for the form encoding of its appendix B, where a space is `+` and `~` is
/// `%7E`; some servers read neither. Every server that decodes at all reads `%20` and a bare `~`.
fn percent_encode(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(3 * text.len()));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes everything");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    // Q3
    #[test]
    fn unreserved_characters_are_left_alone_and_a_space_is_percent_20() {
        assert_eq!(
            *percent_encode("a~*!'()-_.b%&+ £€"),
            "a~%2A%21%27%28%29-_.b%25%26%2B%20%C2%A3%E2%82%AC"
        );
    }

    #[test]
    fn the_header_is_sensitive() {
        let mut headers = HeaderMap::new();
        basic(&mut headers, "id:secret");
        assert!(headers[AUTHORIZATION].is_sensitive());
        assert!(!format!("{headers:?}").contains("Basic"));
    }

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
