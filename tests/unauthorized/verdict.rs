//! Which answers say that a new token may help, and which do not.

use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt};
use tower_oauth::challenge::Challenges;

use crate::support::*;
use crate::{call, status};

// P8, P9, P10, P11, P12
#[tokio::test(start_paused = true)]
async fn what_a_new_token_would_not_cure_is_returned_untouched_and_the_token_kept() {
    let rows = [
        (401, "Basic realm=\"x\""),
        (401, "Negotiate, Digest nonce=\"x\""),
        (403, "Bearer error=\"insufficient_scope\", scope=\"write\""),
        (401, "Bearer error=\"insufficient_scope\", scope=\"write\""),
        (400, "Bearer error=\"invalid_request\""),
        (401, "Bearer error=\"invalid_request\""),
        (407, "Bearer error=\"invalid_token\""),
        (401, "Bearer error=\"insufficient_claims\", claims=\"eyJ9\""),
        (403, ""),
        (500, ""),
    ];
    for (code, challenge) in rows {
        let api = Api::new(move |_| {
            let mut answer = unauthorized(challenge);
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            answer
        });
        let endpoint = Endpoint::new();
        let layer = layer(&endpoint).replay_unauthorized();
        for _ in 0..3 {
            assert_eq!(
                call(&layer, &api).await.status().as_u16(),
                code,
                "{challenge}"
            );
        }
        assert_eq!(
            (api.requests(), endpoint.requests()),
            (3, 1),
            "{code} {challenge}"
        );
    }
}

// P9, P12
#[tokio::test(start_paused = true)]
async fn the_challenge_is_surfaced_in_the_extensions() {
    let rows = [
        (
            403,
            "Bearer error=\"insufficient_scope\", scope=\"read write\"",
        ),
        (401, "Bearer error=\"insufficient_claims\", claims=\"eyJ9\""),
    ];
    for (code, challenge) in rows {
        let api = Api::new(move |_| {
            let mut answer = unauthorized(challenge);
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            answer
        });
        let answer = call(&layer(&Endpoint::new()), &api).await;
        assert_eq!(answer.status().as_u16(), code);
        let challenges = answer.extensions().get::<Challenges>().unwrap();
        let bearer = challenges.bearer().unwrap();
        let surfaced = (bearer.scope(), bearer.param("claims"));
        let wanted = match code {
            403 => (Some("read write"), None),
            _ => (None, Some("eyJ9")),
        };
        assert_eq!(surfaced, wanted);
    }
}

// P26, R19
#[tokio::test(start_paused = true)]
async fn grpc_unauthenticated_in_the_headers_makes_the_token_suspect() {
    let api = Api::new(|authorization| {
        let mut answer = Response::builder().header("content-type", "application/grpc");
        if authorization == "Bearer token-1" {
            answer = answer.header("grpc-status", "16");
        }
        answer.body(String::new()).unwrap()
    });
    let post = || Request::post(API).body(String::new()).unwrap();
    let endpoint = Endpoint::new();
    let plain = layer(&endpoint).layer(api.clone());
    let answer = plain.clone().oneshot(post()).await.unwrap();
    assert!(answer.headers().contains_key("grpc-status"), "returned");
    let answer = plain.clone().oneshot(post()).await.unwrap();
    assert!(!answer.headers().contains_key("grpc-status"), "renewed");
    assert_eq!(endpoint.requests(), 2);
    let endpoint = Endpoint::new();
    let replaying = layer(&endpoint).replay_with(|body: &String| Some(body.clone()));
    let answer = replaying.layer(api.clone()).oneshot(post()).await.unwrap();
    assert!(
        !answer.headers().contains_key("grpc-status"),
        "replayed with a hook"
    );
    assert_eq!(endpoint.requests(), 2);
    // The 401 of a replay counts too.
    let api = Api::new(|authorization| {
        let mut answer = Response::builder().header("content-type", "application/grpc");
        if authorization != "Bearer token-3" {
            answer = answer.header("grpc-status", "16");
        }
        answer.body(String::new()).unwrap()
    });
    let endpoint = Endpoint::new();
    let replaying = layer(&endpoint).replay_with(|body: &String| Some(body.clone()));
    let answer = replaying.layer(api.clone()).oneshot(post()).await.unwrap();
    assert!(answer.headers().contains_key("grpc-status"), "once only");
    assert!(replaying.token_cache().status().suspect);
    // A gRPC call is a POST, always.
    let endpoint = Endpoint::new();
    let plain = layer(&endpoint);
    for _ in 0..3 {
        let answer = call(&plain, &api).await;
        assert!(answer.headers().contains_key("grpc-status"));
    }
    assert_eq!(endpoint.requests(), 1);
}

// P30
#[tokio::test(start_paused = true)]
async fn a_status_the_user_named_is_handled_as_401_and_others_are_not() {
    let api = |code| {
        Api::new(move |authorization| {
            if authorization == "Bearer token-1" {
                status(code)
            } else {
                status(200)
            }
        })
    };
    for (code, renewed) in [(419, true), (403, true), (418, false)] {
        let endpoint = Endpoint::new();
        let named = builder(&endpoint)
            .treat_as_unauthorized(StatusCode::from_u16(419).unwrap())
            .treat_as_unauthorized(StatusCode::FORBIDDEN)
            .build()
            .unwrap();
        call(&named, &api(code)).await;
        call(&named, &api(code)).await;
        assert_eq!(endpoint.requests() == 2, renewed, "{code}");
    }
    let endpoint = Endpoint::new();
    let plain = layer(&endpoint);
    call(&plain, &api(419)).await;
    call(&plain, &api(419)).await;
    assert_eq!(endpoint.requests(), 1);
}

/// Makes two requests, the first of which is refused with these challenges, and returns the number
/// of token requests.
async fn tokens_asked_for(challenges: &[&str], named: bool) -> usize {
    let mut refusal = unauthorized("");
    for challenge in challenges {
        let value = http::HeaderValue::from_str(challenge).unwrap();
        refusal.headers_mut().append("www-authenticate", value);
    }
    let headers = refusal.headers().clone();
    let api = Api::new(move |authorization| {
        let mut answer = Response::new(String::new());
        if authorization == "Bearer token-1" {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
            *answer.headers_mut() = headers.clone();
        }
        answer
    });
    let endpoint = Endpoint::new();
    let mut builder = builder(&endpoint);
    if named {
        builder = builder.treat_as_unauthorized(StatusCode::UNAUTHORIZED);
    }
    let layer = builder.build().unwrap();
    call(&layer, &api).await;
    call(&layer, &api).await;
    endpoint.requests()
}

// FA14, FA15, FA17, FA23, R19
#[tokio::test(start_paused = true)]
async fn a_401_renews_when_its_challenges_say_that_a_new_token_may_help() {
    let long = format!("Negotiate {}", "y".repeat(17 * 1024));
    let wide = format!("Digest realm=\"x\", nonce=\"{}\"", "n".repeat(17 * 1024));
    let many = "Basic, ".repeat(40);
    for (challenges, renews) in [
        // FA15
        (
            &["Basic realm=\"x\" Bearer error=\"invalid_token\""][..],
            true,
        ),
        (
            &["Digest realm=\"x\", nonce=\"y\" Bearer realm=\"z\""],
            true,
        ),
        (
            &["Basic realm=\"x\" Bearer error=\"insufficient_scope\""],
            false,
        ),
        (
            &["Basic realm=\"x\" Bearish error=\"invalid_token\""],
            false,
        ),
        (
            &["Bearer error=\"insufficient_scope\" NTLM error=\"invalid_token\""],
            false,
        ),
        // FA17
        (&[&*long, "Bearer error=\"invalid_token\""], true),
        (&[&*wide, "Bearer error=\"invalid_token\""], true),
        (&[&*many, "Bearer error=\"invalid_token\""], true),
        (&["Bearer error=\"insufficient_scope\"", &*long], false),
        (&["Basic", "Negotiate YII="], false),
        // FA23
        (
            &["Bearer error=\"insufficient_user_authentication\", acr_values=\"x\""],
            false,
        ),
        (
            &["Bearer error=\"insufficient_scope\", Bearer error=\"invalid_token\""],
            true,
        ),
        (
            &[
                "Bearer error=\"invalid_token\"",
                "Bearer error=\"insufficient_scope\"",
            ],
            true,
        ),
        (
            &[
                "Bearer",
                "Bearer error=\"insufficient_user_authentication\"",
            ],
            false,
        ),
        // FA14
        (&["Keystone uri=\"https://keystone.example\""], false),
    ] {
        let asked = tokens_asked_for(challenges, false).await;
        assert_eq!(asked == 2, renews, "{:.60}: {asked}", challenges[0]);
    }
}

// FA14, R19
#[tokio::test(start_paused = true)]
async fn a_401_that_was_named_renews_whatever_its_schemes_unless_a_new_token_would_not_help() {
    for (challenges, renews) in [
        (&["Keystone uri=\"https://keystone.example\""][..], true),
        (&["Basic realm=\"x\"", "Negotiate"], true),
        (&["Keystone, Bearer error=\"invalid_token\""], true),
        (&["Keystone, Bearer error=\"insufficient_scope\""], false),
        (
            &["Bearer error=\"insufficient_claims\", claims=\"eyJ9\""],
            false,
        ),
        (
            &["Bearer error=\"insufficient_user_authentication\""],
            false,
        ),
        (&["Bearer error=\"invalid_request\""], false),
    ] {
        let asked = tokens_asked_for(challenges, true).await;
        assert_eq!(asked == 2, renews, "{}: {asked}", challenges[0]);
    }
}
