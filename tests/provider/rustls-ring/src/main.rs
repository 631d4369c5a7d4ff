//! A program that has chosen ring, and leaves it to rustls to find it.

#[path = "../../probe.rs"]
mod probe;

use rustls::{ClientConfig, RootCertStore};

fn main() {
    probe::run(|| {
        let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        config.with_no_client_auth();
    });
}
