//! Session tables: what a stateful function knows of connections, found by either direction's key.
//!
//! A session is found by the key of the packets that opened it ([`Way::Forward`]) or of those that answer
//! ([`Way::Return`]). Its liveness is an object of the worker, so that replayed packets keep it alive. A session whose
//! timeout has passed is dead at once, whether or not the sweep has come by to free its slot: what a packet meets
//! depends on time only, not on how far the sweep got.
//!
//! Slots, keys and index are allocated once. Insert and look-up take bounded time; a full table refuses.

use std::hash::Hash;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use crate::objects::{ObjectId, ObjectRange, Objects};
use crate::time::Time;

/// Which of a session's two keys a packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As the packet that opened it.
    Forward,
    /// The opposite.
    Return,
}

/// A session's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(u32);

/// Why a session can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// Every slot is in use by a live session.
    Full,
    /// A live session has one of the keys already.
    Exists,
}

struct Entry<K, V> {
    keys: [K; 2],
    value: V,
}

const VACANT: u32 = u32::MAX;

/// A fixed number of sessions with keys `K` and what the function keeps of each, `V`.
pub struct SessionTable<K, V> {
    entries: Vec<Option<Entry<K, V>>>,
    free: Vec<u32>,
    /// Open addressing with linear probing: slot * 2 + way, at most half full.
    index: Vec<u32>,
    objects: ObjectRange,
    hasher: SeedableRandomState,
    hand: usize,
}

impl<K: Copy + Eq + Hash, V> SessionTable<K, V> {
    /// A table for `capacity` sessions (1 to 2^24), whose hash is keyed by `seed`.
    pub fn new(capacity: usize, seed: u64, objects: &mut Objects) -> Self {
        let capacity = capacity.clamp(1, 1 << 24);
        Self {
            entries: (0..capacity).map(|_| None).collect(),
            free: (0..capacity as u32).rev().collect(),
            index: vec![VACANT; (capacity * 4).next_power_of_two()],
            objects: objects.reserve(capacity),
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            hand: 0,
        }
    }

    /// The live session that has this key, and which of its keys it is.
    pub fn find(&self, key: &K, objects: &Objects, now: Time) -> Option<(SessionId, Way)> {
        let (slot, way) = self.lookup(key)?;
        let id = SessionId(slot);
        objects.is_alive(self.object(id), now).then_some((id, way))
    }

    fn lookup(&self, key: &K) -> Option<(u32, Way)> {
        let mask = self.index.len() - 1;
        let mut at = self.home(key);
        loop {
            let cell = self.index[at];
            if cell == VACANT {
                return None;
            }
            if self.key_of(cell) == Some(key) {
                return Some((
                    cell / 2,
                    if cell.is_multiple_of(2) {
                        Way::Forward
                    } else {
                        Way::Return
                    },
                ));
            }
            at = (at + 1) & mask;
        }
    }

    fn home(&self, key: &K) -> usize {
        use std::hash::BuildHasher;
        self.hasher.hash_one(key) as usize & (self.index.len() - 1)
    }

    fn key_of(&self, cell: u32) -> Option<&K> {
        self.entries[cell as usize / 2]
            .as_ref()
            .map(|entry| &entry.keys[cell as usize % 2])
    }

    /// Makes a session that lives `timeout` ticks unless it is seen again. `forward` and `reverse` may be equal. Dead
    /// sessions that hold one of the keys, or the last slots, make room.
    ///
    /// # Errors
    /// When there is no room, or a live session has one of the keys.
    pub fn insert(
        &mut self,
        forward: K,
        reverse: K,
        value: V,
        timeout: u32,
        objects: &mut Objects,
        now: Time,
    ) -> Result<SessionId, InsertError> {
        for key in [&forward, &reverse] {
            if let Some((slot, _)) = self.lookup(key) {
                if objects.is_alive(self.objects.at(slot as usize), now) {
                    return Err(InsertError::Exists);
                }
                self.remove(SessionId(slot), objects);
            }
        }
        if self.free.is_empty() {
            self.sweep(64, objects, now, |_, _| {});
        }
        let slot = self.free.pop().ok_or(InsertError::Full)?;
        self.entries[slot as usize] = Some(Entry {
            keys: [forward, reverse],
            value,
        });
        self.link(slot * 2);
        if reverse != forward {
            self.link(slot * 2 + 1);
        }
        let id = SessionId(slot);
        objects.touch(self.object(id), now, timeout);
        Ok(id)
    }

    fn link(&mut self, cell: u32) {
        let Some(key) = self.key_of(cell) else { return };
        let mask = self.index.len() - 1;
        let mut at = self.home(key);
        while self.index[at] != VACANT {
            at = (at + 1) & mask;
        }
        self.index[at] = cell;
    }

    /// Ends a session; records that used it are no longer valid. Returns what the function kept of it.
    pub fn remove(&mut self, id: SessionId, objects: &mut Objects) -> Option<V> {
        let slot = id.0;
        self.entries[slot as usize].as_ref()?;
        self.unlink(slot * 2);
        self.unlink(slot * 2 + 1);
        let entry = self.entries[slot as usize].take()?;
        self.free.push(slot);
        objects.invalidate(self.object(id));
        Some(entry.value)
    }

    /// Takes a cell out of the index and moves later ones of the run up, so that no probe stops early.
    fn unlink(&mut self, cell: u32) {
        let Some(key) = self.key_of(cell) else { return };
        let mask = self.index.len() - 1;
        let mut hole = self.home(key);
        while self.index[hole] != cell {
            if self.index[hole] == VACANT {
                return;
            }
            hole = (hole + 1) & mask;
        }
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let moving = self.index[next];
            if moving == VACANT {
                break;
            }
            let home = self.key_of(moving).map_or(next, |key| self.home(key));
            // The cell may move to the hole unless its home lies cyclically between the two.
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                self.index[hole] = moving;
                hole = next;
            }
        }
        self.index[hole] = VACANT;
    }

    /// The object that stands for the session.
    #[inline]
    pub fn object(&self, id: SessionId) -> ObjectId {
        self.objects.at(id.0 as usize)
    }

    /// What the function keeps of it. A removed session's slot gives `None`.
    #[inline]
    pub fn get(&self, id: SessionId) -> Option<&V> {
        self.entries[id.0 as usize]
            .as_ref()
            .map(|entry| &entry.value)
    }

    /// What the function keeps of it, writable.
    #[inline]
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut V> {
        self.entries[id.0 as usize]
            .as_mut()
            .map(|entry| &mut entry.value)
    }

    /// Its two keys.
    pub fn keys(&self, id: SessionId) -> Option<[K; 2]> {
        self.entries[id.0 as usize].as_ref().map(|entry| entry.keys)
    }

    /// Looks at the next `budget` slots, frees those whose session is dead, and hands what was kept of them to
    /// `gone`. Call it at every tick.
    pub fn sweep(
        &mut self,
        budget: usize,
        objects: &mut Objects,
        now: Time,
        gone: impl FnMut([K; 2], V),
    ) {
        self.sweep_unless(budget, objects, now, |_| false, gone);
    }

    /// As [`SessionTable::sweep`]; live sessions that are `over` for a reason of the function's own end as well.
    pub fn sweep_unless(
        &mut self,
        budget: usize,
        objects: &mut Objects,
        now: Time,
        over: impl Fn(&V) -> bool,
        mut gone: impl FnMut([K; 2], V),
    ) {
        for _ in 0..budget.min(self.entries.len()) {
            let id = SessionId(self.hand as u32);
            self.hand = (self.hand + 1) % self.entries.len();
            let Some(entry) = &self.entries[id.0 as usize] else {
                continue;
            };
            let (keys, over) = (entry.keys, over(&entry.value));
            if (over || !objects.is_alive(self.object(id), now))
                && let Some(value) = self.remove(id, objects)
            {
                gone(keys, value);
            }
        }
    }

    /// Sessions in slots, dead ones that the sweep has not met included.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The live sessions of slots from `cursor` on, with where each slot is.
    pub fn iter_from<'a>(
        &'a self,
        cursor: usize,
        objects: &'a Objects,
        now: Time,
    ) -> impl Iterator<Item = (usize, SessionId, &'a [K; 2], &'a V)> {
        (cursor..self.entries.len()).filter_map(move |slot| {
            let entry = self.entries[slot].as_ref()?;
            let id = SessionId(slot as u32);
            objects
                .is_alive(self.object(id), now)
                .then_some((slot, id, &entry.keys, &entry.value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u8, u8),
        Find(u8),
        Remove(u8),
        Touch(u8),
        Wait(u8),
        Sweep(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0u8..40, 0u8..40).prop_map(|(a, b)| Op::Insert(a, b)),
            3 => (0u8..40).prop_map(Op::Find),
            1 => (0u8..40).prop_map(Op::Remove),
            1 => (0u8..40).prop_map(Op::Touch),
            1 => (0u8..20).prop_map(Op::Wait),
            1 => (0u8..8).prop_map(Op::Sweep),
        ]
    }

    proptest! {
        /// A naive model: a list of live sessions with the time they were last seen.
        #[test]
        fn behaves_like_a_map_of_live_sessions(ops in proptest::collection::vec(op(), 1..200)) {
            let mut objects = Objects::default();
            let mut table = SessionTable::new(64, 7, &mut objects);
            let mut model: HashMap<u8, (u8, u32, u64)> = HashMap::new();
            let (mut now, timeout) = (Time(0), 10);
            let mut serial = 0;
            for op in ops {
                let alive = |seen: &u64, now: Time| now.ticks() - *seen as u32 <= timeout;
                model.retain(|_, (_, _, seen)| alive(seen, now));
                let by_key = |model: &HashMap<u8, (u8, u32, u64)>, key: u8| {
                    model.iter().find(|(forward, (reverse, _, _))| **forward == key || *reverse == key).map(|(forward, _)| *forward)
                };
                match op {
                    Op::Insert(a, b) => {
                        let clash = by_key(&model, a).is_some() || by_key(&model, b).is_some();
                        let made = table.insert(a, b, serial, timeout, &mut objects, now);
                        prop_assert_eq!(made.is_err(), clash);
                        if !clash {
                            model.insert(a, (b, serial, u64::from(now.ticks())));
                        }
                        serial += 1;
                    }
                    Op::Find(key) => {
                        let found = table.find(&key, &objects, now).map(|(id, _)| *table.get(id).unwrap());
                        prop_assert_eq!(found, by_key(&model, key).map(|forward| model[&forward].1));
                    }
                    Op::Remove(key) => {
                        if let Some((id, _)) = table.find(&key, &objects, now) {
                            table.remove(id, &mut objects);
                            let forward = by_key(&model, key).unwrap();
                            model.remove(&forward);
                        }
                    }
                    Op::Touch(key) => {
                        if let Some((id, _)) = table.find(&key, &objects, now) {
                            objects.touch(table.object(id), now, timeout);
                            let forward = by_key(&model, key).unwrap();
                            model.get_mut(&forward).unwrap().2 = u64::from(now.ticks());
                        }
                    }
                    Op::Wait(ticks) => now = now + Duration::from_nanos(u64::from(ticks) << 20),
                    Op::Sweep(budget) => table.sweep(budget as usize, &mut objects, now, |_, _| {}),
                }
            }
        }
    }

    #[test]
    fn a_full_table_refuses_until_sessions_die() {
        let mut objects = Objects::default();
        let mut table = SessionTable::new(2, 1, &mut objects);
        for key in 0..2 {
            table
                .insert(key, key + 10, (), 5, &mut objects, Time(0))
                .unwrap();
        }
        assert_eq!(
            table.insert(5, 15, (), 5, &mut objects, Time(0)),
            Err(InsertError::Full)
        );
        let later = Time(0) + Duration::from_secs(1);
        assert!(table.insert(5, 15, (), 5, &mut objects, later).is_ok());
    }
}
