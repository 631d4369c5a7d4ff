//! The token client used when none is given (feature `client`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::endpoint::{ErasedClient, TokenClient};
use crate::error::BuildError;

/// HTTP/1.1 over TLS with the platform's certificate verifier; no redirects, no proxy.
///
/// No connection outlives its exchange: tokens are fetched once in many minutes, and a connection kept that long is more often
/// dead than alive, so that a second attempt on it would fail like the first.
pub(super) fn new(https: bool) -> Result<Arc<dyn TokenClient>, BuildError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_max_idle_per_host(0);
    // The verifier reads the platform's certificates, which a machine without any need not have for a loopback endpoint.
    if !https {
        let client = client.build::<_, Full<Bytes>>(tcp);
        return Ok(Arc::new(ErasedClient::new(client)));
    }
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_platform_verifier(rustls::crypto::ring::default_provider())
        .map_err(BuildError::Tls)?
        .https_only()
        .enable_http1()
        .wrap_connector(tcp);
    let client = client.build::<_, Full<Bytes>>(connector);
    Ok(Arc::new(ErasedClient::new(client)))
}

/// Half of the default limit of an attempt, so that a second address still has its chance within it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
