//! Packets that get through, and those that do not.

use chainplane_dataplane::packet::Mac;
use smoltcp::wire::{EthernetFrame, Ipv4Packet, Ipv6Packet};

use super::fixture::*;
use crate::track::testing::with_partial_inside;

fn macs(frame: &[u8]) -> (Mac, Mac) {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    (Mac(frame.src_addr().0), Mac(frame.dst_addr().0))
}

#[test]
fn a_packet_is_forwarded_with_new_macs_and_one_hop_less() {
    let mut net = Net::acquainted(None);
    for dst in ["10.0.2.2", "fd00:2::2", "10.9.1.1", "fd00:9:1::1"] {
        let sent = Udp::from(A, dst);
        let (port, frame) = net.one(A, &sent.frame());
        assert_eq!((port, macs(&frame)), (B, (OWN[B], HOST[B])));
        let expected = Udp {
            mac_src: OWN[B],
            mac_dst: HOST[B],
            ttl: 63,
            ..sent
        };
        assert_eq!(frame, expected.frame(), "{dst}");
    }
    assert_eq!(net.value("forwarded"), 4);
}

#[test]
fn the_default_route_leads_to_a_configured_neighbour() {
    let mut net = Net::acquainted(None);
    let (port, frame) = net.one(A, &Udp::from(A, "8.8.8.8").frame());
    assert_eq!((port, macs(&frame)), (C, (OWN[C], HOST[C])));
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!(ip.hop_limit(), 63);
}

#[test]
fn a_packet_may_leave_by_the_interface_it_came_in_by() {
    let mut net = Net::acquainted(None);
    let (port, frame) = net.one(B, &Udp::from(B, "10.9.1.1").frame());
    assert_eq!((port, macs(&frame)), (B, (OWN[B], HOST[B])));
}

#[test]
fn fragments_and_options_are_forwarded_as_they_are() {
    let mut net = Net::acquainted(Some(64));
    let fragment = patched(Udp::from(A, "10.0.2.2").frame(), 20, &[0x00, 0x10]);
    for _ in 0..2 {
        let (port, frame) = net.one(A, &fragment);
        assert_eq!((port, &frame[20..22]), (B, &[0x00, 0x10][..]));
    }
    let mut options = Udp::from(A, "10.0.2.2").frame();
    options.splice(34..34, [1, 1, 1, 0]);
    let len = (options.len() - 14) as u16;
    options = patched(options, 14, &[0x46]);
    options = patched(options, 16, &len.to_be_bytes());
    for _ in 0..2 {
        let (_, frame) = net.one(A, &options);
        assert_eq!(frame[34..], options[34..]);
        assert!(
            Ipv4Packet::new_checked(&frame[14..])
                .unwrap()
                .verify_checksum()
        );
    }
    assert_eq!(net.engine("flow-installed"), 0);
}

#[test]
fn ping_on_every_own_address_is_answered() {
    let mut net = Net::acquainted(None);
    for dst in [
        "10.0.1.1",
        "10.0.2.1",
        "198.51.100.2",
        "fd00:1::1",
        "fd00:2::1",
        "fe80::ff:fe00:101",
    ] {
        let request = Udp::from(A, dst);
        let (port, frame) = net.one(A, &request.echo());
        assert_eq!((port, macs(&frame)), (A, (OWN[A], HOST[A])), "{dst}");
        if request.dst.is_ipv4() {
            let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!(
                (
                    ip.src_addr().into(),
                    core::net::IpAddr::V4(ip.dst_addr()),
                    ip.hop_limit()
                ),
                (request.dst, request.src, 64)
            );
            let icmp = smoltcp::wire::Icmpv4Packet::new_checked(ip.payload()).unwrap();
            assert!(icmp.verify_checksum());
            assert_eq!(icmp.msg_type(), smoltcp::wire::Icmpv4Message::EchoReply);
            assert_eq!((icmp.echo_ident(), icmp.data().len()), (1000, 20));
        } else {
            let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
            assert_eq!(
                (ip.src_addr().into(), core::net::IpAddr::V6(ip.dst_addr())),
                (request.dst, request.src)
            );
            let icmp = smoltcp::wire::Icmpv6Packet::new_checked(ip.payload()).unwrap();
            assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
            assert_eq!(icmp.msg_type(), smoltcp::wire::Icmpv6Message::EchoReply);
        }
    }
    assert_eq!(net.value("echo-replies"), 6);
    net.dropped(A, &Udp::from(A, "fe80::ff:fe00:201").echo(), "link-local");
}

#[test]
fn what_is_not_to_be_forwarded_is_dropped_and_counted() {
    let mut net = Net::acquainted(None);
    let udp = |dst: &str| Udp::from(A, dst);
    let from = |src: &str, dst: &str| Udp {
        src: src.parse().unwrap(),
        ..udp(dst)
    };
    for (frame, reason) in [
        (
            Udp {
                mac_dst: OWN[B],
                ..udp("10.0.2.2")
            }
            .frame(),
            "other-station",
        ),
        (
            Udp {
                mac_dst: Mac::BROADCAST,
                ..udp("10.0.2.2")
            }
            .frame(),
            "unicast-in-broadcast",
        ),
        (udp("10.0.2.255").frame(), "broadcast"),
        (udp("255.255.255.255").frame(), "broadcast"),
        (udp("224.0.0.5").frame(), "multicast"),
        (udp("ff02::1").frame(), "multicast"),
        (udp("127.0.0.1").frame(), "martian-destination"),
        (udp("::1").frame(), "martian-destination"),
        (from("127.0.0.1", "10.0.2.2").frame(), "martian-source"),
        (from("0.0.0.0", "10.0.2.2").frame(), "martian-source"),
        (
            from("255.255.255.255", "10.0.2.2").frame(),
            "martian-source",
        ),
        (from("10.0.1.255", "10.0.2.2").frame(), "martian-source"),
        (from("224.1.1.1", "10.0.2.2").frame(), "martian-source"),
        (from("10.0.1.1", "10.0.2.2").frame(), "martian-source"),
        (from("::1", "fd00:2::2").frame(), "martian-source"),
        (from("::", "fd00:2::2").frame(), "martian-source"),
        (from("ff02::1", "fd00:2::2").frame(), "martian-source"),
        (from("fe80::9", "fd00:2::2").frame(), "link-local"),
        (udp("fe80::9").frame(), "link-local"),
    ] {
        net.dropped(A, &frame, reason);
    }
    net.dropped(
        C,
        &Udp {
            mac_dst: OWN[C],
            ..udp("fd00:2::2")
        }
        .frame(),
        "ip-version-off",
    );
    let mut tagged = udp("10.0.2.2").frame();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    net.dropped(A, &tagged, "vlan-tagged");
    let mut other = udp("10.0.2.2").frame();
    other[12..14].copy_from_slice(&[0x88, 0xcc]);
    net.dropped(A, &other, "unknown-protocol");
}

#[test]
fn a_ping_that_covers_a_sum_still_to_be_computed_is_answered_with_a_right_one() {
    let mut net = Net::acquainted(None);
    let (request, offload) = with_partial_inside(Udp::from(A, "10.0.1.1").echo(), 34);
    net.sim.inject_with(A, &request, offload);
    net.sim.run();
    let frame = &net.collect()[0].1;
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let icmp = smoltcp::wire::Icmpv4Packet::new_checked(ip.payload()).unwrap();
    assert_eq!(icmp.msg_type(), smoltcp::wire::Icmpv4Message::EchoReply);
    assert!(icmp.verify_checksum());
    let (request, offload) = with_partial_inside(Udp::from(A, "fd00:1::1").echo(), 54);
    net.sim.inject_with(A, &request, offload);
    net.sim.run();
    let frame = &net.collect()[0].1;
    let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    let icmp = smoltcp::wire::Icmpv6Packet::new_checked(ip.payload()).unwrap();
    assert_eq!(icmp.msg_type(), smoltcp::wire::Icmpv6Message::EchoReply);
    assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
}
