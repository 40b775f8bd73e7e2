//! What both directions of a driver-side ring share.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::layout::{GUEST_BASE, RingLayout};
use super::packed::PackedDriver;
use super::split::SplitDriver;
use crate::event::Event;
use crate::memory::Mapping;
use crate::net::feature;
use crate::virtqueue::DESC_INDIRECT;

/// A buffer, or a part of one: offset in the driver's memory and length.
pub(super) type Piece = (usize, u32);

/// A used chain: the number by which it was offered, and the bytes that the device wrote.
pub(super) type Used = (u32, u32);

/// What the two formats keep for themselves.
#[derive(Debug)]
pub(super) enum Format {
    Split(SplitDriver),
    Packed(PackedDriver),
}

/// A ring's memory and what was negotiated for it.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) memory: Arc<Mapping>,
    pub(super) layout: RingLayout,
    pub(super) features: u64,
    /// Direction of the queue's buffers: `DESC_WRITE` or nothing.
    pub(super) write: u16,
}

impl Common {
    pub(super) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Writes the two words of a descriptor, the second one last.
    #[inline]
    pub(super) fn write_descriptor(&self, at: usize, offset: usize, control: u64) {
        self.memory.store_u64(at, GUEST_BASE + offset as u64);
        self.memory.store_u64(at + 8, control);
    }
}

impl Common {
    /// Writes a descriptor unless that is what is there: a line that nobody writes stays in the
    /// device's cache.
    #[inline]
    pub(super) fn renew_descriptor(&self, at: usize, offset: usize, control: u64) {
        let address = GUEST_BASE + offset as u64;
        if self.memory.load_u64(at) != address || self.memory.load_u64(at + 8) != control {
            self.write_descriptor(at, offset, control);
        }
    }
}

/// A virtqueue as its driver sees it.
#[derive(Debug)]
pub(super) struct DriverRing {
    pub(super) common: Common,
    pub(super) format: Format,
    kick: Event,
    call: Event,
    /// Used chains that were looked at and not taken.
    done: VecDeque<Used>,
    /// For a device that keeps the order: what was offered and is not yet used, with its length.
    order: Option<VecDeque<(u16, u32)>>,
    /// Kicks sent.
    pub(super) kicks: u64,
}

impl DriverRing {
    pub(super) fn new(
        memory: Arc<Mapping>,
        layout: RingLayout,
        features: u64,
        write: u16,
    ) -> io::Result<Self> {
        let size = usize::from(layout.size);
        let format = if features & feature::RING_PACKED == 0 {
            Format::Split(SplitDriver::default())
        } else {
            Format::Packed(PackedDriver::new(layout.size))
        };
        let order = (features & feature::IN_ORDER != 0).then(|| VecDeque::with_capacity(size));
        Ok(Self {
            common: Common {
                memory,
                layout,
                features,
                write,
            },
            format,
            kick: Event::new()?,
            call: Event::new()?,
            done: VecDeque::with_capacity(size),
            order,
            kicks: 0,
        })
    }

    pub(super) fn layout(&self) -> RingLayout {
        self.common.layout
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

    /// Where a ring begins, as vhost-user encodes it.
    pub(super) fn base(features: u64) -> u32 {
        if features & feature::RING_PACKED == 0 {
            0
        } else {
            crate::virtqueue::Place::START.encode().into()
        }
    }

    /// Offers a chain, not yet for the device to see. `ids` names as many descriptors as there are
    /// pieces, or buffer ids in a packed ring, where only the first counts; the used chain will be
    /// known by the first. With `indirect`, the pieces go to the table of the first one.
    pub(super) fn offer(&mut self, ids: &[u16], pieces: &[Piece], indirect: bool) {
        let Self { common, format, .. } = self;
        if let Some(order) = &mut self.order {
            order.push_back((ids[0], pieces.iter().map(|piece| piece.1).sum()));
        }
        let table = common.layout.table(ids[0]);
        let one = [(table, 16 * pieces.len() as u32)];
        let (pieces, flags) = if indirect {
            match format {
                Format::Split(_) => SplitDriver::write_table(common, table, pieces),
                Format::Packed(_) => PackedDriver::write_table(common, table, pieces),
            }
            (&one[..], DESC_INDIRECT)
        } else {
            (pieces, common.write)
        };
        match format {
            Format::Split(ring) => ring.offer(common, ids, pieces, flags),
            Format::Packed(ring) => ring.offer(common, ids[0], pieces, flags),
        }
    }

    /// Offers a chain again that was offered as it is and given back: what the format has left of
    /// it serves again.
    pub(super) fn offer_again(&mut self, head: u16, pieces: &[Piece], indirect: bool) {
        let Self { common, format, .. } = self;
        if let Some(order) = &mut self.order {
            order.push_back((head, pieces.iter().map(|piece| piece.1).sum()));
        }
        let one = [(common.layout.table(head), 16 * pieces.len() as u32)];
        match format {
            Format::Split(ring) => ring.offer_head(common, head),
            Format::Packed(ring) if indirect => ring.offer(common, head, &one, DESC_INDIRECT),
            Format::Packed(ring) => ring.offer(common, head, pieces, common.write),
        }
    }

    /// Shows the device what was offered, and kicks it if it wants that.
    #[inline]
    pub(super) fn flush(&mut self) {
        let wanted = match &mut self.format {
            Format::Split(ring) => ring.flush(&self.common),
            Format::Packed(ring) => ring.flush(&self.common),
        };
        if wanted {
            self.kick.signal();
            self.kicks += 1;
        }
    }

    /// Looks for used chains.
    fn look(&mut self) {
        let order = self.order.as_mut();
        match &mut self.format {
            Format::Split(ring) => ring.look(&self.common, order, &mut self.done),
            Format::Packed(ring) => ring.look(&self.common, order, &mut self.done),
        }
    }

    /// Brings near what the device writes next. Another core has it, and several rings' can be on
    /// their way together.
    #[inline]
    pub(super) fn prefetch(&self) {
        let (first, second) = match &self.format {
            Format::Split(ring) => ring.next_lines(&self.common),
            Format::Packed(ring) => ring.next_lines(&self.common),
        };
        self.common.memory.prefetch_read(first);
        self.common.memory.prefetch_read(second);
    }

    /// Used chains that nobody has taken.
    pub(super) fn waiting(&mut self) -> usize {
        self.look();
        self.done.len()
    }

    /// The used chain `ahead` of the next one, if there is one.
    #[inline]
    pub(super) fn peek(&mut self, ahead: usize) -> Option<Used> {
        if self.done.len() <= ahead {
            self.look();
        }
        self.done.get(ahead).copied()
    }

    /// Used chains, up to `max`, that can be taken.
    #[inline]
    pub(super) fn ready(&mut self, max: usize) -> usize {
        if self.done.len() < max {
            self.look();
        }
        self.done.len().min(max)
    }

    /// Takes the next used chain.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Used> {
        if self.done.is_empty() {
            self.look();
        }
        self.done.pop_front()
    }

    /// Where a device goes on after one that could not tell where it stood: what is used is known.
    /// A packed ring has no such mark in memory.
    pub(super) fn restored_base(&self) -> Option<u32> {
        let used = self.common.layout.used;
        match &self.format {
            Format::Split(_) => Some(self.common.memory.load_u16(used + 2).into()),
            Format::Packed(_) => None,
        }
    }

    /// Asks the device to call when it gives something back; true if it did meanwhile.
    pub(super) fn arm(&mut self) -> bool {
        let came = match &mut self.format {
            Format::Split(ring) => ring.arm(&self.common),
            Format::Packed(ring) => ring.arm(&self.common),
        };
        came || !self.done.is_empty()
    }

    /// Tells the device that it need not call.
    pub(super) fn disarm(&mut self) {
        match &mut self.format {
            Format::Split(ring) => ring.disarm(&self.common),
            Format::Packed(ring) => ring.disarm(&self.common),
        }
    }
}
