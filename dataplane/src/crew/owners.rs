//! Who owns a packet.
//!
//! Two endpoints, of a packet or of one that an ICMP error quotes, are held against what functions claim; the hash
//! behind it is keyless and the same everywhere, as nothing hangs on it but how even the members' parts are.

use std::net::IpAddr;
use std::sync::Arc;

use super::Claim;
use super::claims::{Claims, Endpoint, Ends};
use super::quoted::quoted;
use crate::function::Blueprint;
use crate::packet::{Common, Packet, ethertype, parse, plain_ipv4, protocol};

/// Who handles a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whoever received it.
    Anyone,
    /// This member.
    Member(u16),
    /// Whoever received it handles it, and every other member learns from it: ARP, reverse ARP and IPv6 neighbour
    /// discovery.
    Everyone,
}

/// What the members' functions claim, compiled.
#[derive(Clone, Debug)]
pub struct Owners(Option<Arc<Claims>>);

impl Owners {
    /// The owners of packets among so many members, of which functions claim this.
    ///
    /// # Panics
    /// When there are no members.
    pub fn new(members: u16, claims: &[Claim]) -> Self {
        assert!(members > 0, "a crew without members");
        Self(Some(Arc::new(Claims::new(members, claims))))
    }

    /// Whoever receives a packet owns it: for functions that keep nothing of connections.
    pub fn anyone() -> Self {
        Self(None)
    }

    /// What these functions, all of a connected part, need.
    ///
    /// # Panics
    /// As [`Owners::new`].
    pub fn of<'a>(members: u16, functions: impl IntoIterator<Item = &'a dyn Blueprint>) -> Self {
        let (mut claims, mut records) = (Vec::new(), false);
        for function in functions {
            claims.extend(function.claims());
            records |= function.wants_records();
        }
        if records || !claims.is_empty() {
            Self::new(members, &claims)
        } else {
            Self::anyone()
        }
    }

    /// Whether they are a crew's of so many members.
    pub(super) fn are_of(&self, members: u16) -> bool {
        self.0
            .as_ref()
            .map_or(members > 0, |claims| claims.members() == members)
    }

    /// Who owns a parsed packet. TCP and UDP are told apart by addresses and ports, echoes by addresses and identifier;
    /// fragments and other protocols by addresses alone. An ICMP error belongs to whom answers to the packet that it
    /// quotes would. What is neither IP nor ARP, and goes to one station, is anyone's.
    pub fn owner_of(&self, packet: &Packet) -> Owner {
        if is_for_all(packet) {
            return Owner::Everyone;
        }
        let layers = packet.layers();
        match &self.0 {
            Some(claims) if layers.is_ipv4() || layers.is_ipv6() => {
                let ends = quoted(packet).unwrap_or_else(|| ends_of(packet));
                Owner::Member(claims.owner(&ends))
            }
            _ => Owner::Anyone,
        }
    }

    /// The same of a packet that was just received. One that is malformed is anyone's to drop.
    #[inline]
    pub(super) fn owner_of_received(&self, packet: &mut Packet) -> Owner {
        match plain_ipv4(packet.head(), packet.len()) {
            Some(found) => self.owner_of_plain(&found),
            None => match parse(packet) {
                Ok(()) => self.owner_of(packet),
                Err(_) => Owner::Anyone,
            },
        }
    }

    /// The same of TCP or UDP over IPv4, which most packets are.
    #[inline]
    fn owner_of_plain(&self, found: &Common) -> Owner {
        let [src, dst] = [found.src[0] as u32, found.dst[0] as u32];
        let Some(claims) = &self.0 else {
            return Owner::Anyone;
        };
        Owner::Member(claims.owner(&Ends {
            from: Endpoint::new(IpAddr::V4(src.into()), (found.ports >> 16) as u16),
            to: Endpoint::new(IpAddr::V4(dst.into()), found.ports as u16),
            protocol: found.layers.protocol,
        }))
    }
}

fn ends_of(packet: &Packet) -> Ends {
    let ports = packet.ports().filter(|_| !packet.layers().is_fragment());
    let (from, to) = ports.unwrap_or((0, 0));
    Ends {
        from: Endpoint::new(packet.ip_src(), from),
        to: Endpoint::new(packet.ip_dst(), to),
        protocol: packet.layers().protocol,
    }
}

fn is_for_all(packet: &Packet) -> bool {
    /// From router solicitations to redirects (RFC 4861, section 4).
    const DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;
    let layers = packet.layers();
    if !layers.is_ipv4() && !layers.is_ipv6() {
        return matches!(layers.ethertype, ethertype::ARP | ethertype::RARP);
    }
    let discovery = |(kind, _)| layers.protocol == protocol::ICMPV6 && DISCOVERY.contains(&kind);
    packet.icmp_type_code().is_some_and(discovery)
}

#[cfg(test)]
mod tests;
