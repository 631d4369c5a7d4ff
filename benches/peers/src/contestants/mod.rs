//! The contestants, each used as its own documentation shows.

mod aws;
mod azure;
mod by_hand;
mod google;
mod huskarl;
mod middle;
mod toolkit;
mod tower_http;
mod tower_oauth;

use std::sync::Arc;

pub use self::aws::{BareSmithy, Smithy};
pub use self::azure::{Azure, BareAzure};
pub use self::by_hand::{Bare, HeldMutex, ReadWriteLock};
pub use self::google::Google;
pub use self::huskarl::Huskarl;
pub use self::middle::Middle;
pub use self::toolkit::Toolkit;
pub use self::tower_http::AddAuthorization;
pub use self::tower_oauth::TowerOAuth;
use crate::endpoint::Endpoint;
use crate::request::{Client, Error};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sets no token.
    Bare,
    /// Is given its token.
    Static,
    /// Has its first token before it has a client.
    Eager,
    /// Gets its first token when a caller needs it.
    Lazy,
}

/// The type of request, which decides what a contestant is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Http,
    Smithy,
    Azure,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    InProcess,
    Loopback,
}

pub trait Contestant {
    type Client: Client;

    const NAME: &'static str;
    /// The package whose version is shown.
    const PACKAGE: Option<&'static str> = None;
    const KIND: Kind = Kind::Lazy;
    const DIALECT: Dialect = Dialect::Http;
    const REACHED: Reached = Reached::InProcess;

    fn client(endpoint: &Arc<Endpoint>) -> impl Future<Output = Result<Self::Client, Error>>;
}
