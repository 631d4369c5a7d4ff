//! What is refused before anything else looks at a request: a layer over all routes, readiness
//! included.
//!
//! It fails closed. Whoever reaches the port can use the token, and a web page in a browser on this
//! machine reaches it: by its address, or by a name of its own that it lets resolve to loopback
//! (DNS rebinding).

use std::env;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};

use crate::wire::Wire;

type Refusal = (StatusCode, &'static str);

pub(crate) async fn guard(
    State(token): State<Option<Required>>,
    Extension(wire): Extension<Wire>,
    mut request: Request,
    next: Next,
) -> Response {
    let coded = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = match refuse(&request, token.as_ref(), &wire) {
        Some((status, reason)) => (status, format!("{reason}\n")).into_response(),
        None => {
            if let Some(Required { name, .. }) = token {
                request.headers_mut().remove(name);
            }
            next.run(request).await
        }
    };
    if coded {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

fn refuse(request: &Request, required: Option<&Required>, wire: &Wire) -> Option<Refusal> {
    let headers = request.headers();
    method(request.method())
        .or_else(|| host(request.uri(), headers))
        .or_else(|| page(headers))
        .or_else(|| required.and_then(|required| required.missing(headers)))
        .or_else(|| target(request.uri()))
        .or_else(|| framing(request.version(), headers, wire))
}

/// TRACE gives back what it was sent, the token with it. TRACK is the same under IIS. In any case,
/// since an API may be lenient.
fn method(method: &Method) -> Option<Refusal> {
    let refused = ["CONNECT", "TRACE", "TRACK"];
    let refused = refused
        .iter()
        .any(|name| method.as_str().eq_ignore_ascii_case(name));
    refused.then_some((
        StatusCode::NOT_IMPLEMENTED,
        "neither CONNECT nor TRACE is passed on",
    ))
}

fn host(uri: &Uri, headers: &HeaderMap) -> Option<Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Some((
            StatusCode::BAD_REQUEST,
            "one Host header is needed, no more",
        ));
    };
    let Some(host) = host.to_str().ok().filter(|host| is_loopback(host)) else {
        return Some((
            StatusCode::FORBIDDEN,
            "not a forward proxy: ask for the path only, with a loopback Host",
        ));
    };
    // The absolute form names the host a second time. Both must be the same (RFC 9112 §3.2.2).
    let scheme = uri.scheme_str()?;
    let same = uri
        .authority()
        .is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(host));
    (scheme != "http" || !same).then_some((
        StatusCode::FORBIDDEN,
        "not a forward proxy: the request's URL is another than its Host",
    ))
}

/// `localhost`, 127/8 or `[::1]`, and a port or none.
///
/// Any port: whoever forwards one (ssh, docker, kubectl) has another there than we listen on, and
/// what keeps a rebound name out is the host. No trailing dot: such a name may go to DNS.
fn is_loopback(host: &str) -> bool {
    let (loopback, rest) = match host.strip_prefix('[') {
        Some(host) => {
            let Some((ip, rest)) = host.split_once(']') else {
                return false;
            };
            (ip.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback()), rest)
        }
        None => {
            let (name, rest) = host.split_at(host.find(':').unwrap_or(host.len()));
            let ip = name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback());
            (ip || name.eq_ignore_ascii_case("localhost"), rest)
        }
    };
    let port = rest.strip_prefix(':').is_some_and(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    loopback && (rest.is_empty() || port)
}

/// Browsers send `Origin` with what a script asks for, and `Sec-Fetch-Site` with everything; `none`
/// is what a person typed. `Sec-Fetch-Mode` alone is no browser but Node, whose `fetch` sends it.
fn page(headers: &HeaderMap) -> Option<Refusal> {
    let twice = headers.keys().any(|name| {
        name.as_str().starts_with("sec-fetch-") && headers.get_all(name).iter().count() > 1
    });
    let site = headers.get("sec-fetch-site");
    let page = headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != "none");
    (page || twice).then_some((StatusCode::FORBIDDEN, "web pages are not served"))
}

fn target(uri: &Uri) -> Option<Refusal> {
    let path = uri.path_and_query().map_or("", |target| target.as_str());
    // An absolute URL may have a query and no path.
    let absolute = uri.scheme().is_some() && path.starts_with('?');
    if !path.starts_with('/') && !absolute {
        return Some((StatusCode::BAD_REQUEST, "the request's target is no path"));
    }
    let reason = if has_dots(uri.path()) {
        "a path with dot segments could leave the one that API_URL names"
    } else if is_odd(&decode(uri.path())) {
        "a path with control characters, overlong UTF-8 or %u escapes is not passed on"
    } else {
        return None;
    };
    Some((StatusCode::BAD_REQUEST, reason))
}

/// Whether any segment is `.` or `..`, in whatever way a server further on may come to read it so:
/// percent-encoded, more than once even, with backslashes for slashes, or before what may be cut
/// off (`..;x`, `..?x`).
pub(crate) fn has_dots(path: &str) -> bool {
    let path = decode(path);
    let mut segments = path.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| {
        let mut parts = segment.split(|byte| matches!(byte, b';' | b'?' | b'#'));
        let name = parts.next().unwrap_or_default().trim_ascii();
        matches!(name, b"." | b"..")
    })
}

/// What one server drops or decodes and the next does not, so that dots could hide in it.
fn is_odd(path: &[u8]) -> bool {
    let overlong = |pair: &[u8]| {
        matches!(
            pair,
            [0xc0 | 0xc1, 0x80..=0xbf]
                | [0xe0, 0x80..=0x9f]
                | [0xf0, 0x80..=0x8f]
                | [0xf8, 0x80..=0x87]
                | [0xfc, 0x80..=0x83]
        )
    };
    let escape = |six: &[u8]| {
        let [b'%', b'u' | b'U', digits @ ..] = six else {
            return false;
        };
        digits.iter().all(u8::is_ascii_hexdigit)
    };
    path.iter().any(u8::is_ascii_control)
        || path.windows(2).any(overlong)
        || path.windows(6).any(escape)
}

/// Until no escape is left, however often the path was encoded.
///
/// In one pass: to decode all of it again and again takes as many passes as `%252525…` has levels,
/// and thirty seconds for 32 KB.
fn decode(path: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        decoded.push(byte);
        // A byte that was decoded may be the end of an escape itself.
        while let [.., b'%', high, low] = decoded[..] {
            let digit = |byte| char::from(byte).to_digit(16);
            let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                break;
            };
            decoded.truncate(decoded.len() - 3);
            decoded.push((high * 16 + low) as u8);
        }
    }
    decoded
}

fn framing(version: Version, headers: &HeaderMap, wire: &Wire) -> Option<Refusal> {
    let all = |name: HeaderName, good: &[&str]| {
        let mut values = headers.get_all(name).iter();
        values.all(|value| {
            good.iter()
                .any(|good| value.as_bytes().eq_ignore_ascii_case(good.as_bytes()))
        })
    };
    let codings = headers.get_all(header::TRANSFER_ENCODING).iter().count();
    if wire.two_lengths() {
        let reason = "a request has a Content-Length or a Transfer-Encoding, not both";
        Some((StatusCode::BAD_REQUEST, reason))
    } else if codings > 1 || !all(header::TRANSFER_ENCODING, &["chunked"]) {
        let reason = "no Transfer-Encoding but chunked, once";
        Some((StatusCode::NOT_IMPLEMENTED, reason))
    } else if !all(header::UPGRADE, &["h2c"]) {
        // Java's client offers h2c on every request; to go on in HTTP/1.1 is an answer to that.
        let reason = "upgrades (WebSocket) are not passed on";
        Some((StatusCode::NOT_IMPLEMENTED, reason))
    } else if !all(header::EXPECT, &["100-continue"]) {
        let reason = "no expectation but 100-continue is met";
        Some((StatusCode::EXPECTATION_FAILED, reason))
    } else if version > Version::HTTP_11 {
        let reason = "HTTP/1.1 is spoken here";
        Some((StatusCode::HTTP_VERSION_NOT_SUPPORTED, reason))
    } else {
        None
    }
}

/// A header that each request must have, so that one a browser makes without asking cannot pass: to
/// add a header of its own, a page must ask first, and is refused.
#[derive(Clone)]
pub(crate) struct Required {
    name: HeaderName,
    value: HeaderValue,
}

impl Required {
    /// From `SIDECAR_HEADER`.
    pub(crate) fn from_env() -> Result<Option<Self>, &'static str> {
        match env::var("SIDECAR_HEADER") {
            Ok(text) => Self::parse(&text).map(Some),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err("SIDECAR_HEADER is not Unicode"),
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, value) = text
            .split_once(':')
            .ok_or("SIDECAR_HEADER is not NAME:VALUE")?;
        let name = name.trim().parse().ok();
        let value = value.trim();
        let (Some(name), Ok(value), false) = (name, value.parse(), value.is_empty()) else {
            return Err("SIDECAR_HEADER is not NAME:VALUE");
        };
        if is_set_by_browsers(&name) {
            return Err(
                "SIDECAR_HEADER names a header that browsers and clients send by themselves",
            );
        }
        Ok(Self { name, value })
    }

    fn missing(&self, headers: &HeaderMap) -> Option<Refusal> {
        let mut values = headers.get_all(&self.name).iter();
        let given = match (values.next(), values.next()) {
            (Some(value), None) => value.as_bytes(),
            _ => b"",
        };
        let wanted = self.value.as_bytes();
        // Without a word about how much of it was right: the value may be a password.
        let differing = given
            .iter()
            .zip(wanted)
            .fold(0, |bits, (a, b)| bits | (a ^ b));
        (given.len() != wanted.len() || differing != 0).then_some((
            StatusCode::FORBIDDEN,
            "the header that SIDECAR_HEADER asks for is missing or wrong",
        ))
    }
}

/// What a page may set without asking (Fetch §2.2.2), and what a client sets by itself.
fn is_set_by_browsers(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("sec-")
        || name.starts_with("proxy-")
        || [
            "accept",
            "accept-encoding",
            "accept-language",
            "authorization",
            "cache-control",
            "connection",
            "content-language",
            "content-length",
            "content-type",
            "cookie",
            "device-memory",
            "dnt",
            "downlink",
            "dpr",
            "ect",
            "expect",
            "host",
            "if-modified-since",
            "if-none-match",
            "keep-alive",
            "last-event-id",
            "origin",
            "pragma",
            "priority",
            "purpose",
            "range",
            "referer",
            "rtt",
            "save-data",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "upgrade-insecure-requests",
            "user-agent",
            "via",
            "viewport-width",
            "width",
            "x-requested-with",
        ]
        .contains(&name)
}
