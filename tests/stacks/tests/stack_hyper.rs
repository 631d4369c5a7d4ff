//! hyper-util's client: HTTP/1.1 and HTTP/2, plain and over TLS with a private CA.
//!
//! To copy: [`connector`], [`https`] and [`in_house`].

#[path = "../../../examples/gateway/mod.rs"]
mod gateway;

use std::error::Error as _;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use gateway::{Config, Gateway};
use http::{StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, Error as ClientError, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{BoxError, CachePolicy, OAuth, OAuthLayer};
use tower_oauth_stacks::{client, get};

type Https = Client<HttpsConnector<HttpConnector>, Full<bytes::Bytes>>;

/// TLS that trusts one CA and nothing else.
fn connector(ca: &CertificateDer<'static>, http2: bool) -> HttpsConnector<HttpConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only();
    if http2 {
        builder.enable_all_versions().build()
    } else {
        builder.enable_http1().build()
    }
}

fn https(connector: HttpsConnector<HttpConnector>) -> Https {
    Client::builder(TokioExecutor::new()).build(connector)
}

/// A client for an API and a token endpoint whose certificates the same private CA has signed.
fn in_house(gateway: &TlsFront, ca: &CertificateDer<'static>, http2: bool) -> OAuth<Https> {
    // Its own client, without idle connections: what is used once in many minutes is mostly found
    // dead.
    let token_client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector(ca, false));
    OAuthLayer::client_credentials(
        gateway.url("/oauth2/v1/token"),
        "consumer-key",
        "consumer-secret",
    )
    .allow_origin(gateway.url(""))
    .token_client(token_client)
    .cache_policy(CachePolicy::new().attempts(1))
    .build()
    .unwrap()
    .layer(https(connector(ca, http2)))
}

#[tokio::test]
async fn requests_over_tls_share_one_token() {
    for (http2, version) in [(false, Version::HTTP_11), (true, Version::HTTP_2)] {
        let gateway = TlsFront::start().await;
        let client = in_house(&gateway, &gateway.ca, http2);

        let calls = (0..20).map(|_| client.clone().oneshot(get(gateway.url("/accounts"))));
        for answer in try_join_all(calls).await.unwrap() {
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.version(), version);
        }
        assert_eq!(gateway.behind.api_requests(), 20);
        assert_eq!(gateway.behind.token_requests(), 1);
    }
}

#[tokio::test]
async fn requests_without_tls_share_one_token() {
    let http2 = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    for (inner, version) in [(client(), Version::HTTP_11), (http2, Version::HTTP_2)] {
        let gateway = Gateway::start(Config::default()).await.unwrap();
        let client = plain(&gateway).layer(inner);

        let calls = (0..20).map(|_| client.clone().oneshot(get(gateway.api_url("/accounts"))));
        for answer in try_join_all(calls).await.unwrap() {
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.version(), version);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, r#"{"message":"hello"}"#);
        }
        assert_eq!(gateway.token_requests(), 1);
    }
}

#[tokio::test]
async fn a_ca_that_is_not_known_is_a_transient_failure_with_the_tls_error_as_its_source() {
    let gateway = TlsFront::start().await;
    let stranger = TlsFront::start().await;
    let mut client = in_house(&gateway, &stranger.ca, true);

    let calls = (0..5).map(|_| client.clone().oneshot(get(gateway.url("/accounts"))));
    for failure in join_all(calls).await {
        let error = ours(failure.unwrap_err());
        assert!(error.is_transient(), "{error}");
        let mut cause = error.source();
        while let Some(next) = cause.and_then(|cause| cause.source()) {
            cause = Some(next);
        }
        let text = cause.unwrap().to_string();
        assert!(text.starts_with("invalid peer certificate"), "{text}");
    }
    assert_eq!(gateway.behind.token_requests(), 0);
    assert_eq!(gateway.behind.api_requests(), 0);
    // Not the service's failure.
    client.ready().await.unwrap();
}

#[tokio::test]
async fn the_same_client_works_again_when_the_token_endpoint_does() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let oauth = plain(&gateway);
    let mut client = oauth.layer(client());
    gateway.fail_next(1, StatusCode::SERVICE_UNAVAILABLE, Some("5"));

    for _ in 0..3 {
        let call = client.ready().await.unwrap();
        let call = call.call(get(gateway.api_url("/accounts")));
        assert!(ours(call.await.unwrap_err()).is_transient());
    }
    assert_eq!(gateway.token_requests(), 1);

    // Ends the backoff; without it the third call after the five seconds would.
    oauth.token_cache().warm_up().await.unwrap();
    let call = client.ready().await.unwrap();
    let call = call.call(get(gateway.api_url("/accounts")));
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(gateway.token_requests(), 2);
    assert_eq!(gateway.api_requests(), 1);
}

#[tokio::test]
async fn an_error_of_hypers_comes_out_as_it_is() {
    let gateway = Gateway::start(Config::default()).await.unwrap();
    let gone = Gateway::start(Config::default()).await.unwrap();
    let nobody = gone.api_url("/accounts");
    gone.stop().await;

    let call = plain(&gateway).layer(client()).oneshot(get(nobody));
    let error = call.await.unwrap_err();
    assert!(error.downcast_ref::<ClientError>().unwrap().is_connect());
    assert_eq!(gateway.token_requests(), 1);
}

fn plain(gateway: &Gateway) -> OAuthLayer {
    OAuthLayer::client_credentials(gateway.token_url(), "consumer-key", "consumer-secret")
        .build()
        .unwrap()
}

fn ours(error: BoxError) -> tower_oauth::Error {
    *error.downcast().unwrap()
}

/// The gateway behind a port that terminates TLS, with a certificate of its own CA.
struct TlsFront {
    behind: Gateway,
    origin: String,
    ca: CertificateDer<'static>,
}

impl TlsFront {
    async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

        let behind = Gateway::start(Config::default()).await.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let origin = format!("https://{}", listener.local_addr().unwrap());
        let backend = behind.api_url("").replace("http://", "");
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(tls));
            while let Ok((front, _)) = listener.accept().await {
                let (acceptor, backend) = (acceptor.clone(), backend.clone());
                tokio::spawn(async move {
                    let mut front = acceptor.accept(front).await?;
                    let mut back = TcpStream::connect(backend).await?;
                    copy_bidirectional(&mut front, &mut back).await
                });
            }
        });
        let ca = ca.der().clone();
        Self { behind, origin, ca }
    }

    fn url(&self, path: &str) -> String {
        self.origin.clone() + path
    }
}
