//! One world, by one worker and by several, fed the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use chainplane_dataplane::sim::{Crew, Sim};
use serde_json::Value;

use super::names::{Names, Reassigned};
use super::tell;
use crate::frame::{self, ACK, SYN, Transport};
use crate::host::Host;
use crate::worlds::dice::Dice;
use crate::worlds::map::{Inline, Map, router_address};
use crate::worlds::traffic::{Flow, Sent, answer};
use crate::worlds::world::World;

/// Steps of one world.
const STEPS: u64 = 40;
/// Frames that a port has seen last.
pub const REMEMBERED: usize = 12;
/// What has room for every session, so that no limit is met, of which each member has a share.
const ROOM: u64 = 4096;

/// How a world came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// After its last step.
    Whole,
    /// See [`Reassigned`].
    Reassigned,
    /// More ICMP errors than may be sent, of which each member has a share.
    Limited,
    /// A neighbour does not answer. How many packets wait for it, and so are told of in the end, is a limit on each
    /// worker, and each member begins to wait for itself.
    Waiting,
}

pub enum Stop {
    Ends(Ending),
    Differs(String),
}

impl From<Reassigned> for Stop {
    fn from(_: Reassigned) -> Self {
        Self::Ends(Ending::Reassigned)
    }
}

/// A frame as one worker sent it, and as several did.
pub type Both = [Vec<u8>; 2];

/// Packets to be sent to both.
type BothSent = [Sent; 2];

/// A world under way.
pub struct Play {
    pub(super) world: World,
    pub(super) alone: Sim,
    pub(super) crew: Crew,
    pub(super) names: [Names; 2],
    /// Members that have a queue of each port.
    pub(super) queues: Vec<Vec<u16>>,
    flows: Vec<Flow>,
    pub(super) hosts: Vec<Host>,
    pub(super) seen: Vec<Vec<Both>>,
    seed: u64,
    pub(super) story: Option<String>,
}

/// A configuration whose limits nothing meets. A load balancer behind a NAT meets ports that this chose, and takes the
/// backend by them; so it has one.
pub fn roomy(map: &Map, config: &mut Value) {
    let translates = |inline: &Inline| *inline == Inline::Nat;
    let has_nat = map
        .chains
        .iter()
        .any(|chain| chain.inline.iter().any(translates));
    for kind in ["firewall", "nat", "load-balancer"] {
        if let Some(body) = config.get_mut(kind) {
            body["sessions"] = ROOM.into();
        }
    }
    if let (true, Some(Value::Array(backends))) =
        (has_nat, config.pointer_mut("/load-balancer/backends"))
    {
        backends.truncate(1);
    }
}

/// Gives a host's flows ports that no other host has: a NAT keeps them as long as they are free, or of its share, and
/// what firewalls outside of it remember is then one host's.
pub fn own_ports(mut flow: Flow) -> Flow {
    let more = 16 * flow.host as u16;
    match &mut flow.transport {
        Transport::Tcp { from, .. } | Transport::Udp { from, .. } => *from += more,
        Transport::Echo { id, .. } => *id += more,
        Transport::Other(_) => {}
    }
    flow
}

/// Whether a flow goes to a port of a pool of which nobody knows whether, and for whom, the NAT chose it.
fn is_blind(world: &World, flow: &Flow) -> bool {
    let (to, tcp) = match flow.transport {
        Transport::Tcp { to, .. } => (to, true),
        Transport::Udp { to, .. } => (to, false),
        Transport::Echo { .. } | Transport::Other(_) => return false,
    };
    let mut services = world.services.iter();
    let known = services.any(|one| (one.address, one.port, one.tcp) == (flow.dst, to, tcp));
    let of_pool =
        matches!(flow.dst, IpAddr::V4(dst) if dst.octets()[0] == 203 && dst.octets()[3] < 128);
    of_pool && !known
}

impl Play {
    pub fn new(seed: u64, tells: bool) -> Self {
        let mut world = World::draw_changed(seed, roomy);
        world.services.retain(|service| service.fixed);
        let mut dice = Dice::new(seed, u64::MAX - 2);
        let members = dice.between(2, 5) as u16;
        let some = |dice: &mut Dice| {
            let one = dice.below(members.into()) as u16;
            let has = |member: &u16| *member == one || dice.chance(60);
            (0..members).filter(has).collect()
        };
        let queues: Vec<Vec<u16>> = (0..world.map.ports).map(|_| some(&mut dice)).collect();
        let mut flows: Vec<Flow> = Vec::new();
        let count = dice.between(3, 10);
        while flows.len() < count {
            let flow = match flows.last() {
                Some(last) if dice.chance(35) => last.sibling(&world, &mut dice),
                _ => own_ports(Flow::draw(&world, &mut dice)),
            };
            if !is_blind(&world, &flow) {
                flows.push(flow);
            }
        }
        let records = dice.pick(&[Some(world.records), Some(world.records), None]);
        let story = tells.then(|| {
            let mut story = format!("world {seed}, queues {queues:?}\n{:#?}\n", world.map);
            for (name, config) in &world.configs {
                let _ = writeln!(story, "{name}: {config}");
            }
            for (number, host) in world.hosts.iter().enumerate() {
                let _ = writeln!(story, "host {number}: {host:?}");
            }
            for flow in &flows {
                let _ = writeln!(story, "{flow:?}");
            }
            story
        });
        Self {
            alone: world.sim(records),
            crew: world.crew(members, records, &queues),
            names: [Names::default(), Names::default()],
            queues,
            hosts: world.hosts.clone(),
            seen: vec![Vec::new(); world.map.ports],
            flows,
            world,
            seed,
            story,
        }
    }

    pub fn run(&mut self) -> Result<Ending, String> {
        let played = self
            .meet()
            .and_then(|()| (0..STEPS).try_for_each(|step| self.step(step)));
        match played {
            Ok(()) => Ok(Ending::Whole),
            Err(Stop::Ends(ending)) => Ok(ending),
            Err(Stop::Differs(what)) => Err(what),
        }
    }

    pub fn story(&mut self) -> String {
        self.story.take().unwrap_or_default()
    }

    /// What the crew counted.
    pub fn reached(&mut self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for snapshot in self.crew.snapshots() {
            for (info, value) in &snapshot.engine {
                *counts.entry(info.name.to_owned()).or_default() += value;
            }
            for function in &snapshot.functions {
                for (info, value) in function.drops.iter().chain(&function.counters) {
                    *counts
                        .entry(format!("{}: {}", function.kind, info.name))
                        .or_default() += value;
                }
            }
        }
        counts
    }

    /// Everybody is sent something first, one after the other: so routers know their neighbours, and packets that wait for
    /// one, of which there may be 3 on each worker, are few.
    fn meet(&mut self) -> Result<(), Stop> {
        let mut dice = Dice::new(self.seed, u64::MAX - 3);
        for flow in 0..self.flows.len() {
            for host in 0..self.hosts.len() {
                let mut flow = self.flows[flow];
                let same = |own: &&IpAddr| own.is_ipv6() == flow.src.is_ipv6();
                let Some(dst) = self.hosts[host].addresses.iter().find(same) else {
                    continue;
                };
                flow.dst = *dst;
                flow.transport = Transport::Udp { from: 3999, to: 9 };
                let sent = flow.packet(&self.world, &mut dice, Some(ACK));
                self.inject(&mut dice, sent);
                self.settle(u64::MAX)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: u64) -> Result<(), Stop> {
        let mut dice = Dice::new(self.seed, step << 8);
        self.pass(Duration::from_millis(dice.below(400) as u64));
        match dice.weighted(&[30, 25, 12, 8, 2, 15]) {
            0 => self.burst(&mut dice),
            1 => self.answers(&mut dice),
            2 => return self.open(step, &mut dice),
            3 => return self.hairpin(step, &mut dice),
            4 => return self.neglect(step, &mut dice),
            _ => self.event(step, &mut dice),
        }
        self.settle(step)
    }

    fn pass(&mut self, time: Duration) {
        tell!(self, "{time:?} pass");
        self.alone.now = self.alone.now + time;
        self.crew.now = self.alone.now;
    }

    /// Lets a packet come in by any queue of its port.
    fn inject(&mut self, dice: &mut Dice, sent: Sent) {
        let port = sent.port;
        self.inject_both(dice, port, [twice(sent)]);
    }

    /// Lets packets come in, in this order, by one queue of a port.
    fn inject_both(
        &mut self,
        dice: &mut Dice,
        port: usize,
        packets: impl IntoIterator<Item = BothSent>,
    ) {
        let queue = usize::from(dice.pick(&self.queues[port]));
        for [alone, crew] in packets {
            tell!(
                self,
                "in by p{port}, queue {queue}: {:02x?} {:?}",
                alone.bytes,
                alone.offload
            );
            self.alone.inject_with(port, &alone.bytes, alone.offload);
            self.crew
                .inject_with(port, queue, &crew.bytes, crew.offload);
        }
    }

    /// Packets of one flow, or of two that have nothing to do with each other and so may overtake each other.
    fn burst(&mut self, dice: &mut Dice) {
        let one = self.flows[dice.below(self.flows.len())];
        let other = self.flows[dice.below(self.flows.len())];
        let mut flows = vec![one];
        let apart = [other.src, other.dst]
            .iter()
            .all(|end| ![one.src, one.dst].contains(end));
        if apart && dice.chance(50) {
            flows.push(other);
        }
        for flow in flows {
            let count = dice.between(1, 6);
            let packet = |_| twice(flow.packet(&self.world, dice, None));
            let packets: Vec<_> = (0..count).map(packet).collect();
            self.inject_both(dice, flow.port, packets);
        }
    }

    /// What somebody sends to whom a frame came from.
    fn answer(
        &self,
        port: usize,
        nth: usize,
        dice: &mut Dice,
        flags: Option<u8>,
    ) -> Option<BothSent> {
        let seen = self.seen[port].get(nth)?;
        let mut again = dice.clone();
        let alone = answer(&seen[0], port, dice, flags)?;
        Some([alone, answer(&seen[1], port, &mut again, flags)?])
    }

    fn answers(&mut self, dice: &mut Dice) {
        let port = dice.below(self.seen.len());
        let nth = if dice.chance(60) {
            0
        } else {
            dice.below(REMEMBERED)
        };
        let count = dice.between(1, 6);
        let all: Vec<_> = (0..count)
            .filter_map(|_| self.answer(port, nth, dice, None))
            .collect();
        self.inject_both(dice, port, all);
    }

    /// A handshake, as far as it gets.
    fn open(&mut self, step: u64, dice: &mut Dice) -> Result<(), Stop> {
        let flow = self.flows[dice.below(self.flows.len())];
        self.handshake(step, dice, |play, dice, flags| {
            twice(flow.packet(&play.world, dice, Some(flags)))
        })
    }

    fn handshake(
        &mut self,
        step: u64,
        dice: &mut Dice,
        packet: impl Fn(&Self, &mut Dice, u8) -> BothSent,
    ) -> Result<(), Stop> {
        self.seen.iter_mut().for_each(Vec::clear);
        let first = packet(self, dice, SYN);
        self.inject_both(dice, first[0].port, [first]);
        self.settle(step)?;
        for port in 0..self.seen.len() {
            let back = self.answer(port, 0, dice, Some(SYN | ACK));
            if let Some(back) = back {
                self.inject_both(dice, port, [back]);
                self.settle(step)?;
            }
        }
        let last = packet(self, dice, ACK);
        self.inject_both(dice, last[0].port, [last]);
        self.settle(step)
    }

    /// A host sends something, and another one sends to where that came from, which a NAT's port may be.
    fn hairpin(&mut self, step: u64, dice: &mut Dice) -> Result<(), Stop> {
        let flow = self.flows[dice.below(self.flows.len())];
        let caller = self.flows[dice.below(self.flows.len())];
        self.seen.iter_mut().for_each(Vec::clear);
        let sent = flow.packet(&self.world, dice, Some(SYN));
        self.inject(dice, sent);
        self.settle(step)?;
        let port = dice.below(self.seen.len());
        let Some(seen) = self.seen[port].first().cloned() else {
            return Ok(());
        };
        let [Some(alone), Some(crew)] = seen.map(|seen| frame::read(&seen)) else {
            return Ok(());
        };
        if alone.src.is_ipv6() != caller.src.is_ipv6() {
            return Ok(());
        }
        let to = |came: frame::Spec| {
            let transport = match (came.transport, caller.transport) {
                (
                    Transport::Tcp { from: to, .. },
                    Transport::Tcp { from, .. } | Transport::Udp { from, .. },
                ) => Transport::Tcp { from, to, flags: 0 },
                (
                    Transport::Udp { from: to, .. },
                    Transport::Tcp { from, .. } | Transport::Udp { from, .. },
                ) => Transport::Udp { from, to },
                (_, own) => own,
            };
            Flow {
                dst: came.src,
                transport,
                ..caller
            }
        };
        let flows = [to(alone), to(crew)];
        self.handshake(step, dice, |play, dice, flags| {
            let mut again = dice.clone();
            let alone = flows[0].packet(&play.world, dice, Some(flags));
            [alone, flows[1].packet(&play.world, &mut again, Some(flags))]
        })
    }

    /// A host no longer answers for its address, for longer than routers believe in it, while packets go on.
    fn neglect(&mut self, step: u64, dice: &mut Dice) -> Result<(), Stop> {
        let host = dice.below(self.hosts.len());
        self.hosts[host].answers = false;
        tell!(self, "{step}: host {host} is silent");
        let flow = self.flows[dice.below(self.flows.len())];
        for seconds in [28, 4, 2, 2, 2, 1] {
            self.pass(Duration::from_secs(seconds));
            let sent = flow.packet(&self.world, dice, Some(ACK));
            self.inject(dice, sent);
            self.settle(step)?;
        }
        self.hosts[host].answers = true;
        Ok(())
    }

    fn event(&mut self, step: u64, dice: &mut Dice) {
        let host = dice.below(self.hosts.len());
        match dice.weighted(&[30, 12, 12, 8, 8, 20]) {
            0 => self.wait(step, dice),
            1 => self.moves(step, host, dice),
            2 => self.backend(step, dice),
            3 => self.asks(host, dice),
            4 => {
                let port = dice.below(self.seen.len());
                let bytes = (0..dice.below(100)).map(|_| dice.number() as u8).collect();
                self.inject(dice, Sent::plain(port, bytes));
            }
            _ => self.complain(dice),
        }
    }

    /// A while, or just about as long as something takes to time out.
    fn wait(&mut self, step: u64, dice: &mut Dice) {
        let seconds = Duration::from_secs(dice.pick(&self.world.timeouts));
        let tick = Duration::from_nanos(1 << 20);
        let time = match dice.below(5) {
            0 => seconds / 2,
            1 => seconds,
            2 => seconds + tick,
            3 => seconds.saturating_sub(tick),
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
            self.inject(dice, Sent::plain(port, bytes));
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
    fn asks(&mut self, host: usize, dice: &mut Dice) {
        let services = self.world.services.iter().map(|service| service.address);
        let chain = self.world.map.chain_of_port(self.hosts[host].port);
        let wanted = (0..2).map(|side| router_address(chain, side, false));
        let wanted: Vec<_> = services.chain(wanted).filter(IpAddr::is_ipv4).collect();
        let bytes = self.hosts[host].arp_request(dice.pick(&wanted));
        let port = self.hosts[host].port;
        self.inject(dice, Sent::plain(port, bytes));
    }

    /// An ICMP error about a frame, by its receiver or a router behind it.
    fn complain(&mut self, dice: &mut Dice) {
        const KINDS: [(u8, u8); 6] = [(3, 4), (3, 3), (11, 0), (1, 4), (2, 0), (5, 0)];
        let port = dice.below(self.seen.len());
        let Some(about) = self.seen[port].get(dice.below(REMEMBERED)).cloned() else {
            return;
        };
        let Some(read) = frame::read(&about[0]) else {
            return;
        };
        let by = match read.dst {
            by if dice.chance(50) => by,
            IpAddr::V4(_) => [192, 0, 2, 99].into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99).into(),
        };
        let (kind, keep) = (dice.pick(&KINDS), dice.between(20, 120));
        let errors = about.map(|about| frame::error_about(&about, by, kind, keep));
        if let [Some(alone), Some(crew)] = errors {
            self.inject_both(
                dice,
                port,
                [[alone, crew].map(|bytes| Sent::plain(port, bytes))],
            );
        }
    }
}

/// The same packet for both.
fn twice(sent: Sent) -> BothSent {
    let again = Sent {
        port: sent.port,
        bytes: sent.bytes.clone(),
        offload: sent.offload,
    };
    [sent, again]
}
