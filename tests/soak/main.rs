//! A service under fire: a minute of everything that a token endpoint can do wrong, at thousands
//! of requests per second.
//!
//! An axum service calls an upstream API through a hyper client with the layer around it. The token
//! endpoint goes from fault to fault by a seeded schedule, tokens live for two to four seconds, and
//! whatever is seen goes into one [`Book`], which knows what no observer may ever see.
//!
//! ```text
//! cargo test --test soak -- --ignored --nocapture
//! ```
//!
//! `TOWER_OAUTH_SOAK_SECONDS` sets the length (default 60) and `TOWER_OAUTH_SOAK_SEED` the seed
//! (default: a new one, printed).

mod book;
mod endpoint;
mod faults;
mod process;
mod service;

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use book::Book;
use bytes::Bytes;
use endpoint::{CLIENT, SecretFile, serve_tokens, token_client};
use fastrand::Rng;
use faults::{Faults, fire};
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use process::{Memory, shows_a_secret, tasks_left, watch_log, watch_memory};
use service::{LOADERS, api, load, serve, service};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_oauth::observe::Event;
use tower_oauth::{CachePolicy, OAuthLayer, Secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes a minute"]
async fn a_service_under_fire_keeps_its_promises() {
    let seconds: u64 = setting("TOWER_OAUTH_SOAK_SECONDS", 60);
    let seed: u64 = setting("TOWER_OAUTH_SOAK_SEED", fastrand::u64(..1_000_000));
    println!("soak: seed {seed}, {seconds} s");
    let mut rng = Rng::with_seed(seed);
    let world = World::new(&mut rng);
    watch_log(&world);
    let secret = SecretFile::new();
    secret.write(&world, 0);

    let (running, stopped) = watch::channel(());
    let mut servers = JoinSet::new();
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", endpoint.local_addr().unwrap());
    servers.spawn(serve_tokens(endpoint, Arc::clone(&world), stopped.clone()));
    let api = serve(&mut servers, api(&world), &stopped).await;
    let observer = Arc::clone(&world);
    // Short, so that a minute holds many lives, faults and backoffs.
    let policy = CachePolicy::new()
        .attempt_timeout(Duration::from_millis(600))
        .sped_up(10);
    let oauth = OAuthLayer::client_credentials(token_url, CLIENT, Secret::file(&secret.0))
        .allow_origin(&api)
        .cache_policy(policy)
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
    world.book().faults.end();
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

    let mut book = world.book();
    book.close();
    println!("{}", summary(seed, length, &world, &book, &memory, tasks));
    let violations = &book.violations;
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
    assert!(is_back, "seed {seed}: nobody was served after the fire");
    assert_eq!(tasks, 0, "seed {seed}: tasks are left");
    assert_eq!(world.count(Outcome::Broken), 0, "seed {seed}");
    let ends = world.outcomes.iter().map(|count| count.load(Relaxed));
    let answered = world.answered.load(Relaxed);
    assert_eq!(ends.sum::<u64>(), answered);
    let count = &book.count;
    assert_eq!(status.entries, 1);
    assert_eq!(status.token_requests, count.attempts_told);
    assert!(!shows_a_secret(&format!("{oauth:?} {status:?}")));
    // Some may end before they leave.
    assert!(count.attempts <= count.attempts_told);
    assert!(count.attempts * 10 < answered, "herds do not coalesce");
    if let Some(Memory { early, late }) = memory {
        assert!(
            late * 10 <= early * 11,
            "seed {seed}: {early} kB became {late} kB"
        );
    }

    // That there was a fire, and a service in it: far below what any machine does.
    assert!(
        book.faults.over >= seconds / 10,
        "{} phases",
        book.faults.over
    );
    assert!(count.tokens >= seconds / 10, "{} tokens", count.tokens);
    assert!(world.count(Outcome::Ok) > 10 * seconds);
    assert!(world.lines.load(Relaxed) > seconds, "nothing was logged");
}

fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name).map(|value| value.parse()) {
        Ok(Ok(value)) => value,
        Ok(Err(_)) => panic!("{name} is not a number"),
        Err(_) => default,
    }
}

type Call = Request<Full<Bytes>>;

/// What all parties of the test share.
struct World {
    book: Mutex<Book>,
    outcomes: [AtomicU64; 5],
    replayed: AtomicU64,
    answered: AtomicU64,
    /// Written to the log.
    lines: AtomicU64,
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
            book: Mutex::new(Book::new(Faults::new(rng.fork()))),
            outcomes: Default::default(),
            replayed: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            lines: AtomicU64::new(0),
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

/// Nanoseconds on the one clock that all stamps are from.
fn now() -> u64 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    nanos(ORIGIN.elapsed())
}

fn nanos(span: Duration) -> u64 {
    span.as_nanos() as u64
}

fn summary(
    seed: u64,
    length: Duration,
    world: &World,
    book: &Book,
    memory: &Option<Memory>,
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
    let (total, count) = (world.answered.load(Relaxed), &book.count);
    let memory = match memory {
        None => String::from("not measured"),
        Some(Memory { early, late }) => {
            let change = 100.0 * (*late as f64 / *early as f64 - 1.0);
            format!("{early} kB -> {late} kB ({change:+.1} %)")
        }
    };
    format!(
        "soak: seed {seed}, {} s, {total} requests ({}/s): {ok} served ({} after a replay), \
         {refused} refused with a 401, {no_token} without a token, {given_up} given up, {broken} \
         broken; {} faults, {} tokens revoked, {} secrets; {} token requests for {} tokens, {} \
         failed flights and {} lost ones; {} renewals for 401s, budget spent \
         {} times; {} lines of log; violations {}; memory {memory}; tasks left {tasks}",
        length.as_secs(),
        total / length.as_secs().max(1),
        world.replayed.load(Relaxed),
        book.faults.over,
        count.revoked,
        book.written.1 + 1,
        count.attempts,
        count.tokens,
        count.failed_flights,
        count.lost_flights,
        count.suspected,
        count.budgets_spent,
        world.lines.load(Relaxed),
        book.violations.len(),
    )
}
