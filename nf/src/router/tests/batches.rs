//! A batch gives what its packets give one after the other.

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::Interface;
use chainplane_dataplane::sim::{Sim, SimFunction};
use proptest::prelude::*;

use super::fixture::*;
use super::replay::{Op, apply, frame, op};

/// Applies operations: what has a frame comes in together with the others, up to the next wait.
fn apply_together(net: &mut Net, ops: &[Op]) -> Vec<Vec<(usize, Vec<u8>)>> {
    let mut out = Vec::new();
    for op in ops {
        if let Some((port, frame)) = frame(op) {
            net.sim.inject(port, &frame);
        } else {
            net.sim.run();
            out.push(net.collect());
            out.push(apply(net, op));
        }
    }
    net.sim.run();
    out.push(net.collect());
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn batches_change_nothing(ops in proptest::collection::vec(op(), 1..150)) {
        let (mut batches, mut one_by_one) = (Net::acquainted(None), Net::acquainted(None));
        batches.sim.without_records();
        let (a, b) = (apply_together(&mut batches, &ops), apply_together(&mut one_by_one, &ops));
        prop_assert_eq!(a, b);
        prop_assert_eq!(batches.stats(), one_by_one.stats());
        prop_assert_eq!(one_by_one.engine("flow-not-needed"), 0);
    }
}

/// Two routers, one behind the other; the far one knows a host by its port.
fn two(batches: bool) -> Sim {
    const NEAR: &str = r#"{
        "interfaces": {
            "a": { "address": "10.0.1.1/24", "mac": "02:00:00:00:01:01", "neighbours": { "10.0.1.2": "02:00:00:00:01:02" } },
            "b": { "address": "10.0.9.1/24", "mac": "02:00:00:00:09:01", "neighbours": { "10.0.9.2": "02:00:00:00:09:02" } }
        },
        "routes": [{ "to": "10.0.2.0/24", "via": "10.0.9.2" }]
    }"#;
    const FAR: &str = r#"{
        "interfaces": {
            "a": { "address": "10.0.9.2/24", "mac": "02:00:00:00:09:02", "neighbours": { "10.0.9.1": "02:00:00:00:09:01" } },
            "b": { "address": "10.0.2.1/24", "mac": "02:00:00:00:02:01", "neighbours": { "10.0.2.2": "02:00:00:00:02:02" } }
        },
        "routes": [{ "to": "10.0.1.0/24", "via": "10.0.9.1" }]
    }"#;
    let [near, far] = [NEAR, FAR].map(|text| blueprint(&config(text)));
    let between = |function: u16, by: u16| Hop::Function(function, Interface(by));
    let functions = [
        SimFunction {
            name: "near",
            blueprint: &*near,
            links: vec![("a", Hop::Port(0)), ("b", between(1, 0))],
        },
        SimFunction {
            name: "far",
            blueprint: &*far,
            links: vec![("a", between(0, 1)), ("b", Hop::Port(1))],
        },
    ];
    let mut sim = Sim::new(None, &functions, 7);
    sim.add_port("left", between(0, 0));
    sim.add_port("right", between(1, 1));
    if batches {
        sim.without_records();
    }
    sim
}

#[test]
fn routers_in_a_row_pass_batches_on() {
    let packet = |dst: &str, ttl: u8, flow: u16| Udp {
        ttl,
        ports: (flow, 9),
        ..Udp::from(A, dst)
    };
    let frames: Vec<_> = (0..300u16)
        .map(|n| match n % 7 {
            // One hop is enough for the first router only; one address is the far router's own.
            3 => packet("10.0.2.2", 2, n),
            5 => packet("10.0.9.2", 64, n),
            6 => packet("10.7.0.1", 64, n),
            _ => packet("10.0.2.2", 64, n),
        })
        .map(|packet| packet.frame())
        .collect();
    let [a, b] = [true, false].map(|batches| {
        let mut sim = two(batches);
        for some in frames.chunks(100) {
            for frame in some {
                sim.inject(0, frame);
            }
            sim.run();
        }
        let sent = [sim.sent(0), sim.sent(1)];
        (sent, sim.snapshot().functions)
    });
    assert_eq!(a.0[1].len(), 300 / 7 * 4 + 4);
    assert!(a.0[0].len() > 50, "errors for those that end on the way");
    assert_eq!(a, b);
}
