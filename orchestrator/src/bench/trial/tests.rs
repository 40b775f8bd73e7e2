//! The generator against back ends that are known to the last packet.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::bench::endpoint::{EndpointSpec, VhostOptions};
use crate::bench::faulty::{Faulty, Rates, Switch};
use crate::bench::loopback::{Lane, Loopback, Plain};
use crate::bench::traffic::fill::Fill;
use crate::bench::traffic::{IpVersions, NextHop, Sizes, Spread, Traffic, Transports};

/// Tests share the machine with others.
const POLITE: GeneratorOptions = GeneratorOptions {
    core: None,
    polite: true,
};

fn load(rate: Rate, milliseconds: u64) -> Load {
    Load {
        rate,
        duration: Duration::from_millis(milliseconds),
        burst: None,
    }
}

fn attach(loopback: &Loopback, ring: u16) -> Attached {
    Attached::new("loopback", loopback.endpoints(ring), POLITE, &Silent).expect("it attaches")
}

#[test]
fn a_plain_loop_loses_nothing_and_shows_the_ceiling() {
    let mut target = Attached::plain_loop(POLITE).unwrap();
    target.set_traffic(&Traffic::default()).unwrap();
    let result = target.trial(&load(Rate::Max, 100), &Silent).unwrap();
    assert_eq!(result.directions.len(), 2);
    for direction in &result.directions {
        assert!(direction.received > 1000, "{direction:?}");
        assert_eq!(direction.received, direction.offered, "{direction:?}");
        assert_eq!(direction.unexpected + direction.reordered, 0);
    }
    assert!(result.loss_ratio() <= 0.0);
    let received: u64 = result.directions.iter().map(|d| d.received).sum();
    assert_eq!(result.latency.len(), received);
}

/// A trial in which the back end was never kept from its processor for longer than its rings last.
fn complete(target: &mut Attached, load: &Load) -> TrialResult {
    let mut trials = (0..5).map(|_| target.trial(load, &Silent).unwrap());
    let sent = |result: &TrialResult| result.directions.iter().all(|d| d.sent == d.offered);
    trials.find(sent).expect("a trial in which there was room")
}

#[test]
fn every_kind_of_traffic_passes_a_back_end() {
    let loopback = Loopback::start(2, None).unwrap();
    let mut target = attach(&loopback, 256);
    let plain = Traffic {
        flows: 300,
        ..Traffic::default()
    };
    let variants = [
        plain.clone(),
        Traffic {
            sizes: Sizes::imix(),
            spread: Spread::Zipf(1.1),
            ..plain.clone()
        },
        Traffic {
            sizes: Sizes::Mix(vec![(94, 1), (9000, 1)]),
            ip: IpVersions::Mixed,
            transport: Transports::Mixed,
            ..plain.clone()
        },
        Traffic {
            sizes: Sizes::Fixed(94),
            ip: IpVersions::V6,
            transport: Transports::Tcp,
            bidirectional: false,
            new_flows: 5000.0,
            ..plain.clone()
        },
        Traffic {
            new_flows: 20_000.0,
            ..plain.clone()
        },
    ];
    for traffic in variants {
        target.set_traffic(&traffic).unwrap();
        let result = complete(&mut target, &load(Rate::PacketsPerSecond(5000.0), 200));
        let directions = if traffic.bidirectional { 2 } else { 1 };
        assert_eq!(result.directions.len(), directions);
        for direction in &result.directions {
            assert_eq!(direction.offered, 1000, "{direction:?}");
            assert_eq!(direction.received, 1000, "{traffic:?} {direction:?}");
            let wrong = direction.reordered + direction.duplicated + direction.unexpected;
            assert_eq!(wrong, 0, "{direction:?}");
        }
    }
}

#[test]
fn a_next_hop_is_resolved_over_the_target() {
    let loopback = Loopback::start(1, None).unwrap();
    let mut target = attach(&loopback, 256);
    // The other endpoint plays whoever is asked for.
    for ip in [IpVersions::V4, IpVersions::V6] {
        let mut traffic = Traffic {
            sizes: Sizes::Fixed(100),
            ip,
            ..Traffic::default()
        };
        traffic.sides[0].next_hop = Some(NextHop::OnLink);
        traffic.sides[1].next_hop = Some(NextHop::OnLink);
        target.set_traffic(&traffic).unwrap();
        let rate = Rate::PacketsPerSecond(1000.0);
        let result = target.trial(&load(rate, 50), &Silent).unwrap();
        assert!(result.loss_ratio() <= 0.0);
    }
}

#[test]
fn bursts_have_as_many_frames_as_asked_for() {
    let loopback = Loopback::start(1, None).unwrap();
    let mut target = attach(&loopback, 256);
    target.set_traffic(&Traffic::default()).unwrap();
    let load = Load {
        burst: Some(100),
        ..load(Rate::Max, 1000)
    };
    let result = target.trial(&load, &Silent).unwrap();
    for direction in &result.directions {
        assert_eq!([direction.offered, direction.received], [100, 100]);
    }
}

/// Whether the generator was the limit follows from its polls: before a plain loop there is always something to do,
/// before a back end that takes 64 frames now and then hardly ever.
#[test]
fn who_was_the_limit_is_told_by_idle_polls() {
    struct Throttled(Instant, Plain);
    impl Lane for Throttled {
        fn pass(
            &mut self,
            from: &mut chainplane_vhost::backend::QueuePair,
            to: &mut chainplane_vhost::backend::QueuePair,
        ) -> usize {
            if self.0.elapsed() < Duration::from_millis(10) {
                return 0;
            }
            self.0 = Instant::now();
            self.1.pass(from, to)
        }
    }
    let lane = || Box::new(Throttled(Instant::now(), Plain)) as Box<dyn Lane>;
    let loopback = Loopback::with(1, None, vec![lane(), lane()]).unwrap();
    let trial = |target: &mut Attached| {
        let result = target.trial(&load(Rate::Max, 100), &Silent).unwrap();
        result.generator_idle
    };
    let mut throttled = attach(&loopback, 256);
    throttled.set_traffic(&Traffic::default()).unwrap();
    // Where others have the processors there are few polls.
    let idle = (0..5).map(|_| trial(&mut throttled));
    let idle: Vec<f64> = idle.collect();
    assert!(idle.iter().any(|idle| *idle > 0.5), "{idle:?}");
    let mut plain = Attached::plain_loop(POLITE).unwrap();
    plain.set_traffic(&Traffic::default()).unwrap();
    assert!(trial(&mut plain) < 0.1);
}

fn faulty(rates: [Rates; 2], seed: u64, traffic: &Traffic) -> (Loopback, [Switch; 2]) {
    let switches = [Switch::default(), Switch::default()];
    let fill = Fill::new(traffic.seed);
    let lane = |direction: usize| {
        let seed = seed.wrapping_add(direction as u64);
        Box::new(Faulty::new(
            &switches[direction],
            rates[direction],
            seed,
            fill.clone(),
        )) as Box<dyn Lane>
    };
    let loopback = Loopback::with(1, None, vec![lane(0), lane(1)]).unwrap();
    (loopback, switches)
}

fn rates() -> impl Strategy<Value = Rates> {
    (0u64..300, 0u64..300, 0u64..300, 0u64..300, 0u64..100).prop_map(
        |(lose, repeat, damage, reorder, mistranslate)| Rates {
            lose,
            repeat,
            damage,
            reorder,
            mistranslate,
            delay: Duration::ZERO,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_generator_finds_exactly_what_was_done(
        rates in [rates(), rates()], seed: u64, flows in 1u32..50, size in 64u16..600,
    ) {
        let traffic = Traffic { flows, sizes: Sizes::Fixed(size), seed, ..Traffic::default() };
        let (loopback, switches) = faulty(rates, seed, &traffic);
        let mut target = attach(&loopback, 512);
        target.set_traffic(&traffic).unwrap();
        // The flows are opened without faults.
        target.trial(&load(Rate::PacketsPerSecond(100.0), 10), &Silent).unwrap();
        for switch in &switches {
            switch.arm(true);
        }
        let result = target.trial(&load(Rate::PacketsPerSecond(20_000.0), 150), &Silent).unwrap();
        for (direction, switch) in result.directions.iter().zip(&switches) {
            let done = switch.done();
            prop_assert_eq!(direction.sent, done.passed, "{:?}", direction);
            // A packet that waits for a follower when the trial ends is lost.
            // What found no room, on a busy machine, counts as lost and never reached the back end.
            let held = direction.lost - done.lost - (direction.offered - direction.sent);
            prop_assert!(held <= 1, "{:?} {:?}", direction, done);
            prop_assert_eq!(direction.duplicated, done.repeated);
            prop_assert_eq!(direction.corrupted, done.damaged);
            prop_assert_eq!(direction.mistranslated, done.mistranslated);
            prop_assert_eq!(direction.reordered, done.reordered);
            prop_assert_eq!(direction.unexpected, 0);
            let came = direction.received + direction.corrupted + direction.mistranslated;
            prop_assert_eq!(came + direction.lost, direction.offered);
        }
    }
}

#[test]
fn delay_is_found_in_the_latency() {
    let traffic = Traffic::default();
    let late = Rates {
        delay: Duration::from_millis(30),
        ..Rates::default()
    };
    let (loopback, _) = faulty([late, Rates::default()], 1, &traffic);
    let mut target = attach(&loopback, 512);
    let one_way = Traffic {
        bidirectional: false,
        ..traffic
    };
    target.set_traffic(&one_way).unwrap();
    let rate = Rate::PacketsPerSecond(2000.0);
    let result = target.trial(&load(rate, 200), &Silent).unwrap();
    assert_eq!(result.directions[0].received, 400);
    let [least, median] = [result.latency.min(), result.latency.value_at_quantile(0.5)];
    assert!(least >= 29_900_000, "{least}");
    assert!(median < 60_000_000, "{median}");
}

#[test]
fn openings_that_were_tried_again_are_no_strangers() {
    let traffic = Traffic::default();
    let late = Rates {
        delay: Duration::from_millis(60),
        ..Rates::default()
    };
    let (loopback, _) = faulty([late, late], 1, &traffic);
    let mut target = attach(&loopback, 512);
    target.set_traffic(&traffic).unwrap();
    let rate = Rate::PacketsPerSecond(1000.0);
    let result = target.trial(&load(rate, 200), &Silent).unwrap();
    for direction in &result.directions {
        assert_eq!(direction.received, 200, "{direction:?}");
        assert_eq!(direction.unexpected, 0, "{direction:?}");
    }
}

#[test]
fn a_stall_counts_for_every_packet_that_was_due_in_it() {
    // The target stops for 100 ms while a packet is due each millisecond: by coordinated omission only one would
    // have waited.
    struct Stalls(Instant, Plain);
    impl Lane for Stalls {
        fn pass(
            &mut self,
            from: &mut chainplane_vhost::backend::QueuePair,
            to: &mut chainplane_vhost::backend::QueuePair,
        ) -> usize {
            let phase = self.0.elapsed().as_millis() % 400;
            if phase < 100 {
                0
            } else {
                self.1.pass(from, to)
            }
        }
    }
    let lane = || Box::new(Stalls(Instant::now(), Plain)) as Box<dyn Lane>;
    let loopback = Loopback::with(1, None, vec![lane(), lane()]).unwrap();
    // A ring that holds less than falls due during the stall.
    let mut target = attach(&loopback, 32);
    let traffic = Traffic {
        bidirectional: false,
        ..Traffic::default()
    };
    target.set_traffic(&traffic).unwrap();
    let rate = Rate::PacketsPerSecond(1000.0);
    let result = target.trial(&load(rate, 800), &Silent).unwrap();
    let waited = result.latency.count_between(20_000_000, u64::MAX / 4);
    // The ring holds 32.
    assert!(waited >= 75, "{waited} of 800 waited for 20 ms or more");
}

fn attach_error(spec: EndpointSpec) -> BenchError {
    let loopback = Loopback::start(1, None).unwrap();
    let [_, b] = loopback.endpoints(256);
    let Err(error) = Attached::new("x", [spec, b], POLITE, &Silent) else {
        panic!("it attached");
    };
    error
}

fn quick(path: &std::path::Path, listen: bool) -> EndpointSpec {
    let options = VhostOptions {
        listen,
        patience: Duration::from_millis(300),
        ..VhostOptions::default()
    };
    EndpointSpec::Vhost(path.to_owned(), options)
}

#[test]
fn sockets_that_are_none_or_nobodys_give_clear_errors() {
    let dir = tempfile::tempdir().unwrap();
    let missing = attach_error(quick(&dir.path().join("none.sock"), false));
    assert!(missing.to_string().contains("none.sock"), "{missing}");
    assert!(missing.to_string().contains("no such file"), "{missing}");
    assert!(missing.hint().unwrap().contains("listen:"));

    let dead = dir.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    let dead = attach_error(quick(&dead, false));
    assert!(dead.to_string().contains("nobody listens"), "{dead}");

    // Somebody who listens and says nothing, and somebody who speaks another language.
    let path = dir.path().join("mute.sock");
    let _mute = UnixListener::bind(&path).unwrap();
    let start = Instant::now();
    let mute = attach_error(quick(&path, false));
    assert!(mute.to_string().contains("no answer"), "{mute}");
    assert!(start.elapsed() < Duration::from_secs(5));

    let path = dir.path().join("web.sock");
    let web = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = web.accept().unwrap();
        let _ = stream.write_all(&b"HTTP/1.1 400 Bad Request\r\n".repeat(10));
    });
    let other = attach_error(quick(&path, false));
    server.join().unwrap();
    assert!(other.to_string().contains("negotiation failed"), "{other}");
    assert!(other.hint().is_some());

    let alone = attach_error(quick(&dir.path().join("alone.sock"), true));
    assert!(alone.to_string().contains("nobody connected"), "{alone}");
}

#[test]
fn a_target_that_dies_ends_the_trial() {
    let mut loopback = Loopback::start(1, None).unwrap();
    let mut target = attach(&loopback, 256);
    target.set_traffic(&Traffic::default()).unwrap();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        loopback.stop();
    });
    let start = Instant::now();
    let long = load(Rate::PacketsPerSecond(1000.0), 30_000);
    let error = target.trial(&long, &Silent).unwrap_err();
    killer.join().unwrap();
    assert!(matches!(error, BenchError::Died { .. }), "{error:?}");
    assert!(error.to_string().contains("disconnected"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_chain_that_eats_everything_is_told_as_such() {
    struct Hole;
    impl Lane for Hole {
        fn pass(
            &mut self,
            from: &mut chainplane_vhost::backend::QueuePair,
            _: &mut chainplane_vhost::backend::QueuePair,
        ) -> usize {
            let count = from.from_guest.fetch(64);
            from.from_guest.complete();
            count
        }
    }
    let loopback = Loopback::with(1, None, vec![Box::new(Hole), Box::new(Hole)]).unwrap();
    let mut target = attach(&loopback, 256);
    target.set_traffic(&Traffic::default()).unwrap();
    let error = target.trial(&load(Rate::Max, 100), &Silent).unwrap_err();
    assert!(
        error.to_string().contains("nothing comes through"),
        "{error}"
    );
    assert!(error.hint().is_some());
    // And a next hop that does not answer.
    let mut traffic = Traffic::default();
    traffic.sides[0].next_hop = Some(NextHop::Router([10, 0, 0, 1].into()));
    let error = target.set_traffic(&traffic).unwrap_err();
    assert!(error.to_string().contains("10.0.0.1"), "{error}");
}

#[test]
fn whoever_gives_up_is_heard() {
    struct Impatient(Instant);
    impl Progress for Impatient {
        fn tick(&self, fraction: f64) {
            assert!((0.0..=1.0).contains(&fraction));
        }

        fn cancelled(&self) -> bool {
            self.0.elapsed() > Duration::from_millis(200)
        }
    }
    let mut target = Attached::plain_loop(POLITE).unwrap();
    target.set_traffic(&Traffic::default()).unwrap();
    let start = Instant::now();
    let long = load(Rate::PacketsPerSecond(10.0), 60_000);
    let error = target.trial(&long, &Impatient(start)).unwrap_err();
    assert!(matches!(error, BenchError::Cancelled), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    // And the target can be used again.
    target.trial(&load(Rate::Max, 20), &Silent).unwrap();
}
