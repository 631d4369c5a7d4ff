//! Where a token may go: one check, whose answer is to attach the token, to pass the
//! request on without one, or an error.
//!
//! Rules: R22.

use std::fmt;

use http::{Method, Request, Uri};

use crate::error::{BuildError, Error};
use crate::origin::{self, Origin, Parts};

/// Which origins may get the token, and what happens to requests for others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Destinations {
    /// Empty: every `https` origin, and loopback.
    pub(crate) allowed: Vec<Origin>,
    pub(crate) skip_others: bool,
    /// What a request whose URI is only a path is judged as.
    pub(crate) assumed: Option<Origin>,
}

/// What happens to a request.
#[derive(Debug)]
pub(crate) enum Check {
    /// It gets the token. The origin's number tells the 401 budgets of the cache apart.
    Attach(u64),
    /// It goes without one.
    Pass,
    Error(Error),
}

impl Destinations {
    /// The usual spellings are recognized here, and all others in a function of their own, so that
    /// they do not weigh on these.
    #[inline(always)]
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Check {
        match self.usual(request.method(), request.uri()) {
            Some(origin) => Check::Attach(origin),
            None => self.check_unusual(request.method(), request.uri()),
        }
    }

    /// The origin's number, if the request may have the token and its URI is written as most are.
    /// `None` says nothing.
    ///
    /// Not inlined: the caller has few registers to spare, and saving them costs more than a call.
    #[inline(never)]
    pub(crate) fn usual(&self, method: &Method, uri: &Uri) -> Option<u64> {
        let (scheme, authority) = (uri.scheme()?.as_str(), uri.authority()?.as_str());
        if never_carries(method) {
            return None;
        }
        if !self.allowed.is_empty() {
            return self.listed(scheme, authority);
        }
        match scheme == "https" {
            true => origin::number_of_plain_https(authority),
            false => origin::number_of_plain_loopback(scheme, authority),
        }
    }

    #[inline(never)]
    fn listed(&self, scheme: &str, authority: &str) -> Option<u64> {
        let https = scheme == "https";
        let mut allowed = self.allowed.iter();
        let found = allowed.find(|origin| origin.is_spelled(https, authority));
        found
            .filter(|_| https || scheme == "http")
            .map(Origin::number)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn check_unusual(&self, method: &Method, uri: &Uri) -> Check {
        if let Some(reason) = uri.authority().and_then(origin::unreadable) {
            // Not passed on without a token either: nobody can say where it would go.
            return Check::Error(Error::destination(
                format!("the request's URI does not say where it goes: {reason}"),
                "write it as https://host/path or https://host:port/path",
            ));
        }
        let (what, advice) = match self.judge(method, uri) {
            Ok(origin) => return Check::Attach(origin),
            Err(_) if self.skip_others => return Check::Pass,
            Err(reason) => reason,
        };
        Check::Error(Error::destination(what, advice))
    }

    /// The origin's number, or why there is no token for it and what to do.
    fn judge(&self, method: &Method, uri: &Uri) -> Result<u64, (String, &'static str)> {
        if never_carries(method) {
            let what = format!("a {method} request never carries an access token");
            return Err((what, WITHOUT_TOKEN));
        }
        match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => match Parts::read(scheme, authority) {
                Ok(parts) if self.allows(|origin| origin.is(&parts), parts.is_safe()) => {
                    Ok(parts.number())
                }
                Ok(parts) => Err(self.not_allowed(&parts)),
                Err(_) => Err((
                    String::from("the request's URI is neither http nor https"),
                    WITHOUT_TOKEN,
                )),
            },
            (None, None) => match &self.assumed {
                Some(assumed) if self.allows(|origin| origin == assumed, assumed.is_safe()) => {
                    Ok(assumed.number())
                }
                // An assumed origin that may not get the token is a build error.
                _ => Err((
                    String::from(
                        "the request's URI is only a path, so its origin is not known here",
                    ),
                    "say which origin the client connects to with assume_origin()",
                )),
            },
            // The authority form has no scheme: it belongs to CONNECT.
            _ => Err((
                String::from("the request's URI has no scheme, so its origin is not known here"),
                "write https:// in front of the host",
            )),
        }
    }

    fn allows(&self, is_origin: impl Fn(&Origin) -> bool, is_safe: bool) -> bool {
        match self.allowed.is_empty() {
            true => is_safe,
            false => self.allowed.iter().any(is_origin),
        }
    }

    fn not_allowed(&self, origin: &impl fmt::Display) -> (String, &'static str) {
        if self.allowed.is_empty() {
            (
                format!("an access token would cross the network in the clear to {origin}"),
                "use https, or name the origin with allow_origin()",
            )
        } else {
            (
                format!("{origin} is not among the origins that may get the access token"),
                "name it with allow_origin(), or call skip_other_origins() to send such requests \
                 without a token",
            )
        }
    }

    /// An assumed origin that may not get the token would be noticed only by the first call.
    pub(crate) fn check_assumed(&self) -> Result<(), BuildError> {
        match &self.assumed {
            Some(assumed) if !self.allows(|origin| origin == assumed, assumed.is_safe()) => {
                let listed = !self.allowed.is_empty();
                Err(BuildError::assumed_origin(assumed, listed))
            }
            _ => Ok(()),
        }
    }
}

/// CONNECT speaks to a proxy, and the answer to TRACE is the request (RFC 9110 §9.3.8 forbids
/// credentials in it).
#[inline(always)]
fn never_carries(method: &Method) -> bool {
    *method == Method::CONNECT || *method == Method::TRACE
}

const WITHOUT_TOKEN: &str =
    "send it through a client without this layer, or call skip_other_origins()";

#[cfg(test)]
mod tests {
    use super::*;

    fn destinations(allowed: &[&str]) -> Destinations {
        Destinations {
            allowed: allowed
                .iter()
                .map(|origin| origin.parse().unwrap())
                .collect(),
            ..Destinations::default()
        }
    }

    fn allows(destinations: &Destinations, uri: &str) -> bool {
        let request = Request::builder().uri(uri).body(()).unwrap();
        number(destinations, &request).is_some()
    }

    fn number(destinations: &Destinations, request: &Request<()>) -> Option<u64> {
        match destinations.check(request) {
            Check::Attach(number) => Some(number),
            Check::Pass | Check::Error(_) => None,
        }
    }

    // R22
    #[test]
    fn without_a_list_https_and_loopback_may_have_the_token() {
        let open = destinations(&[]);
        for uri in [
            "https://api.example/x",
            "https://api.example:8443",
            "https://api.example.",
            "http://127.0.0.1:8080/",
            "http://127.9.9.9/",
            "http://[::1]:80/",
            "http://localhost/",
            "http://LOCALHOST:99/",
        ] {
            assert!(allows(&open, uri), "{uri}");
        }
        for uri in [
            "http://api.example/",
            "http://localhost./",
            "http://localhost.evil.example/",
            "http://127.0.0.1./",
            "http://127.0.0.1.evil.example/",
            "http://127.0.0.1@evil.example/",
            "http://[::1]evil.example/",
            "http://0.0.0.0/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::2]/",
            "https://api.example:99999/",
            "ws://localhost/",
            "ftp://localhost/",
            "api.example:443",
            "/only/a/path",
        ] {
            assert!(!allows(&open, uri), "{uri}");
        }
    }

    // P23
    #[test]
    fn a_list_narrows_to_scheme_host_and_port() {
        let narrow = destinations(&["https://API.example.", "http://plain.example:8080/"]);
        for uri in [
            "https://api.example/x?y",
            "https://Api.Example.:443/",
            "https://user:pw@api.example/",
            "http://plain.example:8080/",
        ] {
            assert!(allows(&narrow, uri), "{uri}");
        }
        for uri in [
            "https://api.example:444/",
            "http://api.example/",
            "https://api.example.evil.example/",
            "https://api.example@evil.example/",
            "https://plain.example:8080/",
            "http://plain.example/",
            "http://plain.example.:8080/",
            "http://localhost/",
            "https://other.example/",
            "ws://plain.example:8080/",
        ] {
            assert!(!allows(&narrow, uri), "{uri}");
        }
    }

    #[test]
    fn a_scheme_that_clients_do_not_take_for_https_is_not_https() {
        // Built of parts, `HTTPS` is another scheme, and its default port is 80.
        let uri = Uri::builder()
            .scheme("HTTPS")
            .authority("api.example")
            .path_and_query("/");
        let request = Request::builder()
            .uri(uri.build().unwrap())
            .body(())
            .unwrap();
        assert_eq!(number(&destinations(&[]), &request), None);
        assert_eq!(
            number(&destinations(&["https://api.example"]), &request),
            None
        );
    }

    // FS16
    #[test]
    fn an_origin_has_one_number_however_it_is_written_and_with_or_without_a_list() {
        let mut open = destinations(&[]);
        let mut narrow = destinations(&["https://other.example", "https://api.example"]);
        let assumed = Some("https://api.example".parse().unwrap());
        (open.assumed, narrow.assumed) = (assumed.clone(), assumed);
        let number = |destinations: &Destinations, uri: &str| {
            let request = Request::builder().uri(uri).body(()).unwrap();
            number(destinations, &request).expect("it may have the token")
        };
        let usual = number(&open, "https://api.example/x");
        for uri in [
            "https://api.example",
            "https://API.example.:443",
            "https://me@api.example/",
            "/x",
        ] {
            assert_eq!(number(&narrow, uri), usual, "{uri}");
            assert_eq!(number(&open, uri), usual, "{uri}");
        }
        assert_ne!(number(&narrow, "https://other.example/"), usual);
        for (one, other) in [
            ("http://127.0.0.1/", "http://me@127.0.0.1:80/"),
            ("http://localhost:8080/", "http://LOCALHOST:8080/"),
        ] {
            assert_eq!(number(&open, one), number(&open, other), "{one}");
        }
        // With user-info an origin is read in full.
        for port in [1, 9, 10, 80, 443, 8080, 9999, 10_000, 65_535] {
            let [usual, unusual] =
                ["", "me@"].map(|user| number(&open, &format!("http://{user}127.0.0.1:{port}/")));
            assert_eq!(usual, unusual, "{port}");
        }
        for port in ["0", "65536", "99999", "1a", "8 8", "12345678"] {
            let uri = format!("http://127.0.0.1:{port}/");
            if let Ok(uri) = uri.parse::<Uri>() {
                assert!(!allows(&open, &uri.to_string()), "{uri}");
            }
        }
    }

    // P35, FS2
    #[test]
    fn a_bare_path_needs_an_assumed_origin() {
        for list in [&[][..], &["https://api.example"]] {
            let mut destinations = destinations(list);
            assert!(!allows(&destinations, "/x"));
            assert!(!allows(&destinations, "*"));
            destinations.assumed = Some("http://other.example".parse().unwrap());
            assert!(!allows(&destinations, "/x"));
            destinations.assumed = Some("https://api.example:443".parse().unwrap());
            assert!(allows(&destinations, "/x"));
            assert!(allows(&destinations, "*"));
        }
    }

    // P35, FS3
    #[test]
    fn connect_and_trace_never_carry_the_token() {
        let mut open = destinations(&[]);
        for (method, uri) in [
            (Method::CONNECT, "https://api.example"),
            (Method::CONNECT, "api.example:443"),
            (Method::TRACE, "https://api.example"),
            (Method::GET, "api.example:443"),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            assert!(matches!(open.check(&request), Check::Error(_)));
            open.skip_others = true;
            assert!(matches!(open.check(&request), Check::Pass));
            open.skip_others = false;
        }
    }
}
