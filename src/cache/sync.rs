//! The seam for the model checker: everything that flights and the cache share across threads comes from here.

pub(crate) use std::sync::Arc;

#[cfg(not(model))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(model)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Locks, also after a panic elsewhere: every critical section leaves its data consistent at each statement that can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The token that the cached path reads without a lock.
pub(crate) use self::current::Current;

#[cfg(not(model))]
mod current {
    use std::sync::Arc;

    use arc_swap::ArcSwapOption;

    use crate::token::Token;

    #[derive(Default)]
    pub(crate) struct Current(ArcSwapOption<Token>);

    impl Current {
        pub(crate) fn set(&self, token: Option<Arc<Token>>) {
            self.0.store(token);
        }

        /// The token, if `accept` takes it. The reference count is touched only then.
        #[inline]
        pub(crate) fn get_if(&self, accept: impl FnOnce(&Token) -> bool) -> Option<Arc<Token>> {
            let guard = self.0.load();
            let token = guard.as_ref()?;
            accept(token).then(|| Arc::clone(token))
        }
    }
}

/// The model checker does not see through `arc-swap`, which has its own models; a locked cell has the same contract.
#[cfg(model)]
mod current {
    use std::sync::Arc;

    use super::{Mutex, lock};
    use crate::token::Token;

    pub(crate) struct Current(Mutex<Option<Arc<Token>>>);

    impl Default for Current {
        fn default() -> Self {
            Self(Mutex::new(None))
        }
    }

    impl Current {
        pub(crate) fn set(&self, token: Option<Arc<Token>>) {
            *lock(&self.0) = token;
        }

        pub(crate) fn get_if(&self, accept: impl FnOnce(&Token) -> bool) -> Option<Arc<Token>> {
            lock(&self.0).clone().filter(|token| accept(token))
        }
    }
}
