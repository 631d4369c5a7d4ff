//! Failures of the token endpoint: their class, who backs off, for how long, and what ends it.

// The table that the crate uses; the docs show a rendering of it.
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/error/class.rs"]
mod class;
#[path = "../support/mod.rs"]
mod support;

mod backoff;
mod body;
mod flight;
mod retry_after;
mod secret;
mod table;

use tower_oauth::TokenParams;

fn other(scope: &str) -> TokenParams {
    TokenParams::new().with_scope(scope).unwrap()
}
