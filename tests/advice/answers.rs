//! What is told of an answer of the token endpoint.

use super::*;

// FA11
#[tokio::test(start_paused = true)]
async fn advice_is_by_cause_and_names_what_was_asked() {
    let description = r#"{"error_description":"this client may not have the scope"}"#;
    for answer in [
        Answer::Error(400, "invalid_scope"),
        raw(400, &[], description),
        raw(403, &[], description),
    ] {
        let text = told(answer).await;
        assert!(text.contains("\"aisp pisp\""), "{text}");
        assert!(!text.contains("client id"), "{text}");
    }
    let words = r#"{"error":"E401","error_description":"The credentials passed are incorrect."}"#;
    for answer in [
        Answer::Error(400, "incorrect_client_credentials"),
        raw(400, &[], words),
    ] {
        let text = told(answer).await;
        assert!(
            text.contains("look it up there; check the client id"),
            "{text}"
        );
    }
    let location = "https://user:canary@login.example/sign-in?next=canary";
    let text = told(raw(302, &[("location", location)], "")).await;
    assert!(text.contains("https://login.example/sign-in"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    let text = told(raw(307, &[("location", "/v2/token?x=canary")], "")).await;
    assert!(text.contains("redirect to /v2/token,"), "{text}");
}

// FA24
#[tokio::test(start_paused = true)]
async fn a_rejection_by_a_page_says_that_something_in_front_rejected_it() {
    for (status, body) in [
        (403, "<html><h1>Forbidden</h1></html>"),
        (403, "Request blocked"),
        (418, "<html>"),
    ] {
        let text = told(raw(status, &[("content-type", "text/html")], body)).await;
        assert!(
            text.contains("something in front of the token endpoint"),
            "{text}"
        );
        assert!(text.contains("user_agent()"), "{text}");
    }
}

const TOKEN_ENDPOINT: &str = "https://gw.example:8443/oauth2/v1/token";

/// What comes after what happened.
fn advice(text: &str) -> &str {
    text.split_once("; ").map_or("", |(_, advice)| advice)
}

// FA11
#[tokio::test(start_paused = true)]
async fn only_a_code_of_no_specification_is_called_the_servers_own() {
    for (code, wanted) in [
        ("invalid_grant", "use the client-credentials grant"),
        ("use_dpop_nonce", "DPoP"),
        ("invalid_dpop_proof", "DPoP"),
        ("insufficient_scope", "check the path of the token URL"),
        ("insufficient_user_authentication", "check the path"),
        ("invalid_token", "check the path of the token URL"),
        ("authorization_pending", "check the path of the token URL"),
        ("login_required", "check the path of the token URL"),
        ("unsupported_token_type", "check the path of the token URL"),
        ("invalid_redirect_uri", "check the path of the token URL"),
        ("invalid_authorization_details", "the authorization_details"),
        ("access_denied", "what this client may have"),
    ] {
        let text = told(Answer::Error(400, code)).await;
        assert!(!text.contains("own code"), "{text}");
        assert!(advice(&text).contains(wanted), "{text}");
    }
    let text = told(Answer::Error(400, "of_its_own")).await;
    assert!(
        text.contains("of_its_own is the server's own code"),
        "{text}"
    );
}

// FA9
#[tokio::test(start_paused = true)]
async fn a_rejection_that_does_not_name_the_client_names_the_token_url_too() {
    let challenge = |value| raw(401, &[("www-authenticate", value)], "");
    for answer in [
        raw(401, &[], ""),
        raw(400, &[], ""),
        raw(403, &[], ""),
        raw(400, &[], r#"{"message":"no"}"#),
        raw(403, &[], r#"{"message":"no"}"#),
        challenge("Bearer realm=\"api\""),
        Answer::Error(400, "invalid_request"),
        Answer::Error(400, "of_its_own"),
        Answer::Error(401, "of_its_own"),
    ] {
        let text = told(answer).await;
        assert!(text.contains(TOKEN_ENDPOINT), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
    let words = r#"{"message":"The credentials are wrong"}"#;
    for status in [400, 401, 403] {
        let text = told(raw(status, &[], words)).await;
        assert!(advice(&text).starts_with("check the client id"), "{text}");
        assert!(!text.contains("the token URL"), "{text}");
    }
    let of_an_api = challenge("Bearer error=\"invalid_token\"");
    let text = told(of_an_api).await;
    let (path, client) = (text.find("(/oauth2/v1/token)"), text.find("the client id"));
    assert!(path.is_some() && path < client, "{text}");
    assert!(text.contains("gw.example:8443"), "{text}");
    let text = told(Answer::Error(403, "insufficient_scope")).await;
    let (path, scope) = (text.find("(/oauth2/v1/token)"), text.find("aisp pisp"));
    assert!(path.is_some() && path < scope, "{text}");
    let revocation =
        r#"{"error":"invalid_request","error_description":"Missing token parameter."}"#;
    let text = told(raw(400, &[], revocation)).await;
    assert!(text.contains("check the path of the token URL"), "{text}");
    let query =
        r#"{"error":"invalid_request","error_description":"URL query parameters are not allowed"}"#;
    let text = told(raw(400, &[], query)).await;
    assert!(text.contains("leave the query out"), "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn a_bare_403_speaks_of_the_scope_too() {
    let text = told(raw(403, &[], "")).await;
    assert!(
        advice(&text).starts_with("check the scope (\"aisp pisp\")"),
        "{text}"
    );
    assert!(text.contains("user_agent()"), "{text}");
    let layer = OAuthLayer::client_credentials(HTTPS_URL, "id", "secret")
        .token_client(Endpoint::new().always(raw(403, &[], "")))
        .build()
        .unwrap();
    let text = layer.token_cache().token().await.unwrap_err().to_string();
    assert!(text.contains("set it with scope()"), "{text}");
    assert!(text.contains("user_agent()"), "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn an_unauthorized_client_is_sent_to_the_grant_first_and_to_its_credentials_last() {
    let text = told(Answer::Error(400, "unauthorized_client")).await;
    let grant = text.find("lets this client use the client-credentials grant");
    let client = text.find("check the client id");
    assert!(grant.is_some() && grant < client, "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn a_status_that_says_what_is_wrong_is_not_laid_to_the_scope() {
    for (status, wanted) in [
        (413, "too large"),
        (415, "check the path of the token URL"),
        (421, "gw.example:8443"),
        (426, "another protocol"),
        (431, "headers too large"),
        (451, "legal reasons"),
    ] {
        for body in ["", "<html>no</html>"] {
            let text = told(raw(status, &[], body)).await;
            assert!(advice(&text).contains(wanted), "{text}");
            assert!(!text.contains("the audience"), "{text}");
            assert!(!text.contains("check the client id"), "{text}");
        }
    }
    let text = told_at(TOKEN_URL, raw(426, &[], "")).await;
    assert!(text.contains("write https://"), "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn a_code_under_a_status_that_says_something_else_is_told_with_it() {
    let text = told(Answer::Error(429, "invalid_client")).await;
    assert!(text.contains("check the client id"), "{text}");
    assert!(text.contains("too many token requests"), "{text}");
    assert!(
        text.contains("requests recover on their own once this is fixed"),
        "{text}"
    );
    let text = told(Answer::Error(503, "invalid_target")).await;
    assert!(text.contains("the audience and the resource"), "{text}");
    assert!(
        text.contains("requests recover on their own once this is fixed"),
        "{text}"
    );
    let text = told(raw(429, &[], "")).await;
    assert_eq!(text.matches("recover on their own").count(), 1, "{text}");
}

// FA11
#[tokio::test(start_paused = true)]
async fn an_answer_of_the_token_endpoint_that_is_no_token_is_its_operators_to_mend() {
    for (body, wanted) in [
        (r#"{"access_token":123}"#, "the access_token is a number"),
        (r#"{"access_token":null}"#, "the access_token is null"),
        (r#"{"access_token":""}"#, "the access_token is empty"),
        (r#"{"access_token":["t"]}"#, "the access_token is a list"),
        (
            r#"{"access_token":{"t":1}}"#,
            "the access_token is an object",
        ),
        (
            r#"{"access_token":true}"#,
            "the access_token is true or false",
        ),
        (
            "access_token=&token_type=Bearer",
            "the access_token is empty",
        ),
        (r#"{"access_token":"a\u0001"}"#, "characters that a header"),
        (
            r#"{"access_token":"a","access_token":"b"}"#,
            "two different values",
        ),
        (r#"{"access_token":"a","token_type":1}"#, "not a string"),
    ] {
        let text = told(raw(200, &[("content-type", "application/json")], body)).await;
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains("to fix its response"), "{text}");
        assert!(!text.contains("has no access_token"), "{text}");
        assert!(
            !text.contains("login page") && !text.contains("proxy"),
            "{text}"
        );
    }
    let text = told(raw(200, &[], r#"{"ok":true}"#)).await;
    assert!(text.contains("has no access_token"), "{text}");
    assert!(text.contains("login page"), "{text}");
    let zipped = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let text = told(raw(200, &zipped, "\u{1f}\u{8b}\u{8}")).await;
    assert!(
        text.contains("(application/json) is encoded as gzip"),
        "{text}"
    );
}
