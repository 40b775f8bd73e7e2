//! What nearly all packets are, parsed in one go: TCP or UDP in IPv4 without options or IPv6 without extension headers,
//! not a fragment, behind one VLAN tag or none.
//!
//! It takes words rather than bytes, asks for each header's length once, and has one way out for whatever is not so:
//! the general parser, which says what is wrong with a packet if anything is. Tests hold the two against each other.

use super::{LayerFlags, Layers, protocol, tcp_header_len};
use crate::packet::{Packet, ethertype};

/// A packet as most are.
pub(crate) struct Common {
    pub(crate) layers: Layers,
    /// Where the IP packet ends.
    pub(crate) end: usize,
    /// The IP addresses as numbers; an IPv4 one is the first word.
    pub(crate) src: [u64; 2],
    pub(crate) dst: [u64; 2],
    /// Source port, destination port.
    pub(crate) ports: u32,
    /// TCP's flag byte; 0 for UDP.
    pub(crate) tcp_flags: u8,
}

impl Common {
    /// Does to the packet what a parse does: notes its layers, and cuts off what is behind the IP packet.
    #[inline(always)]
    pub(crate) fn note(&self, packet: &mut Packet) {
        if self.end < packet.len() {
            packet.truncate(self.end);
        }
        *packet.layers_mut() = self.layers;
    }
}

/// What the headers up to IP's tell.
struct Network {
    header_len: usize,
    /// Where the IP packet ends, counted from its start.
    total: usize,
    protocol: u8,
    flags: u8,
    src: [u64; 2],
    dst: [u64; 2],
}

/// What an untagged IPv4 frame of `len` bytes is that begins with these, all of it or all of its headers; `None` for
/// whatever is not as most are, malformed packets among it.
#[inline(always)]
pub(crate) fn plain_ipv4(head: &[u8], len: usize) -> Option<Common> {
    let headers: &[u8; 42] = head.first_chunk()?;
    if headers[12..14] != ethertype::IPV4.to_be_bytes() {
        return None;
    }
    let network = ipv4(headers[14..].first_chunk()?)?;
    finish(&head[14..], len, (14, 0, ethertype::IPV4), &network)
}

/// The same of any frame; knows more kinds, and takes longer.
#[inline(always)]
pub(crate) fn common(head: &[u8], len: usize) -> Option<Common> {
    let outer = u16::from_be_bytes(head.get(12..14)?.try_into().ok()?);
    let (l3, vlan, ethertype) = match outer {
        ethertype::IPV4 | ethertype::IPV6 => (14, 0, outer),
        ethertype::VLAN | ethertype::SERVICE_VLAN => {
            let tag = u32::from_be_bytes(head.get(14..18)?.try_into().ok()?);
            (18, (tag >> 16) as u16 & 0x0fff, tag as u16)
        }
        _ => return None,
    };
    let ip = head.get(l3..)?;
    let network = match ethertype {
        ethertype::IPV4 => ipv4(ip.first_chunk()?)?,
        ethertype::IPV6 => ipv6(ip.first_chunk()?)?,
        _ => return None,
    };
    finish(ip, len, (l3, vlan, ethertype), &network)
}

/// Looks at what is behind the network header; `ip` is the frame from there on.
#[inline(always)]
fn finish(
    ip: &[u8],
    len: usize,
    (l3, vlan, ethertype): (usize, u16, u16),
    network: &Network,
) -> Option<Common> {
    let end = l3 + network.total;
    // The general parser refuses some of those that are longer than an offset can tell.
    if end > len || end > u16::MAX as usize {
        return None;
    }
    let message = ip.get(network.header_len..network.total.min(ip.len()))?;
    let start: &[u8; 8] = message.first_chunk()?;
    let (header_len, tcp_flags) = match network.protocol {
        protocol::UDP => {
            let len = u16::from_be_bytes([start[4], start[5]]) as usize;
            let most = network.total - network.header_len;
            (8..=most).contains(&len).then_some((8, 0))?
        }
        protocol::TCP => (tcp_header_len(message).ok()?, *message.get(13)?),
        _ => return None,
    };
    let l4 = l3 + network.header_len;
    Some(Common {
        layers: Layers {
            l3: l3 as u16,
            l4: l4 as u16,
            payload: (l4 + header_len) as u16,
            ethertype,
            vlan,
            protocol: network.protocol,
            flags: LayerFlags(network.flags | LayerFlags::TRANSPORT),
        },
        end,
        src: network.src,
        dst: network.dst,
        ports: u32::from_be_bytes([start[0], start[1], start[2], start[3]]),
        tcp_flags,
    })
}

#[inline(always)]
fn word<const N: usize>(header: &[u8; N], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[at..at + 8]);
    u64::from_be_bytes(bytes)
}

#[inline(always)]
fn ipv4(header: &[u8; 20]) -> Option<Network> {
    const FRAGMENT: u64 = 0x3fff;
    let (first, second, third) = (word(header, 0), word(header, 8), word(header, 12));
    let is_plain = first >> 56 == 0x45 && first & FRAGMENT == 0;
    // Ten 16-bit words, which sum up to a multiple of 0xffff (RFC 1071); the third word overlaps the second.
    let halves = (first >> 32) + (first & 0xffff_ffff) + (second >> 32);
    let sum = halves + (third >> 32) + (third & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    if !is_plain || sum != 0xffff {
        return None;
    }
    Some(Network {
        header_len: 20,
        total: (first >> 32) as usize & 0xffff,
        protocol: (second >> 48) as u8,
        flags: LayerFlags::IPV4,
        src: [third >> 32, 0],
        dst: [third & 0xffff_ffff, 0],
    })
}

#[inline(always)]
fn ipv6(header: &[u8; 40]) -> Option<Network> {
    let first = word(header, 0);
    if first >> 60 != 6 {
        return None;
    }
    Some(Network {
        header_len: 40,
        total: 40 + ((first >> 16) & 0xffff) as usize,
        protocol: (first >> 8) as u8,
        flags: LayerFlags::IPV6,
        src: [word(header, 8), word(header, 16)],
        dst: [word(header, 24), word(header, 32)],
    })
}
