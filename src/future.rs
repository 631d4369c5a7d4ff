//! The future of one request through the layer: what its answer says about the token, and its rare
//! detours, a wait for a token and a replay.
//!
//! Rules: R3, R4, R18, R19, R21.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use crate::cache::current::Token;
use crate::cache::{self, Cache, Refusal, Wait};
use crate::challenge::{self, Challenges};
use crate::error::{BoxError, Error};
use crate::replay::{self, ReplayBody};
use crate::runtime::timer;

pin_project! {
    /// The future of [`OAuth`](crate::OAuth).
    ///
    /// With a token at hand it is the inner service's future and a reference to the token: nothing
    /// is boxed, and nothing is cloned unless replay is on. A request that has to wait for a token,
    /// or may be replayed, is boxed with its inner service.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the request. A flight that it waits for, or has started, goes on for the
    /// others.
    // A struct and not an enum of its phases: an enum is taken apart and put together again at each
    // match, which copies the inner future each time.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        // The call under way.
        #[pin]
        response: Option<S::Future>,
        carried: Carried<S, B, R>,
    }
}

/// What the request carries.
enum Carried<S, B, R>
where
    S: Service<Request<B>>,
{
    Nothing,
    /// A token, on a request of which there is no copy.
    Token(Arc<Token>, Bearer),
    /// It is not sent: it must not have a token, or none can be had.
    Failed(Error),
    /// Behind one box, so that other requests do not pay for it in moves.
    Rare(Apart<Rare<S, B, R>>),
}

/// A box that is dropped by a function of its own, so that its drop takes no registers from that of
/// the other variants. `None` once it is dropped.
struct Apart<T>(Option<Box<T>>);

/// What is remembered of a request that carries a token.
#[derive(Clone, Copy)]
pub(crate) struct Bearer {
    origin: u64,
    /// Only a POST may be a gRPC call, whose answer has its status in a header.
    posted: bool,
    /// There is never a third time.
    replayed: bool,
}

/// A second copy of a request, and a service to send it with that has yet to be polled ready.
pub(crate) struct Spare<S, B> {
    request: Option<Request<B>>,
    not_ready: S,
    /// The layer and the service may be gone by the time of the 401 (`oneshot` drops them), and the
    /// replay still needs a token.
    cache: Arc<Cache>,
}

/// State that an ordinary request never needs.
enum Rare<S, B, R>
where
    S: Service<Request<B>>,
{
    Spare(Spare<S, B>, Arc<Token>, Bearer),
    Waiting(Waiting<S, B, R>),
    /// Boxed once more, since it holds the answer too, and most that wait only wait for a token.
    Renewing(Box<Renewing<S, B>>),
}

/// A request that waits for its first token, with the inner service that was polled ready for it.
struct Waiting<S, B, R> {
    wait: Wait,
    ready: S,
    request: Option<Request<B>>,
    origin: u64,
    replay: R,
    cache: Arc<Cache>,
}

/// A request whose token was refused, and that is to be sent again.
struct Renewing<S, B>
where
    S: Service<Request<B>>,
{
    wait: Wait,
    renewed: Option<Arc<Token>>,
    refused: Arc<Token>,
    /// How long the answer may be withheld.
    until: Instant,
    /// Fires at that time if the service is still not ready. It may never be: the body of the
    /// answer can hold the very slot that it waits for.
    limit: Option<Pin<Box<Sleep>>>,
    origin: u64,
    spare: Spare<S, B>,
    /// The answer that refused the token, which is returned if no replay comes of it.
    answer: Option<S::Response>,
}

/// Where a detour ends.
enum Exit<S, B, R>
where
    S: Service<Request<B>>,
{
    Call(S::Future, Carried<S, B, R>),
    Answer(S::Response),
}

/// Puts the token on the request. The scheme is always the one we send, whatever the server called
/// it; an earlier value is replaced.
#[inline(always)]
pub(crate) fn attach<B>(request: &mut Request<B>, token: &Token, origin: u64) -> Bearer {
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, token.header.clone());
    Bearer {
        origin,
        posted: *request.method() == Method::POST,
        replayed: false,
    }
}

/// The copy that a replay may need.
#[inline(always)]
pub(crate) fn spare<S: Clone, B>(
    request: &Request<B>,
    service: &S,
    replay: &impl ReplayBody<B>,
    cache: &Arc<Cache>,
) -> Option<Spare<S, B>> {
    replay::copy(replay, request).map(|copy| Spare {
        request: Some(copy),
        not_ready: service.clone(),
        cache: Arc::clone(cache),
    })
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    #[inline(always)]
    pub(crate) fn calling(
        response: S::Future,
        bearer: Bearer,
        token: Arc<Token>,
        spare: Option<Spare<S, B>>,
    ) -> Self {
        Self {
            response: Some(response),
            carried: Carried::carrying(bearer, token, spare),
        }
    }

    pub(crate) fn passing(response: S::Future) -> Self {
        Self {
            response: Some(response),
            carried: Carried::Nothing,
        }
    }

    pub(crate) fn failing(error: Error) -> Self {
        Self {
            response: None,
            carried: Carried::Failed(error),
        }
    }

    /// `ready` was polled ready.
    pub(crate) fn waiting(
        wait: Wait,
        ready: S,
        request: Request<B>,
        origin: u64,
        replay: R,
        cache: Arc<Cache>,
    ) -> Self {
        let waiting = Waiting {
            wait,
            ready,
            request: Some(request),
            origin,
            replay,
            cache,
        };
        Self {
            response: None,
            carried: Carried::Rare(Apart::new(Rare::Waiting(waiting))),
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

    // (failed | waiting)? => calling => (renewing => calling)?
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let Some(response) = this.response.as_pin_mut() else {
            return self.poll_detour(cx);
        };
        // The answer is only looked at, and goes by value to a cold function when it is not an
        // ordinary success: what is bound or reaches a call by reference is copied.
        match response.poll(cx) {
            Poll::Ready(Ok(answer)) if this.carried.accepts(&answer) => Poll::Ready(Ok(answer)),
            Poll::Ready(Ok(answer)) => self.look_closer(answer, cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S, B, ResB, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<ResB>> + Clone,
    S::Error: Into<BoxError>,
    R: ReplayBody<B>,
{
    /// An answer that may have refused the token.
    #[cold]
    #[inline(never)]
    fn look_closer(
        mut self: Pin<&mut Self>,
        answer: Response<ResB>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResB>, BoxError>> {
        let mut this = self.as_mut().project();
        match prepare_replay(this.carried, answer) {
            Some(answer) => Poll::Ready(Ok(answer)),
            None => {
                this.response.set(None);
                self.poll_detour(cx)
            }
        }
    }

    /// No call is under way.
    #[cold]
    #[inline(never)]
    fn poll_detour(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResB>, BoxError>> {
        let mut this = self.as_mut().project();
        let exit = match this.carried {
            Carried::Rare(rare) => match rare.get_mut() {
                Rare::Waiting(waiting) => match ready!(waiting.poll(cx)) {
                    Ok(exit) => exit,
                    Err(error) => {
                        // The readied service goes now, with what it had reserved, and not when
                        // the future is dropped.
                        *this.carried = Carried::Nothing;
                        return Poll::Ready(Err(error.into()));
                    }
                },
                Rare::Renewing(renewing) => ready!(renewing.poll(cx)),
                Rare::Spare(..) => panic!("polled after it was ready"),
            },
            carried => match mem::replace(carried, Carried::Nothing) {
                Carried::Failed(error) => return Poll::Ready(Err(error.into())),
                _ => panic!("polled after it was ready"),
            },
        };
        match exit {
            Exit::Answer(answer) => {
                *this.carried = Carried::Nothing;
                Poll::Ready(Ok(answer))
            }
            Exit::Call(response, carried) => {
                *this.carried = carried;
                this.response.set(Some(response));
                self.poll(cx)
            }
        }
    }
}

impl<S, B, R> Carried<S, B, R>
where
    S: Service<Request<B>>,
{
    #[inline(always)]
    fn carrying(bearer: Bearer, token: Arc<Token>, spare: Option<Spare<S, B>>) -> Self {
        match spare {
            Some(spare) => Self::Rare(Apart::new(Rare::Spare(spare, token, bearer))),
            None => Self::Token(token, bearer),
        }
    }

    fn token(&self) -> Option<(&Arc<Token>, Bearer)> {
        match self {
            Self::Token(token, bearer) => Some((token, *bearer)),
            Self::Rare(rare) => match rare.get() {
                Rare::Spare(_, token, bearer) => Some((token, *bearer)),
                Rare::Waiting(_) | Rare::Renewing(_) => None,
            },
            Self::Nothing | Self::Failed(_) => None,
        }
    }

    /// Whether the answer can be returned as it is.
    #[inline(always)]
    fn accepts<T>(&self, answer: &Response<T>) -> bool {
        if let Self::Token(_, bearer) = self {
            // `|` makes one branch of the three.
            if !(bearer.posted | bearer.replayed | challenge::may_refuse(answer.status())) {
                return true;
            }
        }
        self.accepts_unusual(answer.status(), answer.headers())
    }

    #[inline(never)]
    fn accepts_unusual(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let Some((token, bearer)) = self.token() else {
            return true;
        };
        let also = &token.unauthorized;
        !(bearer.replayed || challenge::is_suspicious(bearer.posted, status, headers, also))
    }
}

impl<T> Apart<T> {
    fn new(value: T) -> Self {
        Self(Some(Box::new(value)))
    }

    fn get(&self) -> &T {
        self.0.as_ref().expect(NOT_DROPPED)
    }

    fn get_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(NOT_DROPPED)
    }

    fn into_inner(mut self) -> T {
        *self.0.take().expect(NOT_DROPPED)
    }
}

impl<T> Drop for Apart<T> {
    #[inline(always)]
    fn drop(&mut self) {
        #[cold]
        #[inline(never)]
        fn apart<T>(_: Option<Box<T>>) {}

        apart(self.0.take());
    }
}

const NOT_DROPPED: &str = "it holds a value until it is dropped";

/// If the token was refused, tells the cache, and prepares the replay if there is a copy to send
/// and a renewal to hope for. Otherwise gives the answer back, with its challenges.
fn prepare_replay<S, B, R, ResB>(
    carried: &mut Carried<S, B, R>,
    mut answer: Response<ResB>,
) -> Option<Response<ResB>>
where
    S: Service<Request<B>, Response = Response<ResB>>,
{
    let Some((token, bearer)) = carried.token() else {
        return Some(answer);
    };
    if bearer.replayed {
        replay::mark(&mut answer);
    }
    let challenges = Challenges::parse(answer.headers());
    let (status, headers) = (answer.status(), answer.headers());
    let also = &token.unauthorized;
    let posted = bearer.posted;
    let is_refused = challenge::refuses_token(posted, status, headers, &challenges, also);
    if !challenges.is_empty() {
        answer.extensions_mut().insert(challenges);
    }
    if !is_refused {
        return Some(answer);
    }
    // No cache any more means no layer, and nobody whose next request could renew.
    let Some(cache) = token.cache.upgrade() else {
        return Some(answer);
    };
    let refusal = cache.refused(token, bearer.origin);
    // A replay has no copy: there is never a third time, but the next request will renew.
    let (spare, refused) = match mem::replace(carried, Carried::Nothing) {
        Carried::Rare(rare) => match rare.into_inner() {
            Rare::Spare(spare, refused, _) => (spare, refused),
            _ => return Some(answer),
        },
        _ => return Some(answer),
    };
    if matches!(refusal, Refusal::BudgetSpent { .. }) {
        return Some(answer);
    }
    let cache = Arc::clone(&spare.cache);
    *carried = Carried::Rare(Apart::new(Rare::Renewing(Box::new(Renewing {
        until: Instant::now() + cache.flight_limit(),
        limit: None,
        wait: cache::wait(cache, refused.params.clone(), Some(refused.generation)),
        renewed: None,
        refused,
        origin: bearer.origin,
        spare,
        answer: Some(answer),
    }))));
    None
}

impl<S, B, R> Waiting<S, B, R>
where
    S: Service<Request<B>> + Clone,
    R: ReplayBody<B>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Exit<S, B, R>, Error>> {
        let token = ready!(self.wait.as_mut().poll(cx))?;
        let request = self.request.take();
        let mut request = request.expect("polled after it was ready");
        let bearer = attach(&mut request, &token, self.origin);
        let spare = spare(&request, &self.ready, &self.replay, &self.cache);
        let response = self.ready.call(request);
        let carried = Carried::carrying(bearer, token, spare);
        Poll::Ready(Ok(Exit::Call(response, carried)))
    }
}

impl<S, B> Renewing<S, B>
where
    S: Service<Request<B>>,
{
    /// The replay, or the first answer when there is none.
    fn poll<R>(&mut self, cx: &mut Context<'_>) -> Poll<Exit<S, B, R>> {
        let token = match &self.renewed {
            Some(token) => token,
            None => match ready!(self.wait.as_mut().poll(cx)) {
                // The server gave the refused token again; the API would refuse it again.
                Ok(token) if token.header == self.refused.header => return self.give_up(),
                Ok(token) => self.renewed.insert(token),
                Err(_) => return self.give_up(),
            },
        };
        // Polled ready only now, just before its call: a reservation made earlier could wait here
        // for as long as a flight.
        match self.spare.not_ready.poll_ready(cx) {
            // The service may have taken longer than the token lasts.
            Poll::Ready(Ok(())) if token.is_live(self.spare.cache.clock.now()) => {}
            Poll::Ready(_) => return self.give_up(),
            Poll::Pending => {
                if self.limit.is_none() {
                    self.limit = timer(self.until).map(Box::pin);
                }
                let Some(limit) = &mut self.limit else {
                    return self.give_up();
                };
                ready!(limit.as_mut().poll(cx));
                return self.give_up();
            }
        }
        let request = self.spare.request.take();
        let mut request = request.expect("polled after it was ready");
        let bearer = Bearer {
            replayed: true,
            ..attach(&mut request, token, self.origin)
        };
        let token = Arc::clone(token);
        let response = self.spare.not_ready.call(request);
        Poll::Ready(Exit::Call(response, Carried::carrying(bearer, token, None)))
    }

    fn give_up<R>(&mut self) -> Poll<Exit<S, B, R>> {
        let answer = self.answer.take().expect("polled after it was ready");
        Poll::Ready(Exit::Answer(answer))
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &self.carried {
            Carried::Failed(_) => "failing",
            Carried::Rare(rare) => match rare.get() {
                Rare::Waiting(_) => "waiting",
                Rare::Renewing(_) => "renewing",
                Rare::Spare(..) => "calling",
            },
            Carried::Nothing | Carried::Token(..) => "calling",
        };
        f.debug_tuple("ResponseFuture").field(&phase).finish()
    }
}
