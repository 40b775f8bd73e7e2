//! The ends of a packet that an ICMP error quotes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::claims::{Endpoint, Ends};
use crate::packet::{Packet, protocol};

/// Bytes of an ICMP error in front of the packet that it quotes (RFC 792; RFC 4443, section 3).
const ERROR_HEADER: usize = 8;

/// The ends of what answers the packet that an ICMP error quotes; `None` for any other packet, or if the quote does not
/// even hold an IP header.
pub(super) fn quoted(packet: &Packet) -> Option<Ends> {
    let ipv6 = packet.layers().is_ipv6();
    if !is_error(packet) || packet.layers().is_fragment() {
        return None;
    }
    let quote = packet
        .head()
        .get(packet.layers().l4 as usize + ERROR_HEADER..)?;
    let header = if ipv6 {
        ipv6_header(quote)?
    } else {
        ipv4_header(quote)?
    };
    let transport = quote.get(header.len..).filter(|_| !header.later);
    let (from, to) = transport
        .and_then(|transport| ports(header.protocol, transport))
        .unwrap_or((0, 0));
    Some(Ends {
        from: Endpoint::new(header.dst, to),
        to: Endpoint::new(header.src, from),
        protocol: header.protocol,
    })
}

/// Destination unreachable, time exceeded, parameter problem, packet too big. Source quench is obsolete (RFC 6633), and
/// a redirect is no error.
fn is_error(packet: &Packet) -> bool {
    let Some((kind, _)) = packet.icmp_type_code() else {
        return false;
    };
    match packet.layers().protocol {
        protocol::ICMP => matches!(kind, 3 | 11 | 12),
        _ => matches!(kind, 1..=4),
    }
}

struct Header {
    len: usize,
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
    /// It is a fragment without a transport header.
    later: bool,
}

fn ipv4_header(quote: &[u8]) -> Option<Header> {
    let header: &[u8; 20] = quote.first_chunk()?;
    let len = (header[0] & 0x0f) as usize * 4;
    let address = |at: usize| header[at..].first_chunk().copied().map(Ipv4Addr::from);
    (header[0] >> 4 == 4 && len >= 20).then_some(Header {
        len,
        protocol: header[9],
        src: address(12)?.into(),
        dst: address(16)?.into(),
        later: u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0,
    })
}

/// Extension headers are not walked: who sends them is found by addresses alone.
fn ipv6_header(quote: &[u8]) -> Option<Header> {
    let header: &[u8; 40] = quote.first_chunk()?;
    let address = |at: usize| {
        header[at..]
            .first_chunk::<16>()
            .copied()
            .map(Ipv6Addr::from)
    };
    (header[0] >> 4 == 6).then_some(Header {
        len: 40,
        protocol: header[6],
        src: address(8)?.into(),
        dst: address(24)?.into(),
        later: false,
    })
}

/// Source and destination port, or an echo's identifier as both.
fn ports(protocol: u8, transport: &[u8]) -> Option<(u16, u16)> {
    let word = |at: usize| {
        Some(u16::from_be_bytes([
            *transport.get(at)?,
            *transport.get(at + 1)?,
        ]))
    };
    match (protocol, transport.first()?) {
        (protocol::TCP | protocol::UDP, _) => Some((word(0)?, word(2)?)),
        (protocol::ICMP, 0 | 8) | (protocol::ICMPV6, 128 | 129) => Some((word(4)?, word(4)?)),
        _ => None,
    }
}
