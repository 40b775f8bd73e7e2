//! The contract between a network function and the worker that runs it.
//!
//! A function has *interfaces*. An inline function has two, [`INSIDE`] and [`OUTSIDE`]; a junction has as many as
//! its configuration names. The worker hands it one packet at a time together with the interface it came in by,
//! and the function answers with a [`Verdict`]. Leaving by the interface it came in by is what a hairpin or an
//! ICMP error does.
//!
//! A function that wants its decision replayed for the packets that follow says so with [`Context::replayable`],
//! packet by packet. By saying it, it promises that for a packet with the same flow key, that meets the recorded
//! guards, while the objects it named are unchanged, it would
//! * do nothing but rewrite IP addresses, transport ports (or echo identifiers) to the same values, and what it
//!   rewrote through the context (MAC addresses, TTL);
//! * count only through [`Context::count`] and [`Context::count_slot`];
//! * touch the same sessions, and give the same verdict.
//!
//! Where no function on a port's way keeps state, its packets have no flow records: the functions see them a batch at a
//! time ([`Function::look_ahead`], [`Function::pass`]). What a function gives for a packet is the same either way.

use core::net::IpAddr;

use crate::counters::{Counters, Info};
use crate::crew::{Claim, Share};
use crate::flow::{Kind, Recorder};
use crate::objects::{ObjectId, Objects};
use crate::packet::{BURST, Mac, MacPair, Packet, Pool, protocol};
use crate::time::Time;

/// One of a function's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface(pub u16);

/// An inline function's left side in the chain.
pub const INSIDE: Interface = Interface(0);
/// An inline function's right side in the chain.
pub const OUTSIDE: Interface = Interface(1);

impl Interface {
    /// An inline function's other side.
    #[must_use]
    pub const fn opposite(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// Why a function drops a packet: an index into the reasons that its [`Descriptor`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropReason(pub u8);

/// What becomes of a packet. There is no other way for it to leave a function.
#[derive(Debug)]
pub enum Verdict {
    /// It leaves by this interface.
    Leave(Interface, Packet),
    /// It is dropped and counted.
    Drop(Packet, DropReason),
    /// It was meant for the function itself and has done its work.
    Consume(Packet),
    /// The function keeps it and has told the context so by [`Context::hold`]; it leaves later by
    /// [`Context::release`].
    Held,
}

impl Verdict {
    /// Drops a packet for one of the function's own reasons.
    pub fn drop(packet: Packet, reason: impl Into<u8>) -> Self {
        Self::Drop(packet, DropReason(reason.into()))
    }
}

/// The interfaces by which packets leave, in the packets' order.
pub type Exits = arrayvec::ArrayVec<Interface, BURST>;

/// What is foreseen of a packet that most likely opens a connection, where it comes into a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// Its VLAN; 0 without a tag.
    pub vlan: u16,
    /// TCP or UDP.
    pub protocol: u8,
    /// Source address and port.
    pub src: (IpAddr, u16),
    /// Destination address and port.
    pub dst: (IpAddr, u16),
}

impl Glimpse {
    /// What a parsed packet is now; `None` if it is not TCP or UDP, or a fragment.
    pub(crate) fn of(packet: &Packet) -> Option<Self> {
        let layers = packet.layers();
        if !matches!(layers.protocol, protocol::TCP | protocol::UDP) || layers.is_fragment() {
            return None;
        }
        let (from, to) = packet.ports()?;
        Some(Self {
            vlan: layers.vlan,
            protocol: layers.protocol,
            src: (packet.ip_src(), from),
            dst: (packet.ip_dst(), to),
        })
    }
}

/// What a kind of function tells the worker and the operator of itself.
#[derive(Debug)]
pub struct Descriptor {
    /// The word for it in YAML.
    pub kind: &'static str,
    /// Its own counters, at most 32, beside those every function has.
    pub counters: &'static [Info],
    /// Its drop reasons.
    pub drops: &'static [Info],
}

/// One session as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Addresses and ports, translations included, ready to print.
    pub text: String,
    /// Milliseconds (rounded) since a packet was last seen.
    pub idle_ms: u64,
}

/// A network function, as one worker runs it.
pub trait Function {
    /// Its kind, counters and drop reasons.
    fn descriptor(&self) -> &'static Descriptor;

    /// Handles one packet, which was parsed and found valid.
    fn process(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict;

    /// Sees a batch that is about to come in by `from`, to look up what does not change meanwhile and have memory near.
    /// What becomes of a packet must not depend on whether it was called.
    fn look_ahead(&mut self, _batch: &[Packet], _from: Interface) {}

    /// Lets packets leave that came in by `from`, from the first of `packets` on, with the interface of each pushed to
    /// `exits`, as [`Function::process`] would one after the other. It stops before the first packet with which it
    /// would do anything but let it leave, rewritten by [`Context::forward`] and counted by [`Context::count_run`]: that
    /// one is handed to [`Function::process`], and those behind it to this call again. `place` is where `packets` begin
    /// in the batch that [`Function::look_ahead`] saw. Of packets here and there only [`Packet::head`] is to be read, which has
    /// all headers. A function that does nothing here gets every packet by `process`.
    fn pass(
        &mut self,
        _cx: &mut Context<'_>,
        _packets: &mut [Packet],
        _place: usize,
        _from: Interface,
        _exits: &mut Exits,
    ) {
    }

    /// Sees what most likely comes in by `from` in a moment, has the memory near that [`Function::process`] needs then, and
    /// foresees what most of it will be (written to `coming`) and by which interface it leaves, if it does. Many packets
    /// that open connections wait for memory once so, rather than one after the other. It may be wrong.
    fn foresee(
        &self,
        _coming: &mut [Glimpse],
        _from: Interface,
        _objects: &Objects,
    ) -> Option<Interface> {
        None
    }

    /// Does a bounded piece of whatever time makes necessary, less than 20 µs' worth. Called every 64 µs or so, for one
    /// function in a poll.
    fn tick(&mut self, _cx: &mut Context<'_>) {}

    /// How many named counters, numbered from 0, it counts by [`Context::count_slot`] (rules, backends), with a
    /// name for each.
    fn slots(&self) -> Vec<String> {
        Vec::new()
    }

    /// How many sessions it holds.
    fn session_count(&self) -> usize {
        0
    }

    /// Appends sessions to `out`, from `cursor` on, until its capacity is reached or a bounded part of the table was
    /// looked at, and returns where to go on; `None` at the end. Never grows `out` beyond its capacity.
    fn sessions(
        &self,
        _now: Time,
        _objects: &Objects,
        _cursor: usize,
        _out: &mut Vec<SessionInfo>,
    ) -> Option<usize> {
        None
    }
}

/// What a function is given while a worker is built.
pub struct Build<'a> {
    /// To reserve objects from.
    pub objects: &'a mut Objects,
    /// A secret for hashing and port choice; the same seed gives the same behaviour.
    pub seed: u64,
    /// The worker's part, where several run the function together. Limits and capacities are of all of them.
    pub share: Share,
}

/// A function's compiled configuration, made off the workers and turned into a function on each.
pub trait Blueprint: Send + Sync {
    /// Builds the function for one worker.
    fn build(&self, build: &mut Build<'_>) -> Box<dyn Function>;

    /// Whether what the function does with a packet hangs on packets before it, or costs so much that a flow record is
    /// the shorter way. A function that says no has [`Function::pass`].
    fn wants_records(&self) -> bool {
        true
    }

    /// What has to meet at one worker, where several run the function together, beyond the two directions of a connection
    /// that nobody translates.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }
}

/// Where a function's block of counters keeps what.
pub(crate) mod cell {
    pub const CREATED: usize = 0;
    pub const CONSUMED: usize = 1;
    pub const HELD: usize = 2;
    pub const SESSIONS: usize = 3;
    pub const INTERFACES: usize = 4;
    pub const PER_INTERFACE: usize = 4;
}

/// A function's counters and where in the block they are.
pub(crate) struct Tally {
    pub counters: Counters,
    pub interfaces: usize,
    pub drops: usize,
    pub own: usize,
}

impl Tally {
    pub fn new(interfaces: usize, descriptor: &Descriptor, slots: usize) -> Self {
        let (drops, own) = (descriptor.drops.len(), descriptor.counters.len());
        let len = cell::INTERFACES + interfaces * cell::PER_INTERFACE + drops + own + slots;
        Self {
            counters: Counters::new(len),
            interfaces,
            drops,
            own,
        }
    }

    pub fn first_drop(&self) -> usize {
        cell::INTERFACES + self.interfaces * cell::PER_INTERFACE
    }

    pub fn first_own(&self) -> usize {
        self.first_drop() + self.drops
    }

    pub fn first_slot(&self) -> usize {
        self.first_own() + self.own
    }

    #[inline]
    pub fn enter(&self, by: Interface, bytes: usize) {
        self.enter_many(by, 1, bytes);
    }

    #[inline]
    pub fn enter_many(&self, by: Interface, packets: usize, bytes: usize) {
        self.pass(by, 0, packets, bytes);
    }

    #[inline]
    pub fn leave(&self, by: Interface, bytes: usize) {
        self.leave_many(by, 1, bytes);
    }

    #[inline]
    pub fn leave_many(&self, by: Interface, packets: usize, bytes: usize) {
        self.pass(by, 2, packets, bytes);
    }

    #[inline]
    fn pass(&self, by: Interface, way: usize, packets: usize, bytes: usize) {
        let at = cell::INTERFACES + by.0 as usize * cell::PER_INTERFACE + way;
        self.counters.add(at, packets as u64);
        self.counters.add(at + 1, bytes as u64);
    }
}

/// Packets that a function sent besides the one in hand: where they go on from.
pub(crate) type Emitted = arrayvec::ArrayVec<(u16, Interface, Packet), 64>;

/// Places that releases leave free, so that what a function creates in one go finds room when it is emitted.
const FOR_CREATED: usize = 8;

/// What a function may use while it handles a packet.
pub struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) pool: &'a mut Pool,
    pub(crate) objects: &'a mut Objects,
    pub(crate) recorder: &'a mut Recorder,
    pub(crate) emitted: &'a mut Emitted,
    pub(crate) tally: &'a Tally,
    pub(crate) function: u16,
    /// What is created now is another worker's to send.
    pub(crate) listening: bool,
}

impl Context<'_> {
    /// The time of this poll.
    #[inline]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The worker's objects.
    #[inline]
    pub fn objects(&mut self) -> &mut Objects {
        self.objects
    }

    /// The worker's objects, to look at.
    #[inline]
    pub fn objects_ref(&self) -> &Objects {
        self.objects
    }

    /// A fresh packet of `bytes`, counted as created; `None` when the pool is empty. Whoever creates a packet sends
    /// it by [`Context::emit`].
    pub fn create(&mut self, bytes: &[u8]) -> Option<Packet> {
        if self.emitted.is_full() {
            return None;
        }
        let mut packet = self.pool.copy_of(bytes)?;
        if self.listening {
            packet.set_heard();
        }
        self.tally.counters.add(cell::CREATED, 1);
        Some(packet)
    }

    /// Sends a created packet by one of the function's interfaces, after the one in hand. What is in hand is then
    /// not replayed, as this would not happen again.
    pub fn emit(&mut self, by: Interface, packet: Packet) {
        self.recorder.refuse();
        // `create` made sure of the room, so nothing is lost here.
        let _ = self.emitted.try_push((self.function, by, packet));
    }

    /// Notes that the function keeps the packet in hand, to go on with [`Verdict::Held`].
    pub fn hold(&mut self) {
        self.recorder.refuse();
        self.tally.counters.add(cell::HELD, 1);
    }

    /// Whether a held packet may be released or discarded now; otherwise try again at the next tick.
    pub fn can_release(&self) -> bool {
        self.emitted.remaining_capacity() > FOR_CREATED
    }

    /// Sends a held packet on by one of the function's interfaces. Check [`Context::can_release`] before: without
    /// room the packet comes back.
    ///
    /// # Errors
    /// The packet, still held, when there is no room.
    pub fn release(&mut self, by: Interface, packet: Packet) -> Result<(), Packet> {
        if !self.can_release() {
            return Err(packet);
        }
        self.emitted.push((self.function, by, packet));
        self.tally.counters.add(cell::HELD, 1u64.wrapping_neg());
        Ok(())
    }

    /// Drops a held packet.
    pub fn discard(&mut self, packet: Packet, reason: impl Into<u8>) {
        self.tally.counters.add(cell::HELD, 1u64.wrapping_neg());
        self.tally
            .counters
            .add(self.tally.first_drop() + reason.into() as usize, 1);
        drop(packet);
    }

    /// Says that what the function does with the packet in hand may be replayed; see the module's page for what
    /// that promises.
    #[inline]
    pub fn replayable(&mut self) {
        self.recorder.approve();
    }

    /// Counts the packet in hand in one of the function's own counters, and every packet that replays it.
    #[inline]
    pub fn count(&mut self, counter: impl Into<u8>) {
        let index = counter.into();
        self.tally
            .counters
            .add(self.tally.first_own() + index as usize, 1);
        self.recorder.count(index);
    }

    /// Counts something that happens once (a session made), not for each packet.
    #[inline]
    pub fn event(&mut self, counter: impl Into<u8>) {
        self.tally
            .counters
            .add(self.tally.first_own() + counter.into() as usize, 1);
    }

    /// Counts the packet in hand in one of the function's named slots, and every packet that replays it.
    #[inline]
    pub fn count_slot(&mut self, slot: usize) {
        let index = self.tally.first_slot() + slot;
        self.tally.counters.add(index, 1);
        self.recorder.count_slot(self.function, index);
    }

    /// Counts something that happens once in a named slot.
    #[inline]
    pub fn event_slot(&mut self, slot: usize) {
        self.tally.counters.add(self.tally.first_slot() + slot, 1);
    }

    /// The decision holds while this object is unchanged, which it is for long, and many flows rest on it: an entry of a
    /// table of neighbours or backends.
    #[inline]
    pub fn depend(&mut self, object: ObjectId) {
        let epoch = self.objects.epoch(object);
        self.recorder.depend(object, epoch, Kind::Shared);
    }

    /// The decision holds while this object is unchanged, on which few flows rest; it and its like change often.
    #[inline]
    pub fn depend_narrowly(&mut self, object: ObjectId) {
        let epoch = self.objects.epoch(object);
        self.recorder.depend(object, epoch, Kind::Narrow);
    }

    /// The packet belongs to this session: keeps it alive, for `timeout` ticks more, now and at each replay.
    #[inline]
    pub fn touch(&mut self, session: ObjectId, timeout: u32) {
        self.objects.touch(session, self.now, timeout);
        let epoch = self.objects.epoch(session);
        self.recorder.depend(session, epoch, Kind::Session);
    }

    /// Only packets to this MAC address are treated so.
    #[inline]
    pub fn guard_mac_dst(&mut self, mac: Mac) {
        self.recorder.guard_mac_dst(mac);
    }

    /// Only IP packets (or pieces, where segmentation is offloaded) of at most `len` bytes are treated so.
    #[inline]
    pub fn guard_wire_len(&mut self, len: usize) {
        self.recorder.guard_wire_len(len);
    }

    /// Rewrites the frame's addresses.
    #[inline]
    pub fn set_macs(&mut self, packet: &mut Packet, src: Mac, dst: Mac) {
        self.set_mac_dst(packet, dst);
        packet.write_mac_src(src);
        self.recorder.set_mac_src(src);
    }

    /// Rewrites the frame's destination. Where the address was read from an object, the function also depends on
    /// the object, and whoever changes the address invalidates it.
    #[inline]
    pub fn set_mac_dst(&mut self, packet: &mut Packet, dst: Mac) {
        packet.write_mac_dst(dst);
        self.recorder.set_mac_dst(dst);
    }

    /// Lowers the TTL or hop limit by one. The function has made sure that it is above 1.
    #[inline]
    pub fn decrement_ttl(&mut self, packet: &mut Packet) {
        packet.decrement_ttl();
        self.recorder.decrement_ttl();
    }

    /// In [`Function::pass`]: what [`Context::decrement_ttl`] and [`Context::set_macs`] do, at once.
    #[inline]
    pub fn forward(&mut self, packet: &mut Packet, macs: &MacPair) {
        packet.write_macs(macs);
        packet.decrement_ttl();
    }

    /// In [`Function::pass`]: counts so many packets in one of the function's own counters.
    #[inline]
    pub fn count_run(&mut self, counter: impl Into<u8>, packets: usize) {
        let index = self.tally.first_own() + counter.into() as usize;
        self.tally.counters.add(index, packets as u64);
    }
}
