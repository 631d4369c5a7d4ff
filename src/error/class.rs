//! The failure table of [`Error`](super::Error), as code.

use http::StatusCode;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Transient,
    Rejected,
    InvalidResponse,
    /// Not about the token endpoint: the request's own URI.
    Destination,
}

impl Class {
    /// The name in events and metrics.
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
    /// This client at this token endpoint, with all its kinds of token.
    Client,
    /// One kind of token alone.
    Kind,
}

/// A row of the table, without the column that it is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) class: Class,
    pub(super) reach: Reach,
    /// Tried again in the same flight.
    pub(super) again: bool,
}

impl Row {
    const fn new(class: Class, reach: Reach, again: bool) -> Self {
        Self {
            class,
            reach,
            again,
        }
    }

    pub(super) const PASSING: Self = Self::new(Class::Transient, Reach::Client, true);
    /// Transient, but coming back at once would make it worse.
    pub(super) const BUSY: Self = Self::new(Class::Transient, Reach::Client, false);
    pub(super) const CLIENT: Self = Self::new(Class::Rejected, Reach::Client, false);
    pub(super) const REQUEST: Self = Self::new(Class::Rejected, Reach::Kind, false);
    pub(super) const UNUSABLE: Self = Self::new(Class::InvalidResponse, Reach::Kind, false);
    pub(super) const DESTINATION: Self = Self::new(Class::Destination, Reach::Kind, false);

    /// By the error code of RFC 6749 §5.2, or of those who add to it.
    pub(super) fn of_code(code: &str) -> Self {
        match code {
            "server_error" | "temporarily_unavailable" => Self::PASSING,
            "slow_down" | "too_many_requests" => Self::BUSY,
            "invalid_client" | "unauthorized_client" => Self::CLIENT,
            _ => Self::REQUEST,
        }
    }

    /// By the status of an answer that is no token.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            408 | 425 | 500..=599 => Self::PASSING,
            429 => Self::BUSY,
            401 | 403 | 404 => Self::CLIENT,
            400..=499 => Self::REQUEST,
            _ => Self::UNUSABLE,
        }
    }

    /// By both. A status that will pass stays so whatever the body says; of two rejections the one that speaks for the
    /// whole endpoint counts; a 429 is never tried again at once.
    pub(super) fn of_answer(status: StatusCode, code: &str) -> Self {
        let (status, code) = (Self::of_status(status), Self::of_code(code));
        match (status.class, code.class) {
            (Class::Transient, Class::Transient) => Self {
                again: status.again && code.again,
                ..status
            },
            (Class::Transient, _) | (Class::Rejected, Class::Rejected)
                if status.reach == Reach::Client =>
            {
                status
            }
            _ => code,
        }
    }

    /// The row when the answer says when to come back.
    pub(super) fn with_retry_after(self) -> Self {
        match self.class {
            Class::Transient | Class::Rejected => Self::BUSY,
            Class::InvalidResponse | Class::Destination => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> Row {
        Row::of_answer(StatusCode::from_u16(status).unwrap(), code)
    }

    #[test]
    fn a_code_decides_unless_the_status_will_pass() {
        assert_eq!(answer(400, "invalid_scope"), Row::REQUEST);
        assert_eq!(answer(400, "invalid_client"), Row::CLIENT);
        assert_eq!(answer(400, "server_error"), Row::PASSING);
        assert_eq!(answer(400, "slow_down"), Row::BUSY);
        assert_eq!(answer(503, "invalid_client"), Row::PASSING);
        assert_eq!(answer(200, "incorrect_client_credentials"), Row::REQUEST);
    }

    #[test]
    fn a_401_speaks_for_the_endpoint_whatever_its_code() {
        assert_eq!(answer(401, "invalid_scope"), Row::CLIENT);
    }

    #[test]
    fn a_429_is_never_tried_again_at_once() {
        assert_eq!(answer(429, "server_error"), Row::BUSY);
        assert_eq!(answer(503, "slow_down"), Row::BUSY);
    }
}
