//! The future of one request through the layer.

mod bearer;
mod detour;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

pub(crate) use self::bearer::Bearer;
use self::detour::{Authorizing, Detour, Exit};
use crate::cache::{Cache, Wait};
use crate::error::{BoxError, Error};
use crate::params::TokenParams;
use crate::replay::{self, ReplayBody};

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
        kind: TokenParams,
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
