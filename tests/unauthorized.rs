//! Answers of the API: suspicion, budget, replay.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use support::*;
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_oauth::challenge::Challenges;
use tower_oauth::{OAuthLayer, ReplayBody, Replayed};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn call<R>(layer: &OAuthLayer<R>, api: &Api) -> Response<String>
where
    R: ReplayBody<String> + Clone,
{
    call_at(layer, api, API).await
}

async fn call_at<R>(layer: &OAuthLayer<R>, api: &Api, uri: &str) -> Response<String>
where
    R: ReplayBody<String> + Clone,
{
    layer.layer(api.clone()).oneshot(get(uri)).await.unwrap()
}

/// Refuses these tokens with this challenge.
fn refusing(tokens: &'static [&'static str], challenge: &'static str) -> Api {
    Api::new(move |authorization| {
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        if tokens.contains(&token) {
            unauthorized(challenge)
        } else {
            Response::new(String::from("hello"))
        }
    })
}

fn status(status: u16) -> Response<String> {
    Response::builder()
        .status(status)
        .body(String::new())
        .unwrap()
}

// P1, P7, P29
#[tokio::test(start_paused = true)]
async fn with_replay_a_refused_request_is_renewed_and_sent_again_once() {
    for challenge in [
        INVALID_TOKEN,
        "Bearer",
        "Bearer error=\"what_is_this\"",
        "",
        "error=invalid_request, error_description=\"no scheme\"",
    ] {
        let (endpoint, api) = (Endpoint::new(), refusing(&["token-1"], challenge));
        let layer = layer(&endpoint).replay_unauthorized();
        let answer = call(&layer, &api).await;
        assert_eq!(answer.status(), StatusCode::OK, "{challenge}");
        assert!(answer.extensions().get::<Replayed>().is_some());
        assert_eq!(
            api.seen(),
            ["Bearer token-1", "Bearer token-2"],
            "{challenge}"
        );
        assert_eq!(endpoint.requests(), 2);
    }
}

// P2, R18
#[tokio::test(start_paused = true)]
async fn without_replay_the_401_is_returned_and_the_next_request_renews_first() {
    let (endpoint, api) = (Endpoint::new(), refusing(&["token-1"], INVALID_TOKEN));
    let layer = layer(&endpoint);
    let answer = call(&layer, &api).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.extensions().get::<Replayed>().is_none());
    settle().await;
    assert_eq!(
        endpoint.requests(),
        1,
        "nothing is asked until somebody needs it"
    );
    assert!(layer.token_cache().status().suspect);
    assert_eq!(call(&layer, &api).await.status(), StatusCode::OK);
    assert_eq!(api.seen(), ["Bearer token-1", "Bearer token-2"]);
    assert!(!layer.token_cache().status().suspect);
}

// P2
#[tokio::test(start_paused = true)]
async fn a_body_that_the_hook_cannot_copy_is_not_replayed() {
    let (endpoint, api) = (Endpoint::new(), refusing(&["token-1"], INVALID_TOKEN));
    let layer = layer(&endpoint).replay_with(|body: &String| body.is_empty().then(String::new));
    let request = Request::post(API).body(String::from("once")).unwrap();
    let answer = layer.layer(api.clone()).oneshot(request).await.unwrap();
    assert_eq!(
        (answer.status(), api.requests()),
        (StatusCode::UNAUTHORIZED, 1)
    );
}

// P1
#[tokio::test(start_paused = true)]
async fn a_replay_is_the_same_request_with_another_token() {
    let (endpoint, seen) = (Endpoint::new(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let log = Arc::clone(&seen);
    let api = tower::service_fn(move |request: Request<String>| {
        let refused = request.headers()["authorization"] == "Bearer token-1";
        let (mut parts, body) = request.into_parts();
        parts.headers.remove("authorization");
        let marked = parts.extensions.get::<u8>().copied();
        log.lock().unwrap().push(format!(
            "{} {} {:?} {:?} {marked:?} {body}",
            parts.method, parts.uri, parts.version, parts.headers
        ));
        let answer = if refused {
            unauthorized("")
        } else {
            Response::new(String::new())
        };
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let layer = layer(&endpoint).replay_unauthorized();
    let mut request = Request::put("https://api.example/x?y=1")
        .header("x-trace", "7")
        .body(String::from("body"))
        .unwrap();
    *request.version_mut() = http::Version::HTTP_2;
    request.extensions_mut().insert(7_u8);
    layer.layer(api).oneshot(request).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), &seen[0]), (2, &seen[1]));
    assert!(
        seen[0].contains("x-trace") && seen[0].contains("Some(7) body"),
        "{}",
        seen[0]
    );
}

// P3
#[tokio::test(start_paused = true)]
async fn a_late_401_for_an_older_token_is_replayed_with_the_newer_one_without_a_token_request() {
    let endpoint = Endpoint::new();
    let layer = layer(&endpoint).replay_unauthorized();
    let (answer, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Arc::new(tokio::sync::Mutex::new(Some(wait)));
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let slow = tower::service_fn(move |request: Request<String>| {
        count.fetch_add(1, Ordering::SeqCst);
        let wait = Arc::clone(&wait);
        async move {
            if request.headers()["authorization"] == "Bearer token-1" {
                let wait = wait.lock().await.take();
                wait.unwrap().await.unwrap();
                return Ok::<_, tower::BoxError>(unauthorized(INVALID_TOKEN));
            }
            Ok(Response::new(String::new()))
        }
    });
    let late = tokio::spawn(layer.layer(slow).oneshot(get(API)));
    settle().await;
    layer.token_cache().invalidate();
    layer.token_cache().token().await.unwrap();
    assert_eq!(endpoint.requests(), 2);
    answer.send(()).unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!((endpoint.requests(), seen.load(Ordering::SeqCst)), (2, 2));
    assert!(
        !layer.token_cache().status().suspect,
        "the newer token is not suspected for the older one's sake"
    );
}

// P4
#[tokio::test(start_paused = true)]
async fn fifty_late_401s_for_one_token_cost_one_renewal() {
    for replay in [false, true] {
        let (endpoint, api) = (Endpoint::new(), refusing(&["token-1"], INVALID_TOKEN));
        // The refusals come when all fifty requests are out, and then one after another.
        let (out, late) = (api.clone(), Arc::new(AtomicUsize::new(0)));
        let slow = tower::service_fn(move |request: Request<String>| {
            let turn = late.fetch_add(1, Ordering::SeqCst) as u64;
            let answer = out.clone().oneshot(request);
            async move {
                tokio::time::sleep(secs(1) + Duration::from_millis(turn)).await;
                answer.await
            }
        });
        let layer = layer(&endpoint);
        layer.token_cache().warm_up().await.unwrap();
        let statuses: Vec<_> = if replay {
            let service = layer.clone().replay_unauthorized().layer(slow);
            let calls = (0..50).map(|_| service.clone().oneshot(get(API)));
            futures::future::join_all(calls).await
        } else {
            let service = layer.layer(slow);
            let calls = (0..50).map(|_| service.clone().oneshot(get(API)));
            futures::future::join_all(calls).await
        }
        .into_iter()
        .map(|answer| answer.unwrap().status())
        .collect();
        let wanted = if replay {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(statuses, vec![wanted; 50]);
        assert_eq!(call(&layer, &api).await.status(), StatusCode::OK);
        let refused = api
            .seen()
            .iter()
            .filter(|seen| *seen == "Bearer token-1")
            .count();
        assert_eq!((refused, endpoint.requests()), (50, 2));
    }
}

// P5, R20
#[tokio::test(start_paused = true)]
async fn an_api_that_always_answers_401_gets_no_third_try_and_renewals_within_its_budget() {
    let (endpoint, api) = (Endpoint::new(), Api::new(|_| unauthorized(INVALID_TOKEN)));
    let layer = layer(&endpoint).replay_unauthorized();
    let answer = call(&layer, &api).await;
    assert_eq!(
        (answer.status(), api.requests()),
        (StatusCode::UNAUTHORIZED, 2)
    );
    for _ in 0..1000 {
        call(&layer, &api).await;
    }
    assert_eq!(
        endpoint.requests(),
        1 + 3,
        "the first token, and three renewals"
    );
    let mut hours = Vec::new();
    for _ in 0..3 {
        let before = endpoint.requests();
        for _ in 0..3600 {
            advance(secs(1)).await;
            call(&layer, &api).await;
        }
        hours.push(endpoint.requests() - before);
    }
    // Ten minutes apart in the end, and once an hour ahead of time.
    assert!(hours[2] <= 8, "{hours:?}");
}

// P6
#[tokio::test(start_paused = true)]
async fn a_renewed_token_that_is_the_refused_one_is_not_sent_again() {
    let endpoint = Endpoint::new().always(Answer::Fixed("same", 3600));
    let api = refusing(&["same"], INVALID_TOKEN);
    let layer = layer(&endpoint).replay_unauthorized();
    let answer = call(&layer, &api).await;
    assert_eq!(
        (answer.status(), api.requests(), endpoint.requests()),
        (StatusCode::UNAUTHORIZED, 1, 2)
    );
    assert!(answer.extensions().get::<Replayed>().is_none());
}

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

// P21
#[tokio::test(start_paused = true)]
async fn when_renewing_fails_the_original_401_is_returned() {
    let endpoint = Endpoint::new()
        .then([Answer::Token(3600)])
        .always(Answer::Refused);
    let api = refusing(
        &["token-1"],
        "Bearer error=\"invalid_token\", error_description=\"the first\"",
    );
    let layer = layer(&endpoint).replay_unauthorized();
    let answer = call(&layer, &api).await;
    let challenges = answer.extensions().get::<Challenges>().unwrap();
    assert_eq!(
        challenges.bearer().unwrap().error_description(),
        Some("the first")
    );
    assert_eq!(
        (answer.status(), api.requests()),
        (StatusCode::UNAUTHORIZED, 1)
    );
}

// P33, R12
#[tokio::test(start_paused = true)]
async fn a_stray_401_while_the_token_endpoint_is_down_is_no_outage_of_our_making() {
    let stray = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&stray);
    let api = Api::new(move |_| {
        if now.swap(false, Ordering::SeqCst) {
            unauthorized("")
        } else {
            Response::new(String::new())
        }
    });
    for dead in [Answer::Refused, Answer::Hang] {
        let endpoint = Endpoint::new().then([Answer::Token(3600)]).always(dead);
        let layer = layer(&endpoint);
        call(&layer, &api).await;
        stray.store(true, Ordering::SeqCst);
        assert_eq!(call(&layer, &api).await.status(), StatusCode::UNAUTHORIZED);
        for _ in 0..100 {
            let start = tokio::time::Instant::now();
            assert_eq!(call(&layer, &api).await.status(), StatusCode::OK);
            assert!(start.elapsed() <= secs(1), "{:?}", start.elapsed());
            advance(secs(1)).await;
        }
    }
}

// P34, R20
#[tokio::test(start_paused = true)]
async fn a_healthy_api_never_waits_for_the_budget_of_another() {
    let (endpoint, healthy) = (Endpoint::new(), refusing(&["revoked"], INVALID_TOKEN));
    let sick = Api::new(|_| unauthorized(INVALID_TOKEN));
    let layer = layer(&endpoint);
    for _ in 0..50 {
        call_at(&layer, &sick, "https://sick.example/").await;
        call_at(&layer, &healthy, "https://healthy.example/").await;
    }
    let asked = endpoint.requests();
    assert_eq!(asked, 1 + 3);
    // The sick one has spent its own budget; the healthy one's 401 renews at once.
    endpoint.push(Answer::Fixed("revoked", 3600));
    layer.token_cache().invalidate();
    call_at(&layer, &healthy, "https://healthy.example/").await;
    assert_eq!(
        call_at(&layer, &healthy, "https://healthy.example/")
            .await
            .status(),
        StatusCode::OK
    );
    assert_eq!(endpoint.requests(), asked + 2);
}

// R20
#[tokio::test(start_paused = true)]
async fn a_hundred_apis_that_always_answer_401_cannot_make_a_storm_either() {
    let endpoint = Endpoint::new();
    let sick = Api::new(|_| unauthorized(INVALID_TOKEN));
    let layer = layer(&endpoint);
    for call in 0..2000 {
        call_at(&layer, &sick, &format!("https://{}.example/", call % 100)).await;
    }
    // The budgets of 64 origins, which the others share once all are being spent.
    let asked = endpoint.requests();
    assert!((1 + 3..=1 + 3 * 64).contains(&asked), "{asked}");
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
    // And what the replay is told is told to the cache.
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

#[tokio::test(start_paused = true)]
async fn a_request_is_replayed_also_when_the_layer_and_the_service_are_gone() {
    let endpoint = Endpoint::new();
    let layer = layer(&endpoint);
    layer.token_cache().warm_up().await.unwrap();
    let pending = layer
        .replay_unauthorized()
        .layer(refusing(&["token-1"], ""))
        .oneshot(get(API));
    assert_eq!(
        pending.await.unwrap().status(),
        StatusCode::OK,
        "what is to be replayed keeps the cache alive"
    );
}

// R10, R21
#[tokio::test(start_paused = true)]
async fn a_replay_waits_for_its_renewal_for_as_long_as_that_takes() {
    let endpoint = Endpoint::new();
    let api = refusing(&["token-1"], INVALID_TOKEN);
    let layer = layer(&endpoint).replay_unauthorized();
    layer.token_cache().token().await.unwrap();
    endpoint.set_latency(Duration::from_secs(9));
    assert_eq!(call(&layer, &api).await.status(), 200);
    assert_eq!(api.seen(), ["Bearer token-1", "Bearer token-2"]);
}

// FC10, R21
#[tokio::test(start_paused = true)]
async fn the_401_of_a_replay_makes_the_renewed_token_suspect() {
    let endpoint = Endpoint::new();
    let api = refusing(&["token-1", "token-2"], INVALID_TOKEN);
    let layer = layer(&endpoint).replay_unauthorized();
    assert_eq!(call(&layer, &api).await.status(), 401);
    assert!(layer.token_cache().status().suspect);
    assert_eq!(call(&layer, &api).await.status(), 200);
    assert_eq!(
        api.seen(),
        ["Bearer token-1", "Bearer token-2", "Bearer token-3"]
    );
}

/// How many tokens are asked for by two requests, the first of which is refused with these
/// challenges.
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

// FS16, R20
#[tokio::test(start_paused = true)]
async fn one_origin_has_one_budget_however_it_is_written() {
    let spelled = [
        "https://sick.example/a",
        "https://SICK.example/b",
        "https://sick.example:443/",
        "https://sick.example:0443/",
        "https://sick.example:/",
        "https://sick.example./",
        "https://Sick.Example.:443/",
        "https://user:pw@sick.example/",
        "/path",
    ];
    let sick = Api::new(|_| unauthorized(INVALID_TOKEN));
    for listed in [false, true] {
        let endpoint = Endpoint::new();
        let mut builder = builder(&endpoint).assume_origin("https://sick.example");
        if listed {
            builder = builder
                .allow_origin("https://other.example")
                .allow_origin("https://sick.example");
        }
        let layer = builder.build().unwrap();
        for turn in 0..20 {
            for uri in spelled {
                call_at(&layer, &sick, uri).await;
            }
            let changing = format!("https://user-{turn}@sick.example/");
            call_at(&layer, &sick, &changing).await;
        }
        assert_eq!(endpoint.requests(), 1 + 3, "listed: {listed}");
    }
}

// FS16, R20
#[tokio::test(start_paused = true)]
async fn scheme_and_port_keep_budgets_apart() {
    let endpoint = Endpoint::new();
    let sick = Api::new(|_| unauthorized(INVALID_TOKEN));
    let layer = layer(&endpoint);
    let origins = [
        "https://127.0.0.1/",
        "http://127.0.0.1/",
        "https://127.0.0.1:80/",
    ];
    for (place, uri) in origins.into_iter().enumerate() {
        for _ in 0..20 {
            call_at(&layer, &sick, uri).await;
        }
        // Each origin spends its own three; the last renewal of one is the first token of the next.
        assert_eq!(endpoint.requests(), 1 + 3 * (place + 1), "{uri}");
    }
}
