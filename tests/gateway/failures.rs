//! The gateway fails: what callers get, and how often it is asked.

use super::*;

// P32
#[tokio::test]
async fn a_wrong_secret_is_a_rejection_and_is_not_tried_again_and_again() {
    let gateway = gateway().await;
    let auth = ClientAuth::basic("consumer-key", "wrong-canary");
    let api = with(&oauth_with(&gateway, auth).build().unwrap());

    let error = refused(get(&api, &gateway).await);
    assert!(error.is_rejected());
    assert_eq!(error.oauth_code(), Some("invalid_client"));
    assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(error.attempts(), 1);
    assert_eq!(error.host(), Some("127.0.0.1"));
    assert!(!format!("{error} {error:?}").contains("canary"));

    let again = refused(get(&api, &gateway).await);
    assert!(again.is_rejected());
    assert!(again.retry_after().is_some());
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (1, 0));
}

#[tokio::test]
async fn credentials_in_the_form_are_refused_by_this_gateway_with_its_code() {
    let gateway = gateway().await;
    let auth = ClientAuth::post("consumer-key", "consumer-secret");
    let api = with(&oauth_with(&gateway, auth).build().unwrap());

    let error = refused(get(&api, &gateway).await);
    assert!(error.is_rejected());
    assert_eq!(error.oauth_code(), Some("invalid_request"));
    assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
}

#[tokio::test]
async fn an_unknown_scope_is_a_rejection_with_its_code() {
    let gateway = gateway().await;
    let api = with(&oauth(&gateway).scope("unheard-of").build().unwrap());

    let error = refused(get(&api, &gateway).await);
    assert!(error.is_rejected());
    assert_eq!(error.oauth_code(), Some("invalid_scope"));
}

// K21
#[tokio::test]
async fn two_answers_of_503_are_tried_again_in_the_same_flight_and_nobody_fails() {
    let gateway = gateway().await;
    gateway.fail_next(2, StatusCode::SERVICE_UNAVAILABLE, None);
    let (events, mut ends) = flight_ends();
    let api = with(&oauth(&gateway).observer(events).build().unwrap());

    for answer in burst(50, &api, &gateway).await {
        assert_eq!(status(answer), 200);
    }
    assert_eq!(next(&mut ends).await, (FetchCause::NoToken, 3, true));
    assert!(ends.try_recv().is_err());
    assert_eq!(gateway.token_requests(), 3);
}

// K2
#[tokio::test]
async fn a_gateway_that_stays_down_is_asked_three_times_for_all_callers_together() {
    let gateway = gateway().await;
    gateway.fail_next(9, StatusCode::SERVICE_UNAVAILABLE, None);
    let api = with(&oauth(&gateway).build().unwrap());

    for answer in burst(50, &api, &gateway).await {
        let error = refused(answer);
        assert!(error.is_transient());
        assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(error.attempts(), 3);
    }
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (3, 0));
}

// K3, K19, K22
#[cfg(feature = "test-util")]
#[tokio::test]
async fn a_429_with_retry_after_ends_the_flight_and_is_honoured() {
    let gateway = gateway().await;
    gateway.fail_next(1, StatusCode::TOO_MANY_REQUESTS, Some("7"));
    let oauth = oauth(&gateway)
        .clock(tower_oauth::ManualClock::new())
        .build()
        .unwrap();
    let api = with(&oauth);

    let error = refused(get(&api, &gateway).await);
    assert!(error.is_transient());
    assert_eq!(error.status(), Some(StatusCode::TOO_MANY_REQUESTS));
    // Never less than the server asked for, with the random part of a first step on top.
    let wait = error
        .retry_after()
        .expect("the time until the next attempt");
    assert!(
        wait >= Duration::from_secs(7) && wait <= Duration::from_secs(8),
        "{wait:?}"
    );
    assert_eq!((error.attempts(), gateway.token_requests()), (1, 1));

    pass(Duration::from_secs(6)).await;
    let error = refused(get(&api, &gateway).await);
    assert_eq!(error.status(), Some(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(gateway.token_requests(), 1);

    // Beyond any jitter on top.
    pass(Duration::from_secs(300)).await;
    assert_eq!(status(get(&api, &gateway).await), 200);
    assert_eq!(gateway.token_requests(), 2);
}

/// What the other tests lean on: the emulation refuses what the documented gateway refuses.
#[tokio::test]
async fn the_gateway_refuses_what_is_not_the_documented_token_request() {
    const FORM: &str = "application/x-www-form-urlencoded";
    const BASIC: &str = "Basic Y29uc3VtZXIta2V5OmNvbnN1bWVyLXNlY3JldA==";
    let gateway = gateway().await;
    for (method, content_type, authorization, body, wanted) in [
        (
            Method::POST,
            FORM,
            BASIC,
            "grant_type=client_credentials",
            (200, "approved"),
        ),
        (
            Method::GET,
            FORM,
            BASIC,
            "grant_type=client_credentials",
            (404, "Unable to identify proxy"),
        ),
        (
            Method::POST,
            "application/json",
            BASIC,
            r#"{"grant_type":"client_credentials"}"#,
            (400, "invalid_request"),
        ),
        (
            Method::POST,
            FORM,
            BASIC,
            "grant_type=password",
            (400, "unsupported_grant_type"),
        ),
        (
            Method::POST,
            FORM,
            BASIC,
            "grant_type=client_credentials&client_secret=x",
            (400, "invalid_request"),
        ),
        (
            Method::POST,
            FORM,
            "Bearer x",
            "grant_type=client_credentials",
            (401, "invalid_client"),
        ),
        (
            Method::POST,
            FORM,
            BASIC,
            "grant_type=client_credentials&scope=x",
            (400, "invalid_scope"),
        ),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(gateway.token_url())
            .header(CONTENT_TYPE, content_type)
            .header(AUTHORIZATION, authorization)
            .body(Full::from(body))
            .unwrap();
        let response = connect().oneshot(request).await.unwrap();
        assert_eq!(response.status(), wanted.0, "{body}");
        let text = text(response).await;
        assert!(text.contains(wanted.1), "{body}: {text}");
    }
}
