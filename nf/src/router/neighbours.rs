//! The neighbours of all interfaces: their link-layer addresses, and the packets that wait for one.
//!
//! A fixed number of slots, allocated once, found by a keyed hash. Each slot is an object of the worker: when its
//! address changes or it is given up, every flow record that used it runs the stages again.
//!
//! Nobody can make the table grow, nor push a configured neighbour out. What only announced itself never displaces
//! anyone; what the router has to find displaces first those that nothing was ever sent to.

use core::net::IpAddr;
use core::time::Duration;
use std::hash::BuildHasher;

use arrayvec::ArrayVec;
use chainplane_dataplane::function::Interface;
use chainplane_dataplane::objects::{ObjectId, ObjectRange, Objects};
use chainplane_dataplane::packet::{Mac, Packet};
use chainplane_dataplane::time::Time;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use super::tables::StaticNeighbour;

/// Neighbours beside those in the configuration.
pub const CAPACITY: usize = 4096;
/// Neighbours being looked for at the same time.
pub const MAX_PENDING: usize = 512;
/// Packets that wait for one neighbour.
pub const MAX_WAITING: usize = 3;
/// From one question to the next (RFC 4861, section 10: `RETRANS_TIMER`).
pub const RETRY: Duration = Duration::from_secs(1);
/// Questions before a neighbour is given up (`MAX_MULTICAST_SOLICIT`, `MAX_UNICAST_SOLICIT`).
pub const MAX_TRIES: u8 = 3;
/// After this long a confirmed neighbour is asked again (`REACHABLE_TIME`).
pub const REFRESH: Duration = Duration::from_secs(30);
/// After this long one that only announced itself is asked (`DELAY_FIRST_PROBE_TIME`).
pub const FIRST_REFRESH: Duration = Duration::from_secs(5);
/// Slots looked at for one to reuse.
const EVICTION_SCAN: usize = 64;
/// From one look at all deadlines to the next, at least.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);

const NONE: u32 = u32::MAX;
const NEVER: Time = Time(u64::MAX);

/// A neighbour's slot.
pub type Slot = u32;

/// A packet that waits for its neighbour's address.
#[derive(Debug)]
pub struct Waiting {
    pub packet: Packet,
    /// It is forwarded, not the router's own: its TTL is still to be lowered, and its sender told if it fails.
    pub forwarded: bool,
}

/// Packets that wait for the same neighbour, in order.
pub type Queue = ArrayVec<Waiting, MAX_WAITING>;

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The slot is free.
    Vacant,
    /// Asked for this many times, no answer yet.
    Pending { tries: u8 },
    /// Known; asked this many times whether that still holds.
    Known { mac: Mac, tries: u8 },
    /// From the configuration.
    Static { mac: Mac },
}

/// Where a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub interface: Interface,
    pub address: IpAddr,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    state: State,
    /// When it is next to be asked.
    deadline: Time,
    /// Something was sent to it.
    wanted: bool,
    /// The next slot with the same hash.
    next: u32,
    queue: Queue,
}

/// What came of a message about a neighbour's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// Nothing: it is not known, or fixed.
    Ignored,
    /// No room for it.
    Full,
    /// A new address.
    New(Slot),
    /// Another address than before.
    Changed(Slot),
    /// The address that was known.
    Same(Slot),
}

/// How sure a message makes us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// An answer to our question: packets get there and back.
    Answer,
    /// A word of its own, to us: it may be new.
    Announced,
    /// A word to anyone: only of interest where it is known already.
    Overheard,
}

/// The table.
pub struct Neighbours {
    entries: Vec<Entry>,
    heads: Vec<u32>,
    free: Vec<u32>,
    objects: ObjectRange,
    hasher: SeedableRandomState,
    pending: usize,
    waiting: usize,
    eviction_hand: usize,
    sweep: Sweep,
}

/// Finds due slots without looking at all of them each time.
struct Sweep {
    hand: usize,
    /// No deadline is before this one.
    next_due: Time,
    /// The earliest deadline seen in the pass under way.
    earliest: Time,
}

impl Neighbours {
    pub fn new(fixed: &[StaticNeighbour], seed: u64, objects: &mut Objects) -> Self {
        let capacity = fixed.len() + CAPACITY;
        let vacant = || Entry {
            place: Place {
                interface: Interface(0),
                address: IpAddr::from([0, 0, 0, 0]),
            },
            state: State::Vacant,
            deadline: NEVER,
            wanted: false,
            next: NONE,
            queue: Queue::new(),
        };
        let mut table = Self {
            entries: (0..capacity).map(|_| vacant()).collect(),
            heads: vec![NONE; (capacity * 2).next_power_of_two()],
            free: (0..capacity as u32).rev().collect(),
            objects: objects.reserve(capacity),
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            pending: 0,
            waiting: 0,
            eviction_hand: 0,
            sweep: Sweep {
                hand: 0,
                next_due: NEVER,
                earliest: NEVER,
            },
        };
        for neighbour in fixed {
            let place = Place {
                interface: neighbour.interface,
                address: neighbour.address,
            };
            if let Some(slot) = table.take(place) {
                table.entry(slot).state = State::Static { mac: neighbour.mac };
            }
        }
        table
    }

    fn entry(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[slot as usize]
    }

    fn head(&self, place: &Place) -> usize {
        self.hasher.hash_one(place) as usize & (self.heads.len() - 1)
    }

    /// The slot of a neighbour.
    pub fn find(&self, place: &Place) -> Option<Slot> {
        let mut slot = self.heads[self.head(place)];
        while slot != NONE {
            let entry = &self.entries[slot as usize];
            if entry.place == *place {
                return Some(slot);
            }
            slot = entry.next;
        }
        None
    }

    /// The link-layer address to send to, if it is known and nothing waits that has to go first.
    pub fn ready(&mut self, place: &Place) -> Option<(Slot, Mac)> {
        let slot = self.find(place)?;
        let entry = self.entry(slot);
        entry.wanted = true;
        match entry.state {
            State::Known { mac, .. } | State::Static { mac } if entry.queue.is_empty() => {
                Some((slot, mac))
            }
            _ => None,
        }
    }

    /// The object that stands for the neighbour.
    pub fn object(&self, slot: Slot) -> ObjectId {
        self.objects.at(slot as usize)
    }

    pub fn state(&self, slot: Slot) -> State {
        self.entries[slot as usize].state
    }

    pub fn place(&self, slot: Slot) -> Place {
        self.entries[slot as usize].place
    }

    fn take(&mut self, place: Place) -> Option<Slot> {
        let slot = self.free.pop()?;
        let head = self.head(&place);
        let next = core::mem::replace(&mut self.heads[head], slot);
        let entry = self.entry(slot);
        entry.place = place;
        entry.next = next;
        entry.wanted = false;
        entry.deadline = NEVER;
        Some(slot)
    }

    /// Gives a slot up and hands back what waited in it.
    pub fn remove(&mut self, slot: Slot, objects: &mut Objects) -> Queue {
        let (place, next) = {
            let entry = &self.entries[slot as usize];
            if entry.state == State::Vacant {
                return Queue::new();
            }
            (entry.place, entry.next)
        };
        let head = self.head(&place);
        if self.heads[head] == slot {
            self.heads[head] = next;
        } else {
            let mut at = self.heads[head];
            while self.entries[at as usize].next != slot {
                at = self.entries[at as usize].next;
            }
            self.entry(at).next = next;
        }
        self.set(slot, State::Vacant);
        self.free.push(slot);
        objects.invalidate(self.object(slot));
        self.take_waiting(slot)
    }

    fn set(&mut self, slot: Slot, state: State) {
        let is_pending = |state: &State| usize::from(matches!(state, State::Pending { .. }));
        let old = core::mem::replace(&mut self.entry(slot).state, state);
        self.pending = self.pending + is_pending(&state) - is_pending(&old);
    }

    /// Starts to look for a neighbour that is not in the table. `None` when too many are being looked for.
    pub fn want(&mut self, place: Place, objects: &mut Objects, now: Time) -> Option<Slot> {
        if self.pending >= MAX_PENDING {
            return None;
        }
        if self.free.is_empty() {
            self.evict(objects);
        }
        let slot = self.take(place)?;
        self.entry(slot).wanted = true;
        self.set(slot, State::Pending { tries: 1 });
        self.schedule(slot, now + RETRY);
        Some(slot)
    }

    /// Makes room, at the cost of a neighbour that nothing was sent to if there is one near.
    fn evict(&mut self, objects: &mut Objects) {
        let mut victim = None;
        for _ in 0..EVICTION_SCAN {
            self.eviction_hand = (self.eviction_hand + 1) % self.entries.len();
            let entry = &self.entries[self.eviction_hand];
            if !matches!(entry.state, State::Known { .. }) || !entry.queue.is_empty() {
                continue;
            }
            if !entry.wanted {
                victim = Some(self.eviction_hand);
                break;
            }
            victim = victim.or(Some(self.eviction_hand));
        }
        if let Some(victim) = victim {
            self.remove(victim as Slot, objects);
        }
    }

    /// Takes note that a neighbour has this link-layer address.
    pub fn learn(
        &mut self,
        place: Place,
        mac: Mac,
        evidence: Evidence,
        objects: &mut Objects,
        now: Time,
    ) -> Learnt {
        let slot = match self.find(&place) {
            Some(slot) => slot,
            None if evidence == Evidence::Announced => match self.take(place) {
                Some(slot) => slot,
                None => return Learnt::Full,
            },
            None => return Learnt::Ignored,
        };
        let learnt = match self.state(slot) {
            State::Static { .. } => return Learnt::Ignored,
            State::Known { mac: old, .. } if old == mac => Learnt::Same(slot),
            State::Known { .. } => Learnt::Changed(slot),
            State::Vacant | State::Pending { .. } => Learnt::New(slot),
        };
        if evidence == Evidence::Answer {
            self.set(slot, State::Known { mac, tries: 0 });
            self.schedule(slot, now + REFRESH);
        } else if !matches!(learnt, Learnt::Same(_)) {
            self.set(slot, State::Known { mac, tries: 0 });
            self.schedule(slot, now + FIRST_REFRESH);
        }
        if matches!(learnt, Learnt::Changed(_)) {
            objects.invalidate(self.object(slot));
        }
        learnt
    }

    /// Has a known neighbour asked soon whether it is still there.
    pub fn doubt(&mut self, slot: Slot, now: Time) {
        if matches!(self.state(slot), State::Known { tries: 0, .. }) {
            let soon = self.entries[slot as usize]
                .deadline
                .min(now + FIRST_REFRESH);
            self.schedule(slot, soon);
        }
    }

    /// Notes one more question; false when there were enough.
    pub fn ask_again(&mut self, slot: Slot, now: Time) -> bool {
        let next = match self.state(slot) {
            State::Pending { tries } if tries < MAX_TRIES => State::Pending { tries: tries + 1 },
            State::Known { mac, tries } if tries < MAX_TRIES => State::Known {
                mac,
                tries: tries + 1,
            },
            _ => return false,
        };
        self.set(slot, next);
        self.schedule(slot, now + RETRY);
        true
    }

    /// Sets when a slot is due.
    pub fn schedule(&mut self, slot: Slot, at: Time) {
        self.entry(slot).deadline = at;
        self.sweep.earliest = self.sweep.earliest.min(at);
        self.sweep.next_due = self.sweep.next_due.min(at);
    }

    /// The next slot whose deadline has come, to be scheduled anew or removed by the caller. Each slot looked at
    /// costs one of `budget`.
    pub fn due(&mut self, now: Time, budget: &mut usize) -> Option<Slot> {
        if now < self.sweep.next_due {
            return None;
        }
        while *budget > 0 {
            let Some(entry) = self.entries.get(self.sweep.hand) else {
                self.sweep = Sweep {
                    hand: 0,
                    next_due: self.sweep.earliest.max(now + SWEEP_INTERVAL),
                    earliest: NEVER,
                };
                return None;
            };
            *budget -= 1;
            self.sweep.hand += 1;
            if entry.deadline <= now && entry.state != State::Vacant {
                return Some(self.sweep.hand as Slot - 1);
            }
            if entry.state != State::Vacant {
                self.sweep.earliest = self.sweep.earliest.min(entry.deadline);
            }
        }
        None
    }

    /// Lets a packet wait; hands back the oldest that did if there is no room for both.
    pub fn wait(&mut self, slot: Slot, packet: Waiting) -> Option<Waiting> {
        let queue = &mut self.entry(slot).queue;
        let oldest = if queue.is_full() {
            queue.pop_at(0)
        } else {
            None
        };
        queue.push(packet);
        self.waiting += usize::from(oldest.is_none());
        oldest
    }

    /// Takes what waits for a neighbour.
    pub fn take_waiting(&mut self, slot: Slot) -> Queue {
        let queue = core::mem::take(&mut self.entry(slot).queue);
        self.waiting -= queue.len();
        queue
    }

    /// Whether packets wait for it.
    pub fn has_waiting(&self, slot: Slot) -> bool {
        !self.entries[slot as usize].queue.is_empty()
    }

    /// Packets that wait for any neighbour.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Neighbours in the table.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}
