//! The one place where the cache calls the user's [`TokenSource`].
//!
//! A panic in any of its methods, in the futures they return or in the drop of these is caught
//! here and told as [`Panicked`]. So it is a failure like any other and never a lost flight, which
//! would be tried again at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::Error;
use crate::grant::{TokenRequest, TokenSource};
use crate::guard::guarded;
use crate::token::TokenResponse;

/// A token source whose panics are values.
pub(super) struct Source(Arc<dyn TokenSource>);

/// The user's code panicked.
pub(super) struct Panicked;

impl Source {
    pub(super) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self(source)
    }

    pub(super) fn token<'a>(
        &'a self,
        request: &'a TokenRequest,
    ) -> Guarded<'a, Result<TokenResponse, Error>> {
        Guarded(guarded(|| self.0.token(request)))
    }

    pub(super) fn endpoint(&self) -> Result<Option<&str>, Panicked> {
        guarded(|| self.0.endpoint()).ok_or(Panicked)
    }

    /// Credentials of which nothing can be learnt are taken for fixed ones.
    pub(super) fn credentials_can_change(&self) -> bool {
        guarded(|| self.0.credentials_can_change()).unwrap_or(false)
    }

    pub(super) fn credentials_changed(&self) -> Guarded<'_, bool> {
        Guarded(guarded(|| self.0.credentials_changed()))
    }
}

type UserFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A future of the user's. `None` when it has ended, or when the call that was to make it panicked.
pub(super) struct Guarded<'a, T>(Option<UserFuture<'a, T>>);

impl<T> Guarded<'_, T> {
    /// Drops the future, whose drop is the user's code too.
    fn end(&mut self) {
        if let Some(future) = self.0.take() {
            guarded(|| drop(future));
        }
    }
}

impl<T> Future for Guarded<'_, T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match &mut self.0 {
            Some(future) => guarded(|| future.as_mut().poll(cx)),
            None => None,
        };
        let output = match polled {
            Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(output)) => Ok(output),
            None => Err(Panicked),
        };
        self.end();
        Poll::Ready(output)
    }
}

impl<T> Drop for Guarded<'_, T> {
    fn drop(&mut self) {
        self.end();
    }
}

impl From<Panicked> for Error {
    /// The message of a panic is the user's own text and may hold anything, so it is not repeated.
    fn from(_: Panicked) -> Self {
        Self::transient("the token source panicked").with_advice(
            "look for the panic's own message; it comes from the TokenSource, the token client or \
             the secret provider",
        )
    }
}
