use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::engine::{Engine, EngineCounter, Hop};
use crate::objects::Objects;
use crate::packet::{HugePages, Offload, Pool, PoolConfig};
use crate::sim::Sim;
use crate::testing::{Sink, Source};
use crate::worker::{Idle, Worker, WorkerConfig};

const LIMIT: Duration = Duration::from_mins(1);

fn ends() -> (Patch, Patch) {
    patch([0; 2].map(|_| WakeHandle::new().unwrap()))
}

/// Two workers' engines, each with a wire that leads to the patch between them.
fn joined() -> [Sim; 2] {
    let (a, b) = ends();
    [a, b].map(|end| {
        let mut sim = Sim::new(None, &[], 0);
        sim.add_port_with("wire", Hop::Port(1), Offloads::ALL);
        sim.engine().add_port("patch", Box::new(end), Hop::Port(0));
        sim
    })
}

#[test]
fn what_one_sends_the_other_receives() {
    let [mut a, mut b] = joined();
    let offload = Offload {
        needs_checksum: true,
        checksum_start: 34,
        checksum_offset: 16,
        ..Offload::default()
    };
    for number in 0..200u8 {
        a.inject_with(0, &[number; 100], offload);
        b.inject(0, &[number; 61]);
    }
    a.run();
    b.run();
    a.run();
    let (to_a, to_b) = (a.sent(0), b.sent(0));
    assert_eq!((to_a.len(), to_b.len()), (200, 200));
    for (number, (to_a, to_b)) in (0..).zip(to_a.iter().zip(&to_b)) {
        assert_eq!(to_a.bytes, [number; 61]);
        assert_eq!(
            (to_b.bytes.as_slice(), to_b.offload),
            (&[number; 100][..], offload)
        );
    }
    assert_eq!(a.snapshot().port("patch").unwrap().value("tx-packets"), 200);
    assert_eq!(
        b.snapshot().port("patch").unwrap().value("rx-bytes"),
        20_000
    );
}

#[test]
fn what_finds_it_full_is_dropped_and_it_ends_when_it_is_empty() {
    let [mut a, mut b] = joined();
    (0..2000).for_each(|_| a.inject(0, &[1; 1500]));
    a.run();
    let patch = a.snapshot();
    let patch = patch.port("patch").unwrap();
    let (sent, full) = (patch.value("tx-packets"), patch.value("full"));
    assert_eq!(sent + full, 2000);
    assert!(sent > 500 && full > 500);
    let finished = |sim: &mut Sim| sim.engine().ports[1].port.is_finished();
    assert!(!finished(&mut a) && !finished(&mut b));
    b.run();
    assert_eq!(b.sent(0).len() as u64, sent);
    assert!(finished(&mut a) && finished(&mut b));
}

#[test]
fn packets_stay_in_order_between_workers_that_sleep() {
    const PACKETS: u64 = 100_000;
    let wakes = [0; 2].map(|_| WakeHandle::new().unwrap());
    let (near, far) = patch(wakes.clone());
    let came = Arc::new(AtomicU64::new(0));
    let config = |name: &str| WorkerConfig {
        name: name.into(),
        core: None,
        idle: Idle::Interrupt,
    };
    let engine = |outer: Box<dyn Port>, patch: Patch| {
        let pool = Pool::new(PoolConfig {
            small: 512,
            large: 0,
            huge_pages: HugePages::Never,
        })?;
        let mut engine = Engine::new(pool, Objects::default(), None);
        engine.add_port("outer", outer, Hop::Port(1));
        engine.add_port("patch", Box::new(patch), Hop::Port(0));
        Ok(engine)
    };
    let [wake, other] = wakes;
    let counted = Arc::clone(&came);
    let sink = Sink(move |bytes: &[u8]| {
        let number = bytes[60..].try_into().map(u64::from_be_bytes).unwrap();
        assert_eq!(number, counted.fetch_add(1, Ordering::Relaxed));
    });
    let far = Worker::start(&config("far"), other, move || engine(Box::new(sink), far)).unwrap();
    let frame = |number: u64| [&[0; 60][..], &number.to_be_bytes()].concat();
    let source = Source::new(PACKETS, frame);
    let near = Worker::start(&config("near"), wake, move || {
        engine(Box::new(source), near)
    })
    .unwrap();
    let start = Instant::now();
    while !(near.is_finished() && far.is_finished()) || came.load(Ordering::Relaxed) < PACKETS {
        assert!(
            start.elapsed() < LIMIT,
            "{} came",
            came.load(Ordering::Relaxed)
        );
        assert!(far.is_running(), "out of order");
        std::thread::sleep(Duration::from_millis(1));
    }
    let engine = |worker: &Worker, counter: EngineCounter| {
        worker.stats().snapshot().engine[counter as usize].1
    };
    let (sleeps, late) = (
        engine(&far, EngineCounter::Sleeps),
        engine(&far, EngineCounter::Overslept),
    );
    println!(
        "{PACKETS} packets in {:?}, {sleeps} sleeps, {late} too long",
        start.elapsed()
    );
    assert!(
        sleeps > 100 && late <= 2,
        "{sleeps} sleeps, {late} too long"
    );
}
