//! The packed ring from the driver's side (virtio 1.2, 2.8).

use std::collections::VecDeque;

use super::ring::{Common, Piece, Used};
use crate::net::feature;
use crate::virtqueue::{
    DESC_NEXT, EVENTS_DESC, EVENTS_DISABLE, EVENTS_ENABLE, Place, publish_descriptors, suppression,
    tell_then_ask,
};

#[derive(Debug)]
pub(super) struct PackedDriver {
    /// Where the next chain goes.
    next_avail: Place,
    /// Where the first chain went that the device does not see yet.
    published: Place,
    /// Second word of the descriptor there: written last, so that the device sees all or nothing.
    withheld: Option<u64>,
    /// Where the device writes its next used descriptor.
    next_used: Place,
    /// For each buffer id, the descriptors of its chain.
    slots: Vec<u16>,
}

fn control(len: u32, id: u16, flags: u16) -> u64 {
    u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48
}

impl PackedDriver {
    pub(super) fn new(size: u16) -> Self {
        Self {
            next_avail: Place::START,
            published: Place::START,
            withheld: None,
            next_used: Place::START,
            slots: vec![0; usize::from(size)],
        }
    }

    #[inline]
    fn at(common: &Common, place: Place) -> usize {
        common.layout.desc + 16 * usize::from(place.index)
    }

    /// Where the device writes next: the descriptor that comes, and those in the next line.
    #[inline]
    pub(super) fn next_lines(&self, common: &Common) -> (usize, usize) {
        let mut later = self.next_used;
        later.advance(4.min(common.layout.size - 1), common.layout.size);
        (Self::at(common, self.next_used), Self::at(common, later))
    }

    #[inline]
    fn load(common: &Common, place: Place) -> u64 {
        common.memory.load_u64(Self::at(common, place) + 8)
    }

    /// Writes an indirect table.
    pub(super) fn write_table(common: &Common, table: usize, pieces: &[Piece]) {
        for (index, (at, len)) in pieces.iter().enumerate() {
            let control = control(*len, 0, common.write);
            common.write_descriptor(table + 16 * index, *at, control);
        }
    }

    pub(super) fn offer(&mut self, common: &Common, id: u16, pieces: &[Piece], flags: u16) {
        let size = common.layout.size;
        for (index, (at, len)) in pieces.iter().enumerate() {
            let place = self.next_avail;
            let more = if index + 1 < pieces.len() {
                DESC_NEXT
            } else {
                0
            };
            let control = control(*len, id, flags | more | place.available());
            let desc = Self::at(common, place);
            if self.withheld.is_none() {
                self.withheld = Some(control);
                let old = common.memory.load_u64(desc + 8);
                common.write_descriptor(desc, *at, old);
            } else {
                common.write_descriptor(desc, *at, control);
            }
            self.next_avail.advance(1, size);
        }
        self.slots[usize::from(id)] = pieces.len() as u16;
    }

    #[inline]
    pub(super) fn flush(&mut self, common: &Common) -> bool {
        let Some(control) = self.withheld.take() else {
            return false;
        };
        let old = std::mem::replace(&mut self.published, self.next_avail);
        publish_descriptors(
            common.memory.cell_u64(Self::at(common, old) + 8),
            control,
            [old, self.next_avail],
            common.layout.size,
            common.memory.cell_u32(common.layout.used),
            common.has(feature::EVENT_IDX),
        )
    }

    pub(super) fn look(
        &mut self,
        common: &Common,
        mut order: Option<&mut VecDeque<(u16, u32)>>,
        done: &mut VecDeque<Used>,
    ) {
        // A device that is out of its mind gets no more said than a ring can hold.
        for _ in 0..common.layout.size {
            let word = Self::load(common, self.next_used);
            if !self.next_used.is_used((word >> 48) as u16) {
                break;
            }
            let (named, written) = ((word >> 32) as u16, word as u32);
            // One used descriptor may stand for the chains before it.
            while let Some((id, len)) = order.as_mut().and_then(|order| order.pop_front()) {
                if id == named {
                    break;
                }
                done.push_back((id.into(), len));
                self.skip(common, id);
            }
            done.push_back((named.into(), written));
            self.skip(common, named);
        }
    }

    /// Goes on behind a used chain.
    fn skip(&mut self, common: &Common, id: u16) {
        let slots = self.slots.get(usize::from(id)).copied().unwrap_or(0);
        self.next_used.advance(slots.max(1), common.layout.size);
    }

    pub(super) fn arm(&mut self, common: &Common) -> bool {
        let flags = if common.has(feature::EVENT_IDX) {
            EVENTS_DESC
        } else {
            EVENTS_ENABLE
        };
        let word = tell_then_ask(
            common.memory.cell_u32(common.layout.avail),
            suppression(flags, self.next_used),
            common.memory.cell_u64(Self::at(common, self.next_used) + 8),
        );
        self.next_used.is_used((word >> 48) as u16)
    }

    pub(super) fn disarm(&mut self, common: &Common) {
        let word = suppression(EVENTS_DISABLE, self.next_used);
        common.memory.store_u32(common.layout.avail, word);
    }

    /// Where the next chain goes.
    #[inline]
    pub(super) fn next_slot(&self) -> u16 {
        self.next_avail.index
    }

    /// Used chains at the ring's head, up to `max`, in a ring whose every chain is one descriptor
    /// with its own index as id. A device that keeps the order may name the last one only.
    #[inline]
    pub(super) fn used(&self, common: &Common, max: u16) -> u16 {
        let size = common.layout.size;
        let in_order = common.has(feature::IN_ORDER);
        let (mut place, mut count) = (self.next_used, 0);
        while count < max {
            let word = Self::load(common, place);
            if !place.is_used((word >> 48) as u16) {
                break;
            }
            let mut step = 1;
            if in_order {
                let id = ((word >> 32) as u16).min(size - 1);
                step += (id + if id < place.index { size } else { 0 }) - place.index;
            }
            count += step;
            place.advance(step, size);
        }
        count
    }

    /// Whether every chain of such a ring is used.
    #[inline]
    pub(super) fn is_drained(&self, common: &Common) -> bool {
        let size = common.layout.size;
        if common.has(feature::IN_ORDER) {
            return self.used(common, size) == size;
        }
        let mut last = self.next_used;
        last.advance(size - 1, size);
        last.is_used((Self::load(common, last) >> 48) as u16)
    }

    /// The used descriptor `ahead` of the next one, in such a ring.
    #[inline]
    pub(super) fn entry(&self, common: &Common, ahead: u16) -> Used {
        let mut place = self.next_used;
        place.advance(ahead, common.layout.size);
        (place.index.into(), Self::load(common, place) as u32)
    }

    /// Offers the next `count` chains of such a ring again, each of `len` bytes.
    #[inline]
    pub(super) fn recycle(&mut self, common: &Common, count: u16, len: u32) {
        let size = common.layout.size;
        self.next_used.advance(count, size);
        for _ in 0..count {
            let place = self.next_avail;
            let word = control(len, place.index, common.write | place.available());
            if self.withheld.is_none() {
                self.withheld = Some(word);
            } else {
                common.memory.store_u64(Self::at(common, place) + 8, word);
            }
            self.next_avail.advance(1, size);
        }
    }
}
