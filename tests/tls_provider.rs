//! Where the default token client takes the cryptography of TLS from. How programs fare that others
//! write: `tests/provider/run`.
#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

use std::time::Duration;

use rustls::CipherSuite;
#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as provider;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower_oauth::OAuthLayer;

// FU1
#[tokio::test]
async fn the_installed_provider_comes_first_and_none_is_installed() {
    let only = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
    assert!(offered().await.len() > 1, "the provider of our feature");

    let mut installed = provider::default_provider();
    installed
        .cipher_suites
        .retain(|suite| suite.suite() == only);
    installed.install_default().expect("we installed none");
    assert_eq!(offered().await, [only]);
}

/// The cipher suites that a new layer's token client offers.
async fn offered() -> Vec<CipherSuite> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/token", listener.local_addr().unwrap());
    let oauth = OAuthLayer::client_credentials(url, "consumer-key", "consumer-secret");
    let oauth = oauth.build().unwrap();
    let call = tokio::spawn(async move { oauth.token_cache().token().await });
    let hello = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 5];
        socket.read_exact(&mut hello).await.unwrap();
        let length = u16::from_be_bytes([hello[3], hello[4]]);
        let mut hello = vec![0; usize::from(length)];
        socket.read_exact(&mut hello).await.unwrap();
        hello
    };
    let hello = timeout(Duration::from_secs(10), hello).await.unwrap();
    call.abort();

    // RFC 8446 §4.1.2, after the handshake's header of four bytes: version, random, session id,
    // cipher suites.
    let hello = &hello[4 + 2 + 32..];
    let hello = &hello[1 + usize::from(hello[0])..];
    let length = usize::from(u16::from_be_bytes([hello[0], hello[1]]));
    let suites = hello[2..2 + length].chunks(2);
    suites
        .map(|suite| CipherSuite::from(u16::from_be_bytes([suite[0], suite[1]])))
        // It stands for secure renegotiation and is no suite.
        .filter(|suite| *suite != CipherSuite::TLS_EMPTY_RENEGOTIATION_INFO_SCSV)
        .collect()
}
