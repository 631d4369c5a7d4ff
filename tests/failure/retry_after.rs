//! `Retry-After`: when it is obeyed, and for how long.

use std::time::Duration;

use tokio::time::{Instant, advance};

use crate::support::*;

// K22
#[tokio::test(start_paused = true)]
async fn an_answer_that_asks_to_stay_away_ends_the_flight_and_is_obeyed() {
    let rows = [
        (raw(429, &[], ""), 1),
        (Answer::Error(400, "slow_down"), 1),
        (Answer::Error(400, "too_many_requests"), 1),
        (raw(503, &[("retry-after", "20")], ""), 20),
        (
            raw(500, &[("retry-after", "20")], r#"{"error":"server_error"}"#),
            20,
        ),
    ];
    for (row, floor) in rows {
        let endpoint = Endpoint::new().always(row.clone());
        let tokens = layer(&endpoint).token_cache();
        let start = Instant::now();
        assert!(tokens.token().await.unwrap_err().is_transient(), "{row:?}");
        assert_eq!(
            (endpoint.requests(), start.elapsed()),
            (1, Duration::ZERO),
            "{row:?}"
        );
        advance(secs(floor) - Duration::from_millis(1)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 1, "{row:?}: before the time is over");
        advance(secs(2)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 2, "{row:?}");
    }
}

// FA18, FA19
#[tokio::test(start_paused = true)]
async fn a_rejection_with_retry_after_stays_one_and_waits_at_least_as_long() {
    for (status, code) in [
        (401, Some("invalid_client")),
        (400, Some("invalid_request")),
        (403, None),
        (404, None),
        (501, None),
    ] {
        let body = code.map_or_else(String::new, |code| format!(r#"{{"error":"{code}"}}"#));
        let endpoint = Endpoint::new().always(raw(status, &[("retry-after", "60")], &body));
        let tokens = layer(&endpoint).token_cache();
        let error = tokens.token().await.unwrap_err();
        assert!(error.is_rejected(), "{error}");
        assert_eq!(error.server_retry_after(), Some(secs(60)));
        advance(secs(59)).await;
        assert!(tokens.token().await.unwrap_err().is_rejected());
        assert_eq!(endpoint.requests(), 1, "{status}");
        advance(secs(7)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 2, "{status}");
    }
}

// FA18; a surviving mutant obeyed it
#[tokio::test(start_paused = true)]
async fn retry_after_means_nothing_on_answers_that_are_no_errors() {
    for (status, body) in [
        (200, "<html>"),
        (200, "{}"),
        (204, ""),
        (302, ""),
        (304, ""),
    ] {
        let endpoint = Endpoint::new().always(raw(status, &[("retry-after", "60")], body));
        let tokens = layer(&endpoint).token_cache();
        assert_eq!(tokens.token().await.unwrap_err().server_retry_after(), None);
        advance(secs(4)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 1, "backs off as a rejection");
        advance(secs(7)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 2, "{status} {body}");
    }
}

// FA18
#[tokio::test(start_paused = true)]
async fn a_retry_after_of_zero_or_in_the_past_is_none_and_the_flight_tries_again() {
    for value in ["0", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let endpoint = Endpoint::new().always(raw(503, &[("retry-after", value)], ""));
        let error = layer(&endpoint).token_cache().token().await.unwrap_err();
        assert_eq!(
            (error.server_retry_after(), endpoint.requests()),
            (None, 3),
            "{value}"
        );
    }
}

// FA18
#[tokio::test(start_paused = true)]
async fn of_several_retry_after_lines_the_longest_holds_and_a_date_counts_from_the_answers_own() {
    // Both the server's clock and the date are years from ours.
    let headers = [
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("retry-after", "7"),
        ("retry-after", "Sun, 06 Nov 1994 08:49:60 GMT"),
        ("retry-after", "5, 9"),
    ];
    let endpoint = Endpoint::new().always(raw(503, &headers, ""));
    let error = layer(&endpoint).token_cache().token().await.unwrap_err();
    assert_eq!(
        (error.server_retry_after(), endpoint.requests()),
        (Some(secs(23)), 1)
    );
}

// K19
#[tokio::test(start_paused = true)]
async fn an_absurd_retry_after_is_capped_and_garbage_is_ignored() {
    for (value, longest) in [("99999999", 301), ("soon", 2)] {
        let endpoint = Endpoint::new().always(raw(503, &[("retry-after", value)], ""));
        let layer = builder(&endpoint)
            .cache_policy(one_attempt())
            .build()
            .unwrap();
        let told = layer.token_cache().token().await.unwrap_err();
        assert!(
            told.retry_after().unwrap() <= secs(longest),
            "no promise that is not kept: {told}"
        );
        let wait = layer
            .token_cache()
            .token()
            .await
            .unwrap_err()
            .retry_after()
            .unwrap();
        assert!(
            wait <= secs(longest) && wait > secs(longest - 2),
            "{value}: {wait:?}"
        );
    }
}

// R15
#[tokio::test(start_paused = true)]
async fn the_end_of_the_live_token_shortens_a_backoff_chosen_while_it_lived() {
    let endpoint = Endpoint::new().then([Answer::Token(100)]);
    let layer = builder(&endpoint)
        .cache_policy(one_attempt())
        .build()
        .unwrap();
    let tokens = layer.token_cache();
    tokens.token().await.unwrap();
    advance(secs(85)).await;
    endpoint.set(raw(503, &[("retry-after", "3600")], ""));
    tokens.token().await.unwrap();
    settle().await;
    assert!(
        tokens.status().next_attempt_in.unwrap() > secs(3590),
        "honoured for an hour while a token lives"
    );
    advance(secs(15)).await;
    let wait = tokens.token().await.unwrap_err().retry_after().unwrap();
    assert!(
        wait <= secs(301),
        "and for five minutes when it is gone: {wait:?}"
    );
}

// FC11, R16
#[tokio::test(start_paused = true)]
async fn whoever_comes_back_after_retry_after_finds_the_backoff_over() {
    for seed in 0..200 {
        fastrand::seed(seed);
        let endpoint = Endpoint::new().then([raw(429, &[("retry-after", "1")], "")]);
        let tokens = layer(&endpoint).token_cache();
        let error = tokens.token().await.expect_err("busy");
        let wait = error
            .retry_after()
            .expect("the time until the next attempt");
        assert!(wait >= secs(1) && wait <= secs(2), "{wait:?}");
        assert_eq!(error.server_retry_after(), Some(secs(1)));
        tokio::time::sleep(wait).await;
        tokens.token().await.expect("the backoff is over");
        assert_eq!(endpoint.requests(), 2);
    }
}
