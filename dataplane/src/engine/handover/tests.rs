use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use chainplane_vhost::net::NetHeader;

use crate::crew::ring::Kind;
use crate::crew::{self, Claim, Elsewhere, Owners, Share};
use crate::engine::Hop;
use crate::flow::FlowTable;
use crate::function::{
    Blueprint, Build, Context, Descriptor, Function, INSIDE, Interface, OUTSIDE, Verdict,
};
use crate::objects::Objects;
use crate::packet::{BURST, Batch, Gso, HugePages, Offload, Packet, Pool, PoolConfig, ethertype};
use crate::port::Offloads;
use crate::ports::vhost_user::street::{Sent, Street, setup};
use crate::rota::STAGED_SHARE;
use crate::sim::{Crew, SimFunction};
use crate::stats::WorkerStats;
use crate::worker::WakeHandle;

/// Who saw a packet: a member, and the packet's bytes.
type Seen = Arc<Mutex<Vec<(u16, Vec<u8>)>>>;

/// Lets everything pass and notes it; answers ARP with the same frame, and keeps back frames of a kind of its own until
/// the clock ticks.
struct Gate {
    member: u16,
    seen: Seen,
    records: bool,
    held: Vec<(Interface, Packet)>,
}

const KEPT_BACK: u16 = ethertype::RARP;

impl Function for Gate {
    fn descriptor(&self) -> &'static Descriptor {
        const {
            &Descriptor {
                kind: "gate",
                counters: &[],
                drops: &[],
            }
        }
    }

    fn process(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        let bytes = packet.data().to_vec();
        self.seen.lock().unwrap().push((self.member, bytes.clone()));
        match packet.layers().ethertype {
            ethertype::ARP => {
                let answer = cx.create(&bytes).expect("a buffer");
                cx.emit(from, answer);
                Verdict::Consume(packet)
            }
            KEPT_BACK => {
                cx.hold();
                self.held.push((from.opposite(), packet));
                Verdict::Held
            }
            _ => {
                if self.records {
                    cx.replayable();
                }
                Verdict::Leave(from.opposite(), packet)
            }
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        for (by, packet) in self.held.drain(..) {
            cx.release(by, packet).expect("room for one");
        }
    }
}

#[derive(Clone, Default)]
struct Gates {
    seen: Seen,
    records: bool,
    wants_records: bool,
    claims: Vec<Claim>,
}

impl Blueprint for Gates {
    fn build(&self, build: &mut Build<'_>) -> Box<dyn Function> {
        Box::new(Gate {
            member: build.share.index(),
            seen: Arc::clone(&self.seen),
            records: self.records,
            held: Vec::new(),
        })
    }

    fn wants_records(&self) -> bool {
        self.wants_records
    }

    fn claims(&self) -> Vec<Claim> {
        self.claims.clone()
    }
}

/// Ports 0 and 1 with a gate between them, and ports 2 and 3 joined; at each member.
fn crew(members: u16, gates: &Gates) -> Crew {
    let gate = SimFunction::inline("gate", gates, Hop::Port(0), Hop::Port(1));
    let mut crew = Crew::new(members, gates.records.then_some(64), &[gate], 0);
    crew.add_port("inside", Hop::Function(0, INSIDE));
    crew.add_port("outside", Hop::Function(0, OUTSIDE));
    crew.add_port("a", Hop::Port(3));
    crew.add_port("b", Hop::Port(2));
    crew
}

/// A packet of flow `flow`, the `number`th; backwards for a `side` of 1.
fn frame(flow: u8, side: usize, number: u32) -> Vec<u8> {
    let mut ends = [([10, 0, 0, flow], 1000), ([10, 0, 1, 1], 80)];
    if side == 1 {
        ends.reverse();
    }
    let [(src, from), (dst, to)] = ends;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(src, dst, 9)
        .udp(from, to)
        .write(&mut frame, &number.to_be_bytes())
        .unwrap();
    frame
}

fn arp() -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..12].fill(0xff);
    frame[12..14].copy_from_slice(&ethertype::ARP.to_be_bytes());
    frame
}

fn sum(crew: &mut Crew, counter: &str) -> u64 {
    crew.snapshots()
        .iter()
        .map(|member| member.value(counter))
        .sum()
}

fn gates(records: bool) -> Gates {
    Gates {
        records,
        wants_records: true,
        ..Gates::default()
    }
}

/// Every packet comes out once, flows in order, whatever queue they came in by; both directions are seen by one member.
fn passes(members: u16, records: bool, batches: bool, packets: &[(u8, bool, u8)]) {
    let gates = gates(records);
    let mut crew = crew(members, &gates);
    if batches {
        crew.without_records();
    }
    let mut sent: [Vec<Vec<u8>>; 2] = Default::default();
    for (number, (flow, back, run)) in packets.iter().enumerate() {
        let side = usize::from(*back);
        // A guest keeps a flow to one of its queues.
        let queue = usize::from(*flow) * 7 % usize::from(members);
        let frame = frame(*flow, side, number as u32);
        crew.inject(side, queue, &frame);
        sent[side].push(frame);
        if *run == 0 {
            crew.run();
        }
    }
    crew.run();
    for (side, sent) in sent.iter().enumerate() {
        let came = crew.sent(1 - side);
        assert_eq!(came.len(), sent.len());
        for flow in 0..=u8::MAX {
            let address = [10, 0, 0, flow];
            let at = [26, 30][side];
            let of_flow = |frame: &&Vec<u8>| frame[at..at + 4] == address;
            let sent: Vec<_> = sent.iter().filter(of_flow).collect();
            let came: Vec<_> = came
                .iter()
                .map(|frame| &frame.bytes)
                .filter(of_flow)
                .collect();
            assert_eq!(came, sent, "flow {flow}");
        }
    }
    let mut members_of = BTreeMap::<u8, BTreeSet<u16>>::new();
    for (member, bytes) in gates.seen.lock().unwrap().iter() {
        let flow = if bytes[28] == 0 { bytes[29] } else { bytes[33] };
        members_of.entry(flow).or_default().insert(*member);
    }
    assert!(members_of.values().all(|members| members.len() == 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn flows_stay_with_one_member_and_in_order(
        members in 1u16..6,
        records: bool,
        batches: bool,
        packets in prop::collection::vec((any::<u8>(), any::<bool>(), 0u8..20), 1..300),
    ) {
        passes(members, records, batches, &packets);
    }
}

#[test]
fn a_record_that_looks_like_a_flows_makes_nobody_its_owner() {
    let gates = gates(true);
    let mut crew = crew(2, &gates);
    // Of eight records in a bucket one has the same tag by chance, for one flow in eight thousand.
    for flow in 0..80_000u32 {
        let mut frame = frame(0, 0, flow);
        frame[27..30].copy_from_slice(&flow.to_be_bytes()[1..]);
        frame[24..26].fill(0);
        let sum = crate::packet::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        // No checksum of UDP's.
        frame[40..42].fill(0);
        crew.inject(0, 0, &frame);
        crew.inject(0, 1, &frame);
        if flow % 32 == 31 {
            crew.run();
            crew.sent(1);
        }
    }
    let mut members_of = BTreeMap::<Vec<u8>, u16>::new();
    for (member, bytes) in gates.seen.lock().unwrap().drain(..) {
        let owner = *members_of.entry(bytes[26..30].to_vec()).or_insert(member);
        assert_eq!(owner, member);
    }
    assert_eq!(members_of.len(), 80_000);
}

#[test]
fn work_is_shared() {
    let gates = gates(false);
    let mut crew = crew(4, &gates);
    for flow in 0..=255 {
        crew.inject(0, 0, &frame(flow, 0, 0));
    }
    crew.run();
    let mut seen = [0; 4];
    for (member, _) in gates.seen.lock().unwrap().iter() {
        seen[usize::from(*member)] += 1;
    }
    assert!(seen.iter().all(|seen| (32..96).contains(seen)), "{seen:?}");
    // The owner has a queue of its own to send by.
    let by: Vec<_> = (0..4).map(|member| crew.sent_by(1, member).len()).collect();
    assert_eq!(by, seen);
    assert_eq!(sum(&mut crew, "handed-over"), 256 - seen[0] as u64);
}

#[test]
fn everyone_learns_and_one_answers() {
    let gates = gates(false);
    let mut crew = crew(3, &gates);
    crew.inject(0, 1, &arp());
    crew.run();
    assert_eq!(crew.sent_by(0, 1).len(), 1);
    assert_eq!(crew.sent(0).len(), 0);
    let seen: BTreeSet<_> = gates
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|(member, _)| *member)
        .collect();
    assert_eq!(seen, [0, 1, 2].into());
    assert_eq!((sum(&mut crew, "copied"), sum(&mut crew, "heard")), (2, 2));
}

/// What was heard and waits for something leaves nothing behind when it goes on.
#[test]
fn what_was_heard_and_kept_back_goes_no_further() {
    let gates = gates(false);
    let mut crew = crew(3, &gates);
    let mut frame = arp();
    frame[12..14].copy_from_slice(&KEPT_BACK.to_be_bytes());
    crew.inject(0, 0, &frame);
    crew.run();
    for _ in 0..3 {
        crew.advance(core::time::Duration::from_millis(1));
    }
    assert_eq!(crew.sent(1).len(), 1);
    assert_eq!(sum(&mut crew, "heard"), 2);
}

#[test]
fn without_connections_whoever_receives_handles() {
    let gates = Gates::default();
    let mut crew = crew(3, &gates);
    for flow in 0..30 {
        crew.inject(0, usize::from(flow) % 3, &frame(flow, 0, 0));
    }
    crew.inject(0, 0, &arp());
    crew.run();
    assert_eq!(
        (0..3)
            .map(|member| crew.sent_by(1, member).len())
            .collect::<Vec<_>>(),
        [10; 3]
    );
    assert_eq!(sum(&mut crew, "handed-over"), 2);
}

/// A port with queues at some members only: those send for the others, and bring for them.
#[test]
fn a_member_with_the_queue_sends_for_the_others() {
    for direct in [false, true] {
        let gates = gates(true);
        let gate = SimFunction::inline("gate", &gates, Hop::Port(0), Hop::Port(1));
        let mut crew = Crew::new(3, Some(64), &[gate], 0);
        let links = if direct {
            [Hop::Port(1), Hop::Port(0)]
        } else {
            [INSIDE, OUTSIDE].map(|side| Hop::Function(0, side))
        };
        crew.add_port_at("inside", links[0], Offloads::default(), &[1]);
        crew.add_port_at("outside", links[1], Offloads::ALL, &[2]);
        let offload = Offload {
            needs_checksum: true,
            gso: Gso::Udp,
            gso_size: 2,
            header_len: 42,
            checksum_start: 34,
            checksum_offset: 6,
            ..Offload::default()
        };
        for flow in 0..100 {
            crew.inject_with(0, 1, &frame(flow, 0, 7), offload);
            crew.inject(1, 2, &frame(flow, 1, 7));
        }
        crew.run();
        let sent = crew.sent_by(1, 2);
        assert_eq!(sent.len(), 100);
        for (frame, flow) in sent.iter().filter(|_| direct).zip(0..) {
            assert_eq!(frame.bytes, self::frame(flow, 0, 7));
        }
        assert!(sent.iter().all(|frame| frame.offload == offload));
        assert_eq!(crew.sent_by(0, 1).len(), 100);
        // What the egress can't pass on is done where its queue is.
        crew.inject_with(1, 2, &frame(1, 1, 7), offload);
        crew.run();
        assert_eq!(crew.sent_by(0, 1).len(), 2, "cut");
    }
}

#[test]
fn where_nobody_has_the_queue_it_is_a_drop() {
    let gates = gates(true);
    let gate = SimFunction::inline("gate", &gates, Hop::Port(0), Hop::Port(1));
    let mut crew = Crew::new(2, Some(64), &[gate], 0);
    crew.add_port("inside", Hop::Function(0, INSIDE));
    crew.add_port_at(
        "outside",
        Hop::Function(0, OUTSIDE),
        Offloads::default(),
        &[],
    );
    (0..10).for_each(|flow| crew.inject(0, 0, &frame(flow, 0, 0)));
    crew.run();
    let down: u64 = crew
        .snapshots()
        .iter()
        .map(|member| member.port("outside").unwrap().value("down"))
        .sum();
    assert_eq!(down, 10);
}

/// A member that does not poll costs its own packets, and nobody waits for it.
#[test]
fn a_full_ring_is_a_drop() {
    let gates = gates(true);
    let mut crew = crew(2, &gates);
    crew.run();
    let now = crew.now;
    for round in 0..1000 {
        (0..40)
            .for_each(|flow| crew.inject(0, 0, &[&frame(flow, 0, round)[..], &[0; 1000]].concat()));
        crew.member(0).engine().poll(now);
    }
    let snapshot = crew.member(0).snapshot();
    snapshot.check_conservation().unwrap();
    let crowded = snapshot.port("inside").unwrap().value("crowded");
    assert!(crowded > 1000, "{crowded}");
    crew.run();
    assert_eq!(crew.sent(1).len() as u64, 40_000 - crowded);
}

/// A flood of new flows by one member's queue, which others handle: neither their own ports nor flows that come over the
/// same ring suffer from it.
#[test]
fn a_flood_that_others_handle_leaves_them_their_time() {
    const POLLS: usize = 600;
    let (flood, calm) = (gates(false), gates(true));
    let functions = [
        SimFunction::inline("flood", &flood, Hop::Port(0), Hop::Port(1)),
        SimFunction::inline("calm", &calm, Hop::Port(2), Hop::Port(3)),
    ];
    let mut crew = Crew::new(2, Some(1024), &functions, 0);
    for port in 0..4 {
        let side = [INSIDE, OUTSIDE][usize::from(port % 2)];
        crew.add_port(&port.to_string(), Hop::Function(port / 2, side));
    }
    crew.run();
    let now = crew.now;
    for poll in 0..POLLS {
        for number in 0..BURST {
            let flow = (poll * BURST + number) as u32;
            let mut new = frame(0, 0, flow);
            new[34..36].copy_from_slice(&(flow as u16).to_be_bytes());
            crew.inject(0, 0, &new);
        }
        for member in 0..2 {
            (0..20).for_each(|flow| crew.inject(2, member, &frame(flow, 0, 0)));
        }
        for member in 0..2 {
            crew.member(member).engine().poll(now);
        }
    }
    let flood = crew.sent(1).len();
    let share = POLLS * STAGED_SHARE as usize;
    assert!((share / 2..share * 3).contains(&flood), "{flood}");
    let calm = crew.sent(3).len();
    assert!(calm > POLLS * 40 * 9 / 10, "{calm}");
    let crowded = |crew: &mut Crew, port: &str| {
        let members = crew.snapshots();
        members
            .iter()
            .map(|member| member.port(port).unwrap().value("crowded"))
            .sum::<u64>()
    };
    assert_eq!(crowded(&mut crew, "2"), 0);
    // Alone it gets all there is.
    crew.run();
    assert_eq!(crew.sent(3).len() + calm, POLLS * 40);
    assert_eq!(
        crew.sent(1).len() + flood,
        POLLS * BURST - crowded(&mut crew, "0") as usize
    );
}

/// Large frames whose payloads are still in the sender's buffers cross whole, to be handled and to be sent.
#[test]
fn payloads_that_stayed_with_their_sender_cross_with_their_packets() {
    let links = [Hop::Function(0, INSIDE), Hop::Function(0, OUTSIDE)];
    let flows = FlowTable::new(64, &Objects::default(), [1, 2, 3, 4]).unwrap();
    let mut street = Street::by(&setup(), Some(flows), links);
    let gate = gates(true).build(&mut Build {
        objects: &mut Objects::default(),
        seed: 0,
        share: Share::WHOLE,
    });
    let interfaces = [("inside", Hop::Port(0)), ("outside", Hop::Port(1))];
    let interfaces = interfaces.map(|(name, hop)| (name.to_owned(), hop));
    street.engine.add_function("gate", gate, interfaces.into());
    street.engine.replace_port(1, Box::new(Elsewhere));
    let wakes = [0; 2].map(|_| WakeHandle::new().unwrap());
    let owners = Owners::new(2, &[]);
    let mut members = crew::crew(&owners, wakes.into(), 2);
    let mut other = members.pop().unwrap();
    other.note_reachable(1, true);
    street.engine.join(members.remove(0));
    let sent: Vec<_> = (0..40)
        .map(|flow| Sent {
            header: NetHeader::default(),
            bytes: {
                let payload: Vec<u8> = (0..1400u32).map(|at| (at * 7) as u8 ^ flow).collect();
                let mut bytes = Vec::new();
                PacketBuilder::ethernet2([2; 6], [4; 6])
                    .ipv4([10, 0, 0, flow], [10, 0, 1, 1], 9)
                    .udp(1, 2)
                    .write(&mut bytes, &payload)
                    .unwrap();
                bytes
            },
        })
        .collect();
    let mut kinds = [0, 0];
    for _ in 0..2 {
        street.send(0, &sent);
        let mut pool = Pool::new(PoolConfig {
            small: 256,
            large: 0,
            huge_pages: HugePages::Never,
        })
        .unwrap();
        loop {
            let mut batch = Batch::new();
            let Some(run) = other.take(0, BURST, &mut pool, &mut batch) else {
                break;
            };
            assert_eq!(run.port, u16::from(run.kind == Kind::Leave));
            kinds[usize::from(run.kind == Kind::Leave)] += batch.len();
            for packet in &batch {
                let flow = packet.data()[29];
                assert_eq!(packet.data(), sent[usize::from(flow)].bytes);
            }
        }
    }
    assert_eq!(kinds.iter().sum::<usize>(), 80);
    assert!(kinds.iter().all(|count| *count > 20), "{kinds:?}");
    let snapshot = WorkerStats::of(&street.engine).snapshot();
    snapshot.check_conservation().unwrap();
    assert!(
        snapshot.value("payloads-lent") >= 80,
        "{}",
        snapshot.value("payloads-lent")
    );
}
