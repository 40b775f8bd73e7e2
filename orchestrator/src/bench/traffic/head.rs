//! The first bytes of a frame: headers and stamp.

use chainplane_dataplane::packet::{Mac, Sum, ethertype, protocol, tcp_flag};

use super::fill::Fill;
use super::stamp::Stamp;
use super::tuple::Tuple;

/// Bytes that hold any frame's headers and stamp.
pub const HEAD: usize = 96;

/// Offset of the IP header.
const L3: usize = 14;
/// Hops that every packet may make.
pub const TTL: u8 = 64;

/// Bytes in front of the stamp.
#[inline]
pub const fn header_len(v6: bool, tcp: bool) -> usize {
    L3 + if v6 { 40 } else { 20 } + if tcp { 20 } else { 8 }
}

/// The shortest frame that holds a stamp.
pub const fn shortest(v6: bool, tcp: bool) -> usize {
    header_len(v6, tcp) + Stamp::LEN
}

/// A frame to be made.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Destination and source.
    pub macs: [Mac; 2],
    /// Addresses and ports.
    pub tuple: Tuple,
    /// Bytes of the frame.
    pub len: usize,
    /// TCP's flags.
    pub flags: u8,
    /// Who it is.
    pub stamp: Stamp,
}

/// Sequence number of a connection's SYN; one more is that of every segment after it.
const INITIAL: u32 = 1000;

impl Frame {
    /// Writes the first [`HEAD`] bytes; the rest is the fill's.
    ///
    /// All segments of a TCP flow have the same sequence number, as if sent again and again: that stays within any
    /// window, so that a stateful function which looks at windows lets them pass, whatever is lost.
    #[inline]
    pub fn write(&self, head: &mut [u8; HEAD], fill: &Fill) {
        match (self.tuple.v6, self.tuple.tcp) {
            (false, false) => self.write_as::<false, false>(head, fill),
            (false, true) => self.write_as::<false, true>(head, fill),
            (true, false) => self.write_as::<true, false>(head, fill),
            (true, true) => self.write_as::<true, true>(head, fill),
        }
    }

    /// Of one version and transport, so that all places are constants.
    #[inline]
    fn write_as<const V6: bool, const TCP: bool>(&self, head: &mut [u8; HEAD], fill: &Fill) {
        let (l4, payload) = (L3 + if V6 { 40 } else { 20 }, header_len(V6, TCP));
        head[..6].copy_from_slice(&self.macs[0].0);
        head[6..12].copy_from_slice(&self.macs[1].0);
        let addresses = self.tuple.address_sum();
        let next = if TCP { protocol::TCP } else { protocol::UDP };
        let ty = if V6 {
            self.ipv6(head, next);
            ethertype::IPV6
        } else {
            self.ipv4(head, next, addresses);
            ethertype::IPV4
        };
        head[12..14].copy_from_slice(&ty.to_be_bytes());
        let sum = if TCP {
            self.tcp(head, l4)
        } else {
            self.udp(head, l4)
        };
        let (stamp, stamped) = self.stamp.bytes_and_sum();
        let end = payload + Stamp::LEN;
        head[payload..end].copy_from_slice(&stamp);
        head[end..].copy_from_slice(&fill.bytes()[end..HEAD]);
        let (at, zero) = if TCP { (l4 + 16, 0) } else { (l4 + 6, 0xffff) };
        let sum = transport_sum(addresses, next, self.len - l4, sum)
            .plus_sum(stamped)
            .plus_sum(fill.sum(end, self.len));
        // UDP writes a sum of 0 as all ones (RFC 768).
        let sum = match sum.finish() {
            0 => zero,
            sum => sum,
        };
        head[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    #[inline]
    fn ipv4(&self, head: &mut [u8; HEAD], next: u8, addresses: Sum) {
        let len = (self.len - L3) as u16;
        let start = [
            0x45,
            0,
            (len >> 8) as u8,
            len as u8,
            0,
            0,
            0x40,
            0,
            TTL,
            next,
        ];
        head[L3..L3 + 10].copy_from_slice(&start);
        let sum = addresses
            .plus(0x4500)
            .plus(len)
            .plus(0x4000)
            .plus(u16::from_be_bytes([TTL, next]));
        head[L3 + 10..L3 + 12].copy_from_slice(&sum.finish().to_be_bytes());
        head[L3 + 12..L3 + 16].copy_from_slice(&self.tuple.src[..4]);
        head[L3 + 16..L3 + 20].copy_from_slice(&self.tuple.dst[..4]);
    }

    #[inline]
    fn ipv6(&self, head: &mut [u8; HEAD], next: u8) {
        let len = (self.len - L3 - 40) as u16;
        let start = [0x60, 0, 0, 0, (len >> 8) as u8, len as u8, next, TTL];
        head[L3..L3 + 8].copy_from_slice(&start);
        head[L3 + 8..L3 + 24].copy_from_slice(&self.tuple.src);
        head[L3 + 24..L3 + 40].copy_from_slice(&self.tuple.dst);
    }

    /// Writes the header without its checksum; tells the sum of its words.
    #[inline]
    fn udp(&self, head: &mut [u8; HEAD], at: usize) -> Sum {
        let len = (self.len - at) as u16;
        let words = [self.tuple.src_port, self.tuple.dst_port, len];
        put(head, at, &words)
    }

    #[inline]
    fn tcp(&self, head: &mut [u8; HEAD], at: usize) -> Sum {
        let syn = self.flags & tcp_flag::SYN != 0;
        let sequence = if syn { INITIAL } else { INITIAL + 1 };
        let acknowledged = if self.flags & tcp_flag::ACK != 0 {
            INITIAL + 1
        } else {
            0
        };
        let words = [
            self.tuple.src_port,
            self.tuple.dst_port,
            0,
            sequence as u16,
            0,
            acknowledged as u16,
            0x5000 | u16::from(self.flags),
            0xffff,
            0,
            0,
        ];
        put(head, at, &words)
    }
}

/// Writes words and tells their sum.
#[inline]
fn put(head: &mut [u8; HEAD], at: usize, words: &[u16]) -> Sum {
    let mut sum = Sum::default();
    for (index, word) in words.iter().enumerate() {
        let at = at + 2 * index;
        head[at..at + 2].copy_from_slice(&word.to_be_bytes());
        sum = sum.plus(*word);
    }
    sum
}

/// The sum of the pseudo-header, added to `sum`.
#[inline]
pub fn transport_sum(addresses: Sum, next: u8, len: usize, sum: Sum) -> Sum {
    sum.plus_sum(addresses)
        .plus(u16::from(next))
        .plus(len as u16)
}
