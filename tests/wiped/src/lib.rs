//! An allocator that looks for secrets in what is freed.
//!
//! A package of its own, since an allocator needs `unsafe`, which the crate and its tests forbid.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Looks into each block before it goes back to the system.
pub struct Watching;

/// What must not be found. Long enough that no other text has it in it by chance.
pub const CANARIES: [&str; 4] = [
    "CanarySecret",
    "CanaryToken",
    "CanaryValue",
    // In the base64 of `id:CanarySecret`.
    "OkNhbmFyeVNlY3JldC",
];

static ARMED: AtomicBool = AtomicBool::new(false);
static FOUND: [AtomicUsize; CANARIES.len()] = [const { AtomicUsize::new(0) }; CANARIES.len()];

/// How often each of [`CANARIES`] was in a block that was freed while `run` ran.
pub fn freed_with_canaries(run: impl FnOnce()) -> [usize; CANARIES.len()] {
    for found in &FOUND {
        found.store(0, Ordering::SeqCst);
    }
    ARMED.store(true, Ordering::SeqCst);
    run();
    ARMED.store(false, Ordering::SeqCst);
    FOUND.each_ref().map(|found| found.load(Ordering::SeqCst))
}

fn look(block: &[u8]) {
    for (canary, found) in CANARIES.iter().zip(&FOUND) {
        if block
            .windows(canary.len())
            .any(|piece| piece == canary.as_bytes())
        {
            found.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that what an earlier owner left behind is not laid to this one, and no byte
        // that is read is uninitialized.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if ARMED.load(Ordering::Relaxed) {
            // SAFETY: the block is still its owner's, and was zeroed when it was handed out.
            look(unsafe { std::slice::from_raw_parts(block, layout.size()) });
        }
        unsafe { System.dealloc(block, layout) }
    }

    // Growing and shrinking go by the default `realloc`: a new block, and `dealloc` of the old one,
    // as the system's does it when there is no room.
}
