//! Tower middleware for HTTP **clients**: it gets an OAuth 2.0 access token with the client-credentials grant, keeps it, renews it before it runs out,
//! and sets `Authorization: Bearer …` on every request that goes out.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod cache;
pub mod challenge;
mod client_auth;
mod destination;
mod error;
pub mod future;
mod grant;
mod layer;
pub mod observe;
mod replay;
mod secret;
mod service;
mod token;

pub use self::builder::OAuthLayerBuilder;
pub use self::cache::{RefreshPolicy, Status, TokenCache};
pub use self::client_auth::ClientAuth;
pub use self::error::{BoxError, BuildError, Error};
pub use self::grant::{
    ClientCredentials, ClientCredentialsBuilder, TokenFuture, TokenRequest, TokenSource,
};
pub use self::layer::OAuthLayer;
pub use self::replay::{CloneBody, EmptyBody, NoReplay, ReplayBody, Replayed};
pub use self::secret::Secret;
pub use self::service::{NoToken, OAuth};
#[cfg(feature = "test-util")]
pub use self::token::ManualClock;
pub use self::token::{AccessToken, TokenResponse};
