//! With and without the flow table, the same input gives the same packets, drops and counters.
//!
//! Two simulations of one configuration are fed the same traffic, one with a flow table so small that records are
//! evicted, one without. Their hosts answer what comes out; connections open and end, time passes, neighbours move,
//! backends are lost, and much of the traffic is wrong in some way. After each step every port must have sent the
//! same frames in the same order, and every counter but those of the flow table itself must agree.

use std::collections::BTreeMap;
use std::time::Duration;

use chainplane_dataplane::packet::Offload;
use chainplane_dataplane::sim::{Frame, Sim};
use chainplane_dataplane::stats::Snapshot;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::frame::{self, ACK, Quirk, SYN, answer_to};
use crate::host::Host;
use crate::site::{PORTS, Plan, hosts};
use crate::traffic::{ASKED, FLOWS, Op, Variation, op, spec};

/// Frames that a port has seen last, to answer or to complain about.
const REMEMBERED: usize = 6;

struct Pair {
    plan: Plan,
    with: Sim,
    without: Sim,
    hosts: Vec<Host>,
    seen: [Vec<Vec<u8>>; PORTS],
}

impl Pair {
    fn new(seed: u64) -> Self {
        // Session tables that fill up, or some that the sweep takes long to go through.
        let plan = Plan::new(seed.is_multiple_of(2));
        Self {
            // The smallest table there is, so that records are evicted, or one that holds them all.
            with: plan.sim(Some(if seed.is_multiple_of(3) { 256 } else { 8 }), seed),
            without: plan.sim(None, seed),
            plan,
            hosts: hosts(),
            seen: Default::default(),
        }
    }

    fn inject(&mut self, port: usize, frame: &[u8], offload: Offload) {
        self.with.inject_with(port, frame, offload);
        self.without.inject_with(port, frame, offload);
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match op {
            Op::Send { flow, how } => self.send(*flow, *how),
            Op::Ask { host, address } => {
                let asker = self.hosts[*host].clone();
                let address = ASKED[*address].parse().expect("an address");
                self.inject(asker.port, &asker.arp_request(address), Offload::default());
            }
            Op::Answer {
                port,
                nth,
                flags,
                payload,
            } => self.answer(*port, *nth, *flags, *payload),
            Op::Connect {
                flow,
                shift,
                packets,
                meanwhile,
                odd,
            } => {
                self.connect(*flow, *shift, *packets)?;
                self.step(meanwhile)?;
                self.run()?;
                return self.go_on(*flow, *shift, *odd);
            }
            Op::Complain {
                port,
                nth,
                kind,
                keep,
            } => self.complain(*port, *nth, *kind, *keep),
            Op::Garbage { port, bytes } => self.inject(*port, bytes, Offload::default()),
            Op::Wait { milliseconds } => {
                let time = Duration::from_millis(*milliseconds);
                self.with.now = self.with.now + time;
                self.without.now = self.with.now;
                return self.run();
            }
            Op::Move { host, mac, tells } => {
                self.hosts[*host].mac[4] = 0x20 + mac;
                if *tells {
                    let host = self.hosts[*host].clone();
                    self.inject(host.port, &host.gratuitous(), Offload::default());
                }
            }
            Op::Silence { host, answers } => self.hosts[*host].answers = *answers,
            Op::Backend { index, up } => self.plan.states().set(*index, *up),
            Op::Run => return self.run(),
        }
        Ok(())
    }

    fn answer(&mut self, port: usize, nth: usize, flags: u8, payload: usize) {
        let seen = self.seen[port].get(nth);
        let spec = seen.and_then(|frame| answer_to(frame, flags, payload));
        if let Some((bytes, offload)) = spec.map(|spec| spec.build()) {
            self.inject(port, &bytes, offload);
        }
    }

    fn send(&mut self, flow: usize, how: Variation) {
        let flow = &FLOWS[flow];
        let (bytes, offload) = spec(flow, &self.plan, &self.hosts, how).build();
        self.inject(self.hosts[flow.0].port, &bytes, offload);
    }

    /// A handshake and some packets each way, as far as the chain lets them through.
    fn connect(&mut self, flow: usize, shift: u16, packets: usize) -> Result<(), TestCaseError> {
        self.seen.iter_mut().for_each(Vec::clear);
        let opening = Variation {
            shift,
            flags: SYN,
            payload: 0,
            quirk: Quirk::None,
            wrong_mac: false,
        };
        self.send(flow, opening);
        self.run()?;
        let near = self.hosts[FLOWS[flow].0].port;
        let Some(far) = (0..PORTS).find(|port| *port != near && !self.seen[*port].is_empty())
        else {
            return Ok(());
        };
        for packet in 0..=packets {
            let flags = if packet == 0 { SYN | ACK } else { ACK };
            self.answer(far, 0, flags, packet);
            self.run()?;
            self.answer(near, 0, ACK, packet * 100);
            self.run()?;
        }
        Ok(())
    }

    /// A packet more, and an answer to what came out of that, both with something odd about them; then ordinary ones.
    fn go_on(&mut self, flow: usize, shift: u16, odd: [Variation; 2]) -> Result<(), TestCaseError> {
        let [out, back] = odd;
        let ordinary = Variation {
            flags: ACK,
            payload: 3,
            quirk: Quirk::None,
            wrong_mac: false,
            shift,
        };
        self.send(flow, Variation { shift, ..out });
        self.send(flow, ordinary);
        self.run()?;
        let near = self.hosts[FLOWS[flow].0].port;
        for port in (0..PORTS).filter(|port| *port != near) {
            let seen = self.seen[port].first();
            let answer = seen.and_then(|seen| answer_to(seen, back.flags, back.payload));
            if let Some(mut spec) = answer {
                spec.quirk = back.quirk;
                spec.macs.1[5] ^= u8::from(back.wrong_mac);
                let (bytes, offload) = spec.build();
                self.inject(port, &bytes, offload);
            }
            self.answer(port, 0, ACK, 3);
        }
        self.run()
    }

    fn complain(&mut self, port: usize, nth: usize, kind: usize, keep: usize) {
        const KINDS: [(u8, u8); 5] = [(3, 4), (3, 3), (11, 0), (1, 4), (2, 0)];
        let Some(frame) = self.seen[port].get(nth) else {
            return;
        };
        let Some(read) = frame::read(frame) else {
            return;
        };
        let by = if nth.is_multiple_of(2) {
            read.dst
        } else if read.dst.is_ipv4() {
            "192.0.2.99".parse().expect("an address")
        } else {
            "2001:db8::99".parse().expect("an address")
        };
        if let Some(error) = frame::error_about(frame, by, KINDS[kind], keep) {
            self.inject(port, &error, Offload::default());
        }
    }

    /// Forwards what was sent and compares what came of it, until no host has anything to answer.
    fn run(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..4 {
            self.with.run();
            self.without.run();
            let mut answers = Vec::new();
            for port in 0..PORTS {
                let frames = self.with.sent(port);
                prop_assert_eq!(&frames, &self.without.sent(port), "port {}", port);
                answers.extend(
                    self.neighbours(port, &frames)
                        .into_iter()
                        .map(|a| (port, a)),
                );
                self.remember(port, frames);
            }
            self.compare_counters()?;
            if answers.is_empty() {
                break;
            }
            for (port, answer) in answers {
                self.inject(port, &answer, Offload::default());
            }
        }
        Ok(())
    }

    fn neighbours(&self, port: usize, frames: &[Frame]) -> Vec<Vec<u8>> {
        let awake = || {
            self.hosts
                .iter()
                .filter(move |host| host.port == port && host.answers)
        };
        frames
            .iter()
            .filter_map(|frame| awake().find_map(|host| host.neighbour_answer(&frame.bytes)))
            .collect()
    }

    fn remember(&mut self, port: usize, frames: Vec<Frame>) {
        for frame in frames {
            if frame::read(&frame.bytes).is_some() {
                self.seen[port].insert(0, frame.bytes);
            }
        }
        self.seen[port].truncate(REMEMBERED);
    }

    fn compare_counters(&mut self) -> Result<(), TestCaseError> {
        let (with, without) = (comparable(&mut self.with), comparable(&mut self.without));
        prop_assert_eq!(with.functions, without.functions);
        prop_assert_eq!(with.ports, without.ports);
        prop_assert_eq!(with.engine, without.engine);
        Ok(())
    }
}

/// All counters but those that tell of the flow table itself.
pub fn comparable(sim: &mut Sim) -> Snapshot {
    let mut snapshot = sim.snapshot();
    snapshot
        .engine
        .retain(|(info, _)| !info.name.starts_with("flow-"));
    snapshot
}

/// What the cases reached, so that it shows when they stop testing something.
type Reached = BTreeMap<String, u64>;

fn note(reached: &mut Reached, snapshot: &Snapshot) {
    for (info, count) in &snapshot.engine {
        *reached.entry(info.name.to_owned()).or_default() += count;
    }
    for function in &snapshot.functions {
        for (info, count) in function.drops.iter().chain(&function.counters) {
            let name = format!("{}: {}", function.name, info.name);
            *reached.entry(name).or_default() += count;
        }
    }
    for port in &snapshot.ports {
        for (info, count) in &port.drops {
            *reached.entry(format!("port: {}", info.name)).or_default() += count;
        }
    }
}

#[test]
fn the_flow_table_changes_nothing_but_speed() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let reached = std::cell::RefCell::new(Reached::new());
    let cases = (any::<u64>(), proptest::collection::vec(op(), 1..160));
    // The same cases each time; `PROPTEST_CASES` asks for more of them.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, rng).run(&cases, |(seed, ops)| {
        let mut pair = Pair::new(seed);
        for op in &ops {
            pair.step(op)?;
        }
        pair.run()?;
        note(&mut reached.borrow_mut(), &pair.with.snapshot());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let reached = reached.into_inner();
    println!("{reached:#?}");
    for name in [
        "flow-hits",
        "flow-guarded",
        "flow-stale",
        "flow-evicted",
        "frontend: to-backends",
        "frontend: to-clients",
        "frontend: connections-lost",
        "frontend: sessions-full",
        "frontend: icmp-errors",
        "egress: translated-inbound",
        "egress: translated-outbound",
        "egress: hairpinned",
        "edge: in-session",
        "edge: denied-by-rule",
        "core: neighbours-changed",
        "core: other-station",
        "core: too-long",
        "core: ttl-exceeded",
        "port: malformed-ip-checksum",
        "port: bad-offload",
    ] {
        assert!(reached[name] > 0, "no case reached {name}");
    }
}
