//! What a received frame is.

use chainplane_dataplane::packet::{Mac, Sum, ethertype, protocol};

use super::fill::Fill;
use super::head::{header_len, shortest, transport_sum};
use super::stamp::Stamp;
use super::tuple::Tuple;

/// A received frame, looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// ARP, ICMP, neighbour discovery, and whatever else keeps a network going.
    Control,
    /// It has a stamp, and no byte is wrong.
    Intact(Stamp, Head),
    /// It has a stamp, and something else in it is wrong.
    Damaged(Stamp),
    /// Its checksums do not fit and no stamp can be read.
    Broken,
    /// A good packet without a stamp.
    Foreign,
}

/// What else is to be checked in an intact frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Addresses and ports.
    pub tuple: Tuple,
    /// TCP's flags.
    pub flags: u8,
    /// Time to live, or hop limit.
    pub hops: u8,
}

/// Destination and source MAC addresses.
#[inline]
pub fn macs(frame: &[u8]) -> [Mac; 2] {
    let both = frame.split_first_chunk();
    let both = both.and_then(|(to, rest)| Some([Mac(*to), Mac(*rest.first_chunk()?)]));
    both.unwrap_or_default()
}

/// The flow that a frame is likely of, unchecked.
#[inline]
pub fn flow(frame: &[u8]) -> Option<u32> {
    let v6 = frame.get(12..14)? == ethertype::IPV6.to_be_bytes();
    let tcp = *frame.get(if v6 { 20 } else { 23 })? == protocol::TCP;
    Stamp::flow_at(frame.get(header_len(v6, tcp)..)?)
}

/// Looks at a frame whose packets are filled with `fill`.
#[inline]
pub fn look(frame: &[u8], fill: &Fill) -> Seen {
    match parse(frame) {
        Parsed::Transport(tuple, sound) => match (tuple.v6, tuple.tcp) {
            (false, false) => judge::<false, false>(frame, fill, tuple, sound),
            (false, true) => judge::<false, true>(frame, fill, tuple, sound),
            (true, false) => judge::<true, false>(frame, fill, tuple, sound),
            (true, true) => judge::<true, true>(frame, fill, tuple, sound),
        },
        Parsed::Control => Seen::Control,
        Parsed::Unknown => salvage(frame).map_or(Seen::Broken, Seen::Damaged),
    }
}

enum Parsed {
    /// UDP or TCP; and whether all of the IP header is as it was made.
    Transport(Tuple, bool),
    Control,
    Unknown,
}

#[inline]
fn parse(frame: &[u8]) -> Parsed {
    let Some(ty) = frame.get(12..14) else {
        return Parsed::Unknown;
    };
    match u16::from_be_bytes([ty[0], ty[1]]) {
        ethertype::IPV4 => parse_v4(frame),
        ethertype::IPV6 => parse_v6(frame),
        // Whatever is sent to a group is no packet of ours.
        _ if frame[0] & 1 != 0 => Parsed::Control,
        ethertype::ARP => Parsed::Control,
        _ => Parsed::Unknown,
    }
}

#[inline]
fn parse_v4(frame: &[u8]) -> Parsed {
    let Some(ip) = frame.get(14..34) else {
        return Parsed::Unknown;
    };
    if ip[0] != 0x45 || Sum::default().plus_bytes(ip).folded() != 0xffff {
        return Parsed::Unknown;
    }
    let whole = usize::from(u16::from_be_bytes([ip[2], ip[3]])) == frame.len() - 14;
    let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    let mut tuple = Tuple::default();
    tuple.src[..4].copy_from_slice(&ip[12..16]);
    tuple.dst[..4].copy_from_slice(&ip[16..20]);
    transport(frame, ip[9], tuple, whole && !fragment)
}

#[inline]
fn parse_v6(frame: &[u8]) -> Parsed {
    let Some(ip) = frame.get(14..54) else {
        return Parsed::Unknown;
    };
    let whole = usize::from(u16::from_be_bytes([ip[4], ip[5]])) == frame.len() - 54;
    let mut tuple = Tuple {
        v6: true,
        ..Tuple::default()
    };
    tuple.src.copy_from_slice(&ip[8..24]);
    tuple.dst.copy_from_slice(&ip[24..40]);
    transport(frame, ip[6], tuple, whole && ip[..4] == [0x60, 0, 0, 0])
}

#[inline]
fn transport(frame: &[u8], next: u8, mut tuple: Tuple, sound: bool) -> Parsed {
    match next {
        protocol::UDP => {}
        protocol::TCP => tuple.tcp = true,
        protocol::ICMP | protocol::ICMPV6 if salvage(frame).is_none() => return Parsed::Control,
        _ => return Parsed::Unknown,
    }
    let l4 = if tuple.v6 { 54 } else { 34 };
    let Some(ports) = frame.get(l4..l4 + 4) else {
        return Parsed::Unknown;
    };
    tuple.src_port = u16::from_be_bytes([ports[0], ports[1]]);
    tuple.dst_port = u16::from_be_bytes([ports[2], ports[3]]);
    Parsed::Transport(tuple, sound)
}

/// Looks at a packet of one version and transport, so that all places are constants.
#[inline]
fn judge<const V6: bool, const TCP: bool>(
    frame: &[u8],
    fill: &Fill,
    tuple: Tuple,
    sound: bool,
) -> Seen {
    let (l4, end) = (if V6 { 54 } else { 34 }, shortest(V6, TCP));
    let stamp = frame.get(end - Stamp::LEN..).and_then(Stamp::read);
    let next = if TCP { protocol::TCP } else { protocol::UDP };
    let Some(stamp) = stamp else {
        return stranger(frame, &frame[l4..], tuple, next, sound);
    };
    let (headers, rest) = frame.split_at(end);
    let filled = fill.bytes().get(end..frame.len());
    let sound = sound && filled.is_some_and(|filled| is_same(rest, filled)) && {
        let sum = Sum::default()
            .plus_bytes(&headers[l4..])
            .plus_sum(fill.sum(end, frame.len()));
        let sum = transport_sum(tuple.address_sum(), next, frame.len() - l4, sum);
        sum.folded() == 0xffff
    };
    // A length or an offset that lies keeps the sum if something else lies as much.
    let lengths = if TCP {
        headers[l4 + 12] == 0x50
    } else {
        usize::from(u16::from_be_bytes([headers[l4 + 4], headers[l4 + 5]])) == frame.len() - l4
    };
    if !sound || !lengths {
        return Seen::Damaged(stamp);
    }
    Seen::Intact(
        stamp,
        Head {
            tuple,
            flags: if TCP { headers[l4 + 13] } else { 0 },
            hops: headers[if V6 { 21 } else { 22 }],
        },
    )
}

/// Whether bytes are the same. A call costs more than a few of them.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() <= 8 { a.iter().eq(b) } else { a == b }
}

/// A packet that has no stamp where it should be: its own checksum tells a stranger's from one of ours that was damaged.
#[cold]
fn stranger(frame: &[u8], segment: &[u8], tuple: Tuple, next: u8, sound: bool) -> Seen {
    let sum = Sum::default().plus_bytes(segment);
    let sum = transport_sum(tuple.address_sum(), next, segment.len(), sum);
    match salvage(frame) {
        Some(stamp) => Seen::Damaged(stamp),
        None if sound && sum.folded() == 0xffff => Seen::Foreign,
        None => Seen::Broken,
    }
}

/// A stamp at any place where one can be.
#[cold]
fn salvage(frame: &[u8]) -> Option<Stamp> {
    [(false, false), (false, true), (true, false), (true, true)]
        .into_iter()
        .find_map(|(v6, tcp)| Stamp::read(frame.get(header_len(v6, tcp)..)?))
}

#[cfg(test)]
mod tests {
    use super::super::head::{Frame, HEAD};
    use super::*;
    use chainplane_dataplane::packet::Mac;
    use etherparse::SlicedPacket;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = (Vec<u8>, Stamp, Tuple)> {
        let stamp = (any::<u16>(), any::<bool>(), 0u32..1 << 31, any::<u32>());
        let tuple = (
            any::<(bool, bool)>(),
            any::<[[u8; 16]; 2]>(),
            any::<[u16; 2]>(),
        );
        (stamp, tuple, 0usize..1500).prop_map(|(stamp, tuple, more)| {
            let (tag, backward, flow, sequence) = stamp;
            let due = u64::from(sequence) * 11;
            let stamp = Stamp {
                tag,
                backward,
                flow,
                sequence,
                due,
            };
            let ((v6, tcp), addresses, ports) = tuple;
            let [src, dst] = addresses.map(|mut bytes| {
                bytes[4..].fill(if v6 { 9 } else { 0 });
                bytes
            });
            let [src_port, dst_port] = ports;
            let tuple = Tuple {
                v6,
                tcp,
                src,
                dst,
                src_port,
                dst_port,
            };
            (make(tuple, stamp, shortest(v6, tcp) + more), stamp, tuple)
        })
    }

    fn make(tuple: Tuple, stamp: Stamp, len: usize) -> Vec<u8> {
        let fill = Fill::new(1);
        let macs = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
        let flags = if tuple.tcp { 0x18 } else { 0 };
        let frame = Frame {
            macs,
            tuple,
            len,
            flags,
            stamp,
        };
        let mut head = [0; HEAD];
        frame.write(&mut head, &fill);
        let mut bytes = fill.bytes()[..len.max(HEAD)].to_vec();
        bytes[..HEAD].copy_from_slice(&head);
        bytes.truncate(len);
        bytes
    }

    proptest! {
        #[test]
        fn what_is_sent_is_a_valid_packet_and_is_recognised((frame, stamp, tuple) in frames()) {
            let fill = Fill::new(1);
            let flags = if tuple.tcp { 0x18 } else { 0 };
            let head = Head { tuple, flags, hops: 64 };
            prop_assert_eq!(look(&frame, &fill), Seen::Intact(stamp, head));
            // Another parser, and another checksum.
            let sliced = SlicedPacket::from_ethernet(&frame).expect("a valid frame");
            let checked = match (sliced.net, sliced.transport) {
                (Some(etherparse::NetSlice::Ipv4(ip)), Some(transport)) => {
                    let header = ip.header().to_header();
                    prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
                    match transport {
                        etherparse::TransportSlice::Udp(udp) => {
                            let expected = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
                            expected.ok() == Some(udp.checksum())
                        }
                        etherparse::TransportSlice::Tcp(tcp) => {
                            let expected = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload());
                            expected.ok() == Some(tcp.checksum())
                        }
                        _ => false,
                    }
                }
                (Some(etherparse::NetSlice::Ipv6(ip)), Some(transport)) => {
                    let header = ip.header().to_header();
                    match transport {
                        etherparse::TransportSlice::Udp(udp) => {
                            let expected = udp.to_header().calc_checksum_ipv6(&header, udp.payload());
                            expected.ok() == Some(udp.checksum())
                        }
                        etherparse::TransportSlice::Tcp(tcp) => {
                            let expected = tcp.to_header().calc_checksum_ipv6(&header, tcp.payload());
                            expected.ok() == Some(tcp.checksum())
                        }
                        _ => false,
                    }
                }
                _ => false,
            };
            prop_assert!(checked);
        }

        #[test]
        fn no_changed_bit_behind_the_macs_passes((mut frame, stamp, _) in frames(), place in any::<prop::sample::Index>()) {
            let bit = 96 + place.index(8 * frame.len() - 96);
            frame[bit / 8] ^= 1 << (bit % 8);
            match look(&frame, &Fill::new(1)) {
                // Hops of IPv6 are the receiver's to compare.
                Seen::Intact(_, head) => prop_assert!(head.tuple.v6 && bit / 8 == 21),
                Seen::Damaged(seen) => prop_assert_eq!(seen, stamp),
                Seen::Broken => {}
                seen => prop_assert!(false, "taken for {:?}", seen),
            }
        }

        #[test]
        fn any_bytes_are_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            look(&bytes, &Fill::new(1));
        }
    }

    #[test]
    fn the_smallest_udp_frame_fits_64_bytes() {
        assert_eq!([shortest(false, false), shortest(false, true)], [62, 74]);
        assert_eq!([shortest(true, false), shortest(true, true)], [82, 94]);
    }
}
