//! One exchange with a token endpoint: the client-credentials grant.

mod answer;
mod attempt;
mod body;
mod client;
mod client_credentials;
mod fields;
mod form;
mod json;
mod request;
mod retry_after;
mod token_url;

pub(crate) use self::attempt::{Stage, within_attempt};
pub use self::client::TokenClient;
pub use self::client_credentials::ClientCredentials;
pub(crate) use self::client_credentials::Settings;
