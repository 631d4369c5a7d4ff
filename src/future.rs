//! The future of one request through the layer.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use crate::cache::{Cache, Refusal, Wait};
use crate::challenge::{self, Challenges, Verdict};
use crate::error::{BoxError, Error};
use crate::grant::TokenRequest;
use crate::replay::{self, ReplayBody};
use crate::token::Token;

pin_project! {
    /// The future of [`OAuth`](crate::OAuth).
    ///
    /// With a token at hand it is the inner service's future and a reference to the token: nothing is boxed and nothing is cloned.
    /// A request that has to wait for a token waits in one box with its inner service, and so does one that is replayed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the request. A flight that it waits for, or has started, goes on for the others.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, R>
    where
        S: Service<Request<B>>,
    {
        // `bearer` is empty when the request went without a token.
        Calling {
            #[pin]
            response: S::Future,
            bearer: Option<Bearer<S, B>>,
        },
        Detour { detour: Detour<S, B, R> },
    }
}

/// What a request with a token at hand that is not refused never needs. Boxed, so that it does not pay for it in moves.
enum Detour<S, B, R>
where
    S: Service<Request<B>>,
{
    /// The request must not have a token.
    Refused(Option<Error>),
    Authorizing(Pin<Box<Authorizing<S, B, R>>>),
    Renewing(Pin<Box<Renewing<S, B>>>),
}

/// Where a detour ends.
enum Exit<S, B>
where
    S: Service<Request<B>>,
{
    Call(S::Future, Bearer<S, B>),
    Answer(S::Response),
}

pin_project! {
    /// A request that waits for its first token, with the inner service that was polled ready for it.
    struct Authorizing<S, B, R> {
        #[pin]
        wait: Wait,
        ready: S,
        request: Option<Request<B>>,
        origin: u64,
        replay: R,
    }
}

pin_project! {
    /// A request that was refused and is to be sent again.
    struct Renewing<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        wait: Wait,
        renewed: Option<Arc<Token>>,
        refused: Arc<Token>,
        origin: u64,
        spare: Spare<S, B>,
        // The refusal, which is the answer if it comes to nothing.
        answer: Option<S::Response>,
    }
}

/// What is known of a request that went out with a token.
pub(crate) struct Bearer<S, B> {
    token: Arc<Token>,
    origin: u64,
    spare: Option<Box<Spare<S, B>>>,
    replayed: bool,
}

/// A second copy of a request, and a service to send it with that has yet to be polled ready.
struct Spare<S, B> {
    request: Option<Request<B>>,
    not_ready: S,
    /// The layer and the service may be gone by the time of the 401 (`oneshot` drops them), and the replay still needs a token.
    _cache: Option<Arc<Cache>>,
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    pub(crate) fn refuse(error: Error) -> Self {
        Self::detour(Detour::Refused(Some(error)))
    }

    pub(crate) fn pass(response: S::Future) -> Self {
        let bearer = None;
        Self {
            state: State::Calling { response, bearer },
        }
    }

    #[inline]
    pub(crate) fn call(response: S::Future, bearer: Bearer<S, B>) -> Self {
        let bearer = Some(bearer);
        Self {
            state: State::Calling { response, bearer },
        }
    }

    /// `ready` was polled ready.
    pub(crate) fn authorize(
        ready: S,
        request: Request<B>,
        cache: &Arc<Cache>,
        kind: TokenRequest,
        origin: u64,
        replay: R,
    ) -> Self {
        let waiting = Box::pin(Authorizing {
            wait: Wait::new(Arc::clone(cache), kind),
            ready,
            request: Some(request),
            origin,
            replay,
        });
        Self::detour(Detour::Authorizing(waiting))
    }

    fn detour(detour: Detour<S, B, R>) -> Self {
        Self {
            state: State::Detour { detour },
        }
    }
}

/// The scheme is always the one we send, whatever the server called it; an earlier value is replaced.
#[inline]
fn authorize<B>(request: &mut Request<B>, token: &Token) {
    request
        .headers_mut()
        .insert(AUTHORIZATION, token.header().clone());
}

impl<S, B, ResB, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<ResB>> + Clone,
    S::Error: Into<BoxError>,
    R: ReplayBody<B>,
{
    type Output = Result<Response<ResB>, BoxError>;

    // Refused
    // Authorizing => Calling => (Renewing => Calling)
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Calling { response, bearer } => {
                    let mut polled = response.poll(cx);
                    let suspect = match (&mut polled, bearer) {
                        (Poll::Ready(Ok(answer)), Some(bearer)) => {
                            if bearer.replayed {
                                replay::mark(answer);
                            }
                            bearer.suspects(answer).then_some(bearer)
                        }
                        _ => None,
                    };
                    let answer = match polled {
                        Poll::Ready(Ok(answer)) => answer,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        Poll::Pending => return Poll::Pending,
                    };
                    let Some(bearer) = suspect else {
                        return Poll::Ready(Ok(answer));
                    };
                    match bearer.look_closer(answer) {
                        Ok(renewing) => State::Detour {
                            detour: Detour::Renewing(renewing),
                        },
                        Err(answer) => return Poll::Ready(Ok(answer)),
                    }
                }
                StateProj::Detour { detour } => match ready!(detour.poll(cx))? {
                    Exit::Call(response, bearer) => State::Calling {
                        response,
                        bearer: Some(bearer),
                    },
                    Exit::Answer(answer) => return Poll::Ready(Ok(answer)),
                },
            };
            state.set(next);
        }
    }
}

impl<S, B, R> Detour<S, B, R>
where
    S: Service<Request<B>> + Clone,
    R: ReplayBody<B>,
{
    #[cold]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Exit<S, B>, Error>> {
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

impl<S, B> Bearer<S, B> {
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
        }
    }

    #[inline(always)]
    fn suspects<ResB>(&self, answer: &Response<ResB>) -> bool {
        challenge::is_suspicious(answer.status(), answer.headers(), &self.token.refusals)
    }

    /// If the token was refused, tells the cache, and prepares the replay if there is a copy to send and a renewal to hope for.
    /// Otherwise gives the answer back, with its challenges.
    #[cold]
    fn look_closer<ResB>(
        &mut self,
        mut answer: Response<ResB>,
    ) -> Result<Pin<Box<Renewing<S, B>>>, Response<ResB>>
    where
        S: Service<Request<B>, Response = Response<ResB>>,
    {
        let challenges = Challenges::parse(answer.headers());
        let verdict = challenge::decide(
            answer.status(),
            answer.headers(),
            &challenges,
            &self.token.refusals,
        );
        if !challenges.is_empty() {
            answer.extensions_mut().insert(challenges);
        }
        if verdict != Verdict::Refused {
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
        Ok(Box::pin(Renewing {
            wait: Wait::newer_than(cache, &self.token),
            renewed: None,
            refused: Arc::clone(&self.token),
            origin: self.origin,
            spare: *spare,
            answer: Some(answer),
        }))
    }
}

impl<S, B> Renewing<S, B>
where
    S: Service<Request<B>>,
{
    /// The replay, or the first answer when there is none.
    fn poll_replay(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exit<S, B>> {
        let this = self.project();
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
        if ready!(this.spare.not_ready.poll_ready(cx)).is_err() {
            return first(this.answer);
        }
        let mut request = this
            .spare
            .request
            .take()
            .expect("polled after it was ready");
        authorize(&mut request, token);
        let response = this.spare.not_ready.call(request);
        let bearer = Bearer {
            token: Arc::clone(token),
            origin: *this.origin,
            spare: None,
            replayed: true,
        };
        Poll::Ready(Exit::Call(response, bearer))
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Calling { .. } => "calling",
            State::Detour { detour } => match detour {
                Detour::Refused(_) => "refused",
                Detour::Authorizing(_) => "authorizing",
                Detour::Renewing(_) => "renewing",
            },
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
