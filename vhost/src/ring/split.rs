//! The split virtqueue from the device's side (virtio 1.2, 2.7).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use super::buffers::{Buffers, Descriptor, Plain, Table};
use super::{Areas, Burst, Chain, Direction, MAX_CHAIN, RingError, RingLog, RingState};
use crate::copy;
use crate::memory::{Access, GuestMemory};
use crate::net::feature;
use crate::virtqueue::{Cell, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, publish_index, tell_then_ask};

/// `used.flags`: the device wants no notifications.
const NO_NOTIFY: u16 = 1;

/// Where the parts of a split ring are in our address space, checked for size and alignment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitLayout {
    desc: *mut u8,
    avail: *mut u8,
    used: *mut u8,
    size: u16,
}

// SAFETY: plain pointers into a mapping that travels with the layout as an `Arc<GuestMemory>`.
unsafe impl Send for SplitLayout {}

impl SplitLayout {
    /// Finds the parts of a ring of `size` entries by their addresses in the front end's process.
    pub(crate) fn translate(
        memory: &GuestMemory,
        size: u16,
        areas: Areas,
    ) -> Result<Self, &'static str> {
        if !size.is_power_of_two() || size > super::MAX_QUEUE_SIZE {
            return Err("queue size is not a power of two up to 32768");
        }
        let n = usize::from(size);
        // The last two bytes of both rings hold the event indices.
        let desc = memory
            .translate_user(areas.desc, 16 * n)
            .ok_or("descriptor table outside memory")?;
        let avail = memory
            .translate_user(areas.driver, 6 + 2 * n)
            .ok_or("available ring outside memory")?;
        let used = memory
            .translate_user(areas.device, 6 + 8 * n)
            .ok_or("used ring outside memory")?;
        if desc.addr() % 16 != 0 || avail.addr() % 2 != 0 || used.addr() % 4 != 0 {
            return Err("ring is not aligned");
        }
        Ok(Self {
            desc,
            avail,
            used,
            size,
        })
    }

    /// The used index as it stands in memory.
    fn used_index(&self) -> u16 {
        // SAFETY: `translate` checked size and alignment, and callers hold the memory.
        unsafe { load_u16(self.used.add(2), Ordering::Acquire) }
    }
}

/// # Safety
/// `p` is aligned and inside a mapping that lives as long as the cell is used.
#[inline(always)]
unsafe fn cell<'a>(p: *mut u8) -> &'a AtomicU16 {
    // SAFETY: the caller's promise; nobody accesses the word but by atomics.
    unsafe { AtomicU16::from_ptr(p.cast()) }
}

/// # Safety
/// As for `cell`.
#[inline(always)]
unsafe fn load_u16(p: *mut u8, order: Ordering) -> u16 {
    // SAFETY: the caller's promise.
    Cell::load(unsafe { cell(p) }, order)
}

/// Reads a descriptor, each of its words once.
///
/// # Safety
/// The table is aligned and mapped, and `head` is inside.
#[inline(always)]
unsafe fn load_descriptor(table: *mut u8, head: u16) -> Descriptor {
    // SAFETY: the caller's promise.
    unsafe {
        let p = table.add(16 * usize::from(head));
        let low = AtomicU64::from_ptr(p.cast()).load(Ordering::Relaxed);
        let high = AtomicU64::from_ptr(p.add(8).cast()).load(Ordering::Relaxed);
        Descriptor::from_split(low, high)
    }
}

/// A split ring that a worker drives.
#[derive(Debug)]
pub(crate) struct SplitRing {
    buffers: Buffers,
    layout: SplitLayout,
    state: RingState,
    /// The available index when we last looked.
    seen: u16,
    event_index: bool,
    /// Nothing was published yet: a ring that starts always tells.
    fresh: bool,
    /// Chains that a back end before us took out of their order and did not give back. They come
    /// first, and stand for as many entries of the available ring, which begin with `resubmitted_at`.
    resubmitted: Vec<u16>,
    resubmitted_at: u16,
}

// SAFETY: the pointers lead into the buffers' memory, which travels along; one thread at a time
// uses it.
unsafe impl Send for SplitRing {}

impl SplitRing {
    /// A ring that goes on from its used index.
    pub(crate) fn new(
        memory: Arc<GuestMemory>,
        layout: SplitLayout,
        direction: Direction,
        features: u64,
    ) -> Self {
        let used = layout.used_index();
        Self {
            buffers: Buffers::new(memory, direction, features),
            layout,
            state: RingState {
                next_avail: used,
                next_used: used,
            },
            seen: used,
            event_index: features & feature::EVENT_IDX != 0,
            fresh: true,
            resubmitted: Vec::new(),
            resubmitted_at: used,
        }
    }

    pub(crate) fn state(&self) -> RingState {
        self.state
    }

    pub(crate) fn memory(&self) -> &GuestMemory {
        self.buffers.memory()
    }

    pub(crate) fn missed(&self) -> (u64, Access) {
        self.buffers.missed()
    }

    pub(crate) fn resume(&mut self, old: &mut Self) {
        self.state = old.state;
        self.seen = old.state.next_avail;
        self.fresh = old.fresh;
        self.resubmit(std::mem::take(&mut old.resubmitted));
        self.resubmitted_at = old.resubmitted_at;
    }

    pub(super) fn size(&self) -> u16 {
        self.layout.size
    }

    /// Chains that the driver has made available and that were not given back.
    pub(super) fn waiting(&self) -> u16 {
        // SAFETY: the layout was checked, and the memory is mapped.
        let index = unsafe { load_u16(self.layout.avail.add(2), Ordering::Acquire) };
        index.wrapping_sub(self.state.next_used)
    }

    /// Has these chains, no more than [`waiting`](Self::waiting), come first. Heads that the table
    /// does not have are left out.
    pub(super) fn resubmit(&mut self, mut heads: Vec<u16>) {
        heads.retain(|head| *head < self.layout.size);
        self.resubmitted = heads;
        self.resubmitted_at = self.state.next_used;
    }

    /// Puts resubmitted chains in the place of what the available ring says from entry `next` on.
    #[cold]
    #[inline(never)]
    fn substitute(&mut self, next: u16, heads: &mut [u16]) {
        let start = self.resubmitted_at;
        if usize::from(self.state.next_avail.wrapping_sub(start)) >= self.resubmitted.len() {
            self.resubmitted.clear();
            return;
        }
        let done = usize::from(next.wrapping_sub(start)).min(self.resubmitted.len());
        for (head, resubmitted) in heads.iter_mut().zip(&self.resubmitted[done..]) {
            *head = *resubmitted;
        }
    }

    fn mask(&self) -> u16 {
        self.layout.size - 1
    }

    #[inline]
    pub(crate) fn look(&mut self) -> Result<bool, RingError> {
        // SAFETY: the layout was checked, and the memory is mapped.
        let index = unsafe { load_u16(self.layout.avail.add(2), Ordering::Acquire) };
        if index.wrapping_sub(self.state.next_avail) > self.layout.size {
            return Err(RingError::AvailableJump);
        }
        self.seen = index;
        Ok(index != self.state.next_avail)
    }

    #[inline]
    pub(crate) fn parse(&mut self, count: usize, burst: &mut Burst) -> Result<(), RingError> {
        let mut heads = [0u16; super::BURST];
        let next = self
            .state
            .next_avail
            .wrapping_add(burst.chains.len() as u16);
        let seen = usize::from(self.seen.wrapping_sub(next));
        let count = count.min(seen).min(super::BURST);
        for (i, head) in heads[..count].iter_mut().enumerate() {
            let at = next.wrapping_add(i as u16) & self.mask();
            // SAFETY: `at` is below the queue's size, so the entry is inside the checked ring.
            *head = unsafe {
                load_u16(
                    self.layout.avail.add(4 + 2 * usize::from(at)),
                    Ordering::Relaxed,
                )
            };
            if *head >= self.layout.size {
                return Err(RingError::DescriptorIndex);
            }
            // Descriptors of consecutive heads mostly share lines: one in four is enough.
            if i % 4 == 0 {
                copy::prefetch_read(self.layout.desc.wrapping_add(16 * usize::from(*head)));
            }
        }
        if !self.resubmitted.is_empty() {
            self.substitute(next, &mut heads[..count]);
        }
        let mut heads = &heads[..count];
        loop {
            let plain = self.buffers.append(self.plain(heads), burst);
            let [head, rest @ ..] = &heads[plain..] else {
                return Ok(());
            };
            if burst.is_spent() || !self.parse_one(*head, burst)? {
                return Ok(());
            }
            heads = rest;
        }
    }

    /// The chains of these heads up to the first that is more than one buffer, or of the wrong
    /// direction.
    #[inline(always)]
    fn plain(&self, heads: &[u16]) -> impl Iterator<Item = Plain> {
        let shape = match self.buffers.direction {
            Direction::Readable => 0,
            Direction::Writable => DESC_WRITE,
        };
        let table = self.layout.desc;
        heads.iter().map_while(move |&head| {
            // SAFETY: `parse`, or `resubmit`, checked that the head is below the queue's size, and
            // the table is aligned and mapped.
            let descriptor = unsafe { load_descriptor(table, head) };
            let flags = descriptor.flags & (DESC_NEXT | DESC_INDIRECT | DESC_WRITE);
            (flags == shape).then_some(Plain {
                head,
                address: descriptor.address,
                len: descriptor.len,
            })
        })
    }

    /// Parses a chain of any kind; tells whether another may follow.
    #[inline(never)]
    fn parse_one(&mut self, head: u16, burst: &mut Burst) -> Result<bool, RingError> {
        let first = burst.segments.len();
        // SAFETY: as above.
        let descriptor = unsafe { load_descriptor(self.layout.desc, head) };
        let total = if descriptor.flags & (DESC_NEXT | DESC_INDIRECT) == 0 {
            self.buffers.push(descriptor, burst)?
        } else {
            self.walk(descriptor, burst)?
        };
        burst.close(self.buffers.direction, first, head, 1, total)
    }

    /// Walks a chain of more than one descriptor, or an indirect one.
    #[cold]
    #[inline(never)]
    fn walk(&mut self, mut descriptor: Descriptor, burst: &mut Burst) -> Result<u32, RingError> {
        let size = u32::from(self.layout.size);
        let mut table = Table {
            base: self.layout.desc,
            entries: size,
        };
        let mut indirect = false;
        let mut total = 0u64;
        // One chain can't hold more descriptors than its table, or it runs in a circle.
        let mut left = size.min(MAX_CHAIN as u32);
        loop {
            if descriptor.flags & DESC_INDIRECT != 0 {
                if indirect {
                    return Err(RingError::Indirect);
                }
                table = self.buffers.table(descriptor)?;
                indirect = true;
                left = table.entries;
                // SAFETY: the table is mapped and has at least one entry.
                let (low, high) = unsafe { table.get(0) };
                descriptor = Descriptor::from_split(low, high);
                continue;
            }
            if left == 0 {
                return Err(RingError::ChainTooLong);
            }
            left -= 1;
            total += u64::from(self.buffers.push(descriptor, burst)?);
            if descriptor.flags & DESC_NEXT == 0 {
                break;
            }
            if u32::from(descriptor.next) >= table.entries {
                return Err(RingError::DescriptorIndex);
            }
            // SAFETY: the index was just checked, and the table's memory is mapped.
            let (low, high) = unsafe { table.get(u32::from(descriptor.next)) };
            descriptor = Descriptor::from_split(low, high);
        }
        u32::try_from(total).map_err(|_| RingError::Length)
    }

    /// Writes the used entry `ahead` places after the last published one.
    #[inline(always)]
    fn put_used(&mut self, ahead: u16, head: u16, len: u32) {
        let at = self.state.next_used.wrapping_add(ahead) & self.mask();
        let entry = (u64::from(head) | u64::from(len) << 32).to_le();
        // SAFETY: `at` is below the queue's size, so the entry is inside the checked ring. The
        // driver looks at it only after the index, so that it need not be written in one piece.
        unsafe { copy::store8(self.layout.used.add(4 + 8 * usize::from(at)), entry) }
    }

    #[inline]
    pub(crate) fn publish(&mut self, chains: &[Chain]) -> bool {
        for (i, chain) in chains.iter().enumerate() {
            self.put_used(i as u16, chain.head, chain.written);
        }
        let count = chains.len() as u16;
        self.state.next_avail = self.state.next_avail.wrapping_add(count);
        let old = self.state.next_used;
        let new = old.wrapping_add(count);
        self.state.next_used = new;
        let wish = if self.event_index {
            4 + 2 * usize::from(self.layout.size)
        } else {
            0
        };
        // SAFETY: the layout was checked; the used index is at offset 2 of the used ring, the
        // flags and the driver's event index are at both ends of the available ring.
        let wanted = unsafe {
            let index = cell(self.layout.used.add(2));
            let wish = cell(self.layout.avail.add(wish));
            publish_index(index, new, old, wish, self.event_index)
        };
        std::mem::take(&mut self.fresh) | wanted
    }

    pub(crate) fn mark_published(&self, log: &RingLog, chains: &[Chain]) {
        let (size, count) = (u64::from(self.layout.size), chains.len() as u64);
        let first = self.state.next_used.wrapping_sub(count as u16) & self.mask();
        let ahead = count.min(size - u64::from(first));
        log.mark_used(4 + 8 * u64::from(first), 8 * ahead);
        log.mark_used(4, 8 * (count - ahead));
        log.mark_used(2, 2);
    }

    pub(crate) fn mark_wish(&self, log: &RingLog) {
        let size = u64::from(self.layout.size);
        log.mark_used(if self.event_index { 4 + 8 * size } else { 0 }, 2);
    }

    /// Where we tell the driver whether to notify us.
    fn wish(&self) -> &AtomicU16 {
        let at = if self.event_index {
            4 + 8 * usize::from(self.layout.size)
        } else {
            0
        };
        // SAFETY: flags and event index are at both ends of the checked used ring.
        unsafe { cell(self.layout.used.add(at)) }
    }

    pub(crate) fn arm(&mut self) -> bool {
        let wish = if self.event_index {
            self.state.next_avail
        } else {
            0
        };
        // SAFETY: the available index is at offset 2 of the checked available ring.
        let index = unsafe { cell(self.layout.avail.add(2)) };
        // A jump is work, too: the next burst finds it and breaks the ring.
        tell_then_ask(self.wish(), wish, index) != self.state.next_avail
    }

    pub(crate) fn disarm(&mut self) {
        let wish = if self.event_index {
            // An index that the driver passed a moment ago comes round in 65535 entries.
            self.state.next_avail.wrapping_sub(1)
        } else {
            NO_NOTIFY
        };
        Cell::store(self.wish(), wish, Ordering::Relaxed);
    }
}
