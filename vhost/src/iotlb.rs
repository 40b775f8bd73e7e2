//! The device's IOTLB: translations of I/O virtual addresses that the front end has told us
//! (vhost-user, "IOMMU support").
//!
//! It is a cache of bounded size on the control thread. Workers never see it: from what it holds a
//! [`GuestMemory`](crate::memory::GuestMemory) is made, which is handed to them as any change of
//! the memory map is, and never changes under them.

use std::collections::BTreeMap;

/// Most entries. Where all are taken, the oldest one goes; if it is still of use, it is asked for
/// anew.
pub const CAPACITY: usize = 8192;

/// What may be done with memory, as bits (vhost-user, "An IOTLB message").
pub mod access {
    /// The device may read.
    pub const READ: u8 = 1;
    /// The device may write.
    pub const WRITE: u8 = 2;
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First I/O virtual address.
    pub iova: u64,
    /// Length in bytes; no address beyond the last one of 64 bits.
    pub size: u64,
    /// Address of the first byte in the front end's process.
    pub user: u64,
    /// Bits of [`access`].
    pub access: u8,
}

#[derive(Clone, Copy, Debug)]
struct Cached {
    size: u64,
    user: u64,
    access: u8,
    /// When it came, counted in updates.
    age: u64,
}

/// The cache. Entries never overlap.
#[derive(Debug)]
pub struct Iotlb {
    capacity: usize,
    entries: BTreeMap<u64, Cached>,
    updates: u64,
}

impl Default for Iotlb {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl Iotlb {
    /// An empty cache for so many entries, one at least.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: BTreeMap::new(),
            updates: 0,
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts an entry in place of all that it touches; false, and nothing is done, if it is empty,
    /// allows nothing or wraps.
    pub fn update(&mut self, entry: Entry) -> bool {
        let Entry {
            iova,
            size,
            user,
            access,
        } = entry;
        let wraps = |start: u64| size == 0 || start.checked_add(size - 1).is_none();
        if access == 0 || access > access::READ | access::WRITE || wraps(iova) || wraps(user) {
            return false;
        }
        self.invalidate(iova, size);
        if self.entries.len() >= self.capacity {
            let oldest = self.entries.iter().min_by_key(|(_, cached)| cached.age);
            if let Some(oldest) = oldest.map(|(iova, _)| *iova) {
                self.entries.remove(&oldest);
            }
        }
        self.updates += 1;
        let cached = Cached {
            size,
            user,
            access,
            age: self.updates,
        };
        self.entries.insert(iova, cached);
        true
    }

    /// Forgets every entry of which a byte is in the range. One of size 0, or that wraps, goes to
    /// the end of all addresses.
    pub fn invalidate(&mut self, iova: u64, size: u64) {
        let last = match size.checked_sub(1) {
            Some(more) => iova.saturating_add(more),
            None => u64::MAX,
        };
        // Of the entries that begin before the range, only the last one can reach into it.
        if let Some((start, before)) = self.entries.range(..iova).next_back()
            && before.size > iova - start
        {
            let start = *start;
            self.entries.remove(&start);
        }
        while let Some((start, _)) = self.entries.range(iova..=last).next() {
            let start = *start;
            self.entries.remove(&start);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The entries, by address.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().map(|(iova, cached)| Entry {
            iova: *iova,
            size: cached.size,
            user: cached.user,
            access: cached.access,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(iova: u64, size: u64) -> Entry {
        Entry {
            iova,
            size,
            user: 0x1000 + iova,
            access: access::READ,
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut tlb = Iotlb::new(4);
        let good = entry(0, 16);
        for wrong in [
            Entry { size: 0, ..good },
            Entry { access: 0, ..good },
            Entry { access: 4, ..good },
            Entry {
                iova: u64::MAX,
                ..good
            },
            Entry {
                user: u64::MAX - 14,
                ..good
            },
        ] {
            assert!(!tlb.update(wrong), "{wrong:?}");
        }
        assert!(tlb.is_empty());
        assert!(tlb.update(entry(u64::MAX - 0x2000, 0x1000)));
        tlb.invalidate(1 << 63, 0);
        assert!(tlb.is_empty());
    }

    #[test]
    fn the_oldest_entry_goes_first() {
        let mut tlb = Iotlb::new(3);
        for iova in [30, 10, 20] {
            assert!(tlb.update(entry(iova, 1)));
        }
        // Told again, it is young.
        assert!(tlb.update(entry(30, 1)));
        assert!(tlb.update(entry(40, 1)));
        let left: Vec<u64> = tlb.entries().map(|e| e.iova).collect();
        assert_eq!(left, [20, 30, 40]);
    }

    proptest! {
        /// The cache against a list that is searched from end to end.
        #[test]
        fn as_a_plain_list(
            steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 1..80),
        ) {
            let mut tlb = Iotlb::new(8);
            let mut list: Vec<Entry> = Vec::new();
            for (update, iova, size) in steps {
                let last = if size == 0 { u64::MAX } else { iova + size - 1 };
                if update && size == 0 {
                    prop_assert!(!tlb.update(entry(iova, size)));
                    continue;
                }
                list.retain(|e| e.iova + e.size - 1 < iova || e.iova > last);
                if update {
                    if list.len() == 8 {
                        list.remove(0);
                    }
                    list.push(entry(iova, size));
                    prop_assert!(tlb.update(entry(iova, size)));
                } else {
                    tlb.invalidate(iova, size);
                }
                let mut sorted = list.clone();
                sorted.sort_by_key(|e| e.iova);
                prop_assert_eq!(tlb.entries().collect::<Vec<_>>(), sorted);
            }
        }
    }
}
