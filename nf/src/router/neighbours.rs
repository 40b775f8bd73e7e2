//! The neighbours of all interfaces: their link-layer addresses, and the packets that wait for one.
//!
//! A fixed number of slots, allocated once, found by a keyed hash. Each slot is an object of the worker: when its
//! address changes or it is given up, every flow record that used it runs the stages again.
//!
//! Workers that run the router together each know all neighbours: what tells of one comes to all of them. So the table is
//! of the same size on each, and an answer to what another worker asked counts like one to a question of its own.
//!
//! Nobody can make the table grow, nor push a configured neighbour out. What only announced itself never displaces
//! anyone; what the router has to find displaces first those that nothing was ever sent to.

use core::net::IpAddr;
use core::time::Duration;
use std::hash::BuildHasher;

use arrayvec::ArrayVec;
use chainplane_dataplane::crew::Share;
use chainplane_dataplane::function::Interface;
use chainplane_dataplane::objects::{ObjectId, ObjectRange, Objects};
use chainplane_dataplane::packet::{Mac, Packet};
use chainplane_dataplane::time::Time;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use super::tables::StaticNeighbour;

/// Neighbours beside those in the configuration.
pub const CAPACITY: usize = 4096;
/// Neighbours being looked for at the same time, by all workers.
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
    /// An answer to our question, or to that of another worker who is the same router: packets get there and back.
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
    /// Neighbours looked for at most.
    most_pending: usize,
    /// Others ask, too.
    in_crew: bool,
    waiting: usize,
    eviction_hand: usize,
    /// Moves on with every change of what [`Neighbours::ready`] says.
    version: u64,
    sweep: Sweep,
}

/// Finds due slots without looking at all of them each time.
struct Sweep {
    hand: usize,
    /// Slots from here on were never used.
    end: usize,
    /// No deadline is before this one.
    next_due: Time,
    /// The earliest deadline seen in the pass under way.
    earliest: Time,
}

impl Neighbours {
    pub fn new(fixed: &[StaticNeighbour], seed: u64, objects: &mut Objects, share: Share) -> Self {
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
            most_pending: share.part_of(MAX_PENDING),
            in_crew: share.of() > 1,
            waiting: 0,
            eviction_hand: 0,
            version: 0,
            sweep: Sweep {
                hand: 0,
                end: 0,
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

    /// While this stays the same, so do the answers of [`Neighbours::ready`], and what was ready was marked as wanted.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version
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
        // The lowest that was never used, or one given up: what is in use stays at the front.
        let slot = self.free.pop()?;
        self.sweep.end = self.sweep.end.max(slot as usize + 1);
        self.version += 1;
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
        self.version += 1;
        let is_pending = |state: &State| usize::from(matches!(state, State::Pending { .. }));
        let old = core::mem::replace(&mut self.entry(slot).state, state);
        self.pending = self.pending + is_pending(&state) - is_pending(&old);
    }

    /// Starts to look for a neighbour that is not in the table. `None` when too many are being looked for.
    pub fn want(&mut self, place: Place, objects: &mut Objects, now: Time) -> Option<Slot> {
        if self.pending >= self.most_pending {
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
            None if evidence == Evidence::Announced || self.is_others(evidence) => {
                match self.take(place) {
                    Some(slot) => slot,
                    None => return Learnt::Full,
                }
            }
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

    /// Whether it may be the answer to a question of another worker's, of which this one does not know.
    pub fn is_others(&self, evidence: Evidence) -> bool {
        self.in_crew && evidence == Evidence::Answer
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
            if self.sweep.hand == self.sweep.end {
                self.sweep.hand = 0;
                self.sweep.next_due = self.sweep.earliest.max(now + SWEEP_INTERVAL);
                self.sweep.earliest = NEVER;
                return None;
            }
            let entry = &self.entries[self.sweep.hand];
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
        self.version += 1;
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
        self.version += 1;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn place(host: u16) -> Place {
        let [high, low] = host.to_be_bytes();
        Place {
            interface: Interface(0),
            address: IpAddr::from([10, 0, high, low]),
        }
    }

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn table(objects: &mut Objects, share: Share) -> Neighbours {
        let fixed = StaticNeighbour {
            interface: Interface(0),
            address: place(1).address,
            mac: mac(1),
        };
        Neighbours::new(&[fixed], 7, objects, share)
    }

    #[derive(Clone, Debug)]
    enum Op {
        Want(u16),
        Answer(u16, u8),
        Announce(u16, u8),
        Overhear(u16, u8),
        Remove(u16),
    }

    fn op() -> impl Strategy<Value = Op> {
        let host = 0u16..12;
        prop_oneof![
            host.clone().prop_map(Op::Want),
            (host.clone(), 0u8..3).prop_map(|(host, mac)| Op::Answer(host, mac)),
            (host.clone(), 0u8..3).prop_map(|(host, mac)| Op::Announce(host, mac)),
            (host.clone(), 0u8..3).prop_map(|(host, mac)| Op::Overhear(host, mac)),
            host.prop_map(Op::Remove),
        ]
    }

    proptest! {
        /// A naive model: a map from place to what is known, `None` while it is looked for.
        #[test]
        fn behaves_like_a_map(ops in proptest::collection::vec(op(), 1..200)) {
            let mut objects = Objects::default();
            let mut table = table(&mut objects, Share::WHOLE);
            let mut model: HashMap<u16, Option<Mac>> = HashMap::from([(1, Some(mac(1)))]);
            let now = Time(1 << 40);
            for op in ops {
                match op {
                    Op::Want(host) => {
                        if table.find(&place(host)).is_none() {
                            prop_assert!(table.want(place(host), &mut objects, now).is_some());
                            prop_assert!(model.insert(host, None).is_none());
                        }
                    }
                    Op::Answer(host, last) | Op::Overhear(host, last) | Op::Announce(host, last) => {
                        let evidence = match op {
                            Op::Answer(..) => Evidence::Answer,
                            Op::Overhear(..) => Evidence::Overheard,
                            _ => Evidence::Announced,
                        };
                        let before = table.find(&place(host)).map(|slot| objects.epoch(table.object(slot)));
                        let learnt = table.learn(place(host), mac(last), evidence, &mut objects, now);
                        let expected = match (model.get(&host), evidence) {
                            _ if host == 1 => 'i',
                            (None, Evidence::Announced) | (Some(None), _) => 'n',
                            (None, _) => 'i',
                            (Some(Some(old)), _) => if *old == mac(last) { 's' } else { 'c' },
                        };
                        let got = match learnt {
                            Learnt::Ignored => 'i',
                            Learnt::New(_) => 'n',
                            Learnt::Changed(_) => 'c',
                            Learnt::Same(_) => 's',
                            Learnt::Full => 'f',
                        };
                        prop_assert_eq!(got, expected);
                        if got != 'i' {
                            model.insert(host, Some(mac(last)));
                        }
                        if let (Learnt::Changed(slot), Some(before)) = (learnt, before) {
                            prop_assert!(objects.epoch(table.object(slot)) != before, "records go stale");
                        }
                    }
                    Op::Remove(host) => {
                        if let Some(slot) = table.find(&place(host)).filter(|_| host != 1) {
                            table.remove(slot, &mut objects);
                            model.remove(&host);
                        }
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                for host in 0..12 {
                    let ready = table.ready(&place(host)).map(|(_, mac)| mac);
                    prop_assert_eq!(ready, model.get(&host).copied().flatten());
                }
            }
        }
    }

    #[test]
    fn a_flood_neither_grows_the_table_nor_displaces_anyone() {
        let mut objects = Objects::default();
        let mut table = table(&mut objects, Share::WHOLE);
        let now = Time(1 << 40);
        table.want(place(2), &mut objects, now).unwrap();
        table.learn(place(2), mac(2), Evidence::Answer, &mut objects, now);
        let mut full = 0;
        for host in 10..10_000 {
            let learnt = table.learn(place(host), mac(3), Evidence::Announced, &mut objects, now);
            full += usize::from(learnt == Learnt::Full);
        }
        assert_eq!((table.len(), full), (CAPACITY + 1, 9990 - (CAPACITY - 1)));
        // What is looked for takes the place of those that nothing was sent to, up to a bound.
        let wanted = (20_000..30_000)
            .filter(|host| table.want(place(*host), &mut objects, now).is_some())
            .count();
        assert_eq!((wanted, table.len()), (MAX_PENDING, CAPACITY + 1));
        assert!(table.ready(&place(1)).is_some() && table.ready(&place(2)).is_some());
    }

    #[test]
    fn members_of_a_crew_learn_from_answers_to_others() {
        let mut objects = Objects::default();
        let (now, unasked) = (Time(1 << 40), place(2));
        let mut alone = table(&mut objects, Share::WHOLE);
        let learnt = alone.learn(unasked, mac(2), Evidence::Answer, &mut objects, now);
        assert_eq!(learnt, Learnt::Ignored);
        let mut member = table(&mut objects, Share::new(1, 2));
        let learnt = member.learn(unasked, mac(2), Evidence::Overheard, &mut objects, now);
        assert_eq!(learnt, Learnt::Ignored);
        member.learn(unasked, mac(2), Evidence::Answer, &mut objects, now);
        assert_eq!(member.ready(&unasked).map(|(_, mac)| mac), Some(mac(2)));
        // It is as sure of it as if it had asked itself.
        let asked_again = |now| member.due(now, &mut 1000).is_some();
        let times = [FIRST_REFRESH, REFRESH].map(|after| now + after);
        assert_eq!(times.map(asked_again), [false, true]);
        // Neighbours that are looked for are shared out; those that are known are not.
        let mut member = table(&mut objects, Share::new(1, 2));
        let mut wanted = |host| member.want(place(host), &mut objects, now).is_some();
        assert_eq!(
            (10..1000).filter(|host| wanted(*host)).count(),
            MAX_PENDING / 2
        );
        assert_eq!(member.entries.len(), CAPACITY + 1);
    }

    #[test]
    fn every_deadline_is_met_in_bounded_pieces() {
        let mut objects = Objects::default();
        let mut table = table(&mut objects, Share::WHOLE);
        let mut now = Time(1 << 40);
        for host in 100..400 {
            table.want(place(host), &mut objects, now).unwrap();
        }
        assert_eq!(table.due(now, &mut 1000), None);
        now = now + RETRY;
        let mut seen = Vec::new();
        for _ in 0..10 {
            let mut budget = 64;
            while let Some(slot) = table.due(now, &mut budget) {
                assert!(table.ask_again(slot, now));
                seen.push(slot);
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 300);
    }
}
