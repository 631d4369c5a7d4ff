//! Slips in writing a URL, each told with what to write instead.

use std::net::Ipv6Addr;

use crate::error::wrapping;

/// What is wrong with the text. Asked before it is parsed: a parser says only that something is.
pub(crate) fn misspelt(url: &str) -> Option<&'static str> {
    wrapping(url)
        .or_else(|| pasted(url))
        .or_else(|| match absolute(url) {
            Some((scheme, rest)) => misspelt_absolute(scheme, rest),
            None if url.starts_with('/') => {
                Some("it is only a path; write the whole URL, https://host/path")
            }
            None if url.contains('\\') => Some(BACKSLASH),
            None => {
                Some("it has no scheme; write https:// in front of the host (http:// for loopback)")
            }
        })
}

/// What came along from where it was copied, or was to be filled in.
fn pasted(url: &str) -> Option<&'static str> {
    let marks = ['=', ':', '"', '\'', '(', '[', ' ', '\t'];
    let in_front = absolute(url).is_some_and(|(scheme, _)| scheme.contains(marks));
    let invisible = |c: char| {
        matches!(
            c,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{feff}'
        )
    };
    let inner = url.strip_prefix('<').and_then(|url| url.strip_suffix('>'));
    if url.len() >= usize::from(u16::MAX) {
        Some("it is longer than a URL can be (65534 bytes)")
    } else if url.contains(invisible) {
        Some("it contains an invisible character; retype it")
    } else if inner.is_some_and(|inner| inner.contains("://") && !inner.contains(['<', '>'])) {
        Some("it has angle brackets around it; leave them out")
    } else if in_front {
        Some("it has something in front of the scheme, such as a variable's name; leave that out")
    } else if url.contains(char::is_whitespace) {
        Some("it has white space in it; write it as %20, or leave it out")
    } else if url.contains(['{', '}', '<', '>']) || url.contains("$(") || has_variable(url) {
        Some(
            "it has a placeholder in it ({..}, <..>, $NAME or $(..)); write the value in its place",
        )
    } else {
        None
    }
}

fn misspelt_absolute(scheme: &str, rest: &str) -> Option<&'static str> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    if rest.contains('\\') {
        Some(BACKSLASH)
    } else if !is_web(scheme) {
        Some("its scheme is neither https nor http; write https:// (http:// for loopback)")
    } else if after_doubled_scheme(rest).is_some() {
        Some("it has the scheme twice; write it once")
    } else if host.ends_with(':') && after.starts_with("//") {
        Some("its host ends with a : and no port; write the port, or leave the : out")
    } else if host.starts_with('[') && !host.contains(']') {
        Some("its IPv6 address has no closing bracket; write [address], as in https://[::1]")
    } else if host.parse::<Ipv6Addr>().is_ok() {
        Some("its IPv6 address has no brackets; write [address], as in https://[::1]")
    } else if !host.starts_with('[') && host.matches(':').count() > 1 {
        Some("its host has more than one : after it; write one port")
    } else if !host.is_ascii() {
        Some(
            "its host has characters outside ASCII; write the name in ASCII, in which it has a \
             part that begins with xn--",
        )
    } else if !host.starts_with('[') && host.contains('%') {
        Some(
            "its host has a % in it; write the host's letters themselves, and the value for a \
             %NAME%",
        )
    } else if !rest.is_ascii() {
        Some("it has characters outside ASCII; percent-encode them")
    } else if rest.contains(['"', '`']) || rest.ends_with('\'') {
        Some("it has a quotation mark in it; leave it out, as it belongs to the shell or the file")
    } else if has_stray_percent(after) {
        Some(
            "it has a % without two hex digits after it; write the value for a %NAME%, and %25 \
             for a %",
        )
    } else {
        None
    }
}

/// What is wrong with a text as an origin before it is parsed: two origins, say, or a pattern.
pub(super) fn misspelt_origin(text: &str) -> Option<&'static str> {
    let inner = text.trim();
    if text.contains('*') {
        Some("patterns are not supported; name each origin")
    } else if inner.contains([',', ';']) || inner.contains(char::is_whitespace) {
        Some("name one origin at a time")
    } else {
        misspelt(text)
    }
}

/// The origin that was meant, if only the scheme is wrong or there is too much. It may be none.
pub(super) fn meant_origin(text: &str) -> Option<String> {
    let (scheme, rest) = absolute(text)?;
    let doubled = after_doubled_scheme(rest);
    let (scheme, rest) = doubled.unwrap_or((scheme, rest));
    let scheme = match &*scheme.to_ascii_lowercase() {
        "http" | "ws" => "http",
        _ => "https",
    };
    let place = rest.rsplit('@').next().unwrap_or_default();
    let place = place.split(['/', '?', '#']).next().unwrap_or_default();
    Some(format!("{scheme}://{place}"))
}

/// What follows the scheme may begin with a scheme again, be it without its colon.
fn after_doubled_scheme(rest: &str) -> Option<(&str, &str)> {
    let (scheme, place) = rest.split_once("//")?;
    let scheme = scheme.strip_suffix(':').unwrap_or(scheme);
    is_web(scheme).then_some((scheme, place))
}

fn is_web(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

const BACKSLASH: &str = "it has a backslash in it; write /";

/// Scheme and what follows it.
fn absolute(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    // Otherwise it stands in the query, say, of something without a scheme.
    (!scheme.is_empty() && !scheme.contains(['/', '?', '#', '\\'])).then_some((scheme, rest))
}

/// `$NAME`, in upper case as the shell's variables are: `$metadata` may be meant as it is.
fn has_variable(url: &str) -> bool {
    let mut after = url.split('$').skip(1);
    after.any(|name| name.starts_with(|first: char| first.is_ascii_uppercase()))
}

/// RFC 3986 §2.1.
fn has_stray_percent(url: &str) -> bool {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let mut after = url.split('%').skip(1).map(str::as_bytes);
    after.any(|text| !is_hex(text.first()) || !is_hex(text.get(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // FA16
    #[test]
    fn each_slip_is_told_what_to_write_instead() {
        for (url, part) in [
            ("", "empty"),
            ("  ", "blank"),
            ("127.0.0.1:9001/t", "https:// in front"),
            ("gw.example/token", "https:// in front"),
            ("localhost:8080", "https:// in front"),
            ("https:/gw.example/t", "https:// in front"),
            ("/oauth2/v1/token", "only a path"),
            ("https://bücher.example/t", "xn--"),
            ("https://gw.example/tökén", "percent-encode"),
            ("https://gw.example/t\n", "line break"),
            (" https://gw.example/t", "white space around"),
            ("https://gw.example/a b", "%20"),
            ("\"https://gw.example/t\"", "quotes"),
            ("'https://gw.example/t'", "quotes"),
            ("https://${HOST}/t", "placeholder"),
            ("https://login.example/<tenant>/t", "placeholder"),
            ("<TOKEN_URL>", "placeholder"),
            ("https:\\\\gw.example\\t", "backslash"),
            ("https://gw.example\\t", "backslash"),
            ("https://https://gw.example/t", "scheme twice"),
            ("http://http://127.0.0.1/t", "scheme twice"),
            ("https://HTTP//gw.example/t", "scheme twice"),
            ("https://gw.example://t", "no port"),
            ("https://gw.example/t\"", "quotation mark"),
            ("\"https://gw.example/t", "in front of the scheme"),
            ("https://gw.example/t'", "quotation mark"),
            ("https://gw.example/%TENANT%/t", "the value for a %NAME%"),
            ("https://gw.example/t%zz", "two hex digits"),
            ("https://gw.example/t%", "two hex digits"),
            ("https://gw.example/t?x=%2", "two hex digits"),
            ("https://%HOST%/t", "the value for a %NAME%"),
            ("https://gw%2eexample/t", "the host's letters themselves"),
            ("https://gw.example/$TENANT/t", "placeholder"),
            ("https://[::1/t", "closing bracket"),
            ("https://::1/t", "no brackets"),
            ("https://gw.example:443:443/t", "write one port"),
            (
                "OAUTH_TOKEN_URL=https://gw.example/t",
                "in front of the scheme",
            ),
            ("export URL=https://gw.example/t", "in front of the scheme"),
            ("token_url: https://gw.example/t", "in front of the scheme"),
            ("<https://gw.example/t>", "angle brackets around"),
            ("file:///x", "neither https nor http"),
            ("unix:///run/x.sock", "neither https nor http"),
            ("htps://gw.example/t", "neither https nor http"),
            ("gw.example/t?x=https://a.example", "https:// in front"),
            ("https://gw\u{200b}.example/t", "invisible"),
        ] {
            let error = misspelt(url).unwrap();
            assert!(error.contains(part), "{url:?}: {error}");
        }
        for url in [
            "https://gw.example/t?x=1",
            "http://[::1]:80/",
            "https://xn--bcher-kva.example/t",
            "HTTPS://gw.example/a%20b%2F",
            "https://gw.example:/t",
            "https://http:8443/t",
            "https://https/t",
            "https://gw.example/$metadata/(x='1')?u=https://a.example",
        ] {
            assert_eq!(misspelt(url), None, "{url}");
        }
    }
}
