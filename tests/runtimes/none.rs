//! Calls outside a runtime, and on a runtime without timers.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{Error, ManualClock, OAuthLayer, Secret};

use crate::support::*;
use crate::{Counting, Healthy, StuckOnce, start_flight};

#[test]
fn a_call_outside_of_a_runtime_is_an_error_and_not_a_panic() {
    let layer = OAuthLayer::new(StuckOnce::new());
    let error = futures::executor::block_on(layer.token_cache().token()).unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
    let status = layer.token_cache().status();
    assert!(
        !status.fetching && status.next_attempt_in.is_none(),
        "nothing is left behind"
    );
}

#[test]
fn a_call_outside_of_a_runtime_that_finds_a_stale_token_uses_it_and_leaves_no_flight() {
    let endpoint = Arc::new(Counting::default());
    let (clock, layer) = with_clock(Arc::clone(&endpoint));
    current_thread()
        .block_on(layer.token_cache().warm_up())
        .expect("a token of a minute");
    // In the renewal window, and then in the last stretch.
    for pause in [50, 6] {
        clock.advance(Duration::from_secs(pause));
        for _ in 0..3 {
            let token = futures::executor::block_on(layer.token_cache().token()).expect("it lives");
            assert_eq!(token.generation(), 1);
            assert!(!layer.token_cache().status().fetching);
        }
    }
    let token = current_thread()
        .block_on(layer.token_cache().token())
        .expect("renewed");
    assert_eq!(token.generation(), 2);
}

// R4
#[test]
fn in_a_backoff_a_call_outside_of_a_runtime_uses_a_stale_token_without_waiting() {
    let provided = Secret::provider(|| std::future::ready(Ok::<_, Error>("secret")));
    for secret in [Secret::new("secret"), provided] {
        let (runtime, clock) = (current_thread(), ManualClock::new());
        let endpoint = Endpoint::new()
            .then([Answer::Token(3600)])
            .always(Answer::Error(400, "invalid_client"));
        let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", secret)
            .token_client(endpoint)
            .clock(clock.clone())
            .build()
            .unwrap();
        let tokens = layer.token_cache();
        runtime.block_on(tokens.warm_up()).unwrap();
        clock.advance(Duration::from_secs(3400));
        runtime.block_on(async {
            tokens.token().await.unwrap();
            settle().await;
        });
        assert!(tokens.status().next_attempt_in.is_some());
        let future = layer.layer(Api::ok()).call(get(API));
        assert_eq!(format!("{future:?}"), "ResponseFuture(\"calling\")");
    }
}

#[test]
fn a_waiter_outside_of_a_runtime_gets_an_error_also_for_anothers_flight() {
    let layer = OAuthLayer::new(StuckOnce::new());
    let runtime = current_thread();
    start_flight(&runtime, &layer);
    let error = futures::executor::block_on(layer.token_cache().token()).unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
    assert!(layer.token_cache().status().fetching, "the flight goes on");
}

// FC12
#[test]
fn on_a_runtime_without_timers_a_stale_token_is_served_and_no_flight_is_started() {
    let lines = Arc::new(Mutex::new(Vec::<u8>::new()));
    let writer = {
        let lines = Arc::clone(&lines);
        move || Lines(Arc::clone(&lines))
    };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let source = Healthy::default();
    let (clock, layer) = with_clock(source.clone());
    current_thread()
        .block_on(layer.token_cache().token())
        .expect("a token of an hour");
    clock.advance(secs(3400));

    let timerless = runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let service = layer.layer(Api::ok());
    for _ in 0..100 {
        timerless
            .block_on(service.clone().oneshot(get(API)))
            .expect("served");
        timerless
            .block_on(layer.token_cache().token())
            .expect("served");
    }
    assert!(!layer.token_cache().status().fetching);
    clock.advance(secs(190));
    timerless
        .block_on(service.clone().oneshot(get(API)))
        .expect("served to its end");
    assert_eq!(
        (source.requests(), timerless.metrics().num_alive_tasks()),
        (1, 0)
    );
    clock.advance(secs(11));
    let error = timerless
        .block_on(layer.token_cache().token())
        .expect_err("nothing to wait with");
    assert!(error.to_string().contains("enable_time"), "{error}");
    let error = timerless
        .block_on(service.clone().oneshot(get(API)))
        .expect_err("likewise");
    assert!(ours(error).to_string().contains("enable_time"));
    let told = String::from_utf8(lines.lock().unwrap().clone()).expect("text");
    assert_eq!(told.matches("has no timers").count(), 1, "{told}");
    current_thread()
        .block_on(service.oneshot(get(API)))
        .expect("with timers all is well");
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
