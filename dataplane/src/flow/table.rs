//! Finds a packet's flow record: buckets of eight ways, bounded work for every look-up and insert.
//!
//! A bucket keeps a 16-bit tag and a record's number for each of its ways, in one cache line; the tags are compared all
//! at once. A record is in the bucket that the lower bits of its hash choose or, where that is full, in a second one; a
//! bucket counts those of its own that are elsewhere, so that most look-ups end in the first. Where both are full the
//! record of the first makes room that was not used for the longest time, if that is longer than the new one's own; a
//! flow whose record went that way runs the stages once more, nothing else.
//!
//! All memory is reserved at the start, in huge pages where there are any, and takes none before it is used.

use std::io;

use zerocopy::FromZeros;

use super::bundle::Bundles;
use super::key::FlowKey;
use super::record::{Record, Watches, Wide};
use super::template::Templates;
use crate::huge::HugeArray;
use crate::objects::Objects;
use crate::prefetch::prefetch;
use crate::tags::{WAYS, ways_with};

/// Records that a table holds at most.
const MOST: usize = 1 << 24;

#[derive(Clone, Copy, FromZeros)]
#[repr(C, align(64))]
struct Bucket {
    /// 0 marks a vacant way.
    tags: [u16; WAYS],
    records: [u32; WAYS],
    /// Records whose first bucket this is and which are in their second.
    elsewhere: u32,
}

/// A worker's flow records.
pub struct FlowTable {
    buckets: HugeArray<Bucket>,
    records: HugeArray<Record>,
    wide: HugeArray<Wide>,
    watches: HugeArray<Watches>,
    /// Records that were ever used.
    used: u32,
    /// One more than the number of the first vacant one among them.
    vacant: u32,
    len: usize,
    /// Records that went with a session since anyone asked.
    gone: u64,
    pub(super) templates: Templates,
    pub(super) bundles: Bundles,
    seeds: [u64; 4],
}

/// What is known of a flow's record before its turn comes: a number to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located(u32);

impl Located {
    /// Nothing was found.
    pub const NOWHERE: Self = Self(u32::MAX);
}

impl FlowTable {
    /// A table for `capacity` records (at least 8, at most 2^24) that rely on `objects`, with secret `seeds`.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(capacity: usize, objects: &Objects, seeds: [u64; 4]) -> io::Result<Self> {
        let capacity = capacity.clamp(WAYS, MOST);
        // Twice as many ways as records, so that few buckets overflow before the table is full.
        let buckets = (capacity * 2 / WAYS).next_power_of_two();
        Ok(Self {
            buckets: HugeArray::zeroed(buckets)?,
            records: HugeArray::zeroed(capacity)?,
            wide: HugeArray::zeroed(capacity)?,
            watches: HugeArray::zeroed(capacity)?,
            used: 0,
            vacant: 0,
            len: 0,
            gone: 0,
            templates: Templates::new(capacity, seeds[3])?,
            bundles: Bundles::new(objects.slots.len())?,
            seeds,
        })
    }

    /// The hash that the other calls want.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.hash(&self.seeds)
    }

    /// Brings a bucket near, for a look-up a little later.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.first(hash)]);
    }

    /// Looks for the record of a flow whose bucket is near by now, and brings it near.
    #[inline]
    pub(crate) fn locate(&self, key: &FlowKey, hash: u64) -> Located {
        let bucket = &self.buckets[self.first(hash)];
        // Another one with the same tag is rare, and found by the look-up.
        let Some(way) = ways_with(&bucket.tags, tag(hash)).next() else {
            return Located::NOWHERE;
        };
        let number = bucket.records[way];
        prefetch(&self.records[number as usize]);
        if key.is_ipv6() {
            prefetch(&self.wide[number as usize]);
        }
        Located(number)
    }

    /// The number of a flow's record, which is most likely where it was located.
    #[inline]
    pub(crate) fn find(&self, key: &FlowKey, hash: u64, located: Located) -> Option<u32> {
        if self.is_of(located.0, key) {
            return Some(located.0);
        }
        self.look_up(key, hash)
    }

    #[inline]
    fn is_of(&self, number: u32, key: &FlowKey) -> bool {
        let Some(record) = self.records.get(number as usize) else {
            return false;
        };
        // A vacant record's key is nobody's.
        record.key == key.short() && (!key.is_ipv6() || self.wide[number as usize].is_of(key))
    }

    #[inline(never)]
    fn look_up(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        let (first, tag) = (self.first(hash), tag(hash));
        let found = self.look_into(first, tag, key);
        if found.is_some() || self.buckets[first].elsewhere == 0 {
            return found;
        }
        self.look_into(self.second(first, tag), tag, key)
    }

    fn look_into(&self, bucket: usize, tag: u16, key: &FlowKey) -> Option<u32> {
        let bucket = &self.buckets[bucket];
        ways_with(&bucket.tags, tag)
            .map(|way| bucket.records[way])
            .find(|number| self.is_of(*number, key))
    }

    #[inline]
    fn first(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// The other bucket; tags are odd, so it is another one.
    fn second(&self, first: usize, tag: u16) -> usize {
        const SPREAD: usize = 0x9e37_79b1;
        (first ^ (tag as usize).wrapping_mul(SPREAD)) & (self.buckets.len() - 1)
    }

    #[inline]
    pub(crate) fn record(&self, number: u32) -> &Record {
        &self.records[number as usize]
    }

    #[inline]
    pub(crate) fn record_mut(&mut self, number: u32) -> &mut Record {
        &mut self.records[number as usize]
    }

    /// A record with what packets need besides, for replay.
    #[inline]
    pub(super) fn parts(&mut self, number: u32) -> (&mut Record, &Wide, &Watches, &mut Templates) {
        let at = number as usize;
        (
            &mut self.records[at],
            &self.wide[at],
            &self.watches[at],
            &mut self.templates,
        )
    }

    pub(super) fn watches_mut(&mut self, number: u32) -> &mut Watches {
        &mut self.watches[number as usize]
    }

    /// Forgets a record; its sessions know from now on when it was last used.
    pub(crate) fn remove(&mut self, number: u32) {
        let Record {
            hash,
            bundle,
            last_used,
            template,
            ..
        } = *self.record(number);
        if template == 0 {
            return;
        }
        if let Some(bundle) = bundle.checked_sub(1) {
            self.bundles.get_mut(bundle).leave(number, last_used);
        }
        self.templates.release(template);
        self.unlink(number, hash);
        let vacant = std::mem::replace(&mut self.vacant, number + 1);
        *self.record_mut(number) = Record::new_zeroed();
        self.record_mut(number).bundle = vacant;
        self.len -= 1;
    }

    /// Brings a bundle near.
    #[inline]
    pub(crate) fn prefetch_bundle(&self, bundle: u32) {
        prefetch(self.bundles.get(bundle));
    }

    /// Brings near the records of a bundle that is near.
    #[inline]
    pub(crate) fn prefetch_records(&self, bundle: u32) {
        for number in self.bundles.get(bundle).records() {
            prefetch(self.record(number));
        }
    }

    /// Brings near the buckets of a bundle's records, which are near.
    #[inline]
    pub(crate) fn prefetch_buckets(&self, bundle: u32) {
        for number in self.bundles.get(bundle).records() {
            self.prefetch(self.record(number).hash);
        }
    }

    /// When the records of a bundle were last used, those that are gone included.
    #[inline]
    pub(crate) fn last_used(&self, bundle: u32) -> impl Iterator<Item = u32> {
        let bundle = self.bundles.get(bundle);
        let records = bundle.records().map(|number| self.record(number).last_used);
        records.chain([bundle.last_used])
    }

    /// A session of a bundle is over: its records go, and it is no longer of the bundle.
    pub(crate) fn end_session(&mut self, bundle: u32) {
        for number in self.bundles.get(bundle).records() {
            self.remove(number);
            self.gone += 1;
        }
        self.bundles.part(bundle);
    }

    /// A session of a bundle does not live longer than so many ticks any more without being seen.
    pub(crate) fn limit(&mut self, bundle: u32, timeout: u32) {
        for number in self.bundles.get(bundle).records() {
            let record = self.record_mut(number);
            record.alive_for = record.alive_for.min(timeout);
        }
    }

    fn unlink(&mut self, number: u32, hash: u64) {
        let (first, tag) = (self.first(hash), tag(hash));
        let second = self.second(first, tag);
        for at in [first, second] {
            let bucket = &mut self.buckets[at];
            let mut ways = ways_with(&bucket.tags, tag);
            if let Some(way) = ways.find(|way| bucket.records[*way] == number) {
                bucket.tags[way] = 0;
                if at != first {
                    self.buckets[first].elsewhere -= 1;
                }
                return;
            }
        }
    }

    /// Puts a record in its place, over an older one where there is no room. Returns its number and whether another
    /// one was evicted; without room, and where none of its neighbours can be evicted, the flow stays with the stages.
    pub(super) fn insert(&mut self, record: Record, wide: Wide) -> Option<(u32, bool)> {
        let (first, tag) = (self.first(record.hash), tag(record.hash));
        let second = self.second(first, tag);
        let full = self.used as usize == self.records.len() && self.vacant == 0;
        let mut place = [first, second]
            .into_iter()
            .find(|at| self.vacancy(*at).is_some());
        let evicts = full || place.is_none();
        if evicts {
            let oldest = self.oldest(first, record.last_used)?;
            self.remove(oldest);
            place = [first, second]
                .into_iter()
                .find(|at| self.vacancy(*at).is_some());
        }
        let at = place?;
        let way = self.vacancy(at)?;
        let number = self.vacant_record()?;
        let bucket = &mut self.buckets[at];
        (bucket.tags[way], bucket.records[way]) = (tag, number);
        if at != first {
            self.buckets[first].elsewhere += 1;
        }
        if record.key.is_ipv6() {
            self.wide[number as usize] = wide;
        }
        *self.record_mut(number) = record;
        self.len += 1;
        Some((number, evicts))
    }

    fn vacancy(&self, bucket: usize) -> Option<usize> {
        ways_with(&self.buckets[bucket].tags, 0).next()
    }

    fn vacant_record(&mut self) -> Option<u32> {
        if let Some(number) = self.vacant.checked_sub(1) {
            self.vacant = self.record(number).bundle;
            if let Some(next) = self.vacant.checked_sub(1) {
                prefetch(self.record(next));
            }
            return Some(number);
        }
        let number = self.used;
        self.records.get(number as usize)?;
        self.used += 1;
        Some(number)
    }

    /// The record of a bucket that was used longest ago, if that is not later than `before`.
    fn oldest(&self, bucket: usize, before: u32) -> Option<u32> {
        let bucket = &self.buckets[bucket];
        let age = |number: &u32| {
            let used = self.record(*number).last_used;
            before.wrapping_sub(used).cast_signed()
        };
        (0..WAYS)
            .filter(|way| bucket.tags[*way] != 0)
            .map(|way| bucket.records[way])
            .max_by_key(age)
            .filter(|number| age(number) >= 0)
    }

    /// Hands over what replayed packets are to be counted by; see [`Templates::drain_counts`].
    #[inline]
    pub(crate) fn drain_counts(&mut self, each: impl FnMut(u16, u64, u64, &[(u16, u16)])) {
        self.templates.drain_counts(each);
    }

    /// Records that went, since the last call, because a session was over.
    pub(crate) fn take_gone(&mut self) -> u64 {
        std::mem::take(&mut self.gone)
    }

    /// Records in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The hash's upper bits, as the lower ones choose the bucket; never 0, which marks an empty way.
#[inline]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16) | 1
}
