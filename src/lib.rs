//! Tower middleware for HTTP **clients**: it gets an OAuth 2.0 access token with the
//! client-credentials grant (RFC 6749 §4.4), keeps it, renews it before it runs out, lets any
//! number of concurrent requests share one token request, and sets `Authorization: Bearer …` (RFC
//! 6750) on every request that goes out.
//!
//! ```no_run
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_oauth::OAuthLayer;
//!
//! # async fn run<S>(http_client: S) -> Result<(), tower_oauth::BoxError>
//! # where
//! #     S: Service<http::Request<String>, Response = http::Response<String>> + Clone,
//! #     S::Error: Into<tower_oauth::BoxError>,
//! # {
//! # #[cfg(feature = "client")] {
//! let url = "https://gw.example/oauth2/v1/token";
//! let oauth = OAuthLayer::client_credentials(url, "consumer-key", "consumer-secret")
//!     .scope("aisp")
//!     .allow_origin("https://api.example")
//!     .build()?;
//!
//! let client = ServiceBuilder::new().layer(oauth).service(http_client);
//! let request = http::Request::get("https://api.example/accounts").body(String::new())?;
//! let response = client.oneshot(request).await?;
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! Building the layer does no I/O and needs no runtime; the first request fetches the token. To
//! fetch it at start-up, and see a wrong secret there, await [`TokenCache::warm_up`].
//!
//! # Promises
//!
//! 1. **One token request** for any number of callers; dropping any of them changes nothing for the
//!    others.
//! 2. **A live token always wins**: it is used to its real end, whatever fails meanwhile.
//! 3. **Failures are shared and timed**: one error for all who waited, then a backoff in which
//!    calls fail at once and say when the next attempt is. No error is for ever.
//! 4. **A 401 concerns only the token it refused**, and an API that always answers 401 cannot make
//!    us storm the token endpoint.
//! 5. **Secrets do not leak**: not into errors, logs or `Debug`, and not to an origin that was not
//!    meant.
//! 6. **The cached path is free**: no lock, no box, no allocation. (Another kind of token than the
//!    layer's own costs one look-up under a lock.)
//!
//! They are spelled out, rule by rule, in the page on rules ([`docs::rules`]); what the crate does
//! not do is in [`docs::limitations`], and what its errors look like on bad days in
//! [`docs::failure`].
//!
//! # Ordering
//!
//! Put the layer **innermost**, next to the HTTP client: then the token is attached last, after
//! queues, limits and delays, and is not a minute old when it leaves. `retry` and `timeout` belong
//! outside. A retry that sees a 401 sends a request with a renewed token; a timeout cuts the wait
//! of its own request only, and the fetch goes on for the others.
//!
//! ```
//! # use std::time::Duration;
//! # use tower::ServiceBuilder;
//! # fn stack(oauth: tower_oauth::OAuthLayer, http_client: impl Clone) {
//! let client = ServiceBuilder::new()
//!     // .layer(retry)
//!     .timeout(Duration::from_secs(10))
//!     .layer(oauth)
//!     .service(http_client);
//! # }
//! ```
//!
//! Where it goes relative to other layers and clients, one by one and with tests:
//! [`docs::ordering`].
//!
//! # Runtime
//!
//! A token is fetched by a task of its own on the tokio runtime of the call that first needs it,
//! with time enabled. Outside of a runtime, and in one whose timers are off, such a call is an
//! error. Calls that find a token in the cache need no runtime.
//!
//! # Errors
//!
//! The service's error is [`BoxError`]: the inner service's own error, or one of this crate's
//! [`Error`]s, which you can `downcast_ref`. Its predicates say what kind of failure it is. Its
//! text is the whole story in one line, the innermost cause and what an operator can do included,
//! so it is enough to print it alone; `Debug` begins with it too. A bad configuration is a
//! [`BuildError`] from the builder.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `client` | yes | a token client over hyper and rustls; else give one with `token_client` |
//! | `aws-lc-rs` | yes | `client` with AWS-LC as its TLS provider |
//! | `ring` | no | `client` with ring as its TLS provider |
//! | `metrics` | no | `observe::Metrics`: counters and durations for the `metrics` facade |
//! | `tonic` | no | `grpc_status`: our errors as status codes that gRPC clients know |
//! | `test-util` | no | `ManualClock`, a clock that a test can move |
#![cfg_attr(docsrs, feature(doc_cfg))]
// Not for the tests and examples of the package, whose helpers may panic.
#![warn(clippy::unwrap_used)]

mod attempt;
mod builder;
mod cache;
pub mod challenge;
#[cfg(feature = "client")]
mod client;
mod client_auth;
mod clock;
mod destination;
#[cfg(any(doc, doctest))]
pub mod docs;
mod endpoint;
mod error;
pub mod future;
#[cfg(feature = "tonic")]
mod grpc;
mod guard;
mod layer;
pub mod observe;
mod origin;
mod params;
mod replay;
mod runtime;
mod secret;
mod service;
mod source;
mod sync;
mod token;

pub use self::builder::OAuthLayerBuilder;
pub use self::cache::{CachePolicy, CacheStatus, TokenCache};
pub use self::client_auth::{AuthRequest, ClientAuth};
#[cfg(feature = "test-util")]
pub use self::clock::ManualClock;
pub use self::endpoint::ClientCredentials;
pub use self::error::{BoxError, BuildError, Error};
#[cfg(feature = "tonic")]
pub use self::grpc::grpc_status;
pub use self::layer::OAuthLayer;
pub use self::params::TokenParams;
pub use self::replay::{CloneBody, ReplayBody, Replayed};
pub use self::secret::Secret;
pub use self::service::{NoToken, OAuth};
pub use self::source::{FetchCause, TokenFuture, TokenRequest, TokenSource};
pub use self::token::{AccessToken, TokenResponse};

// The README's examples are tests. Those that name a TLS provider need the default one.
#[cfg(all(doctest, feature = "aws-lc-rs"))]
#[doc = include_str!("../README.md")]
struct Readme;
