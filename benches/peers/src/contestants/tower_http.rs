use std::sync::Arc;

use tower::Layer;
use tower_http::auth::{AddAuthorization as Service, AddAuthorizationLayer};

use super::{Contestant, Kind};
use crate::endpoint::Endpoint;
use crate::request::{Error, Sink, TOKEN, Tower};

/// A header value that never changes: the least that a layer can do.
pub struct AddAuthorization;

impl Contestant for AddAuthorization {
    type Client = Tower<Service<Sink>>;

    const NAME: &'static str = "tower-http's `AddAuthorizationLayer` (a fixed header)";
    const PACKAGE: Option<&'static str> = Some("tower-http");
    const KIND: Kind = Kind::Static;

    async fn client(_: &Arc<Endpoint>) -> Result<Self::Client, Error> {
        Ok(Tower(
            AddAuthorizationLayer::bearer(TOKEN).layer(Sink::new()),
        ))
    }
}
