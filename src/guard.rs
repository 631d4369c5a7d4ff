//! Where code that is not ours may panic: the user's token source, observers, wakers, and whatever
//! subscribes to `tracing`.
//!
//! Rules: R6.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code that is not ours. `None` when it panicked; the panic hook has reported that by then.
///
/// Nothing of ours may be half-changed when it is called: what it can see after a panic, we can
/// see too.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// A panic's payload is the user's own type, so dropping it may panic again. That one is leaked.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(next);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    // FC4
    #[test]
    fn a_payload_that_panics_when_it_is_dropped_goes_no_further() {
        assert_eq!(guarded(|| 1), Some(1));
        assert_eq!(guarded(|| panic_any(PanicsWhenDropped)), None::<()>);
    }
}
