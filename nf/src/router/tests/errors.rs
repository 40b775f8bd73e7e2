//! ICMP errors: when, to whom, how long, how many, and when never.

use core::net::IpAddr;

use chainplane_dataplane::packet::{Gso, Mac, Offload};
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, Ipv4Packet, Ipv6Packet};

use super::fixture::*;

/// Checks an error about `about` from the router's address beside the sender; type, code, and the last four bytes
/// of its header.
#[track_caller]
fn read(frame: &[u8], about: &[u8], own: &str) -> ([u8; 2], u32) {
    let own: IpAddr = own.parse().unwrap();
    let (l4, quoted) = match own {
        IpAddr::V4(own) => {
            let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
            assert!(ip.verify_checksum());
            assert!(
                Icmpv4Packet::new_checked(ip.payload())
                    .unwrap()
                    .verify_checksum()
            );
            assert_eq!((ip.src_addr(), &frame[30..34]), (own, &about[26..30]));
            assert!(ip.total_len() <= 576);
            (34, (about.len() - 14).min(576 - 28))
        }
        IpAddr::V6(own) => {
            let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
            let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
            assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
            assert_eq!((ip.src_addr(), &frame[38..54]), (own, &about[22..38]));
            assert!(ip.total_len() <= 1280);
            (54, (about.len() - 14).min(1280 - 48))
        }
    };
    assert_eq!(
        frame[l4 + 8..],
        about[14..14 + quoted],
        "the packet as it came"
    );
    (
        [frame[l4], frame[l4 + 1]],
        u32::from_be_bytes(frame[l4 + 4..l4 + 8].try_into().unwrap()),
    )
}

#[test]
fn a_packet_that_lived_too_long_is_reported() {
    let mut net = Net::acquainted(Some(64));
    for (dst, own, kind) in [
        ("10.0.2.2", "10.0.1.1", [11, 0]),
        ("fd00:2::2", "fd00:1::1", [3, 0]),
    ] {
        // The flow is known already: a record does not serve the last hop.
        net.one(A, &Udp::from(A, dst).frame());
        for ttl in [1, 0] {
            let sent = Udp {
                ttl,
                ..Udp::from(A, dst)
            }
            .frame();
            let (port, frame) = net.one(A, &sent);
            assert_eq!((port, read(&frame, &sent, own)), (A, (kind, 0)));
            assert_eq!(frame[..6], HOST[A].0);
        }
    }
    assert_eq!(
        (net.value("ttl-exceeded"), net.value("icmp-errors")),
        (4, 4)
    );
}

#[test]
fn no_route_is_reported() {
    let mut net = Net::acquainted(None);
    let sent = Udp::from(A, "2001:db8::1").frame();
    let (_, frame) = net.one(A, &sent);
    assert_eq!(read(&frame, &sent, "fd00:1::1"), ([1, 0], 0));
    let mut net = Net::of(
        &CONFIG.replace(r#"{ "to": "0.0.0.0/0", "via": "198.51.100.1" },"#, ""),
        None,
    );
    net.introduce();
    let sent = Udp::from(A, "192.0.2.1").frame();
    let (_, frame) = net.one(A, &sent);
    assert_eq!(read(&frame, &sent, "10.0.1.1"), ([3, 0], 0));
    assert_eq!(net.value("no-route"), 1);
}

#[test]
fn a_packet_too_long_for_the_next_link_is_reported_with_its_mtu() {
    let mut net = Net::acquainted(Some(64));
    let dont_fragment = |frame| patched(frame, 20, &[0x40, 0]);
    for (dst, own, kind, header) in [
        ("10.0.2.2", "10.0.1.1", [3, 4], 28),
        ("fd00:2::2", "fd00:1::1", [2, 0], 48),
    ] {
        let of = |len| {
            let frame = Udp {
                len,
                ..Udp::from(A, dst)
            }
            .frame();
            if header == 28 {
                dont_fragment(frame)
            } else {
                frame
            }
        };
        assert_eq!(net.one(A, &of(1400 - header)).0, B, "just fits");
        let sent = of(1401 - header);
        let (port, frame) = net.one(A, &sent);
        assert_eq!(
            (port, read(&frame, &sent, own)),
            (A, (kind, 1400)),
            "a byte more"
        );
    }
    // It may be cut, which the router does not do: its sender is not told that it must not be so long.
    let long = Udp {
        len: 1400,
        ..Udp::from(A, "10.0.2.2")
    };
    net.dropped(A, &patched(long.frame(), 20, &[0, 0]), "too-long");
}

#[test]
fn a_large_segment_is_measured_by_its_pieces() {
    let mut net = Net::acquainted(None);
    let tcp = |len: usize| {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2(HOST[A].0, OWN[A].0)
            .ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64)
            .tcp(1000, 2000, 1, 1000)
            .ack(1)
            .write(&mut frame, &vec![7; len])
            .unwrap();
        patched(frame, 20, &[0x40, 0])
    };
    let offload = |gso_size| Offload {
        gso: Gso::Tcp4,
        gso_size,
        needs_checksum: true,
        checksum_start: 34,
        checksum_offset: 16,
        header_len: 54,
        ..Offload::default()
    };
    net.sim.inject_with(A, &tcp(4000), offload(1360));
    net.sim.run();
    assert_eq!((net.value("forwarded"), net.value("too-long")), (1, 0));
    net.collect();
    net.sim.inject_with(A, &tcp(4000), offload(1361));
    net.sim.run();
    assert_eq!((net.value("forwarded"), net.value("too-long")), (1, 1));
    let out = net.collect();
    assert_eq!(
        (out[0].0, &out[0].1[34..36], &out[0].1[40..42]),
        (A, &[3, 4][..], &[5, 120][..])
    );
}

#[test]
fn a_train_of_datagrams_is_measured_by_one() {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(HOST[A].0, OWN[A].0)
        .ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64)
        .udp(1000, 2000)
        .write(&mut frame, &[7; 4000])
        .unwrap();
    let train = |gso_size| Offload {
        gso: Gso::Udp,
        gso_size,
        needs_checksum: true,
        checksum_start: 34,
        checksum_offset: 6,
        ..Offload::default()
    };
    // With a flow table the second hits the record of the first, and the third meets its guard.
    for flows in [None, Some(64)] {
        let mut net = Net::acquainted(flows);
        for gso_size in [1372, 1372, 1373] {
            net.sim.inject_with(A, &frame, train(gso_size));
            net.sim.run();
        }
        assert_eq!((net.value("forwarded"), net.value("too-long")), (2, 1));
    }
}

#[test]
fn what_its_own_addresses_do_not_serve_is_reported() {
    let mut net = Net::acquainted(None);
    let sent = Udp::from(A, "10.0.2.1").frame();
    let (_, frame) = net.one(A, &sent);
    assert_eq!(
        read(&frame, &sent, "10.0.2.1"),
        ([3, 3], 0),
        "from the address that was tried"
    );
    let sent = Udp::from(A, "fd00:1::1").frame();
    let (_, frame) = net.one(A, &sent);
    assert_eq!(read(&frame, &sent, "fd00:1::1"), ([1, 4], 0));
    let sent = patched(Udp::from(A, "10.0.1.1").frame(), 23, &[47]);
    let (_, frame) = net.one(A, &sent);
    assert_eq!(read(&frame, &sent, "10.0.1.1"), ([3, 2], 0));
    let mut sent = Udp::from(A, "fd00:1::1").frame();
    sent[20] = 47;
    let (_, frame) = net.one(A, &sent);
    assert_eq!(read(&frame, &sent, "fd00:1::1"), ([4, 1], 6));
    assert_eq!(net.value("not-served"), 4);
}

#[test]
fn nothing_is_reported_about_errors_fragments_and_groups() {
    let mut net = Net::acquainted(None);
    let expired = |dst: &str| Udp {
        ttl: 1,
        ..Udp::from(A, dst)
    };
    let kind = |frame: Vec<u8>, at: usize, kind: u8| {
        let mut frame = frame;
        frame[at] = kind;
        frame
    };
    for icmp in [3, 4, 5, 11, 12] {
        net.dropped(
            A,
            &kind(expired("10.0.2.2").echo(), 34, icmp),
            "ttl-exceeded",
        );
    }
    for icmp in [1, 2, 3, 4, 100, 137] {
        net.dropped(
            A,
            &kind(expired("fd00:2::2").echo(), 54, icmp),
            "ttl-exceeded",
        );
    }
    let later = patched(expired("10.0.2.2").frame(), 20, &[0, 1]);
    net.dropped(A, &later, "ttl-exceeded");
    net.dropped(A, &expired("10.0.2.255").frame(), "broadcast");
    let group = Udp {
        mac_dst: Mac::BROADCAST,
        ..expired("10.0.2.2")
    };
    net.dropped(A, &group.frame(), "unicast-in-broadcast");
    let nobody = Udp {
        src: v4(0, 0, 0, 0).into(),
        ..expired("10.0.2.2")
    };
    net.dropped(A, &nobody.frame(), "martian-source");
    // To the router itself: no answer to an answer, nor to half a packet.
    net.dropped(
        A,
        &kind(Udp::from(A, "10.0.1.1").echo(), 34, 0),
        "not-served",
    );
    net.dropped(
        A,
        &patched(Udp::from(A, "10.0.1.1").echo(), 20, &[0x20, 0]),
        "not-served",
    );
    assert_eq!(net.value("icmp-errors"), 0);
    // But a first fragment is, and an echo request.
    net.one(A, &patched(expired("10.0.2.2").frame(), 20, &[0x20, 0]));
    net.one(A, &expired("10.0.2.2").echo());
}

#[test]
fn errors_are_limited() {
    let mut net = Net::acquainted(Some(64));
    let sent = Udp {
        ttl: 1,
        ..Udp::from(A, "10.0.2.2")
    }
    .frame();
    let answers: usize = (0..200).map(|_| net.send(A, &sent).len()).sum();
    assert_eq!(answers, 50);
    assert_eq!(net.value("icmp-errors-limited"), 150);
    net.wait(1);
    assert_eq!(net.send(A, &sent).len(), 1);
}
