//! The service that puts the token on each request.
//!
//! Rules: R1, R2, R3, R4, R25.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use tower_service::Service;

use crate::cache::current::{Reader, Token};
use crate::cache::{self, Cache, TokenCache};
use crate::destination::{Check, Destinations};
use crate::error::{BoxError, Error};
use crate::future::{self, ResponseFuture};
use crate::params::TokenParams;
use crate::replay::ReplayBody;

/// What a layer, its clones and its services share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cache: Arc<Cache>,
    pub(crate) destinations: Destinations,
    pub(crate) keep_authorization: bool,
}

/// The middleware of [`OAuthLayer`](crate::OAuthLayer): it sets `Authorization: Bearer …` on every
/// request. See the crate's page.
///
/// Calling it needs `S: Clone`: a request that waits for a token takes the instance along that was
/// polled ready.
pub struct OAuth<S, R = ()> {
    inner: S,
    shared: Arc<Shared>,
    reader: Reader,
    replay: R,
}

/// A marker for a request's extensions: the request goes out without a token, for example for a
/// health check.
///
/// No token is fetched for it, and neither its `Authorization` header nor its destination is looked
/// at.
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
            reader: Reader::default(),
            replay,
        }
    }

    /// The token cache, which this service shares with its layer.
    #[must_use]
    pub fn token_cache(&self) -> TokenCache {
        TokenCache::new(Arc::clone(&self.shared.cache))
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without the layer.
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

    /// Asks the inner service and nothing else: a token that cannot be had is the failure of a
    /// request, not of the service.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    // Not inlined, so that the request is not copied into a frame of the caller's first.
    #[inline(never)]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let shared = &*self.shared;
        // Two cheap checks single out the rare cases, which have their own function.
        if !request.extensions().is_empty() || shared.keep_authorization {
            return self.call_with_options(request);
        }
        let Some(origin) = shared.destinations.usual(request.method(), request.uri()) else {
            return self.call_unusual(request);
        };
        let Some(token) = shared.cache.free_token(&mut self.reader) else {
            return self.decide(request, origin);
        };
        let bearer = future::attach(&mut request, token, origin);
        let spare = future::spare(&request, &self.inner, &self.replay, &shared.cache);
        // The token is referred to again only after the call: what has a destructor and is alive
        // across it would make it an unwinding one, whose result is copied.
        let response = self.inner.call(request);
        ResponseFuture::calling(response, bearer, Arc::clone(token), spare)
    }
}

impl<S, R> OAuth<S, R> {
    /// A request that has something in its extensions, or an `Authorization` that may be kept.
    #[inline(never)]
    fn call_with_options<B>(&mut self, request: Request<B>) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>> + Clone,
        R: ReplayBody<B> + Clone,
    {
        let shared = &*self.shared;
        let extensions = request.extensions();
        let keeps = shared.keep_authorization && request.headers().contains_key(AUTHORIZATION);
        if keeps || extensions.get::<NoToken>().is_some() {
            return ResponseFuture::passing(self.inner.call(request));
        }
        let origin = match shared.destinations.check(&request) {
            Check::Attach(origin) => origin,
            other => return self.without_token(request, other),
        };
        let token = match extensions.get::<TokenParams>() {
            None => shared.cache.free_token(&mut self.reader).map(Arc::clone),
            Some(other) => shared.cache.free_token_for(other),
        };
        match token {
            Some(token) => self.call_with(request, origin, token),
            None => self.decide(request, origin),
        }
    }

    /// A request that is not written as most are, or must not have a token.
    #[cold]
    #[inline(never)]
    fn call_unusual<B>(&mut self, request: Request<B>) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>> + Clone,
        R: ReplayBody<B> + Clone,
    {
        let shared = &*self.shared;
        let check = shared
            .destinations
            .check_unusual(request.method(), request.uri());
        let origin = match check {
            Check::Attach(origin) => origin,
            other => return self.without_token(request, other),
        };
        match shared.cache.free_token(&mut self.reader).map(Arc::clone) {
            Some(token) => self.call_with(request, origin, token),
            None => self.decide(request, origin),
        }
    }

    fn call_with<B>(
        &mut self,
        mut request: Request<B>,
        origin: u64,
        token: Arc<Token>,
    ) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>> + Clone,
        R: ReplayBody<B>,
    {
        let bearer = future::attach(&mut request, &token, origin);
        let spare = future::spare(&request, &self.inner, &self.replay, &self.shared.cache);
        ResponseFuture::calling(self.inner.call(request), bearer, token, spare)
    }

    #[cold]
    fn without_token<B>(&mut self, request: Request<B>, check: Check) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>> + Clone,
    {
        match check {
            Check::Error(error) => self.fail(error),
            Check::Pass | Check::Attach(_) => ResponseFuture::passing(self.inner.call(request)),
        }
    }

    /// A request for which there is no token that may be used without asking.
    #[cold]
    #[inline(never)]
    fn decide<B>(&mut self, request: Request<B>, origin: u64) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>> + Clone,
        R: ReplayBody<B> + Clone,
    {
        let cache = &self.shared.cache;
        let other = request.extensions().get::<TokenParams>();
        let params = other.unwrap_or_else(|| cache.own());
        match cache::at_once(cache, params) {
            Some(Ok(token)) => self.call_with(request, origin, token),
            Some(Err(error)) => self.fail(error),
            None => {
                let wait = cache::wait(Arc::clone(cache), params.clone(), None);
                let cache = Arc::clone(cache);
                // The instance that was polled ready waits with the request, and keeps what it
                // reserved.
                let ready = self.take_ready();
                let replay = self.replay.clone();
                ResponseFuture::waiting(wait, ready, request, origin, replay, cache)
            }
        }
    }

    /// Gives back what the inner service reserved when it was polled ready, since it will not be
    /// called.
    fn fail<B>(&mut self, error: Error) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>> + Clone,
    {
        drop(self.take_ready());
        ResponseFuture::failing(error)
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
            // Not shared: a clone is likely to be used on another thread, which has a place of its
            // own.
            reader: Reader::default(),
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
