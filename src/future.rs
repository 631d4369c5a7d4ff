//! The future of one request through the layer.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
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
        // The request must not have a token.
        Refused { error: Option<Error> },
        Authorizing { waiting: Pin<Box<Authorizing<S, B, R>>> },
        // `bearer` is empty when the request went without a token.
        Calling {
            #[pin]
            response: S::Future,
            bearer: Option<Bearer<S, B>>,
        },
        Renewing { renewing: Pin<Box<Renewing<S, B>>> },
        Replaying {
            #[pin]
            response: S::Future,
            bearer: Bearer<S, B>,
        },
    }
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
        bearer: Bearer<S, B>,
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
        let error = Some(error);
        Self {
            state: State::Refused { error },
        }
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
        Self {
            state: State::Authorizing { waiting },
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
    // Authorizing => Calling => (Renewing => Replaying)
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Refused { error } => {
                    let error = error.take().expect("polled after it was ready");
                    return Poll::Ready(Err(error.into()));
                }
                StateProj::Authorizing { waiting } => {
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
                    State::Calling {
                        response: waiting.ready.call(request),
                        bearer: Some(bearer),
                    }
                }
                StateProj::Calling { response, bearer } => {
                    let mut answer = ready!(response.poll(cx)).map_err(Into::into)?;
                    let Some(bearer) = bearer else {
                        return Poll::Ready(Ok(answer));
                    };
                    let Some(cache) = bearer.refused(&mut answer) else {
                        return Poll::Ready(Ok(answer));
                    };
                    match bearer.renew(&cache, answer) {
                        Ok(renewing) => State::Renewing { renewing },
                        Err(answer) => return Poll::Ready(Ok(answer)),
                    }
                }
                StateProj::Renewing { renewing } => match ready!(renewing.as_mut().poll_replay(cx))
                {
                    Ok((response, bearer)) => State::Replaying { response, bearer },
                    Err(answer) => return Poll::Ready(Ok(answer)),
                },
                StateProj::Replaying { response, bearer } => {
                    let mut answer = ready!(response.poll(cx)).map_err(Into::into)?;
                    replay::mark(&mut answer);
                    if let Some(cache) = bearer.refused(&mut answer) {
                        // Never a third time; the next request will renew.
                        cache.refuse(&bearer.token, bearer.origin);
                    }
                    return Poll::Ready(Ok(answer));
                }
            };
            state.set(next);
        }
    }
}

impl<S, B> Bearer<S, B> {
    /// Puts the token on the request, and makes the copy that a replay may need.
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
        authorize(request, &token);
        let spare = replay::copy(replay, request).map(|copy| {
            Box::new(Spare {
                request: Some(copy),
                not_ready: service.clone(),
                _cache: token.cache.upgrade(),
            })
        });
        Self {
            token,
            origin,
            spare,
        }
    }

    /// Whether the answer says that the token was refused, and the cache that wants to know.
    #[inline]
    fn refused<ResB>(&self, answer: &mut Response<ResB>) -> Option<Arc<Cache>> {
        // A 403 never means a refused token by itself, but its challenge is for the caller to see.
        let suspicious = answer.status() == StatusCode::FORBIDDEN
            || challenge::is_suspicious(answer.status(), answer.headers(), &self.token.refusals);
        if suspicious {
            self.look_closer(answer)
        } else {
            None
        }
    }

    #[cold]
    fn look_closer<ResB>(&self, answer: &mut Response<ResB>) -> Option<Arc<Cache>> {
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
        match verdict {
            // No cache any more means no layer, and nobody whose next request could renew.
            Verdict::Refused => self.token.cache.upgrade(),
            Verdict::Accepted | Verdict::Denied => None,
        }
    }

    /// Tells the cache, and prepares the replay if there is a copy to send and a renewal to hope for. Otherwise gives the
    /// answer back.
    fn renew<ResB>(
        &mut self,
        cache: &Arc<Cache>,
        answer: Response<ResB>,
    ) -> Result<Pin<Box<Renewing<S, B>>>, Response<ResB>>
    where
        S: Service<Request<B>, Response = Response<ResB>>,
    {
        let refusal = cache.refuse(&self.token, self.origin);
        let spare = self.spare.take();
        let Some(spare) = spare.filter(|_| !matches!(refusal, Refusal::BudgetSpent { .. })) else {
            return Err(answer);
        };
        Ok(Box::pin(Renewing {
            wait: Wait::newer_than(Arc::clone(cache), &self.token),
            renewed: None,
            bearer: Self {
                token: Arc::clone(&self.token),
                origin: self.origin,
                spare: None,
            },
            spare: *spare,
            answer: Some(answer),
        }))
    }
}

type Replay<S, B> = (<S as Service<Request<B>>>::Future, Bearer<S, B>);

impl<S, B> Renewing<S, B>
where
    S: Service<Request<B>>,
{
    /// The replay, or the first answer when there is none.
    fn poll_replay(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Replay<S, B>, S::Response>> {
        let this = self.project();
        let first = |answer: &mut Option<_>| {
            Poll::Ready(Err(answer.take().expect("polled after it was ready")))
        };
        let token = match this.renewed {
            Some(token) => token,
            None => match ready!(this.wait.poll(cx)) {
                // The server gave the refused token again; the API would refuse it again.
                Ok(token) if token.same_value(&this.bearer.token) => return first(this.answer),
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
            origin: this.bearer.origin,
            spare: None,
        };
        Poll::Ready(Ok((response, bearer)))
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Refused { .. } => "refused",
            State::Authorizing { .. } => "authorizing",
            State::Calling { .. } => "calling",
            State::Renewing { .. } => "renewing",
            State::Replaying { .. } => "replaying",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
