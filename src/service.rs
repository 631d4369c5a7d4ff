//! The service that puts the token on each request.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use tower_service::Service;

use crate::cache::current::Token;
use crate::cache::{Cache, TokenCache};
use crate::destination::{Destinations, Verdict};
use crate::error::{BoxError, Error};
use crate::future::{Bearer, ResponseFuture};
use crate::params::TokenParams;
use crate::replay::{NoReplay, ReplayBody};

/// What a layer, its clones and its services share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cache: Arc<Cache>,
    pub(crate) destinations: Destinations,
    pub(crate) keep_authorization: bool,
}

/// The middleware of [`OAuthLayer`](crate::OAuthLayer): sets `Authorization: Bearer …` on every request. See the crate's page.
///
/// `S: Clone` is needed to call it: a request that waits for a token takes the instance with it that was polled ready.
pub struct OAuth<S, R = NoReplay> {
    inner: S,
    shared: Arc<Shared>,
    /// The token of the last request, so that the next one need not look for it.
    last: Option<Arc<Token>>,
    replay: R,
}

/// In a request's extensions: send it without a token. For health checks and the like.
///
/// No token is fetched for it, and neither its `Authorization` header nor its destination is looked at.
///
/// ```
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(tower_oauth::NoToken);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoToken;

impl<S, R> OAuth<S, R> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>, replay: R) -> Self {
        Self {
            inner,
            shared,
            last: None,
            replay,
        }
    }

    /// The token cache, which this service shares with its layer.
    #[must_use]
    pub fn token_cache(&self) -> TokenCache {
        TokenCache::new(Arc::clone(&self.shared.cache))
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, R, B, ResB> Service<Request<B>> for OAuth<S, R>
where
    S: Service<Request<B>, Response = Response<ResB>> + Clone,
    S::Error: Into<BoxError>,
    R: ReplayBody<B> + Clone,
{
    type Response = Response<ResB>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, R>;

    /// Asks the inner service and nothing else: a token that cannot be had is the failure of a request, not of the service.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let shared = &*self.shared;
        let extensions = request.extensions();
        let keeps = shared.keep_authorization && request.headers().contains_key(AUTHORIZATION);
        if keeps || extensions.get::<NoToken>().is_some() {
            return ResponseFuture::pass(self.inner.call(request));
        }
        let Some(origin) = shared.destinations.find(&request) else {
            return self.elsewhere(request);
        };
        let token = match extensions.get::<TokenParams>() {
            None => shared.cache.free_token(&mut self.last),
            Some(other) => shared.cache.free_token_for(other),
        };
        let Some(token) = token else {
            return self.decide(request, origin);
        };
        let bearer = Bearer::new(&mut request, token, origin, &self.inner, &self.replay);
        ResponseFuture::call(self.inner.call(request), bearer)
    }
}

impl<S, R> OAuth<S, R> {
    /// A request to a place that may not have the token.
    #[cold]
    fn elsewhere<B>(&mut self, request: Request<B>) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>> + Clone,
    {
        let destinations = &self.shared.destinations;
        match destinations.otherwise(request.method(), request.uri()) {
            Verdict::Pass => ResponseFuture::pass(self.inner.call(request)),
            Verdict::Refused(error) => self.refuse(error),
        }
    }

    /// A request for which there is no token that may be used without asking.
    #[cold]
    fn decide<B>(&mut self, mut request: Request<B>, origin: u64) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>> + Clone,
        R: ReplayBody<B> + Clone,
    {
        let cache = &self.shared.cache;
        let other = request.extensions().get::<TokenParams>();
        let kind = other.unwrap_or_else(|| cache.own()).clone();
        match cache.decide(&kind) {
            Some(Ok(token)) => {
                let bearer = Bearer::new(&mut request, token, origin, &self.inner, &self.replay);
                ResponseFuture::call(self.inner.call(request), bearer)
            }
            Some(Err(error)) => self.refuse(error),
            None => {
                // The instance that was polled ready waits with the request, and keeps what it
                // reserved.
                let ready = self.take_ready();
                let cache = &self.shared.cache;
                let replay = self.replay.clone();
                ResponseFuture::authorize(ready, request, cache, kind, origin, replay)
            }
        }
    }

    /// Gives back what the inner service reserved when it was polled ready, since it will not be
    /// called.
    fn refuse<B>(&mut self, error: Error) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>> + Clone,
    {
        drop(self.take_ready());
        ResponseFuture::refuse(error)
    }

    /// The instance that was polled ready. The clone left behind has to be polled again.
    fn take_ready(&mut self) -> S
    where
        S: Clone,
    {
        let not_ready = self.inner.clone();
        mem::replace(&mut self.inner, not_ready)
    }
}

impl<S: Clone, R: Clone> Clone for OAuth<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
            // Not shared: a clone is likely to be used on another thread, which finds a copy of its own.
            last: None,
            replay: self.replay.clone(),
        }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for OAuth<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
