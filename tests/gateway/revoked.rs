//! Tokens that the gateway has revoked, with replay and without.

use super::*;

// P2
#[tokio::test]
async fn a_revoked_token_costs_one_401_and_the_next_call_renews() {
    let gateway = gateway().await;
    let api = with(&oauth(&gateway).build().unwrap());
    assert_eq!(status(get(&api, &gateway).await), 200);

    gateway.revoke_all();
    assert_eq!(status(get(&api, &gateway).await), 401);
    assert_eq!(gateway.token_requests(), 1);
    assert_eq!(status(get(&api, &gateway).await), 200);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (2, 3));
}

// P7
#[tokio::test]
async fn with_replay_the_caller_never_sees_a_401_without_a_challenge() {
    with_replay_the_caller_never_sees_the_401(None).await;
}

// P1
#[tokio::test]
async fn with_replay_the_caller_never_sees_a_401_with_invalid_token() {
    let challenge = r#"Bearer realm="api", error="invalid_token""#;
    with_replay_the_caller_never_sees_the_401(Some(challenge)).await;
}

// P4
#[tokio::test]
async fn fifty_replays_of_one_revoked_token_cost_one_renewal() {
    let gateway = gateway().await;
    let oauth = oauth(&gateway).build().unwrap().replay_unauthorized();
    let api = with(&oauth);
    assert_eq!(status(get(&api, &gateway).await), 200);

    gateway.revoke_all();
    for answer in burst(50, &api, &gateway).await {
        assert_eq!(status(answer), 200);
    }
    assert_eq!(gateway.token_requests(), 2);
}

// P21
#[tokio::test]
async fn a_replay_that_gets_no_new_token_returns_the_401() {
    let gateway = gateway().await;
    let oauth = oauth(&gateway).build().unwrap().replay_unauthorized();
    let api = with(&oauth);
    assert_eq!(status(get(&api, &gateway).await), 200);

    gateway.revoke_all();
    gateway.fail_next(1, StatusCode::TOO_MANY_REQUESTS, None);
    assert_eq!(status(get(&api, &gateway).await), 401);
    assert_eq!((gateway.token_requests(), gateway.api_requests()), (2, 2));
}
