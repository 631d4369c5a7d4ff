//! What stands between a token client and its endpoint, with real sockets and real TLS: each has a
//! text of its own.

use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_oauth::{Error, OAuthLayer};
use tower_oauth_stacks::{client, serve};

type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Trusts this CA and nothing else; makes connections without TLS too.
fn trusting(ca: &CertificateDer<'static>) -> Https {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
    let connector = connector.https_or_http().enable_http1().build();
    Client::builder(TokioExecutor::new()).build(connector)
}

/// A port that speaks TLS and then says nothing.
struct Front {
    port: u16,
    ca: CertificateDer<'static>,
}

impl Front {
    async fn start(change: impl FnOnce(&mut CertificateParams), asks_for_ours: bool) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &ca).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let ca = ca.der().clone();
        let provider = Arc::new(default_provider());
        let tls = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let tls = if asks_for_ours {
            let mut roots = RootCertStore::empty();
            roots.add(ca.clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            tls.with_client_cert_verifier(verifier.unwrap())
        } else {
            tls.with_no_client_auth()
        };
        let tls = tls.with_single_cert(vec![certificate.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(tls.unwrap()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut connection = acceptor.accept(connection).await?;
                    connection.read_to_end(&mut Vec::new()).await
                });
            }
        });
        Self { port, ca }
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/token", self.port)
    }
}

async fn told(url: &str, client: Https) -> Error {
    let layer = OAuthLayer::client_credentials(url, "id", "secret")
        .token_client(client)
        .build()
        .unwrap();
    let error = layer.token_cache().token().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    error
}

fn assert_says(error: &Error, attempts: u32, parts: &[&str]) {
    let text = error.to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(error.attempts(), attempts, "{text}");
}

// FA10
#[tokio::test]
async fn a_certificate_that_does_not_verify_is_told_apart_and_not_tried_again() {
    let front = Front::start(|_| (), false).await;
    let stranger = Front::start(|_| (), false).await;
    let error = told(&front.url("127.0.0.1"), trusting(&stranger.ca)).await;
    let parts = [
        "is not trusted here",
        "invalid peer certificate",
        "install the CA",
    ];
    assert_says(&error, 1, &parts);

    let error = told(&front.url("localhost"), trusting(&front.ca)).await;
    let parts = ["is for another name", "a certificate for localhost"];
    assert_says(&error, 1, &parts);

    let old = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let front = Front::start(old, false).await;
    let error = told(&front.url("127.0.0.1"), trusting(&front.ca)).await;
    assert_says(&error, 1, &["has expired", "clock"]);

    let young = |params: &mut CertificateParams| params.not_before = date_time_ymd(2999, 1, 1);
    let front = Front::start(young, false).await;
    let error = told(&front.url("127.0.0.1"), trusting(&front.ca)).await;
    assert_says(&error, 1, &["is not valid yet", "clock"]);

    let front = Front::start(|_| (), true).await;
    let error = told(&front.url("127.0.0.1"), trusting(&front.ca)).await;
    let parts = [
        "rejected the client certificate, or wants one",
        "token_client()",
    ];
    assert_says(&error, 1, &parts);
}

// FA10
#[tokio::test]
async fn the_wrong_scheme_for_a_port_is_told_in_both_directions() {
    let front = Front::start(|_| (), false).await;
    let plain = serve(Router::new()).await;

    let error = told(&format!("https://{plain}/token"), trusting(&front.ca)).await;
    let parts = ["does not speak TLS", "write http:// in the token URL"];
    assert_says(&error, 3, &parts);

    let url = front.url("127.0.0.1").replace("https", "http");
    let error = told(&url, trusting(&front.ca)).await;
    assert_says(&error, 3, &["write https:// in the token URL"]);

    let layer = OAuthLayer::client_credentials(front.url("127.0.0.1"), "id", "secret")
        .token_client(client())
        .build()
        .unwrap();
    let error = layer.token_cache().token().await.unwrap_err();
    let parts = ["cannot use the scheme", "a client with a TLS connector"];
    assert_says(&error, 3, &parts);
}

// FA10
#[tokio::test]
async fn nobody_there_no_such_name_and_a_closed_connection_are_told_apart() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let ca = Front::start(|_| (), false).await.ca;
    for scheme in ["http", "https"] {
        let error = told(&format!("{scheme}://{nobody}/token"), trusting(&ca)).await;
        let at = nobody.to_string();
        assert_says(
            &error,
            3,
            &["accepts no connections", "onnection refused", &at],
        );

        let error = told("https://no-such-host.invalid/token", trusting(&ca)).await;
        let parts = [
            "could not be resolved",
            "the spelling of no-such-host.invalid",
        ];
        assert_says(&error, 3, &parts);
    }
    let closing = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = closing.local_addr().unwrap();
    tokio::spawn(async move { while closing.accept().await.is_ok() {} });
    for scheme in ["http", "https"] {
        let error = told(&format!("{scheme}://{address}/token"), trusting(&ca)).await;

        assert_says(
            &error,
            3,
            &[
                &address.to_string(),
                "requests recover on their own once this is fixed",
            ],
        );
    }
}

// FA10
#[tokio::test]
async fn reqwest_and_the_default_client_are_read_as_hyper_is() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{nobody}/token?key=canary");
    let reqwest = tower::service_fn(|request: http::Request<Full<Bytes>>| async move {
        let (parts, body) = request.into_parts();
        let body = http_body_util::BodyExt::collect(body).await?.to_bytes();
        let request = reqwest::Request::try_from(http::Request::from_parts(parts, body))?;
        let answer = reqwest::Client::new().execute(request).await?;
        Ok::<_, tower::BoxError>(http::Response::from(answer))
    });
    let layer = || OAuthLayer::client_credentials(&url, "id", "secret");
    for layer in [layer().token_client(reqwest), layer()] {
        let error = layer
            .build()
            .unwrap()
            .token_cache()
            .token()
            .await
            .unwrap_err();
        assert_says(&error, 3, &["accepts no connections"]);
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
