//! Which packets are of one flow.

use core::net::IpAddr;

use crate::packet::{Layers, Packet, protocol, tcp_flag};

/// Every field that a stage may read to decide, but those that a record guards: where the packet came in, its
/// VLAN, addresses, protocol, and ports (an echo's identifier as both).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    pub(super) src: [u64; 2],
    pub(super) dst: [u64; 2],
    pub(super) ports: u32,
    vlan: u16,
    ingress: u16,
    protocol: u8,
    family: u8,
    /// Message type and code of an echo: a request and a reply with the same identifier are two flows.
    icmp: u16,
    spare: u32,
}

impl FlowKey {
    /// A 64-bit hash that an outsider who does not know `seeds` can't steer.
    #[inline]
    pub fn hash(&self, seeds: &[u64; 4]) -> u64 {
        let meta =
            u64::from(self.vlan) | u64::from(self.ingress) << 16 | u64::from(self.icmp) << 32;
        let kind =
            u64::from(self.ports) | u64::from(self.protocol) << 32 | u64::from(self.family) << 40;
        let a = folded(self.src[0] ^ seeds[0], self.dst[0] ^ seeds[1]);
        let b = folded(self.src[1] ^ seeds[2], self.dst[1] ^ seeds[3]);
        folded(a ^ meta ^ seeds[1], b ^ kind ^ seeds[2])
    }

    /// The words by which a record stands for another one's opposite direction are not known here: a flow's way
    /// back has a key of its own, made from its own first packet.
    pub(super) fn is_ipv6(&self) -> bool {
        self.family == 6
    }
}

/// Multiplies to 128 bits and folds the halves together: every input bit reaches every output bit.
#[inline]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The key of a parsed packet that came in by port `ingress`; `None` for what may not be replayed: fragments, IPv4
/// options and IPv6 extension headers, two VLAN tags, TCP with SYN, FIN or RST, ICMP other than echo, and other
/// protocols.
#[inline]
pub fn key_of(packet: &Packet, ingress: u16) -> Option<FlowKey> {
    const BY_STAGES: u8 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST;
    let layers = packet.layers();
    if !layers.has_transport() || layers.is_fragment() || layers.has_options() {
        return None;
    }
    if packet.tcp_flags() & BY_STAGES != 0 {
        return None;
    }
    let vlan = vlan_of(layers)?;
    let (from, to) = packet.ports()?;
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
        vlan,
        ingress,
        protocol: layers.protocol,
        family: if layers.is_ipv6() { 6 } else { 4 },
        icmp,
        spare: 0,
    })
}

/// Tells an untagged frame from one with a priority tag, whose identifier is 0 (IEEE 802.1Q). A second tag has no
/// place in the key, so that such frames are left to the stages.
#[inline]
fn vlan_of(layers: &Layers) -> Option<u16> {
    const TAGGED: u16 = 0x1000;
    match layers.l3 {
        14 => Some(0),
        18 => Some(layers.vlan | TAGGED),
        _ => None,
    }
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
