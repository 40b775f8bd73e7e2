//! What functions claim, compiled to be looked up for each packet.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Claim, Share};
use crate::hashing::folded;

/// An address with a port, or an echo's identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// An IPv4 address as it is mapped into IPv6 (RFC 4291, section 2.5.5.2).
    address: u128,
    port: u16,
}

impl Endpoint {
    #[inline]
    pub(super) fn new(address: IpAddr, port: u16) -> Self {
        Self {
            address: number(address),
            port,
        }
    }

    /// The constants, here and below, are pi's first digits.
    #[inline]
    fn hash(self) -> u64 {
        let (high, low) = ((self.address >> 64) as u64, self.address as u64);
        folded(
            low ^ u64::from(self.port) << 48 ^ 0x243f_6a88_85a3_08d3,
            high ^ 0x1319_8a2e_0370_7344,
        )
    }
}

#[inline]
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => 0xffff << 32 | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) from: Endpoint,
    pub(super) to: Endpoint,
    pub(super) protocol: u8,
}

/// Protocols and ports at an address.
#[derive(Clone, Debug, Default)]
struct Doors {
    /// Protocols of which all ports are meant.
    whole: Vec<u8>,
    /// Protocols and ports, in order.
    single: Vec<(u8, u16)>,
}

impl Doors {
    fn add(&mut self, protocol: u8, port: Option<u16>) {
        match port {
            None => self.whole.push(protocol),
            Some(port) => self.single.push((protocol, port)),
        }
    }

    fn has(&self, protocol: u8, port: u16) -> bool {
        self.whole.contains(&protocol) || self.single.binary_search(&(protocol, port)).is_ok()
    }
}

/// What is claimed of an address.
#[derive(Clone, Debug, Default)]
struct Place {
    /// Protocol and port, and the endpoint that stands behind them; in order.
    forwards: Vec<((u8, u16), Endpoint)>,
    services: Doors,
    servers: Doors,
    pool: bool,
}

impl Place {
    fn sort(&mut self) {
        self.services.single.sort_unstable();
        self.servers.single.sort_unstable();
        // Of two that say different things the first one counts.
        self.forwards.sort_by_key(|(door, _)| *door);
        self.forwards.dedup_by_key(|(door, _)| *door);
    }

    fn forward(&self, protocol: u8, port: u16) -> Option<Endpoint> {
        let found = self
            .forwards
            .binary_search_by_key(&(protocol, port), |(door, _)| *door);
        found.ok().map(|at| self.forwards[at].1)
    }
}

/// All claims.
#[derive(Clone, Debug)]
pub(super) struct Claims {
    members: u16,
    places: HashMap<u128, Place, foldhash::fast::FixedState>,
    /// First and last addresses, in order and apart.
    inside: Vec<(u128, u128)>,
}

impl Claims {
    pub(super) fn new(members: u16, claims: &[Claim]) -> Self {
        let mut places = HashMap::default();
        let mut inside = Vec::new();
        for claim in claims {
            match *claim {
                Claim::Forward {
                    address,
                    protocol,
                    port,
                    to: (to, to_port),
                } => at(&mut places, address)
                    .forwards
                    .push(((protocol, port), Endpoint::new(to, to_port))),
                Claim::Service {
                    address,
                    protocol,
                    port,
                } => at(&mut places, address).services.add(protocol, port),
                Claim::Pool { address } => at(&mut places, address).pool = true,
                Claim::Server {
                    address,
                    protocol,
                    port,
                } => at(&mut places, address).servers.add(protocol, port),
                Claim::Inside { address, length } => inside.push(range(address, length)),
            }
        }
        places.values_mut().for_each(Place::sort);
        Self {
            members,
            places,
            inside: merged(inside),
        }
    }

    pub(super) fn members(&self) -> u16 {
        self.members
    }

    /// The member that owns packets between these ends.
    #[inline]
    pub(super) fn owner(&self, ends: &Ends) -> u16 {
        let Ends { from, to, .. } = *ends;
        if !self.places.is_empty()
            && let Some(member) = self.claimed(ends)
        {
            return member;
        }
        if !self.inside.is_empty() {
            match (self.is_inside(from), self.is_inside(to)) {
                (true, false) => return self.of(from.hash()),
                (false, true) => return self.of(to.hash()),
                _ => {}
            }
        }
        self.of(from.hash().wrapping_add(to.hash()))
    }

    fn claimed(&self, ends: &Ends) -> Option<u16> {
        let Ends { from, to, protocol } = *ends;
        if let Some(place) = self.places.get(&to.address) {
            if let Some(behind) = place.forward(protocol, to.port) {
                return Some(self.of(behind.hash()));
            }
            if place.services.has(protocol, to.port) {
                return Some(self.of(from.hash()));
            }
            if place.pool {
                return Some(Share::owner_of_port(to.port, self.members));
            }
        }
        let place = self.places.get(&from.address)?;
        let answers = place.servers.has(protocol, from.port);
        answers.then(|| self.of(to.hash()))
    }

    /// The member that a hash falls to.
    #[inline]
    fn of(&self, hash: u64) -> u16 {
        let mixed = folded(hash ^ 0xa409_3822_299f_31d0, 0x4528_21e6_38d0_1377) >> 32;
        ((mixed * u64::from(self.members)) >> 32) as u16
    }

    fn is_inside(&self, endpoint: Endpoint) -> bool {
        let behind = self
            .inside
            .partition_point(|(first, _)| *first <= endpoint.address);
        behind > 0 && endpoint.address <= self.inside[behind - 1].1
    }
}

fn at(
    places: &mut HashMap<u128, Place, foldhash::fast::FixedState>,
    address: IpAddr,
) -> &mut Place {
    places.entry(number(address)).or_default()
}

/// The first and the last address of a prefix; a length beyond the address's means all of its bits.
fn range(address: IpAddr, length: u8) -> (u128, u128) {
    let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
    let hosts = bits - u32::from(length).min(bits);
    let mask = u128::MAX.checked_shl(hosts).unwrap_or(0);
    let first = number(address) & mask;
    (first, first | !mask)
}

/// The same ranges, in order and without overlaps.
fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let within = next.0 <= kept.1;
        if within {
            kept.1 = kept.1.max(next.1);
        }
        within
    });
    ranges
}
