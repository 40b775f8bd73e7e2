//! Parser and setters against random packets, an independent parser, and naive checksums.

mod common;

use core::net::IpAddr;
use std::cell::RefCell;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::flow::key_of;

/// A packet of these bytes.
fn packet(bytes: &[u8]) -> Packet {
    thread_local! {
        // One for all cases: mapping memory takes longer than the tests.
        static POOL: RefCell<Pool> = RefCell::new(
            Pool::new(PoolConfig {
                small: 2,
                large: 0,
                huge_pages: HugePages::Never,
            })
            .unwrap(),
        );
    }
    POOL.with_borrow_mut(|pool| pool.copy_of(bytes)).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Udp,
    Echo,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Tcp), Just(Kind::Udp), Just(Kind::Echo)]
}

fn address(v6: bool, seed: u128) -> IpAddr {
    if v6 {
        IpAddr::V6(seed.into())
    } else {
        IpAddr::V4((seed as u32).into())
    }
}

/// A valid frame, with up to two VLAN tags.
fn frame(
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    kind: Kind,
    payload: &[u8],
    tags: &[u16],
) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 7),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 7),
        _ => unreachable!(),
    };
    let written = match (kind, ends.0) {
        (Kind::Tcp, _) => ip.tcp(ports.0, ports.1, 1, 2).write(&mut frame, payload),
        (Kind::Udp, _) => ip.udp(ports.0, ports.1).write(&mut frame, payload),
        (Kind::Echo, IpAddr::V4(_)) => ip
            .icmpv4_echo_request(ports.0, 1)
            .write(&mut frame, payload),
        (Kind::Echo, _) => ip
            .icmpv6_echo_request(ports.0, 1)
            .write(&mut frame, payload),
    };
    written.unwrap();
    for tag in tags {
        frame.splice(12..12, [0x81, 0, (tag >> 8) as u8, *tag as u8]);
    }
    frame
}

/// Makes the checksum of an IPv4 header right.
fn set_ip_sum(bytes: &mut [u8], l3: usize) {
    let len = ((bytes[l3] & 15) as usize * 4).clamp(20, bytes.len() - l3);
    bytes[l3 + 10..l3 + 12].fill(0);
    let sum = checksum(&bytes[l3..l3 + len]);
    bytes[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
}

prop_compose! {
    /// Valid packets, cut anywhere, and with lies in any of their bytes; behind a right header checksum, which lets the
    /// lies be seen.
    fn lies()(
        v6: bool, from: u128, to: u128, ports: (u16, u16), kind in kind(),
        payload in proptest::collection::vec(any::<u8>(), 0..60),
        tags in proptest::collection::vec(0u16..4096, 0..3),
        lies in proptest::collection::vec((0usize..120, any::<u8>()), 0..4),
        cut in proptest::option::of(0usize..140),
    ) -> Vec<u8> {
        let mut bytes = frame((address(v6, from), address(v6, to)), ports, kind, &payload, &tags);
        for (at, lie) in lies {
            let at = at % bytes.len();
            bytes[at] = lie;
        }
        let l3 = 14 + tags.len() * 4;
        if !v6 && bytes.len() >= l3 + 20 {
            set_ip_sum(&mut bytes, l3);
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        bytes
    }
}

/// The transport checksum over a packet as it is: 0 if it is right.
fn transport_sum(packet: &Packet) -> u16 {
    let layers = packet.layers();
    let message = &packet.data()[layers.l4 as usize..];
    let pseudo = match (packet.ip_src(), packet.ip_dst()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Pseudo::V4(from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => Pseudo::V6(from, to),
        _ => unreachable!(),
    };
    let sum = if layers.protocol == protocol::ICMP {
        Sum::default()
    } else {
        pseudo_header(pseudo, layers.protocol, message.len())
    };
    sum.plus_bytes(message).finish()
}

fn ip_sum(packet: &Packet) -> u16 {
    let l3 = packet.layers().l3 as usize;
    if packet.layers().is_ipv6() {
        0
    } else {
        checksum(&packet.data()[l3..l3 + 20])
    }
}

/// Reads every field there is.
fn read_all(packet: &Packet) {
    let _ = (packet.mac_src(), packet.mac_dst(), packet.ip_src());
    let _ = (packet.ip_dst(), packet.ttl(), packet.tcp_flags());
    let _ = (packet.icmp_type_code(), packet.ports(), packet.is_echo());
    let _ = (packet.wire_len(), key_of(packet, 1));
}

/// Writes every field there is.
fn write_all(packet: &mut Packet, to: IpAddr) {
    packet.set_ip_src(to);
    packet.set_ip_dst(to);
    packet.set_port_src(9);
    packet.set_port_dst(9);
    packet.decrement_ttl();
    packet.write_mac_src(Mac::BROADCAST);
    packet.write_mac_dst(Mac::BROADCAST);
}

proptest! {
    /// Whatever the bytes: no panic, and nothing beyond the packet's end is written.
    #[test]
    fn no_bytes_are_too_bad(bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool, to: u128) {
        let mut packet = packet(&bytes);
        if parse(&mut packet).is_ok() {
            read_all(&packet);
            write_all(&mut packet, address(v6, to));
            prop_assert!(packet.len() <= bytes.len());
        }
    }

    /// Valid packets, cut anywhere, and with lies in any of their bytes: no panic, and layers inside the packet.
    #[test]
    fn lies_are_survived(bytes in lies(), v6: bool, to: u128) {
        let mut packet = packet(&bytes);
        if parse(&mut packet).is_ok() {
            let layers = *packet.layers();
            prop_assert!(usize::from(layers.l3) <= packet.len());
            prop_assert!(usize::from(layers.payload) <= packet.len());
            prop_assert!(!layers.has_transport() || (layers.l3 < layers.l4 && layers.l4 < layers.payload));
            read_all(&packet);
            write_all(&mut packet, address(v6, to));
        }
    }

    #[test]
    fn valid_packets_are_seen_as_etherparse_sees_them(
        v6: bool, from: u128, to: u128, ports: (u16, u16), kind in kind(),
        payload in proptest::collection::vec(any::<u8>(), 0..60),
        tags in proptest::collection::vec(0u16..4096, 0..3),
        padding in 0usize..20,
    ) {
        let (from, to) = (address(v6, from), address(v6, to));
        let mut bytes = frame((from, to), ports, kind, &payload, &tags);
        let whole = bytes.len();
        bytes.resize(whole + padding, 0xee);
        let mut packet = packet(&bytes);
        prop_assert_eq!(parse(&mut packet), Ok(()));
        prop_assert_eq!(packet.len(), whole);
        let oracle = SlicedPacket::from_ethernet(&bytes).unwrap();
        let l3 = 14 + tags.len() * 4;
        prop_assert_eq!(usize::from(packet.layers().l3), l3);
        prop_assert_eq!(packet.layers().vlan, tags.last().copied().unwrap_or(0));
        let (src, dst, header) = match oracle.net.unwrap() {
            NetSlice::Ipv4(v4) => (v4.header().source_addr().into(), v4.header().destination_addr().into(), 20),
            NetSlice::Ipv6(v6) => (v6.header().source_addr().into(), v6.header().destination_addr().into(), 40),
            NetSlice::Arp(_) => unreachable!(),
        };
        prop_assert_eq!((packet.ip_src(), packet.ip_dst()), (src, dst));
        let (seen, len) = match oracle.transport.unwrap() {
            TransportSlice::Tcp(tcp) => ((tcp.source_port(), tcp.destination_port()), 20),
            TransportSlice::Udp(udp) => ((udp.source_port(), udp.destination_port()), 8),
            _ => ((ports.0, ports.0), 8),
        };
        prop_assert_eq!(packet.ports(), Some(seen));
        prop_assert_eq!(usize::from(packet.layers().l4), l3 + header);
        prop_assert_eq!(usize::from(packet.layers().payload), l3 + header + len);
        prop_assert_eq!((ip_sum(&packet), transport_sum(&packet)), (0, 0));
    }

    #[test]
    fn setters_keep_checksums_right(
        v6: bool, from: u128, to: u128, ports: (u16, u16), kind in kind(), new: (u128, u128, u16, u16),
        payload in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let bytes = frame((address(v6, from), address(v6, to)), ports, kind, &payload, &[]);
        let mut packet = packet(&bytes);
        parse(&mut packet).unwrap();
        let (src, dst) = (address(v6, new.0), address(v6, new.1));
        packet.set_ip_src(src);
        packet.set_ip_dst(dst);
        packet.set_port_src(new.2);
        packet.set_port_dst(new.3);
        (0..3).for_each(|_| packet.decrement_ttl());
        prop_assert_eq!((packet.ip_src(), packet.ip_dst(), packet.ttl()), (src, dst, 4));
        let wanted = if packet.is_echo() { (new.3, new.3) } else { (new.2, new.3) };
        prop_assert_eq!(packet.ports(), Some(wanted));
        prop_assert_eq!((ip_sum(&packet), transport_sum(&packet)), (0, 0));
        if let Kind::Udp = kind {
            let at = packet.layers().l4 as usize + 6;
            prop_assert_ne!(&packet.data()[at..at + 2], &[0, 0], "a sum of 0 would mean that there is none");
        }
    }

    /// The checksum that a sender left is that of the new addresses and ports, once it is completed.
    #[test]
    fn setters_keep_unfinished_checksums_right(
        v6: bool, from: u128, to: u128, ports: (u16, u16), kind in kind(), new: (u128, u128, u16, u16),
        payload in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let bytes = frame((address(v6, from), address(v6, to)), ports, kind, &payload, &[]);
        let mut packet = packet(&bytes);
        parse(&mut packet).unwrap();
        let l4 = packet.layers().l4 as usize;
        let field = l4 + match kind { Kind::Tcp => 16, Kind::Udp => 6, Kind::Echo => 2 };
        leave_checksum(&mut packet, l4, field);
        packet.set_ip_src(address(v6, new.0));
        packet.set_port_src(new.2);
        packet.set_ip_dst(address(v6, new.1));
        packet.set_port_dst(new.3);
        let sum = Sum::default().plus_bytes(&packet.data()[l4..]).finish();
        packet.data_mut()[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        prop_assert_eq!((ip_sum(&packet), transport_sum(&packet)), (0, 0));
    }
}

/// Puts the pseudo-header's sum into the checksum field, as a sender does who leaves the rest.
fn leave_checksum(packet: &mut Packet, l4: usize, field: usize) {
    packet.data_mut()[field..field + 2].fill(0);
    let len = packet.len() - l4;
    let protocol = packet.layers().protocol;
    let pseudo = match (packet.ip_src(), packet.ip_dst()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Pseudo::V4(from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => Pseudo::V6(from, to),
        _ => unreachable!(),
    };
    let sum = if protocol == self::protocol::ICMP {
        0
    } else {
        pseudo_header(pseudo, protocol, len).folded()
    };
    packet.data_mut()[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    *packet.offload_mut() = Offload {
        needs_checksum: true,
        checksum_start: l4 as u16,
        checksum_offset: (field - l4) as u16,
        ..Offload::default()
    };
}

#[test]
fn a_tunnels_own_checksum_is_complete_while_the_inner_one_is_not() {
    let ends = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let bytes = frame(ends, (1, 4789), Kind::Udp, &[7; 80], &[]);
    for zero in [false, true] {
        let mut packet = packet(&bytes);
        parse(&mut packet).unwrap();
        let l4 = packet.layers().l4 as usize;
        if zero {
            packet.data_mut()[l4 + 6..l4 + 8].fill(0);
        }
        *packet.offload_mut() = Offload {
            needs_checksum: true,
            checksum_start: l4 as u16 + 50,
            checksum_offset: 16,
            ..Offload::default()
        };
        packet.set_ip_src([192, 0, 2, 9].into());
        packet.set_port_src(4000);
        if zero {
            assert_eq!(packet.data()[l4 + 6..l4 + 8], [0, 0]);
        } else {
            assert_eq!(transport_sum(&packet), 0);
        }
    }
}

#[test]
fn a_udp_sum_of_zero_becomes_all_ones() {
    let ends = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let mut seen = false;
    for port in 0..=u16::MAX {
        let mut packet = packet(&frame(ends, (1, 2), Kind::Udp, b"ab", &[]));
        parse(&mut packet).unwrap();
        packet.set_port_src(port);
        let at = packet.layers().l4 as usize + 6;
        let field = u16::from_be_bytes([packet.data()[at], packet.data()[at + 1]]);
        assert_ne!(field, 0);
        if field == 0xffff {
            assert_eq!(transport_sum(&packet), 0);
            seen = true;
            break;
        }
    }
    assert!(seen, "some port has that sum");
}

/// Against the sum made anew, for every checksum there is: its two zeros are told apart as the sum does.
#[test]
fn a_lower_ttl_has_the_checksum_that_is_computed() {
    let bytes = frame(
        (address(false, 1), address(false, 2)),
        (1, 2),
        Kind::Udp,
        b"",
        &[],
    );
    let mut packet = packet(&bytes);
    parse(&mut packet).unwrap();
    for (id, ttl) in (0..=u16::MAX).flat_map(|id| [1, 2, 64, 255].map(|ttl| (id, ttl))) {
        let header = &mut packet.data_mut()[14..34];
        header[4..6].copy_from_slice(&id.to_be_bytes());
        header[8] = ttl;
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.decrement_ttl();
        let header = &mut packet.data_mut()[14..34];
        let found = [header[10], header[11]];
        header[10..12].fill(0);
        assert_eq!(
            (header[8], found),
            (ttl - 1, checksum(header).to_be_bytes())
        );
    }
    packet.data_mut()[22] = 0;
    let before = packet.data().to_vec();
    packet.decrement_ttl();
    assert_eq!(packet.data(), before, "0 stays 0");
}
