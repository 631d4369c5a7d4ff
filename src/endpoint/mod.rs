//! One exchange with a token endpoint: the client-credentials grant.

mod answer;
mod attempt;
mod client;
mod client_credentials;
mod fields;
mod json;
mod request;

pub(crate) use self::attempt::{Stage, within_attempt};
pub use self::client_credentials::{ClientCredentials, ClientCredentialsBuilder};
