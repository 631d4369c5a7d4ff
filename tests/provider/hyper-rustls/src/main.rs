//! A program on the defaults of hyper-rustls.

#[path = "../../probe.rs"]
mod probe;

use hyper_rustls::HttpsConnectorBuilder;

fn main() {
    probe::run(|| {
        let https = HttpsConnectorBuilder::new().with_native_roots();
        https.unwrap().https_only().enable_http1().build();
    });
}
