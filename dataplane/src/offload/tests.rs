use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::segment::{MAX_PIECES, most_pieces};
use super::*;
use crate::packet::{HugePages, Offload, Pool, PoolConfig, tcp_flag};
use crate::port::{PortTally, PortTallyReader};
use crate::time::Time;

/// A port that completes nothing itself and keeps what it gets.
#[derive(Default)]
struct Sink {
    able: Offloads,
    got: Vec<Vec<u8>>,
}

impl Port for Sink {
    fn receive(&mut self, _cx: &mut PortContext<'_>, _batch: &mut Batch) {}

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        for packet in batch.drain(..) {
            cx.tally.sent(1, packet.len() as u64);
            self.got.push(packet.data().to_vec());
        }
    }

    fn offloads(&self) -> Offloads {
        self.able
    }
}

fn pool(small: usize) -> Pool {
    let huge_pages = HugePages::Never;
    Pool::new(PoolConfig {
        small,
        large: 8,
        huge_pages,
    })
    .unwrap()
}

fn send_with(
    pool: &mut Pool,
    able: Offloads,
    packets: &[(Vec<u8>, Offload)],
) -> (Vec<Vec<u8>>, PortTallyReader) {
    let tally = PortTally::default();
    let mut batch = Batch::new();
    for (bytes, offload) in packets {
        let mut packet = pool.copy_of(bytes).unwrap();
        *packet.offload_mut() = *offload;
        batch.push(packet);
    }
    let mut sink = Sink {
        able,
        got: Vec::new(),
    };
    let mut cx = PortContext::new(pool, &tally, Time(0));
    complete_and_send(&mut sink, &mut cx, &mut batch);
    assert!(batch.is_empty());
    (sink.got, tally.reader())
}

fn send(packets: &[(Vec<u8>, Offload)]) -> (Vec<Vec<u8>>, PortTallyReader) {
    send_with(&mut pool(512), Offloads::default(), packets)
}

fn drops(tally: &PortTallyReader, reason: PortDrop) -> u64 {
    tally.at(PortCounter::INFO.len() + reason as usize)
}

fn conserved(tally: &PortTallyReader, packets: u64) -> bool {
    let all_drops: u64 = (0..PortDrop::INFO.len())
        .map(|reason| tally.at(PortCounter::INFO.len() + reason))
        .sum();
    let ends = tally.get(PortCounter::TxPackets) + all_drops + tally.get(PortCounter::Consumed);
    packets + tally.get(PortCounter::Created) == ends
}

/// A TCP or UDP packet over either IP, with a checksum that is left to be completed, to be cut if `size` is not 0.
fn large(v6: bool, udp: bool, flags: u8, payload: &[u8], size: u16) -> (Vec<u8>, Offload) {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let network = if v6 {
        link.ipv6([0xfd; 16], [0xfc; 16], 64)
    } else {
        link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    };
    let mut bytes = Vec::new();
    if udp {
        network.udp(1000, 2000).write(&mut bytes, payload).unwrap();
    } else {
        let mut tcp = network.tcp(1000, 2000, 0xffff_ff00, 512).ack(77);
        tcp = tcp
            .options(&[etherparse::TcpOptionElement::Timestamp(1, 2)])
            .unwrap();
        tcp.write(&mut bytes, payload).unwrap();
    }
    let l4 = if v6 { 54 } else { 34 };
    if !udp {
        bytes[l4 + 13] = flags;
    }
    let offset = if udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
    // What a driver leaves in the field: the pseudo-header's sum.
    let addresses = if v6 { 22..54 } else { 26..34 };
    let sum = Sum::default()
        .plus_bytes(&bytes[addresses])
        .plus(if udp { 17 } else { 6 })
        .plus((bytes.len() - l4) as u16)
        .folded();
    let field = l4 + offset as usize;
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    let gso = match (size, udp, v6) {
        (0, ..) => Gso::None,
        (_, true, _) => Gso::Udp,
        (_, false, true) => Gso::Tcp6,
        (_, false, false) => Gso::Tcp4,
    };
    let offload = Offload {
        needs_checksum: true,
        ecn: flags & tcp_flag::CWR != 0,
        gso,
        gso_size: size,
        checksum_start: l4 as u16,
        checksum_offset: offset,
        ..Offload::default()
    };
    (bytes, offload)
}

/// What a piece says of itself, read by somebody else's parser, all checksums verified.
struct Piece {
    payload: Vec<u8>,
    sequence: u32,
    flags: u8,
    id: u16,
}

fn read(bytes: &[u8]) -> Piece {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let (id, expect) = match (sliced.net.unwrap(), sliced.transport.as_ref().unwrap()) {
        (NetSlice::Ipv4(ip), transport) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(header.total_len as usize, bytes.len() - 14);
            let expect = match transport {
                TransportSlice::Tcp(tcp) => {
                    tcp.to_header().calc_checksum_ipv4(&header, tcp.payload())
                }
                TransportSlice::Udp(udp) => {
                    udp.to_header().calc_checksum_ipv4(&header, udp.payload())
                }
                other => panic!("{other:?}"),
            };
            (header.identification, expect.unwrap())
        }
        (NetSlice::Ipv6(ip), transport) => {
            let header = ip.header().to_header();
            assert_eq!(header.payload_length as usize, bytes.len() - 54);
            let expect = match transport {
                TransportSlice::Tcp(tcp) => {
                    tcp.to_header().calc_checksum_ipv6(&header, tcp.payload())
                }
                TransportSlice::Udp(udp) => {
                    udp.to_header().calc_checksum_ipv6(&header, udp.payload())
                }
                other => panic!("{other:?}"),
            };
            (0, expect.unwrap())
        }
        (other, _) => panic!("{other:?}"),
    };
    match sliced.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            assert_eq!(tcp.checksum(), expect);
            let flags = tcp.slice()[13];
            let payload = tcp.payload().to_vec();
            Piece {
                payload,
                sequence: tcp.sequence_number(),
                flags,
                id,
            }
        }
        TransportSlice::Udp(udp) => {
            assert_eq!(udp.checksum(), expect);
            assert_eq!(udp.length() as usize, udp.payload().len() + 8);
            Piece {
                payload: udp.payload().to_vec(),
                sequence: 0,
                flags: 0,
                id,
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_becomes_packets() {
    use tcp_flag::{ACK, CWR, FIN, PSH};
    let payload: Vec<u8> = (0..3500u32).map(|i| i as u8).collect();
    let (got, tally) = send(&[large(false, false, ACK | PSH | FIN | CWR, &payload, 1448)]);
    let pieces: Vec<_> = got.iter().map(|bytes| read(bytes)).collect();
    let flags: Vec<_> = pieces.iter().map(|piece| piece.flags).collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | PSH | FIN]);
    let sequences: Vec<_> = pieces.iter().map(|piece| piece.sequence).collect();
    assert_eq!(sequences, [0xffff_ff00, 1192, 2640]);
    assert_eq!(tally.get(PortCounter::Created), 3);
    assert_eq!(tally.get(PortCounter::Consumed), 1);
    assert!(conserved(&tally, 1));
}

#[test]
fn a_capable_port_gets_the_segment_whole() {
    let packet = large(false, false, tcp_flag::ACK, &[7; 4000], 1448);
    let able = Offloads {
        checksum: true,
        tcp4: true,
        ..Offloads::default()
    };
    let (got, tally) = send_with(&mut pool(8), able, std::slice::from_ref(&packet));
    assert_eq!(got, [packet.0]);
    assert_eq!(tally.get(PortCounter::Created), 0);
}

#[test]
fn a_train_stays_whole_where_its_ip_version_is_known() {
    for (v6, able) in [(false, true), (false, false), (true, true), (true, false)] {
        let packet = large(v6, true, 0, &[7; 4000], 1448);
        let able = Offloads {
            checksum: true,
            udp4: v6 != able,
            udp6: v6 == able,
            ..Offloads::default()
        };
        let whole = if v6 { able.udp6 } else { able.udp4 };
        let (got, tally) = send_with(&mut pool(8), able, std::slice::from_ref(&packet));
        assert_eq!(got.len(), if whole { 1 } else { 3 }, "{able:?}");
        assert_eq!(got[0] == packet.0, whole);
        assert!(conserved(&tally, 1));
    }
}

/// On a link from port to port nobody has parsed the packet, and a guest's peer is not to get its lies.
#[test]
fn a_segment_that_is_none_reaches_no_capable_port() {
    let tcp = large(false, false, tcp_flag::ACK, &[7; 4000], 1448);
    let udp = large(true, true, 0, &[7; 4000], 1448);
    let not_ip = {
        let mut bytes = tcp.0.clone();
        bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
        (bytes, tcp.1)
    };
    let with =
        |(bytes, offload): &(Vec<u8>, Offload), gso| (bytes.clone(), Offload { gso, ..*offload });
    let lies = [
        with(&tcp, Gso::Tcp6),
        with(&tcp, Gso::Udp),
        with(&udp, Gso::Tcp6),
        (tcp.0[..50].to_vec(), tcp.1),
        not_ip,
    ];
    for lie in lies {
        let (got, tally) = send_with(&mut pool(8), Offloads::ALL, std::slice::from_ref(&lie));
        assert!(got.is_empty(), "{:?}", lie.1);
        assert_eq!(drops(&tally, PortDrop::BadOffload), 1);
    }
    let (got, _) = send_with(&mut pool(8), Offloads::ALL, &[tcp.clone(), udp.clone()]);
    assert_eq!(got, [tcp.0, udp.0]);
}

/// Who leaves a sum in ARP wants it in the addresses, behind the back of a function that has looked at them.
#[test]
fn arp_has_no_checksum() {
    let mut bytes = vec![2; 60];
    bytes[12..14].copy_from_slice(&[8, 6]);
    let offload = Offload {
        needs_checksum: true,
        checksum_start: 14,
        checksum_offset: 14,
        ..Offload::default()
    };
    let (got, tally) = send(&[(bytes, offload)]);
    assert!(got.is_empty());
    assert_eq!(drops(&tally, PortDrop::BadOffload), 1);
}

#[test]
fn ecn_is_cut_where_the_port_does_not_know_it() {
    let packet = large(
        false,
        false,
        tcp_flag::ACK | tcp_flag::CWR,
        &[7; 4000],
        1448,
    );
    let able = Offloads {
        checksum: true,
        tcp4: true,
        ..Offloads::default()
    };
    let (got, _) = send_with(&mut pool(8), able, &[packet]);
    assert_eq!(got.len(), 3);
}

#[test]
fn order_is_kept_across_batches() {
    let many = large(true, false, tcp_flag::ACK, &vec![1; 60_000], 500);
    let plain = large(false, true, 0, b"plain", 0);
    let (got, tally) = send(&[plain.clone(), many, plain]);
    assert_eq!(got.len(), 122);
    assert_eq!(read(&got[0]).payload, b"plain");
    assert_eq!(read(&got[121]).payload, b"plain");
    assert_eq!(tally.get(PortCounter::Checksummed), 122);
    assert!(conserved(&tally, 3));
}

#[test]
fn without_buffers_the_rest_is_dropped() {
    let packet = large(false, false, tcp_flag::ACK, &[1; 14_480], 1448);
    let mut pool = pool(4);
    let (got, tally) = send_with(&mut pool, Offloads::default(), &[packet]);
    assert_eq!(got.len(), 4);
    assert_eq!(drops(&tally, PortDrop::NoBuffer), 6);
    assert!(conserved(&tally, 1));
    assert_eq!(pool.free(), [4, 8]);
}

#[test]
fn requests_that_make_no_sense_are_dropped() {
    let good = large(false, false, tcp_flag::ACK, &[1; 4000], 1448);
    let with = |change: fn(&mut Offload)| {
        let (bytes, mut offload) = good.clone();
        change(&mut offload);
        (bytes, offload)
    };
    let bad = [
        with(|o| o.gso = Gso::Tcp6),
        with(|o| o.gso = Gso::Udp),
        with(|o| o.checksum_start = 14),
        with(|o| o.checksum_start = 0xffff),
        with(|o| o.checksum_offset = 0xffff),
        // The destination port as the place for a sum that the sender chooses.
        with(|o| (o.gso, o.checksum_offset) = (Gso::None, 2)),
        with(|o| (o.gso, o.checksum_start, o.checksum_offset) = (Gso::None, 0, 36)),
    ];
    for packet in bad {
        let (got, tally) = send(std::slice::from_ref(&packet));
        assert!(got.is_empty(), "{:?}", packet.1);
        assert_eq!(drops(&tally, PortDrop::BadOffload), 1);
        assert!(conserved(&tally, 1));
    }
    let impossible = [
        with(|o| o.gso_size = 0),
        with(|o| o.gso_size = (4000 / (MAX_PIECES + 1)) as u16),
        large(false, false, tcp_flag::ACK, &[1; 256], 1),
        large(false, false, tcp_flag::SYN, &[1; 4000], 1448),
        large(false, false, tcp_flag::ACK, &[], 1448),
    ];
    for packet in impossible {
        let (got, tally) = send(std::slice::from_ref(&packet));
        assert!(got.is_empty(), "{:?}", packet.1);
        assert_eq!(drops(&tally, PortDrop::Offload), 1);
        assert!(conserved(&tally, 1));
    }
}

#[test]
fn an_inner_packets_checksum_is_completed() {
    let (inner, request) = large(false, true, 0, b"inner", 0);
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([2; 6], [2; 6])
        .ipv4([1; 4], [2; 4], 9)
        .udp(4789, 4789)
        .write(&mut bytes, &[&[0; 8][..], &inner].concat())
        .unwrap();
    let outer_checksum = 40..42;
    bytes[outer_checksum].copy_from_slice(&[0, 0]);
    let start = request.checksum_start + 50;
    let (got, _) = send(&[(
        bytes,
        Offload {
            checksum_start: start,
            ..request
        },
    )]);
    assert_eq!(read(&got[0][50..]).payload, b"inner");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pieces_carry_what_the_original_did(
        v6: bool, udp: bool, flags in any::<u8>(), size in 1u16..4000,
        payload in proptest::collection::vec(any::<u8>(), 1..9000),
    ) {
        let flags = flags & !(tcp_flag::SYN | tcp_flag::RST | tcp_flag::URG);
        let count = payload.len().div_ceil(size as usize);
        let (got, tally) = send(&[large(v6, udp, flags, &payload, size)]);
        prop_assert!(conserved(&tally, 1));
        if count > most_pieces(payload.len()) {
            prop_assert!(got.is_empty());
            return Ok(());
        }
        prop_assert_eq!(got.len(), count);
        let mut joined = Vec::new();
        for (index, bytes) in got.iter().enumerate() {
            let piece = read(bytes);
            if !udp {
                prop_assert_eq!(piece.sequence, 0xffff_ff00u32.wrapping_add(joined.len() as u32));
            }
            if !v6 {
                prop_assert_eq!(piece.id, index as u16);
            }
            prop_assert!(piece.payload.len() <= size as usize);
            joined.extend(piece.payload);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn any_request_is_survived(
        v6: bool, udp: bool, cut in 0usize..300, gso in 0u8..4, size: u16, start: u16, offset: u16, near: bool,
    ) {
        let (mut bytes, mut offload) = large(v6, udp, 0xff, &[9; 200], 0);
        bytes.truncate(cut);
        offload.gso = [Gso::None, Gso::Tcp4, Gso::Tcp6, Gso::Udp][gso as usize];
        offload.gso_size = size;
        if near {
            offload.checksum_start = start % 300;
            offload.checksum_offset = offset % 300;
        } else {
            offload.checksum_start = start;
            offload.checksum_offset = offset;
        }
        let (_, tally) = send(&[(bytes, offload)]);
        prop_assert!(conserved(&tally, 1));
    }
}
