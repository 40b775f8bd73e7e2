//! Sessions that records keep alive are as old, and as dead, as if every packet had touched them.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::objects::ObjectId;

const SESSIONS: usize = 8;
const FLOWS: u16 = 10;

#[derive(Clone, Debug)]
enum Op {
    /// A packet of a flow: replayed, or else by the stages, which touch the flow's sessions.
    Packet(u16),
    /// A packet of a flow that the stages handle, with other timeouts from now on.
    Stages(u16, u32),
    Wait(u16),
    End(usize),
    Settle(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..FLOWS).prop_map(Op::Packet),
        2 => (0..FLOWS, 1u32..80).prop_map(|(flow, timeout)| Op::Stages(flow, timeout)),
        3 => (0u16..40).prop_map(Op::Wait),
        1 => (0..SESSIONS).prop_map(Op::End),
        1 => (0..SESSIONS).prop_map(Op::Settle),
    ]
}

/// A session as it would be were there no records.
#[derive(Clone, Copy)]
struct Plain {
    last_seen: u32,
    timeout: u32,
}

struct Pair {
    flows: Flows,
    ids: Vec<ObjectId>,
    plain: Vec<Plain>,
    /// The sessions of each flow.
    sets: Vec<Vec<usize>>,
    now: Time,
}

impl Pair {
    fn new(masks: &[u8], capacity: usize) -> Self {
        let mut objects = Objects::default();
        let range = objects.reserve(SESSIONS);
        let ids: Vec<_> = (0..SESSIONS).map(|at| range.at(at)).collect();
        let now = Time(7 << 20);
        for id in &ids {
            objects.touch(*id, now, 50);
        }
        let plain = Plain {
            last_seen: now.ticks(),
            timeout: 50,
        };
        let set = |mask: &u8| (0..SESSIONS).filter(|at| mask & 1 << at != 0).collect();
        Self {
            flows: Flows::new(capacity, objects, [1, 2, 3, 4]),
            ids,
            plain: vec![plain; SESSIONS],
            sets: masks.iter().map(set).collect(),
            now,
        }
    }

    fn lives(&self, session: usize) -> bool {
        let plain = self.plain[session];
        self.now.ticks() - plain.last_seen <= plain.timeout
    }

    fn packet(&mut self, flow: u16) -> Result<(), TestCaseError> {
        if self.flows.replay(flow, self.now).is_none() {
            self.stages(flow, None);
            return Ok(());
        }
        for session in self.sets[flow as usize].clone() {
            prop_assert!(
                self.lives(session),
                "a record outlives its session {session}"
            );
            self.plain[session].last_seen = self.now.ticks();
        }
        Ok(())
    }

    fn stages(&mut self, flow: u16, timeout: Option<u32>) {
        let mut recorder = recording();
        for session in self.sets[flow as usize].clone() {
            let (id, plain) = (self.ids[session], &mut self.plain[session]);
            if self.now.ticks() - plain.last_seen > plain.timeout {
                // Another one takes its place.
                self.flows.objects.invalidate(id);
                plain.timeout = 50;
            }
            plain.last_seen = self.now.ticks();
            plain.timeout = timeout.unwrap_or(plain.timeout);
            self.flows.objects.touch(id, self.now, plain.timeout);
            recorder.depend(id, self.flows.objects.epoch(id), Kind::Session);
        }
        self.flows.install(flow, &recorder, flow, self.now);
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Packet(flow) => self.packet(flow)?,
            Op::Stages(flow, timeout) => self.stages(flow, Some(timeout)),
            Op::Wait(ticks) => self.now = self.now + Duration::from_nanos(u64::from(ticks) << 20),
            Op::End(session) => {
                self.flows.objects.invalidate(self.ids[session]);
                self.flows.objects.touch(self.ids[session], self.now, 50);
                self.plain[session] = Plain {
                    last_seen: self.now.ticks(),
                    timeout: 50,
                };
                for flow in 0..FLOWS {
                    let used = self.sets[flow as usize].contains(&session);
                    let stale = self.flows.find(flow).filter(|_| used);
                    let mut packet = self.flows.packet();
                    let replayed = stale
                        .map(|number| self.flows.objects.replay(number, &mut packet, self.now));
                    prop_assert!(
                        !matches!(replayed, Some(Ok(_))),
                        "the session of {flow} is over"
                    );
                }
            }
            Op::Settle(session) => {
                let alive = self.flows.objects.settle(self.ids[session], self.now);
                prop_assert_eq!(alive, self.lives(session));
            }
        }
        self.agree()
    }

    fn agree(&mut self) -> Result<(), TestCaseError> {
        self.flows
            .objects
            .flows
            .as_mut()
            .unwrap()
            .drain_counts(|_, _, _, _| {});
        for (session, id) in self.ids.iter().enumerate() {
            let idle = self.now.ticks() - self.plain[session].last_seen;
            prop_assert_eq!(
                self.flows.objects.idle_ticks(*id, self.now),
                idle,
                "session {}",
                session
            );
            prop_assert_eq!(
                self.flows.objects.is_alive(*id, self.now),
                self.lives(session)
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn are_as_without_records(
        masks in proptest::collection::vec(any::<u8>(), FLOWS as usize), few: bool,
        ops in proptest::collection::vec(op(), 1..150),
    ) {
        // Connections of two flows, one for each way, and flows that share sessions in other ways.
        let masks: Vec<u8> = masks.iter().enumerate().map(|(flow, mask)| match flow {
            0 | 1 => 0b0000_0111,
            2 | 3 => 0b0011_1000,
            4 | 5 => 0b0011_0001,
            _ => *mask,
        }).collect();
        let mut pair = Pair::new(&masks, if few { 8 } else { 64 });
        for op in &ops {
            pair.step(op)?;
        }
    }
}

#[test]
fn both_ways_of_a_connection_reach_its_sessions_without_looking_at_them() {
    let mut pair = Pair::new(&[0b111, 0b111, 0b1110, 0b1110], 64);
    for flow in 0..2 {
        pair.stages(flow, None);
        let number = pair.flows.find(flow).unwrap();
        assert_eq!(pair.flows.table().record(number).watches, 0);
    }
    // Another connection that shares one of the sessions looks at this one only, in both directions.
    for flow in 2..4 {
        pair.stages(flow, None);
        let number = pair.flows.find(flow).unwrap();
        assert_eq!(pair.flows.table().record(number).watches, 2);
    }
}
