//! The answer to a token request, as any server may send it.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, mpsc};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use tower::service_fn;
use tower_oauth::{
    ClientCredentials, Error, OAuthLayer, TokenParams, TokenRequest, TokenResponse, TokenSource,
};
use tower_oauth_fuzz::text;

const FRAGMENTS: [&str; 128] = {
    let mut fragments = [""; 128];
    let known = [
        "{",
        "}",
        "\"",
        "\":\"",
        "\",\"",
        "\":",
        ",\"",
        "access_token",
        "expires_in",
        "token_type",
        "Bearer",
        "BearerToken",
        "refresh_in",
        "scope",
        "error",
        "error_description",
        "ErrorCode",
        "Error",
        "invalid_client",
        "server_error",
        "null",
        "true",
        "1799",
        "-1",
        "1e999",
        "0.5",
        "[",
        "]",
        "=",
        "&",
        "+",
        "%20",
        "%",
        "\\u0000",
        "\\",
        "\u{feff}",
        SECRET,
        TOKEN,
        "<html>",
        " ",
        "\n",
        "\"access_token\":\"",
        "{\"error\":\"",
        "\"error_description\":\"",
        "\"expires_in\":",
        "99999999999999999999",
        "{\"a\":",
        "é",
        "message",
        "errors",
        "\"error_uri\":\"",
        "\\ud800",
        "\"access_token\":[[",
    ];
    let mut place = 0;
    // The rest of the places are used again, so that most bytes mean something.
    while place < fragments.len() {
        fragments[place] = known[place % known.len()];
        place += 1;
    }
    fragments
};

#[test]
fn no_answer_panics_or_gets_a_secret_into_an_error() {
    let (tokens, refusals) = (AtomicU64::new(0), AtomicU64::new(0));
    bolero::check!()
        .with_iterations(20_000)
        .with_max_len(256)
        .for_each(|input: &[u8]| {
            let [status, header, body @ ..] = input else {
                return;
            };
            for body in [body.to_vec(), text(body, &FRAGMENTS), object(body)] {
                // What a server gives as its error code or in words is shown as such, be it a
                // token.
                let said = String::from_utf8_lossy(&body);
                let has_code = said.contains("rror") || said.contains("message");
                let hidden = if has_code {
                    &[SECRET][..]
                } else {
                    &[SECRET, TOKEN]
                };
                let read = ask(answer(*status, *header, body));
                check(&read, hidden);
                let count = if read.is_ok() { &tokens } else { &refusals };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    let counts = [tokens, refusals].map(AtomicU64::into_inner);
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

/// A JSON object of members that servers send, in any order, repeated or not, and of any type.
fn object(input: &[u8]) -> Vec<u8> {
    let names = [
        "access_token",
        "expires_in",
        "token_type",
        "refresh_in",
        "scope",
        "error",
        "error_description",
        "ErrorCode",
        "Error",
        "error_uri",
        "message",
        "errors",
        "x",
    ];
    let values = [
        "null",
        "true",
        "1799",
        "-1",
        "1e999",
        "[]",
        "{}",
        "\"1799\"",
        "\"\"",
        "\"Bearer\"",
        "\"mac\"",
        "\"invalid_client\"",
        "\"slow_down\"",
        "\"a\\u0007\\u00e9\"",
        "\"\\ud800\"",
        "1e400",
        "[[[[{}]]]]",
        "{\"message\":\"m\",\"code\":1}",
    ];
    // A member that is repeated with another value is an error, so half of the objects have each
    // once.
    let once = input.len().is_multiple_of(2);
    let mut used = Vec::new();
    let members: Vec<_> = input
        .chunks_exact(2)
        .filter(|pair| {
            let name = usize::from(pair[0]) % names.len();
            let repeated = used.contains(&name);
            used.push(name);
            !(once && repeated)
        })
        .map(|pair| {
            let name = names[usize::from(pair[0]) % names.len()];
            let value = values.get(usize::from(pair[1]) % (values.len() + 2));
            match (name, value) {
                ("access_token", _) if pair[1] % 2 == 0 => format!("\"{name}\":\"{TOKEN}\""),
                (_, None) => format!("\"{name}\":\"the secret is {SECRET}\""),
                (_, Some(value)) => format!("\"{name}\":{value}"),
            }
        })
        .collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

fn answer(status: u8, header: u8, body: Vec<u8>) -> Response<Full<Bytes>> {
    // Mostly those that are read.
    let statuses = [
        200, 201, 204, 301, 400, 401, 403, 404, 408, 425, 429, 500, 503, 599,
    ];
    let status = statuses[usize::from(status) % statuses.len()];
    let headers: [&[(HeaderName, &str)]; 8] = [
        &[(CONTENT_TYPE, "application/json")],
        &[(CONTENT_TYPE, "application/x-www-form-urlencoded")],
        &[],
        &[(RETRY_AFTER, "7")],
        &[(RETRY_AFTER, "99999999999999999999999")],
        &[
            (RETRY_AFTER, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (CONTENT_TYPE, "\u{e9}"),
        ],
        &[(LOCATION, "https://elsewhere.example/")],
        &[(HeaderName::from_static("x-request-id"), SECRET)],
    ];
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status.try_into().expect("a status");
    for (name, value) in headers[usize::from(header) % headers.len()] {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        response.headers_mut().insert(name, value);
    }
    response
}

fn ask(answer: Response<Full<Bytes>>) -> Result<TokenResponse, Error> {
    static ANSWER: Mutex<Option<Response<Full<Bytes>>>> = Mutex::new(None);
    static SOURCE: LazyLock<Arc<ClientCredentials>> = LazyLock::new(|| {
        let client = service_fn(|_: Request<Full<Bytes>>| {
            let answer = ANSWER.lock().expect("no panic").take();
            ready(Ok::<_, Infallible>(answer.expect("an answer")))
        });
        let (tell, told) = mpsc::channel();
        let builder = OAuthLayer::client_credentials("https://gw.example/token", "key", SECRET);
        let builder = builder.token_client(client).wrap_source(move |source| {
            let source = Arc::new(source);
            tell.send(Arc::clone(&source)).expect("a listener");
            source
        });
        drop(builder.build().expect("a layer"));
        told.recv().expect("a source")
    });

    *ANSWER.lock().expect("no panic") = Some(answer);
    let params = TokenParams::new();
    let answer = SOURCE.token(TokenRequest::new(&params)).now_or_never();
    answer.expect("the client answers at once")
}

fn check(read: &Result<TokenResponse, Error>, hidden: &[&str]) {
    let shows = |text: &str| hidden.iter().any(|hidden| text.contains(hidden));
    let debug = format!("{read:?} {read:#?}");
    assert!(!shows(&debug), "{debug}");
    let Err(error) = read else { return };
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    for text in texts {
        assert!(!shows(&text), "{text}");
        assert!(
            text.chars().all(|character| !character.is_control()),
            "{text:?}"
        );
        assert!(text.len() < 2048, "{text}");
    }
    let classes = [
        error.is_transient(),
        error.is_rejected(),
        error.is_invalid_response(),
    ];
    assert_eq!(classes.into_iter().filter(|is| *is).count(), 1);
}

const SECRET: &str = "hunter2-secret";
const TOKEN: &str = "canary-token";
