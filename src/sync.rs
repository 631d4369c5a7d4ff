//! The seam for the model checker: whatever threads share under a lock takes the lock from here.

#[cfg(not(model))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(model)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Locks, also after a panic elsewhere: every critical section leaves its data consistent at each
/// statement that can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
