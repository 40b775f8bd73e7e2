//! The rest of a large frame, left in the buffers of the guest that sent it.
//!
//! A packet with a tail holds the frame's headers in host memory ([`Packet::head`]) and names the place of everything
//! behind them. It lives within one poll, in which the guest's buffers are not given back and its memory map does not
//! change. Only the flow table's hits and ports that [take tails](crate::port::Port::takes_tails) ever see such a packet:
//! for everyone else it is [made whole](crate::tails::Lenders::whole) first. [`Packet::data`] insists on that.

use super::{Packet, ethertype, protocol};

/// Bytes in front of a tail, which are copied to host memory. With the virtio-net header before them they are two cache
/// lines, so that the rest starts on one where the guest's buffer does.
pub const HEAD: usize = 116;

/// Frames longer than this leave their tail where it is; shorter ones are copied whole. Measured where both ways cost the
/// same through four functions: below, one copy of a frame costs less than the parts of it in two.
pub const LONGEST_COPIED: usize = 768;

/// Where a packet's last bytes are: in a frame that a guest's queue has lent. No address, so that a place that is no
/// longer valid leads nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// How many bytes they are; 0 for none, as in a whole packet.
    pub(crate) len: u32,
    /// Where in the frame they start.
    pub(crate) offset: u32,
    /// The worker's port that lent the frame.
    pub port: u16,
    /// The burst of its queue: see [`FromGuest::burst`](chainplane_vhost::ring::FromGuest::burst).
    pub burst: u16,
    /// The port's queue pair.
    pub pair: u8,
    /// The frame in the burst.
    pub frame: u8,
}

impl Tail {
    /// Bytes that the guest's buffers hold of the packet.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where in the frame they start.
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset as usize
    }

    /// Takes up to `count` bytes off the front.
    #[inline]
    pub(super) fn trim(&mut self, count: u32) {
        let count = self.len.min(count);
        self.len -= count;
        self.offset += count;
    }
}

/// Whether a frame that begins with these bytes, [`HEAD`] of them at least, may leave its tail behind: one whose flow may
/// be replayed, with nothing behind [`HEAD`] that anybody but the receiver reads. TCP and UDP, without fragments, IPv4
/// options, IPv6 extension headers and a second VLAN tag.
#[inline]
pub fn may_leave_tail(head: &[u8]) -> bool {
    let Some(head) = head.first_chunk::<HEAD>() else {
        return false;
    };
    let l3 = if [head[12], head[13]] == ethertype::VLAN.to_be_bytes() {
        18
    } else {
        14
    };
    let (found, l4) = match u16::from_be_bytes([head[l3 - 2], head[l3 - 1]]) {
        // Don't-fragment is the one flag that may be set.
        ethertype::IPV4 if head[l3] == 0x45 && head[l3 + 6] & 0xbf == 0 && head[l3 + 7] == 0 => {
            (head[l3 + 9], l3 + 20)
        }
        ethertype::IPV6 if head[l3] >> 4 == 6 => (head[l3 + 6], l3 + 40),
        _ => return false,
    };
    match found {
        protocol::TCP => l4 + usize::from(head[l4 + 12] >> 4) * 4 <= HEAD,
        protocol::UDP => true,
        _ => false,
    }
}

impl Packet {
    /// The tail that the packet has, if it is not whole.
    #[inline]
    pub fn tail(&self) -> Option<Tail> {
        let tail = self.tail_of();
        (!tail.is_empty()).then_some(tail)
    }

    /// Whether all of its bytes are in host memory.
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.tail_of().is_empty()
    }

    /// Has the packet go on in a guest's buffers: all of a frame of `frame_len` bytes that is not in the packet yet.
    pub(crate) fn leave_tail(&mut self, frame_len: usize, place: Tail) {
        let held = self.len();
        self.set_tail(Tail {
            len: frame_len.saturating_sub(held).min(u32::MAX as usize) as u32,
            offset: held as u32,
            ..place
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{HugePages, LARGE, Pool, PoolConfig, parse};
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn pool() -> Pool {
        Pool::new(PoolConfig {
            small: 2,
            large: 2,
            huge_pages: HugePages::Never,
        })
        .unwrap()
    }

    fn beginning(pool: &mut Pool, bytes: &[u8]) -> Packet {
        let mut packet = pool.copy_of(&bytes[..HEAD]).unwrap();
        packet.leave_tail(bytes.len(), Tail::default());
        packet
    }

    #[test]
    fn a_packet_is_as_long_as_its_frame() {
        let mut pool = pool();
        let mut packet = beginning(&mut pool, &[0; 1000]);
        assert_eq!((packet.len(), packet.head().len()), (1000, HEAD));
        packet.prepend(4).unwrap().fill(1);
        packet.trim_front(8);
        assert_eq!((packet.len(), packet.head().len()), (996, HEAD - 4));
        assert_eq!(packet.tail().unwrap().offset(), HEAD);
        packet.trim_front(HEAD);
        let tail = packet.tail().unwrap();
        assert_eq!(
            (packet.len(), tail.offset(), tail.len()),
            (880, HEAD + 4, 880)
        );
        assert!(packet.extend(1).is_none(), "the end is not here");
        packet.truncate(7);
        assert_eq!((packet.len(), packet.tail().unwrap().len()), (7, 7));
        packet.truncate(0);
        assert!(packet.is_whole() && packet.is_empty());
        let mut packet = beginning(&mut pool, &[0; 1000]);
        packet.truncate(HEAD);
        assert!(packet.is_whole());
    }

    #[test]
    #[should_panic(expected = "a tail")]
    #[cfg(debug_assertions)]
    fn nobody_takes_the_head_for_all_of_it() {
        let _ = beginning(&mut pool(), &[0; 1000]).data();
    }

    #[test]
    fn a_buffer_that_is_used_again_has_no_tail() {
        let mut pool = pool();
        drop(beginning(&mut pool, &[0; 1000]));
        assert!(pool.take(1).unwrap().is_whole());
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let payload = 0usize..2000;
        let words = prop::collection::vec((0usize..HEAD, any::<u8>()), 0..4);
        (
            payload,
            any::<bool>(),
            any::<bool>(),
            0u8..=40,
            any::<bool>(),
            words,
        )
            .prop_map(|(payload, tagged, six, options, udp, words)| {
                let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
                let mut bytes = Vec::new();
                let payload = vec![7; payload];
                macro_rules! write {
                    ($link:expr) => {{
                        let ip = if six {
                            $link.ipv6([1; 16], [2; 16], 9)
                        } else {
                            $link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
                        };
                        if udp {
                            ip.udp(1, 2).write(&mut bytes, &payload).unwrap();
                        } else {
                            let raw = vec![1; usize::from(options)];
                            let tcp = ip.tcp(1, 2, 3, 4).options_raw(&raw).unwrap();
                            tcp.write(&mut bytes, &payload).unwrap();
                        }
                    }};
                }
                if tagged {
                    write!(link.single_vlan(5.try_into().unwrap()));
                } else {
                    write!(link);
                }
                for (at, value) in words {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = value;
                    }
                }
                bytes
            })
    }

    proptest! {
        /// What may leave its tail is parsed the same with it and without, and all of its headers are in the head.
        #[test]
        fn parsed_as_the_whole_frame_is(frame in any_frame()) {
            if frame.len() > HEAD && may_leave_tail(&frame) {
                let mut pool = pool();
                let mut whole = pool.copy_of(&frame).unwrap();
                let mut left = beginning(&mut pool, &frame);
                let found = parse(&mut whole);
                prop_assert_eq!(parse(&mut left), found);
                if found.is_ok() {
                    prop_assert_eq!(left.layers(), whole.layers());
                    prop_assert_eq!(left.len(), whole.len());
                    prop_assert_eq!(left.wire_len(), whole.wire_len());
                    prop_assert!(usize::from(left.layers().payload) <= HEAD);
                    prop_assert_eq!(crate::flow::key_of(&left, 3), crate::flow::key_of(&whole, 3));
                }
            }
        }
    }

    #[test]
    fn what_the_stages_must_read_is_not_left() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .udp(1, 2)
            .write(&mut frame, &[0; 1000])
            .unwrap();
        assert!(may_leave_tail(&frame));
        assert!(frame.len() <= LARGE && !may_leave_tail(&frame[..HEAD - 1]));
        for (at, value) in [
            (14, 0x46),
            (20, 0x20),
            (21, 1),
            (23, protocol::ICMP),
            (12, 0x86),
        ] {
            let mut other = frame.clone();
            other[at] = value;
            assert!(!may_leave_tail(&other), "{at}");
        }
    }
}
