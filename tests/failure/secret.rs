//! Client secrets that change, hang or cannot be read.

use std::future::ready;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, advance};
use tower_oauth::{Error, ManualClock, OAuthLayer, Secret, TokenCache};

use crate::other;
use crate::support::*;

struct SecretFile(std::path::PathBuf);

impl SecretFile {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-oauth-{name}-{}", std::process::id()));
        let file = Self(path);
        file.write(content);
        file
    }

    fn write(&self, content: &str) {
        std::fs::File::create(&self.0)
            .unwrap()
            .write_all(content.as_bytes())
            .unwrap();
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn with_secret(endpoint: &Endpoint, secret: Secret) -> OAuthLayer {
    OAuthLayer::client_credentials(TOKEN_URL, "id", secret)
        .token_client(endpoint.clone())
        .clock(ManualClock::new())
        .build()
        .unwrap()
}

// K25, R17
#[tokio::test(start_paused = true)]
async fn a_changed_secret_file_is_tried_at_once_in_spite_of_backoff() {
    let file = SecretFile::new("k25", "old\n");
    let endpoint = Endpoint::new().then([Answer::Error(401, "invalid_client")]);
    let layer = with_secret(&endpoint, Secret::file(&file.0));
    let tokens = layer.token_cache();
    tokens.token().await.unwrap_err();
    for _ in 0..20 {
        assert_eq!(
            tokens.token().await.unwrap_err().oauth_code(),
            Some("invalid_client")
        );
    }
    assert_eq!(endpoint.requests(), 1, "the same secret is not tried again");
    file.write("new\n");
    advance(secs(1)).await;
    tokens.token().await.unwrap();
    let sent: Vec<_> = endpoint
        .seen()
        .iter()
        .map(|seen| seen.authorization().to_owned())
        .collect();
    assert_eq!(sent, ["Basic aWQ6b2xk", "Basic aWQ6bmV3"]);
}

// K25
#[tokio::test(start_paused = true)]
async fn a_secret_that_changed_before_the_backoff_is_simply_read() {
    let file = SecretFile::new("k25b", "old");
    let endpoint = Endpoint::new();
    let layer = with_secret(&endpoint, Secret::file(&file.0));
    layer.token_cache().token().await.unwrap();
    file.write("new");
    layer.token_cache().invalidate();
    layer.token_cache().token().await.unwrap();
    assert_eq!(endpoint.seen()[1].authorization(), "Basic aWQ6bmV3");
}

// R17
#[tokio::test(start_paused = true)]
async fn a_provider_is_asked_at_most_once_a_second_during_backoff_and_may_hang() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let provider = Secret::provider(move || {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if !first {
                std::future::pending::<()>().await;
            }
            Ok::<_, Error>("secret")
        }
    });
    let endpoint = Endpoint::new().always(Answer::Error(400, "invalid_client"));
    let tokens = with_secret(&endpoint, provider).token_cache();
    tokens.token().await.unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 1, "for the token request");
    // Each read hangs and is given up after a second. In the second after that, calls fail at
    // once. The backoff lasts for 5 s at least.
    for look in 1..=2 {
        let start = Instant::now();
        tokens.token().await.unwrap_err();
        assert_eq!(start.elapsed(), secs(1), "look {look}");
        for _ in 0..10 {
            advance(Duration::from_millis(99)).await;
            tokens.token().await.unwrap_err();
        }
        assert_eq!(start.elapsed(), Duration::from_millis(1990));
        assert_eq!(asked.load(Ordering::SeqCst), 1 + look);
        advance(Duration::from_millis(10)).await;
    }
    assert_eq!(endpoint.requests(), 1);
}

// R9
#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_is_laid_to_its_source_and_counts_as_no_token_request() {
    let hangs = Secret::provider(std::future::pending::<Result<String, Error>>);
    let fails = Secret::provider(|| ready(Err::<String, _>("sealed")));
    for (secret, said) in [
        (hangs, "the client secret could not be read within"),
        (fails, "the secret provider failed"),
        (Secret::file("/no/such/file"), "/no/such/file"),
    ] {
        let endpoint = Endpoint::new();
        let tokens = with_secret(&endpoint, secret).token_cache();
        let error = tokens.token().await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_transient() && text.contains(said), "{text}");
        assert!(
            !text.contains("firewall") && !text.contains("is up"),
            "{text}"
        );
        assert_eq!(
            (error.attempts(), tokens.status().token_requests),
            (0, 0),
            "{text}"
        );
        assert_eq!(endpoint.requests(), 0);
    }
}

// R9
#[tokio::test(start_paused = true)]
async fn an_error_of_this_crate_from_a_provider_keeps_its_class() {
    let revoked = || {
        ready(Err::<String, _>(Error::rejected(
            "invalid_client",
            "revoked",
        )))
    };
    let tokens = with_secret(&Endpoint::new(), Secret::provider(revoked)).token_cache();
    let error = tokens.token().await.unwrap_err();
    assert!(error.is_rejected(), "{error}");
    assert_eq!(error.oauth_code(), Some("invalid_client"));
}

// R17
#[tokio::test(start_paused = true)]
async fn a_provider_that_answers_is_looked_at_once_a_second_for_all_kinds_together() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let provider = Secret::provider(move || {
        count.fetch_add(1, Ordering::SeqCst);
        ready(Ok::<_, Error>("secret"))
    });
    let endpoint = Endpoint::new().always(Answer::Error(400, "invalid_client"));
    let tokens = with_secret(&endpoint, provider).token_cache();
    tokens.token().await.unwrap_err();
    for tenth in 0..40 {
        for n in 0..5 {
            let kind = tokens.with_params(other(&format!("s{n}")));
            kind.token().await.unwrap_err();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2 + tenth / 10, "{tenth}");
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(endpoint.requests(), 1);
}

/// A client whose secret is `old` until the test replaces it.
fn with_a_changing_secret(
    endpoint: &Endpoint,
) -> (Arc<std::sync::Mutex<&'static str>>, TokenCache) {
    let secret = Arc::new(std::sync::Mutex::new("old"));
    let read = Arc::clone(&secret);
    let provider = Secret::provider(move || {
        let secret = *read.lock().unwrap();
        async move { Ok::<_, std::io::Error>(secret) }
    });
    let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", provider)
        .token_client(endpoint.clone())
        .clock(ManualClock::new())
        .build()
        .unwrap();
    (secret, layer.token_cache())
}

// FC16, R17
#[tokio::test(start_paused = true)]
async fn a_changed_secret_ends_the_backoff_of_all_kinds() {
    // A vendor's code, which speaks for these parameters alone.
    let endpoint = Endpoint::new().always(Answer::Error(400, "incorrect_client_credentials"));
    let (secret, tokens) = with_a_changing_secret(&endpoint);
    for n in 0..3 {
        kind(&tokens, n).token().await.expect_err("a wrong secret");
    }
    assert_eq!(endpoint.requests(), 3);

    *secret.lock().unwrap() = "new";
    endpoint.set(Answer::Token(3600));
    // Parameters that have not failed yet are the first to use it.
    kind(&tokens, 9).token().await.expect("the right secret");
    for n in 0..3 {
        kind(&tokens, n)
            .token()
            .await
            .expect("its backoff is over too");
    }
    assert_eq!(endpoint.requests(), 7);
}

// FC16, R17
#[tokio::test(start_paused = true)]
async fn a_success_ends_the_backoff_of_all_kinds_only_when_the_secret_has_changed() {
    for changes in [false, true] {
        let endpoint = Endpoint::new().always(Answer::Error(400, "invalid_target"));
        let (secret, tokens) = with_a_changing_secret(&endpoint);
        kind(&tokens, 0).token().await.expect_err("rejected");
        if changes {
            *secret.lock().unwrap() = "new";
        }
        // The first to use the new secret is rejected as well.
        kind(&tokens, 1).token().await.expect_err("rejected");
        assert_eq!(endpoint.requests(), 2);
        advance(secs(2)).await;
        // A read finds the secret that was used last.
        kind(&tokens, 1).token().await.expect_err("a backoff");
        assert_eq!(endpoint.requests(), 2);

        endpoint.set(Answer::Token(3600));
        kind(&tokens, 9).token().await.expect("granted");
        let told = kind(&tokens, 0).token().await;
        assert_eq!(told.is_ok(), changes, "{told:?}");
    }
}
