//! Bad days, played against real sockets: what the caller is told, and what the log says.
//!
//! `src/docs/failure.md` has what is seen here, word for word. This test checks that it still has,
//! or writes it:
//!
//! ```sh
//! TOWER_OAUTH_WRITE_FAILURE=1 cargo test -p tower-oauth-stacks --test bad_days
//! ```
//!
//! The words of the operating system are in some of the texts, so it runs on Linux only.
#![cfg(target_os = "linux")]

#[path = "bad_days/page.rs"]
mod page;
#[path = "bad_days/server.rs"]
mod server;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::{Response, StatusCode};
use server::{Act, Server, Tls, answer, closed_port, html, json, nameless_client, token};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt};
use tower_oauth::{
    BoxError, BuildError, CachePolicy, ClientAuth, ClientCredentials, Error, ManualClock,
    OAuthLayer, OAuthLayerBuilder, Secret, TokenFuture, TokenRequest, TokenSource,
};
use tower_oauth_stacks::{client, get};
use tracing::{Level, subscriber::set_default};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::{Layer as _, layer::SubscriberExt, registry};

#[test]
fn the_page_of_failures_has_what_is_said_on_bad_days() {
    let started = Instant::now();
    let servers = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut days = Vec::new();
    days.extend(reaching_it(&servers));
    days.extend(tls(&servers));
    days.extend(credentials(&servers));
    days.extend(something_else_answers(&servers));
    days.extend(the_provider(&servers));
    days.extend(what_is_asked_for(&servers));
    days.extend(this_program(&servers));
    days.extend(the_api(&servers));
    assert!(days.len() >= 25, "{}", days.len());
    assert!(started.elapsed() < Duration::from_secs(60));
    for day in &days {
        let Seen { text, log, .. } = &day.seen;
        for secret in [SECRET, "token-00"] {
            assert!(!text.contains(secret), "{}: {text}", day.name);
            assert!(!log.contains(secret), "{}: {log}", day.name);
        }
    }
    for day in days.iter().filter(|day| day.group == NO_FAILURE) {
        assert_eq!(day.class(), "none", "{}", day.name);
    }
    page::settle(&days);
    servers.shutdown_background();
}

/// What went wrong, and what was seen of it.
pub(crate) struct Day {
    name: &'static str,
    /// The heading it stands under.
    group: &'static str,
    what: &'static str,
    /// What to do, where the text does not say it already.
    act: Option<&'static str>,
    seen: Seen,
}

impl Day {
    fn new(name: &'static str, what: &'static str, seen: Seen) -> Self {
        Self {
            name,
            group: "",
            what,
            act: None,
            seen,
        }
    }

    fn act(mut self, act: &'static str) -> Self {
        self.act = Some(act);
        self
    }

    pub(crate) fn class(&self) -> &'static str {
        self.seen.class
    }
}

const NO_FAILURE: &str = "no failure of a token request";

fn of_group<const N: usize>(group: &'static str, days: [Day; N]) -> [Day; N] {
    days.map(|day| Day { group, ..day })
}

fn reaching_it(servers: &Runtime) -> [Day; 8] {
    let closed = closed_port();
    let hang = Server::plain(servers, Act::Hang);
    let hang_up = Server::plain(servers, Act::Close);
    let short = answer("200 OK", &[("content-length", "300")], r#"{"access_to"#);
    let short = Server::plain(servers, short);
    let plain = Server::plain(servers, html("400 Bad Request"));
    let tls = Server::start(servers, Tls::For("127.0.0.1"), vec![token(1799)]);
    let quick = CachePolicy::new()
        .attempts(2)
        .attempt_timeout(Duration::from_millis(200));
    let named = "https://login.bank.exmaple/oauth2/v1/token";
    of_group(
        "the network",
        [
            Day::new(
                "A name that does not resolve",
                "The token URL has a slip in its host, or DNS is down.",
                ask(login(named).token_client(nameless_client()), &[]),
            ),
            Day::new(
                "Nobody listens",
                "The host is up, and nothing listens on the port: a wrong port, a server that is \
                 down, a firewall that rejects.",
                ask(
                    login(format!("http://127.0.0.1:{closed}/oauth2/v1/token")),
                    &[closed],
                ),
            ),
            Day::new(
                "No answer in time",
                "The connection stands and nothing comes back. (The limits were shortened here; \
                 the default is 10 s for an attempt.)",
                ask(
                    login(hang.url("http")).cache_policy(quick),
                    &[hang.address.port()],
                ),
            ),
            Day::new(
                "The connection is closed without an answer",
                "A load balancer without a healthy server behind it often does this.",
                ask(login(hang_up.url("http")), &[hang_up.address.port()]),
            ),
            Day::new(
                "The answer breaks off",
                "The connection ends before the body does.",
                ask(login(short.url("http")), &[short.address.port()]),
            ),
            Day::new(
                "https to an http port",
                "The port speaks plain HTTP, as one behind a proxy that ends TLS does.",
                ask(login(plain.url("https")), &[plain.address.port()]),
            ),
            Day::new(
                "http to an https port",
                "The port speaks TLS. Some servers answer with a page instead, see the next group.",
                ask(login(tls.url("http")), &[tls.address.port()]),
            ),
            Day::new(
                "http to a host that is not this machine",
                "The token URL is `http`, and would carry the client secret through the network \
                 in the clear.",
                ask(login("http://login.bank.example/oauth2/v1/token"), &[]),
            ),
        ],
    )
}

fn tls(servers: &Runtime) -> [Day; 4] {
    let start = |tls| Server::start(servers, tls, vec![token(1799)]);
    let unknown = start(Tls::For("127.0.0.1"));
    let other = start(Tls::For("other.example"));
    let expired = start(Tls::Expired("login.bank.example"));
    let mutual = start(Tls::Mutual("login.bank.example"));
    let trusting = |server: &Server| {
        let url = server.named("login.bank.example");
        let layer = login(url).token_client(server.client());
        ask(layer, &[server.address.port()])
    };
    of_group(
        "certificates",
        [
            Day::new(
                "An unknown CA",
                "The certificate is by a CA that this machine does not trust: a company's own, \
                 or a proxy that reads along.",
                ask(login(unknown.url("https")), &[unknown.address.port()]),
            )
            .act(
                "The default client reads the platform's certificates, and the file that \
                 `SSL_CERT_FILE` names in their place.",
            ),
            Day::new(
                "A certificate for another name",
                "The token URL names the server by a name that its certificate does not have: an \
                 address, an alias, another environment.",
                trusting(&other),
            ),
            Day::new(
                "An expired certificate",
                "The server's certificate ran out, or this machine's clock is wrong.",
                trusting(&expired),
            ),
            Day::new(
                "A client certificate is wanted",
                "The server asks for a certificate of the client (mTLS) and ends the connection \
                 without one.",
                trusting(&mutual),
            ),
        ],
    )
}

fn credentials(servers: &Runtime) -> [Day; 10] {
    let serve = |act| Server::plain(servers, act);
    let rfc = serve(json(
        "401 Unauthorized",
        r#"{"error":"invalid_client","error_description":"Invalid client or Invalid client credentials"}"#,
    ));
    let gateway = serve(json(
        "401 Unauthorized",
        r#"{"ErrorCode":"invalid_client","Error":"Client credentials are invalid"}"#,
    ));
    let silent = serve(answer("401 Unauthorized", &[], ""));
    let grant = serve(json(
        "400 Bad Request",
        r#"{"error":"unauthorized_client","error_description":"AADSTS700016: the application was not found in the directory"}"#,
    ));
    let address = serve(json(
        "403 Forbidden",
        r#"{"message":"Source address 203.0.113.9 is not on the list of this client"}"#,
    ));
    let good = serve(token(1799));
    let with = |server: &Server, secret: Secret| {
        let layer = OAuthLayer::client_credentials(server.url("http"), ID, secret);
        ask(layer.scope("aisp"), &[server.address.port()])
    };
    let directory = Scratch::new();
    let empty = directory.path("empty");
    std::fs::write(&empty, "\n").unwrap();
    let missing = directory.path("client_secret");
    let at = |seen: Seen| seen.replace(&directory.path(""), "/run/secrets/");
    let vault =
        Secret::provider(|| async { Err::<String, _>(io::Error::other("vault is sealed")) });
    let odd = |auth| {
        let layer = OAuthLayer::client_credentials_with(rfc.url("http"), auth);
        ask(layer, &[rfc.address.port()])
    };
    of_group(
        "credentials",
        [
            Day::new(
                "A wrong secret",
                "The server does not know this pair of client id and secret, and says so as RFC \
                 6749 has it.",
                with(&rfc, SECRET.into()),
            ),
            Day::new(
                "A wrong secret, at a gateway with errors of its own",
                "As before, in the shape of an Apigee-style gateway.",
                with(&gateway, SECRET.into()),
            ),
            Day::new(
                "A wrong secret, and the server says nothing",
                "A 401 with an empty body.",
                with(&silent, SECRET.into()),
            ),
            Day::new(
                "A secret with characters that are sent in two ways",
                "The secret has a `+` and a `/`, and the server reads Basic in the other of its \
                 two forms.",
                odd(ClientAuth::basic(ID, "a+b/0123456789")),
            ),
            Day::new(
                "The client may not do this",
                "The credentials are right, but this client is not registered for the grant, or \
                 in another tenant.",
                with(&grant, SECRET.into()),
            ),
            Day::new(
                "Refused by address",
                "The server takes this client from known addresses only, and this machine has \
                 another.",
                with(&address, SECRET.into()),
            ),
            Day::new(
                "An empty secret",
                "The variable or setting is there and has nothing in it.",
                with(&good, "".into()),
            ),
            Day::new(
                "An empty secret file",
                "The file was read between being truncated and being written, or its volume is \
                 empty.",
                at(with(&good, Secret::file(&empty))),
            ),
            Day::new(
                "The secret file is gone",
                "The mount is missing, or the path is wrong.",
                at(with(&good, Secret::file(&missing))),
            ),
            Day::new(
                "The secret provider is down",
                "The function given to `Secret::provider` fails.",
                with(&good, vault),
            ),
        ],
    )
}

fn something_else_answers(servers: &Runtime) -> [Day; 8] {
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

fn the_provider(servers: &Runtime) -> [Day; 8] {
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
                    r#"{"error":"incorrect_client_credentials","error_description":"The client_id and/or client_secret passed are incorrect."}"#,
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

fn what_is_asked_for(servers: &Runtime) -> [Day; 4] {
    let serve = |status, body| Server::plain(servers, json(status, body));
    let scope = serve(
        "400 Bad Request",
        r#"{"error":"invalid_scope","error_description":"The requested scope is invalid"}"#,
    );
    let silent = serve("400 Bad Request", r#"{"error":"invalid_scope"}"#);
    let audience = serve(
        "403 Forbidden",
        r#"{"error":"access_denied","error_description":"Client is not authorized to access \"https://api.bank.example\""}"#,
    );
    let narrow = serve(
        "200 OK",
        r#"{"access_token":"token-000","token_type":"Bearer","expires_in":1799,"scope":"aisp"}"#,
    );
    let with = |server: &Server| login(server.url("http"));
    let port = |server: &Server| [server.address.port()];
    of_group(
        "what is asked for",
        [
            Day::new(
                "A scope that is not given",
                "The server does not know the scope, or does not give it to this client.",
                ask(with(&scope).scope("payments"), &port(&scope)),
            ),
            Day::new(
                "A scope that is not given, without a word",
                "The same, and the server says no more than the code.",
                ask(with(&silent).scope("payments"), &port(&silent)),
            ),
            Day::new(
                "An audience that is not given",
                "The client has no grant for this API.",
                ask(
                    with(&audience).audience("https://api.bank.example"),
                    &port(&audience),
                ),
            ),
            Day::new(
                "Less than was asked for",
                "The server gives a token for a part of the scopes. Calls go out with it, and an \
                 API may answer 403.",
                ask(with(&narrow).scope("payments"), &port(&narrow)),
            ),
        ],
    )
}

fn this_program(servers: &Runtime) -> [Day; 8] {
    let good = Server::plain(servers, token(1799));
    let port = [good.address.port()];
    let api = |uri: &'static str, named: bool| {
        play(&port, |runtime| {
            let mut layer = login(good.url("http"));
            if named {
                layer = layer.allow_origin("https://api.bank.example");
            }
            let service = layer.build().unwrap().layer(tower::service_fn(|_| async {
                Ok::<_, BoxError>(Response::new(()))
            }));
            runtime.block_on(async { Outcome::of_call(service.oneshot(get(uri)).await) })
        })
    };
    let builder = |layer| ask(layer, &port);
    let no_runtime = play(&port, |_| {
        let layer = login(good.url("http")).build().unwrap();
        match layer.token_cache().token().now_or_never() {
            Some(end) => Outcome::of(end),
            None => panic!("waits for a runtime that is not there"),
        }
    });
    let own = |error: fn() -> Error| {
        play(&[], move |runtime| {
            let layer = OAuthLayer::new(Own(error));
            runtime.block_on(async { Outcome::of(layer.token_cache().token().await) })
        })
    };
    of_group(
        "this program",
        [
            Day::new(
                "An origin that is not on the list",
                "A request goes to an origin that `allow_origin` does not name, such as where a \
                 redirect points.",
                api("https://files.bank.example/statement", true),
            ),
            Day::new(
                "An API in the clear",
                "A request goes by `http` to a host that is not this machine.",
                api("http://api.bank.example/accounts", false),
            ),
            Day::new(
                "A request that is only a path",
                "The request's URI is `/accounts`, and the client underneath knows the rest, as \
                 tonic's channel does.",
                api("/accounts", true),
            ),
            Day::new(
                "No runtime",
                "A token is needed on a thread that is in no tokio runtime: one of a thread \
                 pool, or of another runtime.",
                no_runtime,
            )
            .act("Call it inside `Handle::enter` or from a task of the runtime."),
            Day::new(
                "A token source of one's own fails",
                "The program has a `TokenSource` of its own, and that fails.",
                own(|| Error::transient("the login plugin ended with status 1")),
            ),
            Day::new(
                "A token source of one's own panics",
                "A panic in there is a failure like any other.",
                own(|| std::panic::panic_any("a bug")),
            )
            .act(
                "The panic itself is in the program's standard error; its words are not \
             repeated.",
            ),
            Day::new(
                "A token URL that is none",
                "The scheme was left out.",
                builder(login("login.bank.example/oauth2/v1/token")),
            ),
            Day::new(
                "A secret with a line break",
                "The variable was filled from a file, line break and all.",
                builder(OAuthLayer::client_credentials(
                    good.url("http"),
                    ID,
                    format!("{SECRET}\n"),
                )),
            ),
        ],
    )
}

fn the_api(servers: &Runtime) -> [Day; 3] {
    let tokens = Server::plain(servers, token(1799));
    let no = answer(
        "401 Unauthorized",
        &[("www-authenticate", "Bearer error=\"invalid_token\"")],
        "",
    );
    let api = Server::plain(servers, no);
    let ports = [tokens.address.port(), api.address.port()];
    let for_ever = play(&ports, |runtime| {
        let service = login(tokens.url("http")).build().unwrap().layer(client());
        runtime.block_on(async {
            let mut last = None;
            for _ in 0..6 {
                let call = service
                    .clone()
                    .oneshot(get(format!("http://{}/accounts", api.address)));
                last = Some(Outcome::of_call(call.await));
            }
            last.unwrap()
        })
    });

    let acts = vec![token(1799), answer("503 Service Unavailable", &[], "")];
    let failing = Server::start(servers, Tls::None, acts);
    let renewal = play(&[failing.address.port()], |runtime| {
        let clock = ManualClock::new();
        let layer = login(failing.url("http")).clock(clock.clone());
        let layer = layer.cache_policy(CachePolicy::new().attempts(1));
        let tokens = layer.build().unwrap().token_cache();
        runtime.block_on(async {
            tokens.token().await.unwrap();
            clock.advance(Duration::from_secs(1600));
            let served = tokens.token().await;
            while tokens.status().last_error.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Outcome::of(served)
        })
    });

    // FC1
    let acts = vec![token(10), Act::Hang, token(1799)];
    let frozen = Server::start(servers, Tls::None, acts);
    let frozen = play(&[frozen.address.port()], |runtime| {
        let clock = ManualClock::new();
        let limit = Duration::from_millis(300);
        let policy = CachePolicy::new().attempts(1).attempt_timeout(limit);
        let layer = login(frozen.url("http")).clock(clock.clone());
        let tokens = layer.cache_policy(policy).build().unwrap().token_cache();
        runtime.block_on(tokens.token()).unwrap();
        clock.advance(Duration::from_millis(8500));
        // Served, and it leaves a renewal behind, whose request is sent and which nobody drives
        // while the process stands still.
        runtime.block_on(async {
            tokens.token().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
        std::thread::sleep(limit + Duration::from_millis(1500));
        clock.advance(Duration::from_secs(33));
        Outcome::of(runtime.block_on(tokens.token()))
    });
    of_group(
        NO_FAILURE,
        [
            Day::new(
                "401 for ever",
                "The API refuses every token, however new. Its answer comes back as it is; \
                 renewing stops until the budget is back.",
                for_ever,
            ),
            Day::new(
                "A renewal that fails",
                "The provider is down when a renewal is due, and the token has some minutes left.",
                renewal,
            ),
            Day::new(
                "A process that was frozen",
                "A container is paused, or a Lambda sleeps between two calls, in the middle of a \
                 renewal. Nothing is wrong with the provider.",
                frozen,
            ),
        ],
    )
}

type Login = OAuthLayerBuilder<ClientCredentials>;

fn login(url: impl Into<String>) -> Login {
    OAuthLayer::client_credentials(url, ID, SECRET)
}

/// Plays a day on which a token is asked for.
fn ask(layer: Login, ports: &[u16]) -> Seen {
    play(ports, |runtime| match layer.build() {
        Err(error) => Outcome::not_built(&error),
        Ok(layer) => runtime.block_on(async { Outcome::of(layer.token_cache().token().await) }),
    })
}

/// How a day ended for the caller.
struct Outcome {
    class: &'static str,
    text: String,
}

impl Outcome {
    fn of<T>(end: Result<T, Error>) -> Self {
        match end {
            Ok(_) => Self {
                class: "none",
                text: "(no error: the caller gets a token)".to_owned(),
            },
            Err(error) => Self::failed(&error),
        }
    }

    fn of_call<B>(end: Result<Response<B>, BoxError>) -> Self {
        match end {
            Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => Self {
                class: "none",
                text: "(no error: the caller gets the API's 401)".to_owned(),
            },
            Ok(answer) => panic!("{}", answer.status()),
            Err(error) => Self::failed(error.downcast_ref::<Error>().expect("an error of ours")),
        }
    }

    fn failed(error: &Error) -> Self {
        let classes = [
            (error.is_transient(), "transient"),
            (error.is_rejected(), "rejected"),
            (error.is_invalid_response(), "invalid response"),
            (error.is_destination(), "destination"),
        ];
        let mut classes = classes.iter().filter(|(is, _)| *is);
        let (Some((_, class)), None) = (classes.next(), classes.next()) else {
            panic!("not of one class: {error}");
        };
        Self {
            class,
            text: error.to_string(),
        }
    }

    fn not_built(error: &BuildError) -> Self {
        Self {
            class: "`BuildError`",
            text: error.to_string(),
        }
    }
}

/// What was seen of a day, without what differs from run to run.
pub(crate) struct Seen {
    class: &'static str,
    text: String,
    log: String,
}

impl Seen {
    fn replace(self, from: &str, to: &str) -> Self {
        Self {
            text: self.text.replace(from, to),
            log: self.log.replace(from, to),
            ..self
        }
    }
}

/// On a runtime of its own, with a log of its own: what `tracing_subscriber::fmt` writes from INFO
/// on.
fn play(ports: &[u16], day: impl FnOnce(&Runtime) -> Outcome) -> Seen {
    let log = Log::default();
    let lines = fmt::layer()
        .with_writer(log.clone())
        .with_ansi(false)
        .without_time()
        .with_filter(Targets::new().with_target("tower_oauth", Level::INFO));
    let _logging = set_default(registry().with(lines));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let Outcome { class, text } = day(&runtime);
    let log = log.0.lock().unwrap();
    let log = String::from_utf8_lossy(&log);
    Seen {
        class,
        text: page::normalise(&text, ports),
        log: page::normalise(&log, ports),
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A source that fails as it is told.
struct Own(fn() -> Error);

impl TokenSource for Own {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(async { Err((self.0)()) })
    }
}

/// A directory that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("bad-days-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.0.display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

const ID: &str = "consumer-key";
const SECRET: &str = "consumer-secret-0123456789";
