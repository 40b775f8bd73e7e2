use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use chainplane_vhost::backend::{Device, DeviceConfig};
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{NetHeader, feature};

use super::*;
use crate::engine::Hop;
use crate::function::{Context, Descriptor, Function, Interface, Verdict};
use crate::objects::Objects;
use crate::packet::{HugePages, Packet, Pool, PoolConfig};
use crate::ports::VhostUser;

const LIMIT: Duration = Duration::from_secs(30);
const FRAME: [u8; 64] = [7; 64];

fn pool() -> std::io::Result<Pool> {
    Pool::new(PoolConfig {
        small: 128,
        large: 2,
        huge_pages: HugePages::Never,
    })
}

fn config(idle: Idle) -> WorkerConfig {
    WorkerConfig {
        name: "test".into(),
        core: None,
        idle,
    }
}

/// A worker with two ports that lead to each other, and a driver at each.
struct Bench {
    drivers: [DriverPair; 2],
    _ends: Vec<FrontEnd>,
    worker: Worker,
    _devices: Vec<Device>,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(idle: Idle, features: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sockets = ["a", "b"].map(|name| directory.path().join(name));
        let wake = WakeHandle::new().unwrap();
        let (mut devices, mut queues) = (Vec::new(), Vec::new());
        for socket in &sockets {
            let waker = wake.clone();
            let config = DeviceConfig::new(socket);
            let (device, pairs) = Device::start(config, Box::new(move || waker.wake())).unwrap();
            devices.push(device);
            queues.push(pairs);
        }
        let worker = Worker::start(&config(idle), wake, move || {
            let mut engine = Engine::new(pool()?, Objects::default(), None);
            for (port, pairs) in queues.into_iter().enumerate() {
                let other = Hop::Port(1 - port as u16);
                engine.add_port("port", Box::new(VhostUser::new(pairs)), other);
            }
            Ok(engine)
        });
        let (mut ends, mut drivers) = (Vec::new(), Vec::new());
        for socket in sockets {
            let mut config = FrontEndConfig::new(socket);
            config.features = feature::VERSION_1 | features;
            let (end, mut pairs) = FrontEnd::connect(config).unwrap();
            assert_eq!(end.features() & features, features);
            drivers.push(pairs.remove(0));
            ends.push(end);
        }
        Self {
            drivers: drivers.try_into().unwrap(),
            _ends: ends,
            worker: worker.unwrap(),
            _devices: devices,
            _directory: directory,
        }
    }

    fn counter(&self, counter: EngineCounter) -> u64 {
        self.worker.stats().snapshot().engine[counter as usize].1
    }

    /// Waits until the worker has slept so many times more.
    fn wait_for_sleeps(&self, more: u64) {
        let (start, before) = (Instant::now(), self.counter(EngineCounter::Sleeps));
        while self.counter(EngineCounter::Sleeps) < before + more {
            assert!(start.elapsed() < LIMIT, "the worker does not sleep");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a frame from the one driver to the other.
    fn send(&mut self) {
        let transmit = &mut self.drivers[0].transmit;
        transmit.reclaim();
        assert!(transmit.send(NetHeader::default(), &FRAME));
        transmit.flush();
    }

    /// Waits until the other has so many.
    fn wait_for_frames(&mut self, frames: usize) {
        let receive = &mut self.drivers[1].receive;
        let (start, mut received) = (Instant::now(), 0);
        while received < frames {
            received += receive.receive(64, |_, frame| assert_eq!(frame, FRAME));
            assert!(start.elapsed() < LIMIT, "a frame is lost");
            std::thread::yield_now();
        }
        assert_eq!(received, frames);
        receive.flush();
    }
}

#[test]
fn an_idle_worker_polls_once_a_sleep_and_a_kick_wakes_it() {
    let mut bench = Bench::new(Idle::Adaptive, 0);
    for _ in 0..3 {
        bench.send();
        bench.wait_for_frames(1);
        // It polls on for a while first, and the control threads' last words may have come late.
        bench.wait_for_sleeps(2);
        let polls = bench.counter(EngineCounter::Polls);
        let sleeps = bench.counter(EngineCounter::Sleeps);
        bench.wait_for_sleeps(3);
        let polls = bench.counter(EngineCounter::Polls) - polls;
        let sleeps = bench.counter(EngineCounter::Sleeps) - sleeps;
        assert!(polls <= sleeps + 1, "{polls} polls in {sleeps} sleeps");
    }
}

/// A worker that sleeps after every poll in vain gets frames at every moment of that: the kick that wakes it up must
/// never be missing, or the frame lies there until the longest sleep is over.
fn kicks_race_with_sleep(features: u64) {
    const ROUNDS: u32 = 4000;
    let mut bench = Bench::new(Idle::Interrupt, features);
    for round in 0..ROUNDS {
        // The first frame wakes the worker up, the second meets it a little later each time: before it looks, while it
        // looks for more, and on its way to sleep.
        bench.send();
        (0..round % 1000 * 4).for_each(|_| std::hint::spin_loop());
        bench.send();
        bench.wait_for_frames(2);
    }
    let (sleeps, late) = (
        bench.counter(EngineCounter::Sleeps),
        bench.counter(EngineCounter::Overslept),
    );
    let kicks = bench.drivers[0].transmit.kicks();
    println!("{ROUNDS} rounds: {kicks} kicks, {sleeps} sleeps, {late} too long");
    let some = u64::from(ROUNDS) / 10;
    assert!(kicks > some && sleeps > some);
    // A kick may come at the very moment at which the longest sleep ends, on a machine that is busy with other things.
    assert!(late <= 2, "{late} frames were not told of");
}

#[test]
fn no_kick_is_lost_with_split_rings() {
    kicks_race_with_sleep(0);
}

#[test]
fn no_kick_is_lost_with_split_rings_and_event_indices() {
    kicks_race_with_sleep(feature::EVENT_IDX);
}

#[test]
fn no_kick_is_lost_with_packed_rings() {
    kicks_race_with_sleep(feature::RING_PACKED);
}

#[test]
fn no_kick_is_lost_with_packed_rings_and_event_indices() {
    kicks_race_with_sleep(feature::RING_PACKED | feature::EVENT_IDX);
}

/// A run of nothing but capture files ends by itself in every mode.
#[test]
fn every_worker_tells_that_nothing_is_left() {
    for idle in [Idle::Busy, Idle::Adaptive, Idle::Interrupt] {
        let worker = Worker::start(&config(idle), WakeHandle::new().unwrap(), || {
            Ok(Engine::new(pool()?, Objects::default(), None))
        });
        let (worker, start) = (worker.unwrap(), Instant::now());
        while !worker.is_finished() {
            assert!(start.elapsed() < LIMIT, "{idle:?}");
            std::thread::yield_now();
        }
    }
}

/// A function with many sessions, which notes how many it is to tell in one go.
struct Talkative {
    most: Arc<AtomicUsize>,
}

const SESSIONS: usize = 1003;

impl Function for Talkative {
    fn descriptor(&self) -> &'static Descriptor {
        const {
            &Descriptor {
                kind: "talkative",
                counters: &[],
                drops: &[],
            }
        }
    }

    fn process(&mut self, _cx: &mut Context<'_>, packet: Packet, _from: Interface) -> Verdict {
        Verdict::Consume(packet)
    }

    fn sessions(
        &self,
        _now: Time,
        _objects: &Objects,
        cursor: usize,
        out: &mut Vec<SessionInfo>,
    ) -> Option<usize> {
        self.most.fetch_max(out.capacity(), Ordering::Relaxed);
        // One piece is without a session, as of a part of a table where there is none.
        if cursor == 400 {
            return Some(500);
        }
        let end = if cursor < 400 { 400 } else { SESSIONS };
        let last = (cursor + out.capacity()).min(end);
        out.extend((cursor..last).map(|session| SessionInfo {
            text: session.to_string(),
            idle_ms: 0,
        }));
        (last < SESSIONS).then_some(last)
    }
}

/// A function with slots in each of which a session might be, and is in none.
struct Silent;

impl Function for Silent {
    fn descriptor(&self) -> &'static Descriptor {
        const {
            &Descriptor {
                kind: "silent",
                counters: &[],
                drops: &[],
            }
        }
    }

    fn process(&mut self, _cx: &mut Context<'_>, packet: Packet, _from: Interface) -> Verdict {
        Verdict::Consume(packet)
    }

    fn sessions(
        &self,
        _now: Time,
        _objects: &Objects,
        cursor: usize,
        _out: &mut Vec<SessionInfo>,
    ) -> Option<usize> {
        Some(cursor + 1)
    }
}

/// A list is told after a bounded number of pieces, and each is done for itself: between them others have their turn.
#[test]
fn a_list_is_told_after_so_many_pieces() {
    let mut engine = Engine::new(pool().unwrap(), Objects::default(), None);
    engine.add_function("silent", Box::new(Silent), Vec::new());
    let (listing, answer) = Listing::new(0, 5, 1000);
    let (mut left, mut pieces) = (Some(listing), 0);
    while let Some(listing) = left {
        assert!(answer.is_empty());
        left = listing.go_on(&engine, Time(0));
        pieces += 1;
    }
    assert_eq!(pieces, listing::PIECES);
    let page = listing::wait(&answer).unwrap();
    assert_eq!((page.sessions.len(), page.next), (0, Some(5 + pieces)));
    // Nobody is left who might tell: no wait without an end.
    assert!(listing::wait(&answer).is_err());
}

#[test]
fn sessions_are_told_a_few_in_a_poll() {
    for idle in [Idle::Busy, Idle::Interrupt] {
        let most = Arc::new(AtomicUsize::new(0));
        let function = Talkative {
            most: Arc::clone(&most),
        };
        let worker = Worker::start(&config(idle), WakeHandle::new().unwrap(), move || {
            let mut engine = Engine::new(pool()?, Objects::default(), None);
            engine.add_function("talkative", Box::new(function), Vec::new());
            Ok(engine)
        })
        .unwrap();
        let polls = || worker.stats().snapshot().engine[EngineCounter::Polls as usize].1;
        let before = polls();
        let mut told = Vec::new();
        let mut next = Some(0);
        while let Some(cursor) = next {
            let page = worker.sessions(0, cursor, 300).unwrap();
            assert!(page.sessions.len() <= 300);
            told.extend(page.sessions.into_iter().map(|session| session.text));
            next = page.next;
        }
        let all = (0..400).chain(500..SESSIONS);
        let all: Vec<_> = all.map(|session| session.to_string()).collect();
        assert_eq!(told, all);
        assert!(most.load(Ordering::Relaxed) <= TOLD_AT_ONCE);
        assert!(polls() - before >= (all.len() / TOLD_AT_ONCE) as u64);
    }
}
