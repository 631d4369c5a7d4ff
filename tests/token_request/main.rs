//! The token request and the client authentication, byte by byte.

#[path = "../support/mod.rs"]
mod support;

mod settings;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::{Method, Request};
use http_body_util::Full;
use support::*;
use tower::{Layer, ServiceExt};
use tower_oauth::{
    BuildError, ClientAuth, ClientCredentials, ManualClock, OAuth, OAuthLayer, Secret, TokenFuture,
    TokenParams, TokenRequest, TokenSource,
};

async fn sent(configure: impl FnOnce(Builder) -> Builder, auth: ClientAuth) -> Seen {
    let endpoint = Endpoint::new();
    let builder =
        OAuthLayer::client_credentials_with(TOKEN_URL, auth).token_client(endpoint.clone());
    let layer = configure(builder).build().unwrap();
    let mut request = get("https://api.example/?q=1");
    request.headers_mut().insert("x-api", "1".parse().unwrap());
    layer.layer(Api::ok()).oneshot(request).await.unwrap();
    endpoint.seen().remove(0)
}

fn basic(id: &str, secret: impl Into<Secret>) -> ClientAuth {
    ClientAuth::basic(id, secret)
}

fn refused(auth: ClientAuth) -> BuildError {
    OAuthLayer::client_credentials_with(TOKEN_URL, auth)
        .build()
        .unwrap_err()
}

// Q0
#[tokio::test]
async fn the_gateways_request_is_as_documented() {
    let seen = sent(
        |layer| layer.scope("aisp"),
        basic("consumer-key", "consumer-secret"),
    )
    .await;
    assert_eq!(seen.uri.path(), "/oauth2/v1/token");
    assert_eq!(
        seen.authorization(),
        "Basic Y29uc3VtZXIta2V5OmNvbnN1bWVyLXNlY3JldA=="
    );
    assert_eq!(seen.body, "grant_type=client_credentials&scope=aisp");
}

// Q1, Q2
#[tokio::test]
async fn encoded_basic_percent_encodes_both_parts() {
    let rows = [
        (
            "1PpG/Q 1",
            "z/tZ9VwFZqApmIQ+ZH1I5pLk/uB4ud:X2/8bL+wfFTt1rFw=",
            "Basic MVBwRyUyRlElMjAxOnolMkZ0WjlWd0ZacUFwbUlR\
             JTJCWkgxSTVwTGslMkZ1QjR1ZCUzQVgyJTJGOGJMJTJCd2ZGVHQxckZ3JTNE",
        ),
        (
            "796d8fae-a42f-4e4f-ab25-d6205b6d4fa2",
            "MKEM/A7Pkn7JuU0LAcxyHVKvwdczsugaPU0BieLb4CbQAgQj+ypcanFOCb0/FA5h",
            "Basic Nzk2ZDhmYWUtYTQyZi00ZTRmLWFiMjUtZDYyMDViNmQ0ZmEy\
             Ok1LRU0lMkZBN1BrbjdKdVUwTEFjeHlIVkt2d2RjenN1Z2FQVTBCaWVM\
             YjRDYlFBZ1FqJTJCeXBjYW5GT0NiMCUyRkZBNWg=",
        ),
    ];
    for (id, secret, header) in rows {
        let seen = sent(|layer| layer, ClientAuth::basic_encoded(id, secret)).await;
        assert_eq!(seen.authorization(), header);
    }
}

// Q4, Q7
#[tokio::test]
async fn post_puts_id_and_secret_into_the_form_and_nowhere_else() {
    let seen = sent(|layer| layer, ClientAuth::post("id", "a~*!'()-_.b%&+ £€")).await;
    assert_eq!(
        seen.body,
        "grant_type=client_credentials&client_id=id\
         &client_secret=a%7E*%21%27%28%29-_.b%25%26%2B+%C2%A3%E2%82%AC"
    );
    assert!(!seen.headers.contains_key("authorization"));
}

// Q10, Q19
#[tokio::test]
async fn scope_audience_resources_and_parameters_are_in_the_form() {
    let seen = sent(
        |layer| {
            layer
                .scope("scope1")
                .scope("scope2")
                .audience("audience1")
                .resource("https://a.example")
                .resource("https://b.example")
                .parameter("tenant", "x y")
        },
        basic("CLIENT_ID", "CLIENT_SECRET"),
    )
    .await;
    assert_eq!(
        seen.authorization(),
        "Basic Q0xJRU5UX0lEOkNMSUVOVF9TRUNSRVQ="
    );
    assert_eq!(
        seen.body,
        "grant_type=client_credentials&scope=scope1+scope2&audience=audience1\
         &resource=https%3A%2F%2Fa.example&resource=https%3A%2F%2Fb.example&tenant=x+y"
    );
}

// Q11
#[tokio::test]
async fn an_empty_scope_is_not_sent() {
    let seen = sent(|layer| layer.scope(""), basic("a", "b")).await;
    assert_eq!(seen.body, "grant_type=client_credentials");
}

// Q14
#[tokio::test]
async fn every_token_request_is_a_form_post_with_nothing_of_the_api_request_in_it() {
    let seen = sent(|layer| layer, basic("id", "s3cret")).await;
    assert_eq!(seen.method, Method::POST);
    let mut names: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["accept", "authorization", "content-type", "user-agent"]
    );
    assert_eq!(
        seen.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(seen.headers["accept"], "application/json");
    assert!(!seen.uri.to_string().contains("s3cret"));
    assert!(seen.headers["authorization"].is_sensitive());
}

// Q17
#[tokio::test]
async fn a_redirect_of_the_token_endpoint_is_an_error_and_nothing_is_sent_to_its_target() {
    for status in [301, 302, 303, 307, 308] {
        let endpoint =
            Endpoint::new().always(raw(status, &[("location", "https://evil.example/")], ""));
        let error = layer(&endpoint).token_cache().token().await.unwrap_err();
        assert!(
            error.is_invalid_response() && error.to_string().contains("redirect"),
            "{error}"
        );
        assert_eq!(endpoint.requests(), 1);
    }
}

// Q18
#[tokio::test]
async fn a_call_to_the_token_endpoint_through_the_layer_is_a_call_like_any_other() {
    let endpoint = Endpoint::new();
    let layer = layer(&endpoint);
    // Twice, as in a stack that is put together carelessly.
    let service = layer.layer(layer.layer(endpoint.clone()));
    let call = Request::post(TOKEN_URL).body(Full::default()).unwrap();
    service.oneshot(call).await.unwrap();
    let seen = endpoint.seen();
    let sent: Vec<_> = seen.iter().map(Seen::authorization).collect();
    assert_eq!(
        sent,
        [
            "Basic Y29uc3VtZXIta2V5OmNvbnN1bWVyLXNlY3JldA==",
            "Bearer token-1"
        ]
    );
}

// Q18
#[tokio::test(start_paused = true)]
async fn a_token_client_under_its_own_layer_waits_for_itself_until_its_time_is_up() {
    let (endpoint, layered) = (Endpoint::new(), Arc::new(OnceLock::new()));
    let itself = Arc::clone(&layered);
    let token_client = tower::service_fn(move |request| {
        let client: &OAuth<Endpoint> = itself.get().unwrap();
        client.clone().oneshot(request)
    });
    let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", "secret")
        .token_client(token_client)
        .build()
        .unwrap();
    assert!(layered.set(layer.layer(endpoint.clone())).is_ok());
    let error = layer.token_cache().token().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(endpoint.requests(), 0);
}

// Q20
#[tokio::test]
async fn a_client_without_a_secret_sends_its_id_and_no_secret() {
    let seen = sent(|layer| layer, ClientAuth::none("id")).await;
    assert_eq!(seen.body, "grant_type=client_credentials&client_id=id");
    assert!(!seen.headers.contains_key("authorization"));
}

// FA24, Q22
#[tokio::test]
async fn a_token_request_names_its_client_and_the_name_can_be_set() {
    let seen = sent(|layer| layer, basic("id", "secret")).await;
    let ours = concat!("tower-oauth/", env!("CARGO_PKG_VERSION"));
    assert_eq!(seen.headers["user-agent"], ours);
    let seen = sent(
        |layer| layer.user_agent("payments/1.0"),
        basic("id", "secret"),
    )
    .await;
    assert_eq!(seen.headers["user-agent"], "payments/1.0");
}

// FA25
#[tokio::test]
async fn a_resource_that_is_no_uri_is_sent_as_a_parameter() {
    let seen = sent(
        |layer| layer.parameter("resource", "00000002-0000-0000"),
        basic("id", "secret"),
    )
    .await;
    assert_eq!(
        seen.body,
        "grant_type=client_credentials&resource=00000002-0000-0000"
    );
}

// FA26
#[tokio::test]
async fn a_parameter_given_twice_is_sent_twice_in_its_order() {
    let seen = sent(
        |layer| {
            layer
                .parameter("b", "2")
                .parameter("a", "x")
                .parameter("b", "1")
        },
        basic("id", "secret"),
    )
    .await;
    assert_eq!(seen.body, "grant_type=client_credentials&b=2&a=x&b=1");
}

// FS14
#[tokio::test]
async fn parameters_of_one_name_in_another_order_are_another_kind_of_token() {
    let endpoint = Endpoint::new();
    let layer = builder(&endpoint).build().unwrap();
    let ask = |first: &str, second: &str| {
        let request = TokenParams::new().with_parameter("acr", first).unwrap();
        layer
            .token_cache()
            .with_params(request.with_parameter("acr", second).unwrap())
    };
    ask("a", "b").token().await.unwrap();
    ask("b", "a").token().await.unwrap();
    ask("a", "b").token().await.unwrap();
    assert_eq!(endpoint.requests(), 2);
}

#[test]
fn a_layers_request_is_a_start_for_others() {
    let layer = builder(&Endpoint::new())
        .scope("a")
        .audience("x")
        .build()
        .unwrap();
    let other = layer.params().clone().with_scope("b").unwrap();
    assert_eq!(
        other,
        TokenParams::new()
            .with_scope("a b")
            .unwrap()
            .with_audience("x")
    );
}

// R23
#[tokio::test]
async fn a_wrapped_source_keeps_every_setting_made_before_and_after() {
    struct Counted(ClientCredentials, Arc<AtomicUsize>);

    impl TokenSource for Counted {
        fn token<'a>(&'a self, request: TokenRequest<'a>) -> TokenFuture<'a> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.token(request)
        }

        fn host(&self, params: &TokenParams) -> Option<&str> {
            self.0.host(params)
        }
    }

    let (endpoint, asked) = (Endpoint::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let layer = OAuthLayer::client_credentials(TOKEN_URL, "id", "secret")
        .token_client(endpoint.clone())
        .user_agent("payments/1.0")
        .scope("a")
        .allow_origin("https://a.example")
        .wrap_source(|source| Counted(source, count))
        .scope("b")
        .build()
        .unwrap();
    let api = layer.layer(Api::ok());
    let elsewhere = api.clone().oneshot(get("https://b.example/")).await;
    assert!(elsewhere.is_err(), "the destinations are kept");
    api.oneshot(get("https://a.example/")).await.unwrap();
    let seen = endpoint.seen().remove(0);
    assert_eq!(seen.body, "grant_type=client_credentials&scope=a+b");
    assert_eq!(seen.headers["user-agent"], "payments/1.0");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
