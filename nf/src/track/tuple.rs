//! Which connection a packet belongs to.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use super::Phase;
use chainplane_dataplane::function::Interface;
use chainplane_dataplane::packet::{Packet, protocol};

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
