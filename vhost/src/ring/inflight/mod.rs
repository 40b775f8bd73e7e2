//! In-flight tracking: what of a burst is given back and what is not, in memory that the front end
//! keeps when we die (vhost-user, "Inflight I/O tracking").
//!
//! A ring takes chains and gives them back in one step, the publishing of a burst; what was only
//! parsed is still the driver's. So the region's marks stand from [`Tracker::begin`] to
//! [`Tracker::end`], around the one store by which the driver sees the burst, and at any other
//! moment nothing is in flight: what was not given back is found in the ring again. Another back
//! end may have left more; [`Tracker::start`] takes up whatever the region tells.
//!
//! The region is the front end's to write. It is read when a queue starts, each word once, and
//! checked; while the queue runs it is only written.

#[cfg(test)]
mod foreign;
mod packed;
mod split;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Chain, Ring};
use crate::memory::Mapping;

/// The version of the layout (`version`); 0 says that nobody has filled the region in.
const VERSION: u16 = 1;

/// Queue regions begin at multiples of this, as those of other back ends do.
const ALIGNMENT: usize = 64;

/// Where `version`, `desc_num` and two words of the format are in a queue's region. All 8 bytes are
/// written in one store.
const HEADER: usize = 8;

/// `inflight` of a descriptor's state, the lowest byte of its first 8.
const IN_FLIGHT: u64 = 0xff;

/// The part of the shared memory that tracks one queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueRegion {
    memory: Arc<Mapping>,
    start: usize,
    /// Descriptors that it has room for.
    entries: u16,
    packed: bool,
}

impl QueueRegion {
    /// Bytes of the region of one queue.
    pub(crate) fn bytes(entries: u16, packed: bool) -> usize {
        let (header, entry) = Self::shape(packed);
        (header + entry * usize::from(entries)).next_multiple_of(ALIGNMENT)
    }

    /// Bytes of the header and of a descriptor's state.
    fn shape(packed: bool) -> (usize, usize) {
        if packed {
            (packed::HEADER_SIZE, packed::ENTRY)
        } else {
            (split::HEADER_SIZE, split::ENTRY)
        }
    }

    /// The region of a queue by its index; `None` if the memory ends before it.
    pub(crate) fn of_queue(
        memory: &Arc<Mapping>,
        index: usize,
        entries: u16,
        packed: bool,
    ) -> Option<Self> {
        let bytes = Self::bytes(entries, packed);
        let end = index.checked_add(1)?.checked_mul(bytes)?;
        (end <= memory.len()).then(|| Self {
            memory: memory.clone(),
            start: end - bytes,
            entries,
            packed,
        })
    }

    /// Eight bytes, the lowest first.
    fn get(&self, offset: usize) -> u64 {
        self.memory.load_u64(self.start + offset)
    }

    /// Writes eight bytes after all that was written before.
    #[inline]
    fn put(&self, offset: usize, value: u64) {
        self.memory.store_u64(self.start + offset, value);
    }

    /// Where a descriptor's state is.
    #[inline]
    fn entry(&self, index: u16) -> usize {
        let (header, entry) = Self::shape(self.packed);
        header + entry * usize::from(index)
    }

    /// The header: version, number of entries and the two words of the format.
    fn put_header(&self, words: [u16; 2]) {
        let [low, high] = words.map(u64::from);
        let fixed = u64::from(VERSION) | u64::from(self.entries) << 16;
        self.put(HEADER, fixed | low << 32 | high << 48);
    }

    /// The two words of the format, or `None` in a region that nobody has filled in.
    ///
    /// # Errors
    /// A region of another version or size.
    fn header(&self) -> Result<Option<[u16; 2]>, &'static str> {
        let word = self.get(HEADER);
        match (word as u16, (word >> 16) as u16) {
            (0, _) => Ok(None),
            (VERSION, entries) if entries == self.entries => {
                Ok(Some([(word >> 32) as u16, (word >> 48) as u16]))
            }
            (VERSION, _) => Err("in-flight region was made for another queue size"),
            _ => Err("in-flight region is of an unknown version"),
        }
    }

    fn is_marked(&self, index: u16) -> bool {
        self.get(self.entry(index)) & IN_FLIGHT == 1
    }

    fn clear_mark(&self, index: u16) {
        let at = self.entry(index);
        let word = self.get(at);
        if word & IN_FLIGHT != 0 {
            self.put(at, word & !IN_FLIGHT);
        }
    }

    /// The entries below `count` that are marked, by the order in which they were taken.
    fn marked(&self, count: u16) -> Vec<u16> {
        let marked = (0..count).filter(|index| self.is_marked(*index));
        let mut marked: Vec<(u64, u16)> = marked
            .map(|index| (self.get(self.entry(index) + 8), index))
            .collect();
        marked.sort_unstable();
        marked.into_iter().map(|(_, index)| index).collect()
    }

    /// Forgets what the region tells, once the front end has been told where the queue stands: the
    /// next start goes by that, whether the driver goes on there or begins anew. What another back
    /// end had left and we have not come to stays.
    pub(crate) fn retire(&self) {
        if !(0..self.entries).any(|index| self.is_marked(index)) {
            self.clear();
        }
    }

    /// Makes it a region that nobody has filled in, whatever format the queue will have next.
    pub(crate) fn clear(&self) {
        self.put(HEADER, 0);
        for offset in (0..Self::bytes(self.entries, self.packed)).step_by(8) {
            if self.get(offset) != 0 {
                self.put(offset, 0);
            }
        }
    }
}

/// Keeps the region of a ring that runs.
#[derive(Debug)]
pub(crate) struct Tracker {
    region: QueueRegion,
    /// Chains that were published since the start; the next one's `counter`.
    counter: u64,
    /// The head of the last batch, in the region of a split ring.
    last: u16,
}

impl Tracker {
    /// The tracker of a ring that runs already and whose tracker hands its place over
    /// ([`resume`](Self::resume)).
    pub(crate) fn attach(region: QueueRegion) -> Self {
        Self {
            region,
            counter: 0,
            last: 0,
        }
    }

    /// Takes up what the region tells of a ring that starts: where it stands, and the chains that a
    /// back end before us has taken and not given back, which come first. A region that nobody has
    /// filled in begins where the ring says.
    ///
    /// # Errors
    /// Why the region can't be this ring's.
    pub(crate) fn start(region: QueueRegion, ring: &mut Ring) -> Result<Self, &'static str> {
        let mut tracker = Self::attach(region);
        match ring {
            Ring::Split(ring) => tracker.start_split(ring)?,
            Ring::Packed(ring) => tracker.start_packed(ring)?,
        }
        Ok(tracker)
    }

    /// Goes on where `old`, the tracker of the same ring, was.
    pub(crate) fn resume(&mut self, old: &Self) {
        (self.counter, self.last) = (old.counter, old.last);
    }

    /// Marks chains that are about to be published.
    pub(crate) fn begin(&mut self, ring: &Ring, chains: &[Chain]) {
        match ring {
            Ring::Split(ring) => self.begin_split(ring, chains),
            Ring::Packed(ring) => self.begin_packed(ring, chains),
        }
    }

    /// Takes the marks away after it.
    pub(crate) fn end(&mut self, ring: &Ring, chains: &[Chain]) {
        match ring {
            Ring::Split(ring) => self.end_split(ring, chains),
            Ring::Packed(ring) => self.end_packed(ring, chains),
        }
        self.counter += chains.len() as u64;
    }
}
