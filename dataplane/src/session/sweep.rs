//! Frees the slots of dead sessions, a bounded piece at a time.
//!
//! A hand goes round over the slots: a little at every tick, and a little whenever some sessions were made, so that dead
//! ones go as fast as others come, and never many at once. How far it goes depends on how full the table is: with half of
//! it free a dead slot may wait for a while, with next to none free it is needed. A vacant slot's object never dies, so
//! only the objects are read of what is not to be freed.
//!
//! What ending a session reads is far away, and where it is stands in what was read before: entry and bundle, records,
//! buckets. So each step is done for a group of sessions before the next one is, and waits once for all of them.

use arrayvec::ArrayVec;

use super::{Entry, Key, SessionId, SessionTable, VACANT};
use crate::objects::Objects;
use crate::prefetch::prefetch;
use crate::time::Time;

/// Slots that a tick looks at, and sessions that it ends at most. To end one takes some lines that are far away, together
/// a quarter of a microsecond in a large table, and at times twice as much.
pub(super) const LOOKS: usize = 64;
pub(super) const ENDED: usize = 2 * TOGETHER;
/// Sessions made after which the hand moves on; it may end twice as many.
pub(super) const MADE: usize = TOGETHER;
/// Slots that insertions into a full table may look at in one poll.
const LOOKS_WHEN_FULL: usize = 2048;
/// Sessions ended in one go, so that what they need is fetched at once.
pub(super) const TOGETHER: usize = 16;

/// Sessions that may be over.
type Found = ArrayVec<SessionId, TOGETHER>;

/// Where the hand is, and what it may do.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    hand: usize,
    /// Sessions made since it last moved because of that.
    made: usize,
    /// Looks that insertions into a full table have taken in the poll of this time.
    taken: usize,
    now: Time,
}

impl<K: Key, V: Copy, const KEYS: usize> SessionTable<K, V, KEYS> {
    /// Frees slots of sessions that are dead, and hands what was kept of them to `gone`. Call it at every tick.
    pub fn sweep(&mut self, objects: &mut Objects, now: Time, gone: impl FnMut(V)) {
        self.sweep_unless(objects, now, |_| false, gone);
    }

    /// As [`SessionTable::sweep`]; live sessions that are `over` for a reason of the function's own end as well.
    pub fn sweep_unless(
        &mut self,
        objects: &mut Objects,
        now: Time,
        over: impl Fn(&V) -> bool,
        gone: impl FnMut(V),
    ) {
        self.sweep.taken = 0;
        self.pass(LOOKS, ENDED, objects, now, over, gone);
    }

    /// Notes that a session was made, and makes up for some of them.
    #[inline]
    pub(super) fn keep_up(&mut self, objects: &mut Objects, now: Time) {
        self.sweep.made += 1;
        if self.sweep.made < MADE {
            return;
        }
        self.sweep.made = 0;
        // Of eight slots, so many are free.
        let capacity = self.entries.capacity();
        let free = (capacity - self.len) * 8 / capacity;
        let each = match free {
            0 => 64,
            1 => 16,
            2 | 3 => 8,
            _ => 4,
        };
        self.pass(MADE * each, 2 * MADE, objects, now, |_| false, |_| {});
    }

    /// Looks for dead sessions in a full table, for as long as this poll's insertions may.
    pub(super) fn make_room(&mut self, objects: &mut Objects, now: Time) {
        if self.sweep.now != now {
            (self.sweep.now, self.sweep.taken) = (now, 0);
        }
        let looks = LOOKS_WHEN_FULL - self.sweep.taken;
        let passed = self.pass(looks, TOGETHER, objects, now, |_| false, |_| {});
        self.sweep.taken += passed;
    }

    /// Moves the hand over `looks` slots, or until about `most` sessions were ended; tells how far it went.
    fn pass(
        &mut self,
        looks: usize,
        most: usize,
        objects: &mut Objects,
        now: Time,
        over: impl Fn(&V) -> bool,
        mut gone: impl FnMut(V),
    ) -> usize {
        let looks = looks.min(self.entries.len());
        let is_over = |entry: &Entry<V, KEYS>| entry.keys[0][3] != VACANT && over(&entry.value);
        let (mut passed, mut ended) = (0, 0);
        while passed < looks && ended < most {
            let mut found = Found::new();
            while passed < looks && !found.is_full() {
                if self.sweep.hand >= self.entries.len() {
                    self.sweep.hand = 0;
                }
                passed += self.look(looks - passed, &mut found, objects, now, is_over);
            }
            objects.approach(found.iter().map(|id| self.object(*id)));
            found.retain(|id| {
                !objects.settle(self.object(*id), now) || is_over(&self.entries[id.slot() as usize])
            });
            ended += found.len();
            let hashes: ArrayVec<[u64; KEYS], TOGETHER> =
                found.iter().map(|id| self.fetch(*id, objects)).collect();
            for (id, hashes) in found.into_iter().zip(hashes) {
                if let Some(value) = self.remove_hashed(id, hashes, objects) {
                    gone(value);
                }
            }
        }
        self.look_ahead(objects);
        passed
    }

    /// Moves the hand over `looks` slots or to the end of the table, or until no more can be `found`; tells how far it went.
    #[inline]
    fn look(
        &mut self,
        looks: usize,
        found: &mut Found,
        objects: &Objects,
        now: Time,
        is_over: impl Fn(&Entry<V, KEYS>) -> bool,
    ) -> usize {
        let first = self.sweep.hand;
        let entries = &self.entries[first..];
        let entries = &entries[..looks.min(entries.len())];
        let slots = objects.run(self.objects, first..first + entries.len());
        for (at, (slot, entry)) in slots.iter().zip(entries).enumerate() {
            if !slot.looks_dead(now) && !is_over(entry) {
                continue;
            }
            prefetch(entry);
            found.push(SessionId::new((first + at) as u32));
            if found.is_full() {
                self.sweep.hand = first + at + 1;
                return at + 1;
            }
        }
        self.sweep.hand = first + entries.len();
        entries.len()
    }

    /// Brings near the objects of the slots that the hand passes over next.
    fn look_ahead(&self, objects: &Objects) {
        let end = self.entries.len().min(self.sweep.hand + LOOKS);
        for slot in (self.sweep.hand..end).step_by(Objects::TO_A_LINE) {
            objects.prefetch(self.object(SessionId::new(slot as u32)));
        }
    }

    /// Brings near what ending a session needs; returns its keys' hashes.
    fn fetch(&self, id: SessionId, objects: &Objects) -> [u64; KEYS] {
        objects.approach_end(self.object(id));
        let hashes = self.hashes(id);
        for hash in hashes {
            self.index.prefetch(hash);
        }
        hashes
    }
}
