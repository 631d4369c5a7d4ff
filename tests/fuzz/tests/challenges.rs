//! `WWW-Authenticate`, as any server may send it.

use std::convert::Infallible;
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::challenge::Challenges;
use tower_oauth::{OAuthLayer, TokenFuture, TokenRequest, TokenResponse, TokenSource};
use tower_oauth_fuzz::text;

const FRAGMENTS: [&str; 128] = {
    let mut fragments = [""; 128];
    let known = [
        "Bearer",
        "Basic",
        "Negotiate",
        "DPoP",
        "realm",
        "error",
        "error_description",
        "scope",
        "claims",
        "resource_metadata",
        "invalid_token",
        "insufficient_scope",
        "YII=",
        "=",
        "\"",
        "\\",
        ",",
        " ",
        ";",
        "\t",
        "\\\"",
        "=\"",
        "\", ",
        ", ",
        " =",
        "= ",
        "==",
        "a",
        "b",
        "c",
        "Bearer error=\"invalid_token\"",
        "Basic realm=\"x\", ",
        "é",
        "\u{7f}",
        "error_description=\"",
        "@",
        "/",
        ":",
        "  ",
        "0123456789012345678901234567890123456789",
    ];
    let mut place = 0;
    // The rest of the places are used again, so that most bytes mean something.
    while place < fragments.len() {
        fragments[place] = known[place % known.len()];
        place += 1;
    }
    fragments
};

#[test]
fn no_value_panics_or_leaves_the_limits() {
    let api = Api::new();
    bolero::check!()
        .with_test_time(Duration::from_secs(5))
        .with_max_len(2048)
        .for_each(|input| {
            for value in [input.to_vec(), text(input, &FRAGMENTS)] {
                let Ok(line) = HeaderValue::from_bytes(&value) else {
                    continue;
                };
                let challenges = api.read(std::slice::from_ref(&line));
                check(&challenges);
                assert_eq!(api.read(&[line]), challenges);
            }
        });
}

#[test]
fn a_line_hides_no_other_line() {
    let api = Api::new();
    bolero::check!()
        .with_test_time(Duration::from_secs(5))
        .with_max_len(64)
        .for_each(|input| {
            let mut value = text(input, &FRAGMENTS);
            value.truncate(4096);
            let Ok(line) = HeaderValue::from_bytes(&value) else {
                return;
            };
            let alone = api.read(std::slice::from_ref(&line));
            let both = api.read(&[line, HeaderValue::from_static("Zed x=\"1\"")]);
            check(&both);
            if alone.iter().count() < MAX_CHALLENGES {
                let zed = both.iter().last().expect("the second line");
                assert!(zed.is("zed") && zed.param("X") == Some("1"));
                assert!(
                    both.iter()
                        .zip(alone.iter())
                        .all(|(one, other)| one == other)
                );
            }
        });
}

/// A layer with a token, around an API that forbids everything. A 403 costs no renewal.
struct Api(AssertUnwindSafe<OAuthLayer>);

impl Api {
    fn new() -> Self {
        let layer = OAuthLayer::new(Fixed);
        // A cached token is served without a runtime.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let warmed = runtime.block_on(async { layer.token_cache().warm_up().await });
        warmed.expect("a token");
        Self(AssertUnwindSafe(layer))
    }

    /// The challenges that the layer leaves in the extensions of an answer with these lines.
    fn read(&self, lines: &[HeaderValue]) -> Challenges {
        let answer = |_: Request<()>| {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::FORBIDDEN;
            for line in lines {
                answer.headers_mut().append(WWW_AUTHENTICATE, line.clone());
            }
            ready(Ok::<_, Infallible>(answer))
        };
        let request = Request::get("https://api.example/")
            .body(())
            .expect("a request");
        let answered = self
            .0
            .layer(service_fn(answer))
            .oneshot(request)
            .now_or_never();
        let answer = answered
            .expect("a cached token needs no waiting")
            .expect("an answer");
        let challenges = answer.extensions().get::<Challenges>();
        challenges.cloned().unwrap_or_default()
    }
}

/// The same token for a year.
struct Fixed;

impl TokenSource for Fixed {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        let year = Duration::from_secs(365 * 24 * 3600);
        Box::pin(async move { Ok(TokenResponse::new("t")?.with_expires_in(year)) })
    }
}

/// What the module's page promises.
fn check(challenges: &Challenges) {
    assert!(challenges.iter().count() <= MAX_CHALLENGES);
    for challenge in challenges.iter() {
        assert!(!challenge.scheme().is_empty() && challenge.is(&challenge.scheme().to_uppercase()));
        if let Some(description) = challenge.error_description() {
            assert!(description.len() <= 256);
            assert!(
                description
                    .bytes()
                    .all(|byte| (b' '..=b'~').contains(&byte))
            );
        }
        assert_ne!(challenge.error(), Some(""));
    }
    match challenges.bearer() {
        Some(bearer) => assert!(bearer.is("bearer")),
        None => assert!(challenges.iter().all(|challenge| !challenge.is("bearer"))),
    }
}

const MAX_CHALLENGES: usize = 32;
