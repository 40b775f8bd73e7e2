//! The split ring from the driver's side (virtio 1.2, 2.7).

use std::collections::VecDeque;

use super::ring::{Common, Piece, Used};
use crate::net::feature;
use crate::virtqueue::{DESC_NEXT, publish_index, tell_then_ask};

#[derive(Debug, Default)]
pub(super) struct SplitDriver {
    /// Next entry of the available ring to write; published by `flush`.
    next_avail: u16,
    /// The available index as last published.
    published: u16,
    /// Next entry of the used ring to read.
    next_used: u16,
}

impl SplitDriver {
    /// Where the other side's wish, and ours, are in a ring that has `entry` bytes an entry.
    fn wish(common: &Common, ring: usize, entry: usize) -> usize {
        if common.has(feature::EVENT_IDX) {
            ring + 4 + entry * usize::from(common.layout.size)
        } else {
            ring
        }
    }

    fn slot(common: &Common, index: u16) -> usize {
        usize::from(index & (common.layout.size - 1))
    }

    fn control(len: u32, flags: u16, next: Option<u16>) -> u64 {
        let flags = flags | if next.is_some() { DESC_NEXT } else { 0 };
        u64::from(len) | u64::from(flags) << 32 | u64::from(next.unwrap_or(0)) << 48
    }

    /// Writes an indirect table.
    pub(super) fn write_table(common: &Common, table: usize, pieces: &[Piece]) {
        for (index, (at, len)) in pieces.iter().enumerate() {
            let next = (index + 1 < pieces.len()).then_some(index as u16 + 1);
            let control = Self::control(*len, common.write, next);
            common.write_descriptor(table + 16 * index, *at, control);
        }
    }

    pub(super) fn offer(&mut self, common: &Common, ids: &[u16], pieces: &[Piece], flags: u16) {
        for (index, (at, len)) in pieces.iter().enumerate() {
            let next = ids.get(index + 1).filter(|_| index + 1 < pieces.len());
            let control = Self::control(*len, flags, next.copied());
            let desc = common.layout.desc + 16 * usize::from(ids[index]);
            common.renew_descriptor(desc, *at, control);
        }
        self.offer_head(common, ids[0]);
    }

    /// Offers a chain whose descriptors are written.
    pub(super) fn offer_head(&mut self, common: &Common, head: u16) {
        let at = common.layout.avail + 4 + 2 * Self::slot(common, self.next_avail);
        // What stays as it is stays in the device's cache.
        if common.memory.load_u16(at) != head {
            common.memory.store_u16(at, head);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    #[inline]
    pub(super) fn flush(&mut self, common: &Common) -> bool {
        if self.next_avail == self.published {
            return false;
        }
        let old = std::mem::replace(&mut self.published, self.next_avail);
        publish_index(
            common.memory.cell_u16(common.layout.avail + 2),
            self.next_avail,
            old,
            common
                .memory
                .cell_u16(Self::wish(common, common.layout.used, 8)),
            common.has(feature::EVENT_IDX),
        )
    }

    /// Chains that the device gave back and nobody has looked at.
    #[inline]
    pub(super) fn used(&self, common: &Common) -> u16 {
        common
            .memory
            .load_u16(common.layout.used + 2)
            .wrapping_sub(self.next_used)
    }

    /// Where the device writes next: its index, and the entry that comes.
    #[inline]
    pub(super) fn next_lines(&self, common: &Common) -> (usize, usize) {
        let entry = 4 + 8 * Self::slot(common, self.next_used);
        (common.layout.used, common.layout.used + entry)
    }

    /// The used entry `ahead` of the next one.
    #[inline]
    pub(super) fn entry(&self, common: &Common, ahead: u16) -> Used {
        let slot = Self::slot(common, self.next_used.wrapping_add(ahead));
        let at = common.layout.used + 4 + 8 * slot;
        (common.memory.load_u32(at), common.memory.load_u32(at + 4))
    }

    pub(super) fn look(
        &mut self,
        common: &Common,
        order: Option<&mut VecDeque<(u16, u32)>>,
        done: &mut VecDeque<Used>,
    ) {
        // A device that is out of its mind gets no more said than a ring can hold.
        let count = self.used(common).min(common.layout.size);
        let entry = |ahead| self.entry(common, ahead);
        match order {
            None => done.extend((0..count).map(entry)),
            // One entry may stand for the chains before it, whose own entries are then old ones.
            Some(order) => {
                for ahead in 0..count {
                    let (id, written) = entry(ahead);
                    let Some((first, len)) = order.pop_front() else {
                        done.push_back((id, written));
                        continue;
                    };
                    let written = if u32::from(first) == id { written } else { len };
                    done.push_back((first.into(), written));
                }
            }
        }
        self.next_used = self.next_used.wrapping_add(count);
    }

    pub(super) fn arm(&mut self, common: &Common) -> bool {
        let wish = if common.has(feature::EVENT_IDX) {
            self.next_used
        } else {
            0
        };
        let used = tell_then_ask(
            common
                .memory
                .cell_u16(Self::wish(common, common.layout.avail, 2)),
            wish,
            common.memory.cell_u16(common.layout.used + 2),
        );
        used != self.next_used
    }

    pub(super) fn disarm(&mut self, common: &Common) {
        let wish = if common.has(feature::EVENT_IDX) {
            self.next_used.wrapping_sub(1)
        } else {
            1
        };
        let at = Self::wish(common, common.layout.avail, 2);
        common.memory.store_u16(at, wish);
    }

    /// The entry of the available ring that is written next.
    #[inline]
    pub(super) fn next_slot(&self, common: &Common) -> u16 {
        self.next_avail & (common.layout.size - 1)
    }

    /// Gives entries of the rings back by moving both indices, for a driver whose rings hold the
    /// same chains for ever.
    #[inline]
    pub(super) fn recycle(&mut self, count: u16) {
        self.next_used = self.next_used.wrapping_add(count);
        self.next_avail = self.next_avail.wrapping_add(count);
    }
}
