//! TCP segments as frames, whose payload is the fill.

use chainplane_dataplane::packet::{Mac, Sum, ethertype, protocol};

use super::tcb::Segment;
use crate::bench::traffic::fill::Fill;
use crate::bench::traffic::head::{HEAD, TTL, header_len, transport_sum};
use crate::bench::traffic::tuple::Tuple;

/// Offset of the IP header.
const L3: usize = 14;

/// Bytes of a segment's frame.
pub fn frame_len(tuple: &Tuple, segment: &Segment) -> usize {
    // As short as Ethernet allows, the rest being padding.
    header_len(tuple.v6, true) + segment.len as usize
}

/// Writes the start of a segment's frame.
pub fn write(macs: [Mac; 2], tuple: &Tuple, segment: &Segment, head: &mut [u8; HEAD], fill: &Fill) {
    let (l4, payload) = (
        L3 + if tuple.v6 { 40 } else { 20 },
        header_len(tuple.v6, true),
    );
    let len = payload + segment.len as usize;
    head[..6].copy_from_slice(&macs[0].0);
    head[6..12].copy_from_slice(&macs[1].0);
    if tuple.v6 {
        head[12..14].copy_from_slice(&ethertype::IPV6.to_be_bytes());
        let l4_len = ((len - l4) as u16).to_be_bytes();
        head[L3..L3 + 8].copy_from_slice(&[
            0x60,
            0,
            0,
            0,
            l4_len[0],
            l4_len[1],
            protocol::TCP,
            TTL,
        ]);
        head[L3 + 8..L3 + 24].copy_from_slice(&tuple.src);
        head[L3 + 24..L3 + 40].copy_from_slice(&tuple.dst);
    } else {
        head[12..14].copy_from_slice(&ethertype::IPV4.to_be_bytes());
        let total = ((len - L3) as u16).to_be_bytes();
        let start = [
            0x45,
            0,
            total[0],
            total[1],
            0,
            0,
            0x40,
            0,
            TTL,
            protocol::TCP,
            0,
            0,
        ];
        head[L3..L3 + 12].copy_from_slice(&start);
        head[L3 + 12..L3 + 16].copy_from_slice(&tuple.src[..4]);
        head[L3 + 16..L3 + 20].copy_from_slice(&tuple.dst[..4]);
        let sum = Sum::default().plus_bytes(&head[L3..L3 + 20]).finish();
        head[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
    }
    head[l4..l4 + 2].copy_from_slice(&tuple.src_port.to_be_bytes());
    head[l4 + 2..l4 + 4].copy_from_slice(&tuple.dst_port.to_be_bytes());
    head[l4 + 4..l4 + 8].copy_from_slice(&segment.sequence.to_be_bytes());
    head[l4 + 8..l4 + 12].copy_from_slice(&segment.acknowledged.to_be_bytes());
    head[l4 + 12..l4 + 14].copy_from_slice(&[0x50, segment.flags]);
    head[l4 + 14..l4 + 16].copy_from_slice(&segment.window.to_be_bytes());
    head[l4 + 16..l4 + 20].fill(0);
    head[payload..].copy_from_slice(&fill.bytes()[payload..HEAD]);
    let sum = Sum::default()
        .plus_bytes(&head[l4..payload])
        .plus(fill.sum(payload, len).folded());
    let sum = transport_sum(tuple.address_sum(), protocol::TCP, len - l4, sum).finish();
    head[l4 + 16..l4 + 18].copy_from_slice(&sum.to_be_bytes());
}

/// A received frame's segment; `None` if it is something else, or damaged.
pub fn read(frame: &[u8], fill: &Fill) -> Option<(Tuple, Segment)> {
    let ty = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let mut tuple = Tuple {
        tcp: true,
        ..Tuple::default()
    };
    let (l4, end) = match ty {
        ethertype::IPV4 => {
            let ip = frame.get(L3..L3 + 20)?;
            let fragment = ip[6] & 0x3f != 0 || ip[7] != 0;
            let whole = !fragment && ip[0] == 0x45;
            if !whole || ip[9] != protocol::TCP || Sum::default().plus_bytes(ip).folded() != 0xffff
            {
                return None;
            }
            tuple.src[..4].copy_from_slice(&ip[12..16]);
            tuple.dst[..4].copy_from_slice(&ip[16..20]);
            (
                L3 + 20,
                L3 + usize::from(u16::from_be_bytes([ip[2], ip[3]])),
            )
        }
        ethertype::IPV6 => {
            let ip = frame.get(L3..L3 + 40)?;
            if ip[6] != protocol::TCP {
                return None;
            }
            tuple.v6 = true;
            tuple.src.copy_from_slice(&ip[8..24]);
            tuple.dst.copy_from_slice(&ip[24..40]);
            let len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            (L3 + 40, L3 + 40 + len)
        }
        _ => return None,
    };
    let tcp = frame.get(l4..end)?;
    if tcp.len() < 20 {
        return None;
    }
    let sum = transport_sum(
        tuple.address_sum(),
        protocol::TCP,
        tcp.len(),
        sum_of(frame, l4, end, fill),
    );
    if sum.folded() != 0xffff {
        return None;
    }
    let word = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
    let header = 4 * usize::from(tcp[12] >> 4);
    (tuple.src_port, tuple.dst_port) = (word(0), word(2));
    Some((
        tuple,
        Segment {
            sequence: long(4),
            acknowledged: long(8),
            flags: tcp[13],
            window: word(14),
            len: tcp.len().checked_sub(header.max(20))? as u32,
        },
    ))
}

/// The sum of a segment's bytes. That of a payload which is the fill's is known.
fn sum_of(frame: &[u8], l4: usize, end: usize, fill: &Fill) -> Sum {
    let payload = l4 + 20;
    if fill.bytes().get(payload..end) == frame.get(payload..end) {
        let header = Sum::default().plus_bytes(&frame[l4..payload]);
        return header.plus(fill.sum(payload, end).folded());
    }
    Sum::default().plus_bytes(&frame[l4..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::SlicedPacket;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_a_valid_segment_and_is_read(
            v6: bool, numbers: (u32, u32, u8, u16), len in 0u32..1460, ports: [u16; 2], bit in any::<prop::sample::Index>(),
        ) {
            let (fill, mut head) = (Fill::new(3), [0; HEAD]);
            let (sequence, acknowledged, flags, window) = numbers;
            let segment = Segment { sequence, acknowledged, flags, window, len };
            let mut tuple = Tuple { v6, tcp: true, src_port: ports[0], dst_port: ports[1], ..Tuple::default() };
            tuple.src[..4].fill(9);
            tuple.dst[..4].fill(7);
            write([Mac([2; 6]), Mac([4; 6])], &tuple, &segment, &mut head, &fill);
            let len = frame_len(&tuple, &segment);
            let mut frame = fill.bytes()[..len.max(HEAD)].to_vec();
            frame[..HEAD].copy_from_slice(&head);
            frame.truncate(len);
            prop_assert_eq!(read(&frame, &fill), Some((tuple, segment)));
            let copy = frame.clone();
            let sliced = SlicedPacket::from_ethernet(&copy).expect("valid");
            let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
            let header = tcp.to_header();
            let sum = match sliced.net {
                Some(etherparse::NetSlice::Ipv4(ip)) => {
                    prop_assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
                    header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload())
                }
                Some(etherparse::NetSlice::Ipv6(ip)) => header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()),
                _ => panic!("no IP"),
            };
            prop_assert_eq!(sum.ok(), Some(tcp.checksum()));
            // Padding is left out; a changed bit behind the IP header is found.
            let mut padded = frame.clone();
            padded.extend_from_slice(&[1, 2, 3]);
            prop_assert_eq!(read(&padded, &fill), Some((tuple, segment)));
            let l4 = if v6 { 54 } else { 34 };
            let bit = 8 * l4 + bit.index(8 * (len - l4));
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(read(&frame, &fill), None);
        }

        #[test]
        fn any_bytes_are_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if bytes.len() > 24 {
                bytes[12..14].copy_from_slice(&if v6 { ethertype::IPV6 } else { ethertype::IPV4 }.to_be_bytes());
                bytes[20] = protocol::TCP;
            }
            read(&bytes, &Fill::new(3));
        }
    }
}
