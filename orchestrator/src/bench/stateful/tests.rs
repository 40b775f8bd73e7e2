//! Connections over back ends that are known.

use std::time::Duration;

use chainplane_vhost::backend::QueuePair;
use chainplane_vhost::net::NetHeader;

use crate::bench::endpoint::EndpointSpec;
use crate::bench::faulty::{Faulty, Rates, Switch};
use crate::bench::loopback::{Lane, Loopback, Plain};
use crate::bench::traffic::fill::Fill;
use crate::bench::traffic::{IpVersions, Sizes, Traffic};
use crate::bench::trial::{
    Attached, BenchError, GeneratorOptions, Pace, Silent, StatefulLoad, StatefulResult,
    StatefulTarget, Target,
};

const POLITE: GeneratorOptions = GeneratorOptions {
    core: None,
    polite: true,
};

fn attach(ends: [EndpointSpec; 2], ip: IpVersions) -> Attached {
    let mut target = Attached::new("loopback", ends, POLITE, &Silent).unwrap();
    let traffic = Traffic {
        sizes: Sizes::Fixed(94),
        ip,
        ..Traffic::default()
    };
    target.set_traffic(&traffic).unwrap();
    target
}

fn load(pace: Pace, milliseconds: u64) -> StatefulLoad {
    StatefulLoad {
        pace,
        duration: Duration::from_millis(milliseconds),
        transactions: 2,
        request: 100,
        response: 5000,
    }
}

fn sound(result: &StatefulResult) {
    assert_eq!(result.failed, 0, "{result:?}");
    assert_eq!(result.established, result.attempted);
    assert_eq!(result.completed, result.attempted);
    assert_eq!(result.connect_latency.len(), result.established);
    assert_eq!(result.transaction_latency.len(), result.transactions);
}

#[test]
fn connections_come_by_the_clock_and_do_their_transactions() {
    let loopback = Loopback::start(1, None).unwrap();
    for ip in [IpVersions::V4, IpVersions::V6] {
        let mut target = attach(loopback.endpoints(256), ip);
        let load = load(Pace::ConnectionsPerSecond(1000.0), 200);
        let result = target.stateful(&load, &Silent).unwrap();
        sound(&result);
        // The last may fall due while the generator is away.
        assert!((100..=200).contains(&result.attempted), "{result:?}");
        assert_eq!(result.transactions, 2 * result.attempted);
        assert_eq!(result.bytes, result.transactions * 5100);
        // And once more, with other ports.
        sound(&target.stateful(&load, &Silent).unwrap());
    }
}

#[test]
fn so_many_are_open_at_a_time() {
    let loopback = Loopback::start(2, None).unwrap();
    let mut target = attach(loopback.endpoints(256), IpVersions::V4);
    let result = target
        .stateful(&load(Pace::Concurrent(50), 200), &Silent)
        .unwrap();
    assert_eq!(result.failed, 0, "{result:?}");
    assert!(
        result.most_open <= 50 && result.established >= 50,
        "{result:?}"
    );
    assert!(result.transactions > 100, "{result:?}");
}

#[test]
fn connections_are_held_to_the_end() {
    let loopback = Loopback::start(1, None).unwrap();
    let mut target = attach(loopback.endpoints(512), IpVersions::V4);
    let result = target
        .stateful(&load(Pace::Hold(500), 600), &Silent)
        .unwrap();
    assert_eq!(
        (result.attempted, result.most_open),
        (500, 500),
        "{result:?}"
    );
    assert_eq!((result.established, result.failed), (500, 0), "{result:?}");
    assert!(result.transactions >= 500);
}

#[test]
fn what_gets_lost_is_sent_again() {
    let rates = Rates {
        lose: 200,
        repeat: 100,
        damage: 100,
        reorder: 0,
        mistranslate: 0,
        delay: Duration::ZERO,
    };
    let switch = Switch::default();
    switch.arm(true);
    let fill = Fill::new(1);
    let lane = |seed| Box::new(Faulty::blind(&switch, rates, seed, fill.clone())) as Box<dyn Lane>;
    let loopback = Loopback::with(1, None, vec![lane(1), lane(2)]).unwrap();
    let mut target = attach(loopback.endpoints(512), IpVersions::V4);
    let load = load(Pace::ConnectionsPerSecond(500.0), 400);
    let result = target.stateful(&load, &Silent).unwrap();
    assert!(result.retransmitted > 10, "{result:?}");
    // Three SYNs in a row get lost once in many thousand times.
    assert!(result.established + 1 >= result.attempted, "{result:?}");
    assert!(result.completed * 10 >= result.attempted * 9, "{result:?}");
}

#[test]
fn a_source_address_that_was_damaged_once_is_forgotten() {
    /// Damages the sender's MAC address in the first frames, which no checksum of IP or TCP covers.
    struct Slip(usize);
    impl Lane for Slip {
        fn pass(&mut self, from: &mut QueuePair, to: &mut QueuePair) -> usize {
            let count = from.from_guest.fetch(1);
            let lens: Vec<u32> = from.from_guest.frame_lens().collect();
            if count == 0 || to.to_guest.reserve(&lens) == 0 {
                from.from_guest.complete();
                return count;
            }
            let mut frame = vec![0; 10_000];
            let len = from.from_guest.read(0, 0, &mut frame);
            frame.truncate(len);
            if let Some(left) = self.0.checked_sub(1) {
                self.0 = left;
                frame[8] ^= 0x10;
            }
            to.to_guest.fill(0, NetHeader::default(), &frame);
            to.to_guest.publish();
            from.from_guest.complete();
            count
        }
    }
    let lanes: Vec<Box<dyn Lane>> = vec![Box::new(Slip(3)), Box::new(Plain)];
    let loopback = Loopback::with(1, None, lanes).unwrap();
    let mut target = attach(loopback.endpoints(256), IpVersions::V4);
    let load = load(Pace::ConnectionsPerSecond(100.0), 100);
    let result = target.stateful(&load, &Silent).unwrap();
    sound(&result);
    assert!(result.retransmitted >= 3, "{result:?}");
}

#[test]
fn what_nobody_answers_is_told() {
    struct Hole;
    impl Lane for Hole {
        fn pass(&mut self, from: &mut QueuePair, _: &mut QueuePair) -> usize {
            let count = from.from_guest.fetch(64);
            from.from_guest.complete();
            count
        }
    }
    let loopback = Loopback::with(1, None, vec![Box::new(Hole), Box::new(Hole)]).unwrap();
    let mut target = attach(loopback.endpoints(256), IpVersions::V4);
    let load = load(Pace::ConnectionsPerSecond(100.0), 100);
    let error = target.stateful(&load, &Silent).unwrap_err();
    assert!(matches!(error, BenchError::Blocked { .. }), "{error:?}");
    let too_many = StatefulLoad {
        pace: Pace::Hold(u32::MAX),
        ..load
    };
    let error = target.stateful(&too_many, &Silent).unwrap_err();
    assert!(error.to_string().contains("more hosts"), "{error}");
}
