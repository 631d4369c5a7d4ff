//! Grants: how a token is got.

mod attempt;
mod client_credentials;
#[cfg(feature = "client")]
mod default_client;
mod endpoint;
mod fields;
mod json;
mod request;
mod response;
mod source;
mod token_request;

pub(crate) use self::attempt::{Stage, within_attempt};
pub use self::client_credentials::{ClientCredentials, ClientCredentialsBuilder};
pub use self::source::{TokenFuture, TokenSource};
pub use self::token_request::TokenRequest;
pub(crate) use self::token_request::form_size;
