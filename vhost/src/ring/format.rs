//! The one place that knows which formats there are. A queue asks it once for a burst, never for a
//! packet.

use std::sync::Arc;

use super::packed::PackedRing;
use super::split::{SplitLayout, SplitRing};
use super::{Burst, Chain, Direction, RingError, RingLog, RingState};
use crate::memory::{Access, GuestMemory};
use crate::net::feature;

/// Where a virtqueue is: addresses in the front end's process (virtio 1.2, 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Areas {
    /// Descriptor area: the table, or the packed ring.
    pub(crate) desc: u64,
    /// Driver area: the available ring, or the driver's event suppression.
    pub(crate) driver: u64,
    /// Device area: the used ring, or the device's event suppression.
    pub(crate) device: u64,
}

impl Areas {
    /// The parts of a ring of `size` entries: address, length, and what is done there.
    pub(crate) fn parts(self, size: u16, features: u64) -> [(u64, u64, Access); 4] {
        let n = u64::from(size);
        if features & feature::RING_PACKED != 0 {
            return [
                (self.desc, 16 * n, Access::READ),
                (self.desc, 16 * n, Access::WRITE),
                (self.driver, 4, Access::READ),
                (self.device, 4, Access::WRITE),
            ];
        }
        [
            (self.desc, 16 * n, Access::READ),
            (self.driver, 6 + 2 * n, Access::READ),
            (self.device, 6 + 8 * n, Access::READ),
            (self.device, 6 + 8 * n, Access::WRITE),
        ]
    }
}

/// A ring of one of the formats that drivers can negotiate.
#[derive(Debug)]
pub(crate) enum Ring {
    /// Virtio 1.2, 2.7.
    Split(SplitRing),
    /// Virtio 1.2, 2.8.
    Packed(PackedRing),
}

macro_rules! each {
    ($ring:expr, $name:ident => $do:expr) => {
        match $ring {
            Ring::Split($name) => $do,
            Ring::Packed($name) => $do,
        }
    };
}

impl Ring {
    /// Finds a ring of `size` entries in memory and takes it up.
    ///
    /// A split ring goes on where its used entries end: chains are given back in order, so that
    /// tells where a back end before us stopped, even if the front end could not be told. A packed
    /// one has no such mark in memory, and goes on from `base` as vhost-user encodes it, or from its
    /// beginning.
    ///
    /// # Errors
    /// Why the ring can't be where it is said to be.
    pub(crate) fn open(
        memory: &Arc<GuestMemory>,
        size: u16,
        areas: Areas,
        base: Option<u32>,
        direction: Direction,
        features: u64,
    ) -> Result<Self, &'static str> {
        if features & feature::RING_PACKED != 0 {
            let ring = PackedRing::open(memory, size, areas, base, direction, features)?;
            return Ok(Self::Packed(ring));
        }
        let layout = SplitLayout::translate(memory, size, areas)?;
        let ring = SplitRing::new(memory.clone(), layout, direction, features);
        Ok(Self::Split(ring))
    }

    /// Where the ring stands. An open burst does not count.
    pub(crate) fn state(&self) -> RingState {
        each!(self, ring => ring.state())
    }

    pub(crate) fn memory(&self) -> &GuestMemory {
        each!(self, ring => ring.memory())
    }

    /// The address, and what it was to be used for, that made [`parse`](Self::parse) fail with
    /// [`RingError::Untranslated`].
    pub(crate) fn missed(&self) -> (u64, Access) {
        each!(self, ring => ring.missed())
    }

    /// Goes on where `old`, the same ring under another memory map, stood.
    pub(crate) fn resume(&mut self, old: &mut Self) {
        match (self, old) {
            (Self::Split(ring), Self::Split(old)) => ring.resume(old),
            (Self::Packed(ring), Self::Packed(old)) => ring.resume(old),
            // Features can't change while a ring runs: another format is another ring.
            _ => {}
        }
    }

    /// Looks for what the driver has made available since the last time; tells whether a burst
    /// could begin. [`parse`](Self::parse) sees at least what was there then.
    #[inline]
    pub(crate) fn look(&mut self) -> Result<bool, RingError> {
        match self {
            Self::Split(ring) => ring.look(),
            Self::Packed(ring) => Ok(ring.look()),
        }
    }

    /// Parses up to `count` chains behind those of the burst, of which all are this ring's, and
    /// appends them, but none after one that made the burst [cost](Burst::is_spent) as much as one
    /// may. They stay the driver's until they are published.
    #[inline]
    pub(crate) fn parse(&mut self, count: usize, burst: &mut Burst) -> Result<(), RingError> {
        each!(self, ring => ring.parse(count, burst))
    }

    /// Gives chains back, the burst's first ones in order; tells whether the driver wants to be
    /// notified. What else was parsed is forgotten.
    #[inline]
    pub(crate) fn publish(&mut self, chains: &[Chain]) -> bool {
        each!(self, ring => ring.publish(chains))
    }

    /// Marks in the log what [`publish`](Self::publish) has just written in the ring.
    #[cold]
    pub(crate) fn mark_published(&self, log: &RingLog, chains: &[Chain]) {
        each!(self, ring => ring.mark_published(log, chains));
    }

    /// Marks in the log what taking up an in-flight region may have written.
    #[cold]
    pub(crate) fn mark_taken_up(&self, log: &RingLog) {
        if let Self::Packed(ring) = self {
            ring.mark_all(log);
        }
    }

    /// Marks in the log where we say whether we want notifications.
    #[cold]
    pub(crate) fn mark_wish(&self, log: &RingLog) {
        match self {
            Self::Split(ring) => ring.mark_wish(log),
            // The device area is our event suppression and nothing else.
            Self::Packed(_) => log.mark_used(0, 4),
        }
    }

    /// Asks the driver to notify us of new chains; tells whether some came meanwhile.
    pub(crate) fn arm(&mut self) -> bool {
        each!(self, ring => ring.arm())
    }

    /// Tells the driver that it need not notify us.
    pub(crate) fn disarm(&mut self) {
        each!(self, ring => ring.disarm());
    }
}
