//! The packed virtqueue from the device's side (virtio 1.2, 2.8).
//!
//! Chains are given back in the order in which they were made available, so that one place in the
//! ring serves for both. Of a burst's used descriptors the first is written last: the driver looks
//! at that one alone, so it sees the whole burst or nothing of it, and merged buffers together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::buffers::{Buffers, Descriptor, Plain};
use super::{
    Areas, Burst, Chain, Direction, MAX_CHAIN, MAX_QUEUE_SIZE, RingError, RingLog, RingState,
};
use crate::memory::{Access, GuestMemory};
use crate::net::feature;
use crate::virtqueue::{
    Cell, DESC_AVAIL, DESC_INDIRECT, DESC_NEXT, DESC_USED, DESC_WRITE, EVENTS_DESC, EVENTS_DISABLE,
    EVENTS_ENABLE, Place, publish_descriptors, suppression, tell_then_ask,
};

/// What must be as expected for a chain of one ordinary descriptor.
const SHAPE: u16 = DESC_AVAIL | DESC_USED | DESC_NEXT | DESC_INDIRECT | DESC_WRITE;

/// Where the parts of a packed ring are in our address space, checked for size and alignment.
#[derive(Clone, Copy, Debug)]
struct PackedLayout {
    desc: *mut u8,
    /// The driver's event suppression.
    driver: *mut u8,
    /// Ours.
    device: *mut u8,
    size: u16,
}

impl PackedLayout {
    fn translate(memory: &GuestMemory, size: u16, areas: Areas) -> Result<Self, &'static str> {
        if size == 0 || size > MAX_QUEUE_SIZE {
            return Err("queue size is not 1 to 32768");
        }
        let desc = memory
            .translate_user(areas.desc, 16 * usize::from(size))
            .ok_or("descriptor ring outside memory")?;
        let driver = memory
            .translate_user(areas.driver, 4)
            .ok_or("driver event suppression outside memory")?;
        let device = memory
            .translate_user(areas.device, 4)
            .ok_or("device event suppression outside memory")?;
        if desc.addr() % 16 != 0 || driver.addr() % 4 != 0 || device.addr() % 4 != 0 {
            return Err("ring is not aligned");
        }
        Ok(Self {
            desc,
            driver,
            device,
            size,
        })
    }
}

/// A packed ring that a worker drives.
#[derive(Debug)]
pub(crate) struct PackedRing {
    buffers: Buffers,
    layout: PackedLayout,
    /// The next descriptor to take, and to use.
    next: Place,
    /// The next one to parse for the open burst.
    parsed: Place,
    /// Descriptors between the two.
    ahead: u16,
    event_index: bool,
    /// One used descriptor may stand for a whole burst.
    batches: bool,
    /// Nothing was published yet: a ring that starts always tells.
    fresh: bool,
}

// SAFETY: the pointers lead into the buffers' memory, which travels along; one thread at a time
// uses it.
unsafe impl Send for PackedRing {}

impl PackedRing {
    /// A ring that goes on from `base`, as vhost-user encodes it: the place of the next available
    /// descriptor in bits 0 to 15, of the next used one in bits 16 to 31.
    ///
    /// # Errors
    /// What is wrong with the areas or the base.
    pub(crate) fn open(
        memory: &Arc<GuestMemory>,
        size: u16,
        areas: Areas,
        base: Option<u32>,
        direction: Direction,
        features: u64,
    ) -> Result<Self, &'static str> {
        let layout = PackedLayout::translate(memory, size, areas)?;
        // What was taken and not used by a back end before us is taken again. Some front ends know
        // the lower half only and leave the upper one 0.
        let next = match base {
            None => Place::START,
            Some(base) if base >> 16 == 0 => Place::decode(base as u16),
            Some(base) => Place::decode((base >> 16) as u16),
        };
        if next.index >= size {
            return Err("base is outside the ring");
        }
        let in_order = features & feature::IN_ORDER != 0;
        Ok(Self {
            buffers: Buffers::new(memory.clone(), direction, features),
            layout,
            next,
            parsed: next,
            ahead: 0,
            event_index: features & feature::EVENT_IDX != 0,
            // What a used descriptor does not name counts as used completely, which is not so for
            // buffers that we wrote a part of.
            batches: in_order && direction == Direction::Readable,
            fresh: true,
        })
    }

    pub(crate) fn state(&self) -> RingState {
        RingState {
            next_avail: self.next.encode(),
            next_used: self.next.encode(),
        }
    }

    pub(crate) fn memory(&self) -> &GuestMemory {
        self.buffers.memory()
    }

    pub(crate) fn missed(&self) -> (u64, Access) {
        self.buffers.missed()
    }

    pub(super) fn size(&self) -> u16 {
        self.layout.size
    }

    /// The next descriptor to take, and to use.
    pub(super) fn place(&self) -> Place {
        self.next
    }

    /// Goes on from a place.
    ///
    /// # Panics
    /// If it is not in the ring; so do the others that are told a place.
    pub(super) fn go_to(&mut self, place: Place) {
        self.check(place.index);
        (self.next, self.parsed, self.ahead) = (place, place, 0);
    }

    fn check(&self, index: u16) {
        assert!(index < self.layout.size, "outside the ring");
    }

    /// The flags of the descriptor at a place.
    pub(super) fn flags(&self, at: Place) -> u16 {
        self.check(at.index);
        (Cell::load(self.control(at.index), Ordering::Acquire) >> 48) as u16
    }

    /// The two words of a descriptor.
    #[inline]
    pub(super) fn words(&self, index: u16) -> (u64, u64) {
        self.check(index);
        let control = Cell::load(self.control(index), Ordering::Relaxed);
        (self.descriptor(index, control).address, control)
    }

    /// Writes a descriptor that the driver had made available, and may not look at before it is
    /// used, anew.
    pub(super) fn put_back(&mut self, index: u16, low: u64, high: u64) {
        self.check(index);
        Cell::store(self.address(index), low, Ordering::Relaxed);
        Cell::store(self.control(index), high, Ordering::Release);
    }

    pub(crate) fn resume(&mut self, old: &Self) {
        // The front end can't change the size of a ring that runs; a place is never out of it.
        if old.next.index < self.layout.size {
            self.next = old.next;
            self.fresh = old.fresh;
        }
    }

    /// The second word of a descriptor: length, id and flags, in one access.
    #[inline(always)]
    fn control(&self, index: u16) -> &AtomicU64 {
        debug_assert!(index < self.layout.size);
        // SAFETY: every `Place` of the ring is below its size, the ring is 16-aligned, and its
        // memory is mapped; nobody accesses it but by atomics.
        unsafe { AtomicU64::from_ptr(self.layout.desc.add(16 * usize::from(index) + 8).cast()) }
    }

    /// The first word of a descriptor: the buffer's address.
    #[inline(always)]
    fn address(&self, index: u16) -> &AtomicU64 {
        debug_assert!(index < self.layout.size);
        // SAFETY: as for `control`.
        unsafe { AtomicU64::from_ptr(self.layout.desc.add(16 * usize::from(index)).cast()) }
    }

    /// The whole descriptor whose second word was read.
    #[inline(always)]
    fn descriptor(&self, index: u16, control: u64) -> Descriptor {
        Descriptor {
            address: Cell::load(self.address(index), Ordering::Relaxed),
            len: control as u32,
            flags: (control >> 48) as u16,
            next: 0,
        }
    }

    fn driver_events(&self) -> &AtomicU32 {
        // SAFETY: `translate` checked place and alignment, and the memory is mapped.
        unsafe { AtomicU32::from_ptr(self.layout.driver.cast()) }
    }

    fn device_events(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.layout.device.cast()) }
    }

    #[inline]
    pub(crate) fn look(&self) -> bool {
        let control = Cell::load(self.control(self.next.index), Ordering::Acquire);
        self.next.is_available((control >> 48) as u16)
    }

    #[inline]
    pub(crate) fn parse(&mut self, count: usize, burst: &mut Burst) -> Result<(), RingError> {
        if burst.chains.is_empty() {
            self.parsed = self.next;
            self.ahead = 0;
        }
        let mut left = count;
        loop {
            let at = self.parsed;
            let room = left.min(usize::from(self.layout.size - self.ahead.max(at.index)));
            let plain = self.buffers.append(self.plain(at, room as u16), burst);
            self.parsed.advance(plain as u16, self.layout.size);
            self.ahead += plain as u16;
            left -= plain;
            if left == 0 || self.ahead == self.layout.size || burst.is_spent() {
                return Ok(());
            }
            if plain > 0 && plain == room {
                continue;
            }
            if !self.parse_one(burst)? {
                return Ok(());
            }
            left -= 1;
            if left == 0 || self.ahead == self.layout.size {
                return Ok(());
            }
        }
    }

    /// The chains of up to `room` descriptors from `at` on, which do not reach the ring's end: up
    /// to the first that is more than one buffer, of the wrong direction, or not available.
    #[inline(always)]
    fn plain(&self, at: Place, room: u16) -> impl Iterator<Item = Plain> {
        let shape = at.available()
            | match self.buffers.direction {
                Direction::Readable => 0,
                Direction::Writable => DESC_WRITE,
            };
        (at.index..at.index + room).map_while(move |index| {
            let control = Cell::load(self.control(index), Ordering::Acquire);
            let descriptor = self.descriptor(index, control);
            (descriptor.flags & SHAPE == shape).then_some(Plain {
                head: (control >> 32) as u16,
                address: descriptor.address,
                len: descriptor.len,
            })
        })
    }

    /// Parses a chain of any kind, if one is available; tells whether another may follow.
    #[inline(never)]
    fn parse_one(&mut self, burst: &mut Burst) -> Result<bool, RingError> {
        let at = self.parsed;
        let control = Cell::load(self.control(at.index), Ordering::Acquire);
        let flags = (control >> 48) as u16;
        if !at.is_available(flags) {
            return Ok(false);
        }
        let first = burst.segments.len();
        let (total, id, slots) = if flags & (DESC_NEXT | DESC_INDIRECT) == 0 {
            let total = self
                .buffers
                .push(self.descriptor(at.index, control), burst)?;
            (total, (control >> 32) as u16, 1)
        } else {
            self.walk(control, burst)?
        };
        let taken = burst.chains.len();
        let direction = self.buffers.direction;
        let more = burst.close(direction, first, id, slots, total)?;
        if burst.chains.len() > taken {
            self.parsed.advance(slots, self.layout.size);
            self.ahead += slots;
        }
        Ok(more)
    }

    /// Walks a chain of several descriptors or an indirect one, whose first is the next to be
    /// parsed: its length, its id and the descriptors that it takes in the ring.
    #[cold]
    #[inline(never)]
    fn walk(&mut self, mut control: u64, burst: &mut Burst) -> Result<(u32, u16, u16), RingError> {
        let mut at = self.parsed;
        let mut descriptor = self.descriptor(at.index, control);
        if descriptor.flags & DESC_INDIRECT != 0 {
            let total = self.walk_table(descriptor, burst)?;
            return Ok((total, (control >> 32) as u16, 1));
        }
        let room = usize::from(self.layout.size - self.ahead).min(MAX_CHAIN);
        let mut total = 0u64;
        for slots in 1..=room {
            if descriptor.flags & DESC_INDIRECT != 0 {
                return Err(RingError::Indirect);
            }
            total += u64::from(self.buffers.push(descriptor, burst)?);
            if descriptor.flags & DESC_NEXT == 0 {
                let total = u32::try_from(total).map_err(|_| RingError::Length)?;
                // The last descriptor has the id.
                return Ok((total, (control >> 32) as u16, slots as u16));
            }
            at.advance(1, self.layout.size);
            // The driver wrote these before the first one's flags, which we have seen.
            control = Cell::load(self.control(at.index), Ordering::Relaxed);
            descriptor = self.descriptor(at.index, control);
        }
        Err(RingError::ChainTooLong)
    }

    /// Walks an indirect table: all its entries, of whose flags only the direction counts.
    fn walk_table(&mut self, descriptor: Descriptor, burst: &mut Burst) -> Result<u32, RingError> {
        let table = self.buffers.table(descriptor)?;
        let mut total = 0u64;
        for index in 0..table.entries {
            // SAFETY: the index is below the table's entries, and its memory is mapped.
            let (low, high) = unsafe { table.get(index) };
            let high = u64::from_le(high);
            let entry = Descriptor {
                address: u64::from_le(low),
                len: high as u32,
                flags: (high >> 48) as u16 & DESC_WRITE,
                next: 0,
            };
            total += u64::from(self.buffers.push(entry, burst)?);
        }
        u32::try_from(total).map_err(|_| RingError::Length)
    }

    #[inline]
    pub(crate) fn publish(&mut self, chains: &[Chain]) -> bool {
        let [first, rest @ ..] = chains else {
            return false;
        };
        let old = self.next;
        self.next.advance(first.slots, self.layout.size);
        if self.batches {
            for chain in rest {
                self.next.advance(chain.slots, self.layout.size);
            }
        } else {
            for chain in rest {
                let word = self.used(self.next, chain);
                Cell::store(self.control(self.next.index), word, Ordering::Relaxed);
                self.next.advance(chain.slots, self.layout.size);
            }
        }
        let named = match rest {
            [.., last] if self.batches => last,
            _ => first,
        };
        let word = self.used(old, named);
        let wanted = publish_descriptors(
            self.control(old.index),
            word,
            [old, self.next],
            self.layout.size,
            self.driver_events(),
            self.event_index,
        );
        std::mem::take(&mut self.fresh) | wanted
    }

    /// The second word of a used descriptor.
    #[inline(always)]
    fn used(&self, at: Place, chain: &Chain) -> u64 {
        let flags = match self.buffers.direction {
            Direction::Readable => at.used(),
            Direction::Writable => at.used() | DESC_WRITE,
        };
        u64::from(chain.written) | u64::from(chain.head) << 32 | u64::from(flags) << 48
    }

    /// Marks the whole ring.
    pub(super) fn mark_all(&self, log: &RingLog) {
        let bytes = 16 * u64::from(self.layout.size);
        log.mark_ring(self.memory(), self.layout.desc, 0, bytes);
    }

    pub(crate) fn mark_published(&self, log: &RingLog, chains: &[Chain]) {
        let size = u64::from(self.layout.size);
        let count: u64 = chains.iter().map(|chain| u64::from(chain.slots)).sum();
        let first = (u64::from(self.next.index) + size - count) % size;
        let ahead = count.min(size - first);
        log.mark_ring(self.memory(), self.layout.desc, 16 * first, 16 * ahead);
        log.mark_ring(self.memory(), self.layout.desc, 0, 16 * (count - ahead));
    }

    pub(crate) fn arm(&mut self) -> bool {
        let flags = if self.event_index {
            EVENTS_DESC
        } else {
            EVENTS_ENABLE
        };
        let control = tell_then_ask(
            self.device_events(),
            suppression(flags, self.next),
            self.control(self.next.index),
        );
        self.next.is_available((control >> 48) as u16)
    }

    pub(crate) fn disarm(&mut self) {
        let word = suppression(EVENTS_DISABLE, self.next);
        Cell::store(self.device_events(), word, Ordering::Relaxed);
    }
}
