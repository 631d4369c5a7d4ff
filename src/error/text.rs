//! The words of an error: what happened, and what to do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::{self, Write};

use http::uri::Authority;

use super::transport::{Fault, chain};
use super::{Class, Error, Inner, REGISTERED};

/// What was asked, where and how: nothing secret, for whoever has to look for the fault.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) https: bool,
    /// Whether `http` would do for this host.
    pub(crate) loopback: bool,
    /// Host and port, as the token URL has them.
    pub(crate) authority: String,
    pub(crate) path: String,
    /// The token client is the user's, and may go through a proxy that we know nothing of.
    pub(crate) own_client: bool,
    /// Space-separated; empty when none was asked for.
    pub(crate) scope: String,
    /// What to check when the server does not know this client.
    pub(crate) client: &'static str,
    /// The answer was a page or the like, and nothing that a token endpoint answers with.
    pub(crate) page: bool,
}

impl Error {
    /// Says what was asked, for the advice.
    pub(crate) fn with_asked(mut self, asked: Asked) -> Self {
        self.edit().asked = Some(asked);
        self
    }

    /// Takes what `mask` knows out of the sources, which are texts of others. Sources that are clean stay what they are.
    pub(crate) fn with_masked_source(mut self, mask: impl Fn(&str) -> String) -> Self {
        let Some(source) = &self.cause.source else {
            return self;
        };
        let mut texts: Vec<_> = chain(&**source).map(ToString::to_string).collect();
        texts.dedup();
        let text = texts.join(": ");
        let (masked, debug) = (mask(&text), format!("{source:?}"));
        if masked != text || mask(&debug) != debug {
            self = self.with_source(masked);
        }
        self
    }

    fn advice(&self) -> Option<Cow<'_, str>> {
        let cause = &*self.cause;
        if let Some(advice) = &cause.advice {
            return Some(Cow::Borrowed(advice));
        }
        let case = Case(cause);
        let (_, text) = ADVICE.iter().find(|(fits, _)| fits(&case))?;
        let text = case.fill(text);
        // A code has its own advice, whatever the status: that is not all then.
        let passes = case.class(Class::Transient) && cause.status.is_some();
        if !passes || text.contains(RESUME) {
            return Some(text);
        }
        let also = if case.status(&[429]) {
            TOO_MANY
        } else {
            RESUME
        };
        Some(Cow::Owned(format!("{text}; {also}")))
    }

    /// The innermost cause, unless the text has it already.
    fn innermost(&self) -> Option<String> {
        let cause = &*self.cause;
        let innermost = chain(cause.source.as_deref()?).last()?;
        let innermost = without_queries(&innermost.to_string());
        let innermost = printable(innermost.trim(), LONGEST_CAUSE);
        let told = |text: Option<&str>| text.is_some_and(|text| text.contains(&innermost));
        let known = innermost.is_empty()
            || told(Some(&cause.what))
            || told(cause.description.as_deref())
            || told(cause.advice.as_deref());
        (!known).then_some(innermost)
    }
}

/// A failure as the table below looks at it.
struct Case<'a>(&'a Inner);

impl Case<'_> {
    fn is(&self, fault: Fault) -> bool {
        self.0.fault == Some(fault)
    }

    fn class(&self, class: Class) -> bool {
        self.0.row.class == class
    }

    fn code(&self, codes: &[&str]) -> bool {
        self.0
            .oauth_code
            .as_deref()
            .is_some_and(|code| codes.contains(&code))
    }

    fn has_code(&self) -> bool {
        self.0.oauth_code.is_some()
    }

    fn status(&self, statuses: &[u16]) -> bool {
        self.0
            .status
            .is_some_and(|status| statuses.contains(&status.as_u16()))
    }

    fn asked(&self, fits: impl Fn(&Asked) -> bool) -> bool {
        self.0.asked.as_ref().is_some_and(fits)
    }

    fn page(&self) -> bool {
        !self.has_code() && self.0.description.is_none() && self.asked(|asked| asked.page)
    }

    /// A code by which the server refuses what no specification names.
    fn own_code(&self) -> bool {
        let code = self.0.oauth_code.as_deref();
        self.class(Class::Rejected) && code.is_some_and(|code| !REGISTERED.contains(&code))
    }

    /// Refused by a status of these, and no code says why.
    fn refused_by(&self, statuses: &[u16]) -> bool {
        self.class(Class::Rejected) && !self.has_code() && self.status(statuses)
    }

    /// The server's own words, in lower case, fit.
    fn says(&self, fits: impl Fn(&str) -> bool) -> bool {
        let description = self.0.description.as_deref();
        description.is_some_and(|text| fits(&text.to_ascii_lowercase()))
    }

    fn says_scope(&self) -> bool {
        self.says(|text| text.contains("scope"))
    }

    fn wants_no_query(&self) -> bool {
        let refusals = ["not allowed", "not permitted", "not supported", "must not"];
        self.says(|text| text.contains("query") && refusals.iter().any(|no| text.contains(no)))
    }

    /// The server misses a token, as an endpoint for revocation or introspection does, or an API.
    fn misses_token(&self) -> bool {
        self.says(|text| {
            let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            text.contains("missing") && words.any(|word| word == "token")
        })
    }

    /// The server's own words or its own code are about the client and its secret.
    fn says_client(&self) -> bool {
        let words = [&self.0.description, &self.0.oauth_code];
        words.into_iter().flatten().any(|text| {
            let text = text.to_ascii_lowercase();
            let about = [
                "credential",
                "secret",
                "client id",
                "client_id",
                "clientid",
                "client authentication",
            ];
            about.iter().any(|word| text.contains(word))
        })
    }

    /// Whether an endpoint was named: a source of the user's own has none unless it says so.
    fn names_host(&self) -> bool {
        self.0.host.is_some()
    }

    fn fill<'t>(&self, template: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(template);
        let asked = self.0.asked.as_ref();
        let code = self.0.oauth_code.as_deref().unwrap_or_default();
        let host = self.0.host.as_deref().unwrap_or("the token endpoint");
        let scope = match asked {
            Some(asked) if asked.scope.is_empty() => String::from("the scope (none was asked for)"),
            Some(asked) => format!("the scope (\"{}\")", printable(&asked.scope, LONGEST_SHOWN)),
            None => String::from("the scope"),
        };
        let path = match asked {
            Some(asked) => format!(" ({})", printable(&asked.path, LONGEST_SHOWN)),
            None => String::new(),
        };
        let at = asked.map_or(host, |asked| &asked.authority);
        let has_port = at.parse().is_ok_and(|at: Authority| at.port().is_some());
        let connect = format!("{at}{}", if has_port { "" } else { ":443" });
        let proxy = match asked {
            Some(asked) if asked.own_client => PROXY,
            _ => "",
        };
        let also = match asked {
            Some(asked) => format!(
                "; check also that the token URL, {}://{at}{}, is that of the token endpoint",
                if asked.https { "https" } else { "http" },
                printable(&asked.path, LONGEST_SHOWN)
            ),
            None => String::new(),
        };
        let client = asked.map_or(CLIENT, |asked| asked.client);
        for (name, value) in [
            ("{client}", client),
            ("{host}", host),
            ("{at}", at),
            ("{connect}", &*connect),
            ("{path}", &*path),
            ("{proxy}", proxy),
            ("{also}", &*also),
            ("{scope}", &*scope),
            ("{code}", code),
        ] {
            if text.contains(name) {
                text = Cow::Owned(text.replace(name, value));
            }
        }
        text
    }
}

const PROXY: &str = "; if the token client goes through a proxy, this may be about that";

/// When the way in which the client authenticates is not known.
const CLIENT: &str = "check the client id and the secret, and how they are sent";

const RESUME: &str = "requests resume by themselves";
const TOO_MANY: &str = "too many token requests: make one layer for the whole process and clone \
                        it; requests resume by themselves";

/// What an API answers to a request with a wrong token or none (RFC 6750, RFC 9470).
const OF_AN_API: &[&str] = &["insufficient_user_authentication", "invalid_token"];

/// What other endpoints answer, or this one to other grants: a sign-in, a device, a registration, a
/// revocation.
const OF_OTHER_REQUESTS: &[&str] = &[
    "account_selection_required",
    "authorization_pending",
    "consent_required",
    "expired_token",
    "interaction_required",
    "invalid_client_metadata",
    "invalid_redirect_uri",
    "invalid_request_object",
    "invalid_request_uri",
    "invalid_software_statement",
    "login_required",
    "request_not_supported",
    "request_uri_not_supported",
    "unapproved_software_statement",
    "unsupported_response_type",
    "unsupported_token_type",
];

/// RFC 9449, RFC 9200.
const OF_BOUND_TOKENS: &[&str] = &[
    "invalid_dpop_proof",
    "unsupported_pop_key",
    "use_dpop_nonce",
];

type Row = (fn(&Case<'_>) -> bool, &'static str);

/// What to do, by the cause: the first row that fits.
const ADVICE: &[Row] = &[
    (|case| case.class(Class::Destination), ""),
    // Nothing came back.
    (
        |case| case.is(Fault::UnknownIssuer),
        "install the CA that signed it on this machine and restart this program, or give token_client() a client that trusts it",
    ),
    (
        |case| case.is(Fault::WrongName),
        "check the host of the token URL; if it is right, the server needs a certificate for {host}",
    ),
    (
        |case| case.is(Fault::Expired),
        "the operator of {host} has to renew it; if it is not old, set this machine's clock",
    ),
    (
        |case| case.is(Fault::NotYetValid),
        "set this machine's clock; if it is right, the operator of {host} has to replace the certificate",
    ),
    (
        |case| case.is(Fault::Revoked),
        "the operator of {host} has to replace it",
    ),
    (
        |case| case.is(Fault::Certificate),
        "look at it with `openssl s_client -connect {connect}`, and tell the operator of {host}",
    ),
    (
        |case| case.is(Fault::OfCa),
        "the operator of {host} has to replace it with one whose basic constraints say CA:FALSE",
    ),
    (
        |case| case.is(Fault::OurCertificate),
        "give token_client() a client with a certificate that {host} knows and that has not expired",
    ),
    (
        |case| case.is(Fault::NoTls) && case.asked(|asked| asked.loopback),
        "{at} answers in the clear: write http:// in the token URL, or the port that speaks TLS",
    ),
    (
        |case| case.is(Fault::NoTls),
        "{at} answers in the clear: write the port that speaks TLS into the token URL",
    ),
    (
        |case| case.is(Fault::NoHttp) && case.asked(|asked| !asked.https),
        "if {at} speaks TLS, write https:// in the token URL; otherwise check its host and port",
    ),
    (
        |case| case.is(Fault::NoHttp),
        "check the host and the port of the token URL, {at}",
    ),
    (
        |case| case.is(Fault::BrokenHttp),
        "check the host and port of the token URL, {at}; if they are right, the operator of \
         {host}, or of a proxy in between, has to mend the answer; requests resume by \
         themselves",
    ),
    (
        |case| case.is(Fault::Handshake),
        "check that {at} speaks TLS 1.2 or 1.3 and that nothing in between breaks the connection; requests resume by themselves",
    ),
    (
        |case| case.is(Fault::Scheme) && case.asked(|asked| asked.https),
        "give token_client() a client with a TLS connector",
    ),
    (
        |case| case.is(Fault::Scheme),
        "give token_client() a client that may connect without TLS, or write https:// in the token URL",
    ),
    (
        |case| case.is(Fault::Proxy),
        "check the proxy of the token client: its address, its credentials, and whether it lets {at} through",
    ),
    (
        |case| case.is(Fault::Dns),
        "check the spelling of {host} in the token URL, and the DNS of this machine{proxy}; requests resume by themselves",
    ),
    (
        |case| case.is(Fault::Refused),
        "check the host and port of the token URL, {at}, and that the token endpoint is up{proxy}; requests resume by themselves",
    ),
    (
        |case| case.is(Fault::NoRoute),
        "check the network of this machine and its way to {at}{proxy}; requests resume by themselves",
    ),
    (
        |case| case.is(Fault::ConnectTimeout),
        "check the host and port of the token URL, {at}, and whether a firewall drops the connection{proxy}; requests resume by \
         themselves",
    ),
    (
        |case| case.is(Fault::Closed) && case.asked(|asked| !asked.https),
        "if {at} speaks TLS, write https:// in the token URL; otherwise check that the token endpoint is up; requests resume by \
         themselves",
    ),
    (
        |case| case.is(Fault::Closed),
        "check that the token endpoint is up and that nothing between here and {at} ends the connection; requests resume by \
         themselves",
    ),
    // Not from the token endpoint at all.
    (
        |case| case.status(&[407]),
        "a proxy wants credentials: give them to the token client, with token_client()",
    ),
    (
        |case| case.status(&[511]),
        "this network wants a login before it lets anything through",
    ),
    // A code says more than the status it comes with.
    (|case| case.code(&["invalid_client"]), "{client}"),
    (
        |case| case.code(&["unauthorized_client"]),
        "check that the server lets this client use the client-credentials grant; if it does, \
         {client}",
    ),
    (
        |case| case.code(&["invalid_scope"]) && case.asked(|asked| asked.scope.is_empty()),
        "no scope was asked for, and the server may want one: set it with scope()",
    ),
    (
        |case| case.code(&["invalid_scope"]),
        "check {scope}, and that the server grants it to this client",
    ),
    (
        |case| case.code(&["invalid_target"]),
        "check the audience and the resource asked for, and that the server grants them to this client",
    ),
    (
        |case| case.code(&["unsupported_grant_type"]),
        "check the path of the token URL{path}, and that the server offers the client-credentials grant there",
    ),
    (
        |case| {
            case.class(Class::Transient)
                && (case.code(&["slow_down", "too_many_requests"]) || case.status(&[429]))
        },
        TOO_MANY,
    ),
    (
        |case| case.class(Class::Transient) && case.0.retry_after.is_some(),
        "the server asked to wait; requests resume by themselves",
    ),
    (
        |case| case.class(Class::Transient) && case.0.status.is_some(),
        "the fault lies with the token endpoint or a proxy in front of it; requests resume by themselves",
    ),
    // Codes that specifications have for something else.
    (
        |case| case.code(&["insufficient_scope"]) && case.names_host(),
        "this is what an API answers, not a token endpoint: check the path of the token \
         URL{path}, and its host and port, {at}; if they are right, check {scope}, and that the \
         server grants it to this client",
    ),
    (
        |case| case.code(OF_AN_API) && case.names_host(),
        "this is what an API answers, not a token endpoint: check the path of the token \
         URL{path}, and its host and port, {at}; if they are right, {client}",
    ),
    (
        |case| case.code(OF_OTHER_REQUESTS) && case.names_host(),
        "this is no answer to a client-credentials request: check the path of the token \
         URL{path}, and its host and port, {at}; if they are right, ask the server's operator",
    ),
    (
        |case| case.code(OF_BOUND_TOKENS) && case.names_host(),
        "the server wants tokens that are bound to a key (such as DPoP), which this crate does \
         not do: have it give Bearer tokens to this client, or write a TokenSource",
    ),
    (
        |case| case.code(&["invalid_grant"]),
        "check that the server lets this client use the client-credentials grant; some servers \
         also answer wrong credentials so: {client}",
    ),
    (
        |case| case.code(&["invalid_authorization_details"]),
        "check the authorization_details, and that the server grants them to this client",
    ),
    (|case| case.status(&[401]) && case.says_client(), "{client}"),
    (|case| case.status(&[401]), "{client}{also}"),
    (
        |case| case.code(&["server_error", "temporarily_unavailable"]),
        "ask the server's operator, who may find the request in the log; some servers answer a wrong secret so: {client}",
    ),
    (
        |case| case.code(&["access_denied"]),
        "the server denies this to the client: check {scope}, the audience and the resource, and what this client may have",
    ),
    (
        |case| case.code(&["invalid_request"]) && case.misses_token() && case.names_host(),
        "an endpoint that wants a token is there to revoke or inspect tokens, not to give them: \
         check the path of the token URL{path}",
    ),
    (
        |case| case.code(&["invalid_request"]) && case.wants_no_query() && case.names_host(),
        "leave the query out of the token URL, and set what it says with parameter()",
    ),
    (
        |case| case.code(&["invalid_request"]) && case.says_client() && !case.says_scope(),
        "{client}; then check extra parameters",
    ),
    (
        |case| case.code(&["invalid_request"]),
        "check {scope}, the audience, the resource and extra parameters; if they are right, \
         {client}{also}",
    ),
    (
        |case| case.own_code() && case.says_client(),
        "{code} is the server's own code: look it up there; {client}",
    ),
    (
        |case| case.own_code(),
        "{code} is the server's own code: look it up there; check {scope}, the audience, the \
         resource and extra parameters{also}",
    ),
    // A status alone.
    (
        |case| case.class(Class::Rejected) && case.status(&[404, 405, 406, 410, 501, 505]),
        "check the path of the token URL{path}: it must be the address that takes the POST for a token; then the client id",
    ),
    (
        |case| case.refused_by(&[413]),
        "the server, or something in front of it, finds the token request too large: shorten what \
         is asked for, the scope and extra parameters, or have its operator raise the limit",
    ),
    (
        |case| case.refused_by(&[414]),
        "the server, or something in front of it, finds the token URL too long: set what its \
         query says with parameter()",
    ),
    (
        |case| case.refused_by(&[415]),
        "what answers does not take a form, in which every token request is sent: check the path \
         of the token URL{path}",
    ),
    (
        |case| case.refused_by(&[421]),
        "what answers says that it does not serve {host}: check the host and port of the token \
         URL, {at}, and the proxy in between, if there is one",
    ),
    (
        |case| case.refused_by(&[426]) && case.asked(|asked| !asked.https),
        "the server wants another protocol: write https:// in the token URL",
    ),
    (
        |case| case.refused_by(&[426]),
        "the server wants another protocol, perhaps HTTP/2: give token_client() a client that \
         speaks it",
    ),
    (
        |case| case.refused_by(&[431]),
        "the server, or something in front of it, finds the headers too large: send a long secret \
         in the form (ClientAuth::post), and look at what the token client adds",
    ),
    (
        |case| case.refused_by(&[451]),
        "the server may not answer here, for legal reasons: ask the operator of {host} from which \
         addresses it does",
    ),
    (
        |case| {
            case.class(Class::Rejected)
                && case.page()
                && case.asked(|asked| !asked.https)
                && case.status(&[400])
        },
        "if {at} speaks TLS, write https:// in the token URL; otherwise something in front of the token endpoint refused with a \
         page, and may want other headers, such as user_agent()",
    ),
    (
        |case| case.class(Class::Rejected) && case.page(),
        "it answered with a page, so something in front of the token endpoint refused, a firewall or a gateway: it may want \
         other headers, such as user_agent(), or block the address of this machine; check the path of the token URL{path} too",
    ),
    (
        |case| case.class(Class::Rejected) && case.says_scope(),
        "check {scope}, and that the server grants it to this client",
    ),
    (
        |case| case.class(Class::Rejected) && !case.has_code() && case.says_client(),
        "{client}",
    ),
    (
        |case| case.refused_by(&[403]) && case.0.description.is_some(),
        "the server says why; check {scope}, and what this client may have{also}",
    ),
    (
        |case| case.refused_by(&[403]) && case.asked(|asked| asked.scope.is_empty()),
        "no scope was asked for, and the server may want one: set it with scope(); something in \
         front of the token endpoint may want other headers, such as user_agent(); if it is \
         neither, {client}{also}",
    ),
    (
        |case| case.refused_by(&[403]),
        "check {scope}, and that the server grants it to this client; something in front of the \
         token endpoint may want other headers, such as user_agent(); if it is neither, \
         {client}{also}",
    ),
    (
        |case| case.class(Class::Rejected),
        "check {scope}, the audience, the resource and extra parameters; if they are right, \
         {client}{also}",
    ),
    (
        |case| case.class(Class::InvalidResponse) && case.names_host(),
        "check that the token URL{path} is the token endpoint and that no proxy or login page answers in its place",
    ),
    // Time limits, and sources of the user's own, which may have no endpoint at all.
    (
        |case| case.class(Class::Transient) && case.0.timeout && case.names_host(),
        "check that the token endpoint is up and that no firewall drops the way to it; requests resume by themselves",
    ),
    (
        |case| case.class(Class::Transient) && case.names_host(),
        "check that the token endpoint is up and reachable from here{proxy}; requests resume by themselves",
    ),
    (
        |case| case.class(Class::Transient),
        "requests resume by themselves",
    ),
];

/// The whole story in one line, the innermost cause and the advice included: printing it alone is enough.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut OneLine(f);
        let cause = &*self.cause;
        if cause.row.class == Class::Destination {
            f.write_str(&cause.what)?;
        } else {
            f.write_str("no access token")?;
            if let Some(host) = &cause.host {
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
        if let Some(code) = &cause.vendor_code {
            write!(f, ", the server's code {code}")?;
        }
        if let Some(uri) = &cause.error_uri {
            write!(f, ", see {uri}")?;
        }
        if let Some(innermost) = self.innermost() {
            write!(f, ": {innermost}")?;
        }
        if let Some(id) = &cause.request_id {
            write!(f, ", request id {id}")?;
        }
        if let Some(elapsed) = cause.elapsed.filter(|_| cause.attempts > 0) {
            let plural = if cause.attempts == 1 { "" } else { "s" };
            write!(f, " ({} attempt{plural} in {elapsed:.1?})", cause.attempts)?;
        }
        if let Some(advice) = self.advice().filter(|advice| !advice.is_empty()) {
            write!(f, "; {advice}")?;
        }
        // What the server asks for may be longer than we obey, so it is not told as our own next attempt.
        match (self.next_attempt_in, cause.retry_after) {
            (Some(wait), _) => write!(f, "; next attempt in {wait:.1?}"),
            (None, Some(asked)) => write!(f, "; Retry-After: {} s", asked.as_secs()),
            (None, None) => Ok(()),
        }
    }
}

/// A source of the user's own may have line breaks in its words.
struct OneLine<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut lines = text.split(char::is_control);
        self.0.write_str(lines.next().unwrap_or_default())?;
        lines.try_for_each(|line| write!(self.0, " {line}"))
    }
}

/// Begins with the text, since `main` prints errors so, and whoever does it needs the advice.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = &*self.cause;
        write!(f, "{self} ")?;
        f.debug_struct("Error")
            .field("class", &cause.row.class)
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

/// What may be shown of a text that is not ours: printable ASCII, so that a log line stays one line,
/// and not too much of it.
pub(crate) fn printable(text: &str, longest: usize) -> String {
    let shown = text
        .chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' });
    shown.take(longest).collect()
}

/// What was written in a setting, as it may be shown.
pub(super) fn shown(text: &str) -> String {
    printable(text, LONGEST_SHOWN)
}

/// A URL, or what was meant to be one, without what may be secret in it: user-info, query and fragment.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    // A `?` before the path may be part of a password, so the query begins after it.
    let path = rest.find('/').unwrap_or_default();
    let end = rest[path..]
        .find(['?', '#'])
        .map_or(rest.len(), |at| path + at);
    let (shown, query) = rest.split_at(end);
    // What looks like a query may then be the rest of a password.
    let shown = if query.contains('@') { "..." } else { shown };
    let shown = shown.rsplit('@').next().unwrap_or_default();
    let shown = shown.split(['?', '#']).next().unwrap_or_default();
    printable(&format!("{scheme}{shown}"), LONGEST_SHOWN)
}

/// HTTP clients put the URL into their errors, and its query may hold a key.
fn without_queries(text: &str) -> String {
    let words = text.split_inclusive([' ', '(', ')', '"', '\'', '<', '>']);
    words
        .map(|word| match word.contains("://") {
            true => {
                let end = word.trim_end_matches([' ', '(', ')', '"', '\'', '<', '>', ',', ':']);
                without_secrets(end) + &word[end.len()..]
            }
            false => word.to_owned(),
        })
        .collect()
}

const LONGEST_CAUSE: usize = 256;
const LONGEST_SHOWN: usize = 128;

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    fn asked() -> Asked {
        Asked {
            https: true,
            loopback: false,
            authority: String::from("gw.example:8443"),
            path: String::from("/oauth2/v1/token"),
            own_client: false,
            scope: String::from("aisp pisp"),
            client: "check the client",
            page: false,
        }
    }

    fn advice(error: &Error) -> String {
        error.advice().unwrap_or_default().into_owned()
    }

    fn answer(status: u16, code: Option<&str>, description: Option<&str>) -> Error {
        let status = StatusCode::from_u16(status).unwrap();
        Error::of_head(status, code, "refused")
            .with_code(code.map(String::from))
            .with_description(description.map(String::from))
            .at_host(Some("gw.example"))
    }

    // FA9
    #[test]
    fn a_path_that_is_not_there_is_what_is_to_be_checked_first() {
        for status in [404, 405] {
            let advice = advice(&answer(status, None, None).with_asked(asked()));
            assert!(
                advice.starts_with("check the path of the token URL (/oauth2/v1/token)"),
                "{advice}"
            );
            assert!(
                !advice.contains("scope") && !advice.contains("check the client"),
                "{advice}"
            );
        }
    }

    // FA9, FA11
    #[test]
    fn the_client_comes_first_only_with_its_codes_and_under_401() {
        for (status, code, first) in [
            (400, Some("invalid_client"), true),
            (400, Some("unauthorized_client"), false),
            (401, Some("invalid_token"), false),
            (401, None, true),
            (401, Some("of_its_own"), true),
            (400, Some("of_its_own"), false),
            (400, None, false),
            (403, None, false),
            (404, None, false),
            (400, Some("invalid_scope"), false),
        ] {
            let advice = advice(&answer(status, code, None).with_asked(asked()));
            assert_eq!(
                advice.starts_with("check the client"),
                first,
                "{status} {code:?}: {advice}"
            );
        }
    }

    // FA11
    #[test]
    fn a_refused_scope_is_named_with_and_without_a_code() {
        for error in [
            answer(400, Some("invalid_scope"), None),
            answer(400, None, Some("The Scope is unknown")),
            answer(403, None, Some("this client may not have that scope")),
        ] {
            let advice = advice(&error.with_asked(asked()));
            assert!(
                advice.contains("the scope (\"aisp pisp\")") && !advice.contains("client id"),
                "{advice}"
            );
        }
        let none = Asked {
            scope: String::new(),
            ..asked()
        };
        let advice = advice(&answer(400, Some("invalid_scope"), None).with_asked(none));
        assert!(advice.contains("set it with scope()"), "{advice}");
    }

    // FA10
    #[test]
    fn a_token_client_of_ones_own_may_go_through_a_proxy_and_openssl_wants_a_port() {
        let advice = |authority: &str, own_client, text: &'static str| {
            let authority = authority.to_owned();
            let asked = Asked {
                authority,
                own_client,
                ..asked()
            };
            let error = Error::no_answer(text.into()).with_asked(asked);
            advice(&error.at_host(Some("gw.example")))
        };
        for text in [
            "dns error",
            "connection refused",
            "no route to host",
            "a riddle",
        ] {
            assert!(advice("gw.example", true, text).contains("proxy"), "{text}");
            assert!(
                !advice("gw.example", false, text).contains("proxy"),
                "{text}"
            );
        }
        for (authority, shown) in [
            ("gw.example", "-connect gw.example:443`"),
            ("gw.example:8443", "-connect gw.example:8443`"),
            ("[::1]", "-connect [::1]:443`"),
        ] {
            let advice = advice(authority, false, "invalid certificate");
            assert!(advice.contains(shown), "{advice}");
        }
    }

    // FU13
    #[test]
    fn an_error_is_one_line_whatever_a_source_puts_into_it() {
        let error = Error::rejected("a\r\nb", "c\nd").with_advice("e\n\u{85}f");
        assert_eq!(error.to_string(), "no access token: c d: a  b; e  f");
        assert_eq!(format!("{error:?}").lines().count(), 1);
    }

    // FA24
    #[test]
    fn a_refusal_by_a_page_says_that_something_in_front_refused_and_may_want_headers() {
        for status in [400, 403, 418] {
            let page = Asked {
                page: true,
                ..asked()
            };
            let advice = advice(&answer(status, None, None).with_asked(page));
            assert!(
                advice.contains("in front of the token endpoint"),
                "{advice}"
            );
            assert!(advice.contains("user_agent()"), "{advice}");
        }
    }

    // FA13
    #[test]
    fn without_an_endpoint_nobody_is_sent_to_one() {
        for error in [
            Error::transient("the vault is sealed"),
            Error::timed_out("no answer"),
            Error::invalid_response("no token"),
            Error::transient("busy").with_retry_after(Duration::from_secs(1)),
        ] {
            let text = error.to_string();
            assert!(
                !text.contains("endpoint") && !text.contains("URL"),
                "{text}"
            );
        }
    }

    // FU13
    #[test]
    fn the_text_has_the_innermost_cause_once_and_debug_begins_with_the_text() {
        let inner = io::Error::other(io::Error::other("the cause\r\nof it all"));
        let error = Error::transient("failed").with_source(inner);
        assert_eq!(
            error.to_string(),
            "no access token: failed: the cause??of it all; requests resume by themselves"
        );
        assert!(format!("{error:?}").starts_with(&error.to_string()));
        let told = Error::transient("failed: the cause").with_source("the cause");
        assert_eq!(told.to_string().matches("the cause").count(), 1);
    }

    // R24
    #[test]
    fn the_query_of_a_url_in_a_cause_is_cut() {
        let source = "for url (https://u:pw@gw.example/t?apikey=canary): gone";
        let error = Error::transient("failed").with_source(source);
        let text = error.to_string();
        assert!(
            text.contains("for url (https://gw.example/t): gone"),
            "{text}"
        );
        assert!(!text.contains("canary") && !text.contains("pw"), "{text}");
    }

    // FS11
    #[test]
    fn what_may_be_secret_in_a_url_is_cut() {
        for (url, shown) in [
            ("https://u:pw@a.example/b?apikey=x#y", "https://a.example/b"),
            ("https://u:p?w@a.example/b", "https://a.example/b"),
            ("https://u:p/w@a.example/b", "https://a.example/b"),
            ("https://u:p/w?x@a.example/b", "https://..."),
            ("u:pw@a.example:80", "a.example:80"),
            ("https://a.example?apikey=x", "https://a.example"),
            ("urn:a#x", "urn:a"),
            ("nowhere", "nowhere"),
        ] {
            assert_eq!(without_secrets(url), shown, "{url}");
        }
    }
}
