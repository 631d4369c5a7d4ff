//! Days on which the token endpoint rejects the client.

use std::io;
use std::path::PathBuf;

use tokio::runtime::Runtime;
use tower_oauth::{ClientAuth, OAuthLayer, Secret};

use crate::play::{ID, SECRET, Seen, ask};
use crate::server::{Server, answer, json, token};
use crate::{Day, of_group};

pub(crate) fn credentials(servers: &Runtime) -> [Day; 10] {
    let serve = |act| Server::plain(servers, act);
    let rfc = serve(json(
        "401 Unauthorized",
        concat!(
            r#"{"error":"invalid_client","#,
            r#""error_description":"Invalid client or Invalid client credentials"}"#,
        ),
    ));
    let gateway = serve(json(
        "401 Unauthorized",
        r#"{"ErrorCode":"invalid_client","Error":"Client credentials are invalid"}"#,
    ));
    let silent = serve(answer("401 Unauthorized", &[], ""));
    let grant = serve(json(
        "400 Bad Request",
        concat!(
            r#"{"error":"unauthorized_client","#,
            r#""error_description":"#,
            r#""AADSTS700016: the application was not found in the directory"}"#,
        ),
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
