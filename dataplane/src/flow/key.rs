//! Which packets are of one flow.

use core::net::IpAddr;

use zerocopy::FromZeros;

use crate::hashing::folded;
use crate::packet::{
    Common, Layers, Malformed, Packet, common, parse_in_full, plain_ipv4, protocol, tcp_flag,
};

/// A packet with any of these changes what stages know, and is left to them.
const BY_STAGES: u8 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST;
/// Tells an untagged frame from one with a priority tag, whose identifier is 0 (IEEE 802.1Q).
const TAGGED: u16 = 0x1000;
/// Of the link header with one VLAN tag.
const TAGGED_LEN: u16 = 18;
/// The families, as a key tells them.
const IPV4: u8 = 4;
const IPV6: u8 = 6;

/// Every field that a stage may read to decide, but those that a record guards: where the packet came in, its
/// VLAN, addresses, protocol, and ports (an echo's identifier as both).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    pub(super) src: [u64; 2],
    pub(super) dst: [u64; 2],
    pub(super) ports: u32,
    /// VLAN, in the lower half, and ingress port.
    place: u32,
    /// Protocol, family, and message type and code of an echo: a request and a reply with the same identifier are two
    /// flows.
    kind: u32,
    spare: u32,
}

impl FlowKey {
    /// A 64-bit hash that an outsider who does not know `seeds` can't steer.
    #[inline]
    pub fn hash(&self, seeds: &[u64; 4]) -> u64 {
        // Keys that differ in one small field give products that differ by steps: those must not fill the same buckets.
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let (meta, kind) = (
            u64::from(self.place),
            u64::from(self.ports) | u64::from(self.kind) << 32,
        );
        let a = folded(self.src[0] ^ seeds[0], self.dst[0] ^ seeds[1]);
        let b = folded(self.src[1] ^ seeds[2], self.dst[1] ^ seeds[3]);
        folded(folded(a ^ meta ^ seeds[1], b ^ kind ^ seeds[2]), ODD)
    }

    #[inline(always)]
    fn of(found: &Common, ingress: u16) -> Self {
        let layers = &found.layers;
        let tag = if layers.l3 == TAGGED_LEN {
            layers.vlan | TAGGED
        } else {
            0
        };
        let family = if layers.is_ipv6() { IPV6 } else { IPV4 };
        Self {
            src: found.src,
            dst: found.dst,
            ports: found.ports,
            place: place(tag, ingress),
            kind: kind(layers.protocol, family, 0),
            spare: 0,
        }
    }

    /// Whether its addresses are IPv6.
    #[inline]
    pub(super) fn is_ipv6(&self) -> bool {
        (self.kind >> 8) as u8 == IPV6
    }

    /// All of an IPv4 flow's key; of an IPv6 one all but the addresses, of which it has a mixture.
    #[inline(always)]
    pub(super) fn short(&self) -> ShortKey {
        let addresses = self.src[0] ^ self.dst[0].rotate_left(32);
        ShortKey([
            addresses as u32,
            (addresses >> 32) as u32,
            self.ports,
            self.place,
            self.kind,
        ])
    }
}

/// A key in 20 bytes; see [`FlowKey::short`].
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub(super) struct ShortKey([u32; 5]);

impl ShortKey {
    #[inline]
    pub(super) fn is_ipv6(&self) -> bool {
        (self.0[4] >> 8) as u8 == IPV6
    }

    /// TCP or UDP, if it is one of these over IPv4.
    #[inline(always)]
    pub(super) fn transport_over_ipv4(&self) -> Option<u8> {
        const TCP: u32 = protocol::TCP as u32 | (IPV4 as u32) << 8;
        const UDP: u32 = protocol::UDP as u32 | (IPV4 as u32) << 8;
        matches!(self.0[4], TCP | UDP).then_some(self.0[4] as u8)
    }
}

/// Without a branch for each word.
impl PartialEq for ShortKey {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let differ = |at: usize| u64::from(self.0[at] ^ other.0[at]);
        differ(0) | differ(1) | differ(2) | differ(3) | differ(4) == 0
    }
}

/// The key of a parsed packet that came in by port `ingress`; `None` for what may not be replayed: fragments, IPv4
/// options and IPv6 extension headers, two VLAN tags, TCP with SYN, FIN or RST, ICMP other than echo, and other
/// protocols.
#[inline]
pub fn key_of(packet: &Packet, ingress: u16) -> Option<FlowKey> {
    let layers = packet.layers();
    if !layers.has_transport() || layers.is_fragment() || layers.has_options() {
        return None;
    }
    if packet.tcp_flags() & BY_STAGES != 0 {
        return None;
    }
    let vlan = vlan_of(layers)?;
    let (from, to) = packet.ports()?;
    let family = if layers.is_ipv6() { IPV6 } else { IPV4 };
    let icmp = match layers.protocol {
        protocol::ICMP | protocol::ICMPV6 => packet
            .icmp_type_code()
            .map_or(0, |(kind, code)| u16::from_be_bytes([kind, code])),
        _ => 0,
    };
    Some(FlowKey {
        src: words(packet.ip_src()),
        dst: words(packet.ip_dst()),
        ports: u32::from(from) << 16 | u32::from(to),
        place: place(vlan, ingress),
        kind: kind(layers.protocol, family, icmp),
        spare: 0,
    })
}

#[inline(always)]
fn place(vlan: u16, ingress: u16) -> u32 {
    u32::from(vlan) | u32::from(ingress) << 16
}

#[inline(always)]
fn kind(protocol: u8, family: u8, icmp: u16) -> u32 {
    u32::from(protocol) | u32::from(family) << 8 | u32::from(icmp) << 16
}

/// A second tag has no place in the key, so that such frames are left to the stages.
#[inline]
fn vlan_of(layers: &Layers) -> Option<u16> {
    match layers.l3 {
        14 => Some(0),
        TAGGED_LEN => Some(layers.vlan | TAGGED),
        _ => None,
    }
}

/// What a packet was found to be by a parse that looks for its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A packet of this flow.
    Keyed(FlowKey),
    /// It is sound, and none that may be replayed.
    Unkeyed,
}

/// Parses a packet that came in by port `ingress`, as [`parse`](crate::packet::parse) does, and tells its key, as [`key_of`] does, in one go;
/// `None`, and nothing done, if it is not TCP or UDP in plain IPv4, without a VLAN tag.
#[inline(always)]
pub fn parse_plain(packet: &mut Packet, ingress: u16) -> Option<Parsed> {
    let found = plain_ipv4(packet.head(), packet.len())?;
    Some(note(packet, &found, ingress))
}

/// The same; `None` if it is not what most packets are.
#[inline(always)]
pub fn parse_common(packet: &mut Packet, ingress: u16) -> Option<Parsed> {
    let found = common(packet.head(), packet.len())?;
    Some(note(packet, &found, ingress))
}

#[inline(always)]
fn note(packet: &mut Packet, found: &Common, ingress: u16) -> Parsed {
    found.note(packet);
    if found.tcp_flags & BY_STAGES == 0 {
        Parsed::Keyed(FlowKey::of(found, ingress))
    } else {
        Parsed::Unkeyed
    }
}

/// The same of any packet, in two steps.
///
/// # Errors
/// Those of [`parse`](crate::packet::parse).
#[inline(never)]
pub fn parse_general(packet: &mut Packet, ingress: u16) -> Result<Parsed, Malformed> {
    parse_in_full(packet)?;
    Ok(key_of(packet, ingress).map_or(Parsed::Unkeyed, Parsed::Keyed))
}

#[inline]
pub(super) fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => [u64::from(v4.to_bits()), 0],
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{HugePages, Pool, PoolConfig, parse};

    fn key(tags: &[u8]) -> Option<FlowKey> {
        let config = PoolConfig {
            small: 1,
            large: 0,
            huge_pages: HugePages::Never,
        };
        let mut pool = Pool::new(config).unwrap();
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .udp(1, 2)
            .write(&mut frame, b"x")
            .unwrap();
        frame.splice(12..12, tags.iter().copied());
        let mut packet = pool.copy_of(&frame).unwrap();
        parse(&mut packet).unwrap();
        key_of(&packet, 0)
    }

    #[test]
    fn frames_with_and_without_a_tag_are_of_different_flows() {
        let (plain, priority, tagged) = (key(&[]), key(&[0x81, 0, 0, 0]), key(&[0x81, 0, 0, 7]));
        assert!(plain.is_some() && priority.is_some());
        assert_ne!(plain, priority);
        assert_ne!(priority, tagged);
        // The inner tag has no place in the key.
        assert_eq!(key(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]), None);
    }
}
