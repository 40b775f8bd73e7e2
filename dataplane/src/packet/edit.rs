//! Reading and rewriting header fields of a parsed packet, checksums kept right.
//!
//! A checksum that the sender left to be completed later holds the pseudo-header's sum, not complemented: a
//! changed address changes it, a changed port does not (virtio 1.2, section 5.1.6.2).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use super::{Packet, Sum, protocol};

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names a group of stations, broadcast included.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// The group address of an IPv6 multicast address (RFC 2464, section 7).
    pub const fn of_ipv6_multicast(group: Ipv6Addr) -> Self {
        let octets = group.octets();
        Self([0x33, 0x33, octets[12], octets[13], octets[14], octets[15]])
    }

    /// A locally administered address made from a name, the same each time (for interfaces and functions that have
    /// none in the configuration).
    pub fn local(name: &str) -> Self {
        // FNV-1a: short, stable across versions, and collisions are found by whoever checks the configuration.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut mac = [0x02; 6];
        mac[1..].copy_from_slice(&hash.to_be_bytes()[3..]);
        Self(mac)
    }
}

/// A frame's two addresses as they stand in it: destination, source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacPair([u8; 12]);

impl MacPair {
    /// The addresses of a frame to `dst` from `src`.
    pub fn new(dst: Mac, src: Mac) -> Self {
        let mut both = [0; 12];
        both[..6].copy_from_slice(&dst.0);
        both[6..].copy_from_slice(&src.0);
        Self(both)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, octet)| {
            write!(out, "{}{octet:02x}", if index == 0 { "" } else { ":" })
        })
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "expected six pairs of hexadecimal digits, like 02:00:00:00:01:01";
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(WANTED)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| WANTED)?;
        }
        if parts.next().is_some() {
            Err(WANTED)
        } else {
            Ok(Self(mac))
        }
    }
}

/// Header fields. All of them expect a packet that [`super::parse`] accepted and whose layers say that the header
/// is there; where it is not, reading gives zeros and writing does nothing.
impl Packet {
    #[inline]
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.head()
            .get(at..at + N)
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0; N])
    }

    #[inline]
    fn set_field<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        if let Some(bytes) = self.head_mut().get_mut(at..at + N) {
            bytes.copy_from_slice(&value);
        }
    }

    /// The frame's destination.
    #[inline]
    pub fn mac_dst(&self) -> Mac {
        Mac(self.field(0))
    }

    /// The frame's source.
    #[inline]
    pub fn mac_src(&self) -> Mac {
        Mac(self.field(6))
    }

    pub(crate) fn write_mac_dst(&mut self, mac: Mac) {
        self.set_field(0, mac.0);
    }

    pub(crate) fn write_mac_src(&mut self, mac: Mac) {
        self.set_field(6, mac.0);
    }

    #[inline]
    pub(crate) fn write_macs(&mut self, macs: &MacPair) {
        self.set_field(0, macs.0);
    }

    /// The IP source.
    #[inline]
    pub fn ip_src(&self) -> IpAddr {
        let l3 = self.layers().l3 as usize;
        if self.layers().is_ipv6() {
            IpAddr::V6(Ipv6Addr::from(self.field::<16>(l3 + 8)))
        } else {
            IpAddr::V4(Ipv4Addr::from(self.field::<4>(l3 + 12)))
        }
    }

    /// The IP destination.
    #[inline]
    pub fn ip_dst(&self) -> IpAddr {
        let l3 = self.layers().l3 as usize;
        if self.layers().is_ipv6() {
            IpAddr::V6(Ipv6Addr::from(self.field::<16>(l3 + 24)))
        } else {
            IpAddr::V4(Ipv4Addr::from(self.field::<4>(l3 + 16)))
        }
    }

    /// The destination of an IPv4 packet as a number; 0 for anything else.
    #[inline]
    pub fn ipv4_dst(&self) -> u32 {
        if self.layers().is_ipv4() {
            u32::from_be_bytes(self.field(self.layers().l3 as usize + 16))
        } else {
            0
        }
    }

    /// The TTL, or IPv6's hop limit.
    #[inline]
    pub fn ttl(&self) -> u8 {
        let l3 = self.layers().l3 as usize;
        let [ttl] = self.field(if self.layers().is_ipv6() {
            l3 + 7
        } else {
            l3 + 8
        });
        ttl
    }

    /// The TCP flag byte; 0 for anything but TCP.
    #[inline]
    pub fn tcp_flags(&self) -> u8 {
        if !self.layers().has_transport() || self.layers().protocol != protocol::TCP {
            return 0;
        }
        let [flags] = self.field(self.layers().l4 as usize + 13);
        flags
    }

    /// Type and code of an ICMP or `ICMPv6` message.
    #[inline]
    pub fn icmp_type_code(&self) -> Option<(u8, u8)> {
        let layers = self.layers();
        if !layers.has_transport() || !matches!(layers.protocol, protocol::ICMP | protocol::ICMPV6)
        {
            return None;
        }
        let [kind, code] = self.field(layers.l4 as usize);
        Some((kind, code))
    }

    /// Whether it is an ICMP or `ICMPv6` echo request or reply.
    #[inline]
    pub fn is_echo(&self) -> bool {
        let icmp4 = self.layers().protocol == protocol::ICMP;
        match self.icmp_type_code() {
            Some((0 | 8, 0)) => icmp4,
            Some((128 | 129, 0)) => !icmp4,
            _ => false,
        }
    }

    /// Source and destination port of TCP and UDP; an echo's identifier as both; `None` for anything else.
    #[inline]
    pub fn ports(&self) -> Option<(u16, u16)> {
        let layers = self.layers();
        if !layers.has_transport() {
            return None;
        }
        let l4 = layers.l4 as usize;
        if matches!(layers.protocol, protocol::TCP | protocol::UDP) {
            let [a, b, c, d] = self.field(l4);
            return Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
        }
        let id = u16::from_be_bytes(self.field(l4 + 4));
        self.is_echo().then_some((id, id))
    }

    /// Rewrites the IP source. An address of the other family changes nothing.
    pub fn set_ip_src(&mut self, to: IpAddr) {
        let l3 = self.layers().l3 as usize;
        match to {
            IpAddr::V4(to) if self.layers().is_ipv4() => self.set_address(l3 + 12, to.octets()),
            IpAddr::V6(to) if self.layers().is_ipv6() => self.set_address(l3 + 8, to.octets()),
            _ => {}
        }
    }

    /// Rewrites the IP destination. An address of the other family changes nothing.
    pub fn set_ip_dst(&mut self, to: IpAddr) {
        let l3 = self.layers().l3 as usize;
        match to {
            IpAddr::V4(to) if self.layers().is_ipv4() => self.set_address(l3 + 16, to.octets()),
            IpAddr::V6(to) if self.layers().is_ipv6() => self.set_address(l3 + 24, to.octets()),
            _ => {}
        }
    }

    fn set_address<const N: usize>(&mut self, at: usize, to: [u8; N]) {
        let change = Sum::default()
            .minus_bytes(&self.field::<N>(at))
            .plus_bytes(&to);
        self.set_field(at, to);
        if self.layers().is_ipv4() {
            self.adjust_ip_checksum(change);
        }
        self.adjust_transport_checksum(change, Sum::default());
    }

    /// Rewrites the source port, or an echo's identifier. Nothing happens where there is none.
    pub fn set_port_src(&mut self, to: u16) {
        let at = if self.is_echo() { 4 } else { 0 };
        self.set_port(at, to);
    }

    /// Rewrites the destination port, or an echo's identifier. Nothing happens where there is none.
    pub fn set_port_dst(&mut self, to: u16) {
        let at = if self.is_echo() { 4 } else { 2 };
        self.set_port(at, to);
    }

    fn set_port(&mut self, at: usize, to: u16) {
        if self.ports().is_none() {
            return;
        }
        let at = self.layers().l4 as usize + at;
        let old = u16::from_be_bytes(self.field(at));
        self.set_field(at, to.to_be_bytes());
        self.adjust_transport_checksum(Sum::default(), Sum::default().minus(old).plus(to));
    }

    /// Lowers the TTL or hop limit by one; 0 stays 0.
    #[inline]
    pub(crate) fn decrement_ttl(&mut self) {
        let (l3, ipv6) = (self.layers().l3 as usize, self.layers().is_ipv6());
        let data = self.head_mut();
        if ipv6 {
            if let Some(limit) = data.get_mut(l3 + 7) {
                *limit = limit.saturating_sub(1);
            }
        } else if let Some([ttl, _, high, low]) = data.get_mut(l3 + 8..l3 + 12)
            && *ttl > 0
        {
            *ttl -= 1;
            // RFC 1624: the sum loses 0x0100, so its complement gains it, with the carry put to the end.
            let sum = u32::from(u16::from_be_bytes([*high, *low])) + 0x0100;
            let sum = sum + u32::from(sum >= 0xffff);
            [*high, *low] = (sum as u16).to_be_bytes();
        }
    }

    /// Whether the sender left the checksum of this transport header to be completed, rather than that of a packet
    /// inside of it (a tunnel's).
    #[inline]
    pub fn has_partial_checksum(&self) -> bool {
        self.offload().needs_checksum && self.offload().checksum_start == self.layers().l4
    }

    #[inline]
    pub(crate) fn adjust_ip_checksum(&mut self, change: Sum) {
        let at = self.layers().l3 as usize + 10;
        let field = u16::from_be_bytes(self.field(at));
        self.set_field(at, change.apply(field).to_be_bytes());
    }

    /// `addresses` changed in the pseudo-header, `ports` in the transport header.
    #[inline]
    pub(crate) fn adjust_transport_checksum(&mut self, addresses: Sum, ports: Sum) {
        let layers = self.layers();
        if !layers.has_transport() {
            return;
        }
        let (offset, pseudo) = match layers.protocol {
            protocol::TCP => (16, true),
            protocol::UDP => (6, true),
            protocol::ICMP => (2, false),
            _ => (2, true),
        };
        let udp = layers.protocol == protocol::UDP;
        let at = layers.l4 as usize + offset;
        let field = u16::from_be_bytes(self.field(at));
        let addresses = if pseudo { addresses } else { Sum::default() };
        if self.has_partial_checksum() {
            let sum = addresses.plus(field).folded();
            self.set_field(at, sum.to_be_bytes());
        } else if !(udp && field == 0) {
            let mut new = addresses.plus(ports.folded()).apply(field);
            if udp && new == 0 {
                new = 0xffff;
            }
            self.set_field(at, new.to_be_bytes());
        }
    }
}
