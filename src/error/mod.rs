//! What can go wrong, and what the reader of the message can do about it.
//!
//! - `class`: the failure table, R9 and R15: what kind of failure it is, and who backs off.
//! - `transport` reads why there is no answer, `fault` says what that means and what to do.
//! - `advice` and its `rules`: what to do about an answer.
//! - `source`: the error underneath; `shown`: what may be printed of texts that are not ours.
//! - `build`: errors of a configuration.
//!
//! Nothing here imports what makes these errors.
//!
//! Rules: R16, R24.

mod advice;
mod build;
mod class;
mod codes;
mod display;
mod fault;
mod making;
mod rules;
mod shown;
mod source;
mod transport;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

pub(crate) use self::advice::Asked;
pub use self::build::BuildError;
pub(crate) use self::build::wrapping;
use self::class::Row;
pub(crate) use self::class::{Class, Reach, Success};
pub(crate) use self::codes::is_registered;
use self::fault::Fault;
pub(crate) use self::shown::{printable, without_secrets};
use self::source::Source;

/// The error of [`OAuth`](crate::OAuth) as a service: an [`Error`] of this crate, or the inner
/// service's own, unwrapped.
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
/// Cheap to clone: everybody who waited for a failed token request gets the same error, and so does
/// every call during the backoff that follows, with the time until the next attempt. The text never
/// contains a token, a secret or a response body; what the server said is cut to 256 printable
/// ASCII characters, with our own secrets masked.
///
/// The texts, one for each bad day with what to do: [`docs::failure`](crate::docs::failure).
///
/// # Classes
///
/// In each part the first row that fits counts. *Class* is one of the predicates
/// [`is_transient`](Self::is_transient), [`is_rejected`](Self::is_rejected) and
/// [`is_invalid_response`](Self::is_invalid_response); *again* is whether the same flight makes
/// another attempt; *speaks for* is who backs off: the *client* (this client id at this token URL,
/// whatever is asked for) or these *parameters* alone.
///
#[doc = include_str!("table.md")]
///
#[doc = include_str!("codes.md")]
///
/// A request whose own URI must not get a token fails with
/// [`is_destination`](Self::is_destination): no token is asked for, and nothing backs off.
#[derive(Clone)]
pub struct Error {
    // One pointer and one duration, since it travels in every `Result` of the crate.
    cause: Arc<Inner>,
    next_attempt_in: Option<Duration>,
}

#[derive(Clone, Default)]
struct Inner {
    row: Row,
    timeout: bool,
    what: Cow<'static, str>,
    /// What to do, in place of what the rules say.
    advice: Option<Cow<'static, str>>,
    host: Option<Arc<str>>,
    oauth_code: Option<String>,
    description: Option<String>,
    /// A code of the server's own, where no OAuth code stands.
    vendor_code: Option<String>,
    error_uri: Option<String>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    request_id: Option<String>,
    /// No token request was made.
    unsent: bool,
    attempts: u32,
    elapsed: Option<Duration>,
    source: Source,
    /// Why there is no answer.
    fault: Option<Fault>,
    asked: Option<Asked>,
}

/// Errors of a token source.
impl Error {
    /// The token endpoint could not be reached or could not answer; the same request may succeed
    /// later.
    ///
    /// The same flight tries again, unless [`with_retry_after`](Self::with_retry_after) says when
    /// to come back.
    #[must_use]
    pub fn transient(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Row::PASSING, what)
    }

    /// The server rejected the request with this error code of RFC 6749 §5.2 (`invalid_client`,
    /// `invalid_scope`, …).
    ///
    /// The code decides the row of the table above, as under a status of 400: `server_error` or
    /// `slow_down` make the error a transient one.
    #[must_use]
    pub fn rejected(code: impl Into<String>, what: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        Self::new(class::of_code(&code), what).with_code(Some(code))
    }

    /// The server answered, but not with a usable token.
    #[must_use]
    pub fn invalid_response(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(class::of_success(Success::NoToken), what)
    }

    /// How long the server asks us to stay away (RFC 9110 §10.2.3). It sets the wait and ends the
    /// flight: there is no other attempt in it. It does not change the class. Zero counts as none.
    #[must_use]
    pub fn with_retry_after(mut self, span: Duration) -> Self {
        self.edit().retry_after = Some(span).filter(|span| !span.is_zero());
        self
    }

    /// The HTTP status of the answer. It is shown, and does not change the class.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.edit().status = Some(status);
        self
    }

    /// What an operator can do, in place of the class's own advice. It is part of the text, so it
    /// must hold no secret.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.edit().advice = Some(advice.into());
        self
    }
}

/// What callers see.
impl Error {
    /// The server rejected this client or this request; only a change on one of the two sides
    /// helps.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.class() == Class::Rejected
    }

    /// The token endpoint could not be reached or could not answer now.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.class() == Class::Transient
    }

    /// The answer had no usable token.
    #[must_use]
    pub fn is_invalid_response(&self) -> bool {
        self.class() == Class::InvalidResponse
    }

    /// A time limit of the policy passed. Such an error is transient too; a timeout inside your
    /// token client is transient, but not `is_timeout`.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.cause.timeout
    }

    /// The request's own URI is not one that may get a token. Nothing was sent.
    #[must_use]
    pub fn is_destination(&self) -> bool {
        self.class() == Class::Destination
    }

    /// The `error` code of RFC 6749 §5.2, where the server gave one.
    ///
    /// A registered code is as the server sent it; in one of the server's own our secrets are
    /// masked.
    #[must_use]
    pub fn oauth_code(&self) -> Option<&str> {
        self.cause.oauth_code.as_deref()
    }

    /// What the server said about it: `error_description` (RFC 6749 §5.2), or what stands where
    /// other servers say it (`message`, `errorSummary`, `error.message`, `detail`, `title`, an
    /// `error` that is no code, a `WWW-Authenticate` challenge).
    ///
    /// Printable ASCII, at most 256 characters, our own secrets masked.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.cause.description.as_deref()
    }

    /// Where the server says more about it (`error_uri`, RFC 6749 §5.2): printable ASCII, at most
    /// 256 characters, our own secrets masked. It is the server's text, so look at it before
    /// following it.
    #[must_use]
    pub fn error_uri(&self) -> Option<&str> {
        self.cause.error_uri.as_deref()
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

    /// The time until the next attempt, which is never shorter than what we obey of the server's
    /// `Retry-After`. A call before that fails at once.
    ///
    /// For an error that is not (yet) the cause of a backoff, the server's own figure.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.next_attempt_in.or(self.cause.retry_after)
    }

    /// What the server asked for with `Retry-After`, however long; `None` where it asked for
    /// nothing, or for zero.
    ///
    /// A longer wait than the policy obeys is not waited for: [`retry_after`](Self::retry_after)
    /// says when a call makes sense again.
    #[must_use]
    pub fn server_retry_after(&self) -> Option<Duration> {
        self.cause.retry_after
    }

    /// The host of the token endpoint.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.cause.host.as_deref()
    }

    /// How many token requests the failed flight made; 0 when it made none.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.cause.attempts
    }

    /// How long the failed flight took, from its start to its end; `None` where there was no
    /// flight.
    #[must_use]
    pub fn elapsed(&self) -> Option<Duration> {
        self.cause.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::class::{NO_HEAD, NOT_2XX, SUCCESS};
    use super::*;

    fn head(status: u16, code: Option<&str>) -> Row {
        class::of_head(status, code)
    }

    /// The three parts as Markdown, as they stand in the docs.
    fn render() -> String {
        [
            part("no complete head", "yes", NO_HEAD),
            part(
                "a head that is not 2xx (its status and `Retry-After` decide at once; a code in \
                 the body is heeded when it comes within 2 s)",
                "unless `Retry-After` came",
                NOT_2XX,
            ),
            part("a 2xx", "yes", SUCCESS),
        ]
        .join("\n")
    }

    fn part<When>(heading: &str, again: &str, lines: &[class::Line<When>]) -> String {
        let mut table = format!("| {heading} | class | again | speaks for |\n|---|---|---|---|\n");
        for line in lines {
            let (class, again, reach) = match line.row {
                None => ("as a 400 with that code".to_owned(), "", ""),
                Some(row) => (
                    row.class.name().replace('_', " "),
                    if row.again { again } else { "no" },
                    match row.reach {
                        Reach::Client => "client",
                        Reach::Params => "parameters",
                    },
                ),
            };
            table += &format!("| {} | {class} | {again} | {reach} |\n", line.text);
        }
        table
    }

    #[test]
    fn the_table_in_the_docs_is_the_one_that_the_code_looks_failures_up_in() {
        let rendered = render();
        let shown = include_str!("table.md");
        assert_eq!(shown, rendered, "src/error/table.md should be:\n{rendered}");
    }

    #[test]
    fn every_head_that_is_not_2xx_has_a_row_and_every_row_is_some_heads() {
        let codes = [
            None,
            Some("invalid_client"),
            Some("slow_down"),
            Some("server_error"),
            Some("x"),
        ];
        let mut met = [false; NOT_2XX.len()];
        for status in (100..200).chain(300..1000) {
            for code in codes {
                let fits = |line: &class::Line<class::Head>| {
                    line.when.iter().any(|head| head.fits(status, code))
                };
                let line = NOT_2XX.iter().position(fits);
                met[line.unwrap_or_else(|| panic!("{status} {code:?}"))] = true;
            }
        }
        assert_eq!(met, [true; NOT_2XX.len()]);
        assert!(SUCCESS.iter().filter(|line| line.row.is_none()).count() == 1);
    }

    // FA19, FA20
    #[test]
    fn the_first_row_that_fits_counts() {
        for (status, code, row) in [
            (302, Some("invalid_client"), Row::FOREIGN),
            (999, None, Row::FOREIGN),
            (429, Some("invalid_client"), Row::BUSY),
            (429, Some("server_error"), Row::BUSY),
            (503, Some("invalid_client"), Row::CLIENT),
            (404, Some("invalid_scope"), Row::CLIENT),
            (501, Some("server_error"), Row::CLIENT),
            (505, None, Row::CLIENT),
            (401, None, Row::CLIENT),
            (401, Some("server_error"), Row::CLIENT),
            (401, Some("slow_down"), Row::CLIENT),
            (403, Some("temporarily_unavailable"), Row::CLIENT),
            (403, Some("slow_down"), Row::BUSY),
            (401, Some("invalid_scope"), Row::REQUEST),
            (403, Some("access_denied"), Row::REQUEST),
            (500, Some("invalid_scope"), Row::PASSING),
            (408, Some("a_vendors"), Row::PASSING),
            (400, Some("server_error"), Row::PASSING),
            (400, Some("slow_down"), Row::BUSY),
            (400, Some("a_vendors"), Row::REQUEST),
            (400, None, Row::CLIENT),
            (418, None, Row::CLIENT),
        ] {
            assert_eq!(head(status, code), row, "{status} {code:?}");
        }
    }

    // FA19
    #[test]
    fn a_retry_after_sets_the_wait_and_ends_the_flight_and_never_changes_the_class() {
        let minute = Duration::from_secs(60);
        let refused = Error::rejected("invalid_client", "refused");
        let waiting = refused.clone().with_retry_after(minute);
        assert!(waiting.is_rejected() && !waiting.again());
        assert_eq!(waiting.reach(), refused.reach());
        assert_eq!(waiting.server_retry_after(), Some(minute));

        let down = Error::transient("down");
        assert!(down.again() && !down.clone().with_retry_after(minute).again());
        let at_once = down.with_retry_after(Duration::ZERO);
        assert!(at_once.again() && at_once.server_retry_after().is_none());
    }

    #[test]
    fn an_error_of_a_users_own_has_the_row_of_its_code() {
        for (code, class, reach, again) in [
            ("server_error", Class::Transient, Reach::Client, true),
            ("slow_down", Class::Transient, Reach::Client, false),
            ("invalid_client", Class::Rejected, Reach::Client, false),
            ("invalid_scope", Class::Rejected, Reach::Params, false),
            ("its own words", Class::Rejected, Reach::Params, false),
        ] {
            let error = Error::rejected(code, "refused").with_status(StatusCode::BAD_GATEWAY);
            let found = (error.class(), error.reach(), error.again());
            assert_eq!(found, (class, reach, again), "{code}");
            assert_eq!(error.oauth_code(), Some(code));
        }
    }
}
