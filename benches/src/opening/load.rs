//! Which connections are opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chainplane_dataplane::packet::protocol;

use super::frames::{self, Frame};
use super::{GATEWAY_IN, GATEWAY_OUT, ROUTER_IN, ROUTER_OUT};

/// What kind of connections a run opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// TCP or UDP.
    pub protocol: u8,
    /// Of IPv6, which the NAT does not translate; UDP only.
    pub ipv6: bool,
    /// From the outside, to the load balancer's address; else from the inside, through the NAT.
    pub inbound: bool,
    /// The other end answers: a datagram by one, a SYN by SYN and ACK, which is acknowledged.
    pub answers: bool,
}

impl Kind {
    /// The load balancer's address.
    pub(super) fn service(self) -> IpAddr {
        if self.ipv6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 10).into()
        } else {
            Ipv4Addr::new(203, 0, 113, 10).into()
        }
    }

    /// A server outside.
    fn server(self) -> IpAddr {
        if self.ipv6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0x2, 0, 0, 0, 0, 7).into()
        } else {
            Ipv4Addr::new(192, 0, 2, 7).into()
        }
    }

    /// The network of those who open connections.
    fn net(self) -> IpAddr {
        match (self.ipv6, self.inbound) {
            (false, false) => Ipv4Addr::new(10, 2, 0, 0).into(),
            (false, true) => Ipv4Addr::new(198, 18, 0, 0).into(),
            (true, false) => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0).into(),
            (true, true) => Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 0).into(),
        }
    }
}

/// Connections by number; after [`Load::TUPLES`] the same addresses and ports are used again.
pub(crate) struct Load {
    pub kind: Kind,
    template: Frame,
}

const HOSTS: u64 = 1 << 16;

impl Load {
    /// Different connections.
    pub const TUPLES: u64 = HOSTS * 128;

    pub fn new(kind: Kind) -> Self {
        let (macs, to) = if kind.inbound {
            ([GATEWAY_OUT, ROUTER_OUT], (kind.service(), 80))
        } else {
            ([GATEWAY_IN, ROUTER_IN], (kind.server(), 53))
        };
        Self {
            kind,
            template: frames::template(kind.protocol == protocol::TCP, macs, to),
        }
    }

    /// The first packet of a connection.
    pub fn frame(&self, number: u64) -> Frame {
        let number = number % Self::TUPLES;
        let host = (number % HOSTS) as u32;
        // Each host begins with a port of its own, and goes on from there.
        let first = host.wrapping_mul(0x9e37_79b1) >> 16;
        let port = 1024 + (first + (number / HOSTS) as u32) % 64_512;
        frames::with_source(&self.template, self.kind.net(), host, port as u16)
    }
}
