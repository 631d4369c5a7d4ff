//! The ways not to get an answer, each with its text and its advice.

use super::class::Row;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    // Their certificate.
    UnknownIssuer,
    WrongName,
    Expired,
    NotYetValid,
    Revoked,
    OfCa,
    Certificate,
    /// They want a certificate of ours, or another one.
    OurCertificate,
    // What is spoken at the other end.
    NoTls,
    NoHttp,
    BrokenHttp,
    Handshake,
    Scheme,
    // The way there.
    Proxy,
    Dns,
    Refused,
    NoRoute,
    ConnectTimeout,
    Timeout,
    Closed,
    /// A text that nobody has described yet.
    Unknown,
}

impl Fault {
    /// What happened, and what to do about it, with the placeholders of [`advice`](super::advice).
    pub(super) fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::UnknownIssuer => (
                "the certificate of the token endpoint is not trusted here",
                "install the CA that signed it on this machine and restart this program, or give \
                 token_client() a client that trusts it",
            ),
            Self::WrongName => (
                "the certificate of the token endpoint is for another name",
                "check the host of the token URL; if it is right, the server needs a certificate \
                 for {host}",
            ),
            Self::Expired => (
                "the certificate of the token endpoint has expired",
                "the operator of {host} has to renew it; if it is not old, set this machine's \
                 clock",
            ),
            Self::NotYetValid => (
                "the certificate of the token endpoint is not valid yet",
                "set this machine's clock; if it is right, the operator of {host} has to replace \
                 the certificate",
            ),
            Self::Revoked => (
                "the certificate of the token endpoint is revoked",
                "the operator of {host} has to replace it",
            ),
            Self::OfCa => (
                "the certificate of the token endpoint is not trusted here, as it is one of a CA \
                 and not of a server",
                "the operator of {host} has to replace it with one whose basic constraints say \
                 CA:FALSE",
            ),
            Self::Certificate => (
                "the certificate of the token endpoint does not verify",
                "look at it with `openssl s_client -connect {connect}`, and tell the operator of \
                 {host}",
            ),
            Self::OurCertificate => (
                "the token endpoint rejected the client certificate, or wants one",
                "give token_client() a client with a certificate that {host} knows and that has \
                 not expired",
            ),
            Self::NoTls => (
                "the port of the token URL does not speak TLS",
                "{at} answers without TLS: {write_http}write the port that speaks TLS into the \
                 token URL",
            ),
            Self::NoHttp => (
                "the port of the token URL does not answer with HTTP",
                "{if_tls}check the host and port of the token URL, {at}",
            ),
            Self::BrokenHttp => (
                "what answers at the token URL does not speak proper HTTP",
                "check the host and port of the token URL, {at}; if they are right, the operator \
                 of {host}, or of a proxy in between, has to mend the answer; {resume}",
            ),
            Self::Handshake => (
                "the TLS handshake with the token endpoint failed",
                "check that {at} speaks TLS 1.2 or 1.3 and that nothing in between breaks the \
                 connection; {resume}",
            ),
            Self::Scheme => (
                "the token client cannot use the scheme of the token URL",
                "{if_tls}give token_client() a client {connector}",
            ),
            Self::Proxy => (
                "the proxy did not let the token request through",
                "check the proxy of the token client: its address, its credentials, and whether \
                 it lets {at} through",
            ),
            Self::Dns => (
                "the host of the token URL could not be resolved",
                "check the spelling of {host} in the token URL, and the DNS of this \
                 machine{proxy}; {resume}",
            ),
            Self::Refused => (
                "the token endpoint accepts no connections",
                "check the host and port of the token URL, {at}, and that the token endpoint is \
                 up{proxy}; {resume}",
            ),
            Self::NoRoute => (
                "there is no route to the token endpoint",
                "check the network of this machine and its way to {at}{proxy}; {resume}",
            ),
            Self::ConnectTimeout => (
                "the token endpoint could not be connected to in time",
                "check the host and port of the token URL, {at}, and whether a firewall drops the \
                 connection{proxy}; {resume}",
            ),
            Self::Closed => (
                "the connection was closed before the token endpoint answered",
                "{if_tls}check that the token endpoint is up and that nothing between here and \
                 {at} ends the connection; {resume}",
            ),
            Self::Timeout => ("the token client ran out of time", UNREACHABLE),
            Self::Unknown => ("the token endpoint could not be reached", UNREACHABLE),
        }
    }

    /// Another attempt would find the same certificates.
    pub(super) fn row(self) -> Row {
        use Fault::*;
        match self {
            UnknownIssuer | WrongName | Expired | NotYetValid | Revoked | OfCa | Certificate
            | OurCertificate => Row::CERTIFICATE,
            _ => Row::PASSING,
        }
    }
}

pub(super) const UNREACHABLE: &str =
    "check that the token endpoint is up and reachable from here{proxy}; {resume}";
