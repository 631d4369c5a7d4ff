//! No block of memory is freed with a secret, a token or the value of a parameter in it.

use std::convert::Infallible;
use std::future::ready;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::{CachePolicy, ClientAuth, OAuthLayer, Secret, TokenParams};
use tower_oauth_wiped::{CANARIES, Watching, freed_with_canaries};

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Its percent-encoded form is longer than it is, so that a buffer of the wrong size has to grow.
const SECRET: &str = "CanarySecret/+&=/+&=/+&=/+&=/+&=/+&=";
const VALUE: &str = "CanaryValue/+&=/+&=/+&=/+&=/+&=/+&=";

const TOKEN: &str =
    r#"{"access_token":"CanaryToken0123456789","token_type":"Bearer","expires_in":3600}"#;
const ODD_TYPE: &str = r#"{"access_token":"CanaryToken0123456789","token_type":"mac"}"#;
const ODD_TOKEN: &str = r#"{"access_token":"CanaryToken 0123456789","token_type":"Bearer"}"#;
const ECHO: &str =
    r#"{"error":"x","error_description":"no CanarySecret\/+&=\/+&=\/+&=\/+&=\/+&=\/+&="}"#;
const REFUSAL: &str = r#"{"error":"invalid_client","error_description":"no"}"#;

/// Gets a token twice, and uses it, with the answer in as many pieces as it has bytes.
fn run(auth: ClientAuth, status: u16, answer: &'static str) {
    let endpoint = service_fn(move |_: Request<Full<Bytes>>| {
        let pieces = answer.as_bytes().chunks(1).map(Bytes::from_static);
        let mut response = Response::new(Pieces(pieces));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        ready(Ok::<_, Infallible>(response))
    });
    let layer = OAuthLayer::client_credentials_with("https://gw.example/token", auth)
        .parameter("password", VALUE)
        .token_client(endpoint)
        .cache_policy(CachePolicy::new().attempts(1))
        .build()
        .expect("it is valid");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let other = TokenParams::new()
            .with_parameter("pin", VALUE)
            .expect("a name");
        for tokens in [
            layer.token_cache(),
            layer.token_cache().with_params(other.clone()),
        ] {
            let token = tokens.token().await;
            assert_eq!(token.is_ok(), answer == TOKEN);
            tokens.invalidate();
            assert_eq!(tokens.token().await.is_ok(), answer == TOKEN);
        }
        let api = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(()))));
        let mut request = Request::get("https://api.example/")
            .body(())
            .expect("a request");
        request.extensions_mut().insert(other);
        let answered = layer.layer(api).oneshot(request).await;
        assert_eq!(answered.is_ok(), answer == TOKEN);
    });
}

/// A body of many pieces.
struct Pieces<I>(I);

impl<I: Iterator<Item = Bytes> + Unpin> Body for Pieces<I> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }
}

type FromPath = fn(&Path) -> Secret;
type WithSecret = fn(Secret) -> ClientAuth;

// FS7
#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "without the optimizer, vector loads leave pieces on the stack: run it with --release"
)]
fn nothing_secret_is_left_in_freed_memory() {
    let found = freed_with_canaries(|| drop(String::from(SECRET)));
    assert_eq!(found[0], 1, "the search finds what it looks for");

    let path = std::env::temp_dir().join(format!("tower-oauth-wiped-{}", std::process::id()));
    std::fs::write(&path, SECRET).expect("a file");
    let secrets: [(&str, FromPath); 4] = [
        ("a fixed secret", |_| Secret::new(SECRET)),
        ("a roomy string", |_| {
            let mut roomy = String::with_capacity(999);
            roomy.push_str(SECRET);
            Secret::new(roomy)
        }),
        ("a file", |path| Secret::file(path)),
        ("a provider", |_| {
            Secret::provider(|| async {
                let mut roomy = String::with_capacity(999);
                roomy.push_str(SECRET);
                Ok::<_, Infallible>(roomy)
            })
        }),
    ];
    let methods: [(&str, WithSecret); 3] = [
        ("basic", |secret| ClientAuth::basic("id", secret)),
        ("basic_encoded", |secret| {
            ClientAuth::basic_encoded("id", secret)
        }),
        ("post", |secret| ClientAuth::post("id", secret)),
    ];
    let answers = [
        ("a token", 200, TOKEN),
        ("a token of another type", 200, ODD_TYPE),
        ("a token that is none", 200, ODD_TOKEN),
        ("a refusal", 401, REFUSAL),
        ("a refusal that repeats it", 400, ECHO),
    ];
    for (place, secret) in secrets {
        for (method, auth) in methods {
            for (what, status, answer) in answers {
                let found = freed_with_canaries(|| run(auth(secret(&path)), status, answer));
                let found: Vec<_> = CANARIES.iter().zip(found).filter(|(_, n)| *n > 0).collect();
                assert!(found.is_empty(), "{place}, {method}, {what}: {found:?}");
            }
        }
    }
    std::fs::remove_file(&path).expect("the file");
}
