//! What can go wrong, and what the reader of the message can do about it.

mod build;
mod class;
mod text;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

pub use self::build::BuildError;
use self::class::Row;
pub(crate) use self::class::{Class, Reach};

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
///
/// A request whose own URI may not get a token fails with [`is_destination`](Self::is_destination): nobody is asked, and nobody backs off.
#[derive(Clone)]
pub struct Error {
    // One pointer and one duration, since it travels in every `Result` of the crate.
    cause: Arc<Cause>,
    next_attempt_in: Option<Duration>,
}

#[derive(Clone)]
struct Cause {
    row: Row,
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

impl Error {
    fn new(row: Row, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            cause: Arc::new(Cause {
                row,
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
        Self::new(Row::PASSING, what)
    }

    /// The server refused, with this error code of RFC 6749 §5.2 (`invalid_client`, `invalid_scope`, …).
    ///
    /// The code decides the row of the table above: `server_error` or `slow_down` make the error a transient one.
    #[must_use]
    pub fn rejected(code: impl Into<String>, what: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        let mut error = Self::new(Row::of_code(&code), what);
        error.edit().oauth_code = Some(code);
        error
    }

    /// The server answered, but not with a token that can be used.
    #[must_use]
    pub fn invalid_response(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Row::UNUSABLE, what)
    }

    /// A token must not go where this request goes.
    pub(crate) fn destination(what: impl Into<Cow<'static, str>>, advice: &'static str) -> Self {
        Self::new(Row::DESTINATION, what).with_advice(advice)
    }

    /// A time limit of ours passed.
    pub(crate) fn timed_out(what: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::transient(what);
        error.edit().timeout = true;
        error
    }

    /// An answer that is no token, by its status and, where its body names one, its error code.
    pub(crate) fn from_answer(
        status: StatusCode,
        code: Option<String>,
        what: impl Into<Cow<'static, str>>,
    ) -> Self {
        let row = match &code {
            Some(code) => Row::of_answer(status, code),
            None => Row::of_status(status),
        };
        let mut error = Self::new(row, what).with_status(status);
        error.edit().oauth_code = code;
        error
    }

    /// How long the server asks us to stay away (RFC 9110 §10.2.3). Ends the flight: there is no other attempt in it.
    #[must_use]
    pub fn with_retry_after(mut self, span: Duration) -> Self {
        let cause = self.edit();
        cause.retry_after = Some(span);
        cause.row = cause.row.with_retry_after();
        self
    }

    /// The HTTP status of the answer. It is told, and does not change the class.
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

    /// What an operator can do, in place of the class's own advice. It is part of the text, so it must hold no secret.
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

    /// Names the token endpoint, unless the error does: one of a time limit or of a user's source comes without.
    pub(crate) fn at_endpoint(mut self, host: Option<&str>) -> Self {
        if let Some(host) = host.filter(|_| self.cause.endpoint.is_none()) {
            self.edit().endpoint = Some(host.into());
        }
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
        self.cause.row.class == Class::Rejected
    }

    /// The token endpoint could not be reached or could not answer now.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.cause.row.class == Class::Transient
    }

    /// The answer had no token that can be used.
    #[must_use]
    pub fn is_invalid_response(&self) -> bool {
        self.cause.row.class == Class::InvalidResponse
    }

    /// A time limit of the policy passed. Such an error is transient too; one that a limit of the token client's own has caused is only that.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.cause.timeout
    }

    /// The request's own URI is not one that may get a token. Nothing was sent.
    #[must_use]
    pub fn is_destination(&self) -> bool {
        self.cause.row.class == Class::Destination
    }

    /// The `error` code of RFC 6749 §5.2, where the server gave one.
    #[must_use]
    pub fn oauth_code(&self) -> Option<&str> {
        self.cause.oauth_code.as_deref()
    }

    /// What the server said about it (`error_description`, RFC 6749 §5.2): printable ASCII, at most 256 characters, our own secrets
    /// masked.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.cause.description.as_deref()
    }

    /// The server's name for the exchange, by which its operators can find it.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.cause.request_id.as_deref()
    }

    /// The HTTP status of the token endpoint's answer.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.cause.status
    }

    /// How long to stay away: the time until the next attempt, which is never less than what we
    /// obey of the server's `Retry-After`. A call before that fails at once.
    ///
    /// For an error that is not (yet) the cause of a backoff, the server's own figure.
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
        self.cause.row.class
    }

    pub(crate) fn reach(&self) -> Reach {
        self.cause.row.reach
    }

    /// Whether the same flight tries again.
    pub(crate) fn again(&self) -> bool {
        self.cause.row.again
    }

    /// What the server asked for by `Retry-After` (RFC 9110 §10.2.3), as it said it. What is obeyed
    /// of it, and what we add to it, is in [`retry_after`](Self::retry_after).
    #[must_use]
    pub fn server_retry_after(&self) -> Option<Duration> {
        self.cause.retry_after
    }

    /// Token requests made by the flight that failed; 0 when it made none.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.cause.attempts
    }

    /// How long the flight took that failed, from its start to its end; `None` where there was no flight.
    #[must_use]
    pub fn elapsed(&self) -> Option<Duration> {
        self.cause.elapsed
    }
}
