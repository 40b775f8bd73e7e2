use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::packet::Mac;

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(u16, u16),
    Replay(u16),
    Forget(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u16..60, 0u16..40).prop_map(|(flow, port)| Op::Insert(flow, port)),
        3 => (0u16..60).prop_map(Op::Replay),
        1 => (0u16..60).prop_map(Op::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A table may forget, but only by an eviction that it tells of; it never gives another flow's record, or an old one.
    #[test]
    fn behaves_like_a_map_that_forgets(
        ops in proptest::collection::vec(op(), 1..200), capacity in 1usize..40, seeds: [u64; 4],
    ) {
        let mut flows = Flows::new(capacity, Objects::default(), seeds);
        let mut model: HashMap<u16, u16> = HashMap::new();
        for (serial, op) in ops.into_iter().enumerate() {
            let now = Time((serial as u64) << 20);
            match op {
                Op::Insert(flow, port) => {
                    let (before, known) = (flows.table().len(), flows.find(flow).is_some());
                    let installed = flows.install(flow, &recording(), port, now);
                    let kept = flows.find(flow).is_some();
                    prop_assert_eq!(kept, installed.is_some());
                    let evicted = installed == Some(true);
                    let expected = before + usize::from(kept) - usize::from(known) - usize::from(evicted);
                    prop_assert_eq!(flows.table().len(), expected);
                    prop_assert!(kept || flows.table().len() >= capacity.max(8) - 1, "room, but not taken in");
                    model.insert(flow, port);
                }
                Op::Replay(flow) => {
                    if let Some(port) = flows.replay(flow, now) {
                        prop_assert_eq!(Some(&port), model.get(&flow));
                    }
                }
                Op::Forget(flow) => {
                    if let Some(number) = flows.find(flow) {
                        flows.objects.forget(number);
                    }
                    model.remove(&flow);
                    prop_assert!(flows.find(flow).is_none());
                }
            }
            flows.objects.flows.as_mut().unwrap().drain_counts(|_, _, _, _| {});
            prop_assert!(flows.table().len() <= capacity.max(8));
            // One for each port at most: templates nobody uses are used again.
            prop_assert!(flows.table().templates.len() <= flows.table().len());
        }
    }

    #[test]
    fn while_there_is_room_nothing_is_forgotten(
        set in proptest::collection::hash_set(0u16..2000, 1..300), seeds: [u64; 4],
    ) {
        let mut flows = Flows::new(512, Objects::default(), seeds);
        for flow in &set {
            prop_assert_eq!(flows.install(*flow, &recording(), *flow, Time(0)), Some(false));
        }
        prop_assert_eq!(flows.table().len(), set.len());
        for flow in &set {
            prop_assert_eq!(flows.replay(*flow, Time(0)), Some(*flow));
        }
    }
}

#[test]
fn full_buckets_give_up_the_record_used_longest_ago() {
    let mut flows = Flows::new(64, Objects::default(), [1, 2, 3, 4]);
    let keys: Vec<_> = (0..17).map(|flow| flows.key(flow).0).collect();
    for (age, key) in keys.iter().enumerate() {
        // One hash for all of them, so that they share both buckets.
        let now = Time((age as u64 + 5) << 20);
        let (packet, paths) = (packet(&mut flows.pool, 1), &mut flows.paths);
        let way = (&packet, End::Port(0));
        let installed = flows
            .objects
            .install(&recording(), (key, 7), way, paths, now);
        assert_eq!(installed, Some(age == 16));
    }
    let known = |key| flows.table().find(key, 7, Located::NOWHERE).is_some();
    assert!(!known(&keys[0]));
    assert!(keys[1..].iter().all(known));
}

#[test]
fn a_neighbour_that_comes_and_goes_does_not_use_up_the_templates() {
    let mut objects = Objects::default();
    let neighbour = objects.reserve(1).at(0);
    let mut flows = Flows::new(16, objects, [1, 2, 3, 4]);
    for change in 0..200_000_u32 {
        let mut recorder = recording();
        recorder.depend(neighbour, flows.objects.epoch(neighbour), Kind::Shared);
        let [.., a, b] = change.to_be_bytes();
        recorder.set_mac_dst(Mac([2, 0, 0, 0, a, b]));
        let flow = (change % 4) as u16;
        assert!(flows.install(flow, &recorder, 1, Time(0)).is_some());
        assert_eq!(flows.replay(flow, Time(0)), Some(1));
        flows
            .objects
            .flows
            .as_mut()
            .unwrap()
            .drain_counts(|_, _, _, _| {});
        flows.objects.invalidate(neighbour);
        assert_eq!(
            flows.replay(flow, Time(0)),
            None,
            "the neighbour has changed"
        );
        assert!(flows.table().templates.len() <= 4);
    }
}
