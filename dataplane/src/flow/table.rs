//! Finds a packet's flow record: buckets of eight, bounded work for every look-up and insert.
//!
//! A bucket keeps a 16-bit tag and a record's number for each of its ways, in one cache line. A full bucket gives
//! up the record that was not used for the longest time; a flow whose record went that way runs the stages once
//! more, nothing else.

use super::key::FlowKey;
use super::record::Record;
use crate::prefetch::prefetch;

const WAYS: usize = 8;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket {
    tags: [u16; WAYS],
    records: [u32; WAYS],
}

/// A worker's flow records.
pub struct FlowTable {
    buckets: Vec<Bucket>,
    records: Vec<Option<Record>>,
    free: Vec<u32>,
    seeds: [u64; 4],
}

impl FlowTable {
    /// A table for `capacity` records (at least 8, at most 2^24), with secret `seeds`.
    pub fn new(capacity: usize, seeds: [u64; 4]) -> Self {
        let capacity = capacity.clamp(WAYS, 1 << 24);
        // Twice as many ways as records, so that few buckets overflow before the table is full.
        let buckets = (capacity * 2 / WAYS).next_power_of_two();
        Self {
            buckets: vec![
                Bucket {
                    tags: [0; WAYS],
                    records: [NONE; WAYS]
                };
                buckets
            ],
            records: (0..capacity).map(|_| None).collect(),
            free: (0..capacity as u32).rev().collect(),
            seeds,
        }
    }

    /// The hash that the other calls want.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.hash(&self.seeds)
    }

    /// Brings a bucket near, for a look-up a little later.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.bucket(hash)]);
    }

    /// Brings the records near whose tags agree; the bucket is near by now.
    #[inline]
    pub fn prefetch_record(&self, hash: u64) {
        let bucket = &self.buckets[self.bucket(hash)];
        for way in 0..WAYS {
            if bucket.tags[way] == tag(hash)
                && let Some(record) = self.records.get(bucket.records[way] as usize)
            {
                prefetch(record);
            }
        }
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    #[inline]
    fn find(&self, key: &FlowKey, hash: u64) -> Option<(usize, usize)> {
        let at = self.bucket(hash);
        let bucket = &self.buckets[at];
        (0..WAYS)
            .find(|&way| {
                bucket.tags[way] == tag(hash)
                    && self.records[bucket.records[way] as usize]
                        .as_ref()
                        .is_some_and(|record| record.key == *key)
            })
            .map(|way| (at, way))
    }

    /// The record of a key.
    #[inline]
    pub fn get(&mut self, key: &FlowKey, hash: u64) -> Option<&mut Record> {
        let (at, way) = self.find(key, hash)?;
        self.records[self.buckets[at].records[way] as usize].as_mut()
    }

    /// Forgets the record of a key.
    pub fn remove(&mut self, key: &FlowKey, hash: u64) {
        if let Some((at, way)) = self.find(key, hash) {
            self.clear(at, way);
        }
    }

    fn clear(&mut self, at: usize, way: usize) {
        let number = self.buckets[at].records[way];
        self.buckets[at].tags[way] = 0;
        self.buckets[at].records[way] = NONE;
        self.records[number as usize] = None;
        self.free.push(number);
    }

    /// Puts a record in its place, over an older one where there is no room; says whether one was evicted.
    pub fn insert(&mut self, record: Record, hash: u64) -> bool {
        self.remove(&record.key, hash);
        let at = self.bucket(hash);
        let vacant = (0..WAYS).find(|&way| self.buckets[at].tags[way] == 0);
        let (way, evicted) = match vacant {
            Some(way) if !self.free.is_empty() => (way, false),
            _ => match self.oldest(at, record.last_used) {
                Some(way) => {
                    self.clear(at, way);
                    (way, true)
                }
                // Every record is in use, none of them in this bucket: the flow stays with the stages.
                None => return false,
            },
        };
        if let Some(number) = self.free.pop() {
            self.buckets[at].tags[way] = tag(hash);
            self.buckets[at].records[way] = number;
            self.records[number as usize] = Some(record);
        }
        evicted
    }

    fn oldest(&self, at: usize, now: u32) -> Option<usize> {
        let bucket = &self.buckets[at];
        (0..WAYS)
            .filter(|&way| bucket.tags[way] != 0)
            .max_by_key(|&way| {
                self.records[bucket.records[way] as usize]
                    .as_ref()
                    .map_or(u32::MAX, |record| now.wrapping_sub(record.last_used))
            })
    }

    /// Records in the table.
    pub fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }

    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The hash's upper bits, as the lower ones choose the bucket; never 0, which marks an empty way.
#[inline]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16) | 1
}
