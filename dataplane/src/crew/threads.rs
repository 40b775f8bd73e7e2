//! Crews of real workers, which sleep whenever they can.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;

use super::{Elsewhere, Membership, Owners, crew};
use crate::engine::{Engine, EngineCounter, Hop};
use crate::flow::FlowTable;
use crate::function::{Context, Descriptor, Function, INSIDE, Interface, OUTSIDE, Verdict};
use crate::objects::Objects;
use crate::packet::{HugePages, Packet, Pool, PoolConfig, ethertype};
use crate::port::Port;
use crate::testing::{Sink, Source};
use crate::worker::{Idle, WakeHandle, Worker, WorkerConfig};

const LIMIT: Duration = Duration::from_mins(1);
const MEMBERS: u16 = 3;
const FLOWS: u64 = 32;
/// Packets that each member's queue brings.
const PACKETS: u64 = 30_000;

/// Lets everything pass, of some flows by records.
struct Gate;

impl Function for Gate {
    fn descriptor(&self) -> &'static Descriptor {
        const {
            &Descriptor {
                kind: "gate",
                counters: &[],
                drops: &[],
            }
        }
    }

    fn process(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        if packet.ports().is_some_and(|(flow, _)| flow % 3 > 0) {
            cx.replayable();
        }
        Verdict::Leave(from.opposite(), packet)
    }
}

/// The `number`th packet that a member's queue brings: of one of its flows, or to everyone.
fn frame(member: u16, number: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    let for_all = number % 1000 == 999;
    let to = if for_all { [0xff; 6] } else { [4; 6] };
    let flow = number * 7 % FLOWS;
    PacketBuilder::ethernet2([2; 6], to)
        .ipv4([10, 0, 0, member as u8], [10, 0, 1, 1], 9)
        .udp(flow as u16, 80)
        .write(&mut frame, &number.to_be_bytes())
        .unwrap();
    if for_all {
        frame[12..14].copy_from_slice(&ethertype::RARP.to_be_bytes());
    }
    frame
}

/// The last number of each flow, by member and port, that was sent; and how many packets were.
type Log = Arc<Mutex<(BTreeMap<[u8; 3], u64>, u64)>>;

/// Holds that each flow's packets come in order. Those to everyone may come out by any member, and in any order.
fn note(log: &Log, bytes: &[u8]) {
    let number = bytes[42..50].try_into().map(u64::from_be_bytes).unwrap();
    let mut log = log.lock().unwrap();
    log.1 += 1;
    if bytes[0] != 0xff {
        let last = log.0.insert([bytes[29], bytes[34], bytes[35]], number + 1);
        assert!(
            last.is_none_or(|last| last <= number),
            "{number} after {last:?}"
        );
    }
}

fn engine(membership: Membership, log: Option<Log>) -> std::io::Result<Engine> {
    let pool = Pool::new(PoolConfig {
        small: 1024,
        large: 0,
        huge_pages: HugePages::Never,
    })?;
    let objects = Objects::default();
    let flows = FlowTable::new(256, &objects, [1, 2, 3, 4])?;
    let mut engine = Engine::new(pool, objects, Some(flows));
    let links = [("inside", Hop::Port(0)), ("outside", Hop::Port(1))];
    let links = links.map(|(name, hop)| (name.to_owned(), hop));
    engine.add_function("gate", Box::new(Gate), links.into());
    let member = membership.share().index();
    let source = Source::new(PACKETS, move |number| frame(member, number));
    engine.add_port("inside", Box::new(source), Hop::Function(0, INSIDE));
    let outside: Box<dyn Port> = match log {
        Some(log) => Box::new(Sink(move |bytes: &[u8]| note(&log, bytes))),
        None => Box::new(Elsewhere),
    };
    engine.add_port("outside", outside, Hop::Function(0, OUTSIDE));
    engine.join(membership);
    Ok(engine)
}

/// Everything that comes in by any member's queue comes out in order, or is counted as a drop; `sinks` members hold a
/// queue to send by.
fn all_packets_pass(idle: Idle, sinks: u16) {
    let log = Log::default();
    let wakes: Vec<_> = (0..MEMBERS).map(|_| WakeHandle::new().unwrap()).collect();
    let memberships = crew(&Owners::new(MEMBERS, &[]), wakes.clone(), 2);
    let start = Instant::now();
    let mut workers: Vec<_> = wakes
        .into_iter()
        .zip(memberships)
        .map(|(wake, membership)| {
            let index = membership.share().index();
            let config = WorkerConfig {
                name: format!("member{index}"),
                core: None,
                idle,
            };
            let log = (index < sinks).then(|| Arc::clone(&log));
            Worker::start(&config, wake, move || engine(membership, log)).unwrap()
        })
        .collect();
    while !workers.iter().all(Worker::is_finished) {
        assert!(start.elapsed() < LIMIT, "packets are left");
        assert!(workers.iter().all(Worker::is_running), "out of order");
        std::thread::sleep(Duration::from_millis(1));
    }
    workers.iter_mut().for_each(Worker::stop);
    let (mut drops, mut counters) = (0, [0; 5]);
    for worker in &workers {
        let snapshot = worker.stats().snapshot();
        snapshot.check_conservation().unwrap();
        let of_port = |port: &crate::stats::PortSnapshot| {
            port.drops.iter().map(|(_, count)| count).sum::<u64>()
        };
        drops += snapshot.ports.iter().map(of_port).sum::<u64>();
        let wanted = [
            EngineCounter::HandedOver,
            EngineCounter::TakenOver,
            EngineCounter::Heard,
            EngineCounter::Sleeps,
            EngineCounter::Overslept,
        ];
        for (sum, counter) in counters.iter_mut().zip(wanted) {
            *sum += snapshot.engine[counter as usize].1;
        }
    }
    let [handed, taken, heard, sleeps, late] = counters;
    let sent = log.lock().unwrap().1;
    println!(
        "{sent} sent, {drops} dropped, {handed} handed over, {heard} heard, {sleeps} sleeps, {late} too long, {:?}",
        start.elapsed()
    );
    assert_eq!(handed, taken);
    // A copy for which there is no room is a drop, too.
    let copies = u64::from(MEMBERS) * (PACKETS / 1000) * u64::from(MEMBERS - 1);
    let brought = u64::from(MEMBERS) * PACKETS + copies;
    assert_eq!(sent + drops + heard, brought);
    assert!(handed > brought / 3);
    if idle == Idle::Interrupt {
        assert!(
            sleeps > 100 && late <= 3,
            "{sleeps} sleeps, {late} too long"
        );
    }
}

#[test]
fn members_that_sleep_lose_nothing_and_keep_the_order() {
    all_packets_pass(Idle::Interrupt, MEMBERS);
}

#[test]
fn one_member_sends_for_all() {
    all_packets_pass(Idle::Interrupt, 1);
}

#[test]
fn members_that_poll_on_lose_nothing() {
    all_packets_pass(Idle::Busy, 2);
}
