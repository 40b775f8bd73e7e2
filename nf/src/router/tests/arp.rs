//! ARP: answering, resolving, waiting, giving up, keeping known; and what others try.

use chainplane_dataplane::packet::Mac;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol};

use super::fixture::*;

/// What another stack reads in an ARP frame.
fn read(frame: &[u8]) -> (Mac, ArpRepr) {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(frame.ethertype(), EthernetProtocol::Arp);
    let packet = ArpPacket::new_checked(frame.payload()).unwrap();
    (Mac(frame.dst_addr().0), ArpRepr::parse(&packet).unwrap())
}

#[track_caller]
fn is_request_for(frame: &[u8], target: core::net::Ipv4Addr) -> Mac {
    let (to, arp) = read(frame);
    let ArpRepr::EthernetIpv4 {
        operation,
        target_protocol_addr,
        ..
    } = arp
    else {
        panic!("{arp:?}")
    };
    assert_eq!(
        (operation, target_protocol_addr),
        (ArpOperation::Request, target)
    );
    to
}

#[test]
fn requests_and_probes_for_own_addresses_are_answered() {
    let mut net = Net::new();
    for sender in [v4(10, 0, 1, 2), v4(0, 0, 0, 0), v4(192, 0, 2, 1)] {
        let (port, frame) = net.one(A, &arp_request(HOST[A], sender, v4(10, 0, 1, 1)));
        let (to, arp) = read(&frame);
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } = arp
        else {
            panic!("{arp:?}")
        };
        assert_eq!(
            (port, to, operation),
            (A, HOST[A], ArpOperation::Reply),
            "{sender}"
        );
        assert_eq!(
            (Mac(source_hardware_addr.0), source_protocol_addr),
            (OWN[A], v4(10, 0, 1, 1))
        );
        assert_eq!(target_protocol_addr, sender);
    }
    // Only the one in the subnet is a neighbour now; the router's other interfaces are not this one's business.
    assert_eq!(
        (net.value("arp-replies"), net.value("neighbours-learnt")),
        (3, 1)
    );
    for target in [v4(10, 0, 2, 1), v4(10, 0, 1, 9)] {
        net.dropped(
            A,
            &arp_request(HOST[A], v4(10, 0, 1, 2), target),
            "not-asked",
        );
    }
}

#[test]
fn packets_wait_for_their_neighbour_and_go_on_in_order() {
    let mut net = Net::new();
    let packets: Vec<_> = (0..4)
        .map(|port| {
            Udp {
                ports: (port, 9),
                ..Udp::from(A, "10.0.2.2")
            }
            .frame()
        })
        .collect();
    let (port, frame) = net.one(A, &packets[0]);
    assert_eq!(port, B);
    assert_eq!(is_request_for(&frame, v4(10, 0, 2, 2)), Mac::BROADCAST);
    for packet in &packets[1..] {
        assert!(net.send(A, packet).is_empty());
    }
    assert_eq!(
        (net.value("unresolved"), net.stats().held),
        (1, 3),
        "the oldest made room"
    );
    let reply = arp_reply(HOST[B], v4(10, 0, 2, 2), OWN[B], v4(10, 0, 2, 1));
    let out = net.send(B, &reply);
    let seen: Vec<_> = out
        .iter()
        .map(|(port, frame)| (*port, frame[35], frame[22]))
        .collect();
    assert_eq!(seen, [(B, 1, 63), (B, 2, 63), (B, 3, 63)]);
    for (_, frame) in &out {
        assert_eq!(frame[..6], HOST[B].0);
    }
    assert_eq!(net.stats().held, 0);
    assert_eq!(net.one(A, &packets[0]).0, B);
}

#[test]
fn one_that_does_not_answer_is_asked_three_times_and_the_sender_told() {
    let mut net = Net::acquainted(Some(64));
    let packet = Udp::from(A, "10.0.2.3");
    is_request_for(&net.one(A, &packet.frame()).1, v4(10, 0, 2, 3));
    for _ in 0..2 {
        let out = net.wait(1);
        assert_eq!(out.len(), 1, "{out:02x?}");
        is_request_for(&out[0].1, v4(10, 0, 2, 3));
    }
    let out = net.wait(1);
    assert_eq!(out.len(), 1, "{out:02x?}");
    let (port, error) = &out[0];
    assert_eq!(
        (*port, &error[34..36]),
        (A, &[3, 1][..]),
        "host unreachable"
    );
    assert_eq!(error[42..62], packet.frame()[14..34], "as it came");
    assert_eq!((net.value("unresolved"), net.stats().held), (1, 0));
    assert_eq!(net.value("neighbours-lost"), 1);
    // The next packet starts anew.
    is_request_for(&net.one(A, &packet.frame()).1, v4(10, 0, 2, 3));
}

#[test]
fn a_known_neighbour_is_asked_again_without_any_traffic() {
    let mut net = Net::new();
    net.send(B, &arp_request(HOST[B], v4(10, 0, 2, 2), v4(10, 0, 2, 1)));
    // It announced itself: soon asked, alone; an answer is good for half a minute.
    for quiet in [4, 29] {
        assert!(net.wait(quiet).is_empty());
        let out = net.wait(1);
        assert_eq!(out.len(), 1, "{out:02x?}");
        assert_eq!(is_request_for(&out[0].1, v4(10, 0, 2, 2)), HOST[B]);
        let reply = arp_reply(HOST[B], v4(10, 0, 2, 2), OWN[B], v4(10, 0, 2, 1));
        assert!(net.send(B, &reply).is_empty());
    }
    // It falls silent: three questions, then it is forgotten, and a packet asks everyone.
    assert!(net.wait(29).is_empty());
    for _ in 0..3 {
        assert_eq!(net.wait(1).len(), 1);
    }
    assert!(net.wait(1).is_empty());
    assert_eq!(net.value("neighbours-lost"), 1);
    let out = net.one(A, &Udp::from(A, "10.0.2.2").frame());
    assert_eq!(is_request_for(&out.1, v4(10, 0, 2, 2)), Mac::BROADCAST);
}

#[test]
fn a_gratuitous_message_changes_a_known_neighbour_but_makes_none() {
    let mut net = Net::acquainted(Some(64));
    let moved = Mac([2, 0, 0, 0, 2, 99]);
    let packet = Udp::from(A, "10.0.2.2").frame();
    for _ in 0..3 {
        assert_eq!(net.one(A, &packet).1[..6], HOST[B].0);
    }
    assert!(net.engine("flow-hits") > 0);
    let known = net.value("neighbours-learnt");
    net.send(B, &arp_request(moved, v4(10, 0, 2, 2), v4(10, 0, 2, 2)));
    net.send(B, &arp_request(moved, v4(10, 0, 2, 7), v4(10, 0, 2, 7)));
    assert_eq!(
        net.one(A, &packet).1[..6],
        moved.0,
        "the record is not replayed"
    );
    assert_eq!(
        (
            net.value("neighbours-changed"),
            net.value("neighbours-learnt")
        ),
        (1, known)
    );
}

#[test]
fn configured_neighbours_can_not_be_changed() {
    let mut net = Net::acquainted(None);
    let liar = Mac([2, 0, 0, 0, 3, 99]);
    net.send(
        C,
        &arp_request(liar, v4(198, 51, 100, 1), v4(198, 51, 100, 2)),
    );
    net.send(
        C,
        &arp_reply(liar, v4(198, 51, 100, 1), OWN[C], v4(198, 51, 100, 2)),
    );
    assert_eq!(
        net.one(A, &Udp::from(A, "8.8.8.8").frame()).1[..6],
        HOST[C].0
    );
    assert!(net.wait(3600).iter().all(|(port, _)| *port != C));
}

#[test]
fn nonsense_is_dropped_and_teaches_nothing() {
    let mut net = Net::new();
    let good = arp_reply(HOST[A], v4(10, 0, 1, 2), OWN[A], v4(10, 0, 1, 1));
    for len in 14..good.len() {
        net.dropped(A, &good[..len], "bad-arp");
    }
    for (at, bytes) in [
        (14, &[0u8, 6][..]),
        (16, &[0x86, 0xdd]),
        (18, &[8]),
        (19, &[16]),
        (20, &[0, 3]),
        (22, &[0xff; 6]),
        (22, &[0; 6]),
        (22, &[1, 0, 0x5e, 0, 0, 1]),
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        net.dropped(A, &bad, "bad-arp");
    }
    // Nobody's address, the whole subnet's, another subnet's, with our own MAC address.
    for sender in [
        v4(10, 0, 1, 0),
        v4(10, 0, 1, 255),
        v4(10, 0, 2, 2),
        v4(224, 0, 0, 1),
    ] {
        net.send(A, &arp_request(HOST[A], sender, v4(10, 0, 1, 1)));
    }
    net.send(A, &arp_request(OWN[A], v4(10, 0, 1, 2), v4(10, 0, 1, 1)));
    net.send(A, &arp_request(HOST[A], v4(10, 0, 1, 1), v4(10, 0, 1, 1)));
    assert_eq!(net.value("neighbours-learnt"), 0);
    assert_eq!(net.value("address-conflicts"), 1);
}
