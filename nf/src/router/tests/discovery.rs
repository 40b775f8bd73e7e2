//! Neighbour discovery: answering, resolving, unreachability, and messages to be ignored.

use core::net::Ipv6Addr;

use chainplane_dataplane::packet::{Mac, Pseudo, protocol, pseudo_header};
use smoltcp::wire::{
    EthernetFrame, Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress,
};

use super::fixture::*;
use crate::router::ndp;

/// What another stack reads: destination MAC, addresses, message.
fn read(frame: &[u8]) -> (Mac, Ipv6Addr, Ipv6Addr, NdiscRepr<'_>) {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    assert_eq!(ip.hop_limit(), 255);
    let icmp = Icmpv6Packet::new_checked(&frame[54..]).unwrap();
    assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
    let caps = smoltcp::phy::ChecksumCapabilities::default();
    let Icmpv6Repr::Ndisc(message) =
        Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &caps).unwrap()
    else {
        panic!("not neighbour discovery")
    };
    let to = Mac(ethernet.dst_addr().0);
    (to, ip.src_addr(), ip.dst_addr(), message)
}

fn hardware(mac: Mac) -> RawHardwareAddress {
    RawHardwareAddress::from_bytes(&mac.0)
}

/// A frame whose `ICMPv6` checksum is made right again.
fn mended(mut frame: Vec<u8>) -> Vec<u8> {
    let address = |at: usize| {
        let octets: [u8; 16] = frame[at..at + 16].try_into().unwrap();
        Ipv6Addr::from(octets)
    };
    let pseudo = Pseudo::V6(address(22), address(38));
    frame[56..58].fill(0);
    let sum = pseudo_header(pseudo, protocol::ICMPV6, frame.len() - 54)
        .plus_bytes(&frame[54..])
        .finish();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn changed(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    mended(frame)
}

const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0x101);

#[test]
fn solicitations_for_own_addresses_are_answered() {
    let mut net = Net::new();
    for target in [v6(1, 1), LINK_LOCAL] {
        for known in [None, Some(OWN[A])] {
            let request = ndp::solicitation((HOST[A], v6(1, 2)), target, known);
            let (port, frame) = net.one(A, &request);
            let (to, src, dst, message) = read(&frame);
            assert_eq!((port, to, src, dst), (A, HOST[A], target, v6(1, 2)));
            let NdiscRepr::NeighborAdvert {
                flags,
                target_addr,
                lladdr,
            } = message
            else {
                panic!("{message:?}")
            };
            assert_eq!((target_addr, lladdr), (target, Some(hardware(OWN[A]))));
            assert_eq!(
                flags,
                NdiscNeighborFlags::all(),
                "router, solicited, override"
            );
        }
    }
    assert_eq!(net.value("neighbours-learnt"), 1);
    let foreign = ndp::solicitation((HOST[A], v6(1, 2)), v6(2, 1), None);
    net.dropped(A, &foreign, "not-asked");
}

#[test]
fn someone_who_wants_an_own_address_is_told_that_it_is_taken() {
    let mut net = Net::new();
    let mut probe = ndp::solicitation((HOST[A], Ipv6Addr::UNSPECIFIED), v6(1, 1), None).to_vec();
    probe.truncate(78);
    probe[19] = 24;
    let (_, frame) = net.one(A, &mended(probe));
    let (to, src, dst, message) = read(&frame);
    assert_eq!(to, Mac([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!((src, dst), (v6(1, 1), ndp::ALL_NODES));
    let NdiscRepr::NeighborAdvert { flags, .. } = message else {
        panic!("{message:?}")
    };
    assert!(!flags.contains(NdiscNeighborFlags::SOLICITED));
    assert_eq!(net.value("neighbours-learnt"), 0);
}

#[test]
fn packets_wait_for_their_neighbour() {
    let mut net = Net::new();
    let packet = Udp::from(A, "fd00:2::2").frame();
    let (port, frame) = net.one(A, &packet);
    let (to, src, dst, message) = read(&frame);
    assert_eq!(port, B);
    assert_eq!(to, Mac([0x33, 0x33, 0xff, 0, 0, 2]));
    assert_eq!(dst, "ff02::1:ff00:2".parse::<Ipv6Addr>().unwrap());
    assert!(src.is_unicast_link_local());
    let expected = NdiscRepr::NeighborSolicit {
        target_addr: v6(2, 2),
        lladdr: Some(hardware(OWN[B])),
    };
    assert_eq!(message, expected);
    let answer = ndp::advertisement(HOST[B], (OWN[B], src), v6(2, 2), true);
    let (port, frame) = net.one(B, &answer);
    assert_eq!((port, &frame[..6], frame[21]), (B, &HOST[B].0[..], 63));
    assert_eq!(net.stats().held, 0);
}

#[test]
fn one_that_does_not_answer_is_unreachable() {
    let mut net = Net::acquainted(None);
    net.one(A, &Udp::from(A, "fd00:2::3").frame());
    assert_eq!((net.wait(1).len(), net.wait(1).len()), (1, 1));
    let out = net.wait(1);
    assert_eq!(out.len(), 1, "{out:02x?}");
    assert_eq!(
        (out[0].0, &out[0].1[54..56]),
        (A, &[1, 3][..]),
        "address unreachable"
    );
    assert_eq!((net.value("unresolved"), net.stats().held), (1, 0));
}

#[test]
fn a_known_neighbour_is_asked_alone_before_it_is_given_up() {
    let mut net = Net::acquainted(None);
    assert!(net.wait(29).is_empty());
    let solicitations = |out: &[(usize, Vec<u8>)]| {
        let ipv6 = out
            .iter()
            .filter(|(port, frame)| *port == B && frame[12..14] == [0x86, 0xdd]);
        ipv6.map(|(_, frame)| read(frame).0).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        assert_eq!(solicitations(&net.wait(1)), [HOST[B]]);
    }
    net.wait(1);
    let (_, frame) = net.one(A, &Udp::from(A, "fd00:2::2").frame());
    assert!(read(&frame).0.is_multicast());
}

#[test]
fn advertisements_change_what_is_known_as_they_say() {
    let mut net = Net::acquainted(Some(64));
    let packet = Udp::from(A, "fd00:2::2").frame();
    for _ in 0..3 {
        assert_eq!(net.one(A, &packet).1[..6], HOST[B].0);
    }
    assert!(net.engine("flow-hits") > 0);
    let moved = Mac([2, 0, 0, 0, 2, 99]);
    let advertisement =
        ndp::advertisement(moved, (Mac::BROADCAST, ndp::ALL_NODES), v6(2, 2), false);
    // Without override the known address stays, and is asked whether it is still there.
    assert!(
        net.send(B, &changed(&advertisement, 58, &[0x80]))
            .is_empty()
    );
    assert_eq!(net.one(A, &packet).1[..6], HOST[B].0);
    let out = net.wait(5);
    assert!(
        out.iter()
            .any(|(port, frame)| *port == B && frame[..6] == HOST[B].0)
    );
    // With it, it changes at once.
    assert!(net.send(B, &advertisement).is_empty());
    assert_eq!(net.one(A, &packet).1[..6], moved.0);
    // Of someone unknown nothing is learnt.
    let unknown = ndp::advertisement(moved, (OWN[B], v6(2, 1)), v6(2, 77), true);
    net.dropped(B, &unknown, "not-asked");
    // Of an own address: a conflict.
    let own = ndp::advertisement(moved, (OWN[B], v6(2, 1)), v6(2, 1), true);
    assert!(net.send(B, &own).is_empty());
    assert_eq!(net.value("address-conflicts"), 1);
}

#[test]
fn invalid_messages_teach_nothing() {
    let mut net = Net::new();
    let good = ndp::solicitation((HOST[A], v6(1, 2)), v6(1, 1), None);
    let bad = |at, bytes: &[u8]| changed(&good, at, bytes);
    for (frame, why) in [
        (bad(21, &[254]), "from beyond the link"),
        (bad(55, &[1]), "a code"),
        (bad(62, &[0xff]), "a group as target"),
        (bad(79, &[0]), "an option without length"),
        (bad(79, &[2]), "an option beyond the end"),
        (bad(80, &[1]), "a group as station"),
        (bad(80, &[0; 6]), "no station"),
        (bad(22, &[0; 16]), "unspecified with an option"),
        (
            {
                let mut frame = good.to_vec();
                frame[56] ^= 1;
                frame
            },
            "a wrong checksum",
        ),
        (
            {
                let mut frame = good.to_vec();
                frame.truncate(54 + 16);
                frame[19] = 16;
                mended(frame)
            },
            "cut short",
        ),
        (
            {
                let mut frame = good.to_vec();
                frame.truncate(54 + 28);
                frame[19] = 28;
                mended(frame)
            },
            "an option cut short",
        ),
    ] {
        let before = net.value("bad-neighbour-discovery");
        assert!(net.send(A, &frame).is_empty(), "{why}");
        assert_eq!(
            net.value("bad-neighbour-discovery"),
            before + 1,
            "{why}: {:?}",
            net.non_zero()
        );
    }
    // An answer to a group can't be one to a question; one from another subnet is none of ours.
    let advertisement = ndp::advertisement(HOST[A], (OWN[A], ndp::ALL_NODES), v6(1, 2), true);
    net.dropped(A, &advertisement, "bad-neighbour-discovery");
    let foreign = ndp::solicitation((HOST[A], v6(2, 9)), v6(1, 1), None);
    net.dropped(A, &foreign, "not-asked");
    // Router discovery and redirects are not for a router that does not advertise.
    let redirect = changed(&good, 54, &[137]);
    assert!(net.send(A, &redirect).is_empty());
    assert_eq!(net.value("neighbours-learnt"), 0);
}
