//! Why a token client got no answer, read from the chain of its error.
//!
//! Clients wrap deeply and each in its own way, so every link of the chain is looked at, the
//! innermost first: by its text, then by its type.

use std::error::Error as StdError;
use std::io;

use super::fault::Fault;
use super::source::chain;
use super::{BoxError, Error};

impl Fault {
    fn of(error: &(dyn StdError + 'static)) -> Self {
        let links: Vec<_> = chain(error).collect();
        let fault = links.iter().rev().find_map(|&link| {
            Self::of_text(&link.to_string())
                .or_else(|| is_rustls(link).then_some(Self::Handshake))
                .or_else(|| Self::of_io(link.downcast_ref()?))
        });
        let connecting = |link: &&_| letters(&ToString::to_string(link)).contains("connect");
        match fault {
            Some(Self::Timeout) if links.iter().any(connecting) => Self::ConnectTimeout,
            fault => fault.unwrap_or(Self::Unknown),
        }
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        use io::ErrorKind::*;
        Some(match error.kind() {
            ConnectionRefused => Self::Refused,
            ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | UnexpectedEof => {
                Self::Closed
            }
            HostUnreachable | NetworkUnreachable | NetworkDown => Self::NoRoute,
            TimedOut => Self::Timeout,
            _ => return None,
        })
    }

    fn of_text(text: &str) -> Option<Self> {
        let text = letters(text);
        let says = |parts: &str| parts.split(", ").any(|part| text.contains(&letters(part)));
        let row = TEXTS.iter().find(|(_, parts)| says(parts));
        row.map(|&(fault, _)| fault)
    }
}

/// Letters and digits in lower case: rustls and OpenSSL write the same words with blanks, dashes
/// or capitals.
fn letters(text: &str) -> String {
    let kept = text.chars().filter(char::is_ascii_alphanumeric);
    kept.map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(feature = "client")]
fn is_rustls(error: &(dyn StdError + 'static)) -> bool {
    error.is::<rustls::Error>()
}

#[cfg(not(feature = "client"))]
fn is_rustls(_: &(dyn StdError + 'static)) -> bool {
    false
}

/// Parts of the texts of rustls, OpenSSL, SChannel, Apple's Security framework, hyper and the
/// resolvers. The first row that fits counts: an alert about our certificate comes before what is
/// said of theirs.
const TEXTS: &[(Fault, &str)] = &[
    (
        Fault::OurCertificate,
        "certificate required, alert no certificate, alert bad certificate, \
         alert unsupported certificate, alert certificate, alert unknown ca, alert access denied",
    ),
    (Fault::OfCa, "ca used as end entity"),
    (
        Fault::UnknownIssuer,
        "unknown issuer, peer certificate bad signature, certificate signature failure, \
         self signed certificate, local issuer certificate, verify the first certificate, \
         certificate was not trusted, certificate is not trusted, authority that is not trusted",
    ),
    (
        Fault::WrongName,
        "not valid for name, hostname mismatch, ip address mismatch, cn name does not match",
    ),
    (
        Fault::Expired,
        "certificate expired, certificate has expired",
    ),
    (Fault::NotYetValid, "not valid yet, not yet valid"),
    (
        Fault::Revoked,
        "certificate revoked, certificate has been revoked",
    ),
    (
        Fault::Certificate,
        "peer certificate, certificate verify failed, invalid certificate, sent no certificates",
    ),
    (
        Fault::NoTls,
        "invalid content type, wrong version number, packet length too long",
    ),
    (
        Fault::BrokenHttp,
        "invalid http header, invalid http status, content length parsed, \
         transfer encoding parsed, message head is too large",
    ),
    (
        Fault::NoHttp,
        "invalid http, received unexpected message from connection",
    ),
    (
        Fault::Handshake,
        "received fatal alert, tls handshake, handshake failure, alert protocol version, \
         peer is incompatible, peer misbehaved",
    ),
    (Fault::Scheme, "scheme is not http, unsupported scheme"),
    (
        Fault::Proxy,
        "proxy auth, unsuccessful tunnel, tunnel error unsuccessful",
    ),
    (
        Fault::Dns,
        "dns error, lookup address, name or service not known, name resolution, \
         nodename nor servname, no such host",
    ),
    (Fault::Refused, "connection refused"),
    (
        Fault::Closed,
        "connection reset, connection closed, broken pipe",
    ),
    (Fault::NoRoute, "no route to host, network is unreachable"),
    (Fault::Timeout, "deadline has elapsed, timed out"),
];

impl Error {
    /// The token client failed before there was an answer.
    pub(crate) fn no_answer(source: BoxError) -> Self {
        let fault = Fault::of(&*source);
        let mut error = Self::new(fault.row(), fault.texts().0);
        error.edit().fault = Some(fault);
        error.with_source(source)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    /// A link of a chain, as HTTP clients have many.
    #[derive(Debug)]
    struct Link(&'static str, Option<BoxError>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Link {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|source| source as _)
        }
    }

    fn wrapped(inner: impl Into<BoxError>) -> Error {
        let connect = Link("tcp connect error", Some(inner.into()));
        Error::no_answer(Link("client error (Connect)", Some(connect.into())).into())
    }

    // FA10
    #[test]
    fn each_fault_is_found_by_the_text_of_the_innermost_cause_whichever_client_it_is() {
        for (text, fault) in [
            (
                "invalid peer certificate: UnknownIssuer",
                Fault::UnknownIssuer,
            ),
            (
                "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate \
                 verify failed:ssl/statem/statem_clnt.c:1889: \
                 (self-signed certificate in certificate chain)",
                Fault::UnknownIssuer,
            ),
            (
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is \
                 only valid for DnsName(\"b\")",
                Fault::WrongName,
            ),
            (
                "certificate verify failed: (Hostname mismatch)",
                Fault::WrongName,
            ),
            ("invalid peer certificate: Expired", Fault::Expired),
            (
                "certificate verify failed: (certificate has expired)",
                Fault::Expired,
            ),
            (
                "received fatal alert: CertificateExpired",
                Fault::OurCertificate,
            ),
            ("sslv3 alert certificate expired", Fault::OurCertificate),
            (
                "received fatal alert: CertificateRequired",
                Fault::OurCertificate,
            ),
            (
                "received corrupt message of type InvalidContentType",
                Fault::NoTls,
            ),
            ("ssl3_get_record:wrong version number", Fault::NoTls),
            ("invalid HTTP version parsed", Fault::NoHttp),
            ("invalid HTTP header parsed", Fault::BrokenHttp),
            ("invalid HTTP status-code parsed", Fault::BrokenHttp),
            ("invalid content-length parsed", Fault::BrokenHttp),
            ("unexpected transfer-encoding parsed", Fault::BrokenHttp),
            ("message head is too large", Fault::BrokenHttp),
            ("received fatal alert: HandshakeFailure", Fault::Handshake),
            ("invalid URL, scheme is not http", Fault::Scheme),
            (
                "failed to lookup address information: Name or service not known",
                Fault::Dns,
            ),
            ("No such host is known. (os error 11001)", Fault::Dns),
            ("connection closed before message completed", Fault::Closed),
            (
                "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                Fault::OfCa,
            ),
            ("received unexpected message from connection", Fault::NoHttp),
            ("tunnel error: unsuccessful", Fault::Proxy),
        ] {
            assert_eq!(wrapped(Link(text, None)).cause.fault, Some(fault), "{text}");
        }
    }

    // FA10
    #[test]
    fn each_fault_is_found_by_the_kind_of_the_io_error_underneath() {
        for (kind, fault) in [
            (io::ErrorKind::ConnectionRefused, Fault::Refused),
            (io::ErrorKind::ConnectionReset, Fault::Closed),
            (io::ErrorKind::UnexpectedEof, Fault::Closed),
            (io::ErrorKind::NetworkUnreachable, Fault::NoRoute),
            (io::ErrorKind::TimedOut, Fault::ConnectTimeout),
        ] {
            assert_eq!(wrapped(io::Error::from(kind)).cause.fault, Some(fault));
            let hidden = io::Error::other(io::Error::new(kind, "of its own"));
            assert_eq!(wrapped(hidden).cause.fault, Some(fault));
        }
        let slow = Error::no_answer(io::Error::from(io::ErrorKind::TimedOut).into());
        assert_eq!(slow.cause.fault, Some(Fault::Timeout));
        let unknown = wrapped("of its own");
        assert_eq!(unknown.cause.fault, Some(Fault::Unknown));
        assert!(unknown.again(), "a fault that nobody knows may pass");
    }

    // FA10
    #[test]
    fn a_certificate_is_not_tried_again_in_the_flight_and_all_else_is() {
        let theirs = wrapped(Link("invalid peer certificate: UnknownIssuer", None));
        let ours = wrapped(Link("received fatal alert: CertificateRequired", None));
        for error in [theirs, ours] {
            assert!(error.is_transient() && !error.again(), "{error}");
        }
        let refused = wrapped(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert!(refused.is_transient() && refused.again(), "{refused}");
    }

    // FA10
    #[cfg(feature = "client")]
    #[test]
    fn rustls_errors_are_found_however_deep() {
        use rustls::CertificateError as Certificate;

        for (error, fault) in [
            (Certificate::UnknownIssuer.into(), Fault::UnknownIssuer),
            (Certificate::NotValidForName.into(), Fault::WrongName),
            (Certificate::Expired.into(), Fault::Expired),
            (Certificate::NotValidYet.into(), Fault::NotYetValid),
            (Certificate::BadSignature.into(), Fault::UnknownIssuer),
            (Certificate::BadEncoding.into(), Fault::Certificate),
            (
                rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA),
                Fault::OurCertificate,
            ),
            (
                rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                Fault::NoTls,
            ),
        ] {
            let deep = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(wrapped(io::Error::other(deep)).cause.fault, Some(fault));
        }
    }
}
