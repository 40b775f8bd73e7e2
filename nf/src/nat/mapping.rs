//! Which outside address and port an inside one has.
//!
//! A mapping outlives its sessions: whatever keeps a session alive keeps its mapping alive, and a mapping's timeout is
//! never shorter than that of any of its sessions. Both depend on nothing but the time of the last packet.

use core::hash::BuildHasher;
use core::net::{IpAddr, Ipv4Addr};

use chainplane_dataplane::crew::Share;
use chainplane_dataplane::function::{Build, Context, INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::Mac;
use chainplane_dataplane::session::{InsertError, Key, Packed, SessionId, SessionTable};
use chainplane_dataplane::time::Time;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use super::forward::Forwards;
use super::pool::Pool;
use super::ports::Choice;
use crate::track::{Endpoint, Phase, TimeoutTicks, ipv6_of, pack_kind, unpack_kind, words};

/// Ports tried at one pool address before it counts as exhausted; with nine of ten ports taken, all of them are
/// taken once in 10^5 times.
const TRIES: u64 = 128;
/// Of which so many are even for an even inside port, and odd for an odd one (RFC 4787, REQ-4), and always the same: what
/// comes back has the port that it had, if it is free.
const TRIES_LIKE: u64 = 64;
/// Ports of those tried together.
const TOGETHER: usize = 8;
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
    /// Whose ports are chosen.
    share: Share,
    /// How often a port was looked for: so others are tried each time where nothing else is free.
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
            share: build.share,
            choices: 0,
        }
    }

    /// The live mapping of an inside host's port, with its outside.
    pub fn of_inner(
        &self,
        vlan: u16,
        protocol: u8,
        inner: Endpoint,
        objects: &Objects,
        now: Time,
    ) -> Option<(MappingId, Endpoint)> {
        let key = End::inner(vlan, protocol, inner);
        let (id, _) = self.table.find(&key, objects, now)?;
        let [_, outer] = self.table.keys(id)?;
        Some((id, outer.endpoint))
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

    /// Makes a mapping for an inside host's port, which has none.
    pub fn make(
        &mut self,
        vlan: u16,
        protocol: u8,
        inner: Endpoint,
        mac: Mac,
        objects: &mut Objects,
        now: Time,
    ) -> Result<(MappingId, Endpoint), NoMapping> {
        let key = End::inner(vlan, protocol, inner);
        let outer = self
            .choose(&key, objects, now)
            .ok_or(NoMapping::Exhausted)?;
        let mapping = Mapping {
            mac,
            established: 0,
        };
        let timeout = self.timeouts.of(protocol, Phase::Opening);
        let end = End::outer(protocol, outer);
        match self
            .table
            .insert([key, end], mapping, timeout, objects, now)
        {
            Ok(id) => Ok((id, outer)),
            Err(InsertError::Full | InsertError::Exists) => Err(NoMapping::Full),
        }
    }

    /// Forgets a mapping that no session came to use.
    pub fn forget(&mut self, id: MappingId, objects: &mut Objects) {
        self.table.remove(id, objects);
    }

    /// A free address and port of the pool: the host's own address, which all workers agree on, its own port if
    /// possible.
    fn choose(&mut self, inner: &End, objects: &Objects, now: Time) -> Option<Endpoint> {
        let own = self.hasher.hash_one((inner.vlan, inner.endpoint.address)) as u32;
        let choice = Choice::of(self.share, inner.protocol, inner.endpoint.port)?;
        for offset in 0..self.pool.len().min(ADDRESSES) {
            let address = self.pool.nth(own % self.pool.len() + offset)?;
            self.choices += 1;
            let random = |attempt: u64| {
                let any = attempt >= TRIES_LIKE;
                let number = if any {
                    let choice = (self.choices, attempt, inner.endpoint.port);
                    self.hasher.hash_one(choice)
                } else {
                    self.hasher.hash_one((inner.vlan, inner.endpoint, attempt))
                };
                choice.by(number, any)
            };
            let end = |port| End::outer(inner.protocol, Endpoint::new(address, port));
            let is_free = |end: &End| {
                self.forwards.inner(end.protocol, end.endpoint).is_none()
                    && self.table.find(end, objects, now).is_none()
            };
            if let Some(same) = choice.same().map(end).filter(is_free) {
                return Some(same.endpoint);
            }
            for attempt in (0..TRIES).step_by(TOGETHER) {
                // What looking for them needs is fetched at once.
                let ends: [End; TOGETHER] =
                    core::array::from_fn(|n| end(random(attempt + n as u64)));
                for end in &ends {
                    self.table.prefetch(end);
                }
                if let Some(free) = ends.iter().find(|end| is_free(end)) {
                    return Some(free.endpoint);
                }
            }
        }
        None
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
