//! Which outside address and port an inside one has.
//!
//! A mapping outlives its sessions: whatever keeps a session alive keeps its mapping alive, and a mapping's timeout is
//! never shorter than that of any of its sessions. Both depend on nothing but the time of the last packet.

use core::hash::BuildHasher;
use core::net::{IpAddr, Ipv4Addr};

use chainplane_dataplane::function::{Build, Context, INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::{Mac, protocol};
use chainplane_dataplane::session::{Hashed, InsertError, Key, Packed, SessionId, SessionTable};
use chainplane_dataplane::time::Time;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use super::forward::Forwards;
use super::pool::Pool;
use crate::track::{Endpoint, Phase, TimeoutTicks, ipv6_of, pack_kind, unpack_kind, words};

/// Ports tried at one pool address before it counts as exhausted; with nine of ten ports taken, all of them are
/// taken once in 10^5 times.
const TRIES: u64 = 128;
/// Ports of those tried together.
const TOGETHER: usize = 4;
/// Pool addresses tried.
const ADDRESSES: u32 = 4;

/// One end of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    side: Interface,
    /// At the inside; the pool is the same for all.
    vlan: u16,
    protocol: u8,
    endpoint: Endpoint,
}

impl End {
    fn inner(vlan: u16, protocol: u8, endpoint: Endpoint) -> Self {
        Self {
            side: INSIDE,
            vlan,
            protocol,
            endpoint,
        }
    }

    fn outer(protocol: u8, endpoint: Endpoint) -> Self {
        Self {
            side: OUTSIDE,
            vlan: 0,
            protocol,
            endpoint,
        }
    }
}

impl Key for End {
    #[inline]
    fn pack(&self) -> Packed {
        let kind = pack_kind(self.side, self.vlan, self.protocol, false);
        match self.endpoint.address {
            IpAddr::V4(address) => {
                Packed::Narrow([address.to_bits(), self.endpoint.port.into(), 0, kind])
            }
            address @ IpAddr::V6(_) => {
                let [a, b] = words(address);
                Packed::Wide([a, b, self.endpoint.port.into(), 0, kind.into()])
            }
        }
    }

    #[inline]
    fn unpack(packed: &Packed) -> Self {
        let (address, port, kind): (IpAddr, _, _) = match *packed {
            Packed::Narrow([address, port, _, kind]) => {
                (Ipv4Addr::from_bits(address).into(), port as u16, kind)
            }
            Packed::Wide([a, b, port, _, kind]) => (ipv6_of([a, b]), port as u16, kind as u32),
        };
        let (side, vlan, protocol, _) = unpack_kind(kind);
        Self {
            side,
            vlan,
            protocol,
            endpoint: Endpoint::new(address, port),
        }
    }
}

/// What is kept of a mapping.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    /// Where the inside host is.
    mac: Mac,
    /// TCP connections that were established and have not begun to close. One that falls silent stays in here, so
    /// that the mapping lives on longer than it has to.
    established: u32,
}

/// A mapping's number.
pub(super) type MappingId = SessionId;

/// What is foreseen of an inside host's port that most likely has no mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreseen {
    protocol: u8,
    /// Its own port at the host's address.
    outer: Endpoint,
    /// Of inside and outside.
    hashes: [u64; 2],
    /// The number of the choice by which another port is chosen, as its own is taken.
    choice: Option<u64>,
}

/// Why there is no mapping for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoMapping {
    /// No port of the pool was found free.
    Exhausted,
    /// As many mappings as there may be.
    Full,
}

/// The mappings of one worker.
pub(super) struct Mappings {
    table: SessionTable<End, Mapping>,
    pool: Pool,
    forwards: Forwards,
    timeouts: TimeoutTicks,
    hasher: SeedableRandomState,
    /// Ports chosen at random so far: no two choices are the same.
    choices: u64,
}

impl Mappings {
    /// An empty table for `capacity` mappings.
    pub fn new(
        pool: Pool,
        forwards: Forwards,
        timeouts: TimeoutTicks,
        capacity: usize,
        build: &mut Build<'_>,
    ) -> Self {
        Self {
            table: SessionTable::new(capacity, build.seed, build.objects),
            pool,
            forwards,
            timeouts,
            hasher: SeedableRandomState::with_seed(build.seed, SharedSeed::global_fixed()),
            choices: 0,
        }
    }

    /// The live mapping of an inside host's port, with its outside; or else what [`Mappings::make`] wants.
    pub fn of_inner(
        &self,
        vlan: u16,
        protocol: u8,
        inner: Endpoint,
        objects: &Objects,
        now: Time,
    ) -> Result<(MappingId, Endpoint), Hashed> {
        let mut key = self.table.hashed(&End::inner(vlan, protocol, inner));
        let found = self.table.find_hashed(&mut key, objects, now);
        let outer = found.and_then(|(id, _)| Some((id, self.table.keys(id)?[1].endpoint)));
        outer.ok_or(key)
    }

    /// The live mapping that has this outside, with its inside, if that is in this VLAN.
    pub fn of_outer(
        &self,
        vlan: u16,
        protocol: u8,
        outer: Endpoint,
        objects: &Objects,
        now: Time,
    ) -> Option<(MappingId, Endpoint, Mac)> {
        let (id, _) = self
            .table
            .find(&End::outer(protocol, outer), objects, now)?;
        let [inner, _] = self.table.keys(id)?;
        let mac = self.table.get(id)?.mac;
        (inner.vlan == vlan).then_some((id, inner.endpoint, mac))
    }

    /// Makes a mapping for an inside host's port, which has none and this key.
    pub fn make(
        &mut self,
        (vlan, protocol, inner): (u16, u8, Endpoint),
        key: Hashed,
        mac: Mac,
        objects: &mut Objects,
        now: Time,
    ) -> Result<(MappingId, Endpoint), NoMapping> {
        let inner = End::inner(vlan, protocol, inner);
        let (outer, end) = self
            .choose(&inner, objects, now)
            .ok_or(NoMapping::Exhausted)?;
        let mapping = Mapping {
            mac,
            established: 0,
        };
        let timeout = self.timeouts.of(protocol, Phase::Opening);
        match self
            .table
            .insert_hashed([key, end], mapping, timeout, objects, now)
        {
            Ok(id) => Ok((id, outer)),
            Err(InsertError::Full | InsertError::Exists) => Err(NoMapping::Full),
        }
    }

    /// Forgets a mapping that no session came to use.
    pub fn forget(&mut self, id: MappingId, objects: &mut Objects) {
        self.table.remove(id, objects);
    }

    /// A free address and port of the pool: the host's own address, its own port if possible.
    fn choose(&mut self, inner: &End, objects: &Objects, now: Time) -> Option<(Endpoint, Hashed)> {
        let own = self.own_address(inner.vlan, inner.endpoint.address);
        let End {
            protocol, endpoint, ..
        } = *inner;
        for offset in 0..self.pool.len().min(ADDRESSES) {
            let address = self.pool.nth(own % self.pool.len() + offset)?;
            self.choices += 1;
            let end = |port| self.outer_end(protocol, Endpoint::new(address, port));
            let is_free = |end: &mut (Endpoint, Hashed)| {
                self.forwards.inner(protocol, end.0).is_none()
                    && self.table.find_hashed(&mut end.1, objects, now).is_none()
            };
            if endpoint.port >= range_of(protocol, endpoint.port).0 {
                let mut same = end(endpoint.port);
                if is_free(&mut same) {
                    return Some(same);
                }
            }
            for attempt in (0..TRIES).step_by(TOGETHER) {
                // What looking for them needs is fetched at once.
                let mut ends: [_; TOGETHER] = core::array::from_fn(|n| {
                    let attempt = attempt + n as u64;
                    end(self.random_port(self.choices, attempt, protocol, endpoint.port))
                });
                for (_, end) in &ends {
                    self.table.prefetch(end);
                }
                if let Some(free) = ends.iter_mut().find_map(|end| is_free(end).then_some(*end)) {
                    return Some(free);
                }
            }
        }
        None
    }

    /// The number of the pool address that a host has, as long as a port is left there.
    fn own_address(&self, vlan: u16, address: IpAddr) -> u32 {
        self.hasher.hash_one((vlan, address)) as u32
    }

    /// Brings near what making a mapping for this inside host's port needs first.
    pub fn foresee(&self, vlan: u16, protocol: u8, inner: Endpoint) -> Foreseen {
        let key = self.table.hashed(&End::inner(vlan, protocol, inner));
        self.table.prefetch(&key);
        let own = self.own_address(vlan, inner.address);
        let address = self.pool.nth(own.checked_rem(self.pool.len()).unwrap_or(0));
        let outer = Endpoint::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), inner.port);
        let outer_key = self.table.hashed(&End::outer(protocol, outer));
        self.table.prefetch(&outer_key);
        Foreseen {
            protocol,
            outer,
            hashes: [key, outer_key].map(|key| key.hash()),
            choice: None,
        }
    }

    /// Then tells whether another port will be chosen, and brings near what that takes. `made` counts the mappings that
    /// will be made.
    pub fn foresee_choice(&self, foreseen: &mut Foreseen, made: &mut u64) {
        let [inner, outer] = foreseen.hashes;
        if self.table.may_have(inner) {
            return;
        }
        *made += 1;
        if self.table.may_have(outer) {
            foreseen.choice = Some(self.choices + *made);
            for end in self.candidates(foreseen) {
                self.table.prefetch(&end.1);
            }
        }
    }

    /// At last says which outside the port will have, most likely.
    pub fn foresee_outer(&self, foreseen: &Foreseen) -> Endpoint {
        if foreseen.choice.is_none() {
            return foreseen.outer;
        }
        let mut free = self
            .candidates(foreseen)
            .filter(|(_, key)| !self.table.may_have(key.hash()));
        free.next().map_or(foreseen.outer, |(end, _)| end)
    }

    fn candidates(&self, foreseen: &Foreseen) -> impl Iterator<Item = (Endpoint, Hashed)> {
        let Foreseen {
            protocol,
            outer,
            choice,
            ..
        } = *foreseen;
        let attempts = 0..TOGETHER as u64;
        attempts.map(move |attempt| {
            let port = self.random_port(choice.unwrap_or(0), attempt, protocol, outer.port);
            self.outer_end(protocol, Endpoint::new(outer.address, port))
        })
    }

    /// A port for the one of a host, by the number of the choice and of the attempt.
    fn random_port(&self, choice: u64, attempt: u64, protocol: u8, port: u16) -> u16 {
        let (first, count) = range_of(protocol, port);
        let hash = self.hasher.hash_one((choice, attempt, port));
        first + (hash % u64::from(count)) as u16
    }

    fn outer_end(&self, protocol: u8, outer: Endpoint) -> (Endpoint, Hashed) {
        (outer, self.table.hashed(&End::outer(protocol, outer)))
    }

    /// Notes that a session of the mapping went from one phase to another.
    pub fn moved(&mut self, id: MappingId, before: Phase, after: Phase) {
        let Some(mapping) = self.table.get_mut(id) else {
            return;
        };
        if before != Phase::Established && after == Phase::Established {
            mapping.established = mapping.established.saturating_add(1);
        } else if before == Phase::Established && after != Phase::Established {
            mapping.established = mapping.established.saturating_sub(1);
        }
    }

    /// Keeps the mapping alive, with one of its sessions.
    pub fn touch(&self, id: MappingId, protocol: u8, cx: &mut Context<'_>) {
        let Some(mapping) = self.table.get(id) else {
            return;
        };
        let transitory = self.timeouts.of(protocol, Phase::Opening);
        let timeout = if mapping.established > 0 {
            transitory.max(self.timeouts.of(protocol, Phase::Established))
        } else {
            transitory
        };
        cx.touch(self.table.object(id), timeout);
    }

    /// Frees some of the mappings that are dead.
    pub fn sweep(&mut self, objects: &mut Objects, now: Time) {
        self.table.sweep(objects, now, |_| {});
    }
}

/// The first of the ports among which one is chosen for this one, and how many there are (RFC 4787, REQ-3; RFC 5508,
/// REQ-1 knows no such ranges for identifiers).
fn range_of(protocol: u8, port: u16) -> (u16, u32) {
    match (protocol, port) {
        (protocol::ICMP, _) => (0, 1 << 16),
        (_, 0..1024) => (1, 1023),
        _ => (1024, (1 << 16) - 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::Timeouts;

    /// Many hosts that use three ports each, the same ones, at two addresses: nearly all get another port.
    #[test]
    fn what_is_foreseen_is_what_is_made() {
        let mut objects = Objects::default();
        let mut build = Build {
            objects: &mut objects,
            seed: 7,
        };
        let pool = Pool::new(&["203.0.113.2/31".parse().unwrap()]);
        let (forwards, ticks) = (Forwards::new(&[]), Timeouts::default().ticks());
        let mut mappings = Mappings::new(pool, forwards, ticks, 1024, &mut build);
        let (now, udp) = (Time(1 << 30), protocol::UDP);
        let mut others = 0;
        for host in 0..60 {
            let inner = [2000, 2001, 2002].map(|port| Endpoint::new([10, 0, 0, host], port));
            let mut foreseen = inner.map(|inner| mappings.foresee(0, udp, inner));
            let mut made = 0;
            for one in &mut foreseen {
                mappings.foresee_choice(one, &mut made);
            }
            let outer = foreseen.map(|one| mappings.foresee_outer(&one));
            for (inner, outer) in inner.into_iter().zip(outer) {
                let key = mappings.of_inner(0, udp, inner, &objects, now);
                let inner_port = inner.port;
                let inner = (0, udp, inner);
                let made =
                    mappings.make(inner, key.unwrap_err(), Mac::default(), &mut objects, now);
                assert_eq!(made.unwrap().1, outer);
                others += u32::from(inner_port != outer.port);
            }
            // What has a mapping makes none.
            let mut known = mappings.foresee(0, udp, inner[0]);
            let mut made = 0;
            mappings.foresee_choice(&mut known, &mut made);
            assert_eq!(made, 0);
        }
        assert_eq!(others, 3 * (60 - 2));
    }
}
