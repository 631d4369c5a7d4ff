//! Days on which this program is at fault.

use futures_util::FutureExt;
use http::Response;
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt};
use tower_oauth::{BoxError, Error, OAuthLayer, TokenFuture, TokenRequest, TokenSource};
use tower_oauth_stacks::get;

use crate::play::{ID, Outcome, SECRET, ask, login, play};
use crate::server::{Server, json, token};
use crate::{Day, of_group};

pub(crate) fn what_is_asked_for(servers: &Runtime) -> [Day; 4] {
    let serve = |status, body| Server::plain(servers, json(status, body));
    let scope = serve(
        "400 Bad Request",
        r#"{"error":"invalid_scope","error_description":"The requested scope is invalid"}"#,
    );
    let silent = serve("400 Bad Request", r#"{"error":"invalid_scope"}"#);
    let audience = serve(
        "403 Forbidden",
        concat!(
            r#"{"error":"access_denied","#,
            r#""error_description":"#,
            r#""Client is not authorized to access \"https://api.bank.example\""}"#,
        ),
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

pub(crate) fn this_program(servers: &Runtime) -> [Day; 8] {
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

/// A source that fails as it is told.
struct Own(fn() -> Error);

impl TokenSource for Own {
    fn token<'a>(&'a self, _: TokenRequest<'a>) -> TokenFuture<'a> {
        Box::pin(async { Err((self.0)()) })
    }
}
