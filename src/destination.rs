//! Where a token may go.

use std::fmt;

use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri};

use crate::error::Error;
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

/// What becomes of a request that may not have the token.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes without one.
    Pass,
    Refused(Error),
}

impl Destinations {
    /// The origin of a request that may have the token, by the name it has in the budgets of the cache.
    #[inline(always)]
    pub(crate) fn find<B>(&self, request: &Request<B>) -> Option<u64> {
        if never_carries(request.method()) {
            return None;
        }
        let uri = request.uri();
        match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => self.find_origin(scheme, authority),
            (None, None) => self.find_assumed(),
            // The authority form has no scheme: it belongs to CONNECT.
            _ => None,
        }
    }

    /// The usual spellings are told here, and all others where they do not weigh on these.
    #[inline(always)]
    fn find_origin(&self, scheme: &Scheme, authority: &Authority) -> Option<u64> {
        let https = scheme.as_str() == "https";
        let usual = if self.allowed.is_empty() {
            https
                .then(|| origin::name_of_plain_https(authority.as_str()))
                .flatten()
        } else {
            let mut allowed = self.allowed.iter();
            let found = allowed.find(|origin| origin.is_spelled(https, authority.as_str()));
            found
                .filter(|_| https || *scheme == Scheme::HTTP)
                .map(Origin::name)
        };
        usual.or_else(|| self.find_parts(scheme, authority))
    }

    #[inline(never)]
    fn find_parts(&self, scheme: &Scheme, authority: &Authority) -> Option<u64> {
        let parts = Parts::read(scheme, authority).ok()?;
        let may_have = if self.allowed.is_empty() {
            parts.is_safe()
        } else {
            self.allowed.iter().any(|origin| origin.is(&parts))
        };
        may_have.then(|| parts.name())
    }

    #[inline(never)]
    fn find_assumed(&self) -> Option<u64> {
        let assumed = self.assumed.as_ref()?;
        let may_have = if self.allowed.is_empty() {
            assumed.is_safe()
        } else {
            self.allowed.contains(assumed)
        };
        may_have.then(|| assumed.name())
    }

    /// What becomes of a request that [`find`](Self::find) knows no origin for.
    #[cold]
    pub(crate) fn otherwise(&self, method: &Method, uri: &Uri) -> Verdict {
        // Not passed on without a token either: nobody can say where it would go.
        if let Some(reason) = uri.authority().and_then(origin::unreadable) {
            return Verdict::Refused(Error::destination(
                format!("the request's URI does not say where it goes: {reason}"),
                "write it as https://host/path or https://host:port/path",
            ));
        }
        if self.skip_others {
            return Verdict::Pass;
        }
        Verdict::Refused(if never_carries(method) {
            Error::destination(
                format!("a {method} request never carries an access token"),
                WITHOUT_TOKEN,
            )
        } else {
            match (uri.scheme(), uri.authority()) {
                (Some(scheme), Some(authority)) => match Parts::read(scheme, authority) {
                    Ok(parts) => self.not_allowed(&parts),
                    Err(_) => Error::destination(
                        "the request's URI is neither http nor https",
                        WITHOUT_TOKEN,
                    ),
                },
                // An assumed origin may have the token, or the layer is not built.
                (None, None) => Error::destination(
                    "the request's URI is only a path, so its origin is not known here",
                    "say which origin the client connects to with assume_origin()",
                ),
                _ => Error::destination(
                    "the request's URI has no scheme, so its origin is not known here",
                    "write https:// in front of the host",
                ),
            }
        })
    }

    fn not_allowed(&self, origin: &impl fmt::Display) -> Error {
        if self.allowed.is_empty() {
            Error::destination(
                format!("an access token would cross the network in the clear to {origin}"),
                "use https, or name the origin with allow_origin()",
            )
        } else {
            Error::destination(
                format!("{origin} is not among the origins that may get the access token"),
                "name it with allow_origin(), or call skip_other_origins() to send such requests \
                 without a token",
            )
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
        destinations.find(&request).is_some()
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
        assert_eq!(destinations(&[]).find(&request), None);
        assert_eq!(destinations(&["https://api.example"]).find(&request), None);
    }

    // FS16
    #[test]
    fn an_origin_has_one_name_however_it_is_written_and_with_or_without_a_list() {
        let mut open = destinations(&[]);
        let mut narrow = destinations(&["https://other.example", "https://api.example"]);
        let assumed = Some("https://api.example".parse().unwrap());
        (open.assumed, narrow.assumed) = (assumed.clone(), assumed);
        let name = |destinations: &Destinations, uri: &str| {
            let request = Request::builder().uri(uri).body(()).unwrap();
            destinations.find(&request).expect("it may have the token")
        };
        let usual = name(&open, "https://api.example/x");
        for uri in [
            "https://api.example",
            "https://API.example.:443",
            "https://me@api.example/",
            "/x",
        ] {
            assert_eq!(name(&narrow, uri), usual, "{uri}");
            assert_eq!(name(&open, uri), usual, "{uri}");
        }
        assert_ne!(name(&narrow, "https://other.example/"), usual);
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
            let verdict = |open: &Destinations| open.otherwise(request.method(), request.uri());
            assert_eq!(open.find(&request), None);
            assert!(matches!(verdict(&open), Verdict::Refused(_)));
            open.skip_others = true;
            assert!(matches!(verdict(&open), Verdict::Pass));
            open.skip_others = false;
        }
    }
}
