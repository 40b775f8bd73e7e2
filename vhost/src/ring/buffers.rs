//! What the formats share: descriptors become chains of checked pieces of guest memory.
//!
//! Every address that a guest names in a descriptor is translated in [`Buffers::find`] and nowhere
//! else.

use std::sync::Arc;

use super::{BURST_BYTES, BURST_DESCRIPTORS, DESCRIPTOR_COST, Direction, MAX_CHAIN, RingError};
use crate::copy;
use crate::memory::{Access, GuestMemory, Line};
use crate::net::feature;
use crate::virtqueue::{DESC_NEXT, DESC_WRITE};

/// Pieces that one burst can hold. A chain that does not fit waits for the next burst, and every
/// chain fits an empty one, even if each of its descriptors lies across two regions.
pub(super) const MAX_SEGMENTS: usize = 2 * MAX_CHAIN;

/// A piece of a guest buffer: a pointer with its validated length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) ptr: *mut u8,
    pub(crate) len: u32,
}

impl Segment {
    pub(crate) const EMPTY: Self = Self {
        ptr: std::ptr::null_mut(),
        len: 0,
    };
}

/// One descriptor chain after parsing. What is the same for all that are one buffer is at the end, and written at once.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Chain {
    /// Its first piece, or an empty one: mostly the only one, and then all that is looked at.
    pub(crate) piece: Segment,
    /// Bytes of all its pieces; what is of use to the queue's direction, once a burst is open.
    pub(crate) total: u32,
    /// What the used entry names: the index of its first descriptor, or its buffer id.
    pub(crate) head: u16,
    /// Where its pieces start in the burst's list.
    pub(crate) first: u16,
    /// Descriptors that it takes in a packed ring; entries in a split one.
    pub(crate) slots: u16,
    /// Number of its pieces in the burst's list.
    pub(crate) count: u16,
    /// Bytes that we wrote into it, for the used entry.
    pub(crate) written: u32,
}

/// The chains of a burst and their pieces.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) chains: Vec<Chain>,
    pub(crate) segments: Vec<Segment>,
    /// Every chain of the burst, in ring order, where some hold no frame and are not among
    /// `chains`; empty otherwise.
    pub(crate) whole: Vec<Chain>,
    /// Descriptors that were followed.
    pub(super) followed: u32,
    /// Descriptors after which no chain more is begun.
    pub(super) budget: u32,
    /// Bytes of the chains, for a ring that is read from.
    bytes: u32,
}

// SAFETY: the pieces point into memory that the ring keeps mapped, which goes with its burst.
unsafe impl Send for Burst {}

impl Burst {
    pub(super) fn new() -> Self {
        Self {
            chains: Vec::with_capacity(MAX_CHAIN + super::BURST),
            segments: Vec::with_capacity(2 * MAX_SEGMENTS),
            whole: Vec::with_capacity(super::BURST),
            followed: 0,
            budget: BURST_DESCRIPTORS,
            bytes: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.chains.clear();
        self.segments.clear();
        self.whole.clear();
        (self.followed, self.bytes) = (0, 0);
    }

    /// Whether the burst has cost as much as one may.
    #[inline]
    pub(super) fn is_spent(&self) -> bool {
        self.followed >= self.budget || self.bytes >= BURST_BYTES
    }

    /// The chains to give back, in ring order.
    #[inline]
    pub(super) fn taken(&self) -> &[Chain] {
        if self.whole.is_empty() {
            &self.chains
        } else {
            &self.whole
        }
    }

    /// What the burst costs: see [`FromGuest::cost`](super::FromGuest::cost).
    #[inline]
    pub(super) fn cost(&self) -> u64 {
        u64::from(self.bytes) + u64::from(self.followed) * DESCRIPTOR_COST
    }

    /// Appends chains of one buffer each, of a queue of this direction, as long as they lie in `line`
    /// and the burst may go on; tells how many.
    #[inline(always)]
    fn append(
        &mut self,
        direction: Direction,
        line: Line,
        chains: impl Iterator<Item = Plain>,
    ) -> usize {
        let first = self.segments.len();
        let left = self.budget.saturating_sub(self.followed) as usize;
        let room = MAX_SEGMENTS.saturating_sub(first).min(left);
        let places = self.chains.spare_capacity_mut().iter_mut();
        let places = places.zip(self.segments.spare_capacity_mut()).take(room);
        let (mut count, mut bytes) = (0, self.bytes);
        for ((chain, segment), plain) in places.zip(chains) {
            let Some(ptr) = line.find(plain.address, plain.len) else {
                break;
            };
            match direction {
                Direction::Readable => copy::prefetch_read(ptr),
                Direction::Writable => copy::prefetch_write(ptr),
            }
            let piece = Segment {
                ptr,
                len: plain.len,
            };
            segment.write(piece);
            chain.write(Chain {
                piece,
                head: plain.head,
                slots: 1,
                count: 1,
                first: (first + count) as u16,
                total: plain.len,
                written: 0,
            });
            count += 1;
            if direction == Direction::Readable {
                bytes = bytes.saturating_add(plain.len);
                if bytes >= BURST_BYTES {
                    break;
                }
            }
        }
        // SAFETY: the first `count` places behind the ends of both lists were just written.
        unsafe {
            self.chains.set_len(self.chains.len() + count);
            self.segments.set_len(first + count);
        }
        self.followed += count as u32;
        self.bytes = bytes;
        count
    }

    /// Appends the chain whose pieces were pushed from `first` on; tells whether another may
    /// follow. If the burst has no room for so many pieces, the chain is left for the next one.
    #[inline(always)]
    pub(super) fn close(
        &mut self,
        direction: Direction,
        first: usize,
        head: u16,
        slots: u16,
        total: u32,
    ) -> Result<bool, RingError> {
        if self.segments.len() > MAX_SEGMENTS {
            self.segments.truncate(first);
            return if first > 0 {
                Ok(false)
            } else {
                Err(RingError::ChainTooLong)
            };
        }
        let piece = self.segments.get(first).copied().unwrap_or(Segment::EMPTY);
        match direction {
            Direction::Readable => {
                copy::prefetch_read(piece.ptr);
                self.bytes = self.bytes.saturating_add(total);
            }
            Direction::Writable => copy::prefetch_write(piece.ptr),
        }
        self.chains.push(Chain {
            piece,
            head,
            slots,
            count: (self.segments.len() - first) as u16,
            first: first as u16,
            total,
            written: 0,
        });
        Ok(!self.is_spent())
    }
}

/// A chain that is one buffer of the right direction, as its descriptor names it, read once.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    /// What the used entry names.
    pub(super) head: u16,
    pub(super) address: u64,
    pub(super) len: u32,
}

/// A buffer or a table as a descriptor names it, read once.
#[derive(Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    /// The next one's index in a split ring or its tables.
    pub(super) next: u16,
}

impl Descriptor {
    /// From the two words of a split ring's descriptor.
    #[inline(always)]
    pub(super) fn from_split(low: u64, high: u64) -> Self {
        let high = u64::from_le(high);
        Self {
            address: u64::from_le(low),
            len: high as u32,
            flags: (high >> 32) as u16,
            next: (high >> 48) as u16,
        }
    }
}

/// A table of descriptors: a split ring's own, or an indirect one.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) base: *const u8,
    pub(super) entries: u32,
}

impl Table {
    /// The two words of a descriptor.
    ///
    /// # Safety
    /// The table's memory is mapped, and `index` is below `entries`.
    #[inline(always)]
    pub(super) unsafe fn get(self, index: u32) -> (u64, u64) {
        // SAFETY: the caller's promise; indirect tables need not be aligned, and these loads can.
        unsafe {
            let p = self.base.add(16 * index as usize);
            (copy::load8(p), copy::load8(p.add(8)))
        }
    }
}

/// Finds and checks the buffers that descriptors name.
#[derive(Debug)]
pub(super) struct Buffers {
    memory: Arc<GuestMemory>,
    pub(super) direction: Direction,
    indirect: bool,
    /// The region that the last buffer was in.
    hint: u32,
    /// The same of the last indirect table.
    table_hint: u32,
    /// The address whose translation was last found to be missing, and what it was to be used for.
    missed: (u64, Access),
}

impl Buffers {
    pub(super) fn new(memory: Arc<GuestMemory>, direction: Direction, features: u64) -> Self {
        Self {
            memory,
            direction,
            indirect: features & feature::INDIRECT_DESC != 0,
            hint: 0,
            table_hint: 0,
            missed: (0, Access::READ),
        }
    }

    /// The address and the access of which [`RingError::Untranslated`] tells.
    pub(super) fn missed(&self) -> (u64, Access) {
        self.missed
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Translates an address of the guest: the pointer, and how many of `len` bytes are in one
    /// piece there.
    #[inline(always)]
    fn find(&mut self, address: u64, len: u32) -> Result<(*mut u8, u32), RingError> {
        let access = self.access();
        match self.memory.translate(address, len, access, &mut self.hint) {
            Some(found) => Ok(found),
            None => Err(self.lost(address, access)),
        }
    }

    /// What an address means that is not there.
    #[cold]
    fn lost(&mut self, address: u64, access: Access) -> RingError {
        if !self.memory.is_translated() {
            return RingError::OutsideMemory;
        }
        self.missed = (address, access);
        RingError::Untranslated
    }

    /// Appends chains that are one buffer each, up to the first that is not as plain as most: one
    /// in another region than the last, an empty one, or whatever `chains` ends at. Tells how many.
    #[inline(always)]
    pub(super) fn append(&self, chains: impl Iterator<Item = Plain>, burst: &mut Burst) -> usize {
        let Some(line) = self.memory.line(self.access(), self.hint) else {
            return 0;
        };
        match self.direction {
            Direction::Readable => burst.append(Direction::Readable, line, chains),
            Direction::Writable => burst.append(Direction::Writable, line, chains),
        }
    }

    #[inline(always)]
    fn access(&self) -> Access {
        match self.direction {
            Direction::Readable => Access::READ,
            Direction::Writable => Access::WRITE,
        }
    }

    /// Checks one buffer and appends its pieces; tells its length. An empty one costs as much as
    /// any to follow, and counts.
    #[inline(always)]
    pub(super) fn push(
        &mut self,
        descriptor: Descriptor,
        burst: &mut Burst,
    ) -> Result<u32, RingError> {
        let Burst {
            segments, followed, ..
        } = burst;
        *followed += 1;
        let writable = descriptor.flags & DESC_WRITE != 0;
        if writable != (self.direction == Direction::Writable) {
            return Err(RingError::Direction);
        }
        let (mut address, mut left) = (descriptor.address, descriptor.len);
        while left > 0 {
            let (ptr, len) = self.find(address, left)?;
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

    /// The table that an indirect descriptor names, where it may stand.
    pub(super) fn table(&mut self, descriptor: Descriptor) -> Result<Table, RingError> {
        if !self.indirect || descriptor.flags & DESC_NEXT != 0 {
            return Err(RingError::Indirect);
        }
        let len = descriptor.len;
        if len == 0 || !len.is_multiple_of(16) {
            return Err(RingError::Indirect);
        }
        let entries = len / 16;
        if entries > MAX_CHAIN as u32 {
            return Err(RingError::ChainTooLong);
        }
        let (memory, access) = (&self.memory, Access::READ);
        match memory.translate(descriptor.address, len, access, &mut self.table_hint) {
            Some((base, found)) if found == len => Ok(Table { base, entries }),
            // Behind an IOMMU the rest of it may be missing.
            _ => match memory.first_missing(descriptor.address, len.into(), access) {
                Some(missing) => Err(self.lost(missing, access)),
                None => Err(RingError::OutsideMemory),
            },
        }
    }
}
