//! The service `examples.Accounts`: its messages, and the client and server that tonic-build writes
//! for it.
//!
//! ```proto
//! package examples;
//! message Account { string id = 1; }
//! message Amount { string currency = 1; int64 cents = 2; }
//! service Accounts {
//!   rpc Balance(Account) returns (Amount);
//!   rpc Watch(Account) returns (stream Amount);
//! }
//! ```

mod generated;

pub use self::generated::{accounts_client, accounts_server};

#[derive(Clone, PartialEq, prost::Message)]
pub struct Account {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Amount {
    #[prost(string, tag = "1")]
    pub currency: String,
    #[prost(int64, tag = "2")]
    pub cents: i64,
}
