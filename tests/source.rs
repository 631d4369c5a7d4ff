//! What a token source of a user's own is told, and what it may state.

mod support;

use std::sync::{Arc, Mutex};

use support::*;
use tower::{Layer, ServiceExt};
use tower_oauth::{
    Error, FetchCause, ManualClock, OAuthLayer, TokenFuture, TokenParams, TokenRequest,
    TokenResponse, TokenSource,
};

/// Brings `token-1`, `token-2` and so on, and notes what it is told.
#[derive(Default)]
struct Store {
    told: Mutex<Vec<(FetchCause, u32, Option<String>)>>,
    failures: Mutex<u32>,
}

impl Store {
    fn told(&self) -> Vec<(FetchCause, u32, Option<String>)> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl TokenSource for Store {
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
        let refused = request
            .refused()
            .map(|token| token.expose_secret().to_owned());
        let number = {
            let mut told = self.told.lock().unwrap();
            told.push((request.cause(), request.attempt(), refused));
            told.len()
        };
        let mut failures = self.failures.lock().unwrap();
        let fails = *failures > 0;
        *failures = failures.saturating_sub(1);
        Box::pin(async move {
            if fails {
                return Err(Error::transient("down"));
            }
            Ok(TokenResponse::new(format!("token-{number}"))?.with_expires_in(secs(3600)))
        })
    }

    fn host(&self, params: &TokenParams) -> Option<&str> {
        params.audience().map(|_| "tenant.example")
    }
}

// FU17
#[tokio::test(start_paused = true)]
async fn a_source_is_told_the_cause_the_attempt_and_the_token_that_was_refused() {
    let store = Arc::new(Store::default());
    let clock = ManualClock::new();
    let layer = OAuthLayer::builder(Arc::clone(&store)).clock(clock.clone());
    let layer = layer.build().unwrap();
    let refuse = Arc::new(Mutex::new(false));
    let refuses = Arc::clone(&refuse);
    let service = layer.layer(Api::new(move |_| match *refuses.lock().unwrap() {
        true => unauthorized(INVALID_TOKEN),
        false => http::Response::new(String::new()),
    }));
    let call = || service.clone().oneshot(get(API));

    *store.failures.lock().unwrap() = 1;
    call().await.unwrap();
    let cause = FetchCause::NoToken;
    assert_eq!(store.told(), [(cause, 1, None), (cause, 2, None)]);

    *refuse.lock().unwrap() = true;
    call().await.unwrap();
    *refuse.lock().unwrap() = false;
    *store.failures.lock().unwrap() = 1;
    call().await.unwrap();
    let refused = Some(String::from("token-2"));
    let cause = FetchCause::Refused;
    let told = [(cause, 1, refused.clone()), (cause, 2, refused)];
    assert_eq!(store.told(), told);

    clock.advance(secs(3400));
    call().await.unwrap();
    settle().await;
    assert_eq!(store.told(), [(FetchCause::Ahead, 1, None)]);
}

// FU25
#[tokio::test(start_paused = true)]
async fn an_error_names_the_host_that_the_source_gives_for_its_parameters() {
    let store = Arc::new(Store::default());
    let layer = OAuthLayer::builder(Arc::clone(&store)).build().unwrap();
    let tokens = layer.token_cache();
    let other = tokens.with_params(TokenParams::new().with_audience("a tenant"));
    for (tokens, host) in [(tokens, None), (other, Some("tenant.example"))] {
        *store.failures.lock().unwrap() = 3;
        tokens.warm_up().await.unwrap_err();
        let error = tokens.token().await.unwrap_err();
        assert_eq!(error.host(), host, "{error}");
    }
}
