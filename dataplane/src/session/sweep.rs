//! Frees the slots of dead sessions, a bounded piece at a time.
//!
//! A hand goes round over the slots. How many it passes depends on how many sessions were made since it last moved, and
//! on how full the table is: with half of the table free a dead slot may wait for a while, with next to none free it is
//! needed. A vacant slot's object never dies, so only the objects are read of what is not to be freed.

use arrayvec::ArrayVec;

use super::{Entry, Key, SessionId, SessionTable, VACANT};
use crate::objects::Objects;
use crate::time::Time;

/// Slots that a tick looks at when nothing was made since the last.
const IDLE_LOOKS: usize = 64;
/// Slots that a tick looks at, at most: some microseconds.
const MOST_LOOKS: usize = 2048;
/// Sessions that a tick ends at most, each of which takes some lines that are far away: less than 20 µs.
const MOST_ENDED: usize = 128;
/// Slots that insertions into a full table may look at between two ticks.
const LOOKS_WHEN_FULL: usize = 2048;
/// Sessions ended in one go, so that what they need is fetched at once.
const TOGETHER: usize = 16;

/// Where the hand is, and what it may do.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    hand: usize,
    /// Sessions made since the last tick.
    made: usize,
    /// Looks that insertions into a full table have taken since the last tick.
    taken: usize,
}

impl Sweep {
    #[inline]
    pub fn made(&mut self) {
        self.made += 1;
    }
}

impl<K: Key, V: Copy, const KEYS: usize> SessionTable<K, V, KEYS> {
    /// Frees slots of sessions that are dead, and hands what was kept of them to `gone`. Call it at every tick.
    pub fn sweep(&mut self, objects: &mut Objects, now: Time, gone: impl FnMut([K; KEYS], V)) {
        self.sweep_unless(objects, now, |_| false, gone);
    }

    /// As [`SessionTable::sweep`]; live sessions that are `over` for a reason of the function's own end as well.
    pub fn sweep_unless(
        &mut self,
        objects: &mut Objects,
        now: Time,
        over: impl Fn(&V) -> bool,
        gone: impl FnMut([K; KEYS], V),
    ) {
        let made = std::mem::take(&mut self.sweep.made);
        self.sweep.taken = 0;
        // Of eight slots, so many are free.
        let free = (self.entries.capacity() - self.len) * 8 / self.entries.capacity();
        let each = match free {
            0 => 64,
            1 => 16,
            2 | 3 => 8,
            _ => 4,
        };
        let looks = (IDLE_LOOKS + made * each).min(MOST_LOOKS);
        self.pass(looks, MOST_ENDED, objects, now, over, gone);
    }

    /// Looks for dead sessions in a full table, for as long as this tick's insertions may.
    pub(super) fn make_room(&mut self, objects: &mut Objects, now: Time) {
        let looks = LOOKS_WHEN_FULL - self.sweep.taken;
        let passed = self.pass(looks, TOGETHER, objects, now, |_| false, |_, _| {});
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
        mut gone: impl FnMut([K; KEYS], V),
    ) -> usize {
        let looks = looks.min(self.entries.len());
        let (mut passed, mut ended) = (0, 0);
        while passed < looks && ended < most {
            let mut found = ArrayVec::<SessionId, TOGETHER>::new();
            while passed < looks && !found.is_full() {
                if self.sweep.hand >= self.entries.len() {
                    self.sweep.hand = 0;
                }
                let id = SessionId::new(self.sweep.hand as u32);
                self.sweep.hand += 1;
                passed += 1;
                let is_over =
                    |entry: &Entry<V, KEYS>| entry.keys[0][3] != VACANT && over(&entry.value);
                if !objects.is_alive(self.object(id), now)
                    || is_over(&self.entries[id.slot() as usize])
                {
                    found.push(id);
                }
            }
            ended += found.len();
            for id in &found {
                self.prefetch(*id);
            }
            for id in found {
                let keys = self.keys(id);
                if let (Some(keys), Some(value)) = (keys, self.remove(id, objects)) {
                    gone(keys, value);
                }
            }
        }
        passed
    }

    /// Brings near what ending a session needs.
    fn prefetch(&self, id: SessionId) {
        for key in 0..KEYS as u32 {
            let key = self.key_at(id.slot() * KEYS as u32 + key);
            self.index.prefetch(self.hasher.of(&key));
        }
    }
}
