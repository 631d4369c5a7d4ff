//! Servers that misbehave, on loopback sockets of their own, and the clients that reach them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tower::util::BoxCloneSyncService;

/// What a server does with a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Writes these bytes and closes. `{n}` is the number of the request, in three digits.
    Say(String),
    /// Reads the request and never answers.
    Hang,
    /// Reads the request and closes the connection.
    Close,
}

/// An answer of this status, with `Content-Length`, which the body need not keep to.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> Act {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = match headers.contains("content-length") {
        true => String::new(),
        false => format!("content-length: {}\r\n", body.len()),
    };
    Act::Say(format!(
        "HTTP/1.1 {status}\r\n{headers}{length}connection: close\r\n\r\n{body}"
    ))
}

pub(crate) fn json(status: &str, body: &str) -> Act {
    answer(status, &[("content-type", "application/json")], body)
}

pub(crate) fn html(status: &str) -> Act {
    let body = format!("<html><head><title>{status}</title></head><body>{status}</body></html>");
    answer(status, &[("content-type", "text/html")], &body)
}

/// A token of this life, another one for each request.
pub(crate) fn token(life: u32) -> Act {
    json(
        "200 OK",
        &format!(
            r#"{{"access_token":"token-{{n}}","token_type":"BearerToken","expires_in":"{life}"}}"#
        ),
    )
}

/// The TLS side of a server.
pub(crate) enum Tls {
    None,
    /// A certificate for these names, by a CA that nobody knows but [`Server::ca`].
    For(&'static str),
    /// Like [`For`](Self::For), but expired.
    Expired(&'static str),
    /// Like [`For`](Self::For), and asks for one of the client.
    Mutual(&'static str),
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) ca: Option<CertificateDer<'static>>,
}

impl Server {
    /// Plays one act for each connection, and repeats the last.
    pub(crate) fn start(runtime: &Runtime, tls: Tls, acts: Vec<Act>) -> Self {
        let (acceptor, ca) = acceptor(tls).unzip();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let count = Arc::new(AtomicUsize::new(0));
            while let Ok((mut tcp, _)) = listener.accept().await {
                let n = count.fetch_add(1, Relaxed);
                let act = acts[n.min(acts.len() - 1)].clone();
                let acceptor: Option<TlsAcceptor> = acceptor.clone();
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        return serve(&mut tcp, n, act).await;
                    };
                    match acceptor.accept(tcp).into_fallible().await {
                        Ok(mut tls) => serve(&mut tls, n, act).await,
                        // Closing with bytes unread would be a reset, which may overtake the alert.
                        Err((_, mut tcp)) => drain(&mut tcp).await,
                    }
                });
            }
        });
        Self { address, ca }
    }

    /// A plain one with one act.
    pub(crate) fn plain(runtime: &Runtime, act: Act) -> Self {
        Self::start(runtime, Tls::None, vec![act])
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/oauth2/v1/token", self.address)
    }

    /// The URL by this name.
    pub(crate) fn named(&self, host: &str) -> String {
        format!("https://{host}:{}/oauth2/v1/token", self.address.port())
    }

    /// A token client that trusts this server's CA and finds all names here.
    pub(crate) fn client(&self) -> TokenClient {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone().unwrap()).unwrap();
        token_client(roots, |_| Ok(Ipv4Addr::LOCALHOST))
    }
}

pub(crate) type TokenClient = BoxCloneSyncService<
    http::Request<Full<Bytes>>,
    http::Response<hyper::body::Incoming>,
    hyper_util::client::legacy::Error,
>;

/// A client that knows no CA, for whom no name resolves, by the words of glibc's `getaddrinfo`.
pub(crate) fn nameless_client() -> TokenClient {
    token_client(RootCertStore::empty(), |_| {
        Err(io::Error::other(
            "failed to lookup address information: Name or service not known",
        ))
    })
}

fn token_client(
    roots: RootCertStore,
    resolve: impl Fn(Name) -> io::Result<Ipv4Addr> + Clone + Send + Sync + 'static,
) -> TokenClient {
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let resolver = tower::service_fn(move |name| {
        let found = resolve(name).map(|ip| [SocketAddr::new(IpAddr::V4(ip), 0)].into_iter());
        async move { found }
    });
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    let connector: HttpsConnector<_> = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .wrap_connector(tcp);
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_max_idle_per_host(0);
    BoxCloneSyncService::new(client.build(connector))
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, n: usize, act: Act) {
    if receive(io).await.is_err() {
        return;
    }
    match act {
        Act::Hang => sleep(Duration::from_secs(60)).await,
        Act::Close => {}
        Act::Say(text) => {
            _ = io
                .write_all(text.replace("{n}", &format!("{n:03}")).as_bytes())
                .await;
        }
    }
    _ = io.shutdown().await;
    drain(io).await;
}

/// A head and the body it announces; or whatever comes first when it is TLS.
async fn receive<S: AsyncRead + Unpin>(io: &mut S) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        if io.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes[0] == 0x16 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            return Ok(());
        }
    }
}

async fn drain<S: AsyncRead + Unpin>(io: &mut S) {
    _ = copy(io, &mut sink()).map(drop).await;
}

fn acceptor(tls: Tls) -> Option<(TlsAcceptor, CertificateDer<'static>)> {
    let (name, expired, mutual) = match tls {
        Tls::None => return None,
        Tls::For(name) => (name, false, false),
        Tls::Expired(name) => (name, true, false),
        Tls::Mutual(name) => (name, false, true),
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    if expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let certificate = params.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match mutual {
        true => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        false => builder.with_no_client_auth(),
    };
    let config = builder
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Some((TlsAcceptor::from(Arc::new(config)), ca.der().clone()))
}

/// A loopback port that nobody listens on.
pub(crate) fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
