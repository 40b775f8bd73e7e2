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

/// What is claimed of an address.
#[derive(Clone, Debug, Default)]
struct Place {
    /// Protocols and ports of fixed endpoints, in order.
    fixed: Vec<(u8, u16)>,
    pool: bool,
}

/// What is claimed of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Fixed,
    Pool,
    Other,
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
        let mut places: HashMap<_, Place, _> = HashMap::default();
        let mut inside = Vec::new();
        for claim in claims {
            match *claim {
                Claim::Fixed {
                    address,
                    protocol,
                    port,
                } => {
                    let place = places.entry(number(address)).or_default();
                    place.fixed.push((protocol, port));
                }
                Claim::Pool { address } => places.entry(number(address)).or_default().pool = true,
                Claim::Inside { address, length } => inside.push(range(address, length)),
            }
        }
        for place in places.values_mut() {
            place.fixed.sort_unstable();
        }
        Self {
            members,
            places,
            inside: merged(inside),
        }
    }

    pub(super) fn members(&self) -> u16 {
        self.members
    }

    /// The member that owns packets between these ends, whichever of them sends.
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

    /// The owner where one of the ends is fixed, or of a pool.
    #[inline]
    fn claimed(&self, ends: &Ends) -> Option<u16> {
        let Ends { from, to, protocol } = *ends;
        let by_port = |end: Endpoint| Share::owner_of_port(end.port, self.members);
        match (self.role(from, protocol), self.role(to, protocol)) {
            (Role::Other, Role::Other) => None,
            (Role::Fixed, Role::Fixed) => Some(0),
            (Role::Pool, Role::Pool) => Some(by_port(from).min(by_port(to))),
            (Role::Pool, _) => Some(by_port(from)),
            (_, Role::Pool) => Some(by_port(to)),
            (Role::Fixed, Role::Other) => Some(self.of(to.hash())),
            (Role::Other, Role::Fixed) => Some(self.of(from.hash())),
        }
    }

    #[inline]
    fn role(&self, end: Endpoint, protocol: u8) -> Role {
        let Some(place) = self.places.get(&end.address) else {
            return Role::Other;
        };
        if place.fixed.binary_search(&(protocol, end.port)).is_ok() {
            Role::Fixed
        } else if place.pool {
            Role::Pool
        } else {
            Role::Other
        }
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
