//! From a hash to the cells that may have its key.
//!
//! Buckets of one cache line, with ten tags each and the numbers that belong to them. What does not fit goes to the
//! next bucket, and the ones it passed count it: a look-up goes on only where something passed, and a removal takes
//! the count back, so that nothing is ever moved.

use zerocopy::FromZeros;

use crate::huge::HugeArray;
use crate::tags::{Ways, ways_with};

/// Tags and numbers of a bucket.
const WAYS: usize = 10;

/// Cells in use of each bucket at most, on average.
const FILL: usize = 8;

#[derive(FromZeros)]
#[repr(C, align(64))]
struct Bucket {
    /// 0 where the way is free.
    tags: [u16; WAYS],
    /// How many cells went on to a later bucket.
    passed: u32,
    cells: [u32; WAYS],
}

impl Bucket {
    /// The ways that hold this tag.
    #[inline]
    fn matches(&self, tag: u16) -> Ways {
        let [first @ .., ninth, tenth] = &self.tags;
        ways_with(first, tag)
            .and(8, *ninth == tag)
            .and(9, *tenth == tag)
    }
}

/// The index.
pub(super) struct Index {
    buckets: HugeArray<Bucket>,
}

impl Index {
    /// Room for `cells` cells.
    ///
    /// # Panics
    /// When the process has no address space left.
    pub fn new(cells: usize) -> Self {
        let buckets = HugeArray::zeroed(cells.div_ceil(FILL));
        Self {
            buckets: buckets.expect("address space for an index"),
        }
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() {
            0
        } else {
            bucket + 1
        }
    }

    /// Brings near what the other calls read first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        crate::prefetch::prefetch(&self.buckets[self.home(hash)]);
    }

    /// Whether a cell in the first bucket of this hash may be of it.
    #[inline]
    pub fn may_have(&self, hash: u64) -> bool {
        let bucket = &self.buckets[self.home(hash)];
        bucket.matches(tag(hash)).next().is_some()
    }

    /// The cell with this hash that is the wanted one.
    #[inline]
    pub fn find(&self, hash: u64, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let bucket = &self.buckets[self.home(hash)];
        if bucket.passed == 0 && bucket.matches(tag(hash)).next().is_none() {
            // So it is with most new ones.
            return None;
        }
        self.find_candidate(hash, wanted)
    }

    #[inline(never)]
    fn find_candidate(&self, hash: u64, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            for way in bucket.matches(tag(hash)) {
                let cell = bucket.cells[way];
                if wanted(cell) {
                    return Some(cell);
                }
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Adds a cell. There is room, as long as there are no more than was said in the beginning.
    pub fn insert(&mut self, hash: u64, cell: u32) {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            if let Some(way) = bucket.matches(0).next() {
                bucket.tags[way] = tag(hash);
                bucket.cells[way] = cell;
                return;
            }
            bucket.passed += 1;
            at = self.after(at);
        }
    }

    /// Takes out a cell that is there.
    pub fn remove(&mut self, hash: u64, cell: u32) {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            let mut ways = bucket.matches(tag(hash));
            if let Some(way) = ways.find(|way| bucket.cells[*way] == cell) {
                bucket.tags[way] = 0;
                return;
            }
            bucket.passed -= 1;
            at = self.after(at);
        }
    }
}

/// The hash's lower bits, as the upper ones choose the bucket; never 0, which marks a free way.
#[inline]
fn tag(hash: u64) -> u16 {
    (hash as u16).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!(size_of::<Bucket>(), 64);
    }

    proptest! {
        #[test]
        fn every_way_with_the_tag_is_found_and_no_other(
            tags: [u16; WAYS],
            small in any::<bool>(),
            tag in 0u16..4,
        ) {
            let mut bucket = Bucket::new_zeroed();
            bucket.tags = if small { tags.map(|tag| tag % 4) } else { tags };
            let expected: Vec<usize> = (0..WAYS).filter(|way| bucket.tags[*way] == tag).collect();
            let found: Vec<usize> = bucket.matches(tag).collect();
            prop_assert!(expected.iter().all(|way| found.contains(way)));
            prop_assert!(found.iter().all(|way| *way < WAYS));
            prop_assert_eq!(found, expected);
        }

        /// Hashes of few bits, so that buckets run over and tags are alike, against a map.
        #[test]
        fn behaves_like_a_map(ops in proptest::collection::vec((any::<bool>(), 0u32..48, 0u64..6), 1..300)) {
            let mut index = Index::new(40);
            let mut model: HashMap<u32, u64> = HashMap::new();
            for (add, cell, seed) in ops {
                let hash = seed << 62 | (seed % 3);
                match model.get(&cell).copied() {
                    None if add && model.len() < 40 => {
                        index.insert(hash, cell);
                        model.insert(cell, hash);
                    }
                    Some(hash) if !add => {
                        index.remove(hash, cell);
                        model.remove(&cell);
                    }
                    _ => {}
                }
                for (cell, hash) in &model {
                    prop_assert_eq!(index.find(*hash, |found| found == *cell), Some(*cell));
                }
                prop_assert_eq!(index.find(hash, |cell| !model.contains_key(&cell)), None);
            }
            for (cell, hash) in model.drain() {
                index.remove(hash, cell);
            }
            prop_assert!(index.buckets.iter().all(|bucket| bucket.passed == 0 && bucket.tags == [0; WAYS]));
        }
    }
}
