//! A finished record: guards, dependencies, rewrite, end.

use super::key::FlowKey;
use super::paths::{End, Paths};
use super::recorder::{Dependency, Recorder};
use crate::objects::{ObjectId, Objects};
use crate::packet::{Mac, Packet, Sum};
use crate::time::Time;

/// Objects that one record can rely on: a session and a table for each of six functions.
pub const MAX_DEPENDENCIES: usize = 12;
/// Named slots (rules, backends) that one record can count in.
pub const MAX_SLOTS: usize = 4;

/// New addresses and ports, with what the checksums change by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rewrite {
    pub src: [u64; 2],
    pub dst: [u64; 2],
    pub ports: u32,
    pub addresses: u16,
    pub port_change: u16,
    pub ip_change: u16,
    pub new_addresses: bool,
    pub new_ports: bool,
}

/// What to do with every packet of a flow.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Record {
    pub(super) key: FlowKey,
    rewrite: Rewrite,
    guard_wire_len: u32,
    guard_mac: Option<Mac>,
    mac_src: Option<Mac>,
    mac_dst: Option<Mac>,
    ttl: u8,
    dependency_count: u8,
    slot_count: u8,
    sessions: u16,
    path: u16,
    end: End,
    pub(super) last_used: u32,
    slots: [(u16, u16); MAX_SLOTS],
    dependencies: [Dependency; MAX_DEPENDENCIES],
}

/// Why a record does not serve a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// This packet does not meet a guard; others may.
    Guard,
    /// Something the record relied on has changed: it serves no packet any more.
    Dependency,
}

/// What a replayed packet is to do next.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// Where its path ends.
    pub end: End,
    /// The path, for counting.
    pub path: u16,
}

impl Record {
    /// Turns a complete recording into a record; `packet` is as it left. `None` when the paths' table is full.
    pub(crate) fn finish(
        recorder: &Recorder,
        key: &FlowKey,
        packet: &Packet,
        end: End,
        paths: &mut Paths,
        now: Time,
    ) -> Option<Self> {
        let (steps, end) = recorder.path(end);
        let path = paths.intern(steps, end)?;
        let mut slots = [(0, 0); MAX_SLOTS];
        slots[..recorder.slots.len()].copy_from_slice(&recorder.slots);
        let mut dependencies = [Dependency {
            object: ObjectId(0),
            epoch: 0,
        }; MAX_DEPENDENCIES];
        dependencies[..recorder.dependencies.len()].copy_from_slice(&recorder.dependencies);
        Some(Self {
            key: *key,
            rewrite: recorder.rewrite(key, packet),
            guard_wire_len: recorder.guard_wire_len,
            guard_mac: recorder.guard_mac,
            mac_src: recorder.mac_src,
            mac_dst: recorder.mac_dst,
            ttl: recorder.ttl,
            dependency_count: recorder.dependencies.len() as u8,
            slot_count: recorder.slots.len() as u8,
            sessions: recorder.sessions,
            path,
            end,
            last_used: now.ticks(),
            slots,
            dependencies,
        })
    }

    /// Whether the record serves this packet, whose key is the record's.
    ///
    /// # Errors
    /// Why it does not; the stages are to run.
    #[inline]
    pub(crate) fn check(&self, packet: &Packet, objects: &Objects, now: Time) -> Result<(), Stale> {
        let mut dependencies = self.dependencies[..self.dependency_count as usize].iter();
        if !dependencies.all(|used| objects.holds(used.object, used.epoch, now)) {
            return Err(Stale::Dependency);
        }
        let ttl_holds = self.ttl == 0 || packet.ttl() > self.ttl;
        let mac_holds = self.guard_mac.is_none_or(|mac| packet.mac_dst() == mac);
        let len_holds =
            self.guard_wire_len == u32::MAX || packet.wire_len() <= self.guard_wire_len as usize;
        if ttl_holds && mac_holds && len_holds {
            Ok(())
        } else {
            Err(Stale::Guard)
        }
    }

    /// Does to the packet what the path did, keeps the sessions alive, and counts in `slots`.
    #[inline]
    pub(crate) fn replay(
        &mut self,
        packet: &mut Packet,
        objects: &mut Objects,
        now: Time,
        mut count: impl FnMut(u16, u16),
    ) -> Replay {
        self.last_used = now.ticks();
        let mut sessions = self.sessions;
        while sessions != 0 {
            let index = sessions.trailing_zeros() as usize;
            objects.refresh(self.dependencies[index].object, now);
            sessions &= sessions - 1;
        }
        for &(function, slot) in &self.slots[..self.slot_count as usize] {
            count(function, slot);
        }
        self.rewrite(packet);
        Replay {
            end: self.end,
            path: self.path,
        }
    }

    #[inline]
    fn rewrite(&self, packet: &mut Packet) {
        if let Some(mac) = self.mac_dst {
            packet.write_mac_dst(mac);
        }
        if let Some(mac) = self.mac_src {
            packet.write_mac_src(mac);
        }
        let rewrite = &self.rewrite;
        let (l3, ipv6) = (packet.layers().l3 as usize, self.key.is_ipv6());
        if rewrite.new_addresses {
            write_addresses(packet, l3, ipv6, rewrite);
        }
        if rewrite.new_ports {
            write_ports(packet, rewrite.ports);
        }
        if self.ttl > 0 {
            write_ttl(packet, l3 + if ipv6 { 7 } else { 8 }, self.ttl);
        }
        if rewrite.ip_change != 0 && !ipv6 {
            packet.adjust_ip_checksum(Sum::default().plus(rewrite.ip_change));
        }
        if rewrite.addresses != 0 || rewrite.port_change != 0 {
            let (addresses, ports) = (
                Sum::default().plus(rewrite.addresses),
                Sum::default().plus(rewrite.port_change),
            );
            packet.adjust_transport_checksum(addresses, ports);
        }
    }
}

#[inline]
fn write_addresses(packet: &mut Packet, l3: usize, ipv6: bool, rewrite: &Rewrite) {
    let data = packet.head_mut();
    if ipv6 {
        if let Some(bytes) = data.get_mut(l3 + 8..l3 + 40) {
            for (eight, word) in bytes
                .chunks_exact_mut(8)
                .zip(rewrite.src.iter().chain(&rewrite.dst))
            {
                eight.copy_from_slice(&word.to_be_bytes());
            }
        }
    } else if let Some(bytes) = data.get_mut(l3 + 12..l3 + 20) {
        let both = rewrite.src[0] << 32 | rewrite.dst[0];
        bytes.copy_from_slice(&both.to_be_bytes());
    }
}

#[inline]
fn write_ports(packet: &mut Packet, ports: u32) {
    let l4 = packet.layers().l4 as usize;
    if packet.is_echo() {
        if let Some(bytes) = packet.head_mut().get_mut(l4 + 4..l4 + 6) {
            bytes.copy_from_slice(&(ports as u16).to_be_bytes());
        }
    } else if let Some(bytes) = packet.head_mut().get_mut(l4..l4 + 4) {
        bytes.copy_from_slice(&ports.to_be_bytes());
    }
}

#[inline]
fn write_ttl(packet: &mut Packet, at: usize, count: u8) {
    if let Some(ttl) = packet.head_mut().get_mut(at) {
        *ttl = ttl.wrapping_sub(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of a record is a cache miss when there are many flows: growth should be noticed.
    #[test]
    fn size_is_watched() {
        assert_eq!(size_of::<Record>(), 256);
    }
}
