//! Days on which the token endpoint cannot be reached.

use std::time::Duration;

use tokio::runtime::Runtime;
use tower_oauth::CachePolicy;

use crate::play::{ask, login};
use crate::server::{Act, Server, Tls, answer, closed_port, html, nameless_client, token};
use crate::{Day, of_group};

pub(crate) fn reaching_it(servers: &Runtime) -> [Day; 8] {
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

pub(crate) fn tls(servers: &Runtime) -> [Day; 4] {
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
