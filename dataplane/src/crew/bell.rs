//! How a worker that sleeps hears of packets that another one has for it.

use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::worker::WakeHandle;

/// A worker's bell, as those see it who hand it packets: rung only while it sleeps, and once a sleep.
pub(crate) struct Bell {
    asleep: AtomicBool,
    wake: WakeHandle,
}

impl Bell {
    pub(crate) fn new(wake: WakeHandle) -> Self {
        Self {
            asleep: AtomicBool::new(false),
            wake,
        }
    }

    /// The worker is about to sleep. It looks at its rings once more after this: either it sees what was published, or
    /// whoever published it sees that it sleeps, as both have a fence in between.
    pub(crate) fn lie_down(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker is awake.
    pub(crate) fn get_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Something was published for the worker.
    #[inline]
    pub(crate) fn call(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.wake.ring();
        }
    }
}
