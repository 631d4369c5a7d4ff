//! Bad days, played against real sockets: what the caller is told, and what the log says.
//!
//! `src/docs/failure.md` quotes what is seen here, word for word. This test checks the page, or
//! writes it:
//!
//! ```sh
//! TOWER_OAUTH_WRITE_FAILURE=1 cargo test -p tower-oauth-stacks --test bad_days
//! ```
//!
//! Some of the texts quote the operating system, so it runs on Linux only.
#![cfg(target_os = "linux")]

mod answers;
mod api;
mod credentials;
mod network;
mod page;
mod play;
mod program;
mod server;

use std::time::{Duration, Instant};

use play::{SECRET, Seen};
use tokio::runtime::Builder;

#[test]
fn the_page_of_failures_has_what_is_said_on_bad_days() {
    let started = Instant::now();
    let servers = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut days = Vec::new();
    days.extend(network::reaching_it(&servers));
    days.extend(network::tls(&servers));
    days.extend(credentials::credentials(&servers));
    days.extend(answers::something_else_answers(&servers));
    days.extend(answers::the_provider(&servers));
    days.extend(program::what_is_asked_for(&servers));
    days.extend(program::this_program(&servers));
    days.extend(api::the_api(&servers));
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

/// What went wrong, and what the caller and the log were told.
struct Day {
    name: &'static str,
    /// Its heading on the page.
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

    fn class(&self) -> &'static str {
        self.seen.class
    }
}

const NO_FAILURE: &str = "no failure of a token request";

fn of_group<const N: usize>(group: &'static str, days: [Day; N]) -> [Day; N] {
    days.map(|day| Day { group, ..day })
}
