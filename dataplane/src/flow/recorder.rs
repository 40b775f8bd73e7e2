//! Gathers, while the stages handle a packet, what its record must hold.

use arrayvec::ArrayVec;

use super::paths::{MAX_STEPS, Step};
use super::record::{MAX_DEPENDENCIES, MAX_SLOTS};
use crate::function::Interface;
use crate::objects::ObjectId;
use crate::packet::Mac;

/// How an object is relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By many flows; it changes seldom.
    Shared,
    /// By few flows of many; it and its like change often.
    Narrow,
    /// As a session, to be kept alive.
    Session,
}

/// One object that a record relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub object: ObjectId,
    pub epoch: u32,
    pub kind: Kind,
}

/// A recording in progress. Whatever can't be held makes it refuse: the packet was handled all the same, and so
/// will the next one be, by the stages.
#[derive(Debug, Default)]
pub struct Recorder {
    active: bool,
    approved: bool,
    pub(super) steps: ArrayVec<Step, MAX_STEPS>,
    pub(super) dependencies: ArrayVec<Dependency, MAX_DEPENDENCIES>,
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

    pub(crate) fn depend(&mut self, object: ObjectId, epoch: u32, kind: Kind) {
        let new = Dependency {
            object,
            epoch,
            kind,
        };
        if self.active && !self.dependencies.contains(&new) {
            self.active = self.dependencies.try_push(new).is_ok();
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
}
