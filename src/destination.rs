//! Where a token may go.

use std::fmt;
use std::hash::Hasher;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri};
use rustc_hash::FxHasher;

use crate::error::{BuildError, Error};

/// Scheme, host and port of an `http` or `https` URL (RFC 6454 §4), in one canonical form: lower case, no trailing dot, the
/// default port made explicit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    https: bool,
    host: String,
    port: u16,
    /// The authority as most requests write it, so that the cached path need not take it apart.
    usual: String,
}

impl Origin {
    fn of_uri(uri: &Uri) -> Option<Self> {
        let Parts { https, host, port } = Parts::of(uri.scheme()?, uri.authority()?)?;
        let host = host.to_ascii_lowercase();
        let usual = if port == default_port(https) {
            host.clone()
        } else {
            format!("{host}:{port}")
        };
        Some(Self {
            https,
            host,
            port,
            usual,
        })
    }

    fn is(&self, parts: &Parts<'_>) -> bool {
        self.https == parts.https
            && self.port == parts.port
            && self.host.eq_ignore_ascii_case(parts.host)
    }
}

/// An origin as a request writes it, but for the trailing dot.
struct Parts<'a> {
    https: bool,
    host: &'a str,
    port: u16,
}

impl<'a> Parts<'a> {
    fn of(scheme: &Scheme, authority: &'a Authority) -> Option<Self> {
        let https = *scheme == Scheme::HTTPS;
        if !https && *scheme != Scheme::HTTP {
            return None;
        }
        let host = authority.host();
        let host = host.strip_suffix('.').unwrap_or(host);
        // `port_u16` is `None` for an absent port, and also for an empty or an unreadable one.
        let text = authority.port().map(|port| port.as_u16());
        let unreadable =
            text.is_none() && authority.as_str().rsplit(']').next().is_some_and(has_port);
        // A pattern would match nothing, which a list of origins should not leave to be found out.
        if host.is_empty() || host.contains('*') || unreadable {
            return None;
        }
        let port = text.unwrap_or(default_port(https));
        Some(Self { https, host, port })
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// Whether something that is not an empty port follows the last `:` of an authority without user-info.
fn has_port(authority: &str) -> bool {
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty())
}

impl FromStr for Origin {
    type Err = BuildError;

    fn from_str(text: &str) -> Result<Self, BuildError> {
        let bad = || BuildError::Origin {
            // An origin with user-info could carry a password into a log.
            origin: text.rsplit('@').next().unwrap_or_default().to_owned(),
        };
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let bare =
            matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains(['#', '@']);
        Self::of_uri(&uri).filter(|_| bare).ok_or_else(bad)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// 127/8, `::1` and `localhost`: what does not leave the machine. A name that happens to resolve there is not taken: whoever
/// answers for the name could change that.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()))
}

/// Which origins may get the token, and what happens to requests for others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Destinations {
    /// Empty: every `https` origin, and loopback.
    pub(crate) allowed: Vec<Origin>,
    pub(crate) pass_others: bool,
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
        if *request.method() == Method::CONNECT {
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

    #[inline(always)]
    fn find_origin(&self, scheme: &Scheme, authority: &Authority) -> Option<u64> {
        let https = scheme.as_str() == "https";
        if self.allowed.is_empty() {
            let safe = https || *scheme == Scheme::HTTP && is_loopback(authority.host());
            return safe.then(|| name_of(authority));
        }
        let written = |origin: &Origin| origin.https == https && origin.usual == authority.as_str();
        match self.allowed.iter().position(written) {
            Some(place) if https || *scheme == Scheme::HTTP => Some(place as u64),
            _ => self.find_parts(scheme, authority),
        }
    }

    #[cold]
    fn find_parts(&self, scheme: &Scheme, authority: &Authority) -> Option<u64> {
        let parts = Parts::of(scheme, authority)?;
        let place = self.allowed.iter().position(|origin| origin.is(&parts))?;
        Some(place as u64)
    }

    #[cold]
    fn find_assumed(&self) -> Option<u64> {
        let Some(assumed) = &self.assumed else {
            // Whoever names no origin at all trusts the client underneath to know where it connects to.
            return self.allowed.is_empty().then_some(0);
        };
        if self.allowed.is_empty() {
            let safe = assumed.https || is_loopback(&assumed.host);
            return safe.then_some(0);
        }
        let place = self.allowed.iter().position(|origin| origin == assumed)?;
        Some(place as u64)
    }

    fn origin_of(&self, uri: &Uri) -> Option<Origin> {
        match uri.scheme() {
            Some(_) => Origin::of_uri(uri),
            None => self.assumed.clone(),
        }
    }

    /// What becomes of a request that [`find`](Self::find) knows no origin for.
    #[cold]
    pub(crate) fn otherwise(&self, method: &Method, uri: &Uri) -> Verdict {
        if self.pass_others {
            return Verdict::Pass;
        }
        let error = if *method == Method::CONNECT
            || uri.scheme().is_none() && uri.authority().is_some()
        {
            Error::destination(
                "a CONNECT request never carries an access token",
                "send it through a client without this layer, or call pass_other_origins()",
            )
        } else if let Some(origin) = self.origin_of(uri) {
            if self.allowed.is_empty() {
                Error::destination(
                    format!("an access token would cross the network in the clear to {origin}"),
                    "use https, or name the origin with allow_origin()",
                )
            } else {
                Error::destination(
                    format!("{origin} is not among the origins that may get the access token"),
                    "name it with allow_origin(), or call pass_other_origins() to send such requests without a token",
                )
            }
        } else if uri.scheme().is_none() {
            Error::destination(
                "the request's URI is only a path, so its origin is not known here",
                "say which origin the client connects to with assume_origin()",
            )
        } else {
            Error::destination(
                "the request's URI is neither http nor https",
                "send it through a client without this layer, or call pass_other_origins()",
            )
        };
        Verdict::Refused(error)
    }
}

/// A hash, since the URI is gone by the time a 401 comes and keeping it would cost every request an allocation. A collision
/// merges two budgets, which is harmless.
#[inline]
fn name_of(authority: &Authority) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(authority.as_str().as_bytes());
    hasher.finish()
}

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
            "http://127.0.0.1:8080/",
            "http://127.9.9.9/",
            "http://[::1]:80/",
            "http://localhost/",
            "http://LOCALHOST.:99/",
            "/only/a/path",
        ] {
            assert!(allows(&open, uri), "{uri}");
        }
        for uri in [
            "http://api.example/",
            "http://localhost.evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://127.0.0.1@evil.example/",
            "http://0.0.0.0/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::2]/",
            "ws://localhost/",
            "ftp://localhost/",
            "api.example:443",
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
            "http://localhost/",
            "https://other.example/",
        ] {
            assert!(!allows(&narrow, uri), "{uri}");
        }
    }

    #[test]
    fn a_listed_origin_has_one_name_however_it_is_written() {
        let mut narrow = destinations(&["https://other.example", "https://api.example"]);
        narrow.assumed = Some("https://api.example".parse().unwrap());
        let name = |uri: &str| {
            let request = Request::builder().uri(uri).body(()).unwrap();
            narrow.find(&request).expect("it may have the token")
        };
        let usual = name("https://api.example/x");
        for uri in ["https://API.example.:443", "https://me@api.example/", "/x"] {
            assert_eq!(name(uri), usual, "{uri}");
        }
        assert_ne!(name("https://other.example/"), usual);
    }

    // P35
    #[test]
    fn a_bare_path_needs_an_assumed_origin_once_there_is_a_list() {
        let mut narrow = destinations(&["https://api.example"]);
        assert!(!allows(&narrow, "/x"));
        narrow.assumed = Some("https://other.example".parse().unwrap());
        assert!(!allows(&narrow, "/x"));
        narrow.assumed = Some("https://api.example:443".parse().unwrap());
        assert!(allows(&narrow, "/x"));
        assert!(allows(&narrow, "*"));
    }

    // P35
    #[test]
    fn connect_never_carries_the_token() {
        let mut open = destinations(&[]);
        for uri in ["https://api.example", "api.example:443"] {
            let request = Request::connect(uri).body(()).unwrap();
            let verdict = |open: &Destinations| open.otherwise(request.method(), request.uri());
            assert_eq!(open.find(&request), None);
            assert!(matches!(verdict(&open), Verdict::Refused(_)));
            open.pass_others = true;
            assert!(matches!(verdict(&open), Verdict::Pass));
            open.pass_others = false;
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_only() {
        for bad in [
            "api.example",
            "https://api.example/v1",
            "https://api.example?x",
            "https://api.example#x",
            "https://u:p@api.example",
            "ws://api.example",
            "https://api.example:99999",
            "https://*.example",
            "https://",
            "",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
