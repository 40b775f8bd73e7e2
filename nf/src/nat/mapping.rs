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
use chainplane_dataplane::session::{Hashed, InsertError, Key, Packed, SessionId, SessionTable};
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
    inner: End,
    /// The host's address of the pool.
    address: Ipv4Addr,
    /// Ports that it may have; none are left to this worker without.
    choice: Option<Choice>,
    /// Of the inside.
    hash: u64,
    /// Of the outside with the same port, where that may be had.
    same: Option<u64>,
    /// Another port is chosen.
    other: bool,
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

    /// A free address and port of the pool: the host's own address, which all workers agree on, its own port if
    /// possible.
    fn choose(&mut self, inner: &End, objects: &Objects, now: Time) -> Option<(Endpoint, Hashed)> {
        let own = self.own_address(inner.vlan, inner.endpoint.address);
        let choice = Choice::of(self.share, inner.protocol, inner.endpoint.port)?;
        for offset in 0..self.pool.len().min(ADDRESSES) {
            let address = self.pool.nth(own % self.pool.len() + offset)?;
            self.choices += 1;
            let end = |port| self.outer_end(inner.protocol, Endpoint::new(address, port));
            let is_free = |end: &mut (Endpoint, Hashed)| {
                self.forwards.inner(inner.protocol, end.0).is_none()
                    && self.table.find_hashed(&mut end.1, objects, now).is_none()
            };
            if let Some(mut same) = choice.same().map(end)
                && is_free(&mut same)
            {
                return Some(same);
            }
            for attempt in (0..TRIES).step_by(TOGETHER) {
                // What looking for them needs is fetched at once.
                let mut ends: [_; TOGETHER] = core::array::from_fn(|n| {
                    end(self.random_port(&choice, inner, attempt + n as u64))
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
        let inner = End::inner(vlan, protocol, inner);
        let key = self.table.hashed(&inner);
        self.table.prefetch(&key);
        let own = self.own_address(vlan, inner.endpoint.address);
        let address = self.pool.nth(own.checked_rem(self.pool.len()).unwrap_or(0));
        let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let choice = Choice::of(self.share, protocol, inner.endpoint.port);
        let same = choice.and_then(|choice| choice.same()).map(|port| {
            let (_, key) = self.outer_end(protocol, Endpoint::new(address, port));
            self.table.prefetch(&key);
            key.hash()
        });
        Foreseen {
            inner,
            address,
            choice,
            hash: key.hash(),
            same,
            other: false,
        }
    }

    /// Then tells whether another port will be chosen, and brings near what that takes.
    pub fn foresee_choice(&self, foreseen: &mut Foreseen) {
        if self.table.may_have(foreseen.hash) {
            return;
        }
        foreseen.other = foreseen.same.is_none_or(|hash| self.table.may_have(hash));
        if foreseen.other {
            for (_, key) in self.candidates(foreseen) {
                self.table.prefetch(&key);
            }
        }
    }

    /// At last says which outside the port will have, most likely.
    pub fn foresee_outer(&self, foreseen: &Foreseen) -> Endpoint {
        let same = Endpoint::new(foreseen.address, foreseen.inner.endpoint.port);
        if !foreseen.other {
            return same;
        }
        let mut free = self
            .candidates(foreseen)
            .filter(|(_, key)| !self.table.may_have(key.hash()));
        free.next().map_or(same, |(end, _)| end)
    }

    fn candidates(&self, foreseen: &Foreseen) -> impl Iterator<Item = (Endpoint, Hashed)> {
        let Foreseen {
            inner,
            address,
            choice,
            ..
        } = *foreseen;
        let attempts = choice.map(|choice| (0..TOGETHER as u64).map(move |n| (choice, n)));
        attempts
            .into_iter()
            .flatten()
            .map(move |(choice, attempt)| {
                let port = self.random_port(&choice, &inner, attempt);
                self.outer_end(inner.protocol, Endpoint::new(address, port))
            })
    }

    /// A port for the one of a host, by the number of the attempt, and that of the choice where all else was taken.
    fn random_port(&self, choice: &Choice, inner: &End, attempt: u64) -> u16 {
        let any = attempt >= TRIES_LIKE;
        let number = if any {
            self.hasher
                .hash_one((self.choices, attempt, inner.endpoint.port))
        } else {
            self.hasher.hash_one((inner.vlan, inner.endpoint, attempt))
        };
        choice.by(number, any)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::Timeouts;
    use chainplane_dataplane::packet::protocol;

    /// Many hosts that use three ports each, the same ones, at two addresses: nearly all get another port.
    #[test]
    fn what_is_foreseen_is_what_is_made() {
        let mut objects = Objects::default();
        let mut build = Build {
            objects: &mut objects,
            seed: 7,
            share: Share::WHOLE,
        };
        let pool = Pool::new(&["203.0.113.2/31".parse().unwrap()]);
        let (forwards, ticks) = (Forwards::new(&[]), Timeouts::default().ticks());
        let mut mappings = Mappings::new(pool, forwards, ticks, 1024, &mut build);
        let (now, udp) = (Time(1 << 30), protocol::UDP);
        let mut others = 0;
        for host in 0..60 {
            let inner = [2000, 2001, 2002].map(|port| Endpoint::new([10, 0, 0, host], port));
            let mut foreseen = inner.map(|inner| mappings.foresee(0, udp, inner));
            for one in &mut foreseen {
                mappings.foresee_choice(one);
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
            // What has a mapping chooses no port.
            let mut known = mappings.foresee(0, udp, inner[0]);
            mappings.foresee_choice(&mut known);
            assert!(!known.other);
        }
        assert_eq!(others, 3 * (60 - 2));
    }
}
