//! Session tables: what a stateful function knows of connections, found by the keys of its packets.
//!
//! A table with two keys for each session finds it by that of the packets that opened it ([`Way::Forward`]) and by
//! that of those that answer ([`Way::Return`]); where one key serves both, one is enough. A session's liveness is an
//! object of the worker, so that replayed packets keep it alive. A session whose timeout has passed is dead at once,
//! whether or not the sweep has come by to free its slot: what a packet meets depends on time only, not on how far the
//! sweep got.
//!
//! Memory is reserved once, in 2 MiB pages, and used as sessions come: an entry is 16 bytes for each key, and the value;
//! longer keys (IPv6) lie apart. Insert and look-up take bounded time; a full table refuses.

mod index;
mod key;
mod sweep;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use crate::huge::{HugeArray, HugeVec};
use crate::objects::{NEVER, ObjectId, ObjectRange, Objects};
use crate::prefetch::prefetch;
use crate::time::Time;
use index::Index;
use key::is_elsewhere;
pub use key::{Hashed, Key, KeyHasher, Packed};
use sweep::Sweep;

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
pub struct SessionId(NonZeroU32);

impl SessionId {
    fn new(slot: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(slot))
    }

    fn slot(self) -> u32 {
        self.0.get() - 1
    }
}

/// Why a session can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// Every slot is in use by a live session.
    Full,
    /// A live session has one of the keys already.
    Exists,
}

/// Slots that are looked at in one go for sessions to list. Of a session that may be over its records are asked, which are
/// far away: some hundred nanoseconds each.
const LISTED: usize = 32;
/// The most sessions of a table.
const MOST: usize = 1 << 24;

struct Entry<V, const KEYS: usize> {
    keys: [[u32; 4]; KEYS],
    value: V,
}

/// Marks an entry without a session; the words in front of it say which is the next one.
const VACANT: u32 = u32::MAX;
/// The end of the list of vacant entries.
const NONE: u32 = u32::MAX;

/// A fixed number of sessions, each with `KEYS` keys `K` (1 or 2) and what the function keeps of it, `V`.
pub struct SessionTable<K, V, const KEYS: usize = 2> {
    /// Those that were ever used.
    entries: HugeVec<Entry<V, KEYS>>,
    /// The vacant entry that is used next.
    vacant: u32,
    len: usize,
    /// Keys that don't fit in entries, by cell: slot * `KEYS` + which of the keys.
    wide: HugeArray<[u64; 5]>,
    index: Index,
    objects: ObjectRange,
    hasher: KeyHasher,
    sweep: Sweep,
    key: core::marker::PhantomData<K>,
}

impl<K: Key, V: Copy, const KEYS: usize> SessionTable<K, V, KEYS> {
    /// A table for `capacity` sessions (1 to 2^24), whose hash is keyed by `seed`.
    ///
    /// # Panics
    /// When the process has no address space left.
    pub fn new(capacity: usize, seed: u64, objects: &mut Objects) -> Self {
        const { assert!(KEYS == 1 || KEYS == 2) };
        let capacity = capacity.clamp(1, MOST);
        Self {
            entries: HugeVec::with_capacity(capacity).expect("address space for sessions"),
            vacant: NONE,
            len: 0,
            wide: HugeArray::zeroed(capacity * KEYS).expect("address space for sessions"),
            index: Index::new(capacity * KEYS),
            objects: objects.reserve(capacity),
            hasher: KeyHasher::new(seed),
            sweep: Sweep::default(),
            key: core::marker::PhantomData,
        }
    }

    /// The live session that has this key, and which of its keys it is.
    #[inline]
    pub fn find(&self, key: &K, objects: &Objects, now: Time) -> Option<(SessionId, Way)> {
        self.find_hashed(&mut self.hashed(key), objects, now)
    }

    /// The key as [`SessionTable::find_hashed`] and [`SessionTable::insert_hashed`] want it.
    #[inline]
    pub fn hashed(&self, key: &K) -> Hashed {
        let packed = key.pack();
        Hashed {
            hash: self.hasher.of(&packed),
            packed,
            is_new: false,
        }
    }

    /// As [`SessionTable::find`]. Where nothing was found, an insertion of the same key needs no further look, if none
    /// happened between.
    #[inline]
    pub fn find_hashed(
        &self,
        key: &mut Hashed,
        objects: &Objects,
        now: Time,
    ) -> Option<(SessionId, Way)> {
        let found = self.lookup(&key.packed, key.hash);
        key.is_new = found.is_none();
        let (id, key) = Self::whose(found?);
        let way = if key == 0 { Way::Forward } else { Way::Return };
        objects.is_alive(self.object(id), now).then_some((id, way))
    }

    /// The session of a cell, and which of its keys the cell is.
    #[inline]
    fn whose(cell: u32) -> (SessionId, usize) {
        (
            SessionId::new(cell / KEYS as u32),
            (cell % KEYS as u32) as usize,
        )
    }

    #[inline]
    fn lookup(&self, packed: &Packed, hash: u64) -> Option<u32> {
        let short = packed.short(hash);
        self.index.find(hash, |cell| {
            let (id, key) = Self::whose(cell);
            let same = self.entries[id.slot() as usize].keys[key] == short;
            match packed {
                Packed::Narrow(_) => same,
                Packed::Wide(words) => same && self.wide[cell as usize] == *words,
            }
        })
    }

    /// A cell's key; of an entry with a session.
    #[inline]
    fn key_at(&self, cell: u32) -> Packed {
        let (id, key) = Self::whose(cell);
        let short = &self.entries[id.slot() as usize].keys[key];
        if is_elsewhere(short) {
            Packed::Wide(self.wide[cell as usize])
        } else {
            Packed::Narrow(*short)
        }
    }

    /// Makes a session that lives `timeout` ticks unless it is seen again. Its keys may be equal. Dead sessions that
    /// hold one of the keys, or the last slots, make room.
    ///
    /// # Errors
    /// When there is no room, or a live session has one of the keys.
    pub fn insert(
        &mut self,
        keys: [K; KEYS],
        value: V,
        timeout: u32,
        objects: &mut Objects,
        now: Time,
    ) -> Result<SessionId, InsertError> {
        let keys = core::array::from_fn(|key| self.hashed(&keys[key]));
        self.insert_hashed(keys, value, timeout, objects, now)
    }

    /// As [`SessionTable::insert`].
    ///
    /// # Errors
    /// As [`SessionTable::insert`].
    pub fn insert_hashed(
        &mut self,
        keys: [Hashed; KEYS],
        value: V,
        timeout: u32,
        objects: &mut Objects,
        now: Time,
    ) -> Result<SessionId, InsertError> {
        for Hashed { hash, .. } in &keys {
            self.index.prefetch(*hash);
        }
        for Hashed {
            packed,
            hash,
            is_new,
        } in &keys
        {
            if *is_new {
                debug_assert_eq!(self.lookup(packed, *hash), None);
            } else if let Some(cell) = self.lookup(packed, *hash) {
                let (id, _) = Self::whose(cell);
                if objects.is_alive(self.object(id), now) {
                    return Err(InsertError::Exists);
                }
                self.remove(id, objects);
            }
        }
        if self.is_full() {
            self.make_room(objects, now);
        }
        let short = core::array::from_fn(|key| keys[key].packed.short(keys[key].hash));
        let entry = Entry { keys: short, value };
        let slot = self.place(entry).ok_or(InsertError::Full)?;
        for (key, Hashed { packed, hash, .. }) in keys.iter().enumerate() {
            let cell = slot * KEYS as u32 + key as u32;
            if let Packed::Wide(words) = packed {
                self.wide[cell as usize] = *words;
            }
            if key == 0 || *packed != keys[0].packed {
                self.index.insert(*hash, cell);
            }
        }
        let id = SessionId::new(slot);
        objects.touch(self.object(id), now, timeout);
        self.prefetch_vacant(objects);
        self.keep_up(objects, now);
        Ok(id)
    }

    fn is_full(&self) -> bool {
        self.len == self.entries.capacity()
    }

    /// Puts an entry in the slot that was left last, or in the first that was never used.
    fn place(&mut self, entry: Entry<V, KEYS>) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let slot = self.vacant;
        if let Some(vacant) = self.entries.get_mut(slot as usize) {
            self.vacant = vacant.keys[0][0];
            *vacant = entry;
            self.len += 1;
            return Some(slot);
        }
        self.entries.push(entry).ok()?;
        self.len += 1;
        Some(self.entries.len() as u32 - 1)
    }

    /// Brings near the slot that is used next.
    #[inline]
    fn prefetch_vacant(&self, objects: &Objects) {
        if let Some(next) = self.entries.get(self.vacant as usize) {
            prefetch(next);
            objects.prefetch(self.object(SessionId::new(self.vacant)));
        }
    }

    /// Ends a session; records that used it are no longer valid. Returns what the function kept of it.
    pub fn remove(&mut self, id: SessionId, objects: &mut Objects) -> Option<V> {
        self.get(id)?;
        self.remove_hashed(id, self.hashes(id), objects)
    }

    /// The hashes of a session's keys.
    fn hashes(&self, id: SessionId) -> [u64; KEYS] {
        let first = id.slot() * KEYS as u32;
        core::array::from_fn(|key| self.hasher.of(&self.key_at(first + key as u32)))
    }

    fn remove_hashed(
        &mut self,
        id: SessionId,
        hashes: [u64; KEYS],
        objects: &mut Objects,
    ) -> Option<V> {
        let slot = id.slot();
        let value = *self.get(id)?;
        let first = slot * KEYS as u32;
        self.index.remove(hashes[0], first);
        if KEYS == 2 && self.key_at(first) != self.key_at(first + 1) {
            self.index.remove(hashes[1], first + 1);
        }
        self.entries[slot as usize].keys[0] = [self.vacant, 0, 0, VACANT];
        self.vacant = slot;
        self.len -= 1;
        let object = self.object(id);
        objects.invalidate(object);
        // The sweep passes over objects that can't die.
        objects.touch(object, Time(0), NEVER);
        Some(value)
    }

    /// The object that stands for the session.
    #[inline]
    pub fn object(&self, id: SessionId) -> ObjectId {
        self.objects.at(id.slot() as usize)
    }

    #[inline]
    fn entry(&self, id: SessionId) -> Option<&Entry<V, KEYS>> {
        self.entries
            .get(id.slot() as usize)
            .filter(|entry| entry.keys[0][3] != VACANT)
    }

    /// What the function keeps of it. A removed session's slot gives `None`.
    #[inline]
    pub fn get(&self, id: SessionId) -> Option<&V> {
        self.entry(id).map(|entry| &entry.value)
    }

    /// What the function keeps of it, writable.
    #[inline]
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut V> {
        self.entries
            .get_mut(id.slot() as usize)
            .filter(|entry| entry.keys[0][3] != VACANT)
            .map(|entry| &mut entry.value)
    }

    /// The key of its packets of the other way.
    #[inline]
    pub fn opposite(&self, id: SessionId, way: Way) -> Option<K> {
        self.entry(id)?;
        let other = KEYS - 1 - way as usize % KEYS;
        let cell = id.slot() * KEYS as u32 + other as u32;
        Some(K::unpack(&self.key_at(cell)))
    }

    /// Brings near what looking for this key needs first.
    #[inline]
    pub fn prefetch(&self, key: &Hashed) {
        self.index.prefetch(key.hash);
    }

    /// Whether a session, dead ones included, seems to have the key with this hash.
    #[inline]
    pub fn may_have(&self, hash: u64) -> bool {
        self.index.may_have(hash)
    }

    /// Its keys.
    #[inline]
    pub fn keys(&self, id: SessionId) -> Option<[K; KEYS]> {
        self.entry(id)?;
        let first = id.slot() * KEYS as u32;
        Some(core::array::from_fn(|key| {
            K::unpack(&self.key_at(first + key as u32))
        }))
    }

    /// Sessions in slots, dead ones that the sweep has not met included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The live sessions of the slots from `cursor` on that are looked at in one go, with where each slot is.
    pub fn iter_from<'a>(
        &'a self,
        cursor: usize,
        objects: &'a Objects,
        now: Time,
    ) -> impl Iterator<Item = (usize, SessionId, [K; KEYS], &'a V)> {
        let end = self.entries.len().min(cursor.saturating_add(LISTED));
        (cursor..end).filter_map(move |slot| {
            let id = SessionId::new(slot as u32);
            let (keys, value) = (self.keys(id)?, self.get(id)?);
            objects
                .is_alive(self.object(id), now)
                .then_some((slot, id, keys, value))
        })
    }

    /// Where to go on after what [`SessionTable::iter_from`] gives; `None` at the end.
    pub fn after(&self, cursor: usize) -> Option<usize> {
        let next = cursor.saturating_add(LISTED);
        (next < self.entries.len()).then_some(next)
    }
}
