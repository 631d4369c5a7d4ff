//! A program with our token client and no provider: an error that says what to do.

use tower_oauth::{BuildError, OAuthLayer};

fn main() {
    let layer = |url| {
        OAuthLayer::client_credentials(url, "key", "secret")
            .build()
            .map(drop)
    };
    let error = layer("https://gw.example/token").unwrap_err();
    assert!(matches!(error, BuildError::TokenClient { .. }), "{error}");
    println!("{error}");
    // No TLS, no provider.
    layer("http://127.0.0.1/token").unwrap();
}
