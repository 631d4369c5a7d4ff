//! What every probe does besides its own TLS.

use std::panic;

use rustls::crypto::CryptoProvider;
use tower_oauth::OAuthLayer;

/// Builds our default token client, then the program's own client, then ours again. Ours must
/// neither panic nor install a provider, which is the program's to do. Says whether the program's
/// own panicked.
pub fn run(own: fn()) {
    our_client();
    assert!(CryptoProvider::get_default().is_none());

    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let end = panic::catch_unwind(own);
    panic::set_hook(hook);

    our_client();
    println!("{}", if end.is_ok() { "runs" } else { "panics" });
}

pub fn our_client() {
    let layer = OAuthLayer::client_credentials("https://gw.example/token", "key", "secret");
    layer.build().map(drop).unwrap();
}
