//! Anything at all on the wire: nothing panics, and every packet is accounted for.

use core::net::Ipv6Addr;

use proptest::prelude::*;

use super::fixture::*;
use crate::router::ndp;

/// A valid frame of each sort, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        Udp::from(A, "10.0.2.2").frame(),
        Udp::from(A, "fd00:2::2").frame(),
        Udp::from(A, "10.0.1.1").echo(),
        Udp::from(A, "fd00:1::1").echo(),
        Udp {
            ttl: 1,
            len: 1300,
            ..Udp::from(A, "10.0.2.2")
        }
        .frame(),
        Udp {
            len: 1390,
            ..Udp::from(A, "fd00:2::2")
        }
        .frame(),
        arp_request(HOST[A], v4(10, 0, 1, 2), v4(10, 0, 1, 1)),
        arp_reply(HOST[A], v4(10, 0, 1, 2), OWN[A], v4(10, 0, 1, 1)),
        ndp::solicitation((HOST[A], v6(1, 2)), v6(1, 1), None).to_vec(),
        ndp::solicitation((HOST[A], Ipv6Addr::UNSPECIFIED), v6(1, 1), None).to_vec(),
        ndp::advertisement(HOST[A], (OWN[A], v6(1, 1)), v6(1, 2), true).to_vec(),
    ]
}

proptest! {
    #[test]
    fn damaged_frames_are_accounted_for(
        damage in proptest::collection::vec(
            (0..11usize, proptest::collection::vec((0..100usize, any::<u8>()), 0..4), 0..200usize, 0..3usize, 0..3u64),
            1..60,
        ),
        mend: bool,
    ) {
        let mut net = Net::acquainted(Some(16));
        for (seed, bytes, cut, port, seconds) in damage {
            let mut frame = seeds().swap_remove(seed);
            for (at, byte) in bytes {
                if let Some(old) = frame.get_mut(at) {
                    *old = byte;
                }
            }
            if cut > 100 {
                frame.truncate(cut - 100);
            }
            if mend && frame.len() > 34 {
                // Past the parser's checks, into the router's own.
                let header = 14 + (frame[14] & 15) as usize * 4;
                if header <= frame.len() {
                    frame = patched(frame, 0, &[]);
                }
            }
            net.send(port, &frame);
            net.wait(seconds);
        }
        // After all that it still does its work.
        net.introduce();
        let out = net.send(A, &Udp::from(A, "8.8.8.8").frame());
        prop_assert!(out.iter().any(|(port, _)| *port == C));
    }
}

#[test]
fn a_scan_of_a_subnet_holds_few_packets_and_comes_to_an_end() {
    let mut net = Net::acquainted(Some(64));
    for host in 3..250 {
        net.send(A, &Udp::from(A, &format!("10.0.2.{host}")).frame());
    }
    assert!(net.stats().held <= 64);
    assert_eq!(
        net.one(A, &Udp::from(A, "10.0.2.2").frame()).0,
        B,
        "others are served"
    );
    for _ in 0..5 {
        // Few neighbours are attended to in one poll.
        for _ in 0..40 {
            net.sim.advance(core::time::Duration::from_millis(100));
        }
        net.collect();
    }
    assert_eq!(net.stats().held, 0);
    let stats = net.stats();
    assert_eq!(stats.value("unresolved"), 247);
    assert_eq!(stats.value("neighbours-lost"), 247);
}
