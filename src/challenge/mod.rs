//! The challenges of an API (`WWW-Authenticate`), and whether they refuse the token.
//!
//! The layer leaves the challenges of an answer in its extensions, if there are any. It does so for
//! a 401, a 403, a status named by
//! [`treat_as_unauthorized`](crate::OAuthLayerBuilder::treat_as_unauthorized), and a POST answered
//! with `grpc-status: 16`, when the request carried a token:
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
//! The grammar is RFC 9110 §11.6.1, read leniently because real servers often depart from it:
//!
//! 1. One header value may hold several challenges, and several header lines form one list
//!    (RFC 9110 §5.3).
//! 2. The names of schemes and parameters are compared in any ASCII case. The first of two
//!    parameters with the same name counts.
//! 3. Whitespace or `;` may separate parameters where a comma is missing. An unquoted value may
//!    hold any other byte.
//! 4. An unreadable part is skipped up to the next comma or space, and hides nothing after it. A
//!    parameter whose challenge is unknown is dropped, never attributed to another challenge.
//! 5. Where a comma is missing after a parameter or a scheme, the name of a scheme that is
//!    registered with IANA begins the next challenge. No other word does.
//! 6. Bytes that are not UTF-8 become U+FFFD.
//!
//! # Limits
//!
//! The first 16 KiB of all lines together are read. At most 32 challenges of these are kept, each
//! with at most 32 parameters. A 401 that exceeds this, and has no Bearer challenge within it, is
//! treated as one whose challenges cannot be read. `error_description` keeps printable ASCII, which
//! is all that RFC 6750 §3 allows, up to 256 bytes. The other values are the server's text as it
//! came: sanitize them before you show them to anyone.
//!
//! Rules: R19.

mod parse;
mod verdict;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

pub(crate) use verdict::{is_suspicious, may_refuse, refuses_token};

/// One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1).
///
/// See the [module docs](self) for how it is read and what is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    /// Names in lower case, each once.
    params: Vec<(String, String)>,
    /// `error_description` unabridged, because masking needs the whole text.
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

    /// The value of the parameter `name`, in any ASCII case: `realm`, `claims` (of
    /// `insufficient_claims`), `resource_metadata` (RFC 9728 §5.1), or any other.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let mut params = self.params.iter();
        let (_, value) = params.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The error code, such as `invalid_token` (RFC 6750 §3.1). `None` when absent or empty.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.param("error").filter(|code| !code.is_empty())
    }

    /// The server's explanation for developers: printable ASCII, at most 256 bytes.
    #[must_use]
    pub fn error_description(&self) -> Option<&str> {
        self.param("error_description")
    }

    /// The explanation as it came. Mask it and make it printable before showing it.
    pub(crate) fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// The scope that the resource requires, space-separated (RFC 6750 §3).
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.param("scope")
    }
}

/// All challenges of an answer, in order.
///
/// See the [module docs](self) for how they are read and how many are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenges {
    list: Vec<Challenge>,
    cut: bool,
}

impl Challenges {
    /// Reads every `WWW-Authenticate` line, leaving out what cannot be read.
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter();
        parse::parse(lines.map(|line| line.as_bytes()))
    }

    /// The challenges in the order of the answer.
    pub fn iter(&self) -> std::slice::Iter<'_, Challenge> {
        self.list.iter()
    }

    /// The Bearer challenge that decides: the first with `invalid_token`, else the first with an
    /// error, else the first.
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

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the answer held more than is read or kept.
    pub(crate) fn are_cut(&self) -> bool {
        self.cut
    }
}
