//! Which connections are opened.

use chainplane_dataplane::packet::protocol;

use super::frames::{self, Frame};
use super::{GATEWAY_IN, GATEWAY_OUT, ROUTER_IN, ROUTER_OUT, VIRTUAL};

/// What kind of connections a run opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// TCP or UDP.
    pub protocol: u8,
    /// From the outside, to the load balancer's address; else from the inside, through the NAT.
    pub inbound: bool,
    /// The other end answers: a datagram by one, a SYN by SYN and ACK, which is acknowledged.
    pub answers: bool,
}

/// Connections by number; after [`Load::TUPLES`] the same addresses and ports are used again.
pub(super) struct Load {
    pub kind: Kind,
    template: Frame,
}

const HOSTS: u64 = 1 << 16;

impl Load {
    /// Different connections.
    pub const TUPLES: u64 = HOSTS * 128;

    pub fn new(kind: Kind) -> Self {
        let (macs, to) = if kind.inbound {
            ([GATEWAY_OUT, ROUTER_OUT], (VIRTUAL, 80))
        } else {
            ([GATEWAY_IN, ROUTER_IN], ([192, 0, 2, 7], 53))
        };
        Self {
            kind,
            template: frames::template(kind.protocol == protocol::TCP, macs, to),
        }
    }

    /// The first packet of a connection.
    pub fn frame(&self, number: u64) -> Frame {
        let number = number % Self::TUPLES;
        let net = if self.kind.inbound {
            0xc612_0000
        } else {
            0x0a02_0000
        };
        let host = (number % HOSTS) as u32;
        // Each host begins with a port of its own, and goes on from there.
        let first = host.wrapping_mul(0x9e37_79b1) >> 16;
        let port = 1024 + (first + (number / HOSTS) as u32) % 64_512;
        frames::with_source(&self.template, net | host, port as u16)
    }
}
