//! What both directions of a driver-side split ring share.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::layout::{GUEST_BASE, RingLayout};
use crate::event::Event;
use crate::memory::Mapping;
use crate::net::feature;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// A split ring as its driver sees it.
#[derive(Debug)]
pub(super) struct DriverRing {
    pub(super) memory: Arc<Mapping>,
    pub(super) layout: RingLayout,
    pub(super) features: u64,
    kick: Event,
    call: Event,
    /// Next entry of the available ring to write; published by `flush`.
    next_avail: u16,
    /// The available index as last published.
    published: u16,
    /// Next entry of the used ring to read.
    next_used: u16,
    /// Kicks sent.
    pub(super) kicks: u64,
}

impl DriverRing {
    pub(super) fn new(memory: Arc<Mapping>, layout: RingLayout, features: u64) -> io::Result<Self> {
        let (kick, call) = (Event::new()?, Event::new()?);
        let (next_avail, published, next_used) = (0, 0, 0);
        Ok(Self {
            memory,
            layout,
            features,
            kick,
            call,
            next_avail,
            published,
            next_used,
            kicks: 0,
        })
    }

    pub(super) fn kick(&self) -> &Event {
        &self.kick
    }

    pub(super) fn call(&self) -> &Event {
        &self.call
    }

    pub(super) fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    fn has_event_index(&self) -> bool {
        self.features & feature::EVENT_IDX != 0
    }

    fn mask(&self) -> u16 {
        self.layout.size - 1
    }

    /// Writes a descriptor into a table at `table`.
    #[inline]
    pub(super) fn describe(
        &self,
        table: usize,
        index: u16,
        offset: usize,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let at = table + 16 * usize::from(index);
        self.memory.store_u64(at, GUEST_BASE + offset as u64);
        let high = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.memory.store_u64(at + 8, high);
    }

    /// Puts a chain into the available ring, not yet for the device to see.
    #[inline]
    pub(super) fn offer(&mut self, head: u16) {
        let at = usize::from(self.next_avail & self.mask());
        self.memory.store_u16(self.layout.avail + 4 + 2 * at, head);
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Shows the device what was offered, and kicks it if it wants that.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.next_avail == self.published {
            return;
        }
        let old = std::mem::replace(&mut self.published, self.next_avail);
        self.memory
            .store_u16(self.layout.avail + 2, self.next_avail);
        fence(Ordering::SeqCst);
        let wanted = if self.has_event_index() {
            let at = self.layout.used + 4 + 8 * usize::from(self.layout.size);
            let event = self.memory.load_u16(at);
            self.next_avail.wrapping_sub(event).wrapping_sub(1) < self.next_avail.wrapping_sub(old)
        } else {
            self.memory.load_u16(self.layout.used) & 1 == 0
        };
        if wanted {
            self.kick.signal();
            self.kicks += 1;
        }
    }

    /// Chains that the device gave back and nobody has looked at.
    #[inline]
    pub(super) fn used(&self) -> u16 {
        self.memory
            .load_u16(self.layout.used + 2)
            .wrapping_sub(self.next_used)
    }

    /// Takes the next used entry: head and length.
    #[inline]
    pub(super) fn take(&mut self) -> (u32, u32) {
        let at = self.layout.used + 4 + 8 * usize::from(self.next_used & self.mask());
        self.next_used = self.next_used.wrapping_add(1);
        (self.memory.load_u32(at), self.memory.load_u32(at + 4))
    }

    /// Asks the device to call when it gives something back; true if it did meanwhile.
    pub(super) fn arm(&mut self) -> bool {
        if self.has_event_index() {
            let at = self.layout.avail + 4 + 2 * usize::from(self.layout.size);
            self.memory.store_u16(at, self.next_used);
        } else {
            self.memory.store_u16(self.layout.avail, 0);
        }
        fence(Ordering::SeqCst);
        self.used() != 0
    }

    /// Tells the device that it need not call.
    pub(super) fn disarm(&mut self) {
        if self.has_event_index() {
            let at = self.layout.avail + 4 + 2 * usize::from(self.layout.size);
            self.memory.store_u16(at, self.next_used.wrapping_sub(1));
        } else {
            self.memory.store_u16(self.layout.avail, 1);
        }
    }

    /// Gives back entries of the rings by moving both indices, for a driver whose rings hold the
    /// same chains for ever.
    #[inline]
    pub(super) fn recycle(&mut self, count: u16) {
        self.next_used = self.next_used.wrapping_add(count);
        self.next_avail = self.next_avail.wrapping_add(count);
        self.flush();
    }

    /// Place in the used ring of the entry `ahead` of the next one.
    #[inline]
    pub(super) fn used_entry(&self, ahead: u16) -> (u32, u32) {
        let at = usize::from(self.next_used.wrapping_add(ahead) & self.mask());
        let at = self.layout.used + 4 + 8 * at;
        (self.memory.load_u32(at), self.memory.load_u32(at + 4))
    }
}
