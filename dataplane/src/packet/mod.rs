//! Packets: owned buffers of a pool, what is known of their headers, and what is still to be done to them.

mod checksum;
mod edit;
mod parse;
mod pool;
mod tail;
#[cfg(test)]
mod tests;

pub use crate::huge::HugePages;
pub use checksum::{Pseudo, Sum, checksum, pseudo_header};
pub use edit::{Mac, MacPair};
pub(crate) use parse::{Common, common, parse_in_full, plain_ipv4};
pub use parse::{LayerFlags, Layers, Malformed, parse};
pub use pool::{HEADROOM, LARGE, Packet, Pool, PoolConfig, SMALL};
pub use tail::{HEAD, LONGEST_COPIED, Tail, may_leave_tail};

/// Packets that one stage handles before the next one does.
pub const BURST: usize = 64;

/// Up to [`BURST`] owned packets, moved in place.
pub type Batch = arrayvec::ArrayVec<Packet, BURST>;

/// Ethernet types that the dataplane itself tells apart.
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// Reverse ARP (RFC 903).
    pub const RARP: u16 = 0x8035;
    /// A VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A service VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
}

/// IP protocol numbers that the dataplane itself tells apart.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// `ICMPv6` (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

/// Bits of the TCP header's flag byte (RFC 9293, section 3.1).
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Hand what there is to the application.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// How a segment larger than the MTU is to be cut (virtio 1.2, section 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// Not at all: an ordinary packet.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of equal size over either (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

/// What the sender left to be done before the packet goes on a wire. It travels with the packet, and is done only
/// where an egress can't pass it on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum is not computed: its field holds the pseudo-header's sum, and the sum of the bytes
    /// from `checksum_start` on goes to `checksum_start + checksum_offset`.
    pub needs_checksum: bool,
    /// The receiver need not check the transport checksum (`VIRTIO_NET_HDR_F_DATA_VALID`).
    pub checksum_valid: bool,
    /// The packet is TCP with ECN in use, whose CWR flag belongs to the first segment only.
    pub ecn: bool,
    /// How to cut the packet.
    pub gso: Gso,
    /// Payload bytes of each piece it is cut into; 0 with [`Gso::None`].
    pub gso_size: u16,
    /// Bytes of headers in front of the payload that is cut; a hint, which the parsed layers overrule.
    pub header_len: u16,
    /// Offset from the start of the frame where summing starts.
    pub checksum_start: u16,
    /// Offset from there to the field.
    pub checksum_offset: u16,
}

impl Offload {
    /// Whether nothing is left to be done.
    #[inline(always)]
    pub fn asks_nothing(&self) -> bool {
        !self.needs_checksum && self.gso == Gso::None
    }
}

impl Packet {
    /// The longest IP packet that this becomes on a wire: its own IP length, or that of one piece where it is to
    /// be cut. What a path MTU is held against.
    #[inline]
    pub fn wire_len(&self) -> usize {
        let (layers, offload) = (self.layers(), self.offload());
        let l3_len = self.len().saturating_sub(layers.l3 as usize);
        if offload.gso == Gso::None {
            return l3_len;
        }
        (layers.payload.saturating_sub(layers.l3) as usize + offload.gso_size as usize).min(l3_len)
    }
}
