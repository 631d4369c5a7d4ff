//! The failure table of [`Error`](super::Error) as data.
//!
//! The code looks failures up in it, `table.md` in the docs is its rendering, and the tests walk
//! through it. It needs nothing of the crate, so that the tests outside can include this file.
//!
//! Rules: R9, R15.

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Class {
    #[default]
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

/// The scope of the backoff that a failure causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This client at this token endpoint, whatever the parameters.
    #[default]
    Client,
    /// One set of parameters alone.
    Params,
}

/// What the table says of a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) class: Class,
    /// Whether the same flight makes another attempt, if there was no `Retry-After`.
    pub(crate) again: bool,
    pub(crate) reach: Reach,
}

impl Row {
    const fn new(class: Class, again: bool, reach: Reach) -> Self {
        Self {
            class,
            again,
            reach,
        }
    }

    pub(crate) const PASSING: Self = Self::new(Class::Transient, true, Reach::Client);
    /// A certificate that does not verify, theirs or ours: only a change on one of the two sides
    /// helps.
    pub(crate) const CERTIFICATE: Self = Self::new(Class::Transient, false, Reach::Client);
    /// Transient, but an immediate attempt would make it worse.
    pub(crate) const BUSY: Self = Self::new(Class::Transient, false, Reach::Client);
    pub(crate) const CLIENT: Self = Self::new(Class::Rejected, false, Reach::Client);
    pub(crate) const REQUEST: Self = Self::new(Class::Rejected, false, Reach::Params);
    /// Something other than a token endpoint answered.
    pub(crate) const FOREIGN: Self = Self::new(Class::InvalidResponse, false, Reach::Client);
    pub(crate) const UNUSABLE: Self = Self::new(Class::InvalidResponse, false, Reach::Params);
    pub(crate) const DESTINATION: Self = Self::new(Class::Destination, false, Reach::Params);
}

/// A line of the table: the failures it is for, and what it says of them.
pub(crate) struct Line<When: 'static> {
    /// The line fits when one of these does.
    pub(crate) when: &'static [When],
    /// The same in words, for the docs.
    #[cfg_attr(not(test), allow(dead_code))]
    pub(crate) text: &'static str,
    /// `None` where another part decides.
    pub(crate) row: Option<Row>,
}

/// A range of statuses that are not 2xx, and the codes that come with them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// First and last.
    pub(crate) statuses: (u16, u16),
    pub(crate) codes: Codes,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Codes {
    /// Any code, or none.
    Whatever,
    None,
    Some,
    OneOf(&'static [&'static str]),
    NoneOrOneOf(&'static [&'static str]),
}

impl Head {
    pub(crate) fn fits(&self, status: u16, code: Option<&str>) -> bool {
        let (first, last) = self.statuses;
        let code_fits = match self.codes {
            Codes::Whatever => true,
            Codes::None => code.is_none(),
            Codes::Some => code.is_some(),
            Codes::OneOf(codes) => code.is_some_and(|code| codes.contains(&code)),
            Codes::NoneOrOneOf(codes) => code.is_none_or(|code| codes.contains(&code)),
        };
        (first..=last).contains(&status) && code_fits
    }
}

/// What can be wrong with a 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Success {
    Torn,
    Empty,
    NoContent,
    Foreign,
    Contradiction,
    Code,
    NoToken,
}

/// `Fault::row` chooses between them.
#[cfg_attr(not(test), allow(dead_code))] // for the docs
pub(crate) const NO_HEAD: &[Line<()>] = &[
    line(
        &[],
        "their certificate does not verify, or they reject ours",
        Some(Row::CERTIFICATE),
    ),
    line(
        &[],
        "connect, DNS, TLS otherwise, timeout, reset",
        Some(Row::PASSING),
    ),
];

pub(crate) const NOT_2XX: &[Line<Head>] = &[
    // A status past the last class of HTTP is as far from an answer as one of these.
    line(
        &[any(100, 199), any(300, 399), any(600, 999)],
        "1xx, 3xx",
        Some(Row::FOREIGN),
    ),
    line(&[any(429, 429)], "429", Some(Row::BUSY)),
    line(
        &[on(ERROR, Codes::OneOf(UNKNOWN_CLIENT))],
        "`invalid_client`, `unauthorized_client`",
        Some(Row::CLIENT),
    ),
    line(
        &[
            any(404, 407),
            any(410, 410),
            any(501, 501),
            any(505, 505),
            any(511, 511),
        ],
        "404, 405, 406, 407, 410, 501, 505, 511",
        Some(Row::CLIENT),
    ),
    line(
        &[
            on((401, 401), Codes::NoneOrOneOf(SERVER_FAILS)),
            on((403, 403), Codes::NoneOrOneOf(SERVER_FAILS)),
            on((401, 401), Codes::OneOf(TOO_FAST)),
        ],
        "401, 403: without a code, or with `server_error`, `temporarily_unavailable` (and under \
         401 `slow_down`, `too_many_requests`)",
        Some(Row::CLIENT),
    ),
    line(
        &[
            any(408, 408),
            any(425, 425),
            any(500, 599),
            on(ERROR, Codes::OneOf(SERVER_FAILS)),
        ],
        "408, 425, other 5xx; `server_error`, `temporarily_unavailable`",
        Some(Row::PASSING),
    ),
    line(
        &[on(ERROR, Codes::OneOf(TOO_FAST))],
        "`slow_down`, `too_many_requests`",
        Some(Row::BUSY),
    ),
    line(
        &[on(ERROR, Codes::Some)],
        "any other code (`invalid_scope`, `invalid_target`, `invalid_request`, \
         `unsupported_grant_type`, `access_denied`, a vendor's)",
        Some(Row::REQUEST),
    ),
    line(
        &[on((400, 499), Codes::None)],
        "other 4xx without a code (a page, a proxy, http at an https port)",
        Some(Row::CLIENT),
    ),
];

pub(crate) const SUCCESS: &[Line<Success>] = &[
    line(
        &[Success::Torn, Success::Empty],
        "the body breaks off (reset, short, JSON that ends in the middle); a 200 with an empty \
         body",
        Some(Row::PASSING),
    ),
    line(&[Success::NoContent], "204, 205", Some(Row::UNUSABLE)),
    line(
        &[Success::Foreign],
        "neither a JSON object nor a form (a page, text, broken JSON, too large); a form begins \
         with a parameter name of RFC 6749",
        Some(Row::FOREIGN),
    ),
    line(
        &[Success::Contradiction],
        "one of `access_token`, `token_type`, `expires_in`, `error` twice with different values",
        Some(Row::UNUSABLE),
    ),
    line(&[Success::Code], "a code in `error`", None),
    line(
        &[Success::NoToken],
        "no usable token, a wrong or non-string token type",
        Some(Row::UNUSABLE),
    ),
];

const fn line<When>(when: &'static [When], text: &'static str, row: Option<Row>) -> Line<When> {
    Line { when, text, row }
}

const fn on(statuses: (u16, u16), codes: Codes) -> Head {
    Head { statuses, codes }
}

const fn any(first: u16, last: u16) -> Head {
    on((first, last), Codes::Whatever)
}

const ERROR: (u16, u16) = (400, 599);
const UNKNOWN_CLIENT: &[&str] = &["invalid_client", "unauthorized_client"];
const SERVER_FAILS: &[&str] = &["server_error", "temporarily_unavailable"];
const TOO_FAST: &[&str] = &["slow_down", "too_many_requests"];

/// The first row that fits a head that is not 2xx.
pub(crate) fn of_head(status: u16, code: Option<&str>) -> Row {
    let fits = |line: &&Line<Head>| line.when.iter().any(|head| head.fits(status, code));
    let line = NOT_2XX.iter().find(fits);
    line.and_then(|line| line.row).unwrap_or(Row::FOREIGN)
}

/// The row of a code by itself, as under the status that RFC 6749 §5.2 gives it.
pub(crate) fn of_code(code: &str) -> Row {
    of_head(400, Some(code))
}

/// The row of a 2xx that has no code.
pub(crate) fn of_success(success: Success) -> Row {
    let line = SUCCESS.iter().find(|line| line.when.contains(&success));
    line.and_then(|line| line.row).unwrap_or(Row::UNUSABLE)
}
