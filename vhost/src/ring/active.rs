//! What both directions of a device-side ring share: the ring while it runs, its event fds, and
//! how it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::split::MAX_SEGMENTS;
use super::{
    BURST, Chain, Direction, MAX_CHAIN, Ring, RingCounters, RingError, RingState, Segment,
};
use crate::event::Event;
use crate::sigbus;

/// What a worker tells of one of its rings, to be read from any thread.
#[derive(Debug, Default)]
pub(crate) struct RingReport {
    /// A [`RingError`] as a number, 0 while all is well.
    broken: AtomicU8,
    /// [`RingState`] where the ring was last stopped.
    stopped: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    short: AtomicU64,
    oversize: AtomicU64,
    disabled: AtomicU64,
    notifications: AtomicU64,
    breaks: AtomicU64,
}

impl RingReport {
    /// Why the ring broke, if it did.
    pub(crate) fn broken(&self) -> Option<RingError> {
        RingError::from_code(self.broken.load(Ordering::Acquire))
    }

    /// Forgets that the ring was broken.
    pub(crate) fn mend(&self) {
        self.broken.store(0, Ordering::Release);
    }

    /// Where the ring was when it was last stopped.
    pub(crate) fn stopped(&self) -> RingState {
        let word = self.stopped.load(Ordering::Acquire);
        RingState {
            next_avail: word as u16,
            next_used: (word >> 16) as u16,
        }
    }

    /// Notes where the ring stands.
    pub(crate) fn set_stopped(&self, state: RingState) {
        let word = u64::from(state.next_avail) | u64::from(state.next_used) << 16;
        self.stopped.store(word, Ordering::Release);
    }

    /// The counters at about this moment.
    pub(crate) fn counters(&self) -> RingCounters {
        RingCounters {
            frames: self.frames.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            short: self.short.load(Ordering::Relaxed),
            oversize: self.oversize.load(Ordering::Relaxed),
            disabled: self.disabled.load(Ordering::Relaxed),
            notifications: self.notifications.load(Ordering::Relaxed),
            breaks: self.breaks.load(Ordering::Acquire),
        }
    }

    fn publish(&self, counters: &RingCounters) {
        self.frames.store(counters.frames, Ordering::Relaxed);
        self.bytes.store(counters.bytes, Ordering::Relaxed);
        self.short.store(counters.short, Ordering::Relaxed);
        self.oversize.store(counters.oversize, Ordering::Relaxed);
        self.disabled.store(counters.disabled, Ordering::Relaxed);
        self.notifications
            .store(counters.notifications, Ordering::Relaxed);
    }
}

/// A ring that the front end has started, with what belongs to it.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) ring: Ring,
    /// Changes with every start, so that a worker can tell a new ring from a changed one.
    pub(crate) epoch: u64,
    /// Negotiated features.
    pub(crate) features: u64,
    /// Whether frames may pass.
    pub(crate) enabled: bool,
    /// The driver's kick, if it sends any.
    pub(crate) kick: Option<Arc<Event>>,
    /// Where to notify the driver, if it wants that.
    pub(crate) call: Option<Arc<Event>>,
    /// Where to tell the front end that the ring broke.
    pub(crate) error: Option<Arc<Event>>,
}

/// The direction-independent half of a queue.
#[derive(Debug)]
pub(crate) struct Active {
    direction: Direction,
    started: Option<Started>,
    report: Arc<RingReport>,
    broken: bool,
    /// Signalled when the ring breaks, for the control thread.
    alarm: Option<Arc<Event>>,
    faults: usize,
    pub(crate) counters: RingCounters,
    pub(crate) chains: Vec<Chain>,
    pub(crate) segments: Vec<Segment>,
}

// SAFETY: the pieces point into memory that the started ring keeps mapped, and go with it.
unsafe impl Send for Active {}

impl Active {
    pub(crate) fn new(
        direction: Direction,
        report: Arc<RingReport>,
        alarm: Option<Arc<Event>>,
    ) -> Self {
        Self {
            direction,
            started: None,
            report,
            broken: false,
            alarm,
            faults: 0,
            counters: RingCounters::default(),
            chains: Vec::with_capacity(MAX_CHAIN + BURST),
            segments: Vec::with_capacity(2 * MAX_SEGMENTS),
        }
    }

    /// Whether frames can pass.
    #[inline]
    pub(crate) fn is_running(&self) -> bool {
        self.started.as_ref().is_some_and(|s| s.enabled) && !self.broken
    }

    /// The ring to work on, unless it is stopped or broken.
    #[inline]
    pub(crate) fn ready(&mut self) -> Option<&mut Started> {
        if self.broken {
            None
        } else {
            self.started.as_mut()
        }
    }

    pub(crate) fn started(&self) -> Option<&Started> {
        self.started.as_ref()
    }

    /// Installs, changes or stops the ring; returns what was there. A ring of the same epoch goes
    /// on where it stands.
    pub(crate) fn install(&mut self, next: Option<Started>) -> Option<Started> {
        self.forget();
        let before = self.started.take();
        if let Some(Started {
            ring: Ring::Split(ring),
            ..
        }) = &before
        {
            self.report.set_stopped(ring.state());
        }
        self.started = next.map(|mut next| {
            match &before {
                Some(Started {
                    ring: Ring::Split(old),
                    epoch,
                    ..
                }) if *epoch == next.epoch => {
                    let Ring::Split(new) = &mut next.ring;
                    new.resume(old);
                }
                _ => {
                    let Ring::Split(ring) = &mut next.ring;
                    ring.disarm();
                    self.broken = false;
                    self.report.mend();
                }
            }
            next
        });
        self.faults = 0;
        if self.started.is_none() {
            self.broken = false;
        }
        before
    }

    /// Forgets the burst.
    pub(crate) fn forget(&mut self) {
        self.chains.clear();
        self.segments.clear();
    }

    /// Chains that wait in the ring.
    #[inline]
    pub(crate) fn pending(&mut self) -> u16 {
        let faults = sigbus::faults();
        let Some(Started {
            ring: Ring::Split(ring),
            ..
        }) = self.ready()
        else {
            return 0;
        };
        match ring.pending() {
            Ok(pending) if faults == self.faults => pending,
            Ok(pending) => self.look_for_faults(faults, pending),
            Err(error) => self.fail(error),
        }
    }

    /// Somebody's memory was truncated since this ring last looked.
    #[cold]
    fn look_for_faults(&mut self, faults: usize, pending: u16) -> u16 {
        self.faults = faults;
        let Some(Started {
            ring: Ring::Split(ring),
            ..
        }) = &self.started
        else {
            return 0;
        };
        if ring.memory().is_broken() {
            self.fail(RingError::MemoryTruncated)
        } else {
            pending
        }
    }

    /// Parses up to `count` chains after the `skip` first into the burst; tells whether it went
    /// well.
    #[inline]
    pub(crate) fn parse(&mut self, skip: u16, count: u16) -> bool {
        let Some(started) = &mut self.started else {
            return false;
        };
        let Ring::Split(ring) = &mut started.ring;
        let parsed = ring.parse(
            skip,
            count,
            self.direction,
            &mut self.chains,
            &mut self.segments,
        );
        if let Err(error) = parsed {
            self.fail(error);
            return false;
        }
        true
    }

    /// Publishes `count` used entries that were put, and notifies the driver if it wants that.
    #[inline]
    pub(crate) fn publish(&mut self, count: u16) {
        if count > 0
            && let Some(started) = &mut self.started
        {
            let Ring::Split(ring) = &mut started.ring;
            if ring.publish(count)
                && let Some(call) = &started.call
            {
                call.signal();
                self.counters.notifications += 1;
            }
        }
        self.report.publish(&self.counters);
    }

    /// Stops the ring until the front end starts it anew.
    #[cold]
    fn fail(&mut self, error: RingError) -> u16 {
        self.forget();
        self.broken = true;
        // A truncated file reads as zeroes, which look like any other nonsense.
        let truncated = self.started.as_ref().is_some_and(
            |Started {
                 ring: Ring::Split(ring),
                 ..
             }| ring.memory().is_broken(),
        );
        let error = if truncated {
            RingError::MemoryTruncated
        } else {
            error
        };
        self.report.broken.store(error as u8, Ordering::Release);
        self.counters.breaks += 1;
        self.report.publish(&self.counters);
        self.report
            .breaks
            .store(self.counters.breaks, Ordering::Release);
        let front_end = self.started.as_ref().and_then(|s| s.error.as_ref());
        for event in [front_end, self.alarm.as_ref()].into_iter().flatten() {
            event.signal();
        }
        0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.install(None);
    }
}
