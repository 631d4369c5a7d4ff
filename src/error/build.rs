//! What can be wrong before any request is made.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use http::StatusCode;

use super::shown::without_secrets;

/// What is wrong with a configuration, and what to write instead. It names the setting and never
/// prints a secret; of a URL it shows neither user-info nor query.
///
/// `Debug` is the same text, so that a `main` which returns it prints what to do.
#[derive(Clone)]
#[non_exhaustive]
pub enum BuildError {
    /// The token URL is not an absolute `http` or `https` URL, or is `http` to a host that is not
    /// loopback: the client's credentials would cross the network in the clear.
    #[non_exhaustive]
    TokenUrl {
        /// What is wrong with it.
        reason: Cow<'static, str>,
    },
    /// The client id is blank, or has control characters, white space or quotes around it, or a
    /// `:` where Basic sends it raw.
    #[non_exhaustive]
    ClientId {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The client secret is blank or has control characters.
    #[non_exhaustive]
    ClientSecret {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A scope has characters outside the scope-token grammar of RFC 6749 §3.3.
    #[non_exhaustive]
    Scope {
        /// The scope token at fault.
        scope: String,
    },
    /// An extra parameter has a name that the crate sets itself, or that is empty or has white
    /// space in it.
    #[non_exhaustive]
    Parameter {
        /// The parameter at fault.
        name: String,
    },
    /// A `resource` is not an absolute URI without a fragment (RFC 8707 §2).
    #[non_exhaustive]
    Resource {
        /// The resource at fault, without user-info and query.
        resource: String,
    },
    /// An origin is not `scheme://host[:port]` with `http` or `https`.
    #[non_exhaustive]
    Origin {
        /// The text at fault, without user-info and query.
        origin: String,
        /// What is wrong with it, or what to write instead.
        reason: Cow<'static, str>,
    },
    /// An environment variable is missing, or has a value that cannot be meant.
    #[non_exhaustive]
    Environment {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no token client: none was given, and the default one is not built in, has no TLS
    /// provider, or found no certificate verifier.
    #[non_exhaustive]
    TokenClient {
        /// What it lacks.
        reason: Cow<'static, str>,
        /// What the platform's certificate verifier said.
        source: Option<Arc<io::Error>>,
    },
    /// A setting of the cache policy makes no sense.
    #[non_exhaustive]
    Policy {
        /// Which, and why.
        reason: &'static str,
    },
    /// Another setting makes no sense.
    #[non_exhaustive]
    Setting {
        /// The method that sets it.
        name: &'static str,
        /// What is wrong with it.
        reason: Cow<'static, str>,
    },
}

impl BuildError {
    pub(crate) fn insecure_token_url(host: &str) -> Self {
        Self::TokenUrl {
            reason: Cow::Owned(format!(
                "http to {host} would send the client's credentials in the clear; use https, or \
                 dangerous_http_token_endpoint() where the network is yours"
            )),
        }
    }

    #[cfg(not(feature = "client"))]
    pub(crate) const NO_TOKEN_CLIENT: Self = Self::TokenClient {
        reason: Cow::Borrowed("none given; enable the feature \"client\" or call token_client()"),
        source: None,
    };

    #[cfg(feature = "client")]
    pub(crate) const NO_TLS_PROVIDER: Self = Self::TokenClient {
        reason: Cow::Borrowed(
            "no TLS provider; enable the feature \"aws-lc-rs\" or \"ring\", install a provider \
             first (rustls::crypto::CryptoProvider::install_default), or call token_client()",
        ),
        source: None,
    };

    #[cfg(feature = "client")]
    pub(crate) fn no_certificate_verifier(source: io::Error) -> Self {
        Self::TokenClient {
            reason: Cow::Owned(format!(
                "the platform's certificate verifier could not be set up: {source}; install CA \
                 certificates or call token_client()"
            )),
            source: Some(Arc::new(source)),
        }
    }

    /// The origin that is assumed for requests without one must not get the token: it is not on
    /// the list, or, where there is none, it is `http` and not loopback.
    pub(crate) fn assumed_origin(origin: &impl fmt::Display, listed: bool) -> Self {
        let why = if listed {
            "as it is not among the origins of allow_origin(); name it there too"
        } else {
            "as it would cross the network in the clear; use https, or name the origin with \
             allow_origin() too"
        };
        Self::Setting {
            name: "assume_origin",
            reason: Cow::Owned(format!(
                "requests to {origin} would never get the token, {why}"
            )),
        }
    }

    pub(crate) fn treat_as_unauthorized(status: StatusCode) -> Self {
        Self::Setting {
            name: "treat_as_unauthorized",
            reason: Cow::Owned(format!(
                "{} does not refuse a token; name the status with which the API answers a dead \
                 token, such as 403 or 419 (401 is known)",
                status.as_u16()
            )),
        }
    }

    pub(crate) const TOKEN_TYPE: Self = Self::Setting {
        name: "accept_token_type",
        reason: Cow::Borrowed(
            "it is blank or has control characters; write the type as the server names it (an \
             answer without a type is accepted anyway)",
        ),
    };

    pub(crate) const USER_AGENT: Self = Self::Setting {
        name: "user_agent",
        reason: Cow::Borrowed(
            "it is blank or has characters that a header cannot carry; write a name and a \
             version, such as payments/1.0",
        ),
    };
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenUrl { reason } => write!(f, "token URL: {reason}"),
            Self::ClientId { reason } => write!(f, "client id: {reason}"),
            Self::ClientSecret { reason } => write!(f, "client secret: {reason}"),
            Self::Environment { variable, reason } => {
                write!(f, "environment: {variable}: {reason}")
            }
            Self::TokenClient { reason, .. } => write!(f, "token client: {reason}"),
            Self::Policy { reason } => write!(f, "cache policy: {reason}"),
            Self::Setting { name, reason } => write!(f, "{name}: {reason}"),
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
                "resource: {resource:?} is not an absolute URI without a fragment; if the server \
                 wants it as it is, send it with parameter(\"resource\", ..)"
            ),
            Self::Origin { origin, reason } => write!(
                f,
                "origin: {origin:?} is not scheme://host or scheme://host:port with http or \
                 https; {reason}"
            ),
        }
    }
}

/// The text, which `main` prints by its `Debug`.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for BuildError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::TokenClient { source, .. } => source.as_deref().map(|source| source as _),
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

/// What is wrong with a text as pasting or a file leaves it: none of it belongs to a value.
pub(crate) fn wrapping(text: &str) -> Option<&'static str> {
    let quotes = |c| matches!(c, '"' | '\'' | '`' | '\u{2018}'..='\u{201d}');
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
    fn debug_is_the_text() {
        let error = BuildError::TokenUrl {
            reason: "it is empty".into(),
        };
        assert_eq!(format!("{error:?}"), "token URL: it is empty");
    }

    // FS11
    #[test]
    fn user_info_and_query_of_what_is_wrong_are_not_printed() {
        let url = || String::from("https://user:canary@a.example/b?apikey=canary");
        for error in [
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

    // FU26
    #[cfg(feature = "client")]
    #[test]
    fn a_clone_keeps_the_text_and_the_source() {
        let error = BuildError::no_certificate_verifier(io::Error::other("no roots"));
        let clone = error.clone();
        assert_eq!(clone.to_string(), error.to_string());
        assert!(clone.source().unwrap().is::<io::Error>());
        assert_eq!(clone.to_string().matches("no roots").count(), 1);
    }
}
