//! A death between two stores to shared memory, for tests: once a fuse has burnt down, the thread's
//! next store does not happen, and whoever was about to do it ends there.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// Stores that are still to happen; `None` without a fuse.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// What a thread unwinds with that was to die here.
struct Burnt;

/// Counts a store.
pub(crate) fn burn() {
    LEFT.with(|left| match left.get() {
        None => {}
        Some(0) => {
            left.set(None);
            resume_unwind(Box::new(Burnt));
        }
        Some(stores) => left.set(Some(stores - 1)),
    });
}

/// Runs `work` until it is about to do its store after the first `stores`; its value, if it came
/// to its end.
pub(crate) fn within<T>(stores: u32, work: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(Some(stores));
    let result = catch_unwind(AssertUnwindSafe(work));
    LEFT.set(None);
    match result {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<Burnt>() => None,
        Err(payload) => resume_unwind(payload),
    }
}
