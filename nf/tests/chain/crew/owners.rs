//! Packets and what answers them have the same owner, whatever was translated on the way.

use chainplane_dataplane::crew::{Owner, Owners};
use chainplane_dataplane::packet::{HugePages, Pool, PoolConfig, parse};
use chainplane_dataplane::sim::Crew;

use super::play::{own_ports, roomy};
use crate::frame::{self, ACK, SYN, Transport};
use crate::worlds::dice::Dice;
use crate::worlds::traffic::{Flow, Sent, answer};
use crate::worlds::world::World;

const WORLDS: u64 = 60;
/// Packets of each world.
const PACKETS: u64 = 80;

/// Tells who owns frames.
struct Judge {
    owners: Owners,
    pool: Pool,
}

impl Judge {
    fn new(owners: &Owners) -> Self {
        let config = PoolConfig {
            small: 4,
            large: 1,
            huge_pages: HugePages::Never,
        };
        Self {
            owners: owners.clone(),
            pool: Pool::new(config).expect("memory for a few packets"),
        }
    }

    fn owner(&mut self, frame: &[u8]) -> Owner {
        let mut packet = self.pool.copy_of(frame).expect("a buffer");
        parse(&mut packet).expect("a valid packet");
        self.owners.owner_of(&packet)
    }
}

/// Where answers and callers find whom a frame came from.
fn back(world: &World, seen: &(usize, Vec<u8>), dice: &mut Dice) -> Option<Sent> {
    if dice.chance(60) {
        return answer(&seen.1, seen.0, dice, Some(ACK));
    }
    let came = frame::read(&seen.1)?;
    let mut flow = own_ports(Flow::draw(world, dice));
    let (Transport::Udp { from: to, .. }, true) =
        (came.transport, came.src.is_ipv6() == flow.src.is_ipv6())
    else {
        return None;
    };
    let from = 4000 + 16 * flow.host as u16;
    flow.dst = came.src;
    flow.transport = Transport::Udp { from, to };
    Some(flow.packet(world, dice, Some(ACK)))
}

/// Lets a packet through, and has hosts answer for their addresses.
fn through(world: &World, crew: &mut Crew, sent: &Sent, dice: &mut Dice) -> Vec<(usize, Vec<u8>)> {
    let members = crew.members();
    crew.inject_with(sent.port, dice.below(members), &sent.bytes, sent.offload);
    let mut out = Vec::new();
    for _ in 0..4 {
        crew.run();
        for port in 0..world.map.ports {
            for frame in crew.sent(port) {
                let mut hosts = world.hosts.iter().filter(|host| host.port == port);
                match hosts.find_map(|host| host.neighbour_answer(&frame.bytes)) {
                    Some(reply) => crew.inject(port, dice.below(members), &reply),
                    None => out.push((port, frame.bytes)),
                }
            }
        }
    }
    out
}

/// Whether a frame that came out is what was sent, and not one that waited for its neighbour until now. Its last bytes
/// are made from a number of its own.
fn is_same(sent: &[u8], frame: &[u8]) -> bool {
    let tail = |frame: &[u8]| frame.last_chunk::<4>().copied();
    sent.len() == frame.len() && tail(sent) == tail(frame)
}

#[test]
fn answers_belong_to_whom_the_question_did() {
    let (mut translated, mut judged) = (0, 0);
    for seed in 0..WORLDS {
        let mut world = World::draw_changed(seed, roomy);
        world.services.retain(|service| service.fixed);
        let mut dice = Dice::new(seed, u64::MAX - 4);
        let members = dice.between(2, 5) as u16;
        let queues = vec![(0..members).collect(); world.map.ports];
        let mut crew = world.crew(members, None, &queues);
        let mut judge = Judge::new(crew.owners());
        let mut seen: Vec<(usize, Vec<u8>)> = Vec::new();
        for _ in 0..PACKETS {
            let sent = if seen.is_empty() || dice.chance(50) {
                let flags = dice.pick(&[SYN, ACK]);
                let flow = own_ports(Flow::draw(&world, &mut dice));
                Some(flow.packet(&world, &mut dice, Some(flags)))
            } else {
                let seen = &seen[dice.below(seen.len().min(12))];
                back(&world, seen, &mut dice)
            };
            let Some(sent) = sent else { continue };
            let Owner::Member(owner) = judge.owner(&sent.bytes) else {
                continue;
            };
            let asked = frame::read(&sent.bytes);
            for (port, frame) in through(&world, &mut crew, &sent, &mut dice) {
                if !is_same(&sent.bytes, &frame) {
                    continue;
                }
                let Some(reply) = answer(&frame, port, &mut dice, Some(ACK)) else {
                    continue;
                };
                let ends = |spec: &frame::Spec| [spec.src, spec.dst];
                let read = frame::read(&frame);
                let same = asked.as_ref().map(ends) == read.as_ref().map(ends);
                translated +=
                    u64::from(!same && read.is_some_and(|read: frame::Spec| read.src.is_ipv4()));
                judged += 1;
                assert_eq!(
                    judge.owner(&reply.bytes),
                    Owner::Member(owner),
                    "world {seed}, {members} members: {asked:?} left by p{port} as {read:?}"
                );
                seen.insert(0, (port, frame));
            }
        }
    }
    println!("{judged} packets, of which {translated} were translated");
    assert!(judged > 1000 && translated > 200);
}
