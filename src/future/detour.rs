//! The rare ways of a request: no token for it, a wait for one, a renewal before it is sent again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Request;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::bearer::{Bearer, Spare};
use crate::cache::current::Token;
use crate::cache::{Cache, Wait};
use crate::error::Error;
use crate::replay::ReplayBody;
use crate::runtime::timer;

/// What a request with a token at hand that is not refused never needs. Boxed, so that it does not pay for it in moves.
pub(super) enum Detour<S, B, R>
where
    S: Service<Request<B>>,
{
    /// The request must not have a token.
    Refused(Option<Error>),
    Authorizing(Pin<Box<Authorizing<S, B, R>>>),
    Renewing(Pin<Box<Renewing<S, B>>>),
}

/// Where a detour ends.
pub(super) enum Exit<S, B>
where
    S: Service<Request<B>>,
{
    Call(S::Future, Bearer<S, B>),
    Answer(S::Response),
}

pin_project! {
    /// A request that waits for its first token, with the inner service that was polled ready for it.
    pub(super) struct Authorizing<S, B, R> {
        #[pin]
        pub(super) wait: Wait,
        pub(super) ready: S,
        pub(super) request: Option<Request<B>>,
        pub(super) origin: u64,
        pub(super) replay: R,
    }
}

pin_project! {
    /// A request that was refused and is to be sent again.
    pub(super) struct Renewing<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        wait: Wait,
        renewed: Option<Arc<Token>>,
        refused: Arc<Token>,
        // How long the refusal may be held back.
        until: Instant,
        // Until the service is ready. It may never be: the body of the refusal can hold the very
        // slot that it waits for.
        #[pin]
        limit: Option<Sleep>,
        origin: u64,
        spare: Spare<S, B>,
        // The refusal, which is the answer if it comes to nothing.
        answer: Option<S::Response>,
    }
}

impl<S, B, R> Detour<S, B, R>
where
    S: Service<Request<B>> + Clone,
    R: ReplayBody<B>,
{
    #[cold]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Exit<S, B>, Error>> {
        match self {
            Self::Refused(error) => {
                let error = error.take().expect("polled after it was ready");
                Poll::Ready(Err(error))
            }
            Self::Authorizing(waiting) => {
                let waiting = waiting.as_mut().project();
                let token = ready!(waiting.wait.poll(cx))?;
                let mut request = waiting.request.take().expect("polled after it was ready");
                let bearer = Bearer::new(
                    &mut request,
                    token,
                    *waiting.origin,
                    waiting.ready,
                    waiting.replay,
                );
                Poll::Ready(Ok(Exit::Call(waiting.ready.call(request), bearer)))
            }
            Self::Renewing(renewing) => renewing.as_mut().poll_replay(cx).map(Ok),
        }
    }
}

impl<S, B> Renewing<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn new(
        cache: Arc<Cache>,
        refused: &Arc<Token>,
        origin: u64,
        spare: Spare<S, B>,
        answer: S::Response,
    ) -> Self {
        Self {
            until: Instant::now() + cache.flight_timeout(),
            limit: None,
            wait: Wait::newer_than(cache, refused),
            renewed: None,
            refused: Arc::clone(refused),
            origin,
            spare,
            answer: Some(answer),
        }
    }

    /// The replay, or the first answer when there is none.
    fn poll_replay(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exit<S, B>> {
        let mut this = self.project();
        let first = |answer: &mut Option<_>| {
            let answer = answer.take().expect("polled after it was ready");
            Poll::Ready(Exit::Answer(answer))
        };
        let token = match this.renewed {
            Some(token) => token,
            None => match ready!(this.wait.poll(cx)) {
                // The server gave the refused token again; the API would refuse it again.
                Ok(token) if token.same_value(this.refused) => return first(this.answer),
                Ok(token) => this.renewed.insert(token),
                Err(_) => return first(this.answer),
            },
        };
        // Polled ready only now, just before its call: a reservation made earlier could wait here for as long as a flight.
        match this.spare.not_ready.poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return first(this.answer),
            Poll::Pending => {
                if this.limit.is_none() {
                    let Some(limit) = timer(*this.until) else {
                        return first(this.answer);
                    };
                    this.limit.set(Some(limit));
                }
                let limit = this.limit.as_mut().as_pin_mut();
                let limit = limit.expect("it was just set");
                ready!(limit.poll(cx));
                return first(this.answer);
            }
        }
        let mut request = this
            .spare
            .request
            .take()
            .expect("polled after it was ready");
        let bearer = Bearer::again(&mut request, token, *this.origin);
        let response = this.spare.not_ready.call(request);
        Poll::Ready(Exit::Call(response, bearer))
    }
}
