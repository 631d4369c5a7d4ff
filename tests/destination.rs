//! Where the token goes, and where it does not.

mod support;

use http::Request;
use support::*;
use tower::{Layer, ServiceExt};
use tower_oauth::{BuildError, NoToken, OAuthLayer};

async fn carried(
    layer: &OAuthLayer,
    request: Request<String>,
) -> Result<String, tower_oauth::Error> {
    let api = Api::ok();
    match layer.layer(api.clone()).oneshot(request).await {
        Ok(_) => Ok(api.seen().remove(0)),
        Err(error) => {
            assert_eq!(api.requests(), 0, "nothing is sent");
            Err(ours(error))
        }
    }
}

// P22, R25
#[tokio::test(start_paused = true)]
async fn an_existing_authorization_is_replaced_unless_it_is_to_be_kept() {
    let with = || {
        let mut request = get(API);
        request
            .headers_mut()
            .append("authorization", "Basic one".parse().unwrap());
        request
    };
    let endpoint = Endpoint::new();
    let mut twice = with();
    twice
        .headers_mut()
        .append("authorization", "Basic two".parse().unwrap());
    // The API of these tests takes one such header and no more.
    assert_eq!(
        carried(&layer(&endpoint), twice).await.unwrap(),
        "Bearer token-1"
    );
    let keeps = builder(&endpoint)
        .keep_existing_authorization()
        .build()
        .unwrap();
    assert_eq!(carried(&keeps, with()).await.unwrap(), "Basic one");
    assert_eq!(endpoint.requests(), 1, "no token is fetched for it");
    assert_eq!(carried(&keeps, get(API)).await.unwrap(), "Bearer token-2");
}

// P23, R22
#[tokio::test(start_paused = true)]
async fn other_origins_fail_with_an_error_that_names_them_or_pass_without_a_token() {
    let endpoint = Endpoint::new();
    let narrow = || builder(&endpoint).allow_origin("https://api.example");
    let layer = narrow().build().unwrap();
    let error = carried(&layer, get("https://other.example/"))
        .await
        .unwrap_err();
    assert!(
        error.is_destination() && error.to_string().contains("https://other.example:443"),
        "{error}"
    );
    assert!(error.to_string().contains("allow_origin"), "{error}");
    assert_eq!(endpoint.requests(), 0, "no token is fetched for it");
    let passing = narrow().pass_other_origins().build().unwrap();
    assert_eq!(
        carried(&passing, get("https://other.example/"))
            .await
            .unwrap(),
        ""
    );
    assert_eq!(
        carried(&passing, get("https://api.example/"))
            .await
            .unwrap(),
        "Bearer token-1"
    );
}

// P23, R22
#[tokio::test(start_paused = true)]
async fn plain_http_gets_a_token_on_loopback_or_by_name_only() {
    let endpoint = Endpoint::new();
    let open = layer(&endpoint);
    assert!(
        carried(&open, get("http://api.example/"))
            .await
            .unwrap_err()
            .is_destination()
    );
    assert!(carried(&open, get("http://127.0.0.1:9/")).await.is_ok());
    let named = builder(&endpoint)
        .allow_origin("http://api.example")
        .build()
        .unwrap();
    assert!(carried(&named, get("http://api.example/")).await.is_ok());
    assert!(
        carried(&named, get("http://api.example:81/"))
            .await
            .is_err()
    );
}

// P35
#[tokio::test(start_paused = true)]
async fn a_bare_path_with_a_list_and_no_assumed_origin_is_a_clear_error() {
    let endpoint = Endpoint::new();
    let narrow = builder(&endpoint).allow_origin("https://api.example");
    let layer = narrow.build().unwrap();
    let error = carried(&layer, get("/package.Service/Method"))
        .await
        .unwrap_err();
    assert!(
        error.is_destination() && error.to_string().contains("assume_origin"),
        "{error}"
    );
    let assumed = builder(&endpoint)
        .allow_origin("https://api.example")
        .assume_origin("https://api.example")
        .build()
        .unwrap();
    assert_eq!(
        carried(&assumed, get("/package.Service/Method"))
            .await
            .unwrap(),
        "Bearer token-1"
    );
}

// P35
#[tokio::test(start_paused = true)]
async fn an_assumed_origin_that_may_not_have_the_token_is_named_in_the_error() {
    let endpoint = Endpoint::new();
    let other = builder(&endpoint)
        .allow_origin("https://api.example")
        .assume_origin("https://other.example");
    let plain = builder(&endpoint).assume_origin("http://plain.example");
    for (builder, origin) in [
        (other, "https://other.example:443"),
        (plain, "http://plain.example:80"),
    ] {
        let layer = builder.build().unwrap();
        let error = carried(&layer, get("/only/a/path")).await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_destination(), "{text}");
        assert!(
            text.contains(origin) && text.contains("allow_origin"),
            "{text}"
        );
    }
}

// P35
#[tokio::test(start_paused = true)]
async fn connect_never_carries_the_token() {
    let endpoint = Endpoint::new();
    let request = || {
        Request::connect("proxy.example:443")
            .body(String::new())
            .unwrap()
    };
    assert!(
        carried(&layer(&endpoint), request())
            .await
            .unwrap_err()
            .is_destination()
    );
    let passing = builder(&endpoint).pass_other_origins().build().unwrap();
    assert_eq!(carried(&passing, request()).await.unwrap(), "");
    assert_eq!(endpoint.requests(), 0);
}

// P36
#[tokio::test(start_paused = true)]
async fn no_token_in_the_extensions_sends_the_request_as_it_is_without_a_token_request() {
    let endpoint = Endpoint::new().always(Answer::Refused);
    let narrow = builder(&endpoint)
        .allow_origin("https://api.example")
        .build()
        .unwrap();
    let mut request = get("http://health.example/");
    request.extensions_mut().insert(NoToken);
    assert_eq!(carried(&narrow, request).await.unwrap(), "");
    assert_eq!(endpoint.requests(), 0);
}

#[test]
fn a_bad_origin_is_a_build_error_that_names_it() {
    let endpoint = Endpoint::new();
    let error = builder(&endpoint)
        .allow_origin("api.example")
        .build()
        .unwrap_err();
    assert!(matches!(&error, BuildError::Origin { origin } if origin == "api.example"));
    let error = builder(&endpoint)
        .assume_origin("https://user:pw@api.example")
        .build()
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("pw"), "{error}");
}
