//! What both directions of a device-side ring share: the ring while it runs, its event fds, and
//! how it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::{Burst, Chain, Ring, RingCounters, RingError, RingLog, RingState, Segment, Tracker};
use crate::event::Event;
use crate::sigbus;

/// An IOMMU's pages are of 4 KiB or larger; an access needs the low bits for itself.
const PAGE_MASK: u64 = 0xfff;

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
    descriptors: AtomicU64,
    /// The translation that the ring waits for, as [`missed`](Self::missed) tells it.
    missed: AtomicU64,
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

    /// The translation that the ring waits for, if it does: the page's I/O virtual address, and
    /// what is to be done there, as a bit of [`access`](crate::iotlb::access).
    pub(crate) fn missed(&self) -> Option<(u64, u8)> {
        let word = self.missed.load(Ordering::Acquire);
        (word != 0).then_some((word & !PAGE_MASK, (word & PAGE_MASK) as u8))
    }

    /// Forgets what the ring waits for.
    pub(crate) fn clear_missed(&self) {
        self.missed.store(0, Ordering::Release);
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
            descriptors: self.descriptors.load(Ordering::Relaxed),
        }
    }

    fn publish(&self, counters: &RingCounters) {
        self.frames.store(counters.frames, Ordering::Relaxed);
        self.bytes.store(counters.bytes, Ordering::Relaxed);
        self.short.store(counters.short, Ordering::Relaxed);
        self.oversize.store(counters.oversize, Ordering::Relaxed);
        self.disabled.store(counters.disabled, Ordering::Relaxed);
        self.descriptors
            .store(counters.descriptors, Ordering::Relaxed);
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
    /// Where to mark what is written, while a migration runs.
    pub(crate) log: Option<RingLog>,
    /// Where to mark what is in flight, if the front end keeps that.
    pub(crate) inflight: Option<Tracker>,
}

impl Started {
    /// Gives a burst's first `count` chains back; tells whether the driver wants to be notified.
    #[inline]
    fn publish(&mut self, burst: &Burst, count: usize) -> bool {
        let chains = &burst.taken()[..count];
        if self.log.is_some() || self.inflight.is_some() {
            return self.publish_marked(chains, &burst.segments);
        }
        self.ring.publish(chains)
    }

    /// The same, with marks: of what was written in the log, buffers before the driver is told of
    /// them, the ring after that; and of what is in flight.
    #[cold]
    fn publish_marked(&mut self, chains: &[Chain], segments: &[Segment]) -> bool {
        let Self {
            ring,
            log,
            inflight,
            ..
        } = self;
        if let Some(log) = log {
            log.mark_buffers(ring.memory(), chains, segments);
        }
        if let Some(inflight) = inflight {
            inflight.begin(ring, chains);
        }
        let wanted = ring.publish(chains);
        if let Some(inflight) = inflight {
            inflight.end(ring, chains);
        }
        if let Some(log) = log {
            ring.mark_published(log, chains);
            log.tell();
        }
        wanted
    }

    /// Goes on where `old`, the same ring as it was set up before, stood.
    pub(crate) fn resume(&mut self, old: &mut Self) {
        self.ring.resume(&mut old.ring);
        if let (Some(inflight), Some(old)) = (&mut self.inflight, &old.inflight) {
            inflight.resume(old);
        }
    }

    fn arm(&mut self) -> bool {
        let work = self.ring.arm();
        self.mark_wish();
        work
    }

    fn disarm(&mut self) {
        self.ring.disarm();
        self.mark_wish();
    }

    fn mark_wish(&self) {
        if let Some(log) = &self.log {
            self.ring.mark_wish(log);
        }
    }
}

/// The direction-independent half of a queue.
#[derive(Debug)]
pub(crate) struct Active {
    started: Option<Started>,
    report: Arc<RingReport>,
    broken: bool,
    /// The ring is broken, or waits for a translation until it is installed anew.
    halted: bool,
    /// Signalled when the ring breaks or misses a translation, for the control thread.
    alarm: Option<Arc<Event>>,
    faults: usize,
    pub(crate) counters: RingCounters,
    pub(crate) burst: Burst,
}

impl Active {
    pub(crate) fn new(report: Arc<RingReport>, alarm: Option<Arc<Event>>) -> Self {
        Self {
            started: None,
            report,
            broken: false,
            halted: false,
            alarm,
            faults: 0,
            counters: RingCounters::default(),
            burst: Burst::new(),
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
        let mut before = self.started.take();
        if let Some(before) = &before {
            self.report.set_stopped(before.ring.state());
        }
        self.started = next.map(|mut next| {
            match &mut before {
                Some(before) if before.epoch == next.epoch => next.resume(before),
                _ => {
                    next.disarm();
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
        self.halted = self.broken;
        before
    }

    /// Does not wait for a translation that is missing further on in the ring.
    pub(crate) fn go_on(&mut self) {
        self.halted = self.broken;
    }

    /// Forgets the burst.
    pub(crate) fn forget(&mut self) {
        self.burst.clear();
    }

    /// Looks whether chains wait in the ring.
    #[inline]
    pub(crate) fn look(&mut self) -> bool {
        let faults = sigbus::faults();
        if self.halted {
            return false;
        }
        let Some(started) = &mut self.started else {
            return false;
        };
        match started.ring.look() {
            Ok(some) if faults == self.faults => some,
            Ok(some) => self.look_for_faults(faults) && some,
            Err(error) => self.fail(error),
        }
    }

    /// Somebody's memory was truncated since this ring last looked; true if it was another's.
    #[cold]
    fn look_for_faults(&mut self, faults: usize) -> bool {
        self.faults = faults;
        let Some(started) = &self.started else {
            return false;
        };
        if started.ring.memory().is_broken() {
            return self.fail(RingError::MemoryTruncated);
        }
        true
    }

    /// Parses up to `count` chains more into the burst; tells whether it went well.
    #[inline]
    pub(crate) fn parse(&mut self, count: usize) -> bool {
        let Some(started) = &mut self.started else {
            return false;
        };
        let before = self.burst.followed;
        let parsed = started.ring.parse(count, &mut self.burst);
        self.counters.descriptors += u64::from(self.burst.followed - before);
        match parsed {
            Ok(()) => true,
            Err(RingError::Untranslated) => self.wait_for_translation(),
            Err(error) => self.fail(error),
        }
    }

    /// A chain's translation is missing: those before it make the burst, and the ring stands still
    /// until the control thread brings what it knows by then. Nobody waits for that here.
    #[cold]
    fn wait_for_translation(&mut self) -> bool {
        let pieces = self.burst.chains.last();
        let pieces = pieces.map_or(0, |last| usize::from(last.first) + usize::from(last.count));
        self.burst.segments.truncate(pieces);
        self.halted = true;
        if let Some(started) = &self.started {
            let (address, access) = started.ring.missed();
            let word = address & !PAGE_MASK | u64::from(access.bit());
            if self.report.missed.swap(word, Ordering::AcqRel) != word
                && let Some(alarm) = &self.alarm
            {
                alarm.signal();
            }
        }
        true
    }

    /// Gives the burst's first `count` chains back, notifies the driver if it wants that, and ends
    /// the burst.
    #[inline]
    pub(crate) fn publish(&mut self, count: usize) {
        if count > 0
            && !self.broken
            && let Some(started) = &mut self.started
            && started.publish(&self.burst, count)
            && let Some(call) = &started.call
        {
            call.signal();
            self.counters.notifications += 1;
        }
        self.report.publish(&self.counters);
        self.forget();
    }

    /// Asks the driver to kick; true if there is work, so that one must not sleep yet. A ring that
    /// does not run never keeps anybody awake.
    pub(crate) fn arm(&mut self) -> bool {
        !self.halted && self.ready().is_some_and(Started::arm)
    }

    /// Tells the driver that it need not kick.
    pub(crate) fn disarm(&mut self) {
        if let Some(started) = self.ready() {
            started.disarm();
        }
    }

    /// Stops the ring until the front end starts it anew; false.
    #[cold]
    fn fail(&mut self, error: RingError) -> bool {
        self.forget();
        (self.broken, self.halted) = (true, true);
        // A truncated file reads as zeroes, which look like any other nonsense.
        let truncated = self
            .started
            .as_ref()
            .is_some_and(|started| started.ring.memory().is_broken());
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
        false
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.install(None);
    }
}
