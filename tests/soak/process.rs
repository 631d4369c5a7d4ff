//! What the process shows: its memory, its tasks and its log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::sleep;
use tracing::Level;
use tracing::subscriber::set_global_default;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, registry};

use crate::World;

/// Resident kilobytes after the first ten seconds, and at the end.
pub(crate) struct Memory {
    pub(crate) early: u64,
    pub(crate) late: u64,
}

/// A machine that is too slow to have warmed the heap in ten seconds has up to half of the time for
/// it.
pub(crate) async fn watch_memory(world: &World, length: Duration) -> Option<Memory> {
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
pub(crate) async fn tasks_left() -> usize {
    for _ in 0..500 {
        if Handle::current().metrics().num_alive_tasks() == 0 {
            return 0;
        }
        sleep(Duration::from_millis(20)).await;
    }
    Handle::current().metrics().num_alive_tasks()
}

/// Has all that the layer logs looked at for secrets.
pub(crate) fn watch_log(world: &Arc<World>) {
    let world = Arc::clone(world);
    let lines = layer()
        .with_writer(move || Lines(Arc::clone(&world)))
        .with_ansi(false)
        .with_filter(Targets::new().with_target("tower_oauth", Level::TRACE));
    set_global_default(registry().with(lines)).unwrap();
}

struct Lines(Arc<World>);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lines.fetch_add(1, Relaxed);
        let text = String::from_utf8_lossy(line);
        if shows_a_secret(&text) {
            self.0
                .book()
                .violation(format!("a secret in the log: {text}"));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the text has a token, a client secret or the two credentials in Basic's form.
pub(crate) fn shows_a_secret(text: &str) -> bool {
    let numbered = |word: &str| {
        let mut ends = text
            .match_indices(word)
            .map(|(start, _)| start + word.len());
        ends.any(|end| text[end..].starts_with(|next: char| next.is_ascii_digit()))
    };
    numbered("token-") || numbered("secret-") || text.contains(BASIC)
}

/// How base64 begins for `soak:secret-`.
const BASIC: &str = "c29hazpzZWNyZXQt";
