//! tonic: a generated client on `OAuth<Channel>`.
//!
//! To copy: [`Authorized`] and [`connect`].

#[path = "../../../examples/gateway/mod.rs"]
mod gateway;
#[allow(unreachable_pub, reason = "as tonic-build writes it")]
mod notes;

use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use gateway::{Config, Gateway};
use http::StatusCode;
use http::header::AUTHORIZATION;
use notes::notes_server::{Notes, NotesServer};
use notes::{Note, NotesClient};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{Layer, ServiceBuilder, ServiceExt, util::MapErr};
use tower_oauth::{BoxError, ManualClock, OAuth, OAuthLayer, grpc_status};
use tower_oauth_stacks::{client, client_behind, get};

/// The type that a struct can name: nothing is boxed.
type Authorized = MapErr<OAuth<Channel>, fn(BoxError) -> Status>;

fn connect(channel: Channel, oauth: &OAuthLayer) -> NotesClient<Authorized> {
    // With this line a missing token has a status that says why, such as UNAVAILABLE; without it,
    // UNKNOWN.
    let builder = ServiceBuilder::new().map_err(grpc_status as fn(_) -> _);
    NotesClient::new(builder.layer(oauth.clone()).service(channel))
}

#[tokio::test]
async fn calls_of_every_kind_share_one_token() {
    let stack = Stack::start().await;
    let mut client = stack.client.clone();

    let unary = (0..20).map(|_| {
        let mut client = client.clone();
        async move { client.echo(Note::from("a")).await }
    });
    for answer in try_join_all(unary).await.unwrap() {
        assert_eq!(answer.into_inner().text, "a");
    }

    let words = ["a", "b", "c"];
    let answer = client.gather(stream::iter(words).map(Note::from)).await;
    assert_eq!(answer.unwrap().into_inner().text, "abc");

    let answer = client.repeat(Note::from("a")).await.unwrap();
    let answers: Vec<_> = answer.into_inner().map(text).collect().await;
    assert_eq!(answers, ["a", "a", "a"]);

    let answer = client.chat(stream::iter(words).map(Note::from)).await;
    let answers: Vec<_> = answer.unwrap().into_inner().map(text).collect().await;
    assert_eq!(answers, words);

    assert_eq!(stack.calls(), 23);
    assert_eq!(stack.gateway.token_requests(), 1);
}

#[tokio::test]
async fn a_stream_outlives_its_token_and_the_next_call_has_a_new_one() {
    let stack = Stack::start().await;
    let mut client = stack.client.clone();
    let (say, said) = mpsc::channel(1);
    let answer = client.chat(ReceiverStream::new(said)).await;
    let mut heard = answer.unwrap().into_inner().map(text);
    say.send(Note::from("before")).await.unwrap();
    assert_eq!(heard.next().await.unwrap(), "before");

    // The token runs out here and at the gateway.
    stack.clock.advance(Duration::from_secs(3600));
    stack.gateway.revoke_all();
    say.send(Note::from("after")).await.unwrap();
    assert_eq!(heard.next().await.unwrap(), "after");
    assert_eq!(stack.gateway.token_requests(), 1);

    client.echo(Note::from("next")).await.unwrap();
    assert_eq!(stack.gateway.token_requests(), 2);
    assert_eq!(stack.gateway.distinct_tokens_seen(), 2);
    say.send(Note::from("and on")).await.unwrap();
    assert_eq!(heard.next().await.unwrap(), "and on");
}

// P26
#[tokio::test]
async fn status_16_without_a_message_renews_before_the_next_call() {
    let stack = Stack::start().await;
    let mut client = stack.client.clone();
    client.echo(Note::from("a")).await.unwrap();

    for token_requests in [2, 3] {
        stack.gateway.revoke_all();
        let refused = client.echo(Note::from("a")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        // The server's answer, not an error of ours.
        assert_eq!(refused.message(), "the gateway refuses the token");
        assert_eq!(stack.gateway.token_requests(), token_requests - 1);

        client.echo(Note::from("a")).await.unwrap();
        assert_eq!(stack.gateway.token_requests(), token_requests);
    }
}

// R19
#[tokio::test]
async fn status_16_after_a_message_is_not_seen() {
    let stack = Stack::start().await;
    let mut client = stack.client.clone();

    let answer = client.repeat(Note::from("refuse after this")).await;
    let mut answers = answer.unwrap().into_inner();
    answers.next().await.unwrap().unwrap();
    let refused = answers.next().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    client.echo(Note::from("a")).await.unwrap();
    assert_eq!(stack.gateway.token_requests(), 1);
}

#[tokio::test]
async fn a_transient_failure_is_unavailable_and_says_how_long() {
    let stack = Stack::start().await;
    let mut client = stack.client.clone();
    let gateway = &stack.gateway;
    gateway.fail_next(1, StatusCode::SERVICE_UNAVAILABLE, Some("7"));

    let unary = client.echo(Note::from("a")).await.unwrap_err();
    let upstream = client.gather(stream::empty()).await.unwrap_err();
    let downstream = client.repeat(Note::from("a")).await.unwrap_err();
    let both = client.chat(stream::empty()).await.unwrap_err();
    for status in [unary, upstream, downstream, both] {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let error = status.source().unwrap();
        let error = error.downcast_ref::<tower_oauth::Error>().unwrap();
        assert!(error.is_transient());
        assert!(error.retry_after().unwrap() > Duration::from_secs(1));
    }
    assert_eq!(gateway.token_requests(), 1);
    assert_eq!(stack.calls(), 0);

    stack.oauth.token_cache().warm_up().await.unwrap();
    client.echo(Note::from("a")).await.unwrap();
    assert_eq!(gateway.token_requests(), 2);
}

// FU14
#[tokio::test]
async fn a_rejection_is_unauthenticated_and_a_wrong_place_a_failed_precondition() {
    let stack = Stack::start().await;
    let url = stack.gateway.token_url();
    let wrong = OAuthLayer::client_credentials(url, "consumer-key", "wrong")
        .assume_origin(stack.origin())
        .build()
        .unwrap();
    let mut client = connect(stack.channel.clone(), &wrong);
    // P35
    let narrow = wrong_place(&stack);
    let mut misplaced = connect(stack.channel.clone(), &narrow);

    for _ in 0..3 {
        let status = client.echo(Note::from("a")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("invalid_client"), "{status}");
    }
    let status = misplaced.echo(Note::from("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("assume_origin()"), "{status}");
    assert_eq!(stack.gateway.token_requests(), 1);
    assert_eq!(stack.calls(), 0);
}

#[tokio::test]
async fn without_grpc_status_a_missing_token_is_unknown() {
    let stack = Stack::start().await;
    stack.gateway.fail_next(1, StatusCode::BAD_REQUEST, None);
    let mut client: NotesClient<OAuth<Channel>> =
        NotesClient::new(stack.oauth.layer(stack.channel.clone()));
    let status = client.echo(Note::from("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert_eq!(stack.gateway.token_requests(), 1);
}

#[tokio::test]
async fn a_failure_of_the_channel_is_what_tonic_makes_of_it() {
    let stack = Stack::start().await;
    let unused = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let nobody = endpoint(unused.local_addr().unwrap());
    drop(unused);
    let mut plain = NotesClient::new(nobody.connect_lazy());
    let mut layered = connect(nobody.connect_lazy(), &stack.oauth);

    let plain = plain.echo(Note::from("a")).await.unwrap_err();
    let layered = layered.echo(Note::from("a")).await.unwrap_err();
    assert_eq!(plain.code(), Code::Unavailable);
    assert_eq!(layered.code(), plain.code());
    assert_eq!(layered.message(), plain.message());
    assert_eq!(stack.gateway.token_requests(), 1);
}

#[tokio::test]
async fn an_allowed_origin_is_given_to_the_layer_or_to_the_client() {
    let stack = Stack::start().await;
    let origin = stack.origin();
    let allowed = || {
        let url = stack.gateway.token_url();
        OAuthLayer::client_credentials(url, "consumer-key", "consumer-secret").allow_origin(&origin)
    };

    let assuming = allowed().assume_origin(&origin).build().unwrap();
    let mut client = connect(stack.channel.clone(), &assuming);
    client.echo(Note::from("a")).await.unwrap();

    let service = allowed().build().unwrap().layer(stack.channel.clone());
    let mut client = NotesClient::with_origin(service, origin.parse().unwrap());
    client.echo(Note::from("a")).await.unwrap();
    assert_eq!(stack.gateway.token_requests(), 2);
}

// The channel counts `grpc-timeout` from when it gets the request, which has its token by then.
#[tokio::test]
async fn a_grpc_timeout_begins_when_the_token_is_there() {
    let stack = Stack::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let url = stack.gateway.token_url();
    let held = OAuthLayer::client_credentials(url, "consumer-key", "consumer-secret")
        .token_client(client_behind(&gate))
        .assume_origin(stack.origin())
        .build()
        .unwrap();
    let mut client = connect(stack.channel.clone(), &held);
    let mut request = Request::new(Note::from("a"));
    request.set_timeout(Duration::from_secs(1));

    let mut call = Box::pin(client.echo(request));
    assert!((&mut call).now_or_never().is_none());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!((&mut call).now_or_never().is_none());
    tokio::time::resume();
    gate.add_permits(1);
    call.await.unwrap();
    assert_eq!(stack.gateway.token_requests(), 1);
}

/// A layer that may send tokens somewhere else only.
fn wrong_place(stack: &Stack) -> OAuthLayer {
    let url = stack.gateway.token_url();
    OAuthLayer::client_credentials(url, "consumer-key", "consumer-secret")
        .allow_origin("https://api.example")
        .build()
        .unwrap()
}

fn text(note: Result<Note, Status>) -> String {
    note.unwrap().text
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

/// The gateway, a gRPC server that it protects, and a client of that.
struct Stack {
    gateway: Arc<Gateway>,
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    clock: ManualClock,
    oauth: OAuthLayer,
    channel: Channel,
    client: NotesClient<Authorized>,
}

impl Stack {
    async fn start() -> Self {
        let gateway = Arc::new(Gateway::start(Config::default()).await.unwrap());
        let calls = Arc::new(AtomicUsize::new(0));
        let service = NotesServer::new(Protected {
            gateway: Arc::clone(&gateway),
            calls: Arc::clone(&calls),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

        let clock = ManualClock::new();
        let url = gateway.token_url();
        let oauth = OAuthLayer::client_credentials(url, "consumer-key", "consumer-secret")
            .clock(clock.clone())
            .assume_origin(format!("http://{address}"))
            .build()
            .unwrap();
        let channel = endpoint(address).connect_lazy();
        Self {
            client: connect(channel.clone(), &oauth),
            gateway,
            address,
            calls,
            clock,
            oauth,
            channel,
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Asks the gateway whether the token is good.
struct Protected {
    gateway: Arc<Gateway>,
    calls: Arc<AtomicUsize>,
}

impl Protected {
    async fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.calls.fetch_add(1, Relaxed);
        let (metadata, _, message) = request.into_parts();
        let mut question = get(self.gateway.api_url("/introspect"));
        let sent = metadata.into_headers();
        let token = sent.get(AUTHORIZATION).expect("every call has a token");
        question.headers_mut().insert(AUTHORIZATION, token.clone());
        let answer = client().oneshot(question).await.unwrap();
        if answer.status() != StatusCode::OK {
            return Err(Status::unauthenticated("the gateway refuses the token"));
        }
        Ok(message)
    }
}

#[tonic::async_trait]
impl Notes for Protected {
    async fn echo(&self, request: Request<Note>) -> Result<Response<Note>, Status> {
        self.admit(request).await.map(Response::new)
    }

    async fn gather(&self, request: Request<Streaming<Note>>) -> Result<Response<Note>, Status> {
        let notes = self.admit(request).await?;
        let text = notes.map(text).collect().await;
        Ok(Response::new(Note { text }))
    }

    type RepeatStream = Answers;

    async fn repeat(&self, request: Request<Note>) -> Result<Response<Answers>, Status> {
        let note = self.admit(request).await?;
        let answers = if note.text == "refuse after this" {
            vec![
                Ok(note),
                Err(Status::unauthenticated("the token has ended")),
            ]
        } else {
            vec![Ok(note.clone()), Ok(note.clone()), Ok(note)]
        };
        Ok(Response::new(Box::pin(stream::iter(answers))))
    }

    type ChatStream = Answers;

    async fn chat(&self, request: Request<Streaming<Note>>) -> Result<Response<Answers>, Status> {
        let notes = self.admit(request).await?;
        Ok(Response::new(Box::pin(notes)))
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;
