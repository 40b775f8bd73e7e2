//! Which connection a packet belongs to.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Phase;
use chainplane_dataplane::function::{Glimpse, Interface};
use chainplane_dataplane::packet::{Packet, protocol};
use chainplane_dataplane::session::{Key, Packed};

/// ICMP types of echoes (RFC 792).
pub(super) const ECHO_REPLY: u8 = 0;
pub(super) const ECHO_REQUEST: u8 = 8;
/// `ICMPv6` types of echoes (RFC 4443).
pub(super) const ECHO_REQUEST_V6: u8 = 128;
pub(super) const ECHO_REPLY_V6: u8 = 129;

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port; of an echo, the identifier at the side that asks and 0 at the side that answers.
    pub port: u16,
}

impl Endpoint {
    /// An endpoint.
    pub fn new(address: impl Into<IpAddr>, port: u16) -> Self {
        Self {
            address: address.into(),
            port,
        }
    }
}

/// What there is besides addresses and ports, in 31 bits: sides are those of inline functions, identifiers of VLANs
/// have 12 bits.
pub(crate) fn pack_kind(side: Interface, vlan: u16, protocol: u8, echo_reply: bool) -> u32 {
    u32::from(vlan & 0x0fff)
        | u32::from(protocol) << 12
        | u32::from(side.0 & 1) << 20
        | u32::from(echo_reply) << 21
}

/// The opposite of [`pack_kind`].
pub(crate) fn unpack_kind(kind: u32) -> (Interface, u16, u8, bool) {
    let side = Interface((kind >> 20 & 1) as u16);
    let (vlan, protocol) = ((kind & 0x0fff) as u16, (kind >> 12) as u8);
    (side, vlan, protocol, kind >> 21 & 1 != 0)
}

impl Key for Tuple {
    #[inline]
    fn pack(&self) -> Packed {
        let kind = pack_kind(self.side, self.vlan, self.protocol, self.echo_reply);
        let ports = u32::from(self.src.port) << 16 | u32::from(self.dst.port);
        match (self.src.address, self.dst.address) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Packed::Narrow([src.to_bits(), dst.to_bits(), ports, kind])
            }
            (src, dst) => {
                let [a, b] = words(src);
                let [c, d] = words(dst);
                Packed::Wide([a, b, c, d, u64::from(ports) << 32 | u64::from(kind)])
            }
        }
    }

    #[inline]
    fn unpack(packed: &Packed) -> Self {
        let (src, dst, ports, kind): (IpAddr, IpAddr, _, _) = match *packed {
            Packed::Narrow([src, dst, ports, kind]) => {
                let address = |bits| Ipv4Addr::from_bits(bits).into();
                (address(src), address(dst), ports, kind)
            }
            Packed::Wide([a, b, c, d, rest]) => {
                let (src, dst) = (ipv6_of([a, b]), ipv6_of([c, d]));
                (src, dst, (rest >> 32) as u32, rest as u32)
            }
        };
        let (side, vlan, protocol, echo_reply) = unpack_kind(kind);
        Self {
            side,
            vlan,
            protocol,
            src: Endpoint::new(src, (ports >> 16) as u16),
            dst: Endpoint::new(dst, ports as u16),
            echo_reply,
        }
    }
}

/// The IPv6 address of two words.
pub(crate) fn ipv6_of([high, low]: [u64; 2]) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
}

/// An address as two words; one of IPv4 as IPv6 maps it (RFC 4291, section 2.5.5.2).
pub(crate) fn words(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// What tells a connection's packets, in one direction, from all others.
///
/// An echo request has its identifier as source port and 0 as destination port, a reply the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The interface by which the packet comes in.
    pub side: Interface,
    /// Its VLAN; 0 without a tag.
    pub vlan: u16,
    /// Its IP protocol.
    pub protocol: u8,
    /// Where it comes from.
    pub src: Endpoint,
    /// Where it goes.
    pub dst: Endpoint,
    /// Whether it is an echo reply: a request with the same identifier from the other end is no answer.
    pub echo_reply: bool,
}

impl Tuple {
    /// The tuple of a TCP or UDP packet or an echo that comes in by `side`; `None` for anything else, later
    /// fragments included.
    pub fn of(packet: &Packet, side: Interface) -> Option<Self> {
        let (from, to) = packet.ports()?;
        let (from, to, echo_reply) = match packet.icmp_type_code() {
            Some((ECHO_REQUEST | ECHO_REQUEST_V6, _)) => (from, 0, false),
            Some(_) => (0, to, true),
            None => (from, to, false),
        };
        Some(Self {
            side,
            vlan: packet.layers().vlan,
            protocol: packet.layers().protocol,
            src: Endpoint::new(packet.ip_src(), from),
            dst: Endpoint::new(packet.ip_dst(), to),
            echo_reply,
        })
    }

    /// The tuple of a packet that is foreseen to come in by `side`.
    #[inline]
    pub fn foreseen(coming: &Glimpse, side: Interface) -> Self {
        Self {
            side,
            vlan: coming.vlan,
            protocol: coming.protocol,
            src: Endpoint::new(coming.src.0, coming.src.1),
            dst: Endpoint::new(coming.dst.0, coming.dst.1),
            echo_reply: false,
        }
    }

    /// The tuple of what answers it, coming in by `side`.
    #[must_use]
    pub fn answer(&self, side: Interface) -> Self {
        Self {
            side,
            src: self.dst,
            dst: self.src,
            echo_reply: self.is_icmp() && !self.echo_reply,
            ..*self
        }
    }

    /// The same connection's packets of the direction that comes in by `side`.
    #[must_use]
    pub fn seen_from(&self, side: Interface) -> Self {
        if self.side == side {
            *self
        } else {
            self.answer(side)
        }
    }

    /// Whether it is an echo.
    pub fn is_icmp(&self) -> bool {
        matches!(self.protocol, protocol::ICMP | protocol::ICMPV6)
    }

    /// A session as an operator sees it: its first packet's tuple, what it is translated to, and a connection's
    /// phase.
    pub fn describe(&self, translated: Option<&Self>, phase: Phase) -> String {
        let translated =
            translated.map_or(String::new(), |to| format!(" as {} > {}", to.src, to.dst));
        let phase = match self.protocol {
            protocol::TCP => format!(" {}", phase.name()),
            _ => String::new(),
        };
        format!(
            "{} {} > {}{translated}{phase}",
            self.protocol_name(),
            self.src,
            self.dst
        )
    }

    /// The protocol's name.
    pub fn protocol_name(&self) -> &'static str {
        match self.protocol {
            protocol::TCP => "tcp",
            protocol::UDP => "udp",
            protocol::ICMP => "icmp",
            _ => "icmpv6",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::testing::at;
    use chainplane_dataplane::function::{INSIDE, OUTSIDE};

    #[test]
    fn operators_read_both_ends_and_the_translation() {
        let tuple = Tuple {
            side: INSIDE,
            vlan: 0,
            protocol: protocol::TCP,
            src: at("10.0.0.1:5000"),
            dst: at("192.0.2.1:80"),
            echo_reply: false,
        };
        let text = tuple.describe(None, Phase::Established);
        assert_eq!(text, "tcp 10.0.0.1:5000 > 192.0.2.1:80 established");
        let translated = Tuple {
            src: at("203.0.113.2:5000"),
            protocol: protocol::UDP,
            ..tuple
        };
        let text = translated.describe(Some(&tuple), Phase::Opening);
        assert_eq!(
            text,
            "udp 203.0.113.2:5000 > 192.0.2.1:80 as 10.0.0.1:5000 > 192.0.2.1:80"
        );
    }

    #[test]
    fn keys_say_all_of_a_tuple() {
        for (src, dst) in [
            ("10.0.0.1:5000", "192.0.2.1:80"),
            ("255.255.255.255:65535", "255.255.255.255:65535"),
            (
                "[2001:db8::1]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1",
            ),
            ("[::ffff:10.0.0.1]:1", "[::1]:2"),
        ] {
            for (side, vlan, protocol, echo_reply) in [
                (INSIDE, 0, protocol::TCP, false),
                (OUTSIDE, 4095, 255, true),
                (OUTSIDE, 7, protocol::UDP, false),
            ] {
                let (src, dst) = (at(src), at(dst));
                let tuple = Tuple {
                    side,
                    vlan,
                    protocol,
                    src,
                    dst,
                    echo_reply,
                };
                assert_eq!(Tuple::unpack(&tuple.pack()), tuple);
                if let Packed::Narrow(words) = tuple.pack() {
                    assert!(src.address.is_ipv4() && words[3] < 1 << 31);
                }
            }
        }
    }

    #[test]
    fn both_directions_look_alike_from_one_side() {
        let (src, dst) = (at("10.0.0.1:5000"), at("192.0.2.1:0"));
        for echo_reply in [false, true] {
            let tuple = Tuple {
                side: OUTSIDE,
                vlan: 3,
                protocol: protocol::ICMP,
                src,
                dst,
                echo_reply,
            };
            let seen = tuple.seen_from(INSIDE);
            assert_eq!((seen.side, seen.src, seen.dst), (INSIDE, dst, src));
            assert_eq!(tuple.answer(INSIDE).seen_from(INSIDE), seen);
            assert_eq!(seen.seen_from(OUTSIDE), tuple);
        }
    }

    #[test]
    fn the_answer_of_an_answer_is_the_packet() {
        for protocol in [protocol::TCP, protocol::ICMP] {
            let tuple = Tuple {
                side: INSIDE,
                vlan: 7,
                protocol,
                src: at("10.0.0.1:0"),
                dst: at("192.0.2.1:0"),
                echo_reply: false,
            };
            let answer = tuple.answer(OUTSIDE);
            assert_eq!(answer.answer(INSIDE), tuple);
            assert_eq!(answer.echo_reply, protocol == protocol::ICMP);
        }
    }
}
