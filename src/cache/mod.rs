//! The token cache: one state machine, one flight per key, and the shell that carries out what the state machine decides.
//!
//! | file | what it is |
//! |---|---|
//! | `state`, `decision` | the state machine and its answers: no clock, no task, no I/O |
//! | `entries`, `entry` | what it keeps for each kind of token, and eviction |
//! | `policy`, `backoff`, `budget` | its numbers and arithmetic |
//! | `flight` | a fetch that many wait for |
//! | `shared` | the lock around the state machine, and the lock-free view of the current token |
//! | `turns` | who may fly, of those who would |
//! | `source` | the one place where the user's token source is called |
//! | `fetch`, `shared/landing` | the task that flies a flight, and what its end changes |
//! | `wait` | the future of a caller who waits |
//! | `handle` | what users see |

mod backoff;
mod budget;
pub(crate) mod current;
mod decision;
mod entries;
mod entry;
mod fetch;
mod flight;
mod handle;
pub(crate) mod lifetime;
#[cfg(all(test, model))]
mod model;
mod policy;
mod shared;
mod state;
mod sync;
mod turns;
mod wait;

pub(crate) use self::decision::Refusal;
pub use self::handle::{CacheStatus, TokenCache};
pub use self::policy::CachePolicy;
pub(crate) use self::shared::{Cache, CacheConfig};
pub(crate) use self::wait::Wait;
