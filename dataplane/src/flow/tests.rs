//! The flow table against a map, and keys against what they must tell apart.

use std::collections::HashMap;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::function::INSIDE;
use crate::objects::Objects;
use crate::packet::{HugePages, Packet, Pool, PoolConfig, parse};
use crate::time::Time;

fn pool() -> Pool {
    Pool::new(PoolConfig {
        small: 2,
        large: 0,
        huge_pages: HugePages::Never,
    })
    .unwrap()
}

fn packet(pool: &mut Pool, from: u16) -> Packet {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
        .udp(from, 2)
        .write(&mut frame, b"x")
        .unwrap();
    let mut packet = pool.copy_of(&frame).unwrap();
    parse(&mut packet).unwrap();
    packet
}

/// A record that sends to this port, which tells it from others.
fn record(key: &FlowKey, packet: &Packet, port: u16, paths: &mut Paths, now: Time) -> Record {
    let mut recorder = Recorder::default();
    recorder.begin(true);
    recorder.enter(0, INSIDE);
    recorder.approve();
    recorder.left(INSIDE);
    Record::finish(&recorder, key, packet, End::Port(port), paths, now).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(u16, u16),
    Get(u16),
    Remove(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u16..60, 0u16..40).prop_map(|(key, port)| Op::Insert(key, port)),
        3 => (0u16..60).prop_map(Op::Get),
        1 => (0u16..60).prop_map(Op::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A table may forget, but only by an eviction that it tells of; it never gives another flow's record, or an old one.
    #[test]
    fn behaves_like_a_map_that_forgets(
        ops in proptest::collection::vec(op(), 1..200), capacity in 1usize..40, seeds: [u64; 4],
    ) {
        let (mut pool, mut paths, mut objects) = (pool(), Paths::default(), Objects::default());
        let mut packet = packet(&mut pool, 1);
        let mut table = FlowTable::new(capacity, seeds);
        let mut model: HashMap<u16, u16> = HashMap::new();
        for (serial, op) in ops.into_iter().enumerate() {
            let now = Time((serial as u64) << 20);
            match op {
                Op::Insert(flow, port) => {
                    let key = key_of(&packet, flow).unwrap();
                    let hash = table.hash(&key);
                    let before = table.len();
                    let known = table.get(&key, hash).is_some();
                    let evicted = table.insert(record(&key, &packet, port, &mut paths, now), hash);
                    let kept = table.get(&key, hash).is_some();
                    let expected = before + usize::from(kept) - usize::from(known) - usize::from(evicted);
                    prop_assert_eq!(table.len(), expected);
                    prop_assert!(kept || table.len() >= capacity.max(8) - 1, "room, but not taken in");
                    model.insert(flow, port);
                }
                Op::Get(flow) => {
                    let key = key_of(&packet, flow).unwrap();
                    let hash = table.hash(&key);
                    let Some(found) = table.get(&key, hash) else { continue };
                    let end = found.replay(&mut packet, &mut objects, now, |_, _| {}).end;
                    prop_assert_eq!(Some(end), model.get(&flow).map(|port| End::Port(*port)));
                }
                Op::Remove(flow) => {
                    let key = key_of(&packet, flow).unwrap();
                    let hash = table.hash(&key);
                    table.remove(&key, hash);
                    model.remove(&flow);
                    prop_assert!(table.get(&key, hash).is_none());
                }
            }
            prop_assert!(table.len() <= capacity.max(8));
        }
    }

    #[test]
    fn while_there_is_room_nothing_is_forgotten(flows in proptest::collection::hash_set(0u16..2000, 1..8), seeds: [u64; 4]) {
        let (mut pool, mut paths) = (pool(), Paths::default());
        let packet = packet(&mut pool, 1);
        let mut table = FlowTable::new(8, seeds);
        for flow in &flows {
            let key = key_of(&packet, *flow).unwrap();
            let hash = table.hash(&key);
            prop_assert!(!table.insert(record(&key, &packet, *flow, &mut paths, Time(0)), hash));
        }
        prop_assert_eq!(table.len(), flows.len());
        for flow in &flows {
            let key = key_of(&packet, *flow).unwrap();
            prop_assert!(table.get(&key, table.hash(&key)).is_some());
        }
    }
}

#[test]
fn a_full_bucket_gives_up_the_record_used_longest_ago() {
    let (mut pool, mut paths) = (pool(), Paths::default());
    let packet = packet(&mut pool, 1);
    let mut table = FlowTable::new(8, [1, 2, 3, 4]);
    let keys: Vec<_> = (0..9).map(|n| key_of(&packet, n).unwrap()).collect();
    for (age, key) in keys.iter().enumerate() {
        // One hash for all of them, so that they share a bucket.
        let now = Time((age as u64 + 5) << 20);
        let evicted = table.insert(record(key, &packet, 0, &mut paths, now), 7);
        assert_eq!(evicted, age == 8);
    }
    assert!(table.get(&keys[0], 7).is_none());
    assert!(keys[1..].iter().all(|key| table.get(key, 7).is_some()));
}

#[test]
fn keys_tell_flows_apart() {
    let mut pool = pool();
    let (one, other) = (packet(&mut pool, 1), packet(&mut pool, 9));
    assert_eq!(key_of(&one, 0), key_of(&one, 0));
    assert_ne!(key_of(&one, 0), key_of(&one, 1));
    assert_ne!(key_of(&one, 0), key_of(&other, 0));
}
