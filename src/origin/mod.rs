//! Scheme, host and port of an `http` or `https` URL (RFC 6454 §4), and the only code that reads
//! them.
//!
//! Destinations, lists of origins, the budgets of 401s and the token URL all go by what is read
//! here. `http::Uri` accepts more than clients agree on: it has no host in `https://:443/`, no port
//! in `https://api.example:99999/` (clients dial the default port then), and ignores what follows
//! the bracket in `http://[::1]evil.example/`. Whatever two parsers could read differently is an
//! error here, so that the host that is judged is the host that is dialled.
//!
//! Rules: R20, R22.

mod misspelt;
mod number;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, Scheme};

pub(crate) use self::misspelt::misspelt;
use self::misspelt::{meant_origin, misspelt_origin};
pub(crate) use self::number::{number_of_plain_https, number_of_plain_loopback};
use crate::error::BuildError;

/// An origin that a setting names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Canonical: the host is in lower case.
    parts: Parts<String>,
    /// The authority as most requests write it, so that the cached path need not take it apart.
    usual: String,
    number: u64,
}

impl Origin {
    fn new(parts: &Parts<&str>) -> Self {
        let host = match parts.host {
            Host::Name(name) => Host::Name(name.to_ascii_lowercase()),
            Host::V6(address) => Host::V6(address),
        };
        let usual = if parts.port == default_port(parts.https) {
            host.to_string()
        } else {
            format!("{host}:{}", parts.port)
        };
        Self {
            parts: Parts {
                https: parts.https,
                host,
                port: parts.port,
            },
            usual,
            number: parts.number(),
        }
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let uri = parse(text)?;
        let (scheme, authority) = absolute(&uri)?;
        if authority.as_str().contains('@') {
            return Err("leave the user-info out");
        }
        let parts = Parts::read(scheme, authority)?;
        parts.check_setting()?;
        if !matches!(uri.path(), "" | "/") {
            return Err("leave the path out");
        } else if uri.query().is_some() {
            return Err("leave the query out");
        } else if text.contains('#') {
            // `http::Uri` drops a fragment without a word.
            return Err("leave the fragment out");
        }
        Ok(Self::new(&parts))
    }

    /// See [`Parts::number`].
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn is_safe(&self) -> bool {
        self.parts.is_safe()
    }

    pub(crate) fn is(&self, parts: &Parts<&str>) -> bool {
        let same_host = match (&self.parts.host, &parts.host) {
            (Host::Name(one), Host::Name(other)) => one.eq_ignore_ascii_case(other),
            (Host::V6(one), Host::V6(other)) => one == other,
            _ => false,
        };
        same_host && self.parts.https == parts.https && self.parts.port == parts.port
    }

    /// Whether a request names this origin in the usual spelling; `false` says nothing.
    #[inline(always)]
    pub(crate) fn is_spelled(&self, https: bool, authority: &str) -> bool {
        self.parts.https == https && self.usual == authority
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.fmt(f)
    }
}

impl FromStr for Origin {
    type Err = BuildError;

    fn from_str(text: &str) -> Result<Self, BuildError> {
        let wrong = match misspelt_origin(text) {
            Some(wrong) => wrong,
            None => match Self::read(text) {
                Ok(origin) => return Ok(origin),
                Err(wrong) => wrong,
            },
        };
        let origin = without_secrets(text);
        let before_host = text.rsplit_once('@').map_or("", |(before, _)| before);
        // Either a password or the query has an `@` then, and the host may be part of a secret.
        let reason = if before_host.contains(['?', '#']) {
            "leave out the user-info, the query and the fragment".into()
        } else {
            match meant_origin(text).filter(|meant| meant != text && Self::read(meant).is_ok()) {
                Some(meant) => {
                    let wrong = wrong.split(';').next().unwrap_or_default();
                    format!("{wrong}: write {meant:?}").into()
                }
                None => wrong.into(),
            }
        };
        Err(BuildError::Origin { origin, reason })
    }
}

const HIDDEN: &str = "...";

/// A text for an error. Dots tell that something may be a password or a key and is left out.
pub(crate) fn without_secrets(text: &str) -> String {
    let shown = crate::error::without_secrets(text);
    if text.contains(['@', '?', '#']) && !shown.ends_with(HIDDEN) {
        shown + HIDDEN
    } else {
        shown
    }
}

/// What an origin consists of. With `S = &str` it borrows from the URI as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts<S> {
    https: bool,
    host: Host<S>,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host<S> {
    /// A registered name or an IPv4 address. Behind `https` without the trailing dot, which changes
    /// nothing for a host that has to show a certificate. Behind `http` the dot stays: `localhost.`
    /// may be asked of a name server.
    Name(S),
    V6(Ipv6Addr),
}

impl<'a> Parts<&'a str> {
    /// The error is a clause whose subject is the URL.
    pub(crate) fn read(scheme: &Scheme, authority: &'a Authority) -> Result<Self, &'static str> {
        // Not by `==`, which ignores case: clients take a scheme built as `HTTPS` for neither of
        // the two.
        let https = match scheme.as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("its scheme is neither https nor http"),
        };
        let (host, port) = split(authority)?;
        let host = match host {
            Host::Name(name) if https => Host::Name(name.strip_suffix('.').unwrap_or(name)),
            host => host,
        };
        let port = port.unwrap_or(default_port(https));
        Ok(Self { https, host, port })
    }

    /// One number for an origin, however it is written. A hash, since the URI is gone by the time a
    /// 401 comes and keeping it would cost every request an allocation. A collision merges two
    /// budgets of renewals and nothing else; a keyed hash, which nobody could collide on purpose,
    /// would cost each request more.
    pub(crate) fn number(&self) -> u64 {
        match &self.host {
            Host::Name(name) => number::of_name(self.https, name, self.port),
            Host::V6(address) => number::of_address(self.https, address, self.port),
        }
    }

    /// For a setting, which is better rejected than found not to work. RFC 3986 allows more, but no
    /// name server knows such a name and no certificate is for one.
    pub(crate) fn check_setting(&self) -> Result<(), &'static str> {
        let Host::Name(name) = self.host else {
            return Ok(());
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.contains('*') {
            Err("its host is a pattern; name each host")
        } else if !name.bytes().all(known) {
            Err("its host has a character that no host name has")
        } else if name.contains("..") {
            Err(EMPTY_LABEL)
        } else {
            Ok(())
        }
    }
}

impl<S: AsRef<str>> Parts<S> {
    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.host.is_loopback()
    }

    /// Whether what is sent there cannot be read on the way.
    pub(crate) fn is_safe(&self) -> bool {
        self.https || self.is_loopback()
    }
}

impl<S: AsRef<str>> fmt::Display for Parts<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl<S: AsRef<str>> Host<S> {
    /// 127/8, `::1` and `localhost`: what does not leave the machine. Not a name that happens to
    /// resolve there, since whoever answers for the name could change that, nor `127.1`, which only
    /// some resolvers take for an address.
    fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => {
                let name = name.as_ref();
                name == "127.0.0.1"
                    || name.eq_ignore_ascii_case("localhost")
                    || name.starts_with("127.") && name.parse::<Ipv4Addr>().is_ok()
            }
            Self::V6(address) => address.is_loopback(),
        }
    }
}

impl<S: AsRef<str>> fmt::Display for Host<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_ref()),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// Why an authority cannot be read, if it cannot.
pub(crate) fn unreadable(authority: &Authority) -> Option<&'static str> {
    split(authority).err()
}

/// Host, as it is written, and port.
fn split(authority: &Authority) -> Result<(Host<&str>, Option<u16>), &'static str> {
    let text = authority.as_str();
    let place = match position(text, |byte| byte == b'@') {
        Some(end) => {
            let (user, place) = (&text[..end], &text[end + 1..]);
            if user.contains(['[', ']']) || place.contains('@') {
                return Err("its user-info has an @ or a bracket that is not percent-encoded");
            }
            place
        }
        None => text,
    };
    let (host, after) = match place.strip_prefix('[') {
        Some(inner) => {
            let (address, after) = inner.split_once(']').ok_or("it has an open bracket")?;
            let address = address
                .parse()
                .map_err(|_| "the brackets hold no IPv6 address, or one with a zone")?;
            (Host::V6(address), after)
        }
        None => {
            let strange = |byte| matches!(byte, b':' | b'[' | b']' | b'%');
            let end = position(place, strange).unwrap_or(place.len());
            let (name, after) = place.split_at(end);
            check_name(name)?;
            (Host::Name(name), after)
        }
    };
    let port = match after.as_bytes() {
        // RFC 3986 §3.2.3: an empty port is the default one.
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(read_port(digits)?),
        _ => return Err("something other than a port follows its host"),
    };
    Ok((host, port))
}

/// `str::find` for ASCII. It has nothing to set up, which most of its time would go into for an
/// authority.
fn position(text: &str, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    text.bytes().position(wanted)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    match name.as_bytes() {
        [] | [b'.'] => Err(NO_HOST),
        [b'.', ..] | [.., b'.', b'.'] => Err(EMPTY_LABEL),
        _ => Ok(()),
    }
}

const EMPTY_LABEL: &str = "its host has an empty label";

/// Stricter than `u16::from_str`, and so than clients: that takes `+80`, which others do not.
fn read_port(digits: &[u8]) -> Result<u16, &'static str> {
    let add = |port: u32, digit: &u8| {
        let port = port * 10 + char::from(*digit).to_digit(10)?;
        (port <= u32::from(u16::MAX)).then_some(port)
    };
    let port = digits.iter().try_fold(0, add);
    port.and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .ok_or("its port is not a number from 1 to 65535")
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// Parses an absolute URL that a person has written, or says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Uri, &'static str> {
    match misspelt(text) {
        Some(wrong) => Err(wrong),
        None => text.parse().map_err(|_| match text.split_once("://") {
            Some((_, rest)) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => NO_HOST,
            _ => "it has a character that no URL has",
        }),
    }
}

/// Scheme and authority of a URL that a person has written.
pub(crate) fn absolute(uri: &Uri) -> Result<(&Scheme, &Authority), &'static str> {
    let scheme = uri.scheme().ok_or("it has no scheme")?;
    Ok((scheme, uri.authority().ok_or(NO_HOST)?))
}

const NO_HOST: &str = "it has no host";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap_or_else(|_| panic!("{text} is a URI"))
    }

    fn read(uri: &Uri) -> Result<Parts<&str>, &'static str> {
        let (scheme, authority) = absolute(uri)?;
        Parts::read(scheme, authority)
    }

    fn reason(text: &str) -> &'static str {
        Origin::read(text).expect_err(text)
    }

    // FS1
    #[test]
    fn what_two_parsers_could_read_differently_is_not_read() {
        for (place, wanted) in [
            ("api.example:99999", "port"),
            ("api.example:65536", "port"),
            ("api.example:abc", "port"),
            ("api.example:-1", "port"),
            ("api.example:+443", "port"),
            ("api.example:0", "port"),
            ("api.example:443;x", "port"),
            ("[::1]:99999", "port"),
            ("", "no host"),
            (":443", "no host"),
            (".", "no host"),
            ("user@:443", "no host"),
            ("..", "label"),
            (".api.example", "label"),
            ("api.example..", "label"),
            ("[]", "brackets"),
            ("[::1%25lo]", "brackets"),
            ("[fe80::1%eth0]", "brackets"),
            ("[127.0.0.1]", "brackets"),
            ("[v1.x]", "brackets"),
            ("[localhost]", "brackets"),
            ("[::1]evil.example", "follows"),
            ("[::1]443", "follows"),
            ("[::1]evil.example:443", "follows"),
            ("api.example[::1]", "follows"),
            ("api[.example]", "follows"),
            ("a@b@api.example", "user-info"),
            ("[::1]@api.example", "user-info"),
            ("127.0.0.1:80@evil.example@api.example", "user-info"),
        ] {
            for scheme in ["http", "https"] {
                let text = format!("{scheme}://{place}/");
                // What `http` refuses is nothing that could be dialled.
                let Ok(uri) = text.parse() else {
                    assert_eq!(place, "", "{text}");
                    continue;
                };
                let found = read(&uri).expect_err(&text);
                assert!(found.contains(wanted), "{text}: {found}");
                assert!(text.parse::<Origin>().is_err(), "{text}");
                assert_eq!(number_of_plain_https(place), None, "{text}");
            }
        }
    }

    // FS1
    #[test]
    fn a_port_may_be_empty_or_padded_as_the_rfc_and_clients_have_it() {
        for (text, port) in [
            ("https://api.example:/", 443),
            ("http://api.example:", 80),
            ("https://api.example:0443/", 443),
            ("https://[::1]:", 443),
            ("https://api.example:00000000000008080", 8080),
        ] {
            let uri = uri(text);
            assert_eq!(read(&uri).map(|parts| parts.port), Ok(port), "{text}");
        }
    }

    // FS15, FS1
    #[test]
    fn only_what_no_name_server_is_asked_for_is_loopback() {
        let is_safe =
            |host: &str| read(&uri(&format!("http://{host}/"))).is_ok_and(|parts| parts.is_safe());
        for host in [
            "127.0.0.1",
            "127.9.9.9:8080",
            "127.255.255.255",
            "localhost",
            "LocalHost:99",
            "[::1]",
            "[0:0:0:0:0:0:0:1]:80",
            "user:pw@127.0.0.1",
        ] {
            assert!(is_safe(host), "{host}");
        }
        for host in [
            "localhost.",
            "127.0.0.1.",
            "127.0.0.1.:80",
            "127.1",
            "127.0.0.01",
            "127.0.0.0x1",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "2130706433",
            "127.0.0.1.evil.example",
            "127.evil.example",
            "127.0.0.1@evil.example",
            "localhost:80@evil.example",
            "localhost.localdomain",
            "localhost.evil.example",
            "ip6-localhost",
            "0.0.0.0",
            "128.0.0.1",
            "[::]",
            "[::2]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
        ] {
            assert!(!is_safe(host), "{host}");
        }
    }

    // FS16
    #[test]
    fn an_origin_has_one_name_however_it_is_written() {
        let name = |text: &str| {
            let uri = uri(text);
            let name = read(&uri).map(|parts| parts.number());
            let (scheme, authority) = absolute(&uri).unwrap();
            if *scheme == Scheme::HTTPS {
                let plain = number_of_plain_https(authority.as_str());
                assert!(plain.is_none() || plain == name.ok(), "{text}");
            }
            name.unwrap_or_else(|reason| panic!("{text}: {reason}"))
        };
        for same in [
            &[
                "https://api.example/",
                "https://API.Example/x?y",
                "HTTPS://api.example",
                "https://api.example:443/",
                "https://api.example:0443/",
                "https://api.example:/",
                "https://api.example./",
                "https://API.EXAMPLE.:443/",
                "https://user@api.example/",
                "https://user:443@api.example/",
                "https://other:pw@api.example:443/",
            ][..],
            &["https://a.io", "https://A.io.", "https://x@a.io:443"],
            &["https://api.example:8443", "https://API.example.:8443"],
            &[
                "http://127.0.0.1",
                "http://127.0.0.1:80",
                "http://u@127.0.0.1:",
            ],
            &["https://[2001:db8::1]", "https://[2001:DB8:0:0::1]:443"],
        ] {
            for text in same {
                assert_eq!(name(text), name(same[0]), "{text}");
            }
            if let Ok(origin) = same[0].parse::<Origin>() {
                assert_eq!(origin.number(), name(same[0]));
            }
        }
        let apart = [
            "https://api.example/",
            "http://api.example/",
            "http://api.example:443/",
            "http://api.example./",
            "https://api.example:80/",
            "https://api.example:8443/",
            "https://api.example.evil/",
            "https://apj.example/",
            "https://api.examples/",
            "https://aaaaaaaaaaaa/",
            "https://aaaaaaaaaaaaa/",
            "https://a.io/",
            "https://a.i/",
            "https://[::1]/",
            "https://[::2]/",
        ];
        let names: std::collections::HashSet<_> = apart.iter().map(|text| name(text)).collect();
        assert_eq!(names.len(), apart.len());
    }

    #[test]
    fn the_usual_spelling_has_its_name_without_being_taken_apart() {
        for host in [
            "api.example",
            "10.0.0.12",
            "a-b_c.example",
            "eight.io",
            "xn--bcher-kva.example",
        ] {
            assert!(number_of_plain_https(host).is_some(), "{host}");
        }
        for host in [
            "Api.example",
            "api.exampl\u{e9}",
            "api.example.",
            ".api.example",
            "u@api.example",
        ] {
            assert_eq!(number_of_plain_https(host), None, "{host}");
        }
    }

    #[test]
    fn a_host_of_each_length_has_one_name_and_each_byte_tells() {
        for length in 8..80 {
            let host = "a".repeat(length);
            let name = number_of_plain_https(&host);
            let origin: Origin = format!("https://{host}").parse().expect("an origin");
            assert_eq!(name, Some(origin.number()), "{host}");
            for byte in 0..length {
                let with = |text| {
                    let mut other = host.clone();
                    other.replace_range(byte..=byte, text);
                    number_of_plain_https(&other)
                };
                let other = with("b");
                assert!(other.is_some() && other != name, "{host}, {byte}");
                assert_eq!(with(":"), None, "{host}, {byte}");
            }
        }
    }

    // FA16, FS1
    #[test]
    fn the_reason_says_what_to_write() {
        for (text, wanted) in [
            ("", "empty"),
            ("api.example", "https://"),
            ("127.0.0.1:9001", "https://"),
            ("127.0.0.1:9001/t", "https://"),
            ("//api.example", "only a path"),
            ("/v1", "only a path"),
            ("https://", "no host"),
            ("https:///v1", "no host"),
            ("https://b\u{fc}cher.example", "xn--"),
            ("https://\u{4f8b}\u{3048}.jp:8443", "xn--"),
            ("\"https://api.example\"", "quotes around"),
            ("https://api.example ", "white space around"),
            ("https://api.example\n", "line break"),
            ("https://{host}", "placeholder"),
            ("https://$HOST", "placeholder"),
            ("https://api%2eexample", "has a %"),
            ("https://*.example", "name each host"),
            ("https://api..example", "label"),
            ("ws://api.example", "neither https nor http"),
            ("https://u:p@api.example", "user-info"),
            ("https://api.example/v1", "leave the path out"),
            ("https://api.example?x", "leave the query out"),
            ("https://api.example#x", "leave the fragment out"),
            ("https://a^b.example", "a character that no URL has"),
        ] {
            let reason = reason(text);
            assert!(reason.contains(wanted), "{text}: {reason}");
        }
    }

    // FS11
    #[test]
    fn an_error_prints_neither_password_nor_query() {
        for (text, shown) in [
            ("https://user:canary@api.example", "https://api.example..."),
            ("https://user:c@nary@api.example", "https://api.example..."),
            ("user:canary@api.example", "api.example..."),
            ("https://user:canary?@api.example", "https://..."),
            ("https://user:canary#@api.example?canary", "https://..."),
            (
                "https://api.example?apikey=canary",
                "https://api.example...",
            ),
            ("https://api.example/v1?apikey=c@nary", "https://..."),
            ("https://api.example/#canary", "https://api.example/..."),
            ("https://api.example/?", "https://api.example/..."),
            ("api.example", "api.example"),
        ] {
            assert_eq!(without_secrets(text), shown, "{text}");
            let error = text.parse::<Origin>().expect_err(text);
            let text = format!("{error} {error:?}");
            assert!(!text.contains("canary") && !text.contains("nary"), "{text}");
        }
    }

    // FA16
    #[test]
    fn an_origin_is_told_what_to_write_instead() {
        for (origin, advice) in [
            ("api.example", "https:// in front"),
            ("https://api.example/v1", "leave the path out"),
            ("https://b\u{fc}cher.example", "xn--"),
            ("https://*.example", "name each origin"),
            (" https://api.example", "white space"),
            ("\"https://api.example\"", "quotes"),
            ("<https://api.example>", "angle brackets"),
            (
                "https://a.example,https://b.example",
                "one origin at a time",
            ),
            (
                "https://a.example https://b.example",
                "one origin at a time",
            ),
            ("https://${HOST}", "placeholder"),
            ("https://", "no host"),
            ("https://api.example:99999", "port"),
            (
                "https://api.example//",
                "leave the path out: write \"https://api.example\"",
            ),
            (
                "https://https://api.example",
                "the scheme twice: write \"https://api.example\"",
            ),
            (
                "https://http//api.example",
                "the scheme twice: write \"http://api.example\"",
            ),
            (
                "https://HTTPS://api.example",
                "the scheme twice: write \"https://api.example\"",
            ),
            ("", "empty"),
            ("*", "name each origin"),
            ("https://api.example\\v1", "backslash"),
            ("https://::1", "no brackets"),
            ("https://[::1", "no closing bracket"),
            ("https://api.example:443:443", "more than one :"),
            ("https://api%2eexample", "has a %"),
        ] {
            let text = origin.parse::<Origin>().expect_err(origin).to_string();
            assert!(text.contains(advice), "{text}");
        }
    }

    /// Authorities of pieces that parsers trip over.
    fn authority() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[a-zA-Z0-9._~-]{1,9}",
            2 => Just(String::from(":")),
            2 => "[0-9]{1,6}",
            1 => "[@:.+%;=$,!*-]",
            1 => Just(String::from("[::1]")),
            1 => Just(String::from("[2001:DB8::A]")),
            1 => Just(String::from("[")),
            1 => Just(String::from("]")),
            1 => Just(String::from("@")),
            1 => Just(String::from("127.0.0.1")),
            1 => Just(String::from("localhost")),
            1 => Just(String::from(".")),
        ];
        proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        // FS1
        #[test]
        fn what_is_read_is_what_a_client_dials(https: bool, place in authority()) {
            let scheme = if https { "https" } else { "http" };
            let text = format!("{scheme}://{place}/x");
            let Ok(uri) = text.parse::<Uri>() else {
                return Ok(());
            };
            let read = read(&uri);
            if let Ok(parts) = &read {
                // As hyper's connector has it.
                let host = uri.host().expect("an absolute URI");
                let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
                let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let host = inner.unwrap_or(host);
                match parts.host {
                    Host::V6(address) => prop_assert_eq!(Ok(address), host.parse()),
                    Host::Name(name) => {
                        prop_assert!(host.parse::<Ipv6Addr>().is_err(), "{}", host);
                        let dot = if https { "." } else { "" };
                        prop_assert!(host == name || host == format!("{name}{dot}"), "{}", host);
                        if !https && parts.is_safe() {
                            let address = host.parse::<Ipv4Addr>();
                            prop_assert!(
                                address.is_ok_and(|address| address.is_loopback())
                                    || host.eq_ignore_ascii_case("localhost")
                            );
                        }
                    }
                }
                prop_assert_eq!(parts.port, port);
            }
            let plain = number_of_plain_https(uri.authority().expect("an absolute URI").as_str());
            if let (true, Some(name)) = (https, plain) {
                prop_assert_eq!(Some(name), read.as_ref().ok().map(Parts::number));
            }
            if let Ok(origin) = format!("{scheme}://{place}").parse::<Origin>() {
                let parts = read.expect("an origin is readable");
                prop_assert!(origin.is(&parts));
                prop_assert_eq!(origin.number(), parts.number());
            }
        }

        #[test]
        fn a_written_origin_reads_back(
            host in "[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?",
            port: u16,
            https: bool,
        ) {
            prop_assume!(port != 0 && !host.contains(".."));
            let scheme = if https { "https" } else { "http" };
            let origin: Origin = format!("{scheme}://{host}:{port}").parse().expect("an origin");
            prop_assert_eq!(origin.to_string(), format!("{scheme}://{host}:{port}"));
            prop_assert_eq!(&origin.to_string().parse::<Origin>().expect("an origin"), &origin);
        }
    }
}
