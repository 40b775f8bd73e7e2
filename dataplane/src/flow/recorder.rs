//! Gathers, while the stages handle a packet, what its record must hold.

use arrayvec::ArrayVec;

use super::key::{FlowKey, words};
use super::paths::{End, MAX_STEPS, Step};
use super::record::{MAX_DEPENDENCIES, MAX_SLOTS, Rewrite};
use crate::function::Interface;
use crate::objects::ObjectId;
use crate::packet::{Mac, Packet, Sum};

/// One object that a record relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub object: ObjectId,
    pub epoch: u32,
}

/// A recording in progress. Whatever can't be held makes it refuse: the packet was handled all the same, and so
/// will the next one be, by the stages.
#[derive(Debug, Default)]
pub struct Recorder {
    active: bool,
    approved: bool,
    pub(super) steps: ArrayVec<Step, MAX_STEPS>,
    pub(super) dependencies: ArrayVec<Dependency, MAX_DEPENDENCIES>,
    /// Which of the dependencies are sessions to keep alive.
    pub(super) sessions: u16,
    pub(super) slots: ArrayVec<(u16, u16), MAX_SLOTS>,
    pub(super) guard_mac: Option<Mac>,
    pub(super) guard_wire_len: u32,
    pub(super) mac_src: Option<Mac>,
    pub(super) mac_dst: Option<Mac>,
    pub(super) ttl: u8,
}

impl Recorder {
    /// Starts over; nothing is recorded unless the packet has a flow key.
    pub(crate) fn begin(&mut self, active: bool) {
        *self = Self {
            active,
            guard_wire_len: u32::MAX,
            ..Self::default()
        };
    }

    /// A function is about to handle the packet.
    pub(crate) fn enter(&mut self, function: u16, by: Interface) {
        self.approved = false;
        if self.active && self.steps.try_push(Step::new(function, by.0)).is_err() {
            self.active = false;
        }
    }

    /// The function let it leave by this interface.
    pub(crate) fn left(&mut self, by: Interface) {
        self.active &= self.approved;
        if let Some(step) = self.steps.last_mut() {
            step.left_by = by.0;
        }
    }

    /// The function dropped it.
    pub(crate) fn dropped(&mut self, reason: u8) {
        self.active &= self.approved;
        if let Some(step) = self.steps.last_mut() {
            step.drop_for(reason);
        }
    }

    pub(crate) fn refuse(&mut self) {
        self.active = false;
    }

    pub(crate) fn approve(&mut self) {
        self.approved = true;
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.active && !self.steps.is_empty()
    }

    pub(crate) fn count(&mut self, counter: u8) {
        if !self.active {
            return;
        }
        match self.steps.last_mut() {
            Some(step) if counter < 32 && step.counted & (1 << counter) == 0 => {
                step.counted |= 1 << counter;
            }
            _ => self.active = false,
        }
    }

    pub(crate) fn count_slot(&mut self, function: u16, index: usize) {
        let fits =
            u16::try_from(index).is_ok_and(|index| self.slots.try_push((function, index)).is_ok());
        self.active &= fits || !self.active;
    }

    pub(crate) fn depend(&mut self, object: ObjectId, epoch: u32, session: bool) {
        if !self.active {
            return;
        }
        if self
            .dependencies
            .try_push(Dependency { object, epoch })
            .is_err()
        {
            self.active = false;
        } else if session {
            self.sessions |= 1 << (self.dependencies.len() - 1);
        }
    }

    pub(crate) fn guard_mac_dst(&mut self, mac: Mac) {
        // Behind a rewrite the address is what the record itself writes, so that it can't differ.
        if self.mac_dst.is_none() {
            self.guard_mac = Some(mac);
        }
    }

    pub(crate) fn guard_wire_len(&mut self, len: usize) {
        self.guard_wire_len = self
            .guard_wire_len
            .min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    pub(crate) fn set_mac_src(&mut self, mac: Mac) {
        self.mac_src = Some(mac);
    }

    pub(crate) fn set_mac_dst(&mut self, mac: Mac) {
        self.mac_dst = Some(mac);
    }

    pub(crate) fn decrement_ttl(&mut self) {
        self.ttl = self.ttl.saturating_add(1);
    }

    /// What became of addresses, ports and TTL: the packet as it left, against the key it came with.
    pub(super) fn rewrite(&self, key: &FlowKey, packet: &Packet) -> Rewrite {
        let (src, dst) = (words(packet.ip_src()), words(packet.ip_dst()));
        let (from, to) = packet.ports().unwrap_or_default();
        let ports = u32::from(from) << 16 | u32::from(to);
        let addresses = minus(minus(Sum::default(), &key.src), &key.dst);
        let addresses = plus(plus(addresses, &src), &dst);
        let port_change = port_change(packet, key.ports, ports);
        let ttl_change = if key.is_ipv6() {
            Sum::default()
        } else {
            Sum::default().minus(u16::from(self.ttl) << 8)
        };
        let unchanged = src == key.src && dst == key.dst;
        Rewrite {
            src,
            dst,
            ports,
            addresses: if unchanged { 0 } else { addresses.folded() },
            port_change: if ports == key.ports {
                0
            } else {
                port_change.folded()
            },
            ip_change: match (unchanged, self.ttl) {
                (true, 0) => 0,
                (true, _) => ttl_change.folded(),
                (false, 0) => addresses.folded(),
                (false, _) => addresses.plus(ttl_change.folded()).folded(),
            },
            new_addresses: !unchanged,
            new_ports: ports != key.ports,
        }
    }

    /// The path as it was taken, with where it ended.
    pub(super) fn path(&self, end: End) -> (&[Step], End) {
        (&self.steps, end)
    }
}

fn plus(sum: Sum, words: &[u64; 2]) -> Sum {
    sum.plus_bytes(&words[0].to_be_bytes())
        .plus_bytes(&words[1].to_be_bytes())
}

fn minus(sum: Sum, words: &[u64; 2]) -> Sum {
    sum.minus_bytes(&words[0].to_be_bytes())
        .minus_bytes(&words[1].to_be_bytes())
}

/// An echo has one identifier, which the key holds twice.
fn port_change(packet: &Packet, old: u32, new: u32) -> Sum {
    let change = Sum::default().minus(old as u16).plus(new as u16);
    if packet.is_echo() {
        change
    } else {
        change.minus((old >> 16) as u16).plus((new >> 16) as u16)
    }
}
