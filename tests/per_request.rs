//! Other kinds of token, asked for in a request's extensions.

mod support;

use std::time::Duration;

use support::*;
use tower::{Layer, ServiceExt};
use tower_oauth::{CachePolicy, OAuthLayer, TokenParams};

fn scope(scope: &str) -> TokenParams {
    TokenParams::new().with_scope(scope).unwrap()
}

async fn call(layer: &OAuthLayer, api: &Api, other: Option<TokenParams>) {
    let mut request = get(API);
    if let Some(other) = other {
        request.extensions_mut().insert(other);
    }
    layer.layer(api.clone()).oneshot(request).await.unwrap();
}

// K14
#[tokio::test(start_paused = true)]
async fn each_kind_of_token_has_its_own_entry_and_equal_ones_share_it() {
    let (endpoint, api) = (Endpoint::new(), Api::ok());
    let layer = builder(&endpoint).scope("a").build().unwrap();
    let kinds = [
        None,
        Some(scope("b c")),
        Some(scope("b c").with_audience("x")),
        Some(scope("b c").with_resource("https://r").unwrap()),
        Some(scope("b c").with_parameter("p", "1").unwrap()),
        Some(TokenParams::new()),
    ];
    for _ in 0..3 {
        for kind in &kinds {
            call(&layer, &api, kind.clone()).await;
        }
        call(&layer, &api, Some(scope("c b"))).await;
        call(&layer, &api, Some(scope("a"))).await;
    }
    assert_eq!(
        endpoint.requests(),
        kinds.len(),
        "the layer's own is the one of scope a"
    );
    assert_eq!(layer.token_cache().status().entries, kinds.len());
    assert_eq!(api.seen()[1], "Bearer token-2");
    assert_eq!(
        endpoint.seen()[1].body,
        "grant_type=client_credentials&scope=b+c"
    );
}

// K14
#[tokio::test(start_paused = true)]
async fn layers_of_other_clients_or_endpoints_share_nothing() {
    let (endpoint, api) = (Endpoint::new(), Api::ok());
    let client = |url, id| OAuthLayer::client_credentials(url, id, "secret");
    let layers = [
        client(TOKEN_URL, "one"),
        client(TOKEN_URL, "two"),
        client("http://127.0.0.1/other", "one"),
    ]
    .map(|builder| builder.token_client(endpoint.clone()).build().unwrap());
    for _ in 0..2 {
        for layer in &layers {
            call(layer, &api, None).await;
        }
    }
    assert_eq!(endpoint.requests(), 3);
    assert_eq!(api.seen()[..3], api.seen()[3..]);
    assert_eq!(api.seen()[2], "Bearer token-3");
}

// K14
#[tokio::test(start_paused = true)]
async fn fifty_cold_callers_of_another_kind_are_one_token_request() {
    let (endpoint, api) = (
        Endpoint::new().latency(Duration::from_millis(50)),
        Api::ok(),
    );
    let layer = layer(&endpoint);
    let calls = (0..50).map(|_| call(&layer, &api, Some(scope("x"))));
    futures::future::join_all(calls).await;
    assert_eq!((endpoint.requests(), api.requests()), (1, 50));
}

// K15
#[tokio::test(start_paused = true)]
async fn a_thousand_keys_under_a_bound_of_a_hundred_keep_the_bound() {
    let (endpoint, api) = (Endpoint::new(), Api::ok());
    let policy = CachePolicy::new().max_entries(100);
    let layer = builder(&endpoint).cache_policy(policy).build().unwrap();
    for n in 0..1000 {
        call(&layer, &api, Some(scope(&format!("s{n}")))).await;
        assert!(
            layer.token_cache().status().entries <= 101,
            "and the layer's own"
        );
    }
    assert_eq!(endpoint.requests(), 1000);
    call(&layer, &api, Some(scope("s999"))).await;
    assert_eq!(endpoint.requests(), 1000, "what was just used is kept");
}

// K15
#[tokio::test(start_paused = true)]
async fn what_is_being_fetched_is_not_evicted() {
    let (endpoint, api) = (Endpoint::new().closed(), Api::ok());
    let policy = CachePolicy::new().max_entries(10).max_flights(1000);
    let layer = builder(&endpoint).cache_policy(policy).build().unwrap();
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let (layer, api) = (layer.clone(), api.clone());
            // Two callers of each key: were the first one's entry evicted, the second would start a
            // flight of its own.
            tokio::spawn(
                async move { call(&layer, &api, Some(scope(&format!("s{}", n % 100)))).await },
            )
        })
        .collect();
    settle().await;
    endpoint.open();
    futures::future::join_all(calls).await;
    assert_eq!((endpoint.requests(), api.requests()), (100, 200));
    assert!(layer.token_cache().status().entries <= 11);
}

#[tokio::test(start_paused = true)]
async fn a_401_makes_only_its_own_kind_of_token_suspect() {
    let endpoint = Endpoint::new();
    let api = Api::new(|authorization| {
        if authorization == "Bearer token-2" {
            unauthorized("")
        } else {
            http::Response::new(String::new())
        }
    });
    let layer = layer(&endpoint);
    call(&layer, &api, None).await;
    call(&layer, &api, Some(scope("x"))).await;
    assert!(!layer.token_cache().status().suspect);
    assert!(layer.token_cache().with_params(scope("x")).status().suspect);
    call(&layer, &api, Some(scope("x"))).await;
    call(&layer, &api, None).await;
    assert_eq!(api.seen()[2..], ["Bearer token-3", "Bearer token-1"]);
}
