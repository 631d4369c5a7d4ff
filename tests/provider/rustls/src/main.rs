//! A program on the defaults of rustls.

#[path = "../../probe.rs"]
mod probe;

use rustls::{ClientConfig, RootCertStore};

fn main() {
    probe::run(|| {
        let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        config.with_no_client_auth();
    });
}
