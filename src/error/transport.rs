//! What stood in the way of an answer, read from the sources of a token client's error.
//!
//! Clients wrap deeply and each in its own way, so every link of the chain is looked at, the innermost first: by its type
//! where that is the standard library's or, with the feature `client`, rustls', otherwise by its text.

use std::error::Error as StdError;
use std::io;
use std::iter::successors;

use super::class::{self, NoHead, Row};
use super::{BoxError, Error};

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Their certificate is signed by nobody whom the token client trusts.
    UnknownIssuer,
    /// Their certificate is for another host.
    WrongName,
    Expired,
    NotYetValid,
    Revoked,
    /// Their certificate is one that a CA may have, and no server.
    OfCa,
    /// Their certificate does not verify for another reason.
    Certificate,
    /// They want a certificate of ours, or another one.
    OurCertificate,
    /// `https` to a port that speaks no TLS.
    NoTls,
    /// Something else than HTTP/1.1 came back, as from a TLS port that is spoken to in the clear.
    NoHttp,
    /// HTTP/1.1 with a mistake in it: a length that is none, a head without end.
    BrokenHttp,
    /// Any other failure of the handshake.
    Handshake,
    /// The token client cannot speak the scheme of the token URL.
    Scheme,
    Proxy,
    Dns,
    Refused,
    NoRoute,
    ConnectTimeout,
    Timeout,
    Closed,
}

impl Fault {
    /// What happened, as a clause of its own.
    fn what(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "the certificate of the token endpoint is not trusted here",
            Self::WrongName => "the certificate of the token endpoint is for another name",
            Self::Expired => "the certificate of the token endpoint has expired",
            Self::NotYetValid => "the certificate of the token endpoint is not valid yet",
            Self::Revoked => "the certificate of the token endpoint is revoked",
            Self::OfCa => {
                "the certificate of the token endpoint is not trusted here, as it is one of a CA and \
                 not of a server"
            }
            Self::Certificate => "the certificate of the token endpoint does not verify",
            Self::OurCertificate => {
                "the token endpoint refused the client certificate, or wants one"
            }
            Self::NoTls => "the port of the token URL does not speak TLS",
            Self::NoHttp => "the port of the token URL does not answer with HTTP",
            Self::BrokenHttp => "what answers at the token URL does not speak proper HTTP",
            Self::Handshake => "the TLS handshake with the token endpoint failed",
            Self::Scheme => "the token client cannot use the scheme of the token URL",
            Self::Proxy => "the proxy did not let the token request through",
            Self::Dns => "the host of the token URL could not be resolved",
            Self::Refused => "the token endpoint refused the connection",
            Self::NoRoute => "there is no route to the token endpoint",
            Self::ConnectTimeout => "the token endpoint could not be connected to in time",
            Self::Timeout => "the token client ran out of time",
            Self::Closed => "the connection was closed before the token endpoint answered",
        }
    }

    /// Coming back at once would find the same certificates.
    fn row(self) -> Row {
        match self {
            Self::UnknownIssuer
            | Self::WrongName
            | Self::Expired
            | Self::NotYetValid
            | Self::Revoked
            | Self::OfCa
            | Self::Certificate
            | Self::OurCertificate => class::of_no_head(NoHead::Certificate),
            _ => class::of_no_head(NoHead::Other),
        }
    }

    fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let links: Vec<_> = chain(error).collect();
        let fault = links.iter().rev().find_map(|&link| {
            of_rustls(link)
                .or_else(|| Self::of_text(&link.to_string()))
                .or_else(|| Self::of_io(link.downcast_ref()?))
        })?;
        let connecting = || {
            let texts = links.iter().map(|link| link.to_string());
            texts
                .into_iter()
                .any(|text| text.to_ascii_lowercase().contains("connect"))
        };
        Some(match fault {
            Self::Timeout if connecting() => Self::ConnectTimeout,
            fault => fault,
        })
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        use io::ErrorKind as Kind;
        Some(match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::NotConnected
            | Kind::UnexpectedEof => Self::Closed,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Self::NoRoute,
            Kind::TimedOut => Self::Timeout,
            _ => return None,
        })
    }

    fn of_text(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let row = TEXTS.iter().find(|(part, _)| text.contains(part));
        row.map(|&(_, fault)| fault)
    }
}

#[cfg(feature = "client")]
fn of_rustls(error: &(dyn StdError + 'static)) -> Option<Fault> {
    use rustls::{
        AlertDescription as Alert, CertificateError as Certificate, Error, InvalidMessage,
    };

    Some(match error.downcast_ref()? {
        Error::InvalidCertificate(certificate) => match certificate {
            // A bad signature is that of another CA with the name of one that is trusted, as after its key was changed.
            Certificate::UnknownIssuer | Certificate::BadSignature => Fault::UnknownIssuer,
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                Fault::WrongName
            }
            Certificate::Expired | Certificate::ExpiredContext { .. } => Fault::Expired,
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => Fault::NotYetValid,
            Certificate::Revoked => Fault::Revoked,
            other => Fault::of_text(&other.to_string()).unwrap_or(Fault::Certificate),
        },
        Error::NoCertificatesPresented => Fault::Certificate,
        Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => Fault::OurCertificate,
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => Fault::NoTls,
        _ => Fault::Handshake,
    })
}

#[cfg(not(feature = "client"))]
fn of_rustls(_: &(dyn StdError + 'static)) -> Option<Fault> {
    None
}

/// Parts of the texts of rustls, OpenSSL, SChannel, Apple's Security framework, hyper and the resolvers, in lower case.
/// The first that fits counts: an alert about our certificate before what is said of theirs.
const TEXTS: &[(&str, Fault)] = &[
    ("certificaterequired", Fault::OurCertificate),
    ("certificate required", Fault::OurCertificate),
    ("alert: badcertificate", Fault::OurCertificate),
    ("alert bad certificate", Fault::OurCertificate),
    ("alert: unsupportedcertificate", Fault::OurCertificate),
    ("alert unsupported certificate", Fault::OurCertificate),
    ("alert: certificate", Fault::OurCertificate),
    ("alert certificate", Fault::OurCertificate),
    ("alert: unknownca", Fault::OurCertificate),
    ("alert unknown ca", Fault::OurCertificate),
    ("alert: accessdenied", Fault::OurCertificate),
    ("alert access denied", Fault::OurCertificate),
    ("unknownissuer", Fault::UnknownIssuer),
    ("unknown issuer", Fault::UnknownIssuer),
    ("causedasendentity", Fault::OfCa),
    ("peer certificate: badsignature", Fault::UnknownIssuer),
    ("certificate signature failure", Fault::UnknownIssuer),
    ("self-signed certificate", Fault::UnknownIssuer),
    ("self signed certificate", Fault::UnknownIssuer),
    ("local issuer certificate", Fault::UnknownIssuer),
    ("verify the first certificate", Fault::UnknownIssuer),
    ("certificate was not trusted", Fault::UnknownIssuer),
    ("certificate is not trusted", Fault::UnknownIssuer),
    ("authority that is not trusted", Fault::UnknownIssuer),
    ("not valid for name", Fault::WrongName),
    ("notvalidforname", Fault::WrongName),
    ("hostname mismatch", Fault::WrongName),
    ("host name mismatch", Fault::WrongName),
    ("ip address mismatch", Fault::WrongName),
    ("cn name does not match", Fault::WrongName),
    ("certificate expired", Fault::Expired),
    ("certificate has expired", Fault::Expired),
    ("peer certificate: expired", Fault::Expired),
    ("not valid yet", Fault::NotYetValid),
    ("not yet valid", Fault::NotYetValid),
    ("notvalidyet", Fault::NotYetValid),
    ("peer certificate: revoked", Fault::Revoked),
    ("certificate revoked", Fault::Revoked),
    ("certificate has been revoked", Fault::Revoked),
    ("peer certificate", Fault::Certificate),
    ("certificate verify failed", Fault::Certificate),
    ("invalid certificate", Fault::Certificate),
    ("invalidcontenttype", Fault::NoTls),
    ("wrong version number", Fault::NoTls),
    ("packet length too long", Fault::NoTls),
    ("invalid http header", Fault::BrokenHttp),
    ("invalid http status", Fault::BrokenHttp),
    ("content-length parsed", Fault::BrokenHttp),
    ("transfer-encoding parsed", Fault::BrokenHttp),
    ("message head is too large", Fault::BrokenHttp),
    ("invalid http", Fault::NoHttp),
    ("received unexpected message", Fault::NoHttp),
    ("received fatal alert", Fault::Handshake),
    ("tls handshake", Fault::Handshake),
    ("handshake failure", Fault::Handshake),
    ("alert protocol version", Fault::Handshake),
    ("peer is incompatible", Fault::Handshake),
    ("peer misbehaved", Fault::Handshake),
    ("scheme is not http", Fault::Scheme),
    ("unsupported scheme", Fault::Scheme),
    ("proxy auth", Fault::Proxy),
    ("unsuccessful tunnel", Fault::Proxy),
    ("tunnel error: unsuccessful", Fault::Proxy),
    ("dns error", Fault::Dns),
    ("lookup address", Fault::Dns),
    ("name or service not known", Fault::Dns),
    ("name resolution", Fault::Dns),
    ("nodename nor servname", Fault::Dns),
    ("no such host", Fault::Dns),
    ("connection refused", Fault::Refused),
    ("connection reset", Fault::Closed),
    ("connection closed", Fault::Closed),
    ("broken pipe", Fault::Closed),
    ("no route to host", Fault::NoRoute),
    ("network is unreachable", Fault::NoRoute),
    ("deadline has elapsed", Fault::Timeout),
    ("timed out", Fault::Timeout),
];

impl Error {
    /// The token client failed before there was an answer.
    pub(crate) fn no_answer(source: BoxError) -> Self {
        let fault = Fault::of(&*source);
        let what = fault.map_or("the token endpoint could not be reached", Fault::what);
        let mut error = Self::new(
            fault.map_or(class::of_no_head(NoHead::Other), Fault::row),
            what,
        );
        error.edit().fault = fault;
        error.with_source(source)
    }
}

/// An error and its sources, from the outside in. What an `io::Error` was made of is a link too, which its own `source` leaves
/// out.
pub(super) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(Some(error), |&error| {
        let made_of = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match made_of {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
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
                "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:ssl/statem/\
                 statem_clnt.c:1889: (self-signed certificate in certificate chain)",
                Fault::UnknownIssuer,
            ),
            (
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is only valid for DnsName(\"b\")",
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
        assert_eq!(unknown.cause.fault, None);
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
    fn rustls_errors_are_found_by_type_however_deep() {
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
