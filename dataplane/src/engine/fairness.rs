//! A flood that runs the stages, beside a port whose flows are recorded.

use std::time::Duration;

use etherparse::PacketBuilder;

use super::{EngineCounter, Hop};
use crate::function::{Context, Descriptor, Function, INSIDE, Interface, OUTSIDE, Verdict};
use crate::packet::{BURST, Packet};
use crate::rota::STAGED_SHARE;
use crate::sim::Sim;

/// Lets everything pass; what goes to this port may be replayed.
struct Gate;

const REPLAYED: u16 = 7;

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
        if packet.ports().is_some_and(|(_, to)| to == REPLAYED) {
            cx.replayable();
        }
        Verdict::Leave(from.opposite(), packet)
    }
}

fn frame(from: u16, to: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
        .udp(from, to)
        .write(&mut frame, b"x")
        .unwrap();
    frame
}

/// Ports 0 and 1 with a gate between them, and ports 2 and 3 with another.
fn two_pairs() -> Sim {
    let mut sim = Sim::new(Some(64), &[], 0);
    for pair in 0..2 {
        let links = [("inside", 2 * pair), ("outside", 2 * pair + 1)];
        let links = links.map(|(name, port)| (name.to_owned(), Hop::Port(port)));
        sim.engine()
            .add_function("gate", Box::new(Gate), links.into());
    }
    for port in 0..4 {
        let side = [INSIDE, OUTSIDE][usize::from(port % 2)];
        sim.add_port("port", Hop::Function(port / 2, side));
    }
    sim
}

#[test]
fn a_flood_that_runs_the_stages_leaves_the_others_their_time() {
    const POLLS: usize = 800;
    let mut sim = two_pairs();
    let now = sim.now;
    let mut from = 0;
    for _ in 0..POLLS {
        for _ in 0..BURST {
            sim.inject(0, &frame(from, 1));
            from = from.wrapping_add(1);
            sim.inject(2, &frame(1, REPLAYED));
        }
        sim.engine().poll(now);
    }
    assert_eq!(sim.sent(3).len(), POLLS * BURST);
    let flood = sim.sent(1);
    let share = POLLS * STAGED_SHARE as usize;
    assert!(
        (share..=share + BURST).contains(&flood.len()),
        "{}",
        flood.len()
    );
    // Alone it gets all there is, in order.
    sim.run();
    let rest = sim.sent(1);
    let all = flood.iter().chain(&rest);
    assert_eq!(all.clone().count(), POLLS * BURST);
    for (number, sent) in all.enumerate() {
        assert_eq!(sent.bytes, frame(number as u16, 1));
    }
}

/// The table is far too small for the flood, whose flows are all recorded and show one packet each.
#[test]
fn random_flows_leave_established_ones_their_records() {
    const ROUNDS: u64 = 1000;
    const ESTABLISHED: u16 = 16;
    let mut sim = two_pairs();
    let mut from = 0;
    for round in 0..ROUNDS {
        for flow in 0..ESTABLISHED {
            sim.inject(2, &frame(flow, REPLAYED));
        }
        for _ in 0..if round < 2 { 0 } else { 48 } {
            sim.inject(0, &frame(from, REPLAYED));
            from = from.wrapping_add(1);
        }
        sim.advance(Duration::from_millis(1));
    }
    let snapshot = sim.snapshot();
    let counter = |wanted: EngineCounter| snapshot.engine[wanted as usize].1;
    let first = u64::from(ESTABLISHED);
    assert_eq!(counter(EngineCounter::Hits), first * (ROUNDS - 1));
    assert!(counter(EngineCounter::Evicted) > 0);
}

#[test]
fn who_is_alone_does_not_sit_out() {
    let mut sim = two_pairs();
    let now = sim.now;
    for number in 0..BURST as u16 * 8 {
        sim.inject(0, &frame(number, 1));
    }
    for _ in 0..8 {
        assert_eq!(sim.engine().poll(now), BURST);
    }
    assert_eq!(sim.sent(1).len(), BURST * 8);
}
