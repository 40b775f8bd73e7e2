//! The region of a split ring (`QueueRegionSplit`).
//!
//! The used index in the ring tells what was given back, so the region's own one, and the list of
//! the last batch, say only whether that batch's marks are still to be taken away.

use super::super::Chain;
use super::super::split::SplitRing;
use super::Tracker;

/// Bytes before the states of descriptors. The header's two words are `last_batch_head` and
/// `used_idx`.
pub(super) const HEADER_SIZE: usize = 16;

/// Bytes of a descriptor's state (`DescStateSplit`): `inflight`, five of padding, `next`; and
/// `counter`.
pub(super) const ENTRY: usize = 16;

impl Tracker {
    pub(super) fn start_split(&mut self, ring: &mut SplitRing) -> Result<(), &'static str> {
        let region = &self.region;
        let (size, used) = (ring.size(), ring.state().next_used);
        let Some([mut last, before]) = region.header()? else {
            (0..region.entries).for_each(|index| region.clear_mark(index));
            region.put_header([0, used]);
            return Ok(());
        };
        self.last = last;
        for _ in 0..used.wrapping_sub(before).min(size) {
            if last >= size {
                break;
            }
            let state = region.get(region.entry(last));
            region.clear_mark(last);
            last = (state >> 48) as u16;
        }
        region.put_header([self.last, used]);
        let heads = region.marked(size);
        if heads.len() > usize::from(ring.waiting()) {
            return Err("in-flight region has more descriptors than the driver has offered");
        }
        // Those that are published next count from 0.
        for (counter, head) in heads.iter().enumerate() {
            region.put(region.entry(*head) + 8, counter as u64);
        }
        ring.resubmit(heads);
        Ok(())
    }

    #[inline]
    pub(super) fn begin_split(&mut self, ring: &SplitRing, chains: &[Chain]) {
        let region = &self.region;
        let mut last = self.last;
        for (chain, counter) in chains.iter().zip(self.counter..) {
            let at = region.entry(chain.head);
            region.put(at + 8, counter);
            region.put(at, 1 | u64::from(last) << 48);
            last = chain.head;
        }
        region.put_header([last, ring.state().next_used]);
    }

    #[inline]
    pub(super) fn end_split(&mut self, ring: &SplitRing, chains: &[Chain]) {
        let region = &self.region;
        for chain in chains {
            region.put(region.entry(chain.head), u64::from(self.last) << 48);
            self.last = chain.head;
        }
        region.put_header([self.last, ring.state().next_used]);
    }
}
