//! A program on tonic with its feature `tls-aws-lc`.

#[path = "../../probe.rs"]
mod probe;

use tonic::transport::{Channel, ClientTlsConfig};

fn main() {
    probe::run(|| {
        let tls = ClientTlsConfig::new().with_native_roots();
        let channel = Channel::from_static("https://api.example");
        channel.tls_config(tls).unwrap();
    });
}
