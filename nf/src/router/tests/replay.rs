//! With and without flow records the same packets come out, with the same counters.

use chainplane_dataplane::packet::Mac;
use proptest::prelude::*;

use super::fixture::*;

#[derive(Clone, Debug)]
pub enum Op {
    /// A packet from the host on A or B to one of a few addresses.
    Packet {
        port: usize,
        dst: usize,
        flow: u16,
        ttl: u8,
        len: usize,
        other_mac: bool,
        df: bool,
    },
    Echo {
        port: usize,
        dst: usize,
    },
    /// The same packet behind a priority tag.
    Tagged {
        port: usize,
        dst: usize,
        flow: u16,
    },
    /// A host says that it has this MAC address.
    Moves {
        port: usize,
        mac: u8,
    },
    /// The hosts answer whatever the router asks for so long.
    Wait {
        seconds: u64,
        answer: bool,
    },
}

const DESTINATIONS: [&str; 14] = [
    "10.0.1.2",
    "10.0.2.2",
    "10.0.2.3",
    "10.9.1.1",
    "8.8.8.8",
    "10.0.1.1",
    "10.0.2.255",
    "127.0.0.1",
    "224.0.0.1",
    "192.0.2.7",
    "fd00:2::2",
    "fd00:1::1",
    "fd00:9::1",
    "ff02::1",
];

pub fn op() -> impl Strategy<Value = Op> {
    let dst = 0..DESTINATIONS.len();
    let ttl = prop_oneof![5 => Just(64u8), 1 => 0u8..3];
    let len = prop_oneof![5 => Just(100usize), 1 => 1370..1375usize];
    prop_oneof![
        12 => (0..2usize, dst.clone(), 0..3u16, ttl, len, prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(port, dst, flow, ttl, len, other_mac, df)| Op::Packet { port, dst, flow, ttl, len, other_mac, df }),
        2 => (0..2usize, dst.clone()).prop_map(|(port, dst)| Op::Echo { port, dst }),
        1 => (0..2usize, dst, 0..3u16).prop_map(|(port, dst, flow)| Op::Tagged { port, dst, flow }),
        1 => (0..2usize, 0..3u8).prop_map(|(port, mac)| Op::Moves { port, mac }),
        2 => (0..40u64, any::<bool>()).prop_map(|(seconds, answer)| Op::Wait { seconds, answer }),
    ]
}

/// The frame of an operation that has one, and the port that it comes in by.
pub fn frame(op: &Op) -> Option<(usize, Vec<u8>)> {
    let from = |port: usize, dst: usize| Udp::from(port, DESTINATIONS[dst]);
    let frame = match *op {
        Op::Packet {
            port,
            dst,
            flow,
            ttl,
            len,
            other_mac,
            df,
        } => {
            let packet = Udp {
                ports: (flow, 9),
                ttl,
                len,
                ..from(port, dst)
            };
            let packet = Udp {
                mac_dst: if other_mac { HOST[C] } else { packet.mac_dst },
                ..packet
            };
            let frame = packet.frame();
            let frame = if packet.dst.is_ipv4() {
                patched(frame, 20, &[if df { 0x40 } else { 0 }, 0])
            } else {
                frame
            };
            (port, frame)
        }
        Op::Echo { port, dst } => (port, from(port, dst).echo()),
        Op::Tagged { port, dst, flow } => {
            let packet = Udp {
                ports: (flow, 9),
                len: 100,
                ..from(port, dst)
            };
            let mut frame = packet.frame();
            frame.splice(12..12, [0x81, 0, 0, 0]);
            (port, frame)
        }
        Op::Moves { port, mac } => {
            let mac = Mac([2, 0, 0, 9, port as u8, mac]);
            let own = v4(10, 0, port as u8 + 1, 2);
            (port, arp_request(mac, own, own))
        }
        Op::Wait { .. } => return None,
    };
    Some(frame)
}

/// Applies an operation and returns everything that came out.
pub fn apply(net: &mut Net, op: &Op) -> Vec<(usize, Vec<u8>)> {
    if let Some((port, frame)) = frame(op) {
        return net.send(port, &frame);
    }
    match *op {
        Op::Wait { seconds, answer } => {
            let mut out = Vec::new();
            for _ in 0..seconds {
                let asked = net.wait(1);
                for (port, _) in asked
                    .iter()
                    .filter(|(_, frame)| answer && frame[12..14] == [8, 6])
                {
                    let net_number = *port as u8 + 1;
                    let reply = arp_reply(
                        HOST[*port],
                        v4(10, 0, net_number, 2),
                        OWN[*port],
                        v4(10, 0, net_number, 1),
                    );
                    out.extend(net.send(*port, &reply));
                }
                out.extend(asked);
            }
            out
        }
        _ => Vec::new(),
    }
}

proptest! {
    #[test]
    fn records_change_nothing(ops in proptest::collection::vec(op(), 1..80)) {
        let (mut with, mut without) = (Net::acquainted(Some(16)), Net::acquainted(None));
        for op in &ops {
            prop_assert_eq!(apply(&mut with, op), apply(&mut without, op), "{:?}", op);
        }
        prop_assert_eq!(with.stats(), without.stats());
    }
}

#[test]
fn a_plain_flow_is_replayed() {
    let mut net = Net::acquainted(Some(16));
    for dst in ["10.0.2.2", "fd00:2::2", "8.8.8.8"] {
        let before = net.engine("flow-hits");
        for _ in 0..5 {
            net.one(A, &Udp::from(A, dst).frame());
        }
        assert_eq!(net.engine("flow-hits"), before + 4, "{dst}");
    }
    assert_eq!(net.value("forwarded"), 15);
}

/// What is replayed keeps being replayed while the neighbour answers, however little else happens.
#[test]
fn neighbours_stay_known_while_packets_are_replayed() {
    let mut net = Net::acquainted(Some(16));
    let packet = Udp::from(A, "10.0.2.2").frame();
    net.one(A, &packet);
    let (hits, mut packets) = (net.engine("flow-hits"), 0);
    for _ in 0..300 {
        for (port, frame) in net.wait(1) {
            if port == B && frame[12..14] == [8, 6] {
                net.send(
                    B,
                    &arp_reply(HOST[B], v4(10, 0, 2, 2), OWN[B], v4(10, 0, 2, 1)),
                );
            }
        }
        net.send(A, &packet);
        packets += 1;
    }
    assert_eq!(net.engine("flow-hits"), hits + packets);
}

#[test]
fn a_priority_tag_is_not_replayed_as_no_tag() {
    let mut net = Net::acquainted(Some(16));
    let mut frame = Udp::from(A, "10.0.2.2").frame();
    net.one(A, &frame);
    net.one(A, &frame);
    frame.splice(12..12, [0x81, 0, 0, 0]);
    net.dropped(A, &frame, "vlan-tagged");
}
