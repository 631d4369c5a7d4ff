//! The failure table of [`Error`](super::Error) as data.
//!
//! The code looks failures up in it, `table.md` in the docs is its rendering, and the tests walk
//! through it. It needs nothing of the crate, so that the tests outside can include this file.

#[cfg(test)]
use std::fmt::Write as _;

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

/// Whether the same flight tries again. A `Retry-After` always ends it; where an answer of the row
/// can have one, the table says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    No,
    Yes,
    UnlessRetryAfter,
}

/// What a row of the table says of a failure that it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) class: Class,
    pub(crate) again: Again,
    pub(crate) reach: Reach,
}

impl Row {
    const fn new(class: Class, again: Again, reach: Reach) -> Self {
        Self {
            class,
            again,
            reach,
        }
    }

    pub(crate) const PASSING: Self = Self::new(Class::Transient, Again::Yes, Reach::Client);
    /// A certificate that does not verify: theirs or ours. Only a change on one of the two sides
    /// will help.
    pub(crate) const CERTIFICATE: Self = Self::new(Class::Transient, Again::No, Reach::Client);
    pub(crate) const FAILING: Self =
        Self::new(Class::Transient, Again::UnlessRetryAfter, Reach::Client);
    /// Transient, but coming back at once would make it worse.
    pub(crate) const BUSY: Self = Self::new(Class::Transient, Again::No, Reach::Client);
    pub(crate) const CLIENT: Self = Self::new(Class::Rejected, Again::No, Reach::Client);
    pub(crate) const REQUEST: Self = Self::new(Class::Rejected, Again::No, Reach::Kind);
    /// It is not the token endpoint that answers, or not as one.
    pub(crate) const FOREIGN: Self = Self::new(Class::InvalidResponse, Again::No, Reach::Client);
    pub(crate) const UNUSABLE: Self = Self::new(Class::InvalidResponse, Again::No, Reach::Kind);
    pub(crate) const DESTINATION: Self = Self::new(Class::Destination, Again::No, Reach::Kind);
}

/// A line of the table: a row and what it is found by.
pub(crate) struct Line<When: 'static> {
    /// The row fits when one of these does.
    pub(crate) when: &'static [When],
    /// The same in words.
    #[cfg_attr(not(test), allow(dead_code))] // it is the docs'
    pub(crate) text: &'static str,
    /// `None` where the answer is looked up in another part.
    pub(crate) row: Option<Row>,
}

/// Why there is no complete head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHead {
    Certificate,
    Other,
}

/// What a head that is not 2xx says, with the code that came with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// From one to the other, both included.
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

/// What a 2xx comes to.
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

pub(crate) const NO_HEAD: &[Line<NoHead>] = &[
    Line {
        when: &[NoHead::Certificate],
        text: "their certificate does not verify, or they refuse ours",
        row: Some(Row::CERTIFICATE),
    },
    Line {
        when: &[NoHead::Other],
        text: "connect, DNS, TLS otherwise, timeout, reset",
        row: Some(Row::PASSING),
    },
];

pub(crate) const NOT_2XX: &[Line<Head>] = &[
    Line {
        // A status past the last class of HTTP is as far from an answer as one of these.
        when: &[
            on((100, 199), Codes::Whatever),
            on((300, 399), Codes::Whatever),
            on((600, 999), Codes::Whatever),
        ],
        text: "1xx, 3xx",
        row: Some(Row::FOREIGN),
    },
    Line {
        when: &[on((429, 429), Codes::Whatever)],
        text: "429",
        row: Some(Row::BUSY),
    },
    Line {
        when: &[on(ERROR, Codes::OneOf(UNKNOWN_CLIENT))],
        text: "`invalid_client`, `unauthorized_client`",
        row: Some(Row::CLIENT),
    },
    Line {
        when: &[
            on((404, 407), Codes::Whatever),
            on((410, 410), Codes::Whatever),
            on((501, 501), Codes::Whatever),
            on((505, 505), Codes::Whatever),
            on((511, 511), Codes::Whatever),
        ],
        text: "404, 405, 406, 407, 410, 501, 505, 511",
        row: Some(Row::CLIENT),
    },
    Line {
        when: &[
            on((401, 401), Codes::NoneOrOneOf(SERVER_FAILS)),
            on((403, 403), Codes::NoneOrOneOf(SERVER_FAILS)),
            on((401, 401), Codes::OneOf(TOO_FAST)),
        ],
        text: "401, 403: without a code, or with `server_error`, `temporarily_unavailable` \
               (and under 401 `slow_down`, `too_many_requests`)",
        row: Some(Row::CLIENT),
    },
    Line {
        when: &[
            on((408, 408), Codes::Whatever),
            on((425, 425), Codes::Whatever),
            on((500, 599), Codes::Whatever),
            on(ERROR, Codes::OneOf(SERVER_FAILS)),
        ],
        text: "408, 425, other 5xx; `server_error`, `temporarily_unavailable`",
        row: Some(Row::FAILING),
    },
    Line {
        when: &[on(ERROR, Codes::OneOf(TOO_FAST))],
        text: "`slow_down`, `too_many_requests`",
        row: Some(Row::BUSY),
    },
    Line {
        when: &[on(ERROR, Codes::Some)],
        text: "any other code (`invalid_scope`, `invalid_target`, `invalid_request`, \
               `unsupported_grant_type`, `access_denied`, a vendor's)",
        row: Some(Row::REQUEST),
    },
    Line {
        when: &[on((400, 499), Codes::None)],
        text: "other 4xx without a code (a page, a proxy, http at an https port)",
        row: Some(Row::CLIENT),
    },
];

pub(crate) const SUCCESS: &[Line<Success>] = &[
    Line {
        when: &[Success::Torn, Success::Empty],
        text: "the body breaks off (reset, short, JSON that ends in the middle); a 200 with \
               an empty body",
        row: Some(Row::PASSING),
    },
    Line {
        when: &[Success::NoContent],
        text: "204, 205",
        row: Some(Row::UNUSABLE),
    },
    Line {
        when: &[Success::Foreign],
        text: "neither a JSON object nor a form (a page, text, broken JSON, too large); a form \
               begins with a parameter name of RFC 6749",
        row: Some(Row::FOREIGN),
    },
    Line {
        when: &[Success::Contradiction],
        text: "one of `access_token`, `token_type`, `expires_in`, `error` twice with different \
               values",
        row: Some(Row::UNUSABLE),
    },
    Line {
        when: &[Success::Code],
        text: "a code in `error`",
        row: None,
    },
    Line {
        when: &[Success::NoToken],
        text: "no usable token, a wrong or non-string token type",
        row: Some(Row::UNUSABLE),
    },
];

const fn on(statuses: (u16, u16), codes: Codes) -> Head {
    Head { statuses, codes }
}

const ERROR: (u16, u16) = (400, 599);
const UNKNOWN_CLIENT: &[&str] = &["invalid_client", "unauthorized_client"];
const SERVER_FAILS: &[&str] = &["server_error", "temporarily_unavailable"];
const TOO_FAST: &[&str] = &["slow_down", "too_many_requests"];

/// Codes that specifications name and a token endpoint may answer with (IANA's registry of OAuth
/// errors, RFC 6749 to RFC 9470). They are no secret, whatever ours is.
pub(crate) const REGISTERED: &[&str] = &[
    "access_denied",
    "account_selection_required",
    "authorization_pending",
    "consent_required",
    "expired_token",
    "insufficient_scope",
    "insufficient_user_authentication",
    "interaction_required",
    "invalid_authorization_details",
    "invalid_client",
    "invalid_client_metadata",
    "invalid_dpop_proof",
    "invalid_grant",
    "invalid_redirect_uri",
    "invalid_request",
    "invalid_request_object",
    "invalid_request_uri",
    "invalid_scope",
    "invalid_software_statement",
    "invalid_target",
    "invalid_token",
    "login_required",
    "request_not_supported",
    "request_uri_not_supported",
    "server_error",
    "slow_down",
    "temporarily_unavailable",
    "too_many_requests",
    "unapproved_software_statement",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_pop_key",
    "unsupported_response_type",
    "unsupported_token_type",
    "use_dpop_nonce",
];

/// The row of an exchange that has not come to a head.
pub(crate) fn of_no_head(why: NoHead) -> Row {
    let line = NO_HEAD.iter().find(|line| line.when.contains(&why));
    line.and_then(|line| line.row).unwrap_or(Row::PASSING)
}

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

/// The three parts as Markdown, as they stand in the docs.
#[cfg(test)]
pub(crate) fn render() -> String {
    let mut table = String::new();
    part(&mut table, "no complete head", NO_HEAD);
    table.push('\n');
    part(
        &mut table,
        "a head that is not 2xx (its status and `Retry-After` decide at once; a code in the body \
         is heeded when it comes within 2 s)",
        NOT_2XX,
    );
    table.push('\n');
    part(&mut table, "a 2xx", SUCCESS);
    table
}

#[cfg(test)]
fn part<When>(table: &mut String, heading: &str, lines: &[Line<When>]) {
    let _ = writeln!(
        table,
        "| {heading} | class | again | speaks for |\n|---|---|---|---|"
    );
    for line in lines {
        let (class, again, reach) = match line.row {
            Some(row) => (
                match row.class {
                    Class::Transient => "transient",
                    Class::Rejected => "rejected",
                    Class::InvalidResponse => "invalid response",
                    Class::Destination => "destination",
                },
                match row.again {
                    Again::No => "no",
                    Again::Yes => "yes",
                    Again::UnlessRetryAfter => "unless `Retry-After` came",
                },
                match row.reach {
                    Reach::Client => "client",
                    Reach::Kind => "kind",
                },
            ),
            None => ("as a 400 with that code", "", ""),
        };
        let _ = writeln!(table, "| {} | {class} | {again} | {reach} |", line.text);
    }
}
