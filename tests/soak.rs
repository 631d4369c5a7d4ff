//! A service under fire: a minute of everything that a token endpoint can do wrong, at thousands of requests per second.
//!
//! An axum service calls an upstream API through a hyper client with the layer around it. The token endpoint goes from fault
//! to fault by a seeded schedule, tokens live for two to four seconds, and whatever is seen goes into one [`Book`] that
//! checks it against the rules.
//!
//! ```text
//! cargo test --test soak -- --ignored --nocapture
//! ```
//!
//! `TOWER_OAUTH_SOAK_SECONDS` sets the length (default 60) and `TOWER_OAUTH_SOAK_SEED` the seed (default: a new one, printed).
//!
//! # How it is judged
//!
//! The book knows only what an observer can know, and so that a busy machine cannot make it wrong, each moment is taken from
//! the side that favours the layer:
//!
//! - A request *began* before the layer saw it, and the layer *decided* on its token no earlier than the poll in which the
//!   request left. The time in flight after that is not counted.
//! - A token request was *sent* after the flight started or the attempt before it ended, and before the token client was
//!   called. So a token's end is known within those two, and the later one is what no request may pass.
//! - A flight failed no earlier than its last answer came, and the next one started no later than its event said. So the time
//!   between them is at least the backoff, without any margin.
//! - A token is known to be held from the event on that tells of its flight's success.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::Display;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use fastrand::Rng;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tower::util::{BoxCloneSyncService, MapRequest};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth::FetchCause;
use tower_oauth::observe::Event;
use tower_oauth::{BoxError, CachePolicy, CloneBody, Error, OAuth, OAuthLayer, Replayed, Secret};

/// Requests per second that the load aims at; a slow machine makes fewer.
const RATE: u64 = 4_000;
const LOADERS: u64 = 64;

// Short, so that a minute holds many lives, faults and backoffs.
const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(600);
const FLIGHT_TIMEOUT: Duration = Duration::from_millis(1_800);
const RENEWAL_WAIT: Duration = Duration::from_millis(100);
// In milliseconds: the first step, and the longest without and with a live token.
const TRANSIENT: [u64; 3] = [100, 1_500, 6_000];
const REJECTED: [u64; 3] = [500, 6_000, 30_000];
// More than what the endpoint asks for.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(30);
const REFUSALS: u32 = 3;
const REFUSAL_INTERVAL: Duration = Duration::from_secs(3);
/// Rule R13: a token is held, and not renewed without a reason, for so long after it came.
const HOLD: u64 = 1_000 * MS;

const MS: u64 = 1_000_000;

fn policy() -> CachePolicy {
    CachePolicy::new()
        .attempt_timeout(ATTEMPT_TIMEOUT)
        .sped_up(10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes a minute"]
async fn a_service_under_fire_keeps_its_promises() {
    let seconds: u64 = setting("TOWER_OAUTH_SOAK_SECONDS", 60);
    let seed: u64 = setting("TOWER_OAUTH_SOAK_SEED", fastrand::u64(..1_000_000));
    println!("soak: seed {seed}, {seconds} s");
    let mut rng = Rng::with_seed(seed);
    let world = World::new(&mut rng);
    let secret = SecretFile::new();
    secret.write(&world, 0);

    let (running, stopped) = watch::channel(());
    let mut servers = JoinSet::new();
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", endpoint.local_addr().unwrap());
    servers.spawn(serve_tokens(endpoint, Arc::clone(&world), stopped.clone()));
    let api = serve(&mut servers, api(&world), &stopped).await;
    let observer = Arc::clone(&world);
    let oauth = OAuthLayer::client_credentials(token_url, CLIENT, Secret::file(&secret.0))
        .allow_origin(&api)
        .cache_policy(policy())
        .token_client(token_client(&world))
        .observer(move |event: &Event<'_>| observer.book().event(event))
        .build()
        .unwrap();
    let service = serve(&mut servers, service(&world, &oauth, api), &stopped).await;

    let mut loaders = JoinSet::new();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for _ in 0..LOADERS {
        let (world, client) = (Arc::clone(&world), client.clone());
        loaders.spawn(load(world, client, service.clone(), rng.fork()));
    }
    drop(client);

    let length = Duration::from_secs(seconds);
    let (_, memory) = tokio::join!(
        timeout(length, fire(&world, &secret, rng.fork())),
        watch_memory(&world, length)
    );

    // No error is for ever: with peace comes a token.
    world.book().make_peace();
    let served = world.count(Outcome::Ok);
    let back = timeout(Duration::from_secs(20), async {
        while world.count(Outcome::Ok) == served {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let is_back = back.await.is_ok();

    world.stop.store(true, Relaxed);
    while let Some(loader) = loaders.join_next().await {
        loader.unwrap();
    }
    drop(running);
    while let Some(server) = servers.join_next().await {
        server.unwrap();
    }
    // The layer lives on, and has no task when it has no fetch.
    let tasks = tasks_left().await;
    let status = oauth.token_cache().status();

    let book = world.book();
    println!(
        "{}",
        summary(seed, length, &world, &book, memory.as_ref(), tasks)
    );
    assert!(
        book.violations.is_empty(),
        "seed {seed}: {:#?}",
        book.violations
    );
    assert!(is_back, "seed {seed}: nobody was served after the fire");
    assert_eq!(tasks, 0, "seed {seed}: tasks are left");
    assert_eq!(world.count(Outcome::Broken), 0, "seed {seed}");
    let ends = world.outcomes.iter().map(|count| count.load(Relaxed));
    assert_eq!(ends.sum::<u64>(), world.answered.load(Relaxed));
    assert_eq!(status.entries, 1);
    assert_eq!(status.token_requests, book.attempts_told);
    assert!(book.attempts <= book.attempts_told);
    if let Some(Memory { early, late }) = memory {
        assert!(
            late * 10 <= early * 11,
            "seed {seed}: {early} kB became {late} kB"
        );
    }

    // That there was a fire, and a service in it: far below what any machine does.
    assert!(book.phases >= seconds / 10, "{} phases", book.phases);
    assert!(book.landed >= seconds / 10, "{} tokens", book.landed);
    assert!(world.count(Outcome::Ok) > 10 * seconds);
}

fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name).map(|value| value.parse()) {
        Ok(Ok(value)) => value,
        Ok(Err(_)) => panic!("{name} is not a number"),
        Err(_) => default,
    }
}

/// Nanoseconds on the one clock that all stamps are from.
fn now() -> u64 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    ORIGIN.elapsed().as_nanos() as u64
}

fn nanos(span: Duration) -> u64 {
    span.as_nanos() as u64
}

/// What all parties of the test share.
struct World {
    book: Mutex<Book>,
    outcomes: [AtomicU64; 5],
    replayed: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// How a call of the service to its API ended.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Ok,
    /// With a 401.
    Refused,
    /// With an error of the layer.
    NoToken,
    /// The caller had no time to wait.
    GivenUp,
    /// Otherwise, which nothing here gives a reason for.
    Broken,
}

impl World {
    fn new(rng: &mut Rng) -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::new(Book::new(rng.fork())),
            outcomes: Default::default(),
            replayed: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Relaxed)
    }
}

// The service

type Upstream = MapRequest<Client<HttpConnector, Full<Bytes>>, fn(Call) -> Call>;
type Call = Request<Full<Bytes>>;

#[derive(Clone)]
struct App {
    world: Arc<World>,
    api: String,
    plain: OAuth<Upstream>,
    replaying: OAuth<Upstream, CloneBody>,
}

fn service(world: &Arc<World>, oauth: &OAuthLayer, api: String) -> Router {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let upstream = MapRequest::new(client, stamp as fn(Call) -> Call);
    let app = App {
        world: Arc::clone(world),
        api,
        plain: oauth.layer(upstream.clone()),
        replaying: oauth.clone().replay_unauthorized().layer(upstream),
    };
    let plain = |State(app): State<App>| async move { app.call(app.plain.clone()).await };
    let replaying = |State(app): State<App>| async move { app.call(app.replaying.clone()).await };
    let hasty = |State(app): State<App>| async move {
        let patience = if now() < WARM_UP { HASTE / 50 } else { HASTE };
        let call = timeout(patience, app.call(app.plain.clone()));
        call.await.unwrap_or_else(|_| app.end(Outcome::GivenUp))
    };
    Router::new()
        .route("/plain", get(plain))
        .route("/replaying", get(replaying))
        .route("/hasty", get(hasty))
        .with_state(app)
}

/// Less than a slow token request takes.
const HASTE: Duration = Duration::from_millis(250);
/// At first callers give up all the time, and connections with them, so that the heap has found its size before it is measured.
const WARM_UP: u64 = 8_000 * MS;

thread_local! {
    /// When the call that is being polled began, and this poll of it.
    static POLLED: Cell<[u64; 2]> = const { Cell::new([0; 2]) };
}

const STAMP: &str = "x-stamp";

/// The first thing behind the layer: it tells the API no earlier moment than that of the layer's decision, since that falls into
/// the same poll.
fn stamp(mut call: Call) -> Call {
    let [began, polled] = POLLED.get();
    let stamp = HeaderValue::from_str(&format!("{began} {polled}")).unwrap();
    call.headers_mut().insert(STAMP, stamp);
    call
}

impl App {
    async fn call<S, B>(&self, client: S) -> StatusCode
    where
        S: Service<Call, Response = Response<B>, Error = BoxError>,
        B: Body<Error: std::fmt::Debug>,
    {
        let call = Request::get(&self.api).body(Full::default()).unwrap();
        let began = now();
        let mut answer = pin!(client.oneshot(call));
        let answer = poll_fn(|cx| {
            POLLED.set([began, now()]);
            answer.as_mut().poll(cx)
        });
        let outcome = match answer.await {
            Ok(answer) => {
                let replayed = answer.extensions().get::<Replayed>().is_some();
                self.world.replayed.fetch_add(replayed.into(), Relaxed);
                let outcome = match answer.status() {
                    StatusCode::OK => Outcome::Ok,
                    StatusCode::UNAUTHORIZED => Outcome::Refused,
                    _ => Outcome::Broken,
                };
                let read = answer.into_body().collect().await;
                read.map_or(Outcome::Broken, |_| outcome)
            }
            Err(error) if error.is::<Error>() => {
                self.world.book().failed(began, now(), &error);
                Outcome::NoToken
            }
            Err(_) => Outcome::Broken,
        };
        self.end(outcome)
    }

    fn end(&self, outcome: Outcome) -> StatusCode {
        self.world.outcomes[outcome as usize].fetch_add(1, Relaxed);
        match outcome {
            Outcome::Ok => StatusCode::OK,
            Outcome::Refused | Outcome::Broken => StatusCode::BAD_GATEWAY,
            Outcome::NoToken => StatusCode::SERVICE_UNAVAILABLE,
            Outcome::GivenUp => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

async fn serve(servers: &mut JoinSet<()>, router: Router, stopped: &watch::Receiver<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut stopped = stopped.clone();
    servers.spawn(async move {
        let stop = async move { _ = stopped.changed().await };
        let server = axum::serve(listener, router).with_graceful_shutdown(stop);
        server.await.unwrap();
    });
    format!("http://{address}")
}

async fn load(
    world: Arc<World>,
    client: Client<HttpConnector, Full<Bytes>>,
    service: String,
    mut rng: Rng,
) {
    let mut tick = interval(Duration::from_nanos(1_000_000_000 * LOADERS / RATE));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !world.stop.load(Relaxed) {
        tick.tick().await;
        let path = ["plain", "plain", "replaying", "replaying", "hasty"][rng.usize(..5)];
        let call = Request::get(format!("{service}/{path}"));
        let answer = client.request(call.body(Full::default()).unwrap()).await;
        answer.unwrap().into_body().collect().await.unwrap();
        world.answered.fetch_add(1, Relaxed);
    }
}

// The API

fn api(world: &Arc<World>) -> Router {
    let answer = |State(world): State<Arc<World>>, headers: HeaderMap| async move {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let token = text("authorization").and_then(|value| value.strip_prefix("Bearer token-"));
        let stamp = text(STAMP).and_then(|stamp| stamp.split_once(' '));
        let (Some(token), Some((began, decided))) = (token, stamp) else {
            return StatusCode::BAD_REQUEST;
        };
        let [token, began, decided] = [token, began, decided].map(|text| text.parse().unwrap());
        if world.book().admits(token, began, decided) {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        }
    };
    Router::new().fallback(answer).with_state(Arc::clone(world))
}

// The token endpoint

const CLIENT: &str = "soak";
const ATTEMPT: &str = "x-attempt";

/// The client secret, as a secret manager mounts it.
struct SecretFile(PathBuf);

impl SecretFile {
    fn new() -> Self {
        let name = format!("soak-secret-{}", std::process::id());
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn write(&self, world: &World, secret: u64) {
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, format!("secret-{secret}\n")).unwrap();
        std::fs::rename(&fresh, &self.0).unwrap();
        world.book().written = (now(), secret);
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

/// Numbers the token requests and notes when each one left and ended, on the client's side.
fn token_client(world: &Arc<World>) -> BoxCloneSyncService<Call, Response<Full<Bytes>>, BoxError> {
    let http = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http::<Full<Bytes>>();
    let world = Arc::clone(world);
    BoxCloneSyncService::new(service_fn(move |mut call: Call| {
        let (http, world) = (http.clone(), Arc::clone(&world));
        async move {
            let secret = secret_of(call.headers()[AUTHORIZATION].to_str().unwrap());
            let number = world.book().attempt(secret);
            let mut attempt = Attempting {
                world,
                number,
                arrived: false,
            };
            call.headers_mut().insert(ATTEMPT, number.into());
            let (parts, body) = http.request(call).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            attempt.arrived = true;
            Ok(Response::from_parts(parts, Full::new(body)))
        }
    }))
}

/// A token request under way, which ends when it is answered and when it is dropped.
struct Attempting {
    world: Arc<World>,
    number: u64,
    arrived: bool,
}

impl Drop for Attempting {
    fn drop(&mut self) {
        self.world.book().attempt_over(self.number, self.arrived);
    }
}

fn secret_of(authorization: &str) -> u64 {
    let basic = authorization.strip_prefix("Basic ").unwrap();
    let pair = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
    let secret = pair.strip_prefix("soak:secret-").unwrap();
    secret.parse().unwrap()
}

/// By hand, since no HTTP server can be asked to reset a connection in the middle of an answer.
async fn serve_tokens(listener: TcpListener, world: Arc<World>, mut stopped: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            Ok((stream, _)) = listener.accept() => {
                let world = Arc::clone(&world);
                // The client may be gone before its answer.
                connections.spawn(async move { _ = exchange(stream, &world).await });
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn exchange(mut stream: TcpStream, world: &World) -> io::Result<()> {
    let (number, secret) = read_request(&mut stream).await?;
    let (delay, reply) = world.book().reply(number, secret);
    sleep(delay).await;
    match reply {
        Reply::Whole(text) => stream.write_all(text.as_bytes()).await?,
        Reply::Torn(text) => {
            stream.write_all(&text.as_bytes()[..text.len() / 2]).await?;
            stream.set_zero_linger()?;
        }
        Reply::Reset => stream.set_zero_linger()?,
    }
    Ok(())
}

async fn read_request(stream: &mut TcpStream) -> io::Result<(u64, u64)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let line = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
            line.unwrap().1.to_owned()
        };
        if body.len() == field("content-length").parse::<usize>().unwrap() {
            assert_eq!(body, "grant_type=client_credentials");
            let number = field(ATTEMPT).parse().unwrap();
            return Ok((number, secret_of(&field("authorization"))));
        }
    }
}

enum Reply {
    Whole(String),
    /// Half of it, and then a reset.
    Torn(String),
    Reset,
}

fn wire(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{fields}\r\n{body}"
    )
}

const JSON: &str = "content-type: application/json\r\n";
const HTML: &str = "content-type: text/html\r\n";
const BUSY: &str = "retry-after: 1\r\n";

/// What the token endpoint, or the API with its tokens, is doing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Peace,
    /// Answers late, sometimes too late.
    Slow,
    /// 500 and 503.
    Down,
    /// 429 and 503 with `Retry-After`.
    Busy,
    /// Resets connections, before the answer or within.
    Reset,
    /// A page of a proxy, or JSON that is no token.
    Garbage,
    /// JSON that breaks off.
    Truncated,
    /// Tokens without a life.
    Tiny,
    /// A new secret, in the file first; the old one is good for another moment.
    Rotation,
    /// A new secret, in the file last; the old one is void at once.
    HardRotation,
    /// All tokens are revoked.
    Revocation,
    /// Each token is revoked as soon as it is seen.
    Storm,
}

const FAULTS: [Phase; 11] = [
    Phase::Slow,
    Phase::Down,
    Phase::Busy,
    Phase::Reset,
    Phase::Garbage,
    Phase::Truncated,
    Phase::Tiny,
    Phase::Rotation,
    Phase::HardRotation,
    Phase::Revocation,
    Phase::Storm,
];

/// Goes from fault to fault until it is dropped. A fault lasts for a second and a half at least, and until it has hit two token
/// requests.
async fn fire(world: &World, secret: &SecretFile, mut rng: Rng) {
    let mut newest = 0;
    loop {
        let mut faults = FAULTS;
        rng.shuffle(&mut faults);
        for fault in faults {
            world.book().enter(Phase::Peace);
            sleep(Duration::from_millis(rng.u64(700..1_800))).await;
            world.book().enter(fault);
            // With the token, a fault hits an idle endpoint or a pressing need.
            if fault == Phase::Revocation || rng.bool() {
                world.book().revoke();
            }
            match fault {
                Phase::Rotation => {
                    newest += 1;
                    world.book().secrets = [newest - 1, newest];
                    secret.write(world, newest);
                    sleep(Duration::from_secs(1)).await;
                    world.book().secrets = [newest, newest];
                }
                Phase::HardRotation => {
                    newest += 1;
                    world.book().secrets = [newest, newest];
                    sleep(Duration::from_millis(rng.u64(200..1_500))).await;
                    secret.write(world, newest);
                }
                _ => {}
            }
            sleep(Duration::from_millis(1_500)).await;
            while world.book().hits < 2 {
                sleep(Duration::from_millis(20)).await;
            }
            world.book().phases += 1;
        }
    }
}

// The book

/// What was seen, and what cannot be in keeping with the rules. It forgets what it needs no more, since its own growth would
/// count as the layer's.
struct Book {
    rng: Rng,
    phase: Phase,
    /// Token requests in this phase.
    hits: u32,
    /// The oldest and the newest client secret that are good.
    secrets: [u64; 2],
    /// When the file got its secret, and which one.
    written: (u64, u64),

    tokens: VecDeque<Token>,
    /// Not yet told of as ended, oldest first.
    flights: VecDeque<Flight>,
    backoffs: [Backoff; 2],
    /// When a 401 used up one of the renewals that it may cause.
    suspected: Vec<u64>,
    last_secret: u64,
    under_way: u32,

    attempts: u64,
    attempts_told: u64,
    landed: u64,
    failed_flights: u64,
    revoked: u64,
    budget_spent: u64,
    /// Calls with a token that lives on only by the hold of rule R13.
    in_hold: u64,
    phases: u64,
    /// Answers of the token endpoint: tokens, passing failures, `Retry-After`, rejections, pages, garbage.
    answers: [u64; 6],
    /// The least time that a flight came after the moment from which on it was allowed.
    closest: u64,
    violations: Vec<String>,
}

/// A token that the endpoint made, by the number of the attempt that got it.
struct Token {
    number: u64,
    life: u64,
    revoked: bool,
    refused: bool,
    hold: Option<Hold>,
}

/// When a token came and how long it is held, as far as that can be known.
#[derive(Clone, Copy)]
struct Hold {
    landed: u64,
    renewable: u64,
    nominal_end: u64,
    earliest_end: u64,
    latest_end: u64,
}

struct Flight {
    cause: FetchCause,
    started: u64,
    attempts: u32,
    last: Option<Attempt>,
}

struct Attempt {
    number: u64,
    /// It was sent after this,
    earliest: u64,
    /// and before this.
    latest: u64,
    over: u64,
    arrived: bool,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Token,
    Passing,
    Busy,
    Rejected,
    /// Not as a token endpoint answers: it speaks for the client.
    Page,
    Garbage,
}

/// What is known of the failures of the endpoint, and of those of the one kind of token.
#[derive(Clone, Copy, Default)]
struct Backoff {
    streak: u32,
    /// Failures that back off by other steps start over.
    first: u64,
    until: u64,
}

impl Book {
    fn new(rng: Rng) -> Self {
        Self {
            rng,
            phase: Phase::Peace,
            hits: 0,
            secrets: [0; 2],
            written: (0, 0),
            tokens: VecDeque::new(),
            flights: VecDeque::new(),
            backoffs: Default::default(),
            suspected: Vec::new(),
            last_secret: 0,
            under_way: 0,
            attempts: 0,
            attempts_told: 0,
            landed: 0,
            failed_flights: 0,
            revoked: 0,
            budget_spent: 0,
            in_hold: 0,
            phases: 0,
            answers: [0; 6],
            closest: u64::MAX,
            violations: Vec::new(),
        }
    }

    fn violation(&mut self, what: impl Display) {
        if self.violations.len() < 10 {
            let violation = format!("{:.3} s, {:?}: {what}", now() as f64 / 1e9, self.phase);
            self.violations.push(violation);
        }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.hits) = (phase, 0);
    }

    fn revoke(&mut self) {
        for token in self.tokens.iter_mut().filter(|token| !token.revoked) {
            token.revoked = true;
            self.revoked += 1;
        }
    }

    fn make_peace(&mut self) {
        self.enter(Phase::Peace);
        self.secrets = [0, u64::MAX];
    }

    /// What the endpoint answers, and after which time.
    fn reply(&mut self, number: u64, secret: u64) -> (Duration, Reply) {
        self.hits += 1;
        let millis = match self.phase {
            Phase::Slow => self.rng.u64(150..1_000),
            _ => self.rng.u64(2..30),
        };
        let (answer, reply) = self.answer(number, secret);
        self.answers[answer as usize] += 1;
        // The client may have given up already, and begun another one.
        let last = self
            .flights
            .back_mut()
            .and_then(|flight| flight.last.as_mut());
        if let Some(attempt) = last.filter(|attempt| attempt.number == number) {
            attempt.answer = answer;
        }
        (Duration::from_millis(millis), reply)
    }

    fn answer(&mut self, number: u64, secret: u64) -> (Answer, Reply) {
        let first = self.rng.bool();
        let one = |(status, fields, body)| Reply::Whole(wire(status, fields, body));
        match self.phase {
            Phase::Down if first => {
                let page = ("500 Internal Server Error", HTML, "<html>oops</html>");
                return (Answer::Passing, one(page));
            }
            Phase::Down => {
                let error = (
                    "503 Service Unavailable",
                    JSON,
                    r#"{"error":"server_error"}"#,
                );
                return (Answer::Passing, one(error));
            }
            Phase::Busy if first => {
                let error = ("429 Too Many Requests", BUSY, "");
                return (Answer::Busy, one(error));
            }
            Phase::Busy => {
                let error = ("503 Service Unavailable", BUSY, "");
                return (Answer::Busy, one(error));
            }
            Phase::Reset if first => return (Answer::Passing, Reply::Reset),
            Phase::Garbage if first => {
                let page = ("200 OK", HTML, "<html>please sign in</html>");
                return (Answer::Page, one(page));
            }
            Phase::Garbage => {
                let other = ("200 OK", JSON, r#"{"status":"ok"}"#);
                return (Answer::Garbage, one(other));
            }
            Phase::Truncated => {
                let half = ("200 OK", JSON, r#"{"access_token":"to"#);
                return (Answer::Passing, one(half));
            }
            _ => {}
        }
        if secret < self.secrets[0] || secret > self.secrets[1] {
            let error = ("401 Unauthorized", JSON, r#"{"error":"invalid_client"}"#);
            return (Answer::Rejected, one(error));
        }
        let life = match self.phase {
            Phase::Tiny => 0,
            _ => self.rng.u64(2..=4),
        };
        let body = format!(
            r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":"{life}"}}"#
        );
        let text = wire("200 OK", JSON, &body);
        if self.phase == Phase::Reset {
            return (Answer::Passing, Reply::Torn(text));
        }
        self.tokens.push_back(Token {
            number,
            life: 1_000 * MS * life,
            revoked: false,
            refused: false,
            hold: None,
        });
        if self.tokens.len() > 32 {
            self.tokens.pop_front();
        }
        (Answer::Token, Reply::Whole(text))
    }

    /// A token request leaves.
    fn attempt(&mut self, secret: u64) -> u64 {
        self.attempts += 1;
        let (number, latest, written) = (self.attempts, now(), self.written);
        if self.under_way > 0 {
            self.violation("two token requests at once");
        }
        self.under_way += 1;
        let Some(flight) = self.flights.back_mut() else {
            self.violation("a token request outside of any flight");
            return number;
        };
        flight.attempts += 1;
        let (cause, attempts) = (flight.cause, flight.attempts);
        let before = flight.last.replace(Attempt {
            number,
            earliest: flight.started,
            latest,
            over: latest,
            arrived: false,
            answer: Answer::Passing,
        });
        let mut earliest = flight.started;
        if let Some(before) = before {
            earliest = before.over;
            let last = flight.last.as_mut().unwrap();
            last.earliest = earliest;
            if before.arrived && before.answer != Answer::Passing {
                self.violation(format!("tried again at once after {:?}", before.answer));
            }
        } else if cause == FetchCause::Credentials && secret == self.last_secret {
            self.violation("a backoff ended for a secret that had not changed");
        }
        if attempts > ATTEMPTS {
            self.violation(format!("{attempts} attempts in a flight"));
        }
        if earliest >= written.0 && secret < written.1 {
            self.violation(format!("secret {secret} after {} was there", written.1));
        }
        self.last_secret = secret;
        number
    }

    fn attempt_over(&mut self, number: u64, arrived: bool) {
        self.under_way -= 1;
        let mut attempts = self
            .flights
            .iter_mut()
            .filter_map(|flight| flight.last.as_mut());
        if let Some(attempt) = attempts.find(|attempt| attempt.number == number) {
            attempt.over = now();
            attempt.arrived = arrived;
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::FetchStarted { cause, .. } => {
                self.flights.push_back(Flight {
                    cause: *cause,
                    started: now(),
                    attempts: 0,
                    last: None,
                });
                // An event tells what has happened already, so the end of a flight may be told after the start of the next.
                if self.flights.len() == 1 {
                    self.check_start();
                }
            }
            Event::FetchFinished {
                attempts, error, ..
            } if *attempts > 0 => {
                self.attempts_told += u64::from(*attempts);
                let Some(flight) = self.flights.pop_front() else {
                    return self.violation("a flight ended that had not started");
                };
                match error {
                    None => self.landed(&flight),
                    Some(error) => self.flight_failed(&flight, *attempts, error),
                }
                self.check_start();
            }
            Event::Suspected { .. } => {
                let time = now();
                self.suspected.push(time);
                let interval = nanos(REFUSAL_INTERVAL);
                let allowed = |first: &u64| u64::from(REFUSALS) + 1 + (time - first) / interval;
                let taken = (1..=self.suspected.len() as u64).rev();
                let mut windows = taken.zip(&self.suspected);
                if windows.any(|(taken, first)| taken > allowed(first)) {
                    self.violation("more renewals for 401s than the budget has");
                }
            }
            Event::BudgetSpent { .. } => self.budget_spent += 1,
            _ => {}
        }
    }

    /// Whether the flight that is under way had a reason to start when it did.
    fn check_start(&mut self) {
        let Some(flight) = self.flights.front() else {
            return;
        };
        let (cause, started) = (flight.cause, flight.started);
        if cause == FetchCause::Credentials {
            self.backoffs
                .iter_mut()
                .for_each(|backoff| backoff.until = 0);
            return;
        }
        let mut allowed = self.backoffs[0].until.max(self.backoffs[1].until);
        if started < allowed {
            self.violation(format!("{cause:?} within a backoff"));
        }
        if let Some((token, hold)) = self.held() {
            let reason = match cause {
                FetchCause::Refused if token.refused => 0,
                FetchCause::Refused | FetchCause::NoToken => hold.earliest_end,
                _ => hold.renewable,
            };
            allowed = allowed.max(reason);
            if started < reason {
                let early = (reason - started) / MS;
                self.violation(format!("{cause:?} {early} ms before there was a reason"));
            }
        }
        if allowed > 0 {
            self.closest = self.closest.min(started.saturating_sub(allowed));
        }
    }

    /// The newest token that is known to have come.
    fn held(&self) -> Option<(&Token, Hold)> {
        let mut tokens = self.tokens.iter().rev();
        tokens.find_map(|token| Some((token, token.hold?)))
    }

    fn landed(&mut self, flight: &Flight) {
        let landed = now();
        self.landed += 1;
        self.backoffs = Default::default();
        let attempt = flight.last.as_ref().filter(|attempt| attempt.arrived);
        let token = attempt.and_then(|attempt| {
            let mut tokens = self.tokens.iter_mut();
            Some((
                attempt,
                tokens.find(|token| token.number == attempt.number)?,
            ))
        });
        let Some((attempt, token)) = token else {
            return self.violation("a flight brought a token that nobody made");
        };
        token.hold = Some(Hold {
            landed,
            renewable: (attempt.earliest + token.life / 5 * 4).max(attempt.over + HOLD),
            nominal_end: attempt.latest + token.life,
            earliest_end: (attempt.earliest + token.life).max(attempt.over + HOLD),
            latest_end: (attempt.latest + token.life).max(landed + HOLD),
        });
    }

    fn flight_failed(&mut self, flight: &Flight, attempts: u32, error: &Error) {
        self.failed_flights += 1;
        // An attempt that ended before it left was as good as one without an answer.
        let last = flight.last.as_ref();
        let since = last.map_or(flight.started, |attempt| attempt.over);
        let answer = last
            .filter(|attempt| attempt.arrived && attempts == flight.attempts)
            .map_or(Answer::Passing, |attempt| attempt.answer);
        let (of_endpoint, [first, longest, _], asked) = match answer {
            Answer::Passing => (true, TRANSIENT, 0),
            Answer::Busy => (true, TRANSIENT, 1_000),
            Answer::Rejected | Answer::Page => (true, REJECTED, 0),
            Answer::Garbage => (false, REJECTED, 0),
            Answer::Token => return self.violation(format!("a token came, and yet: {error}")),
        };
        let backoff = &mut self.backoffs[usize::from(of_endpoint)];
        if backoff.first != first {
            (backoff.streak, backoff.first) = (0, first);
        }
        // Without the random part, and with the shorter of the two bounds.
        let step = (first << backoff.streak.min(16)).min(longest / 2);
        backoff.streak += 1;
        backoff.until = since + MS * step.max(asked);
    }

    /// Whether the API takes this token, from a request that began and was given it then.
    fn admits(&mut self, number: u64, began: u64, decided: u64) -> bool {
        let place = self.tokens.iter().position(|token| token.number == number);
        let Some(place) = place else {
            self.violation(format!("token {number} is not one of the newest 32"));
            return false;
        };
        let renewed = |token: &Token| token.hold.is_some_and(|hold| hold.landed <= began);
        let is_renewed = self.tokens.range(place + 1..).any(renewed);
        let token = &mut self.tokens[place];
        if self.phase == Phase::Storm && !token.revoked {
            token.revoked = true;
            self.revoked += 1;
        }
        token.refused |= token.revoked;
        let (revoked, hold) = (token.revoked, token.hold);
        if is_renewed {
            let refused = if revoked { "revoked" } else { "older" };
            self.violation(format!("{refused} token {number} after a renewal"));
        }
        if let Some(hold) = hold {
            self.in_hold += u64::from(decided >= hold.nominal_end);
            if decided >= hold.latest_end {
                let late = (decided - hold.latest_end) / MS;
                self.violation(format!("token {number} {late} ms past its end"));
            }
        }
        !revoked
    }

    /// A request that began then failed for want of a token.
    fn failed(&mut self, began: u64, ended: u64, error: &BoxError) {
        let held = self.held();
        let live = |hold: Hold| hold.landed <= began && ended < hold.earliest_end;
        if let Some((token, _)) = held.filter(|(_, hold)| live(*hold)) {
            let number = token.number;
            self.violation(format!("failed although token {number} was live: {error}"));
        }
    }
}

// Memory and tasks

/// Resident kilobytes after the first ten seconds, and at the end.
struct Memory {
    early: u64,
    late: u64,
}

/// A machine that is too slow to have warmed the heap in ten seconds has up to half of the time for it.
async fn watch_memory(world: &World, length: Duration) -> Option<Memory> {
    let start = Instant::now();
    sleep(Duration::from_secs(10).min(length / 2)).await;
    while world.answered.load(Relaxed) < WARM && start.elapsed() < length / 2 {
        sleep(Duration::from_millis(100)).await;
    }
    let early = resident().await?;
    sleep(length.saturating_sub(start.elapsed() + SAMPLING)).await;
    let late = resident().await?;
    Some(Memory { early, late })
}

/// Requests.
const WARM: u64 = 10_000;

const SAMPLES: u32 = 21;
const SAMPLING: Duration = Duration::from_millis(100 * SAMPLES as u64);

/// The median of some samples; `None` where there is no `/proc`.
async fn resident() -> Option<u64> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        samples.push(line.split_whitespace().nth(1)?.parse().ok()?);
        sleep(Duration::from_millis(100)).await;
    }
    samples.sort_unstable();
    Some(samples[samples.len() / 2])
}

/// Tasks that are still there when all had the time to end.
async fn tasks_left() -> usize {
    for _ in 0..500 {
        if Handle::current().metrics().num_alive_tasks() == 0 {
            return 0;
        }
        sleep(Duration::from_millis(20)).await;
    }
    Handle::current().metrics().num_alive_tasks()
}

fn summary(
    seed: u64,
    length: Duration,
    world: &World,
    book: &Book,
    memory: Option<&Memory>,
    tasks: usize,
) -> String {
    let [ok, refused, no_token, given_up, broken] = [
        Outcome::Ok,
        Outcome::Refused,
        Outcome::NoToken,
        Outcome::GivenUp,
        Outcome::Broken,
    ]
    .map(|outcome| world.count(outcome));
    let total = world.answered.load(Relaxed);
    let [tokens, passing, busy, rejected, pages, garbage] = book.answers;
    let memory = match memory {
        None => String::from("not measured"),
        Some(Memory { early, late }) => {
            let change = 100.0 * (*late as f64 / *early as f64 - 1.0);
            format!("{early} kB -> {late} kB ({change:+.1} %)")
        }
    };
    format!(
        "soak: seed {seed}, {} s, {total} requests ({}/s): {ok} served ({} after a replay), {refused} refused with a 401, \
         {no_token} without a token, {given_up} given up, {broken} broken; {} faults, {} tokens revoked, {} secrets; \
         {} token requests for {} tokens and {} failed flights (answers: {tokens} tokens, {passing} failures, {busy} Retry-After, \
         {rejected} rejections, {pages} pages, {garbage} garbage), {} renewals for 401s, budget spent {} times, closest start {} ms after it \
         was allowed; {} calls in the hold of a token's first second; violations {}; memory {memory}; tasks left {tasks}",
        length.as_secs(),
        total / length.as_secs().max(1),
        world.replayed.load(Relaxed),
        book.phases,
        book.revoked,
        book.written.1 + 1,
        book.attempts,
        book.landed,
        book.failed_flights,
        book.suspected.len(),
        book.budget_spent,
        book.closest / MS,
        book.in_hold,
        book.violations.len(),
    )
}
