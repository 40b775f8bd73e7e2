//! A simulated crew: several engines under one clock that run the same ports and functions together.

use core::time::Duration;

use super::{Frame, Sim, SimFunction};
use crate::crew::{Elsewhere, Owners, Share, crew};
use crate::engine::Hop;
use crate::packet::Offload;
use crate::port::Offloads;
use crate::stats::Snapshot;
use crate::time::Time;
use crate::worker::WakeHandle;

/// Simulated workers that are a crew. A port has a wire, which is its queue, at each member that holds one of its
/// queues.
pub struct Crew {
    members: Vec<Sim>,
    owners: Owners,
    ports: usize,
    joined: bool,
    /// The clock of all members.
    pub now: Time,
}

impl Crew {
    /// So many members without ports, each of them as [`Sim::new`] makes one, with its share of what can't be shared.
    /// Who owns what follows from the functions.
    ///
    /// # Panics
    /// As [`Sim::new`], and without members.
    pub fn new(
        members: u16,
        flows: Option<usize>,
        functions: &[SimFunction<'_>],
        seed: u64,
    ) -> Self {
        let owners = Owners::of(members, functions.iter().map(|function| function.blueprint));
        let member = |index| Sim::with_share(flows, functions, seed, Share::new(index, members));
        let members: Vec<_> = (0..members).map(member).collect();
        let now = members.first().map_or(Time(0), |member| member.now);
        Self {
            members,
            owners,
            ports: 0,
            joined: false,
            now,
        }
    }

    /// Adds a port, numbered from 0 in order, with a queue at each member, that completes nothing itself. All ports are
    /// added before the first packet.
    pub fn add_port(&mut self, name: &str, link: Hop) {
        let all: Vec<u16> = (0..self.members.len() as u16).collect();
        self.add_port_at(name, link, Offloads::default(), &all);
    }

    /// Adds a port that takes packets with these things undone, and of which these members hold a queue.
    pub fn add_port_at(&mut self, name: &str, link: Hop, offloads: Offloads, members: &[u16]) {
        for (index, member) in self.members.iter_mut().enumerate() {
            member.add_port_with(name, link, offloads);
            if !members.contains(&(index as u16)) {
                member.engine.replace_port(self.ports, Box::new(Elsewhere));
            }
        }
        self.ports += 1;
    }

    /// Has every port's packets go through the functions without flow records, in batches.
    pub fn without_records(&mut self) {
        self.members.iter_mut().for_each(Sim::without_records);
    }

    /// Puts a frame on a port's wire at a member, for the next poll.
    pub fn inject(&mut self, port: usize, member: usize, bytes: &[u8]) {
        self.members[member].inject(port, bytes);
    }

    /// Puts a frame on a port's wire at a member of which something is left to do.
    pub fn inject_with(&mut self, port: usize, member: usize, bytes: &[u8], offload: Offload) {
        self.members[member].inject_with(port, bytes, offload);
    }

    /// Polls all members in turn until nothing comes in any more, from wires or from each other, and every function had
    /// its turn. Holds each member's counters against the conservation law.
    ///
    /// # Panics
    /// When the law does not hold, or a packet that one member handed over reached no other.
    pub fn run(&mut self) {
        if !std::mem::replace(&mut self.joined, true) {
            self.join();
        }
        loop {
            let mut busy = false;
            for member in &mut self.members {
                member.now = self.now;
                busy |= member.engine.poll(self.now) > 0 || member.engine.has_turns();
            }
            if !busy {
                break;
            }
        }
        let (mut handed, mut taken) = (0, 0);
        for (index, snapshot) in self.snapshots().iter().enumerate() {
            if let Err(error) = snapshot.check_conservation() {
                panic!("member {index}: {error}");
            }
            handed += snapshot.value("handed-over");
            taken += snapshot.value("taken-over");
        }
        assert_eq!(handed, taken, "packets handed over and taken over");
    }

    fn join(&mut self) {
        let wakes = self.members.iter().map(|_| WakeHandle::new());
        let wakes = wakes.collect::<Result<_, _>>().expect("a descriptor");
        let memberships = crew(&self.owners, wakes, self.ports);
        for (member, membership) in self.members.iter_mut().zip(memberships) {
            member.engine.join(membership);
        }
    }

    /// Moves the clock and polls.
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.run();
    }

    /// What a port has sent since the last call, by its queue at one member after the other.
    pub fn sent(&mut self, port: usize) -> Vec<Frame> {
        let sent = self.members.iter_mut().map(|member| member.sent(port));
        sent.collect::<Vec<_>>().concat()
    }

    /// What a port has sent since the last call by its queue at this member.
    pub fn sent_by(&mut self, port: usize, member: usize) -> Vec<Frame> {
        self.members[member].sent(port)
    }

    /// Every member's counters.
    pub fn snapshots(&mut self) -> Vec<Snapshot> {
        self.members.iter_mut().map(Sim::snapshot).collect()
    }

    /// A member.
    pub fn member(&mut self, index: usize) -> &mut Sim {
        &mut self.members[index]
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Who owns what.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }
}
