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
    let passing = narrow().skip_other_origins().build().unwrap();
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

// P35, FA16
#[test]
fn an_assumed_origin_that_may_not_have_the_token_is_a_build_error_that_names_it() {
    let endpoint = Endpoint::new();
    let other = builder(&endpoint)
        .allow_origin("https://api.example")
        .assume_origin("https://other.example");
    let plain = builder(&endpoint).assume_origin("http://plain.example");
    for (builder, origin) in [
        (other, "https://other.example:443"),
        (plain, "http://plain.example:80"),
    ] {
        let text = builder.build().unwrap_err().to_string();
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
    let passing = builder(&endpoint).skip_other_origins().build().unwrap();
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
    assert!(matches!(&error, BuildError::Origin { origin, .. } if origin == "api.example"));
    let error = builder(&endpoint)
        .assume_origin("https://user:pw@api.example")
        .build()
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("pw"), "{error}");
}

/// URLs that `http::Uri` accepts, and that not all clients read alike.
const UNCLEAR: [&str; 24] = [
    "https://api.example:99999/",
    "https://api.example:65536/",
    "https://api.example:abc/",
    "https://api.example:-1/",
    "https://api.example:+443/",
    "https://api.example:0/",
    "http://127.0.0.1:99999/",
    "http://[::1]:x/",
    "https://:443/",
    "http://:80/",
    "https://user@:443/",
    "https://./",
    "https://../",
    "https://.api.example/",
    "https://api.example../",
    "https://[]/",
    "https://[::1%25lo]/",
    "http://[fe80::1%25eth0]/",
    "https://[127.0.0.1]/",
    "http://[localhost]/",
    "http://[::1]evil.example/",
    "https://[::1]443/",
    "https://a@b@api.example/",
    "http://127.0.0.1:80@evil.example@localhost/",
];

// FS1, R22
#[tokio::test(start_paused = true)]
async fn a_uri_that_does_not_clearly_say_where_it_goes_is_an_error_in_all_modes() {
    let endpoint = Endpoint::new();
    let narrow = || builder(&endpoint).allow_origin("https://api.example");
    for builder in [
        builder(&endpoint),
        narrow(),
        builder(&endpoint).skip_other_origins(),
        narrow().skip_other_origins(),
    ] {
        let layer = builder.build().unwrap();
        for uri in UNCLEAR {
            let error = carried(&layer, get(uri)).await.expect_err(uri);
            assert!(error.is_destination(), "{uri}: {error}");
            assert!(
                error.to_string().contains("where it goes"),
                "{uri}: {error}"
            );
        }
        let tunnel = Request::connect("api.example:99999").body(String::new());
        let error = carried(&layer, tunnel.unwrap()).await.unwrap_err();
        assert!(error.is_destination(), "{error}");
    }
    assert_eq!(endpoint.requests(), 0);
}

// FS1
#[test]
fn a_token_url_or_origin_that_does_not_clearly_say_where_it_goes_is_a_build_error() {
    let endpoint = Endpoint::new();
    let extra = [
        "https://$HOST/",
        "https://*.example/",
        "https://api..example/",
        "https:///",
        "https://api%2eexample/",
        "https://api.example:443:443/",
        "https://::1/",
    ];
    for url in UNCLEAR.into_iter().chain(extra) {
        let token_url = OAuthLayer::client_credentials(url, "id", "secret")
            .dangerous_http_token_endpoint()
            .token_client(endpoint.clone())
            .build();
        let error = token_url.map(|_| ()).expect_err(url);
        assert!(
            matches!(error, BuildError::TokenUrl { .. }),
            "{url}: {error}"
        );
        let allowed = builder(&endpoint).allow_origin(url).build();
        let assumed = builder(&endpoint).assume_origin(url).build();
        for built in [allowed, assumed] {
            let error = built.map(|_| ()).expect_err(url);
            assert!(matches!(error, BuildError::Origin { .. }), "{url}: {error}");
        }
    }
}

// FA16
#[test]
fn a_token_url_that_is_no_url_is_told_what_to_write() {
    for (url, wanted) in [
        ("127.0.0.1:9001/t", "https://"),
        ("localhost:9001", "https://"),
        ("gw.example/oauth2/v1/token", "https://"),
        ("gw.example", "https://"),
        ("https://b\u{fc}cher.example/t", "xn--"),
        ("https://gw.example:99999/t", "port"),
        ("https://https://gw.example/token", "scheme twice"),
        ("http://http://127.0.0.1/token", "scheme twice"),
        ("https://gw.example/t\"", "quotation mark"),
        ("https://gw.example/%TENANT%/t", "write the value"),
        ("https://gw.example/%zz", "two hex digits"),
        ("https://[::1/t", "closing bracket"),
        ("https://gw.example:443:443/t", "one port"),
        ("https://gw%2eexample/t", "letters themselves"),
        ("OAUTH_TOKEN_URL=https://gw.example/t", "a variable's name"),
        ("<https://gw.example/t>", "angle brackets around it"),
    ] {
        let built = OAuthLayer::client_credentials(url, "id", "secret")
            .token_client(Endpoint::new())
            .build();
        let error = built.map(|_| ()).expect_err(url).to_string();
        assert!(error.contains(wanted), "{url}: {error}");
    }
}

// FA16
#[test]
fn what_an_origin_has_too_much_is_named_and_what_to_write_is_shown() {
    for (origin, wanted) in [
        ("https://user:canary@api.example", "leave the user-info out"),
        ("https://canary@api.example/v1", "leave the user-info out"),
        ("https://api.example?x=canary", "leave the query out"),
        ("https://api.example/?", "leave the query out"),
        ("https://api.example/#canary", "leave the fragment out"),
        ("https://api.example#", "leave the fragment out"),
        ("https://api.example/v1", "leave the path out"),
        ("ftp://api.example", "its scheme is neither https nor http"),
        (
            "wss://api.example/v1",
            "its scheme is neither https nor http",
        ),
        ("https://https://api.example", "it has the scheme twice"),
    ] {
        let endpoint = Endpoint::new();
        let allowed = builder(&endpoint).allow_origin(origin).build();
        let assumed = builder(&endpoint).assume_origin(origin).build();
        for built in [allowed, assumed] {
            let error = built.map(|_| ()).expect_err(origin);
            let text = error.to_string();
            let advice = format!("; {wanted}: write \"https://api.example\"");
            assert!(text.ends_with(&advice), "{origin}: {text}");
            // The text does not name as wrong what is right.
            assert!(
                !text.starts_with("origin: \"https://api.example\""),
                "{origin}: {text}"
            );
            assert!(!format!("{text} {error:?}").contains("canary"), "{text}");
        }
    }
    let endpoint = Endpoint::new();
    let hidden = builder(&endpoint).allow_origin("https://api.example?a=b@canary");
    let error = hidden.build().map(|_| ()).unwrap_err().to_string();
    assert!(
        error.ends_with("leave out the user-info, the query and the fragment"),
        "{error}"
    );
    let web_socket = builder(&endpoint).allow_origin("ws://127.0.0.1:80");
    let error = web_socket.build().map(|_| ()).unwrap_err().to_string();
    assert!(error.ends_with("write \"http://127.0.0.1:80\""), "{error}");
}

// FS2, R22
#[tokio::test(start_paused = true)]
async fn a_bare_path_without_an_assumed_origin_fails_before_a_token_is_asked_for() {
    for target in ["/package.Service/Method", "*"] {
        let endpoint = Endpoint::new();
        let error = carried(&layer(&endpoint), get(target)).await.unwrap_err();
        assert!(error.is_destination(), "{error}");
        assert!(error.to_string().contains("assume_origin()"), "{error}");
        let passing = builder(&endpoint).skip_other_origins().build().unwrap();
        assert_eq!(carried(&passing, get(target)).await.unwrap(), "");
        assert_eq!(endpoint.requests(), 0);

        let assuming = builder(&endpoint).assume_origin("https://api.example");
        let assuming = assuming.build().unwrap();
        let carried = carried(&assuming, get(target)).await;
        assert_eq!(carried.unwrap(), "Bearer token-1");
    }
}

// FS3, R22
#[tokio::test(start_paused = true)]
async fn trace_and_authority_form_requests_never_carry_the_token() {
    let endpoint = Endpoint::new();
    let trace = || {
        let mut request = get(API);
        *request.method_mut() = http::Method::TRACE;
        request
    };
    let authority_form = || get("api.example:443");
    let narrow = || builder(&endpoint).allow_origin("https://api.example");
    for (open, passing) in [
        (builder(&endpoint), builder(&endpoint).skip_other_origins()),
        (narrow(), narrow().skip_other_origins()),
    ] {
        let (open, passing) = (open.build().unwrap(), passing.build().unwrap());
        let error = carried(&open, trace()).await.unwrap_err();
        assert!(error.is_destination(), "{error}");
        assert!(error.to_string().contains("TRACE"), "{error}");
        let error = carried(&open, authority_form()).await.unwrap_err();
        assert!(error.is_destination(), "{error}");
        assert!(error.to_string().contains("https://"), "{error}");
        assert_eq!(carried(&passing, trace()).await.unwrap(), "");
        assert_eq!(carried(&passing, authority_form()).await.unwrap(), "");
    }
    assert_eq!(endpoint.requests(), 0);
}

// FS15, FS1, R22
#[tokio::test(start_paused = true)]
async fn what_a_name_server_may_be_asked_for_is_not_loopback() {
    for host in [
        "localhost.",
        "127.0.0.1.",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "[::ffff:127.0.0.1]",
        "127.0.0.1.evil.example",
    ] {
        let endpoint = Endpoint::new();
        let url = format!("http://{host}/t");
        let error = carried(&layer(&endpoint), get(&url)).await.expect_err(host);
        assert!(error.is_destination(), "{host}: {error}");
        assert_eq!(endpoint.requests(), 0);
        let built = OAuthLayer::client_credentials(url, "id", "secret")
            .token_client(endpoint)
            .build();
        let error = built.map(|_| ()).expect_err(host);
        assert!(
            matches!(&error, BuildError::TokenUrl { reason, .. } if reason.starts_with("http to ")),
            "{host}: {error}"
        );
    }
    let endpoint = Endpoint::new();
    let open = layer(&endpoint);
    for url in [
        "http://LocalHost:8080/",
        "http://[0:0::1]/",
        "http://127.8.8.8/",
    ] {
        assert_eq!(carried(&open, get(url)).await.unwrap(), "Bearer token-1");
    }
}

// FS1, R22
#[tokio::test(start_paused = true)]
async fn user_info_is_never_taken_for_the_host() {
    let endpoint = Endpoint::new();
    let narrow = builder(&endpoint).allow_origin("https://api.example");
    let (open, narrow) = (layer(&endpoint), narrow.build().unwrap());
    for uri in [
        "http://127.0.0.1@evil.example/",
        "http://localhost:80@evil.example/",
        "http://127.0.0.1:80%40@evil.example:80/",
    ] {
        let error = carried(&open, get(uri)).await.unwrap_err();
        assert!(
            error.to_string().contains("http://evil.example:80"),
            "{error}"
        );
    }
    let error = carried(&narrow, get("https://api.example@evil.example/")).await;
    assert!(error.unwrap_err().is_destination());
    assert_eq!(endpoint.requests(), 0);
    let right = carried(&narrow, get("https://evil.example@api.example/")).await;
    assert_eq!(right.unwrap(), "Bearer token-1");
}

// FS15, R22
#[tokio::test(start_paused = true)]
async fn a_trailing_dot_names_the_same_host_behind_https_and_another_behind_http() {
    let endpoint = Endpoint::new();
    let narrow = builder(&endpoint)
        .allow_origin("https://api.example")
        .allow_origin("https://dotted.example.")
        .allow_origin("http://plain.example")
        .build()
        .unwrap();
    for uri in [
        "https://api.example./",
        "https://API.example.:443/",
        "https://dotted.example/",
        "http://PLAIN.example:80/",
    ] {
        assert_eq!(carried(&narrow, get(uri)).await.unwrap(), "Bearer token-1");
    }
    for uri in ["http://plain.example./", "https://plain.example/"] {
        let error = carried(&narrow, get(uri)).await.expect_err(uri);
        assert!(error.is_destination(), "{uri}: {error}");
    }
}
