//! The token client used when none is given (feature `client`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::crypto::CryptoProvider;

use crate::error::BuildError;

/// HTTP/1.1 over TLS with the platform's certificate verifier, without redirects and proxy.
///
/// No connection outlives its exchange: tokens are fetched once in many minutes, and a connection
/// kept that long is more often dead than alive, so that a second attempt on it would fail like the
/// first.
pub(crate) fn https() -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, BuildError> {
    let provider = provider().ok_or(BuildError::NO_TLS_PROVIDER)?;
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_platform_verifier(provider)
        .map_err(BuildError::no_certificate_verifier)?
        .https_only()
        .enable_http1()
        .wrap_connector(tcp());
    Ok(with(connector))
}

/// Like [`https`], without TLS: a loopback endpoint needs no certificates on the machine.
pub(crate) fn http() -> Client<HttpConnector, Full<Bytes>> {
    with(tcp())
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    tcp
}

fn with<C: Connect + Clone>(connector: C) -> Client<C, Full<Bytes>> {
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_max_idle_per_host(0);
    client.build(connector)
}

/// The cryptography of TLS: what the process has installed, or else what a feature of this crate
/// names.
///
/// rustls is not asked for its default, since it panics when the build has two or none. Nothing is
/// installed here: that is for the program to do.
fn provider() -> Option<Arc<CryptoProvider>> {
    CryptoProvider::get_default().cloned().or_else(own_provider)
}

// With both features, the one that rustls prefers.
#[cfg(feature = "aws-lc-rs")]
fn own_provider() -> Option<Arc<CryptoProvider>> {
    Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
fn own_provider() -> Option<Arc<CryptoProvider>> {
    Some(Arc::new(rustls::crypto::ring::default_provider()))
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
fn own_provider() -> Option<Arc<CryptoProvider>> {
    None
}

/// Half of the default limit of an attempt, so that a second address still has its chance.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
