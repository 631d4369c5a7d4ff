//! A program in which others have linked both providers: what no library can mend, and what the
//! program can.

#[path = "../../probe.rs"]
mod probe;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

fn main() {
    probe::run(rustls_default);
    ring::default_provider().install_default().unwrap();
    rustls_default();
    probe::our_client();
}

fn rustls_default() {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
    config.with_no_client_auth();
}
