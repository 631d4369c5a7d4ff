//! What can go wrong, and what the reader of the message can do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// The error of [`OAuth`](crate::OAuth) as a service: an [`Error`] of ours, or the inner service's own, unwrapped.
///
/// ```
/// # fn show(error: tower_oauth::BoxError) {
/// if let Some(error) = error.downcast_ref::<tower_oauth::Error>() {
///     eprintln!("no token: {error}");
/// }
/// # }
/// ```
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a request could not be given a token.
///
/// Cheap to clone: everybody who waited for a failed token request gets the same error, and so does every call during the
/// backoff that follows, with the time until the next attempt. The text never has a token, a secret or a response body in it; what the server said
/// is cut to 256 printable ASCII characters, with our own secrets masked.
///
/// # Classes
///
/// | answer to the token request | predicate | tried again at once | backoff for |
/// |---|---|---|---|
/// | connect, TLS, timeout, reset, torn or empty body, 408, 425, 5xx, `server_error`, `temporarily_unavailable` | [`is_transient`](Self::is_transient) | yes | the endpoint |
/// | 429, `slow_down`, `too_many_requests`, anything with `Retry-After` | [`is_transient`](Self::is_transient) | no | the endpoint |
/// | `invalid_client`, `unauthorized_client`, 401, 403, 404 | [`is_rejected`](Self::is_rejected) | no | the endpoint |
/// | `invalid_scope`, `invalid_target`, `invalid_request`, `unsupported_grant_type`, other codes, other 4xx | [`is_rejected`](Self::is_rejected) | no | this kind of token |
/// | 2xx without a usable token, 1xx, 3xx, too large, wrong token type | [`is_invalid_response`](Self::is_invalid_response) | no | this kind of token |
#[derive(Clone)]
pub struct Error {
    // One pointer and one duration, since it travels in every `Result` of the crate.
    cause: Arc<Cause>,
    next_attempt_in: Option<Duration>,
}

#[derive(Clone)]
struct Cause {
    class: Class,
    reach: Reach,
    again: bool,
    timeout: bool,
    what: Cow<'static, str>,
    advice: Option<Cow<'static, str>>,
    endpoint: Option<Arc<str>>,
    oauth_code: Option<String>,
    description: Option<String>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    request_id: Option<String>,
    attempts: u32,
    elapsed: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// A row of the failure table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Transient,
    Rejected,
    InvalidResponse,
    /// Not about the token endpoint: the request's own URI.
    Destination,
}

impl Class {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Rejected => "rejected",
            Self::InvalidResponse => "invalid_response",
            Self::Destination => "destination",
        }
    }
}

/// Whom a failure speaks for, and so who backs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Endpoint,
    Key,
}

impl Error {
    fn new(class: Class, reach: Reach, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            cause: Arc::new(Cause {
                class,
                reach,
                again: false,
                timeout: false,
                what: what.into(),
                advice: None,
                endpoint: None,
                oauth_code: None,
                description: None,
                status: None,
                retry_after: None,
                request_id: None,
                attempts: 0,
                elapsed: None,
                source: None,
            }),
            next_attempt_in: None,
        }
    }

    /// The token endpoint could not be reached or could not answer; the same request may succeed later.
    ///
    /// Tried again inside the same flight, unless [`with_retry_after`](Self::with_retry_after) says when to come back.
    #[must_use]
    pub fn transient(what: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(Class::Transient, Reach::Endpoint, what);
        error.edit().again = true;
        error
    }

    /// The server refused, with this error code of RFC 6749 §5.2 (`invalid_client`, `invalid_scope`, …).
    ///
    /// The code decides the row of the failure table: `server_error` or `slow_down` make the error a transient one.
    #[must_use]
    pub fn rejected(code: impl Into<String>, what: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        let mut error = match code.as_str() {
            "server_error" | "temporarily_unavailable" => Self::transient(what),
            "slow_down" | "too_many_requests" => {
                let mut error = Self::transient(what);
                error.edit().again = false;
                error
            }
            "invalid_client" | "unauthorized_client" => {
                Self::new(Class::Rejected, Reach::Endpoint, what)
            }
            _ => Self::new(Class::Rejected, Reach::Key, what),
        };
        error.edit().oauth_code = Some(code);
        error
    }

    /// The server answered, but not with a token that can be used.
    #[must_use]
    pub fn invalid_response(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Class::InvalidResponse, Reach::Key, what)
    }

    /// A token must not go where this request goes.
    pub(crate) fn destination(what: impl Into<Cow<'static, str>>, advice: &'static str) -> Self {
        Self::new(Class::Destination, Reach::Key, what).with_advice(advice)
    }

    /// A time limit of ours passed.
    pub(crate) fn timed_out(what: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::transient(what);
        error.edit().timeout = true;
        error
    }

    /// An error by the HTTP status alone, where the body names no code.
    pub(crate) fn from_status(status: StatusCode, what: impl Into<Cow<'static, str>>) -> Self {
        let mut error = match status.as_u16() {
            429 => {
                let mut error = Self::transient(what);
                error.edit().again = false;
                error
            }
            408 | 425 | 500..=599 => Self::transient(what),
            401 | 403 | 404 => Self::new(Class::Rejected, Reach::Endpoint, what),
            400..=499 => Self::new(Class::Rejected, Reach::Key, what),
            _ => Self::invalid_response(what),
        };
        error.edit().status = Some(status);
        error
    }

    /// An error by status and code; whichever says more decides. A 5xx, 429 or 408 stays transient whatever the body says.
    pub(crate) fn from_answer(
        status: StatusCode,
        code: Option<String>,
        what: impl Into<Cow<'static, str>>,
    ) -> Self {
        let what = what.into();
        let by_status = Self::from_status(status, what.clone());
        let Some(code) = code else { return by_status };
        let mut by_code = Self::rejected(code.clone(), what);
        if by_code.is_transient() || !by_status.is_transient() {
            let endpoint = matches!(status.as_u16(), 401 | 403 | 404);
            let cause = by_code.edit();
            cause.status = Some(status);
            if endpoint && cause.class == Class::Rejected {
                cause.reach = Reach::Endpoint;
            }
            // A code can only take hope away: a 429 with `server_error` still means "not at once".
            cause.again &= status.as_u16() != 429;
            by_code
        } else {
            let mut error = by_status;
            error.edit().oauth_code = Some(code);
            error
        }
    }

    /// How long the server asks us to stay away (RFC 9110 §10.2.3). Ends the flight: there is no other attempt in it.
    #[must_use]
    pub fn with_retry_after(mut self, span: Duration) -> Self {
        let cause = self.edit();
        cause.retry_after = Some(span);
        if matches!(cause.class, Class::Rejected | Class::Transient) {
            cause.class = Class::Transient;
            cause.reach = Reach::Endpoint;
        }
        cause.again = false;
        self
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.edit().status = Some(status);
        self
    }

    /// The error underneath, for [`source`](StdError::source). Its text must hold no secret.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.edit().source = Some(Arc::from(source.into()));
        self
    }

    /// What an operator can do.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.edit().advice = Some(advice.into());
        self
    }

    pub(crate) fn with_description(mut self, description: Option<String>) -> Self {
        self.edit().description = description;
        self
    }

    pub(crate) fn with_request_id(mut self, request_id: Option<String>) -> Self {
        self.edit().request_id = request_id;
        self
    }

    pub(crate) fn with_endpoint(mut self, host: &Arc<str>) -> Self {
        self.edit().endpoint = Some(Arc::clone(host));
        self
    }

    pub(crate) fn with_effort(mut self, attempts: u32, elapsed: Duration) -> Self {
        let cause = self.edit();
        cause.attempts = attempts;
        cause.elapsed = Some(elapsed);
        self
    }

    /// The same cause, told to a caller who came during the backoff.
    pub(crate) fn during_backoff(&self, next_attempt_in: Duration) -> Self {
        Self {
            cause: Arc::clone(&self.cause),
            next_attempt_in: Some(next_attempt_in),
        }
    }

    fn edit(&mut self) -> &mut Cause {
        Arc::make_mut(&mut self.cause)
    }

    /// The server refused this client or this request; only a change on one of the two sides will help.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.cause.class == Class::Rejected
    }

    /// The token endpoint could not be reached or could not answer now.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.cause.class == Class::Transient
    }

    /// The answer had no token that can be used.
    #[must_use]
    pub fn is_invalid_response(&self) -> bool {
        self.cause.class == Class::InvalidResponse
    }

    /// A time limit passed. Such an error is transient too.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.cause.timeout
    }

    /// The request's own URI is not one that may get a token. Nothing was sent.
    #[must_use]
    pub fn is_destination(&self) -> bool {
        self.cause.class == Class::Destination
    }

    /// The `error` code of RFC 6749 §5.2, where the server gave one.
    #[must_use]
    pub fn oauth_code(&self) -> Option<&str> {
        self.cause.oauth_code.as_deref()
    }

    /// The HTTP status of the token endpoint's answer.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.cause.status
    }

    /// How long to stay away: the time until the next attempt when the call came during backoff, else the server's
    /// `Retry-After`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.next_attempt_in.or(self.cause.retry_after)
    }

    /// The host of the token endpoint.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.cause.endpoint.as_deref()
    }

    pub(crate) fn class(&self) -> Class {
        self.cause.class
    }

    pub(crate) fn reach(&self) -> Reach {
        self.cause.reach
    }

    /// Whether the same flight tries again.
    pub(crate) fn again(&self) -> bool {
        self.cause.again
    }

    pub(crate) fn server_retry_after(&self) -> Option<Duration> {
        self.cause.retry_after
    }

    /// Token requests made by the flight that failed.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.cause.attempts
    }

    /// How long the flight took that failed.
    #[must_use]
    pub fn elapsed(&self) -> Option<Duration> {
        self.cause.elapsed
    }

    pub(crate) fn advice(&self) -> Option<&str> {
        self.cause.advice.as_deref().or(match self.cause.class {
            Class::Rejected if self.cause.reach == Reach::Endpoint => Some(
                "check the client id, the secret and how they are sent, and that this client may use the client-credentials grant",
            ),
            Class::Rejected => Some("check the scope, audience, resource and extra parameters"),
            Class::InvalidResponse => {
                Some("check that the token URL is the token endpoint and that no proxy answers in its place")
            }
            Class::Transient if self.cause.retry_after.is_some() => {
                Some("the server asked to wait; requests resume by themselves")
            }
            Class::Transient => {
                Some("check that the token endpoint is up and reachable from here; requests resume by themselves")
            }
            Class::Destination => None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = &*self.cause;
        if cause.class == Class::Destination {
            f.write_str(&cause.what)?;
        } else {
            f.write_str("no access token")?;
            if let Some(host) = &cause.endpoint {
                write!(f, " from {host}")?;
            }
            write!(f, ": {}", cause.what)?;
        }
        match (cause.oauth_code.as_deref(), cause.status) {
            (Some(code), Some(status)) => write!(f, ": {code}, status {}", status.as_u16())?,
            (Some(code), None) => write!(f, ": {code}")?,
            (None, Some(status)) => write!(f, ": status {}", status.as_u16())?,
            (None, None) => {}
        }
        if let Some(description) = &cause.description {
            write!(f, ", \"{description}\"")?;
        }
        if let Some(id) = &cause.request_id {
            write!(f, ", request id {id}")?;
        }
        if let Some(elapsed) = cause.elapsed.filter(|_| cause.attempts > 0) {
            let plural = if cause.attempts == 1 { "" } else { "s" };
            write!(f, " ({} attempt{plural} in {elapsed:.1?})", cause.attempts)?;
        }
        if let Some(advice) = self.advice() {
            write!(f, "; {advice}")?;
        }
        if let Some(wait) = self.retry_after() {
            write!(f, "; next attempt in {wait:.1?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = &*self.cause;
        f.debug_struct("Error")
            .field("class", &cause.class)
            .field("what", &cause.what)
            .field("endpoint", &cause.endpoint)
            .field("oauth_code", &cause.oauth_code)
            .field("description", &cause.description)
            .field("status", &cause.status)
            .field("attempts", &cause.attempts)
            .field("elapsed", &cause.elapsed)
            .field("retry_after", &self.retry_after())
            .field("source", &cause.source)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.cause.source.as_deref()?;
        Some(source)
    }
}

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
            Self::ClientSecret => f.write_str("client secret: it has control characters"),
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
