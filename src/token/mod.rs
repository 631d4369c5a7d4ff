//! The access token, how long it lives, and the clock that counts its age.

mod access_token;
pub(crate) mod clock;
mod response;
mod schedule;

pub use self::access_token::AccessToken;
pub(crate) use self::access_token::Token;
#[cfg(feature = "test-util")]
pub use self::clock::ManualClock;
pub(crate) use self::clock::{Clock, Timestamp};
pub use self::response::TokenResponse;
pub(crate) use self::schedule::{Freshness, Schedule};
