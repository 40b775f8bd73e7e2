//! Straight from guest to guest gives what the way through host memory gives: the same frames, headers and counters.

use std::sync::atomic::{AtomicBool, Ordering};

use chainplane_vhost::net::{GSO_TCPV4, NetHeader};
use proptest::prelude::*;

use super::super::street::{Sent, Street, any_setup, checksummed, plain, segment, setup};
use crate::stats::PortSnapshot;
use crate::time::Time;

fn any_frame() -> impl Strategy<Value = Sent> {
    let bytes = prop::collection::vec(any::<u8>(), 14..200);
    let plain = (bytes, 0usize..9000).prop_map(|(mut bytes, more)| {
        bytes.resize(bytes.len() + more * usize::from(more % 3 == 0), 7);
        (NetHeader::default(), bytes)
    });
    let undone = (0usize..3000, any::<u16>())
        .prop_map(|(payload, port)| (checksummed(), segment(payload, 1, port)));
    let large = (1usize..65_000, 500u16..1460, any::<u16>()).prop_map(|(payload, size, port)| {
        let header = NetHeader {
            gso_type: GSO_TCPV4,
            gso_size: size,
            hdr_len: 54,
            ..checksummed()
        };
        (header, segment(payload, size, port))
    });
    let lie = (0usize..300, any::<[u8; 12]>()).prop_map(|(payload, header)| {
        let header = NetHeader::from_bytes(header);
        (header, segment(payload, 1, 1))
    });
    let frame = prop_oneof![6 => plain, 2 => undone, 2 => large, 1 => lie];
    frame.prop_map(|(header, bytes)| Sent { header, bytes })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn straight_or_through_host_memory(
        setup in any_setup(),
        rounds in prop::collection::vec(prop::collection::vec(any_frame(), 1..8), 1..4),
    ) {
        let [mut straight, mut watched] = [(); 2].map(|()| Street::new(&setup));
        let _watch = watched.watch();
        // There is no order between what comes from different queues of the sender.
        for (queue, frames) in rounds.iter().enumerate() {
            straight.send(queue, frames);
            watched.send(queue, frames);
            prop_assert_eq!(straight.counters(), watched.counters());
        }
        prop_assert!(straight.receive() == watched.receive(), "other frames");
    }
}

#[test]
fn no_packet_buffer_is_needed() {
    let mut street = Street::new(&setup());
    let hoard: Vec<_> = std::iter::from_fn(|| street.engine.pool.take(64)).collect();
    assert_eq!(hoard.len(), 256);
    street.send(0, &[plain(&[1; 60]), plain(&[2; 1500])]);
    let got: Vec<_> = street.receive().concat();
    assert_eq!(got.len(), 2);
    assert!(got[0].1 == [1; 60] && got[1].1 == [2; 1500]);
}

#[test]
fn what_finds_no_room_is_dropped_and_the_sender_goes_on() {
    let mut street = Street::new(&setup());
    for _ in 0..3 {
        street.send(0, &vec![plain(&[3; 64]); 20]);
    }
    let drops = |ports: Vec<PortSnapshot>, name: &str| {
        let found = ports[1].drops.iter().find(|(info, _)| info.name == name);
        found.map(|(_, count)| *count)
    };
    assert_eq!(drops(street.counters(), "full"), Some(60 - 16));
    assert_eq!(street.receive().concat().len(), 16);
    let end = &mut street.ends[1];
    let flag = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            end.enable(false).expect("a back end that answers");
            flag.store(true, Ordering::Release);
        });
        while !flag.load(Ordering::Acquire) {
            street.engine.poll(Time(0));
        }
    });
    street.send(0, &vec![plain(&[4; 64]); 5]);
    assert_eq!(drops(street.counters(), "down"), Some(5));
    assert_eq!(street.receive().concat().len(), 0);
}
