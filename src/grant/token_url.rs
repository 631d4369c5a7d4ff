//! Slips in writing a token URL, each told with what to write instead.

use crate::error::wrapping;

/// What is wrong with the text. Asked before it is parsed: a parser says only that something is.
pub(crate) fn misspelt(url: &str) -> Option<&'static str> {
    let reason = if let Some(reason) = wrapping(url) {
        reason
    } else if url.contains(char::is_whitespace) {
        "it has white space in it; write it as %20, or leave it out"
    } else if url.contains(['{', '}', '<', '>']) || url.contains("$(") {
        "it has a placeholder in it ({..}, <..> or $(..)); write the value in its place"
    } else if url.starts_with('/') {
        "it is only a path; write the whole URL, https://host/path"
    } else if url.contains('\\') {
        "it has a backslash in it; write /"
    } else if !url.contains("://") {
        "it has no scheme; write https:// in front of the host (http:// for loopback)"
    } else if !host(url).is_ascii() {
        "its host has characters outside ASCII; write the name in ASCII, in which it has a part that begins with xn--"
    } else if !url.is_ascii() {
        "it has characters outside ASCII; percent-encode them"
    } else {
        return None;
    };
    Some(reason)
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
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
            ("https:\\\\gw.example\\t", "backslash"),
        ] {
            let error = misspelt(url).unwrap();
            assert!(error.contains(part), "{url:?}: {error}");
        }
        for url in [
            "https://gw.example/t?x=1",
            "http://[::1]:80/",
            "https://xn--bcher-kva.example/t",
        ] {
            assert_eq!(misspelt(url), None, "{url}");
        }
    }
}
