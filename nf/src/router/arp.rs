//! ARP on Ethernet for IPv4 (RFC 826).

use core::net::Ipv4Addr;

use chainplane_dataplane::packet::{Mac, ethertype};

/// A frame with an ARP message, without padding.
pub const FRAME_LEN: usize = 42;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Ethernet, IPv4, and the lengths of their addresses.
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// A request or a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    pub request: bool,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

/// Whether an interface may have this link-layer address.
pub fn is_unicast(mac: Mac) -> bool {
    !mac.is_multicast() && mac != Mac([0; 6])
}

impl Arp {
    /// Reads the message of a frame; `None` if it is cut short, of another kind, or its sender can't be one.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let message: &[u8; 28] = frame.get(14..FRAME_LEN)?.try_into().ok()?;
        let mac = |at: usize| message[at..at + 6].try_into().map(Mac).ok();
        let address = |at: usize| {
            let octets: [u8; 4] = message[at..at + 4].try_into().ok()?;
            Some(Ipv4Addr::from(octets))
        };
        let operation = u16::from_be_bytes([message[6], message[7]]);
        let arp = Self {
            request: operation == REQUEST,
            sender_mac: mac(8)?,
            sender: address(14)?,
            target_mac: mac(18)?,
            target: address(24)?,
        };
        let known = message[..6] == FIXED && matches!(operation, REQUEST | REPLY);
        (known && is_unicast(arp.sender_mac)).then_some(arp)
    }

    /// The frame that carries it.
    pub fn frame(&self, to: Mac) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        let operation = if self.request { REQUEST } else { REPLY };
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&self.sender_mac.0);
        frame[12..14].copy_from_slice(&ethertype::ARP.to_be_bytes());
        frame[14..20].copy_from_slice(&FIXED);
        frame[20..22].copy_from_slice(&operation.to_be_bytes());
        frame[22..28].copy_from_slice(&self.sender_mac.0);
        frame[28..32].copy_from_slice(&self.sender.octets());
        frame[32..38].copy_from_slice(&self.target_mac.0);
        frame[38..42].copy_from_slice(&self.target.octets());
        frame
    }
}
