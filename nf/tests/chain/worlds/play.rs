//! One world, twice: with a flow table and without, fed the same, compared after every step.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use chainplane_dataplane::function::SessionInfo;
use chainplane_dataplane::sim::{Frame, Sim};
use chainplane_dataplane::stats::Snapshot;

use super::dice::Dice;
use super::traffic::{Flow, Sent, answer};
use super::world::World;
use crate::frame::{self, ACK, SYN};
use crate::host::Host;
use crate::replay::comparable;

/// Steps of one world.
pub const STEPS: u64 = 48;
/// Packets of one step at most; units are numbered so that each has a number of its own.
const MOST_UNITS: u64 = 64;
/// Frames that a port has seen last.
const REMEMBERED: usize = 12;

/// Where the two differed.
#[derive(Debug)]
pub struct Difference {
    pub step: u64,
    pub what: String,
}

/// A world under way.
pub struct Play {
    world: World,
    with: Sim,
    without: Sim,
    flows: Vec<Flow>,
    hosts: Vec<Host>,
    seen: Vec<Vec<Vec<u8>>>,
    seed: u64,
    /// Units that are left out.
    skip: BTreeSet<u64>,
    /// What happened, if somebody wants to read it.
    story: Option<String>,
}

macro_rules! tell {
    ($self:ident, $($text:tt)*) => {
        if let Some(story) = &mut $self.story {
            let _ = writeln!(story, $($text)*);
        }
    };
}

/// The number of one thing that happens in a step.
pub fn unit(step: u64, nth: u64) -> u64 {
    step * MOST_UNITS + nth
}

impl Play {
    pub fn new(seed: u64, skip: BTreeSet<u64>, tells: bool) -> Self {
        let world = World::draw(seed);
        let mut dice = Dice::new(seed, u64::MAX - 1);
        let count = dice.between(2, 10);
        let mut flows: Vec<Flow> = Vec::with_capacity(count);
        while flows.len() < count {
            let flow = match flows.last() {
                Some(last) if dice.chance(35) => last.sibling(&world, &mut dice),
                _ => Flow::draw(&world, &mut dice),
            };
            flows.push(flow);
        }
        let story = tells.then(|| {
            let mut story = format!(
                "world {seed}, {} records\n{:#?}\n",
                world.records, world.map
            );
            for (name, config) in &world.configs {
                let _ = writeln!(story, "{name}: {config}");
            }
            for flow in &flows {
                let _ = writeln!(story, "{flow:?}");
            }
            story
        });
        Self {
            with: world.sim(Some(world.records)),
            without: world.sim(None),
            hosts: world.hosts.clone(),
            seen: vec![Vec::new(); world.map.ports],
            flows,
            world,
            seed,
            skip,
            story,
        }
    }

    /// Plays every step up to and with `last`.
    pub fn run(&mut self, last: u64) -> Result<Snapshot, Difference> {
        for step in 0..=last {
            self.step(step).map_err(|what| Difference { step, what })?;
        }
        Ok(self.with.snapshot())
    }

    pub fn story(self) -> String {
        self.story.unwrap_or_default()
    }

    fn skips(&self, step: u64, nth: u64) -> bool {
        self.skip.contains(&unit(step, nth))
    }

    fn step(&mut self, step: u64) -> Result<(), String> {
        let mut dice = Dice::new(self.seed, unit(step, 0) << 1);
        self.pass(Duration::from_micros(dice.below(3000) as u64));
        match dice.weighted(&[73, 10, 2, 15]) {
            0 => self.burst(step, &mut dice),
            _ if self.skips(step, 0) => return Ok(()),
            1 => return self.open(step, &mut dice),
            2 => return self.neglect(step, &mut dice),
            _ => self.event(step, &mut dice),
        }
        self.settle(step)
    }

    fn pass(&mut self, time: Duration) {
        self.with.now = self.with.now + time;
        self.without.now = self.with.now;
    }

    fn inject(&mut self, step: u64, nth: u64, sent: &Sent) {
        tell!(
            self,
            "{step}.{nth}: in by p{} {:02x?} {:?}",
            sent.port,
            sent.bytes,
            sent.offload
        );
        self.with.inject_with(sent.port, &sent.bytes, sent.offload);
        self.without
            .inject_with(sent.port, &sent.bytes, sent.offload);
    }

    /// Packets of one favourite flow, of others, and answers to what came out.
    fn burst(&mut self, step: u64, dice: &mut Dice) {
        let favourite = dice.below(self.flows.len());
        let back = dice.between(20, 60);
        for nth in 0..dice.between(1, 40) as u64 {
            if self.skips(step, nth) {
                continue;
            }
            let mut dice = Dice::new(self.seed, unit(step, nth) << 1 | 1);
            let sent = if dice.chance(back) {
                let port = dice.below(self.seen.len());
                let nth = if dice.chance(60) {
                    0
                } else {
                    dice.below(REMEMBERED)
                };
                let seen = self.seen[port].get(nth);
                seen.and_then(|seen| answer(seen, port, &mut dice, None))
            } else {
                let flow = if dice.chance(50) {
                    favourite
                } else {
                    dice.below(self.flows.len())
                };
                Some(self.flows[flow].packet(&self.world, &mut dice, None))
            };
            if let Some(sent) = sent {
                self.inject(step, nth, &sent);
            }
        }
    }

    /// A handshake, as far as it gets.
    fn open(&mut self, step: u64, dice: &mut Dice) -> Result<(), String> {
        let flow = self.flows[dice.below(self.flows.len())];
        self.seen.iter_mut().for_each(Vec::clear);
        let sent = flow.packet(&self.world, dice, Some(SYN));
        self.inject(step, 0, &sent);
        self.settle(step)?;
        for port in 0..self.seen.len() {
            let seen = self.seen[port].first();
            let back = seen.and_then(|seen| answer(seen, port, dice, Some(SYN | ACK)));
            if let Some(back) = back {
                self.inject(step, 0, &back);
            }
        }
        self.settle(step)?;
        let sent = flow.packet(&self.world, dice, Some(ACK));
        self.inject(step, 0, &sent);
        self.settle(step)
    }

    /// A host no longer answers for its address, for longer than routers believe in it, while packets go on.
    fn neglect(&mut self, step: u64, dice: &mut Dice) -> Result<(), String> {
        let host = dice.below(self.hosts.len());
        self.hosts[host].answers = false;
        tell!(self, "{step}: host {host} is silent");
        let flow = self.flows[dice.below(self.flows.len())];
        for seconds in [28, 4, 2, 2, 2, 1] {
            self.pass(Duration::from_secs(seconds));
            let sent = flow.packet(&self.world, dice, Some(ACK));
            self.inject(step, 0, &sent);
            self.settle(step)?;
        }
        self.hosts[host].answers = true;
        Ok(())
    }

    fn event(&mut self, step: u64, dice: &mut Dice) {
        let host = dice.below(self.hosts.len());
        match dice.weighted(&[30, 12, 8, 12, 8, 8, 14, 8]) {
            0 => self.wait(step, dice),
            1 => self.moves(step, host, dice),
            2 => self.hosts[host].answers = dice.chance(70),
            3 => self.backend(step, dice),
            4 => self.asks(step, host, dice),
            5 => {
                let port = dice.below(self.seen.len());
                let bytes = (0..dice.below(100)).map(|_| dice.number() as u8).collect();
                self.inject(step, 0, &Sent::plain(port, bytes));
            }
            6 => self.complain(step, dice),
            _ => {
                let records = dice.pick(&[8, 32, 1024]);
                tell!(self, "{step}: a new flow table of {records}");
                let seeds = [self.world.seed, step, 2, 3];
                let replaced = self.with.engine().replace_flows(records, seeds);
                replaced.expect("memory for a small flow table");
            }
        }
    }

    /// A while, or just about as long as something takes to time out.
    fn wait(&mut self, step: u64, dice: &mut Dice) {
        let seconds = Duration::from_secs(dice.pick(&self.world.timeouts));
        let tick = Duration::from_nanos(1 << 20);
        let time = match dice.below(6) {
            0 => Duration::from_millis(dice.below(100) as u64),
            1 => seconds / 2,
            2 => seconds,
            3 => seconds + tick,
            4 => seconds.saturating_sub(tick),
            _ => seconds + tick * 2,
        };
        tell!(self, "{step}: {time:?} pass");
        self.pass(time);
    }

    fn moves(&mut self, step: u64, host: usize, dice: &mut Dice) {
        self.hosts[host].mac[2] = dice.below(3) as u8;
        tell!(
            self,
            "{step}: host {host} moves to {:02x?}",
            self.hosts[host].mac
        );
        if dice.chance(60) {
            let (port, bytes) = (self.hosts[host].port, self.hosts[host].gratuitous());
            self.inject(step, 0, &Sent::plain(port, bytes));
        }
    }

    fn backend(&mut self, step: u64, dice: &mut Dice) {
        if self.world.states.is_empty() {
            return;
        }
        let number = dice.below(self.world.states.len());
        let (backend, up) = (dice.below(self.world.states[number].len()), dice.chance(50));
        tell!(
            self,
            "{step}: backend {backend} of balancer {number} is up: {up}"
        );
        self.world.states[number].set(backend, up);
    }

    /// A host asks for somebody's link-layer address, by which it makes itself known as well.
    fn asks(&mut self, step: u64, host: usize, dice: &mut Dice) {
        let services = self.world.services.iter().map(|service| service.address);
        let chain = self.world.map.chain_of_port(self.hosts[host].port);
        let wanted = (0..2).map(|side| super::map::router_address(chain, side, false));
        let wanted: Vec<_> = services
            .chain(wanted)
            .filter(std::net::IpAddr::is_ipv4)
            .collect();
        let bytes = self.hosts[host].arp_request(dice.pick(&wanted));
        let port = self.hosts[host].port;
        self.inject(step, 0, &Sent::plain(port, bytes));
    }

    fn complain(&mut self, step: u64, dice: &mut Dice) {
        const KINDS: [(u8, u8); 6] = [(3, 4), (3, 3), (11, 0), (1, 4), (2, 0), (5, 0)];
        let port = dice.below(self.seen.len());
        let about = self.seen[port].get(dice.below(REMEMBERED));
        let Some((about, read)) = about.and_then(|about| Some((about, frame::read(about)?))) else {
            return;
        };
        let by = match read.dst {
            by if dice.chance(50) => by,
            std::net::IpAddr::V4(_) => [192, 0, 2, 99].into(),
            std::net::IpAddr::V6(_) => {
                std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99).into()
            }
        };
        let error = frame::error_about(about, by, dice.pick(&KINDS), dice.between(20, 120));
        if let Some(bytes) = error {
            self.inject(step, 0, &Sent::plain(port, bytes));
        }
    }

    /// Forwards what was sent and compares what came of it, until no host has anything to answer.
    fn settle(&mut self, step: u64) -> Result<(), String> {
        for _ in 0..4 {
            self.with.run();
            self.without.run();
            let mut answers = Vec::new();
            for port in 0..self.seen.len() {
                let frames = self.with.sent(port);
                same(
                    &format!("frames of p{port}"),
                    &frames,
                    &self.without.sent(port),
                )?;
                for frame in frames {
                    tell!(
                        self,
                        "{step}: out by p{port} {:02x?} {:?}",
                        frame.bytes,
                        frame.offload
                    );
                    answers.extend(self.neighbour(port, &frame).map(|bytes| (port, bytes)));
                    self.remember(port, frame);
                }
            }
            self.compare()?;
            if answers.is_empty() {
                break;
            }
            for (port, bytes) in answers {
                self.inject(step, 0, &Sent::plain(port, bytes));
            }
        }
        Ok(())
    }

    fn neighbour(&self, port: usize, frame: &Frame) -> Option<Vec<u8>> {
        let mut awake = self
            .hosts
            .iter()
            .filter(|host| host.port == port && host.answers);
        awake.find_map(|host| host.neighbour_answer(&frame.bytes))
    }

    /// Answers go to frames that are not errors themselves, of flows that differ.
    fn remember(&mut self, port: usize, frame: Frame) {
        if frame.bytes.len() < 2000 {
            self.seen[port].insert(0, frame.bytes);
            self.seen[port].truncate(REMEMBERED);
        }
    }

    fn compare(&mut self) -> Result<(), String> {
        let (with, without) = (comparable(&mut self.with), comparable(&mut self.without));
        same("ports", &with.ports, &without.ports)?;
        for (with, without) in with.functions.iter().zip(&without.functions) {
            same("counters", with, without)?;
        }
        same("the worker", &with.engine, &without.engine)?;
        for function in 0..self.world.functions() {
            let lists = [&self.with, &self.without].map(|sim| sessions(sim, function));
            same(
                &format!("sessions of function {function}"),
                &lists[0],
                &lists[1],
            )?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, with: &T, without: &T) -> Result<(), String> {
    if with == without {
        return Ok(());
    }
    Err(format!(
        "{what}: with a flow table\n{with:02x?}\nand without\n{without:02x?}"
    ))
}

fn sessions(sim: &Sim, function: usize) -> Vec<SessionInfo> {
    let (mut all, mut cursor) = (Vec::new(), Some(0));
    while let Some(at) = cursor {
        let mut page = Vec::with_capacity(32);
        cursor = sim.sessions(function, at, &mut page);
        all.append(&mut page);
    }
    all
}
