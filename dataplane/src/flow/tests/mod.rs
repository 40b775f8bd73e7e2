//! The flow table against a map, sessions behind records against sessions without, and both forms of a rewrite.

mod rewrites;
mod sessions;
mod tables;

use etherparse::PacketBuilder;

use super::*;
use crate::function::INSIDE;
use crate::objects::Objects;
use crate::packet::{HugePages, Packet, Pool, PoolConfig, parse};
use crate::time::Time;

fn pool() -> Pool {
    Pool::new(PoolConfig {
        small: 4,
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

/// A recording of a path through one function.
fn recording() -> Recorder {
    let mut recorder = Recorder::default();
    recorder.begin(true);
    recorder.enter(0, INSIDE);
    recorder.approve();
    recorder.left(INSIDE);
    recorder
}

/// Flows that differ by the port that their packets come in by.
struct Flows {
    pool: Pool,
    paths: Paths,
    objects: Objects,
}

impl Flows {
    fn new(capacity: usize, objects: Objects, seeds: [u64; 4]) -> Self {
        let mut objects = objects;
        let table = FlowTable::new(capacity, &objects, seeds).unwrap();
        objects.adopt(Some(table));
        Self {
            pool: pool(),
            paths: Paths::default(),
            objects,
        }
    }

    fn table(&self) -> &FlowTable {
        self.objects.flows.as_ref().unwrap()
    }

    fn packet(&mut self) -> Packet {
        packet(&mut self.pool, 1)
    }

    fn key(&mut self, flow: u16) -> (FlowKey, u64) {
        let key = key_of(&self.packet(), flow).unwrap();
        (key, self.table().hash(&key))
    }

    fn find(&mut self, flow: u16) -> Option<u32> {
        let (key, hash) = self.key(flow);
        let located = self.table().locate(&key, hash);
        let found = self.table().find(&key, hash, located);
        assert_eq!(found, self.table().find(&key, hash, Located::NOWHERE));
        found
    }

    fn install(&mut self, flow: u16, recorder: &Recorder, port: u16, now: Time) -> Option<bool> {
        let (key, hash) = self.key(flow);
        let (packet, paths) = (packet(&mut self.pool, 1), &mut self.paths);
        self.objects.install(
            recorder,
            (&key, hash),
            (&packet, End::Port(port)),
            paths,
            now,
        )
    }

    /// Replays a packet of the flow, whose stale record goes; tells where it went.
    fn replay(&mut self, flow: u16, now: Time) -> Option<u16> {
        let number = self.find(flow)?;
        let mut packet = self.packet();
        let replayed = self.objects.replay(number, &mut packet, now);
        if replayed.is_err() {
            self.objects.forget(number);
        }
        replayed.ok().flatten()
    }
}

#[test]
fn keys_tell_flows_apart() {
    let mut pool = pool();
    let (one, other) = (packet(&mut pool, 1), packet(&mut pool, 9));
    assert_eq!(key_of(&one, 0), key_of(&one, 0));
    assert_ne!(key_of(&one, 0), key_of(&one, 1));
    assert_ne!(key_of(&one, 0), key_of(&other, 0));
}
