//! The course. Every part of it ends by itself: the counts are fixed, and nothing runs longer than
//! `BOUND`.

use std::hint::{self, black_box};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::{JoinError, JoinSet, unconstrained};
use tokio::time::{sleep, timeout, timeout_at};

use crate::contestants::{Contestant, Kind};
use crate::endpoint::Endpoint;
use crate::request::{Client, Error, TOKEN};

pub const CALLERS: usize = 10_000;
pub const CALLS: u64 = 1_000;
pub const OTHERS: u64 = 9;
pub const ANSWER: Duration = Duration::from_millis(50);
pub const BOUND: Duration = Duration::from_secs(3);
pub const ROUNDS: usize = 400;
/// Short, so that many of them fit between two interruptions.
const ROUND: Duration = Duration::from_micros(300);
const COUNTED: u32 = 10_000;
const HERDS: usize = 5;

/// Per request that finds its token cached.
#[derive(Clone, Copy)]
pub struct Cached {
    pub nanos: f64,
    /// With two threads at once, each with a clone of its own.
    pub nanos_of_two: f64,
    pub allocations: f64,
    pub bytes: f64,
}

pub struct Herd {
    pub requests: u64,
    pub waiting: usize,
    pub took: Duration,
}

pub struct AfterFailure {
    pub requests: u64,
    pub calls: u64,
}

pub struct Dropped {
    pub requests: u64,
    pub served: u64,
}

pub enum Crowd {
    /// It gets no token by itself.
    None,
    /// No caller comes before the token: the token requests until there was a client, or none to be
    /// had.
    Eager { healthy: u64, failing: u64 },
    Lazy {
        healthy: Herd,
        failing: Herd,
        after_failure: AfterFailure,
        dropped: Dropped,
    },
}

/// A contestant on the cached path, without its type, so that all of them can take turns.
pub trait Racer {
    fn round(&mut self) -> Result<(), Error>;
    fn round_of_two(&mut self) -> Result<(), Error>;
    fn result(&mut self) -> Result<Cached, Error>;
}

/// All take turns, so that a bad moment of the machine is a bad moment for each of them.
pub fn race(racers: &mut [Box<dyn Racer + '_>]) -> Result<Vec<Cached>, Error> {
    for _ in 0..ROUNDS {
        for racer in &mut *racers {
            racer.round()?;
        }
    }
    for _ in 0..ROUNDS {
        for racer in &mut *racers {
            racer.round_of_two()?;
        }
    }
    racers.iter_mut().map(|racer| racer.result()).collect()
}

pub fn racer<'a, C: Contestant>(runtime: &'a Runtime) -> Result<Box<dyn Racer + 'a>, Error> {
    let endpoint = Endpoint::healthy(Duration::ZERO);
    let mut client = runtime.block_on(C::client(&endpoint))?;
    let sent = runtime.block_on(client.request())?;
    let expected = (C::KIND != Kind::Bare).then(|| format!("Bearer {TOKEN}"));
    if C::Client::authorization(&sent) != expected.as_deref() {
        return Err("it sent something else".into());
    }
    let trial = round(runtime, &mut client, 1_000)?.took();
    let count = 1_000 * ROUND.as_nanos() / trial.as_nanos().max(1);
    Ok(Box::new(Runner {
        name: C::NAME,
        runtime,
        endpoint,
        other: client.clone(),
        client,
        count: u32::try_from(count)?.clamp(100, 10_000),
        alone: Vec::new(),
        together: Vec::new(),
        spent: Duration::ZERO,
    }))
}

struct Runner<'a, C> {
    name: &'static str,
    runtime: &'a Runtime,
    endpoint: Arc<Endpoint>,
    client: C,
    other: C,
    count: u32,
    alone: Vec<Duration>,
    together: Vec<Duration>,
    spent: Duration,
}

impl<C: Client> Racer for Runner<'_, C> {
    fn round(&mut self) -> Result<(), Error> {
        let took = round(self.runtime, &mut self.client, self.count)?.took();
        self.alone.push(took);
        Ok(())
    }

    fn round_of_two(&mut self) -> Result<(), Error> {
        if self.spent > BOUND {
            return Ok(());
        }
        let (runtime, count) = (self.runtime, self.count);
        let arrived = AtomicUsize::new(0);
        let run = |client: &mut C| {
            arrived.fetch_add(1, Ordering::AcqRel);
            // Spinning, as a thread that has to be woken comes when the other one is done.
            while arrived.load(Ordering::Acquire) < 2 {
                hint::spin_loop();
            }
            round(runtime, client, count)
        };
        let (one, other) = thread::scope(|scope| {
            let other = scope.spawn(|| run(&mut self.other));
            (run(&mut self.client), other.join().expect("no panic"))
        });
        let (one, other) = (one?, other?);
        let whole = one.end.max(other.end) - one.start.min(other.start);
        let (start, end) = (one.start.max(other.start), one.end.min(other.end));
        // Only if the two really ran at the same time.
        if end.saturating_duration_since(start) > whole * 9 / 10 {
            self.together.push(whole);
        }
        self.spent += whole;
        Ok(())
    }

    fn result(&mut self) -> Result<Cached, Error> {
        let alone = quartile(&mut self.alone).ok_or("no rounds")?;
        let together = quartile(&mut self.together)
            .ok_or_else(|| format!("{}: the two threads never met", self.name))?;
        let mut counted = Ok(());
        let allocated = allocation_counter::measure(|| {
            counted = round(self.runtime, &mut self.client, COUNTED).map(drop);
        });
        counted?;
        let asked = self.endpoint.requests();
        if asked > 1 {
            return Err(format!("{}: {asked} token requests", self.name).into());
        }
        let count = f64::from(self.count);
        Ok(Cached {
            nanos: alone / count,
            nanos_of_two: together / count,
            allocations: allocated.count_total as f64 / f64::from(COUNTED),
            bytes: allocated.bytes_total as f64 / f64::from(COUNTED),
        })
    }
}

/// In nanoseconds. Lower than the middle, as the neighbours on a machine only ever add to a time;
/// and not the lowest, as that would be the round in which two threads that fight for a lock did
/// not meet.
fn quartile(rounds: &mut [Duration]) -> Option<f64> {
    rounds.sort();
    let round = rounds.get(rounds.len() / 4)?;
    Some(round.as_nanos() as f64)
}

struct Span {
    start: Instant,
    end: Instant,
}

impl Span {
    fn took(&self) -> Duration {
        self.end - self.start
    }
}

// Without tokio's budget, which would park the thread in the middle of a round when it is used up.
fn round(runtime: &Runtime, client: &mut impl Client, count: u32) -> Result<Span, Error> {
    runtime.block_on(unconstrained(async {
        let start = Instant::now();
        for _ in 0..count {
            black_box(client.request().await?);
        }
        let end = Instant::now();
        Ok(Span { start, end })
    }))
}

pub async fn crowd<C: Contestant>() -> Result<Crowd, Error> {
    Ok(match C::KIND {
        Kind::Bare | Kind::Static => Crowd::None,
        Kind::Eager => {
            let (up, down) = (Endpoint::healthy(ANSWER), Endpoint::failing(ANSWER));
            C::client(&up).await?;
            if timeout(BOUND, C::client(&down)).await?.is_ok() {
                return Err("there is no token, but a client".into());
            }
            Crowd::Eager {
                healthy: up.requests(),
                failing: down.requests(),
            }
        }
        Kind::Lazy => Crowd::Lazy {
            healthy: healthy_herd::<C>().await?,
            failing: herd::<C>(false).await?,
            after_failure: after_failure::<C>().await?,
            dropped: first_dropped::<C>().await?,
        },
    })
}

/// The quickest of a few, with the most token requests of them.
async fn healthy_herd<C: Contestant>() -> Result<Herd, Error> {
    let mut best = herd::<C>(true).await?;
    for _ in 1..HERDS {
        let herd = herd::<C>(true).await?;
        best.requests = best.requests.max(herd.requests);
        best.waiting = best.waiting.max(herd.waiting);
        best.took = best.took.min(herd.took);
    }
    Ok(best)
}

async fn herd<C: Contestant>(healthy: bool) -> Result<Herd, Error> {
    let endpoint = if healthy {
        Endpoint::healthy(ANSWER)
    } else {
        Endpoint::failing(ANSWER)
    };
    let client = C::client(&endpoint).await?;
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let mut client = client.clone();
        callers.spawn(async move { client.request().await.is_ok() });
    }
    let mut served = 0;
    let deadline = (start + BOUND).into();
    // Past the deadline, those who still wait are counted and sent home.
    timeout_at(deadline, async {
        while let Some(caller) = callers.join_next().await {
            served += usize::from(caller?);
        }
        Ok::<_, JoinError>(())
    })
    .await
    .unwrap_or(Ok(()))?;
    let herd = Herd {
        requests: endpoint.requests(),
        waiting: callers.len(),
        took: start.elapsed(),
    };
    callers.shutdown().await;
    let expected = if healthy { CALLERS - herd.waiting } else { 0 };
    if served != expected {
        return Err(format!("{served} of {CALLERS} callers were served").into());
    }
    Ok(herd)
}

/// One call that fails, and then as many as there is time for, one by one without a pause.
async fn after_failure<C: Contestant>() -> Result<AfterFailure, Error> {
    let endpoint = Endpoint::failing(Duration::ZERO);
    let mut client = C::client(&endpoint).await?;
    if timeout(BOUND, client.request()).await?.is_ok() {
        return Err("there is no token, but a request".into());
    }
    let before = endpoint.requests();
    let mut calls = 0;
    let calling = async {
        while calls < CALLS {
            if client.request().await.is_ok() {
                break;
            }
            calls += 1;
        }
    };
    // Some contestants let calls wait for the next attempt.
    let _ = timeout(BOUND, calling).await;
    Ok(AfterFailure {
        requests: endpoint.requests() - before,
        calls,
    })
}

/// The caller that started the fetch goes away while others wait for it.
async fn first_dropped<C: Contestant>() -> Result<Dropped, Error> {
    let endpoint = Endpoint::healthy(ANSWER);
    let client = C::client(&endpoint).await?;
    let mut own = client.clone();
    let first = tokio::spawn(async move { own.request().await.is_ok() });
    timeout(BOUND, async {
        while endpoint.requests() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await?;
    let mut others = JoinSet::new();
    for _ in 0..OTHERS {
        let mut client = client.clone();
        others.spawn(async move { client.request().await.is_ok() });
    }
    sleep(ANSWER / 5).await;
    first.abort();
    let mut served = 0;
    timeout(BOUND, async {
        while let Some(other) = others.join_next().await {
            served += u64::from(other?);
        }
        Ok::<_, JoinError>(())
    })
    .await
    .unwrap_or(Ok(()))?;
    Ok(Dropped {
        requests: endpoint.requests(),
        served,
    })
}
