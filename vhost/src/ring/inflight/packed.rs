//! The region of a packed ring (`QueueRegionPacked`).
//!
//! A used descriptor overwrites one that was available, so the region has copies of those that are
//! in flight, and nothing but the region tells where the device stood.
//!
//! What was in flight goes back into the ring: the descriptors from the device's place on are the
//! device's until it has used them, as many as are in flight, and the driver looks at none of them
//! before they are used. So a ring that starts has all of it where any other chain is, the region
//! has no mark left, and its free list is in order: entry after entry, which is how a burst takes
//! them.

use super::super::Chain;
use super::super::packed::PackedRing;
use super::{QueueRegion, Tracker};
use crate::virtqueue::{DESC_AVAIL, DESC_USED, Place};

/// Bytes before the states of descriptors. The header's two words are `free_head` and
/// `old_free_head`.
pub(super) const HEADER_SIZE: usize = 32;

/// Where `used_idx`, `old_used_idx` and the two wrap counters are. All 8 bytes are written in one
/// store, so that a place is never half an old one.
const PLACES: usize = 16;

/// Bytes of a descriptor's state (`DescStatePacked`): `inflight`, `next`, `last`, `num`; `counter`;
/// `id`, `flags`, `len`; `addr`.
pub(super) const ENTRY: usize = 32;

/// The flags of a descriptor that say whose it is.
const OWNER: u16 = DESC_AVAIL | DESC_USED;

/// A descriptor's two words, without the flags that say whose it is.
type Words = (u64, u64);

/// The first word of a state.
fn state(mark: u64, [next, last, num]: [u16; 3]) -> u64 {
    mark | u64::from(next) << 16 | u64::from(last) << 32 | u64::from(num) << 48
}

impl QueueRegion {
    /// Where the device is, and where it was before the burst that it is in.
    fn places(&self) -> [Place; 2] {
        let word = self.get(PLACES);
        let place = |at: u32| Place {
            index: (word >> (16 * at)) as u16,
            wrap: word >> (32 + 8 * at) & 1 != 0,
        };
        [place(0), place(1)]
    }

    #[inline]
    fn put_places(&self, places: [Place; 2]) {
        let [now, old] = places.map(|place| u64::from(place.index));
        let [wrap, old_wrap] = places.map(|place| u64::from(place.wrap));
        self.put(PLACES, now | old << 16 | wrap << 32 | old_wrap << 40);
    }

    /// Makes it the region of a ring at `place`, with every entry free.
    fn fill_in(&self, place: Place) {
        for index in 0..self.entries {
            let at = self.entry(index);
            let (old, new) = (self.get(at), state(0, [index + 1, 0, 0]));
            if old != new {
                self.put(at, new);
            }
        }
        self.put_places([place; 2]);
        self.put_header([0; 2]);
    }

    /// Whether each entry is in the list of free ones, which begins with `head`.
    fn free(&self, head: u16) -> Vec<bool> {
        let mut free = vec![false; usize::from(self.entries)];
        let mut at = head;
        while let Some(seen) = free.get_mut(usize::from(at))
            && !*seen
        {
            *seen = true;
            at = (self.get(self.entry(at)) >> 16) as u16;
        }
        free
    }

    /// The descriptors of the chain whose head is in `entry`, up to `most`.
    fn chain(&self, entry: u16, most: usize) -> Result<Vec<Words>, &'static str> {
        let count = usize::from((self.get(self.entry(entry)) >> 48) as u16);
        if count == 0 || count > most {
            return Err("in-flight region has a chain longer than the ring");
        }
        let (mut words, mut at) = (Vec::with_capacity(count), entry);
        for _ in 0..count {
            if at >= self.entries {
                return Err("in-flight region has a link out of itself");
            }
            let offset = self.entry(at);
            let high = self.get(offset + 16);
            let (id, flags, len) = (high & 0xffff, (high >> 16) as u16 & !OWNER, high >> 32);
            words.push((
                self.get(offset + 24),
                len | id << 32 | u64::from(flags) << 48,
            ));
            at = (self.get(offset) >> 16) as u16;
        }
        Ok(words)
    }
}

impl Tracker {
    pub(super) fn start_packed(&mut self, ring: &mut PackedRing) -> Result<(), &'static str> {
        let region = &self.region;
        let Some([mut free_head, mut old_free_head]) = region.header()? else {
            region.fill_in(ring.place());
            return Ok(());
        };
        let [mut now, mut old] = region.places();
        let size = ring.size();
        if now.index >= size || old.index >= size {
            return Err("in-flight region has a place outside the ring");
        }
        // Either the driver has seen the last burst, and it counts, or it was never there.
        if now != old && !old.is_available(ring.flags(old)) {
            (old, old_free_head) = (now, free_head);
        }
        (now, free_head) = (old, old_free_head);
        region.put_header([free_head; 2]);
        region.put_places([now; 2]);
        for (index, free) in (0..).zip(region.free(free_head)) {
            if free {
                region.clear_mark(index);
            }
        }
        let heads = region.marked(region.entries);
        ring.go_to(now);
        Self::put_back(region, ring, &heads)?;
        // The first ones last: at any moment those that are marked are the first in the ring.
        heads.iter().rev().for_each(|head| region.clear_mark(*head));
        region.fill_in(now);
        Ok(())
    }

    /// Makes chains available again, from the ring's place on.
    fn put_back(
        region: &QueueRegion,
        ring: &mut PackedRing,
        heads: &[u16],
    ) -> Result<(), &'static str> {
        let size = ring.size();
        let (mut place, mut room) = (ring.place(), usize::from(size));
        let mut chains = Vec::with_capacity(heads.len());
        for head in heads {
            let chain = region.chain(*head, room)?;
            room -= chain.len();
            chains.push(chain);
        }
        for (low, high) in chains.into_iter().flatten() {
            ring.put_back(place.index, low, high | u64::from(place.available()) << 48);
            place.advance(1, size);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn begin_packed(&mut self, ring: &PackedRing, chains: &[Chain]) {
        let (region, size) = (&self.region, ring.size());
        let (mut place, mut free) = (ring.place(), 0);
        for (chain, counter) in chains.iter().zip(self.counter..) {
            let head = free;
            for _ in 0..chain.slots {
                let at = region.entry(free);
                let (low, high) = ring.words(place.index);
                let (len, id, flags) = (high << 32, high >> 32 & 0xffff, high >> 48);
                region.put(at + 24, low);
                region.put(at + 16, id | flags << 16 | len);
                place.advance(1, size);
                free += 1;
            }
            let at = region.entry(head);
            region.put(at + 8, counter);
            region.put(at, state(1, [head + 1, free - 1, chain.slots]));
        }
        // From here on they are in flight; they are free again once the driver sees them.
        region.put_header([0, free]);
        region.put_places([place, ring.place()]);
    }

    #[inline]
    pub(super) fn end_packed(&mut self, ring: &PackedRing, chains: &[Chain]) {
        let region = &self.region;
        let mut head = 0;
        for chain in chains {
            let last = head + chain.slots - 1;
            region.put(region.entry(head), state(0, [head + 1, last, chain.slots]));
            head += chain.slots;
        }
        region.put_header([0; 2]);
        region.put_places([ring.place(); 2]);
    }
}
