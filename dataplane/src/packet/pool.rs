//! The packet pool: every buffer a worker will ever use, allocated once.
//!
//! A pool and its packets belong to one thread: packets that must reach another worker are copied. So taking
//! and returning a buffer is a push or a pop on a plain stack, most recently used first, which keeps it in cache.
//!
//! There are two sizes of buffer: one for frames, one for the 64 KiB segments that guests hand over when
//! segmentation is offloaded.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::{Batch, Layers, Offload, Tail};
use crate::huge::{HugePages, Mapping};

/// Bytes in front of a fresh packet's data, for headers that a function pushes.
pub const HEADROOM: usize = 128;
/// Data bytes that a small buffer holds (a 1518-byte frame with two VLAN tags and room to spare).
pub const SMALL: usize = 2048;
/// Data bytes that a large buffer holds: a 65,535-byte IP packet with its link header.
pub const LARGE: usize = 65_664;

const META: usize = size_of::<Meta>();

/// How many buffers of each size a pool holds.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Buffers of [`SMALL`] bytes.
    pub small: usize,
    /// Buffers of [`LARGE`] bytes.
    pub large: usize,
    /// Where the memory comes from.
    pub huge_pages: HugePages,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            small: 8192,
            large: 512,
            huge_pages: HugePages::Auto,
        }
    }
}

/// A packet's bookkeeping: one cache line in front of its buffer.
#[repr(C, align(64))]
struct Meta {
    owner: NonNull<Inner>,
    capacity: u32,
    offset: u32,
    len: u32,
    layers: Layers,
    offload: Offload,
    class: u8,
    heard: bool,
    tail: Tail,
}

struct Class {
    free: UnsafeCell<Vec<NonNull<Meta>>>,
    total: usize,
}

struct Inner {
    memory: Mapping,
    classes: [Class; 2],
    orphaned: Cell<bool>,
}

impl Inner {
    fn all_home(&self) -> bool {
        // SAFETY: the pool is used by one thread, and nothing holds a reference into a free list across calls.
        self.classes
            .iter()
            .all(|class| unsafe { (*class.free.get()).len() } == class.total)
    }
}

/// A fixed set of packet buffers for one worker.
pub struct Pool {
    inner: NonNull<Inner>,
    single_threaded: PhantomData<*mut ()>,
}

impl Pool {
    /// Maps the memory and prepares every buffer.
    ///
    /// # Errors
    /// The system's error when the memory can't be had, huge pages included where they are required.
    pub fn new(config: PoolConfig) -> std::io::Result<Self> {
        let strides = [META + HEADROOM + SMALL, META + HEADROOM + LARGE];
        let totals = [config.small, config.large];
        let bytes = strides[0] * totals[0] + strides[1] * totals[1];
        let memory = Mapping::new(bytes, config.huge_pages)?;
        memory.populate();
        let base = memory.base();
        let inner = NonNull::from(Box::leak(Box::new(Inner {
            memory,
            classes: totals.map(|total| Class {
                free: UnsafeCell::new(Vec::with_capacity(total)),
                total,
            }),
            orphaned: Cell::new(false),
        })));
        let mut offset = 0;
        for (class, (stride, total)) in strides.into_iter().zip(totals).enumerate() {
            for _ in 0..total {
                // SAFETY: the strides times the totals sum to no more than is mapped, so every buffer lies inside
                // the mapping, which is page aligned; the strides are multiples of 64.
                let meta = unsafe { base.add(offset) }.cast::<Meta>();
                let fresh = Meta {
                    owner: inner,
                    capacity: (stride - META) as u32,
                    offset: HEADROOM as u32,
                    len: 0,
                    layers: Layers::default(),
                    offload: Offload::default(),
                    class: class as u8,
                    heard: false,
                    tail: Tail::default(),
                };
                // SAFETY: in bounds and aligned as above; nothing else refers to the fresh mapping.
                unsafe { meta.write(fresh) };
                // SAFETY: `inner` was made above and is not shared yet.
                unsafe { (*inner.as_ref().classes[class].free.get()).push(meta) };
                offset += stride;
            }
        }
        Ok(Self {
            inner,
            single_threaded: PhantomData,
        })
    }

    fn inner(&self) -> &Inner {
        // SAFETY: `inner` lives until the pool is dropped and its last packet has come home.
        unsafe { self.inner.as_ref() }
    }

    /// An empty packet that can hold `len` bytes of data behind [`HEADROOM`]; `None` when no such buffer is free or
    /// `len` is more than [`LARGE`].
    #[inline]
    pub fn take(&mut self, len: usize) -> Option<Packet> {
        let class = if len <= SMALL {
            0
        } else if len <= LARGE {
            1
        } else {
            return None;
        };
        // SAFETY: one thread uses the pool, and the reference ends with this statement.
        let mut meta = unsafe { (*self.inner().classes[class].free.get()).pop() }?;
        // SAFETY: a buffer on the free list is referred to by nothing else.
        let fields = unsafe { meta.as_mut() };
        fields.offset = HEADROOM as u32;
        fields.len = 0;
        fields.layers = Layers::default();
        fields.offload = Offload::default();
        fields.heard = false;
        fields.tail = Tail::default();
        Some(Packet {
            meta,
            single_threaded: PhantomData,
        })
    }

    /// A packet of `len` bytes, which hold what the buffer held before: the caller writes every one. `None` as in
    /// [`Pool::take`].
    #[inline]
    pub fn take_filled(&mut self, len: usize) -> Option<Packet> {
        let mut packet = self.take(len)?;
        packet.meta_mut().len = len as u32;
        Some(packet)
    }

    /// A packet that holds a copy of `bytes`; `None` as in [`Pool::take`].
    pub fn copy_of(&mut self, bytes: &[u8]) -> Option<Packet> {
        let mut packet = self.take(bytes.len())?;
        packet.extend(bytes.len())?.copy_from_slice(bytes);
        Some(packet)
    }

    /// A second packet with the same bytes, layers and offloads.
    pub fn duplicate(&mut self, original: &Packet) -> Option<Packet> {
        let mut copy = self.copy_of(original.data())?;
        *copy.layers_mut() = *original.layers();
        *copy.offload_mut() = *original.offload();
        Some(copy)
    }

    /// Takes back the buffers of a batch, as if each packet was dropped; a batch of this pool's small ones costs less so.
    #[inline]
    pub fn recycle(&mut self, batch: &mut Batch) {
        // SAFETY: one thread uses the pool and its packets, and the reference ends with this function; a packet that is
        // dropped here goes to another list, as it is not of this pool or not small.
        let free = unsafe { &mut *self.inner().classes[0].free.get() };
        for packet in batch.drain(..) {
            let meta = packet.meta();
            if meta.owner == self.inner && meta.class == 0 {
                // The list was allocated for every buffer of the class.
                free.push(packet.meta);
                std::mem::forget(packet);
            }
        }
    }

    /// Buffers not in use, small and large.
    pub fn free(&self) -> [usize; 2] {
        // SAFETY: one thread uses the pool, and the reference ends with this statement.
        [0, 1].map(|class| unsafe { (*self.inner().classes[class].free.get()).len() })
    }

    /// Buffers in all, small and large.
    pub fn total(&self) -> [usize; 2] {
        [self.inner().classes[0].total, self.inner().classes[1].total]
    }

    /// Whether the memory is in huge pages.
    pub fn is_huge(&self) -> bool {
        self.inner().memory.is_reserved()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.inner().all_home() {
            // SAFETY: made by `Box::leak` in `new`; no packet refers to it any more.
            drop(unsafe { Box::from_raw(self.inner.as_ptr()) });
        } else {
            self.inner().orphaned.set(true);
        }
    }
}

/// An owned packet: a buffer of the pool, which it goes back to when dropped.
pub struct Packet {
    meta: NonNull<Meta>,
    single_threaded: PhantomData<*mut ()>,
}

impl Packet {
    #[inline]
    fn meta(&self) -> &Meta {
        // SAFETY: a packet owns its buffer, whose first bytes are a valid Meta, until it is dropped.
        unsafe { self.meta.as_ref() }
    }

    #[inline]
    fn meta_mut(&mut self) -> &mut Meta {
        // SAFETY: as in `meta`, and `&mut self` makes it the only reference.
        unsafe { self.meta.as_mut() }
    }

    #[inline]
    fn start(&self, offset: usize) -> *mut u8 {
        // SAFETY: `offset` is at most the buffer's capacity: every caller takes it from the fields of Meta, which
        // keep offset + len <= capacity.
        unsafe { self.meta.as_ptr().cast::<u8>().add(META + offset) }
    }

    /// All bytes, from the link header on. Of a packet with a [tail](Packet::tail) nobody may ask for them.
    #[inline]
    pub fn data(&self) -> &[u8] {
        debug_assert!(
            self.is_whole(),
            "a packet with a tail is taken for a whole one"
        );
        self.head()
    }

    /// All bytes, writable.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        debug_assert!(
            self.is_whole(),
            "a packet with a tail is taken for a whole one"
        );
        self.head_mut()
    }

    /// The bytes in host memory, from the link header on: all headers that the parse found, and the rest of the packet
    /// unless it has a [tail](Packet::tail).
    #[inline]
    pub fn head(&self) -> &[u8] {
        let meta = self.meta();
        // SAFETY: offset + len <= capacity; all of a buffer is initialized (the mapping began as zeros).
        unsafe { std::slice::from_raw_parts(self.start(meta.offset as usize), meta.len as usize) }
    }

    /// The bytes in host memory, writable.
    #[inline]
    pub fn head_mut(&mut self) -> &mut [u8] {
        let (offset, len) = (self.meta().offset as usize, self.meta().len as usize);
        // SAFETY: as in `head`, and `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start(offset), len) }
    }

    /// Length in bytes, those of the tail included.
    #[inline]
    pub fn len(&self) -> usize {
        self.meta().len as usize + self.meta().tail.len()
    }

    #[inline]
    pub(super) fn tail_of(&self) -> Tail {
        self.meta().tail
    }

    #[inline]
    pub(super) fn set_tail(&mut self, tail: Tail) {
        self.meta_mut().tail = tail;
    }

    /// Whether it is there to be learnt from only: what reaches a port is discarded, as another worker handles the packet.
    #[inline]
    pub(crate) fn is_heard(&self) -> bool {
        self.meta().heard
    }

    /// Notes that it is there to be learnt from only.
    #[inline]
    pub(crate) fn set_heard(&mut self) {
        self.meta_mut().heard = true;
    }

    /// Whether it holds no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds `count` bytes at the end and returns them for writing. They hold what the buffer held before: the
    /// caller writes every one. `None` when there is no room, or the end is elsewhere.
    #[inline]
    pub fn extend(&mut self, count: usize) -> Option<&mut [u8]> {
        let meta = self.meta_mut();
        let end = (meta.offset + meta.len) as usize;
        if count > meta.capacity as usize - end || !meta.tail.is_empty() {
            return None;
        }
        meta.len += count as u32;
        // SAFETY: end + count <= capacity, initialized as in `head`, and `&mut self` makes it the only reference.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start(end), count) })
    }

    /// Adds `count` bytes in front and returns them for writing, as [`Packet::extend`] does at the end. The caller
    /// parses the packet again before anyone uses its layers. `None` when the headroom is used up.
    #[inline]
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let meta = self.meta_mut();
        if count > meta.offset as usize {
            return None;
        }
        meta.offset -= count as u32;
        meta.len += count as u32;
        self.head_mut().get_mut(..count)
    }

    /// Cuts the packet to its first `len` bytes, if it is longer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        let meta = self.meta_mut();
        let len = len.min(u32::MAX as usize) as u32;
        meta.tail.len = meta.tail.len.min(len.saturating_sub(meta.len));
        meta.len = meta.len.min(len);
    }

    /// Takes up to `count` bytes off the front.
    #[inline]
    pub fn trim_front(&mut self, count: usize) {
        let meta = self.meta_mut();
        let count = count.min(u32::MAX as usize) as u32;
        let here = meta.len.min(count);
        meta.offset += here;
        meta.len -= here;
        meta.tail.trim(count - here);
    }

    /// Takes the packet's tail away, for one who has its bytes.
    #[inline]
    pub(crate) fn take_tail(&mut self) -> Tail {
        std::mem::take(&mut self.meta_mut().tail)
    }

    /// Where the headers are, as the last parse saw them.
    #[inline]
    pub fn layers(&self) -> &Layers {
        &self.meta().layers
    }

    /// Where the headers are, writable.
    #[inline]
    pub fn layers_mut(&mut self) -> &mut Layers {
        &mut self.meta_mut().layers
    }

    /// What is left to do before the packet may go on a wire.
    #[inline]
    pub fn offload(&self) -> &Offload {
        &self.meta().offload
    }

    /// What is left to do, writable.
    #[inline]
    pub fn offload_mut(&mut self) -> &mut Offload {
        &mut self.meta_mut().offload
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        let (owner, class) = (self.meta().owner, self.meta().class as usize);
        // SAFETY: the pool's inner part outlives its packets; one thread uses both, as neither is Send. The list
        // was allocated for every buffer of the class, so this push does not allocate.
        let orphaned = unsafe {
            let inner = owner.as_ref();
            (*inner.classes[class].free.get()).push(self.meta);
            inner.orphaned.get() && inner.all_home()
        };
        if orphaned {
            // SAFETY: made by `Box::leak` in `Pool::new`; the pool is gone and this was the last packet.
            drop(unsafe { Box::from_raw(owner.as_ptr()) });
        }
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packet")
            .field("len", &self.len())
            .field("layers", self.layers())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(small: usize, large: usize) -> Pool {
        Pool::new(PoolConfig {
            small,
            large,
            huge_pages: HugePages::Never,
        })
        .unwrap()
    }

    #[test]
    fn meta_is_one_cache_line() {
        assert_eq!(META, 64);
    }

    #[test]
    fn buffers_run_out_and_come_back() {
        let mut pool = pool(2, 1);
        let first = pool.copy_of(b"first").unwrap();
        let second = pool.copy_of(b"second").unwrap();
        assert!(pool.take(1).is_none());
        assert_eq!(
            (first.data(), second.data()),
            (&b"first"[..], &b"second"[..])
        );
        drop(first);
        assert_eq!(pool.free(), [1, 1]);
        assert!(pool.take(60_000).is_some());
        assert!(pool.take(LARGE + 1).is_none());
    }

    #[test]
    fn head_and_tail_move_within_the_buffer() {
        let mut pool = pool(1, 0);
        let mut packet = pool.copy_of(b"payload").unwrap();
        packet.prepend(3).unwrap().copy_from_slice(b"abc");
        assert_eq!(packet.data(), b"abcpayload");
        packet.trim_front(4);
        packet.truncate(3);
        assert_eq!(packet.data(), b"ayl");
        assert!(packet.prepend(HEADROOM + 5).is_none());
        assert!(packet.extend(SMALL).is_none());
        packet.trim_front(100);
        assert!(packet.is_empty());
    }

    #[test]
    fn a_packet_may_outlive_its_pool() {
        let mut pool = pool(2, 0);
        let packet = pool.copy_of(b"late").unwrap();
        drop(pool);
        assert_eq!(packet.data(), b"late");
    }
}
