//! What can be wrong before any request is made.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;

use super::text::{shown, without_secrets};
use crate::origin::{self, misspelt, without_doubled_scheme};

/// What is wrong with a configuration, and what to write instead. It names the setting and never prints a secret; of a URL
/// it shows neither user-info nor query.
///
/// `Debug` begins with the same text, so that a `main` which returns it prints what to do.
#[non_exhaustive]
pub enum BuildError {
    /// The token URL is not an absolute `http` or `https` URL.
    TokenUrl {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token URL is `http` to a host that is not loopback: the client's credentials would cross the network in the clear.
    InsecureTokenUrl {
        /// The host named.
        host: String,
    },
    /// The client id is blank, or has control characters, white space or quotes around it, or a `:` where Basic sends it raw.
    ClientId {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The client secret is blank or has control characters.
    ClientSecret {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A scope has characters outside the scope-token grammar of RFC 6749 §3.3.
    Scope {
        /// The scope token at fault.
        scope: String,
    },
    /// An extra parameter has a name that the crate sets itself, or that is empty or has white space in it.
    Parameter {
        /// The parameter at fault.
        name: String,
    },
    /// A `resource` is not an absolute URI without a fragment (RFC 8707 §2).
    Resource {
        /// The resource at fault, without user-info and query.
        resource: String,
    },
    /// An origin is not `scheme://host[:port]` with `http` or `https`.
    Origin {
        /// The text at fault.
        origin: String,
    },
    /// The origin that is assumed for requests whose URI is only a path may not get the token.
    AssumedOrigin {
        /// The origin at fault.
        origin: String,
        /// Whether other origins are allowed by name; otherwise it is `http` and not loopback.
        listed: bool,
    },
    /// A status that cannot mean that an API refuses a token.
    TreatAsUnauthorized {
        /// The status at fault.
        status: StatusCode,
    },
    /// A token type to accept is blank or has control characters.
    TokenType,
    /// The name of this client is no value for a `User-Agent` header.
    UserAgent,
    /// An environment variable is missing, or has a value that cannot be meant.
    Environment {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no token client: the crate was built without the `client` feature and none was given.
    TokenClient,
    /// The default token client has no TLS provider for an `https` token URL: none is installed in
    /// the process, and neither of the features `aws-lc-rs` and `ring` is on.
    CryptoProvider,
    /// The platform's certificate verifier could not be set up.
    Tls(std::io::Error),
    /// A setting of the refresh policy makes no sense.
    Policy {
        /// Which, and why.
        reason: &'static str,
    },
}

impl BuildError {
    fn variant(&self) -> &'static str {
        match self {
            Self::TokenUrl { .. } => "TokenUrl",
            Self::InsecureTokenUrl { .. } => "InsecureTokenUrl",
            Self::ClientId { .. } => "ClientId",
            Self::ClientSecret { .. } => "ClientSecret",
            Self::Scope { .. } => "Scope",
            Self::Parameter { .. } => "Parameter",
            Self::Resource { .. } => "Resource",
            Self::Origin { .. } => "Origin",
            Self::AssumedOrigin { .. } => "AssumedOrigin",
            Self::TreatAsUnauthorized { .. } => "TreatAsUnauthorized",
            Self::TokenType => "TokenType",
            Self::UserAgent => "UserAgent",
            Self::Environment { .. } => "Environment",
            Self::TokenClient => "TokenClient",
            Self::CryptoProvider => "CryptoProvider",
            Self::Tls(_) => "Tls",
            Self::Policy { .. } => "Policy",
        }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenUrl { reason } => write!(f, "token URL: {reason}"),
            Self::InsecureTokenUrl { host } => write!(
                f,
                "token URL: http to {host} would send the client's credentials in the clear; use https, or \
                 dangerous_http_token_endpoint() where the network is yours"
            ),
            Self::ClientId { reason } => write!(f, "client id: {reason}"),
            Self::ClientSecret { reason } => write!(f, "client secret: {reason}"),
            Self::Scope { scope } => write!(
                f,
                "scope: {:?} is not a scope token (visible ASCII without '\"' and '\\'); {}",
                without_secrets(scope),
                scope_advice(scope)
            ),
            Self::Parameter { name } => write!(
                f,
                "parameter: {:?} {}",
                without_secrets(name),
                parameter_advice(name)
            ),
            Self::Resource { resource } => write!(
                f,
                "resource: {:?} is not an absolute URI without a fragment; if the server wants it as it is, send it with \
                 parameter(\"resource\", ..)",
                shown(&origin::without_secrets(resource))
            ),
            Self::Origin { origin } => {
                let origin = origin::without_secrets(origin);
                write!(
                    f,
                    "origin: {:?} is not scheme://host or scheme://host:port with http or https; \
                     {}",
                    shown(&origin),
                    origin_advice(&origin)
                )
            }
            Self::AssumedOrigin { origin, listed } => {
                write!(f, "assume_origin: requests to {origin} would never get the token, ")?;
                f.write_str(if *listed {
                    "as it is not among the origins of allow_origin(); name it there too"
                } else {
                    "as it would cross the network in the clear; use https, or name the origin with allow_origin() too"
                })
            }
            Self::TreatAsUnauthorized { status } => write!(
                f,
                "treat_as_unauthorized: {} does not refuse a token; name the status with which the API answers a dead token, \
                 such as 403 or 419 (401 is known)",
                status.as_u16()
            ),
            Self::TokenType => f.write_str(
                "accept_token_type: it is blank or has control characters; write the type as the server names it (an answer \
                 without a type is taken anyway)",
            ),
            Self::UserAgent => f.write_str(
                "user_agent: it is blank or has characters that a header cannot carry; write a name and a version, such as \
                 payments/1.0",
            ),
            Self::Environment { variable, reason } => {
                write!(f, "environment: {variable}: {reason}")
            }
            Self::TokenClient => f.write_str(
                "token client: none given; enable the feature \"client\" or call token_client()",
            ),
            Self::CryptoProvider => f.write_str(
                "token client: no TLS provider; enable the feature \"aws-lc-rs\" or \"ring\", install a \
                 provider first (rustls::crypto::CryptoProvider::install_default), or call \
                 token_client()",
            ),
            Self::Tls(source) => write!(
                f,
                "token client: the platform's certificate verifier could not be set up: {source}; install CA certificates or \
                 call token_client()"
            ),
            Self::Policy { reason } => write!(f, "cache policy: {reason}"),
        }
    }
}

impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} (BuildError::{})", self.variant())
    }
}

impl StdError for BuildError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Tls(source) => Some(source),
            _ => None,
        }
    }
}

fn scope_advice(scope: &str) -> &'static str {
    if scope.contains('"') {
        "leave the quotes out: they belong to the shell or the file"
    } else if scope.contains(char::is_whitespace) {
        "separate scopes by single spaces"
    } else {
        "check its spelling"
    }
}

fn parameter_advice(name: &str) -> &'static str {
    match name {
        "grant_type" => "is set by the grant; for another grant write a TokenSource",
        "scope" => "is set by scope()",
        "audience" => "is set by audience()",
        "client_id" | "client_secret" => {
            "is set by the client authentication; ClientAuth::post sends it in the form"
        }
        "client_assertion" | "client_assertion_type" => "is set by the client authentication",
        _ => {
            "is no name: it is empty or has white space in it; write it as the server documents it"
        }
    }
}

/// The origin comes with stars in the place of what may be secret, see [`origin::without_secrets`].
fn origin_advice(origin: &str) -> Cow<'static, str> {
    let advice = if origin.trim().is_empty() {
        "it is empty; write scheme and host"
    } else if origin.trim() != origin || origin.contains(['"', '\'', '`']) {
        "leave out the quotes and the white space around it"
    } else if origin.starts_with('<') && origin.ends_with('>') && origin.contains("://") {
        "leave out the angle brackets around it"
    } else if origin.contains('*') && !origin.contains("***") {
        "patterns are not known; name each origin"
    } else if origin.contains([',', ';']) || origin.contains(char::is_whitespace) {
        "name one origin at a time"
    } else if origin.contains(['{', '}', '<', '>', '$']) {
        "write the value in the place of the placeholder"
    } else if !origin.is_ascii() {
        "write the host in ASCII: a name with other letters begins with xn-- there"
    } else {
        return match origin.split_once("://") {
            None if origin.starts_with('/') => "it is only a path; write scheme and host".into(),
            None => "write https:// in front of the host".into(),
            Some((scheme, rest)) => absolute_origin_advice(scheme, rest),
        };
    };
    advice.into()
}

fn absolute_origin_advice(scheme: &str, rest: &str) -> Cow<'static, str> {
    // With these two, `***` for all that comes after the scheme hides which of them it is.
    let hidden = rest == "***";
    let (user, place) = match rest.rsplit_once('@') {
        Some((_, place)) => (true, place),
        None => (false, rest),
    };
    let end = place.find(['/', '?', '#']).unwrap_or(place.len());
    let (place, after) = place.split_at(end);
    let (web, known) = match &*scheme.to_ascii_lowercase() {
        "https" => ("https", true),
        "http" => ("http", true),
        "ws" => ("http", false),
        _ => ("https", false),
    };
    let doubled = without_doubled_scheme(rest);
    let wrong = if doubled.is_some() {
        "it has the scheme twice"
    } else if hidden {
        return "leave out the user-info, the query and the fragment".into();
    } else if !known {
        "its scheme is neither https nor http"
    } else if user {
        "leave the user-info out"
    } else if place.contains('*') {
        return "patterns are not known; name each origin".into();
    } else if after.contains('?') {
        "leave the query out"
    } else if after.contains('#') {
        "leave the fragment out"
    } else if !matches!(after, "" | "/") {
        "leave the path out"
    } else {
        let meant = format!("{web}://{place}");
        return misspelt(&meant)
            .or_else(|| origin::wrong(&meant))
            .unwrap_or("check its host and port")
            .into();
    };
    let meant = doubled.unwrap_or_else(|| format!("{web}://{place}"));
    match origin::wrong(&meant) {
        None => format!("{wrong}: write {meant:?}").into(),
        Some(_) => wrong.into(),
    }
}

/// What is wrong with text that was pasted or came out of a file: none of it belongs to a value.
pub(crate) fn wrapping(text: &str) -> Option<&'static str> {
    let quotes = [
        '"', '\'', '`', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}',
    ];
    if text.trim().is_empty() {
        Some("it is empty or blank")
    } else if text.starts_with('\u{feff}') {
        Some("it begins with a byte order mark; save it as UTF-8 without one")
    } else if text.trim_end_matches(['\r', '\n']) != text {
        Some("it ends with a line break; leave it out")
    } else if text.trim() != text {
        Some("it has white space around it; leave it out")
    } else if text.len() > 1 && text.starts_with(quotes) && text.ends_with(quotes) {
        Some("it has quotes around it; leave them out, as they belong to the shell or the file")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FU13
    #[test]
    fn debug_begins_with_the_text() {
        let error = BuildError::TokenUrl {
            reason: "it is empty",
        };
        assert_eq!(
            format!("{error:?}"),
            "token URL: it is empty (BuildError::TokenUrl)"
        );
    }

    // FS11
    #[test]
    fn user_info_and_query_of_what_is_refused_are_not_printed() {
        let url = || String::from("https://user:canary@a.example/b?apikey=canary");
        for error in [
            BuildError::Resource { resource: url() },
            BuildError::Origin { origin: url() },
            BuildError::Scope { scope: url() },
            BuildError::Parameter { name: url() },
        ] {
            let shown = format!("{error} {error:?}");
            assert!(
                shown.contains("a.example") && !shown.contains("canary"),
                "{shown}"
            );
        }
    }

    // FA16
    #[test]
    fn an_origin_is_told_what_to_write_instead() {
        for (origin, advice) in [
            ("api.example", "https:// in front"),
            ("https://api.example/v1", "leave the path out"),
            ("https://bücher.example", "xn--"),
            ("https://*.example", "name each origin"),
            (" https://api.example", "white space"),
            ("\"https://api.example\"", "quotes"),
            ("<https://api.example>", "angle brackets"),
            (
                "https://a.example,https://b.example",
                "one origin at a time",
            ),
            ("https://${HOST}", "placeholder"),
            ("https://", "no host"),
            ("https://api.example:99999", "port"),
            (
                "https://api.example//",
                "leave the path out: write \"https://api.example\"",
            ),
            (
                "https://https://api.example",
                "the scheme twice: write \"https://api.example\"",
            ),
            (
                "https://http//api.example",
                "the scheme twice: write \"http://api.example\"",
            ),
            (
                "https://HTTPS://api.example",
                "the scheme twice: write \"https://api.example\"",
            ),
            ("", "empty"),
            ("*", "name each origin"),
            ("https://api.example\\v1", "backslash"),
            ("https://::1", "no brackets"),
            ("https://[::1", "no closing bracket"),
            ("https://api.example:443:443", "more than one :"),
            ("https://api%2eexample", "has a %"),
        ] {
            let origin = origin.to_owned();
            let text = BuildError::Origin { origin }.to_string();
            assert!(text.contains(advice), "{text}");
        }
    }
}
