//! `Clone`, `Send`, `Sync` and `Unpin` where users count on them.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::util::BoxCloneSyncService;
use tower_oauth::future::ResponseFuture;
use tower_oauth::{
    AccessToken, BuildError, CacheStatus, CloneBody, Error, OAuth, OAuthLayer, Secret, TokenCache,
    TokenParams, TokenResponse, TokenSource,
};

type Inner =
    BoxCloneSyncService<Request<Full<Bytes>>, http::Response<Full<Bytes>>, tower::BoxError>;

fn is_clone_send_sync<T: Clone + Send + Sync + 'static>() {}
fn is_send_sync<T: Send + Sync + 'static>() {}
fn is_send<T: Send + 'static>() {}
fn is_unpin<T: Unpin>() {}

#[test]
fn what_is_shared_is_clone_send_and_sync() {
    is_clone_send_sync::<OAuthLayer>();
    is_clone_send_sync::<OAuthLayer<CloneBody>>();
    is_clone_send_sync::<OAuth<Inner>>();
    is_clone_send_sync::<TokenCache>();
    is_clone_send_sync::<AccessToken>();
    is_clone_send_sync::<TokenParams>();
    is_clone_send_sync::<TokenResponse>();
    is_clone_send_sync::<Secret>();
    is_clone_send_sync::<Error>();
    is_clone_send_sync::<CacheStatus>();
    is_send_sync::<BuildError>();
    is_send_sync::<Box<dyn TokenSource>>();
}

#[test]
fn a_response_future_is_send_when_its_inner_service_is() {
    is_send::<ResponseFuture<Inner, Full<Bytes>, ()>>();
    is_send::<ResponseFuture<Inner, Full<Bytes>, CloneBody>>();
}

#[test]
fn a_response_future_is_unpin_when_the_inner_one_is() {
    is_unpin::<ResponseFuture<Inner, Full<Bytes>, ()>>();
}

#[test]
fn a_service_of_ours_can_be_boxed() {
    let layer = OAuthLayer::client_credentials("http://localhost/token", "id", "secret")
        .token_client(tower::service_fn(|_: Request<Full<Bytes>>| async {
            Err::<http::Response<Full<Bytes>>, _>(std::io::Error::other("never called"))
        }))
        .build()
        .unwrap();
    let inner: Inner =
        BoxCloneSyncService::new(tower::service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, tower::BoxError>(http::Response::new(Full::default()))
        }));
    let _: Inner = BoxCloneSyncService::new(tower::Layer::layer(&layer, inner));
}
