//! A burst of callers who find no token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower::{Layer, Service, ServiceExt};
use tower_oauth::OAuthLayer;

use crate::support::{NoOp, Slow, request};

/// How long `callers` who find no token take, all of them, at an endpoint that answers after
/// `delay`. They make one token request.
pub(crate) async fn cold(callers: usize, delay: Duration) -> Duration {
    let source = Arc::new(Slow::new(delay));
    let service = OAuthLayer::new(Arc::clone(&source)).layer(NoOp);
    let began = Instant::now();
    let mut tasks = Vec::with_capacity(callers);
    for _ in 0..callers {
        let mut service = service.clone();
        tasks.push(tokio::spawn(async move {
            service.ready().await?.call(request()).await
        }));
    }
    for task in tasks {
        task.await.expect("no panic").expect("a token");
    }
    let took = began.elapsed();
    assert_eq!(source.requests(), 1, "token requests for {callers} callers");
    took
}
