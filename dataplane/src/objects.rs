//! What flow records depend on: sessions, neighbours, backends, whole tables, each an *object* with an epoch.
//!
//! A record names the objects it used and the epochs it saw. Whoever changes what an object stands for moves its
//! epoch on, and every record that used it runs the stages again. A session is an object that also knows when it
//! was last seen, so that a replayed packet keeps it alive without running the function that owns it.

use crate::time::Time;

/// An object of a worker's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId(pub(crate) u32);

/// A run of objects that one function reserved when it was built.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRange {
    first: u32,
    count: u32,
}

impl ObjectRange {
    /// The object at `index` of the run.
    ///
    /// # Panics
    /// When `index` is outside of the run, which is a mistake of the function that reserved it.
    #[inline]
    pub fn at(&self, index: usize) -> ObjectId {
        assert!(
            index < self.count as usize,
            "object {index} of a run of {}",
            self.count
        );
        ObjectId(self.first + index as u32)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    epoch: u32,
    last_seen: u32,
    timeout: u32,
}

/// A worker's objects.
#[derive(Debug, Default)]
pub struct Objects {
    slots: Vec<Slot>,
}

/// A timeout for objects that never expire by themselves.
pub(crate) const NEVER: u32 = u32::MAX;

impl Objects {
    /// Reserves `count` objects; only while a worker is built.
    pub fn reserve(&mut self, count: usize) -> ObjectRange {
        let first = self.slots.len() as u32;
        self.slots.resize(
            self.slots.len() + count,
            Slot {
                epoch: 0,
                last_seen: 0,
                timeout: NEVER,
            },
        );
        ObjectRange {
            first,
            count: count as u32,
        }
    }

    /// The object's epoch.
    #[inline]
    pub fn epoch(&self, id: ObjectId) -> u32 {
        self.slots[id.0 as usize].epoch
    }

    /// Moves the epoch on: records that used the object are no longer valid.
    #[inline]
    pub fn invalidate(&mut self, id: ObjectId) {
        let slot = &mut self.slots[id.0 as usize];
        slot.epoch = slot.epoch.wrapping_add(1);
    }

    /// Notes that the object was seen, and how long it lives when it is not seen again (in [`Time::ticks`]).
    #[inline]
    pub fn touch(&mut self, id: ObjectId, now: Time, timeout: u32) {
        let slot = &mut self.slots[id.0 as usize];
        slot.last_seen = now.ticks();
        slot.timeout = timeout;
    }

    /// Whether the object's timeout has not passed.
    #[inline]
    pub fn is_alive(&self, id: ObjectId, now: Time) -> bool {
        let slot = &self.slots[id.0 as usize];
        slot.timeout == NEVER || now.ticks().wrapping_sub(slot.last_seen) <= slot.timeout
    }

    /// Whether a record that saw `epoch` may still rely on the object.
    #[inline]
    pub(crate) fn holds(&self, id: ObjectId, epoch: u32, now: Time) -> bool {
        self.slots[id.0 as usize].epoch == epoch && self.is_alive(id, now)
    }

    /// What [`Objects::touch`] does, the timeout left as it is.
    #[inline]
    pub(crate) fn refresh(&mut self, id: ObjectId, now: Time) {
        self.slots[id.0 as usize].last_seen = now.ticks();
    }

    /// Ticks since the object was last seen.
    #[inline]
    pub fn idle_ticks(&self, id: ObjectId, now: Time) -> u32 {
        now.ticks()
            .wrapping_sub(self.slots[id.0 as usize].last_seen)
    }
}
