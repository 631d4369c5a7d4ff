//! What an API says in `WWW-Authenticate`, and whether it means that the token was refused.
//!
//! When a request that carried a token is answered with 401 or 403, with a status named by
//! [`treat_as_unauthorized`](crate::OAuthLayerBuilder::treat_as_unauthorized), or a POST with `grpc-status: 16`,
//! the layer leaves the challenges in the answer's extensions, if there are any:
//!
//! ```
//! use tower_oauth::challenge::Challenges;
//!
//! # fn show(response: http::Response<()>) {
//! let challenges = response.extensions().get::<Challenges>();
//! if let Some(bearer) = challenges.and_then(Challenges::bearer) {
//!     eprintln!("{:?}, wants scope {:?}", bearer.error(), bearer.scope());
//! }
//! # }
//! ```
//!
//! The grammar is RFC 9110 §11.6.1, read leniently, because what real servers send often departs from it:
//!
//! 1. One header value may hold several challenges, and several header lines count as one list (RFC 9110 §5.3).
//! 2. Names of schemes and parameters are compared without regard to ASCII case. Of two parameters with one name the
//!    first counts.
//! 3. Parameters may be parted by whitespace or `;` where a comma is missing, and an unquoted value may hold any byte
//!    but those.
//! 4. A part that cannot be read is skipped up to the next comma or space, and hides nothing that stands after it.
//!    A parameter whose challenge cannot be told is dropped, so it is never laid to another challenge.
//! 5. Where a comma is missing after a parameter or a scheme, the name of a scheme that is
//!    registered with IANA begins the next challenge. No other word does.
//! 6. Bytes that are not UTF-8 become U+FFFD.
//!
//! # Limits
//!
//! The first 16 KiB of all lines together are read; of these at most 32 challenges, and 32
//! parameters of each, are kept. A 401 that holds more, and no Bearer challenge within that, is
//! treated as one whose challenges cannot be read. `error_description` is kept as printable ASCII,
//! which is all that RFC 6750 §3 allows in it, up to 256 bytes. The other values are the server's
//! text as it came: treat them as such before showing them to anyone.

mod decision;
mod parse;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

pub(crate) use decision::{Verdict, decide, is_suspicious};

/// One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1).
///
/// See the module docs for how it is read and what is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    token68: Option<String>,
    /// Names in lower case, each once.
    params: Vec<(String, String)>,
    /// `error_description` before anything is taken out of it or cut: whoever masks needs it whole.
    said: Option<String>,
}

impl Challenge {
    /// The authentication scheme as the server wrote it, such as `Bearer`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether this is a challenge of `scheme`, in any ASCII case.
    #[must_use]
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of the parameter `name`, in any ASCII case; the first where the server repeats it.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The protection space (RFC 9110 §11.5).
    #[must_use]
    pub fn realm(&self) -> Option<&str> {
        self.param("realm")
    }

    /// The error code, such as `invalid_token` (RFC 6750 §3.1); `None` when it is absent or empty.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.param("error").filter(|code| !code.is_empty())
    }

    /// The server's explanation for developers: printable ASCII, at most 256 bytes.
    #[must_use]
    pub fn error_description(&self) -> Option<&str> {
        self.param("error_description")
    }

    /// The explanation as it came. Not to be shown without being masked and made printable.
    pub(crate) fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// The scope that the resource asks for, space-separated (RFC 6750 §3).
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.param("scope")
    }

    /// The claims that a token must carry, as sent with `insufficient_claims`.
    #[must_use]
    pub fn claims(&self) -> Option<&str> {
        self.param("claims")
    }

    /// Where the metadata of the protected resource is to be found (RFC 9728 §5.1).
    #[must_use]
    pub fn resource_metadata(&self) -> Option<&str> {
        self.param("resource_metadata")
    }

    /// The bare value that schemes such as `Negotiate` send in place of parameters.
    #[must_use]
    pub fn token68(&self) -> Option<&str> {
        self.token68.as_deref()
    }
}

/// All challenges of an answer, in order.
///
/// See the module docs for how they are read and how many are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenges {
    list: Vec<Challenge>,
    cut: bool,
}

impl Challenges {
    /// Reads every `WWW-Authenticate` line of an answer's headers.
    ///
    /// What cannot be read is left out; the result is empty when nothing could be.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter();
        parse::parse(lines.map(|line| line.as_bytes()))
    }

    /// Reads a single header value.
    ///
    /// What cannot be read is left out; the result is empty when nothing could be.
    #[must_use]
    pub fn parse_value(bytes: &[u8]) -> Self {
        parse::parse([bytes].into_iter())
    }

    /// The challenges in the order of the answer.
    pub fn iter(&self) -> std::slice::Iter<'_, Challenge> {
        self.list.iter()
    }

    /// The Bearer challenge that decides: the first one with `invalid_token`, else the first one
    /// with an error, else the first one.
    #[must_use]
    pub fn bearer(&self) -> Option<&Challenge> {
        let bearers = self.iter().filter(|challenge| challenge.is("Bearer"));
        // The first of several minima.
        bearers.min_by_key(|challenge| match challenge.error() {
            Some("invalid_token") => 0,
            Some(_) => 1,
            None => 2,
        })
    }

    /// Whether the answer held no challenge that could be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the answer held more than is read or kept.
    pub(crate) fn are_cut(&self) -> bool {
        self.cut
    }
}
