//! What flow records depend on: sessions, neighbours, backends, whole tables, each an *object* with an epoch.
//!
//! A record names the objects it used and the epochs it saw. Whoever changes what an object stands for moves its
//! epoch on, and every record that used it runs the stages again. A session is an object that also knows when it
//! was last seen, so that a replayed packet keeps it alive without running the function that owns it.
//!
//! A replayed packet must not look at every object that its record used. So objects know who relies on them: a session
//! its bundle of records, which go when it does; anything else that templates of records rely on it, which are looked at
//! again after any such object has changed (`generation`). When a session was last seen is what it says itself, or its
//! records, whichever is later. For this the flow table is here.

use crate::flow::FlowTable;
use crate::huge::HugeVec;
use crate::prefetch::prefetch;
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

/// Who relies on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tie {
    /// Nobody, or records that look at it for each packet.
    None,
    /// Templates of records.
    Templates,
    /// The records of this bundle.
    Bundle(u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub epoch: u32,
    pub last_seen: u32,
    pub timeout: u32,
    /// A [`Tie`] in four bytes.
    tie: u32,
}

impl Slot {
    const FRESH: Self = Self {
        epoch: 0,
        last_seen: 0,
        timeout: NEVER,
        tie: 0,
    };

    #[inline]
    pub fn tie(&self) -> Tie {
        match self.tie {
            0 => Tie::None,
            u32::MAX => Tie::Templates,
            bundle => Tie::Bundle(bundle - 1),
        }
    }

    #[inline]
    pub fn set_tie(&mut self, tie: Tie) {
        self.tie = match tie {
            Tie::None => 0,
            Tie::Templates => u32::MAX,
            Tie::Bundle(bundle) => bundle + 1,
        };
    }

    /// Whether a record that saw `epoch` may still rely on the object, as far as it knows itself.
    #[inline]
    pub fn holds(&self, epoch: u32, now: Time) -> bool {
        self.epoch == epoch && !self.looks_dead(now)
    }

    /// Whether its timeout has passed, as far as it knows itself; [`Objects::settle`] knows better.
    #[inline]
    pub fn looks_dead(&self, now: Time) -> bool {
        // No more ticks can have passed than [`NEVER`].
        now.ticks().wrapping_sub(self.last_seen) > self.timeout
    }
}

/// A worker's objects, and the flow records that rely on them.
pub struct Objects {
    pub(crate) slots: HugeVec<Slot>,
    /// Moves on when an object changes that templates rely on.
    pub(crate) generation: u64,
    pub(crate) flows: Option<FlowTable>,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            slots: HugeVec::with_capacity(0).expect("a page"),
            generation: 0,
            flows: None,
        }
    }
}

/// A timeout for objects that never expire by themselves.
pub(crate) const NEVER: u32 = u32::MAX;

impl Objects {
    /// Objects of a run that a cache line holds.
    pub(crate) const TO_A_LINE: usize = 64 / size_of::<Slot>();

    /// Reserves `count` objects; only while a worker is built.
    ///
    /// # Panics
    /// When the process has no address space left.
    pub fn reserve(&mut self, count: usize) -> ObjectRange {
        let first = self.slots.len() as u32;
        self.slots.grow(count).expect("address space for objects");
        for _ in 0..count {
            // There is room for all of them now.
            let _ = self.slots.push(Slot::FRESH);
        }
        ObjectRange {
            first,
            count: count as u32,
        }
    }

    /// Takes a flow table that was made for these objects, in the place of another one, of which what it knows of
    /// sessions is kept.
    pub(crate) fn adopt(&mut self, flows: Option<FlowTable>) {
        for slot in self.slots.iter_mut() {
            if let (Tie::Bundle(bundle), Some(flows)) = (slot.tie(), &self.flows) {
                slot.last_seen = flows.last_used(bundle).fold(slot.last_seen, later);
            }
            slot.set_tie(Tie::None);
        }
        self.flows = flows;
    }

    /// Forgets a flow record.
    #[inline(never)]
    pub(crate) fn forget(&mut self, record: u32) {
        if let Some(flows) = &mut self.flows {
            flows.remove(record);
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
        match slot.tie() {
            Tie::None => {}
            Tie::Templates => {
                slot.set_tie(Tie::None);
                self.generation += 1;
            }
            Tie::Bundle(bundle) => {
                slot.set_tie(Tie::None);
                if let Some(flows) = &mut self.flows {
                    flows.end_session(bundle);
                }
            }
        }
    }

    /// Notes that the object was seen, and how long it lives when it is not seen again (in [`Time::ticks`]).
    #[inline]
    pub fn touch(&mut self, id: ObjectId, now: Time, timeout: u32) {
        let slot = &mut self.slots[id.0 as usize];
        slot.last_seen = now.ticks();
        let sooner = timeout < slot.timeout;
        slot.timeout = timeout;
        if let (true, Tie::Bundle(bundle), Some(flows)) = (sooner, slot.tie(), &mut self.flows) {
            flows.limit(bundle, timeout);
        }
    }

    /// Whether the object's timeout has not passed.
    #[inline]
    pub fn is_alive(&self, id: ObjectId, now: Time) -> bool {
        let slot = &self.slots[id.0 as usize];
        !slot.looks_dead(now) || self.idle_ticks(id, now) <= slot.timeout
    }

    /// The objects of a piece of a run.
    #[inline]
    pub(crate) fn run(&self, of: ObjectRange, piece: core::ops::Range<usize>) -> &[Slot] {
        let of = &self.slots[of.first as usize..][..of.count as usize];
        &of[piece]
    }

    /// Brings an object near.
    #[inline]
    pub fn prefetch(&self, id: ObjectId) {
        prefetch(&self.slots[id.0 as usize]);
    }

    /// Brings near what [`Objects::settle`] reads of these objects, which are near.
    #[inline]
    pub(crate) fn approach(&self, objects: impl Iterator<Item = ObjectId> + Clone) {
        let Some(flows) = &self.flows else { return };
        let bundles = objects.filter_map(|id| match self.slots[id.0 as usize].tie() {
            Tie::Bundle(bundle) => Some(bundle),
            _ => None,
        });
        let again = bundles.clone();
        bundles.for_each(|bundle| flows.prefetch_bundle(bundle));
        again.for_each(|bundle| flows.prefetch_records(bundle));
    }

    /// Brings near what [`Objects::invalidate`] reads of an object, after [`Objects::settle`] has read of it.
    #[inline]
    pub(crate) fn approach_end(&self, id: ObjectId) {
        if let (Tie::Bundle(bundle), Some(flows)) = (self.slots[id.0 as usize].tie(), &self.flows) {
            flows.prefetch_buckets(bundle);
        }
    }

    /// As [`Objects::is_alive`], and what its records knew of when it was last seen the object knows itself then. Whoever
    /// looks at an object less often than its clock goes round does it this way.
    #[inline]
    pub fn settle(&mut self, id: ObjectId, now: Time) -> bool {
        if !self.slots[id.0 as usize].looks_dead(now) {
            return true;
        }
        let idle = self.idle_ticks(id, now);
        let slot = &mut self.slots[id.0 as usize];
        slot.last_seen = now.ticks().wrapping_sub(idle);
        idle <= slot.timeout
    }

    /// Ticks since the object was last seen.
    #[inline]
    pub fn idle_ticks(&self, id: ObjectId, now: Time) -> u32 {
        let slot = &self.slots[id.0 as usize];
        let idle = |seen: u32| now.ticks().wrapping_sub(seen);
        match (slot.tie(), &self.flows) {
            (Tie::Bundle(bundle), Some(flows)) => flows
                .last_used(bundle)
                .map(idle)
                .fold(idle(slot.last_seen), u32::min),
            _ => idle(slot.last_seen),
        }
    }
}

/// The later of two moments that are less than half a turn of the clock apart.
fn later(one: u32, other: u32) -> u32 {
    if other.wrapping_sub(one).cast_signed() > 0 {
        other
    } else {
        one
    }
}
