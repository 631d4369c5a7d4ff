//! The HTTP client that carries token requests.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower_service::Service;

use crate::error::{BoxError, BuildError};

/// An HTTP client for token requests, whatever its type.
pub(crate) trait TokenClient: Send + Sync + 'static {
    fn exchange(&self, request: Request<Full<Bytes>>) -> Exchange;
}

// Three boxes for each attempt, so that everything else is compiled once and not for each client.
pub(super) type Exchange =
    Pin<Box<dyn Future<Output = Result<Response<ErasedBody>, BoxError>> + Send>>;
pub(super) type ErasedBody = Pin<Box<dyn Body<Data = ErasedData, Error = BoxError> + Send>>;
pub(super) type ErasedData = Box<dyn Buf + Send>;

impl<S, B> TokenClient for S
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Future: Send, Error: Into<BoxError>>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    fn exchange(&self, request: Request<Full<Bytes>>) -> Exchange {
        let mut client = self.clone();
        Box::pin(async move {
            let ready = poll_fn(|cx| client.poll_ready(cx)).await;
            ready.map_err(Into::into)?;
            let response = client.call(request).await.map_err(Into::into)?;
            Ok(response.map(erased))
        })
    }
}

pub(super) fn erased<B>(body: B) -> ErasedBody
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let body = body.map_err(Into::into);
    Box::pin(body.map_frame(|frame| frame.map_data(|data| Box::new(data) as ErasedData)))
}

#[cfg(feature = "client")]
pub(super) fn default_client(https: bool) -> Result<Arc<dyn TokenClient>, BuildError> {
    Ok(if https {
        Arc::new(crate::client::https()?)
    } else {
        Arc::new(crate::client::http())
    })
}

#[cfg(not(feature = "client"))]
pub(super) fn default_client(_: bool) -> Result<Arc<dyn TokenClient>, BuildError> {
    Err(BuildError::NO_TOKEN_CLIENT)
}
