//! Constructors and accessors for use inside the crate.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::class::{self, Row};
use super::{BoxError, Class, Error, Inner, Reach, Success};

impl Error {
    pub(super) fn new(row: Row, what: impl Into<Cow<'static, str>>) -> Self {
        let cause = Inner {
            row,
            what: what.into(),
            ..Inner::default()
        };
        Self {
            cause: Arc::new(cause),
            next_attempt_in: None,
        }
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

    /// The user's own code panicked, and would again.
    pub(crate) fn panicked(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Row::BUSY, what)
    }

    /// A head that is not 2xx, with the code that came with it. The row follows what the server
    /// said; [`with_code`](Self::with_code) sets what is shown of it.
    pub(crate) fn of_head(
        status: StatusCode,
        code: Option<&str>,
        what: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(class::of_head(status.as_u16(), code), what).with_status(status)
    }

    /// A 2xx without a code that brings no token.
    pub(crate) fn of_success(
        success: Success,
        status: StatusCode,
        what: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(class::of_success(success), what).with_status(status)
    }

    /// The failure of a user's code: an error of ours is returned as it is, so that it keeps its
    /// class, and any other is given to `wrap`.
    pub(crate) fn of_users(error: BoxError, wrap: impl FnOnce(BoxError) -> Self) -> Self {
        error.downcast().map_or_else(wrap, |error| *error)
    }

    pub(crate) fn with_description(mut self, description: Option<String>) -> Self {
        self.edit().description = description;
        self
    }

    /// The code as it may be shown.
    pub(crate) fn with_code(mut self, code: Option<String>) -> Self {
        self.edit().oauth_code = code;
        self
    }

    pub(crate) fn with_vendor_code(mut self, code: Option<String>) -> Self {
        self.edit().vendor_code = code;
        self
    }

    pub(crate) fn with_error_uri(mut self, uri: Option<String>) -> Self {
        self.edit().error_uri = uri;
        self
    }

    pub(crate) fn with_request_id(mut self, request_id: Option<String>) -> Self {
        self.edit().request_id = request_id;
        self
    }

    /// Names the token endpoint, unless the error does: one of a time limit or of a user's source
    /// comes without.
    pub(crate) fn at_host(mut self, host: Option<&str>) -> Self {
        if let Some(host) = host.filter(|_| self.cause.host.is_none()) {
            self.edit().host = Some(host.into());
        }
        self
    }

    /// Marks that it came before a token request could be made.
    pub(crate) fn before_sending(mut self) -> Self {
        self.edit().unsent = true;
        self
    }

    pub(crate) fn is_unsent(&self) -> bool {
        self.cause.unsent
    }

    pub(crate) fn with_effort(mut self, attempts: u32, elapsed: Duration) -> Self {
        let cause = self.edit();
        cause.attempts = attempts;
        cause.elapsed = Some(elapsed);
        self
    }

    /// The same cause, for a caller who comes during the backoff.
    pub(crate) fn during_backoff(&self, next_attempt_in: Duration) -> Self {
        Self {
            cause: Arc::clone(&self.cause),
            next_attempt_in: Some(next_attempt_in),
        }
    }

    pub(super) fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.cause)
    }

    pub(crate) fn class(&self) -> Class {
        self.cause.row.class
    }

    pub(crate) fn reach(&self) -> Reach {
        self.cause.row.reach
    }

    /// Whether the same flight makes another attempt.
    pub(crate) fn again(&self) -> bool {
        self.cause.row.again && self.cause.retry_after.is_none()
    }
}
