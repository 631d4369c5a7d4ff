//! A gRPC client whose calls carry the token: `cargo run -p tower-oauth-examples --bin tonic`.
//!
//! The client is what tonic-build wrote (`src/accounts/generated.rs`), over `OAuth<Channel>`:
//! nothing is boxed and there is no interceptor, which could not wait for a token. The service asks
//! an emulated gateway about the token of each call.
//!
//! It ends with an error when something is not as it says.

#[path = "../accounts/mod.rs"]
mod accounts;
#[path = "../../../gateway/mod.rs"]
mod gateway;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::header::{AUTHORIZATION, HeaderValue};
use http_body_util::Empty;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};
use tower::ServiceBuilder;
use tower_oauth::{BoxError, OAuthLayer, grpc_status};

use crate::accounts::accounts_client::AccountsClient;
use crate::accounts::accounts_server::{Accounts, AccountsServer};
use crate::accounts::{Account, Amount};
use crate::gateway::{Config, Gateway};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let gateway = Gateway::start(Config::default()).await?;
    let origin = serve(&gateway).await?;

    let oauth =
        OAuthLayer::client_credentials(gateway.token_url(), "consumer-key", "consumer-secret")
            .scope("aisp")
            .allow_origin(&origin)
            // Here the URI of a request is only a path: the channel adds the origin further in.
            .assume_origin(&origin)
            .build()?;
    let channel = Channel::from_shared(origin)?.connect_lazy();
    let service = ServiceBuilder::new()
        // What keeps a token from us becomes the status that gRPC clients know for it (feature
        // `tonic`).
        .map_err(grpc_status)
        .layer(oauth.clone())
        .service(channel);
    let mut client = AccountsClient::new(service);

    let calls = (0..CALLS).map(|_| {
        let mut client = client.clone();
        async move { client.balance(account()).await }
    });
    let answers = try_join_all(calls).await?.len();
    let requests = gateway.token_requests();
    println!("{CALLS} calls at once: {answers} answers, token requests: {requests}");
    assert_eq!((answers, requests), (CALLS, 1));

    let mut stream = client.watch(account()).await?.into_inner();
    let mut amounts = vec![stream.message().await?];
    gateway.revoke_all();
    while let Some(amount) = stream.message().await? {
        amounts.push(Some(amount));
    }
    let count = amounts.len();
    println!("token revoked in the middle of a stream: {count} messages, to its end");
    assert_eq!(count, MESSAGES);

    let refused = client
        .balance(account())
        .await
        .map_err(|status| status.code());
    let next = client
        .balance(account())
        .await
        .map(|answer| answer.into_inner());
    let requests = gateway.token_requests();
    println!("the next call: {refused:?}, and the one after it: {next:?}");
    println!("token requests: {requests}");
    assert_eq!(refused.err(), Some(Code::Unauthenticated));
    assert_eq!((next?.cents, requests), (1_234, 2));

    gateway.stop().await;
    oauth.token_cache().invalidate();
    let status = client
        .balance(account())
        .await
        .expect_err("no token endpoint");
    println!(
        "token endpoint down: {:?}, {}",
        status.code(),
        status.message()
    );
    assert_eq!(status.code(), Code::Unavailable);
    Ok(())
}

fn account() -> Account {
    Account { id: "42".into() }
}

/// Starts the service on a free port, and says at which origin.
async fn serve(gateway: &Gateway) -> Result<String, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let ledger = Ledger {
        gateway: gateway.api_url("/tokens"),
        client: Client::builder(TokioExecutor::new()).build_http(),
    };
    let server = Server::builder()
        .serve_with_incoming(AccountsServer::new(ledger), TcpIncoming::from(listener));
    tokio::spawn(server);
    Ok(origin)
}

struct Ledger {
    gateway: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Ledger {
    /// The gateway's API answers 200 to a live token and 401 to any other.
    async fn check(&self, request: &Request<Account>) -> Result<(), Status> {
        let token = request.metadata().get("authorization");
        let token = token.ok_or_else(|| Status::unauthenticated("no token"))?;
        let token = HeaderValue::from_bytes(token.as_encoded_bytes()).expect("it was a header");
        let question = http::Request::get(&self.gateway)
            .header(AUTHORIZATION, token)
            .body(Empty::new())
            .expect("the gateway's URL is one");
        match self.client.request(question).await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(_) => Err(Status::unauthenticated("the token is not live")),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

#[tonic::async_trait]
impl Accounts for Ledger {
    async fn balance(&self, request: Request<Account>) -> Result<Response<Amount>, Status> {
        self.check(&request).await?;
        Ok(Response::new(amount(1_234)))
    }

    type WatchStream = BoxStream<'static, Result<Amount, Status>>;

    async fn watch(
        &self,
        request: Request<Account>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.check(&request).await?;
        let amounts = stream::iter(0..MESSAGES).then(|message| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(amount(message as i64))
        });
        Ok(Response::new(amounts.boxed()))
    }
}

fn amount(cents: i64) -> Amount {
    let currency = "EUR".into();
    Amount { currency, cents }
}

const CALLS: usize = 100;
const MESSAGES: usize = 5;
