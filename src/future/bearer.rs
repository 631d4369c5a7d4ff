//! A request that carries a token, and what its answer says about that.

use std::pin::Pin;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Method, Request, Response};
use tower::Service;

use super::detour::Renewing;
use crate::cache::current::Token;
use crate::cache::{Cache, Refusal};
use crate::challenge::{self, Challenges};
use crate::replay::{self, ReplayBody};

/// What is known of a request that went out with a token.
pub(crate) struct Bearer<S, B> {
    token: Arc<Token>,
    origin: u64,
    spare: Option<Box<Spare<S, B>>>,
    pub(super) replayed: bool,
    /// Only a POST may be a gRPC call, whose answer has its status in a header.
    posted: bool,
}

/// A second copy of a request, and a service to send it with that has yet to be polled ready.
pub(super) struct Spare<S, B> {
    pub(super) request: Option<Request<B>>,
    pub(super) not_ready: S,
    /// The layer and the service may be gone by the time of the 401 (`oneshot` drops them), and the replay still needs a token.
    _cache: Option<Arc<Cache>>,
}

impl<S, B> Bearer<S, B> {
    /// Puts a renewed token on the copy.
    pub(super) fn again(request: &mut Request<B>, token: &Arc<Token>, origin: u64) -> Self {
        authorize(request, token);
        Self {
            token: Arc::clone(token),
            origin,
            spare: None,
            replayed: true,
            posted: *request.method() == Method::POST,
        }
    }

    /// Makes the copy that a replay may need, and puts the token on the request.
    #[inline]
    pub(crate) fn new<R>(
        request: &mut Request<B>,
        token: Arc<Token>,
        origin: u64,
        service: &S,
        replay: &R,
    ) -> Self
    where
        S: Clone,
        R: ReplayBody<B>,
    {
        let spare = replay::copy(replay, request).map(|copy| {
            Box::new(Spare {
                request: Some(copy),
                not_ready: service.clone(),
                _cache: token.cache.upgrade(),
            })
        });
        authorize(request, &token);
        Self {
            token,
            origin,
            spare,
            replayed: false,
            posted: *request.method() == Method::POST,
        }
    }

    #[inline(always)]
    pub(super) fn suspects<ResB>(&self, answer: &Response<ResB>) -> bool {
        challenge::is_suspicious(
            self.posted,
            answer.status(),
            answer.headers(),
            &self.token.refusals,
        )
    }

    /// If the token was refused, tells the cache, and prepares the replay if there is a copy to send and a renewal to hope for.
    /// Otherwise gives the answer back, with its challenges.
    #[cold]
    pub(super) fn look_closer<ResB>(
        &mut self,
        mut answer: Response<ResB>,
    ) -> Result<Pin<Box<Renewing<S, B>>>, Response<ResB>>
    where
        S: Service<Request<B>, Response = Response<ResB>>,
    {
        let challenges = Challenges::parse(answer.headers());
        let refused = challenge::refuses_token(
            self.posted,
            answer.status(),
            answer.headers(),
            &challenges,
            &self.token.refusals,
        );
        if !challenges.is_empty() {
            answer.extensions_mut().insert(challenges);
        }
        if !refused {
            return Err(answer);
        }
        // No cache any more means no layer, and nobody whose next request could renew.
        let Some(cache) = self.token.cache.upgrade() else {
            return Err(answer);
        };
        let refusal = cache.refuse(&self.token, self.origin);
        // A replay has no copy: there is never a third time, but the next request will renew.
        let spare = self.spare.take();
        let Some(spare) = spare.filter(|_| !matches!(refusal, Refusal::BudgetSpent { .. })) else {
            return Err(answer);
        };
        Ok(Box::pin(Renewing::new(
            cache,
            &self.token,
            self.origin,
            *spare,
            answer,
        )))
    }
}

/// The scheme is always the one we send, whatever the server called it; an earlier value is replaced.
#[inline]
fn authorize<B>(request: &mut Request<B>, token: &Token) {
    request
        .headers_mut()
        .insert(AUTHORIZATION, token.header().clone());
}
