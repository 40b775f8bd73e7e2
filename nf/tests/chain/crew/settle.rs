//! What comes of a step, and how it is compared.

use std::collections::{BTreeMap, BTreeSet};

use chainplane_dataplane::function::SessionInfo;
use chainplane_dataplane::sim::{Frame, Sim};
use chainplane_dataplane::stats::{FunctionSnapshot, Snapshot};

use super::names::Names;
use super::plain::Plain;
use super::play::{Ending, Play, REMEMBERED, Stop};
use super::tell;

/// What each member counts for itself. ARP and neighbour discovery come to all of them, and each asks for neighbours
/// itself, also those that are routers on the same worker.
const DISCOVERY: [&str; 12] = [
    "arp-requests",
    "arp-replies",
    "neighbour-solicitations",
    "neighbour-advertisements",
    "neighbours-learnt",
    "neighbours-changed",
    "neighbours-lost",
    "not-asked",
    "discovery",
    "untouched",
    "arp-answered",
    "neighbour-answers",
];
/// Which port stands for whom is the NAT's choice, and a host that sends to a mapping of another member's has a mapping
/// there as well.
const CHOICES: [&str; 1] = ["mappings-made"];

impl Play {
    /// Forwards what was sent, has hosts answer for their addresses, and compares what came of it.
    pub(super) fn settle(&mut self, step: u64) -> Result<(), Stop> {
        let ports = self.seen.len();
        let mut sent = vec![[Vec::new(), Vec::new()]; ports];
        for _ in 0..6 {
            self.alone.run();
            self.crew.run();
            let mut answered = false;
            for (port, sent) in sent.iter_mut().enumerate() {
                let new = [self.alone.sent(port), self.crew.sent(port)];
                for answer in self.neighbours(port, &new[0]) {
                    answered = true;
                    self.alone.inject(port, &answer);
                }
                for answer in self.neighbours(port, &new[1]) {
                    answered = true;
                    let queue = self.queues[port][answer.len() % self.queues[port].len()];
                    self.crew.inject(port, queue.into(), &answer);
                }
                for (all, new) in sent.iter_mut().zip(new) {
                    all.extend(new);
                }
            }
            if !answered {
                break;
            }
        }
        self.learn_names()?;
        self.check_limits(&sent)?;
        let compared = self
            .compare_frames(sent)
            .and_then(|()| self.compare_counters())
            .and_then(|()| self.compare_sessions());
        compared.map_err(|what| Stop::Differs(format!("step {step}: {what}")))
    }

    /// Ends the world where its limits are met.
    fn check_limits(&mut self, sent: &[[Vec<Frame>; 2]]) -> Result<(), Stop> {
        let both = [self.counted_alone(), self.counted_crew()];
        let [alone, crew] = both.map(|functions| {
            let sum = |name| functions.iter().map(|one| one.value(name)).sum::<u64>();
            let held = functions.iter().map(|one| one.held).sum::<u64>();
            (sum("icmp-errors-limited"), (sum("unresolved"), held))
        });
        if alone.0 + crew.0 > 0 {
            return Err(Stop::Ends(Ending::Limited));
        }
        let told = |side: usize| {
            let frames = sent.iter().flat_map(|sent| &sent[side]);
            let told = frames.filter(|frame| is_unreachable(&frame.bytes));
            let plain = |frame| Plain::of(frame, &self.names[side]);
            told.map(plain).collect::<BTreeSet<_>>()
        };
        if alone.1 != crew.1 || told(0) != told(1) {
            return Err(Stop::Ends(Ending::Waiting));
        }
        Ok(())
    }

    fn neighbours(&self, port: usize, frames: &[Frame]) -> Vec<Vec<u8>> {
        let awake = |frame: &Frame| {
            let mut hosts = self
                .hosts
                .iter()
                .filter(|host| host.port == port && host.answers);
            hosts.find_map(|host| host.neighbour_answer(&frame.bytes))
        };
        frames.iter().filter_map(awake).collect()
    }

    fn learn_names(&mut self) -> Result<(), Stop> {
        for (function, (_, config)) in self.world.configs.iter().enumerate() {
            if config.get("nat").is_none() {
                continue;
            }
            for session in sessions(&self.alone, function) {
                self.names[0].learn(&session.text)?;
            }
            for member in 0..self.crew.members() {
                for session in sessions(self.crew.member(member), function) {
                    self.names[1].learn(&session.text)?;
                }
            }
        }
        Ok(())
    }

    fn compare_frames(&mut self, sent: Vec<[Vec<Frame>; 2]>) -> Result<(), String> {
        for (port, [alone, crew]) in sent.into_iter().enumerate() {
            let [alone, crew] = [(alone, 0), (crew, 1)].map(|(frames, side)| {
                for frame in frames
                    .iter()
                    .filter(|frame| is_routers_question(&frame.bytes))
                {
                    tell!(self, "question by p{port} of {side}: {:02x?}", frame.bytes);
                }
                let kept = frames
                    .into_iter()
                    .filter(|frame| !is_routers_question(&frame.bytes));
                let plain = |frame: Frame| (Plain::of(&frame, &self.names[side]), frame.bytes);
                kept.map(plain).collect::<Vec<_>>()
            });
            for (_, bytes) in &alone {
                tell!(self, "out by p{port}: {bytes:02x?}");
            }
            for (_, bytes) in &crew {
                tell!(self, "out by p{port} of the crew: {bytes:02x?}");
            }
            let [of_alone, of_crew] = [by_flow(&alone), by_flow(&crew)];
            if of_alone != of_crew {
                return Err(format!(
                    "frames of p{port}: of one worker\n{alone:02x?}\nof several\n{crew:02x?}"
                ));
            }
            self.remember(port, alone, crew);
        }
        Ok(())
    }

    fn remember(
        &mut self,
        port: usize,
        alone: Vec<(Plain, Vec<u8>)>,
        mut crew: Vec<(Plain, Vec<u8>)>,
    ) {
        for (plain, bytes) in alone {
            let Some(at) = crew.iter().position(|(other, _)| *other == plain) else {
                continue;
            };
            let (_, other) = crew.remove(at);
            if bytes.len() < 2000 {
                self.seen[port].insert(0, [bytes, other]);
                self.seen[port].truncate(REMEMBERED);
            }
        }
    }

    fn counted_alone(&mut self) -> Vec<FunctionSnapshot> {
        self.alone.snapshot().functions
    }

    /// What all members counted together.
    fn counted_crew(&mut self) -> Vec<FunctionSnapshot> {
        let mut all = self.crew.snapshots().into_iter().map(|one| one.functions);
        let first = all.next().expect("a member");
        all.fold(first, |mut sum, more| {
            for (sum, more) in sum.iter_mut().zip(&more) {
                sum.held += more.held;
                let (drops, counters) = (&more.drops, &more.counters);
                let pairs = sum.drops.iter_mut().zip(drops);
                pairs
                    .chain(sum.counters.iter_mut().zip(counters))
                    .for_each(|(sum, more)| sum.1 += more.1);
                sum.slots
                    .iter_mut()
                    .zip(&more.slots)
                    .for_each(|(sum, more)| sum.1 += more.1);
            }
            sum
        })
    }

    fn compare_counters(&mut self) -> Result<(), String> {
        let [alone, crew] = [self.counted_alone(), self.counted_crew()].map(|all| {
            let of = |function: &FunctionSnapshot| (function.name.clone(), comparable(function));
            all.iter().map(of).collect::<Vec<_>>()
        });
        for (alone, crew) in alone.iter().zip(&crew) {
            if alone != crew {
                let differ: Vec<_> = alone
                    .1
                    .iter()
                    .filter(|(name, value)| crew.1.get(*name) != Some(value))
                    .collect();
                return Err(format!(
                    "{}: {differ:?} of one worker; of several\n{:?}",
                    alone.0, crew.1
                ));
            }
        }
        let snapshots = self.crew.snapshots();
        let drops = |snapshots: &[Snapshot]| {
            let mut drops = BTreeMap::new();
            for port in snapshots.iter().flat_map(|all| &all.ports) {
                for (info, value) in &port.drops {
                    *drops.entry((port.name.clone(), info.name)).or_insert(0) += value;
                }
            }
            drops
        };
        let [alone, crew] = [drops(&[self.alone.snapshot()]), drops(&snapshots)];
        if alone == crew {
            Ok(())
        } else {
            Err(format!("drops of ports: {alone:?}\n{crew:?}"))
        }
    }

    /// Sessions are compared as a set: two members may each have one that is the same but for the NAT's ports.
    fn compare_sessions(&mut self) -> Result<(), String> {
        for function in 0..self.world.functions() {
            let alone = listed(&sessions(&self.alone, function), &self.names[0]);
            let mut all = Vec::new();
            for member in 0..self.crew.members() {
                all.extend(sessions(self.crew.member(member), function));
            }
            let crew = listed(&all, &self.names[1]);
            if alone != crew {
                return Err(format!(
                    "sessions of function {function}: of one worker\n{alone:#?}\nof several\n{crew:#?}"
                ));
            }
        }
        Ok(())
    }
}

/// Texts, and how long each was idle; of two alike the one that was seen last.
fn listed(sessions: &[SessionInfo], names: &Names) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for session in sessions {
        let idle = all.entry(names.session(&session.text)).or_insert(u64::MAX);
        *idle = session.idle_ms.min(*idle);
    }
    all
}

fn sessions(sim: &Sim, function: usize) -> Vec<SessionInfo> {
    let (mut all, mut cursor) = (Vec::new(), Some(0));
    while let Some(at) = cursor {
        let mut page = Vec::with_capacity(64);
        cursor = sim.sessions(function, at, &mut page);
        all.append(&mut page);
    }
    all
}

/// Whether a router asks for a neighbour, which each member does for itself.
fn is_routers_question(frame: &[u8]) -> bool {
    let by_router = frame.get(6..10) == Some(&[2, 0, 0, 0x10]);
    let asks = match frame.get(12..14) {
        Some([8, 6]) => frame.get(20..22) == Some(&[0, 1]),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&58) && frame.get(54) == Some(&135),
        _ => false,
    };
    by_router && asks
}

/// Whether a packet's sender is told that its neighbour does not answer.
fn is_unreachable(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([8, 0]) => frame.get(23) == Some(&1) && frame.get(34..36) == Some(&[3, 1]),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&58) && frame.get(54..56) == Some(&[1, 3]),
        _ => false,
    }
}

/// What has to be the same: each flow's frames in order, and all others in any.
fn by_flow(frames: &[(Plain, Vec<u8>)]) -> BTreeMap<Option<Vec<u8>>, Vec<Plain>> {
    let mut flows: BTreeMap<_, Vec<Plain>> = BTreeMap::new();
    for (plain, _) in frames {
        flows
            .entry(plain.flow.clone())
            .or_default()
            .push(plain.clone());
    }
    if let Some(others) = flows.get_mut(&None) {
        others.sort();
    }
    flows
}

/// A function's counters by name, those left out that may differ.
fn comparable(function: &FunctionSnapshot) -> BTreeMap<String, u64> {
    let left_out: BTreeSet<_> = DISCOVERY.into_iter().chain(CHOICES).collect();
    let counters = function.drops.iter().chain(&function.counters);
    let counters = counters.filter(|(info, _)| !left_out.contains(info.name));
    let mut all: BTreeMap<_, _> = counters
        .map(|(info, value)| (info.name.to_owned(), *value))
        .collect();
    all.extend(function.slots.iter().cloned());
    all.insert("held".to_owned(), function.held);
    all
}
