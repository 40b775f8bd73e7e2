//! Bundles: sessions that are always seen together, because the same records keep them alive.
//!
//! A connection through several functions has a session in each, and a record for each direction that keeps all of
//! them alive. A replayed packet must not touch every session: that would be a cache miss each. It stamps its record,
//! and whoever asks a session when it was last seen looks at the records of its bundle. A bundle knows its records
//! and how many sessions are in it; a session knows its bundle. Both of a connection's records see the very sessions of
//! the bundle, or they are not in it.

use zerocopy::FromZeros;

use crate::huge::HugeArray;
use crate::prefetch::prefetch;

/// Records of one bundle: one for each direction.
pub(super) const RECORDS: usize = 2;

/// Sessions seen together.
#[derive(Clone, Copy, Debug, FromZeros)]
pub(crate) struct Bundle {
    /// One more than the number of each record; 0 for none. In a free bundle, one more than the next free one's number.
    records: [u32; RECORDS],
    /// When a record that is gone was last used.
    pub last_used: u32,
    /// Sessions in it.
    pub members: u32,
}

impl Bundle {
    /// The numbers of its records.
    #[inline]
    pub fn records(&self) -> impl Iterator<Item = u32> + use<> {
        self.records
            .into_iter()
            .filter_map(|record| record.checked_sub(1))
    }

    /// Whether it has room for a record.
    pub fn has_room(&self) -> bool {
        self.records.contains(&0)
    }

    /// Whether it has no record.
    pub fn is_idle(&self) -> bool {
        self.records == [0; RECORDS]
    }

    /// Adds a record where there is room.
    pub fn add(&mut self, record: u32) {
        if let Some(place) = self.records.iter_mut().find(|place| **place == 0) {
            *place = record + 1;
        }
    }

    /// Takes a record out that was last used then.
    pub fn leave(&mut self, record: u32, last_used: u32) {
        for place in &mut self.records {
            if *place == record + 1 {
                *place = 0;
            }
        }
        if last_used.wrapping_sub(self.last_used).cast_signed() > 0 {
            self.last_used = last_used;
        }
    }
}

/// A worker's bundles. There are never more than sessions, so that a new one always has room.
pub(crate) struct Bundles {
    list: HugeArray<Bundle>,
    used: u32,
    /// One more than the number of the first free one.
    free: u32,
}

impl Bundles {
    /// Room for `count`.
    pub fn new(count: usize) -> std::io::Result<Self> {
        Ok(Self {
            list: HugeArray::zeroed(count)?,
            used: 0,
            free: 0,
        })
    }

    #[inline]
    pub fn get(&self, bundle: u32) -> &Bundle {
        &self.list[bundle as usize]
    }

    #[inline]
    pub fn get_mut(&mut self, bundle: u32) -> &mut Bundle {
        &mut self.list[bundle as usize]
    }

    /// A new one for so many sessions.
    pub fn make(&mut self, members: u32, now: u32) -> Option<u32> {
        let bundle = if let Some(free) = self.free.checked_sub(1) {
            self.free = self.get(free).records[0];
            if let Some(next) = self.free.checked_sub(1) {
                prefetch(self.get(next));
            }
            free
        } else {
            let next = self.used;
            self.list.get(next as usize)?;
            self.used += 1;
            next
        };
        *self.get_mut(bundle) = Bundle {
            records: [0; RECORDS],
            last_used: now,
            members,
        };
        Some(bundle)
    }

    /// A session, whose records are gone, leaves its bundle; the last one frees it.
    pub fn part(&mut self, bundle: u32) {
        let free = self.free;
        let left = self.get_mut(bundle);
        left.members -= 1;
        if left.members == 0 {
            left.records = [free, 0];
            self.free = bundle + 1;
        }
    }
}
