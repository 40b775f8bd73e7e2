//! The split virtqueue from the device's side (virtio 1.2, 2.7).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use super::{Chain, Direction, MAX_CHAIN, RingError, RingState, Segment};
use crate::copy;
use crate::memory::GuestMemory;
use crate::net::feature;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;
/// `avail.flags`: the driver wants no notifications.
const NO_INTERRUPT: u16 = 1;
/// `used.flags`: the device wants no notifications.
const NO_NOTIFY: u16 = 1;

/// Pieces that one burst can hold. A chain that does not fit waits for the next burst, and every
/// chain fits an empty one, even if each of its descriptors lies across two regions.
pub(super) const MAX_SEGMENTS: usize = 2 * MAX_CHAIN;

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
        desc: u64,
        avail: u64,
        used: u64,
    ) -> Result<Self, &'static str> {
        if !size.is_power_of_two() || size > super::MAX_QUEUE_SIZE {
            return Err("queue size is not a power of two up to 32768");
        }
        let n = usize::from(size);
        // The last two bytes of both rings hold the event indices.
        let desc = memory
            .translate_user(desc, 16 * n)
            .ok_or("descriptor table outside memory")?;
        let avail = memory
            .translate_user(avail, 6 + 2 * n)
            .ok_or("available ring outside memory")?;
        let used = memory
            .translate_user(used, 6 + 8 * n)
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
    pub(crate) fn used_index(&self) -> u16 {
        // SAFETY: `translate` checked size and alignment, and callers hold the memory.
        unsafe { load_u16(self.used.add(2), Ordering::Acquire) }
    }
}

/// # Safety
/// `p` is aligned and inside a live mapping.
#[inline(always)]
unsafe fn load_u16(p: *mut u8, order: Ordering) -> u16 {
    // SAFETY: the caller's promise.
    u16::from_le(unsafe { AtomicU16::from_ptr(p.cast()) }.load(order))
}

/// # Safety
/// `p` is aligned and inside a live mapping.
#[inline(always)]
unsafe fn store_u16(p: *mut u8, value: u16, order: Ordering) {
    // SAFETY: the caller's promise.
    unsafe { AtomicU16::from_ptr(p.cast()) }.store(value.to_le(), order);
}

/// A descriptor, read once.
#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    #[inline(always)]
    fn from_words(low: u64, high: u64) -> Self {
        let high = u64::from_le(high);
        Self {
            address: u64::from_le(low),
            len: high as u32,
            flags: (high >> 32) as u16,
            next: (high >> 48) as u16,
        }
    }
}

/// A table of descriptors: the ring's own, or an indirect one.
#[derive(Clone, Copy)]
struct Table {
    base: *const u8,
    entries: u32,
}

impl Table {
    /// # Safety
    /// The table's memory is mapped, and `index` is below `entries`.
    #[inline(always)]
    unsafe fn get(self, index: u32) -> Descriptor {
        // SAFETY: the caller's promise; indirect tables need not be aligned, and these loads can.
        unsafe {
            let p = self.base.add(16 * index as usize);
            Descriptor::from_words(copy::load8(p), copy::load8(p.add(8)))
        }
    }
}

/// A split ring that a worker drives.
#[derive(Debug)]
pub(crate) struct SplitRing {
    memory: Arc<GuestMemory>,
    layout: SplitLayout,
    state: RingState,
    event_index: bool,
    indirect: bool,
    /// The used index when the driver was last told of it; a ring that starts always tells.
    signalled: Option<u16>,
    /// The region that the last buffer was in.
    hint: u32,
}

// SAFETY: the pointers lead into `memory`, which travels along; one thread at a time uses it.
unsafe impl Send for SplitRing {}

impl SplitRing {
    pub(crate) fn new(
        memory: Arc<GuestMemory>,
        layout: SplitLayout,
        state: RingState,
        features: u64,
    ) -> Self {
        Self {
            memory,
            layout,
            state,
            event_index: features & feature::EVENT_IDX != 0,
            indirect: features & feature::INDIRECT_DESC != 0,
            signalled: None,
            hint: 0,
        }
    }

    pub(crate) fn state(&self) -> RingState {
        self.state
    }

    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Goes on where `old`, the same ring under another memory map, stood.
    pub(crate) fn resume(&mut self, old: &Self) {
        self.state = old.state;
        self.signalled = old.signalled;
    }

    fn mask(&self) -> u16 {
        self.layout.size - 1
    }

    /// Chains that the driver has made available and nobody has taken.
    #[inline]
    pub(crate) fn pending(&self) -> Result<u16, RingError> {
        // SAFETY: the layout was checked, and `memory` keeps it mapped.
        let index = unsafe { load_u16(self.layout.avail.add(2), Ordering::Acquire) };
        let pending = index.wrapping_sub(self.state.next_avail);
        if pending > self.layout.size {
            Err(RingError::AvailableJump)
        } else {
            Ok(pending)
        }
    }

    /// Parses up to `max` of `pending` chains from `skip` on, without taking them, and appends
    /// them to `chains` and their pieces to `segments`.
    #[inline]
    pub(crate) fn parse(
        &mut self,
        skip: u16,
        count: u16,
        direction: Direction,
        chains: &mut Vec<Chain>,
        segments: &mut Vec<Segment>,
    ) -> Result<(), RingError> {
        let mut heads = [0u16; super::BURST];
        let count = usize::from(count).min(super::BURST);
        for (i, head) in heads[..count].iter_mut().enumerate() {
            let at = self
                .state
                .next_avail
                .wrapping_add(skip)
                .wrapping_add(i as u16)
                & self.mask();
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
        for &head in &heads[..count] {
            let first = segments.len();
            // SAFETY: `head` is below the queue's size, and the table is aligned and mapped.
            let descriptor = unsafe {
                let p = self.layout.desc.add(16 * usize::from(head));
                let low = AtomicU64::from_ptr(p.cast()).load(Ordering::Relaxed);
                let high = AtomicU64::from_ptr(p.add(8).cast()).load(Ordering::Relaxed);
                Descriptor::from_words(low, high)
            };
            let total = if descriptor.flags & (DESC_NEXT | DESC_INDIRECT) == 0 {
                self.push(descriptor, direction, segments)?
            } else {
                self.walk(descriptor, direction, segments)?
            };
            if segments.len() > MAX_SEGMENTS {
                segments.truncate(first);
                return if first > 0 {
                    Ok(())
                } else {
                    Err(RingError::ChainTooLong)
                };
            }
            let count = (segments.len() - first) as u16;
            let piece = segments.get(first).copied().unwrap_or(Segment::EMPTY);
            match direction {
                Direction::Readable => copy::prefetch_read(piece.ptr),
                Direction::Writable => copy::prefetch_write(piece.ptr),
            }
            chains.push(Chain {
                piece,
                head,
                count,
                first: first as u32,
                total,
            });
        }
        Ok(())
    }

    /// Checks one buffer and appends its pieces; tells its length.
    #[inline(always)]
    fn push(
        &mut self,
        descriptor: Descriptor,
        direction: Direction,
        segments: &mut Vec<Segment>,
    ) -> Result<u32, RingError> {
        let writable = descriptor.flags & DESC_WRITE != 0;
        if writable != (direction == Direction::Writable) {
            return Err(RingError::Direction);
        }
        let (mut address, mut left) = (descriptor.address, descriptor.len);
        while left > 0 {
            let found = self.memory.translate(address, left, &mut self.hint);
            let (ptr, len) = found.ok_or(RingError::OutsideMemory)?;
            // The chains before this one hold at most `MAX_SEGMENTS` pieces.
            if segments.len() >= 2 * MAX_SEGMENTS {
                return Err(RingError::ChainTooLong);
            }
            segments.push(Segment { ptr, len });
            left -= len;
            // A region never wraps, so neither does the address of what follows it.
            address = address.wrapping_add(u64::from(len));
        }
        Ok(descriptor.len)
    }

    /// Walks a chain of more than one descriptor, or an indirect one.
    #[cold]
    #[inline(never)]
    fn walk(
        &mut self,
        mut descriptor: Descriptor,
        direction: Direction,
        segments: &mut Vec<Segment>,
    ) -> Result<u32, RingError> {
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
                if indirect || !self.indirect || descriptor.flags & DESC_NEXT != 0 {
                    return Err(RingError::Indirect);
                }
                table = self.indirect_table(descriptor)?;
                indirect = true;
                left = table.entries;
                // SAFETY: the table is mapped and has at least one entry.
                descriptor = unsafe { table.get(0) };
                continue;
            }
            if left == 0 {
                return Err(RingError::ChainTooLong);
            }
            left -= 1;
            total += u64::from(self.push(descriptor, direction, segments)?);
            if descriptor.flags & DESC_NEXT == 0 {
                break;
            }
            if u32::from(descriptor.next) >= table.entries {
                return Err(RingError::DescriptorIndex);
            }
            // SAFETY: the index was just checked, and `memory` keeps the table mapped.
            descriptor = unsafe { table.get(u32::from(descriptor.next)) };
        }
        u32::try_from(total).map_err(|_| RingError::Length)
    }

    fn indirect_table(&mut self, descriptor: Descriptor) -> Result<Table, RingError> {
        let len = descriptor.len;
        if len == 0 || !len.is_multiple_of(16) {
            return Err(RingError::Indirect);
        }
        let entries = len / 16;
        if entries > MAX_CHAIN as u32 {
            return Err(RingError::ChainTooLong);
        }
        match self
            .memory
            .translate(descriptor.address, len, &mut self.hint)
        {
            Some((base, found)) if found == len => Ok(Table { base, entries }),
            _ => Err(RingError::OutsideMemory),
        }
    }

    /// Writes the used entry `ahead` places after the last published one.
    #[inline(always)]
    pub(crate) fn put_used(&mut self, ahead: u16, head: u16, len: u32) {
        let at = self.state.next_used.wrapping_add(ahead) & self.mask();
        // SAFETY: `at` is below the queue's size, so the entry is inside the checked ring, and
        // entries are 4-aligned as the ring is.
        unsafe {
            let p = self.layout.used.add(4 + 8 * usize::from(at));
            AtomicU32::from_ptr(p.cast()).store(u32::from(head).to_le(), Ordering::Relaxed);
            AtomicU32::from_ptr(p.add(4).cast()).store(len.to_le(), Ordering::Relaxed);
        }
    }

    /// Takes `count` chains and publishes as many used entries; tells whether the driver wants
    /// to be notified.
    #[inline]
    pub(crate) fn publish(&mut self, count: u16) -> bool {
        self.state.next_avail = self.state.next_avail.wrapping_add(count);
        self.state.next_used = self.state.next_used.wrapping_add(count);
        let new = self.state.next_used;
        // SAFETY: the layout was checked; the used index is at offset 2 of the used ring, the
        // flags and the driver's event index are at both ends of the available ring.
        unsafe {
            store_u16(self.layout.used.add(2), new, Ordering::Release);
            // The driver writes its wish before it reads the index a last time; this orders our
            // write of the index before we read its wish.
            fence(Ordering::SeqCst);
            if self.event_index {
                let at = 4 + 2 * usize::from(self.layout.size);
                let event = load_u16(self.layout.avail.add(at), Ordering::Relaxed);
                let old = self.signalled.replace(new);
                old.is_none_or(|old| crossed(event, new, old))
            } else {
                load_u16(self.layout.avail, Ordering::Relaxed) & NO_INTERRUPT == 0
            }
        }
    }

    /// Asks the driver to notify us of new chains; tells whether some came meanwhile.
    pub(crate) fn arm(&mut self) -> bool {
        // SAFETY: flags and event index are at both ends of the checked used ring.
        unsafe {
            if self.event_index {
                let at = 4 + 8 * usize::from(self.layout.size);
                store_u16(
                    self.layout.used.add(at),
                    self.state.next_avail,
                    Ordering::Relaxed,
                );
            } else {
                store_u16(self.layout.used, 0, Ordering::Relaxed);
            }
        }
        fence(Ordering::SeqCst);
        // A jump is work, too: the next fetch finds it and breaks the ring.
        self.pending() != Ok(0)
    }

    /// Tells the driver that it need not notify us.
    pub(crate) fn disarm(&mut self) {
        // SAFETY: flags and event index are at both ends of the checked used ring.
        unsafe {
            if self.event_index {
                // An index that the driver passed a moment ago comes round in 65535 entries.
                let at = 4 + 8 * usize::from(self.layout.size);
                let past = self.state.next_avail.wrapping_sub(1);
                store_u16(self.layout.used.add(at), past, Ordering::Relaxed);
            } else {
                store_u16(self.layout.used, NO_NOTIFY, Ordering::Relaxed);
            }
        }
    }
}

/// Whether the step from `old` to `new` passes `event` (virtio 1.2, 2.7.10).
#[inline(always)]
fn crossed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
