//! One exchange with a token endpoint: the client-credentials grant.
//!
//! Rules: R23, R24, R27.

mod answer;
mod body;
mod client;
mod client_credentials;
mod fields;
mod form;
mod json;
mod request;
mod retry_after;
mod token_url;

pub use self::client_credentials::ClientCredentials;
pub(crate) use self::client_credentials::Settings;
