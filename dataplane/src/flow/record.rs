//! A flow's own part of a record: its key, its rewrite, and when it was last used.

use zerocopy::FromZeros;

use super::key::{FlowKey, ShortKey};
use super::recorder::Recorder;
use super::rewrite::Rewrite;
use crate::packet::Packet;

/// Objects that one record can rely on: a session and a table for each of six functions.
pub const MAX_DEPENDENCIES: usize = 12;
/// Named slots (rules, backends) that one record can count in.
pub const MAX_SLOTS: usize = 4;
/// Objects that are looked at for each packet.
pub(super) const MAX_WATCHES: usize = 8;

/// What of a flow is its own: one cache line, and a [`Wide`] one for IPv6.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub(crate) struct Record {
    pub(super) key: ShortKey,
    /// New addresses (IPv4) and ports, as they are in the packet.
    pub(super) new_src: [u8; 4],
    pub(super) new_dst: [u8; 4],
    pub(super) new_ports: [u8; 4],
    /// What a checksum of the transport header changes by that covers new addresses only.
    pub(super) addresses: u16,
    /// The same for new addresses and ports.
    pub(super) transport: u16,
    /// The same for the IPv4 header, TTL included.
    pub(super) ip: u16,
    /// 0 if the record is vacant.
    pub(super) template: u16,
    /// In [`crate::time::Time::ticks`].
    pub(super) last_used: u32,
    /// For so long after that, the sessions of its bundle are certainly alive.
    pub(super) alive_for: u32,
    /// One more than its bundle's number, 0 for none; of a vacant record, than the number of the next vacant one.
    pub(super) bundle: u32,
    /// How many objects are looked at for each packet.
    pub(super) watches: u8,
    /// Which of them are sessions, by bit.
    pub(super) watched_sessions: u8,
    /// What the transport checksum changes by for new ports alone.
    pub(super) ports: u16,
    pub(super) hash: u64,
}

/// The other half of an IPv6 flow's record: addresses, old and new, as they are in the packet.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub(crate) struct Wide {
    pub(super) old: [[u64; 2]; 2],
    pub(super) new: [[u64; 2]; 2],
}

/// Objects that are looked at for each packet, which is what few records have.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub(crate) struct Watches {
    pub(super) objects: [u32; MAX_WATCHES],
    /// The epoch of each at which the record holds.
    pub(super) epochs: [u32; MAX_WATCHES],
}

impl Record {
    pub(super) fn new(
        key: &FlowKey,
        hash: u64,
        recorder: &Recorder,
        packet: &Packet,
        now: u32,
    ) -> (Self, Wide) {
        let rewrite = Rewrite::of(recorder, key, packet);
        let record = Self {
            key: key.short(),
            new_src: (rewrite.src[0] as u32).to_be_bytes(),
            new_dst: (rewrite.dst[0] as u32).to_be_bytes(),
            new_ports: rewrite.ports.to_be_bytes(),
            addresses: rewrite.addresses,
            transport: rewrite.transport,
            ip: rewrite.ip,
            template: 0,
            last_used: now,
            alive_for: u32::MAX,
            bundle: 0,
            watches: 0,
            watched_sessions: 0,
            ports: rewrite.port_change,
            hash,
        };
        let wide = Wide {
            old: [key.src, key.dst],
            new: [rewrite.src.map(u64::to_be), rewrite.dst.map(u64::to_be)],
        };
        (record, wide)
    }
}

impl Wide {
    /// Whether it is of the flow with this key.
    #[inline]
    pub(super) fn is_of(&self, key: &FlowKey) -> bool {
        self.old == [key.src, key.dst]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of a record is a cache miss when there are many flows: growth should be noticed.
    #[test]
    fn sizes_are_watched() {
        assert_eq!(size_of::<Record>(), 64);
        assert_eq!(size_of::<Wide>(), 64);
        assert_eq!(size_of::<Watches>(), 64);
    }
}
