//! Addresses and ports of a packet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chainplane_dataplane::packet::Sum;

/// Addresses, protocol and ports of a packet. An IPv4 address takes the first four bytes, and zeros follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tuple {
    /// Whether the addresses are IPv6.
    pub v6: bool,
    /// Whether the transport is TCP; UDP otherwise.
    pub tcp: bool,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

impl Tuple {
    /// Of an answer to such a packet.
    #[inline]
    #[must_use]
    pub fn answer(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            ..self
        }
    }

    /// The sum of addresses, for the IP header and the pseudo-header.
    #[inline]
    pub fn address_sum(&self) -> Sum {
        let words = |bytes: &[u8; 16], sum: Sum| {
            let (words, _) = bytes.as_chunks::<4>();
            let count = if self.v6 { 4 } else { 1 };
            let words = words[..count].iter();
            words.fold(sum, |sum, word| sum.plus_long(u32::from_be_bytes(*word)))
        };
        words(&self.src, words(&self.dst, Sum::default()))
    }

    /// The source address.
    pub fn source(&self) -> IpAddr {
        address(self.v6, self.src)
    }

    /// The destination address.
    pub fn destination(&self) -> IpAddr {
        address(self.v6, self.dst)
    }
}

fn address(v6: bool, bytes: [u8; 16]) -> IpAddr {
    if v6 {
        Ipv6Addr::from(bytes).into()
    } else {
        Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
    }
}

/// The bytes of an IPv4 address and zeros.
pub fn widen(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address.octets());
    bytes
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.tcp { "tcp" } else { "udp" };
        let (from, to) = (self.source(), self.destination());
        let (from_port, to_port) = (self.src_port, self.dst_port);
        write!(
            f,
            "{protocol} {from} port {from_port} to {to} port {to_port}"
        )
    }
}
