//! How control threads reach a worker.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// What a worker looks at between two polls.
pub(super) struct Mail {
    /// Commands wait in the inbox.
    pub(super) waiting: AtomicBool,
    /// The worker is to end.
    pub(super) stop: AtomicBool,
    /// Nothing will ever come in by any of its ports.
    pub(super) finished: AtomicBool,
    /// Control threads left something for a port.
    changed: AtomicBool,
    /// Readable when the worker is to wake up.
    pub(super) bell: OwnedFd,
}

/// Wakes a sleeping worker; cheap enough for control threads, not for every packet.
#[derive(Clone)]
pub struct WakeHandle(pub(super) Arc<Mail>);

impl WakeHandle {
    /// A handle for a worker that is started with it later, so that whoever wakes it can be made before.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Mail {
            waiting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            bell,
        })))
    }

    /// Has the worker do a poll soon, even if it sleeps, in which ports pick up what was left for them.
    pub fn wake(&self) {
        // What was left before is seen by whoever sees this.
        self.0.changed.store(true, Ordering::Release);
        self.ring();
    }

    /// Has the worker do a poll soon, even if it sleeps.
    pub(crate) fn ring(&self) {
        // A full counter is a bell that rings already.
        let _ = rustix::io::write(&self.0.bell, &1u64.to_ne_bytes());
    }

    /// Whether somebody woke the worker since this was last asked.
    #[inline]
    pub(crate) fn take_changes(&self) -> bool {
        self.0.changed.load(Ordering::Relaxed) && self.0.changed.swap(false, Ordering::Acquire)
    }
}
