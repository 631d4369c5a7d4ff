//! Days on which something else answers, or the provider is in trouble.

use tokio::runtime::Runtime;

use crate::play::{Outcome, ask, login, play};
use crate::server::{Server, answer, html, json};
use crate::{Day, of_group};

pub(crate) fn something_else_answers(servers: &Runtime) -> [Day; 8] {
    let seen = |act| {
        let server = Server::plain(servers, act);
        ask(login(server.url("http")), &[server.address.port()])
    };
    let location = "https://login.bank.example/signin?returnTo=%2Foauth2%2Fv1%2Ftoken";
    of_group(
        "something else answers",
        [
            Day::new(
                "A wrong path",
                "The host is right and the path is not: the server's page for what it does not \
                 have.",
                seen(html("404 Not Found")),
            ),
            Day::new(
                "A path that takes no POST",
                "The token URL is that of a page, such as the one for people to sign in.",
                seen(html("405 Method Not Allowed")),
            ),
            Day::new(
                "A wrong host that answers with a page",
                "A portal, a parked name, or a single-page application that answers everything \
                 with 200 and HTML.",
                seen(html("200 OK")),
            ),
            Day::new(
                "A redirect",
                "The server sends the token request elsewhere: to a page for people, or from \
                 http to https.",
                seen(answer("302 Found", &[("location", location)], "")),
            ),
            Day::new(
                "A firewall's 403",
                "A web application firewall stands before the token endpoint and refuses with a \
                 page.",
                seen(html("403 Forbidden")),
            ),
            Day::new(
                "A proxy that wants a login",
                "A proxy in between wants credentials of its own.",
                seen(answer(
                    "407 Proxy Authentication Required",
                    &[
                        ("proxy-authenticate", "Basic realm=\"proxy\""),
                        ("content-type", "text/html"),
                    ],
                    "<html>Proxy Authentication Required</html>",
                )),
            ),
            Day::new(
                "A proxy that does not reach it",
                "A proxy or load balancer in between answers in the provider's place.",
                seen(html("502 Bad Gateway")),
            ),
            Day::new(
                "A server that wants https",
                "The other case of http to an https port: nginx answers it with a page.",
                seen(html("400 The plain HTTP request was sent to HTTPS port")),
            ),
        ],
    )
}

pub(crate) fn the_provider(servers: &Runtime) -> [Day; 8] {
    let seen = |act| {
        let server = Server::plain(servers, act);
        ask(login(server.url("http")), &[server.address.port()])
    };
    let down = Server::plain(servers, answer("503 Service Unavailable", &[], ""));
    let later = play(&[down.address.port()], |runtime| {
        let layer = login(down.url("http")).build().unwrap();
        runtime.block_on(async {
            let tokens = layer.token_cache();
            drop(tokens.token().await);
            Outcome::of(tokens.token().await)
        })
    });
    of_group(
        "the provider",
        [
            Day::new(
                "An outage",
                "The token endpoint answers 503.",
                seen(answer(
                    "503 Service Unavailable",
                    &[("x-request-id", "f3b1c6d2")],
                    "",
                )),
            ),
            Day::new(
                "The calls after that",
                "The same outage, as a call sees it that comes during the backoff. It fails at \
                 once and asks nobody.",
                later,
            )
            .act("The log has one warning for each failed flight, and none for each call."),
            Day::new(
                "An outage with a time",
                "The token endpoint answers 503 and says when to come back.",
                seen(answer(
                    "503 Service Unavailable",
                    &[("retry-after", "120")],
                    "",
                )),
            ),
            Day::new(
                "An error inside the provider",
                "The token endpoint fails and says so in JSON.",
                seen(json(
                    "500 Internal Server Error",
                    r#"{"error":"server_error","error_description":"an internal error occurred"}"#,
                )),
            ),
            Day::new(
                "Too many token requests",
                "The provider counts token requests and this client is over its limit.",
                seen(answer("429 Too Many Requests", &[("retry-after", "7")], "")),
            ),
            Day::new(
                "A 200 without a token",
                "The answer is JSON and has no `access_token`.",
                seen(json("200 OK", r#"{"status":"ok"}"#)),
            ),
            Day::new(
                "A 200 with an error in it",
                "The server refuses under a status of 200.",
                seen(json(
                    "200 OK",
                    concat!(
                        r#"{"error":"incorrect_client_credentials","#,
                        r#""error_description":"#,
                        r#""The client_id and/or client_secret passed are incorrect."}"#,
                    ),
                )),
            ),
            Day::new(
                "A token of another kind",
                "The token is not a Bearer token.",
                seen(json(
                    "200 OK",
                    r#"{"access_token":"token-000","token_type":"mac"}"#,
                )),
            ),
        ],
    )
}
