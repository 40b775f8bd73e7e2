//! The packet that an ICMP error is about. It was quoted by a stranger: every length is checked, and nothing it
//! says is believed but for finding the session it claims to be of.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chainplane_dataplane::function::Interface;
use chainplane_dataplane::packet::{Packet, protocol};

use super::tuple::{ECHO_REPLY, ECHO_REPLY_V6, ECHO_REQUEST, ECHO_REQUEST_V6};
use super::{Endpoint, Tuple};

/// Bytes of an ICMP error in front of the packet it quotes (RFC 792; RFC 4443, section 3).
const ERROR_HEADER: usize = 8;
/// Transport bytes that a quote holds at least (RFC 792).
const QUOTED: usize = 8;

/// A quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Where its IP header is, from the start of the frame.
    pub l3: usize,
    /// Where its transport header is; at least 8 bytes of it are there.
    pub l4: usize,
    /// The tuple of the packets that answer the quoted one, as the error does: `answer.dst` is where the quoted
    /// packet came from.
    pub answer: Tuple,
}

/// Whether a packet is an ICMP error that quotes another packet: destination unreachable, time exceeded, parameter
/// problem (RFC 792), and packet too big (RFC 4443). Source quench is obsolete (RFC 6633), and a redirect is no error.
pub fn is_icmp_error(packet: &Packet) -> bool {
    if packet.layers().is_fragment() {
        return false;
    }
    let Some((kind, _)) = packet.icmp_type_code() else {
        return false;
    };
    // Time exceeded is 11 in the one and 3 in the other, where that is unreachable in the first.
    match packet.layers().protocol {
        protocol::ICMP => matches!(kind, 3 | 11 | 12),
        protocol::ICMPV6 => matches!(kind, 1..=4),
        _ => false,
    }
}

/// The packet that an ICMP error, which came in by `side`, quotes; `None` if it is cut too short, is a later
/// fragment, or neither TCP, UDP nor an echo. IPv6 extension headers in the quote are not walked.
pub fn quote(packet: &Packet, side: Interface) -> Option<Quote> {
    let (l3, ipv6) = (
        packet.layers().l4 as usize + ERROR_HEADER,
        packet.layers().is_ipv6(),
    );
    let bytes = packet.data().get(l3..)?;
    let header = if ipv6 {
        ipv6_header(bytes)?
    } else {
        ipv4_header(bytes)?
    };
    let transport = bytes.get(header.len..)?.first_chunk()?;
    let (from, to, echo_reply) = ports(header.protocol, *transport, ipv6)?;
    let quoted = Tuple {
        side: side.opposite(),
        vlan: packet.layers().vlan,
        protocol: header.protocol,
        src: Endpoint::new(header.src, from),
        dst: Endpoint::new(header.dst, to),
        echo_reply,
    };
    Some(Quote {
        l3,
        l4: l3 + header.len,
        answer: quoted.answer(side),
    })
}

struct Header {
    len: usize,
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
}

fn ipv4_header(bytes: &[u8]) -> Option<Header> {
    let header: &[u8; 20] = bytes.first_chunk()?;
    let len = (header[0] & 0x0f) as usize * 4;
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[0] >> 4 != 4 || len < 20 || offset != 0 {
        return None;
    }
    let address = |at: usize| header[at..].first_chunk().copied().map(Ipv4Addr::from);
    Some(Header {
        len,
        protocol: header[9],
        src: address(12)?.into(),
        dst: address(16)?.into(),
    })
}

fn ipv6_header(bytes: &[u8]) -> Option<Header> {
    let header: &[u8; 40] = bytes.first_chunk()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| {
        header[at..]
            .first_chunk::<16>()
            .copied()
            .map(Ipv6Addr::from)
    };
    Some(Header {
        len: 40,
        protocol: header[6],
        src: address(8)?.into(),
        dst: address(24)?.into(),
    })
}

/// Source port, destination port, and whether it is an echo reply.
fn ports(protocol: u8, transport: [u8; QUOTED], ipv6: bool) -> Option<(u16, u16, bool)> {
    let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    match (protocol, ipv6, transport[0], transport[1]) {
        (protocol::TCP | protocol::UDP, ..) => Some((word(0), word(2), false)),
        (protocol::ICMP, false, ECHO_REQUEST, 0) | (protocol::ICMPV6, true, ECHO_REQUEST_V6, 0) => {
            Some((word(4), 0, false))
        }
        (protocol::ICMP, false, ECHO_REPLY, 0) | (protocol::ICMPV6, true, ECHO_REPLY_V6, 0) => {
            Some((0, word(4), true))
        }
        _ => None,
    }
}
