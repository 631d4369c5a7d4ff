//! What can be wrong before any request is made.

use std::error::Error as StdError;
use std::fmt;

/// What is wrong with a configuration. It names the setting and never prints a secret.
#[derive(Debug)]
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
    /// The client id is empty, or has control characters, or a `:` where Basic sends it raw.
    ClientId {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The client secret has control characters.
    ClientSecret,
    /// A scope has characters outside the scope-token grammar of RFC 6749 §3.3.
    Scope {
        /// The scope token at fault.
        scope: String,
    },
    /// An extra parameter has a name that the crate sets itself, or an empty one.
    Parameter {
        /// The parameter at fault.
        name: String,
    },
    /// A `resource` is not an absolute URI without a fragment (RFC 8707 §2).
    Resource {
        /// The resource at fault.
        resource: String,
    },
    /// An origin is not `scheme://host[:port]` with `http` or `https`.
    Origin {
        /// The text at fault.
        origin: String,
    },
    /// An environment variable is missing or not Unicode.
    Environment {
        /// The variable's name.
        variable: &'static str,
    },
    /// There is no token client: the crate was built without the `client` feature and none was given.
    TokenClient,
    /// The platform's certificate verifier could not be set up.
    Tls(std::io::Error),
    /// A setting of the refresh policy makes no sense.
    Policy {
        /// Which, and why.
        reason: &'static str,
    },
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
            Self::ClientSecret => f.write_str(
                "client secret: it has control characters; look for a line break at its end",
            ),
            Self::Scope { scope } => write!(
                f,
                "scope: {scope:?} is not a scope token (visible ASCII without '\"' and '\\')"
            ),
            Self::Parameter { name } => write!(
                f,
                "parameter: {name:?} is empty or set by the grant or the client authentication"
            ),
            Self::Resource { resource } => {
                write!(f, "resource: {resource:?} is not an absolute URI without a fragment")
            }
            Self::Origin { origin } => write!(
                f,
                "origin: {origin:?} is not scheme://host or scheme://host:port with http or https"
            ),
            Self::Environment { variable } => {
                write!(f, "environment: {variable} is not set, or is not Unicode")
            }
            Self::TokenClient => f.write_str(
                "token client: none given; enable the feature \"client\" or call token_client()",
            ),
            Self::Tls(_) => f.write_str(
                "token client: the platform's certificate verifier could not be set up; install CA certificates or call \
                 token_client()",
            ),
            Self::Policy { reason } => write!(f, "refresh policy: {reason}"),
        }
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
