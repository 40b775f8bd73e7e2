//! Frames of which most stays with the sender until they are sent give what frames that are copied whole give: the same
//! bytes, counters and drops, whatever functions, the receiver and the flow table make of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chainplane_vhost::net::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NetHeader};
use etherparse::PacketBuilder;
use proptest::prelude::*;

use crate::capture;
use crate::engine::{EngineCounter, Hop};
use crate::flow::FlowTable;
use crate::function::{Context, Descriptor, Function, INSIDE, Interface, OUTSIDE, Verdict};
use crate::indices;
use crate::objects::Objects;
use crate::packet::{HEAD, LONGEST_COPIED, Mac, Packet};
use crate::ports::vhost_user::street::{Sent, Setup, Street, any_setup, checksummed, setup};
use crate::stats::{PortSnapshot, Snapshot, WorkerStats};
use crate::time::Time;

indices! {
    /// Why [`Sorter`] drops.
    enum SorterDrop {
        /// It was asked to.
        Asked = "asked",
    }
}

/// Does to a packet what its source port says.
struct Sorter;

/// Rewritten and sent on, by its record.
const ON: u16 = 1;
/// The same, but never recorded.
const SLOWLY_ON: u16 = 2;
/// Sent back where it came from.
const BACK: u16 = 3;
/// Dropped, by its record.
const AWAY: u16 = 4;

impl Function for Sorter {
    fn descriptor(&self) -> &'static Descriptor {
        &Descriptor {
            kind: "sorter",
            counters: &[],
            drops: SorterDrop::INFO,
        }
    }

    fn process(&mut self, cx: &mut Context<'_>, mut packet: Packet, from: Interface) -> Verdict {
        // A stage reads what it likes.
        assert_eq!(packet.data().len(), packet.len());
        let source = packet.ports().map_or(0, |(source, _)| source);
        if packet.wire_len() > 1500 {
            return Verdict::drop(packet, SorterDrop::Asked as u8);
        }
        cx.guard_wire_len(1500);
        if source != SLOWLY_ON {
            cx.replayable();
        }
        if source == AWAY {
            return Verdict::drop(packet, SorterDrop::Asked as u8);
        }
        packet.set_ip_src("192.0.2.7".parse().unwrap());
        packet.set_ip_src("2001:db8::7".parse().unwrap());
        packet.set_port_dst(4711);
        if packet.ttl() > 1 {
            cx.decrement_ttl(&mut packet);
        }
        cx.set_macs(&mut packet, Mac([2, 1, 1, 1, 1, 1]), Mac([2; 6]));
        let by = if source == BACK {
            from
        } else {
            from.opposite()
        };
        Verdict::Leave(by, packet)
    }
}

/// Two guests with a function between them.
fn street(setup: &Setup) -> Street {
    let links = [Hop::Function(0, INSIDE), Hop::Function(0, OUTSIDE)];
    let flows = FlowTable::new(64, &Objects::default(), [1, 2, 3, 4]).unwrap();
    let mut street = Street::by(setup, Some(flows), links);
    let interfaces = ["inside", "outside"].into_iter().enumerate();
    let interfaces = interfaces.map(|(port, name)| (name.to_owned(), Hop::Port(port as u16)));
    let engine = &mut street.engine;
    engine.add_function("sorter", Box::new(Sorter), interfaces.collect());
    street
}

fn snapshot(street: &Street) -> Snapshot {
    WorkerStats::of(&street.engine).snapshot()
}

/// What the counters say of functions and ports; the engine's tell of lending, too.
fn told(street: &Street) -> (String, Vec<PortSnapshot>) {
    let snapshot = snapshot(street);
    snapshot
        .check_conservation()
        .expect("every packet is counted");
    (format!("{:?}", snapshot.functions), snapshot.ports)
}

/// A frame, with an empty header, of so many bytes of payload.
fn frame(source: u16, six: bool, udp: bool, tagged: bool, payload: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload).map(|at| (at * 7) as u8).collect();
    let mut bytes = Vec::new();
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    macro_rules! write {
        ($link:expr) => {{
            let ip = if six {
                $link.ipv6([1; 16], [2; 16], 9)
            } else {
                $link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            };
            if udp {
                ip.udp(source, 80).write(&mut bytes, &payload).unwrap();
            } else {
                let tcp = ip.tcp(source, 80, 1, 1000).ack(1);
                tcp.write(&mut bytes, &payload).unwrap();
            }
        }};
    }
    if tagged {
        write!(link.single_vlan(5.try_into().unwrap()));
    } else {
        write!(link);
    }
    bytes
}

fn request(six: bool, udp: bool, tagged: bool, size: u16) -> NetHeader {
    let headers = 14 + if six { 40 } else { 20 } + 4 * u16::from(tagged);
    let gso_type = match (udp, six) {
        (true, _) => GSO_UDP_L4,
        (false, true) => GSO_TCPV6,
        (false, false) => GSO_TCPV4,
    };
    NetHeader {
        gso_type: if size > 0 { gso_type } else { 0 },
        gso_size: size,
        csum_start: headers,
        csum_offset: if udp { 6 } else { 16 },
        ..checksummed()
    }
}

fn any_frame() -> impl Strategy<Value = Sent> {
    let about = |len: usize| len.saturating_sub(80)..len + 20;
    let payload = prop_oneof![
        about(HEAD),
        about(LONGEST_COPIED),
        about(1518),
        about(2048),
        about(9000)
    ];
    let words = prop::collection::vec((0usize..HEAD + 8, any::<u8>()), 1..3);
    let extra = prop_oneof![3 => Just(0usize), 1 => 1usize..3000];
    let kinds = (ON..=AWAY, any::<bool>(), any::<bool>(), any::<bool>());
    let plain = (kinds.clone(), payload, extra, any::<bool>()).prop_map(
        |((source, six, udp, tagged), payload, extra, undone)| {
            let mut bytes = frame(source, six, udp, tagged, payload);
            bytes.resize(bytes.len() + extra, 9);
            let header = if undone {
                request(six, udp, tagged, 0)
            } else {
                NetHeader::default()
            };
            Sent { header, bytes }
        },
    );
    let large = (kinds, 1usize..65_000, 400u16..1400).prop_map(
        |((source, six, udp, tagged), payload, size)| Sent {
            header: request(six, udp, tagged, size),
            bytes: frame(source, six, udp, tagged, payload),
        },
    );
    let changed = (plain.clone(), words).prop_map(|(mut sent, words)| {
        for (at, value) in words {
            if let Some(byte) = sent.bytes.get_mut(at) {
                *byte = value;
            }
        }
        sent
    });
    prop_oneof![5 => plain, 3 => large, 2 => changed]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn left_with_the_sender_or_copied_whole(
        setup in any_setup(),
        rounds in prop::collection::vec(prop::collection::vec((any_frame(), 1usize..4), 1..6), 1..4),
    ) {
        let [mut lent, mut whole] = [(); 2].map(|()| street(&setup));
        let _watch = whole.watch();
        for (queue, frames) in rounds.iter().enumerate() {
            let repeated = frames.iter().flat_map(|(frame, times)| vec![frame.clone(); *times]);
            let frames: Vec<_> = repeated.collect();
            lent.send(queue, &frames);
            whole.send(queue, &frames);
            prop_assert_eq!(told(&lent), told(&whole));
        }
        for guest in [0, 1] {
            prop_assert!(lent.receive_at(guest) == whole.receive_at(guest), "other frames");
        }
        prop_assert_eq!(lent.engine.pool.free(), [256, 128]);
    }
}

fn sent(source: u16, payload: usize) -> Sent {
    Sent {
        header: NetHeader::default(),
        bytes: frame(source, false, false, false, payload),
    }
}

fn engine_counter(street: &Street, counter: EngineCounter) -> u64 {
    snapshot(street).engine[counter as usize].1
}

/// Lent and fetched so far.
fn lending(street: &Street) -> [u64; 2] {
    [EngineCounter::Lent, EngineCounter::Fetched].map(|counter| engine_counter(street, counter))
}

fn drops(street: &Street, port: usize, name: &str) -> u64 {
    let snapshot = snapshot(street);
    let found = snapshot.ports[port]
        .drops
        .iter()
        .find(|(info, _)| info.name == name);
    found.expect("a reason of that name").1
}

#[test]
fn only_what_the_stages_saw_is_copied_twice() {
    let mut street = street(&setup());
    street.send(0, &vec![sent(ON, 1000); 5]);
    assert_eq!(lending(&street), [5, 1]);
    let got = street.receive().concat();
    assert_eq!(got.len(), 5);
    assert!(
        got.iter()
            .all(|(_, frame)| frame[54..] == sent(ON, 1000).bytes[54..])
    );
    // Frames that are short, and those that go back to their sender, are copied.
    street.send(
        0,
        &[
            sent(ON, LONGEST_COPIED - 54),
            sent(BACK, 1000),
            sent(BACK, 1000),
        ],
    );
    assert_eq!(lending(&street), [7, 3]);
    assert_eq!(street.receive_at(0).concat().len(), 2);
}

#[test]
fn a_large_segment_needs_no_large_buffer() {
    let mut street = street(&Setup {
        queue_size: 256,
        ..setup()
    });
    let large = Sent {
        header: request(false, false, false, 1400),
        bytes: frame(ON, false, false, false, 60_000),
    };
    street.send(0, std::slice::from_ref(&large));
    let hoard: Vec<_> = std::iter::from_fn(|| street.engine.pool.take(60_000)).collect();
    assert_eq!(hoard.len(), 128);
    street.send(0, &[large.clone(), large.clone()]);
    assert_eq!(drops(&street, 0, "no-buffer"), 0);
    // One that the stages have to see finds none, is counted, and its buffers go back like the others.
    let mut other = large.clone();
    other.bytes = frame(SLOWLY_ON, false, false, false, 60_000);
    street.send(0, &[large.clone(), other, large]);
    assert_eq!(drops(&street, 0, "no-buffer"), 1);
    assert_eq!(street.receive().concat().len(), 5);
    drop(hoard);
}

#[test]
fn whoever_watches_either_port_sees_whole_frames() {
    let mut street = street(&setup());
    street.send(0, &[sent(ON, 1000)]);
    for port in [1, 0] {
        let (tap, mut watch) = capture::tap(1 << 20);
        street.engine.watch(port, tap);
        street.send(0, &[sent(ON, 1000)]);
        let seen = watch.next_packet().expect("a frame");
        assert_eq!((seen.len, seen.bytes.len()), (1054, 1054));
        assert_eq!(seen.bytes[54..], sent(ON, 1000).bytes[54..]);
    }
}

#[test]
fn a_port_whose_frames_are_always_fetched_stops_lending_for_a_while() {
    let mut street = street(&setup());
    for _ in 0..100 {
        street.send(0, &[sent(BACK, 1000)]);
        street.receive_at(0);
    }
    assert_eq!(lending(&street), [16, 16]);
    for _ in 0..400 {
        street.send(0, &[sent(ON, 1000)]);
        street.receive();
    }
    assert!(lending(&street)[0] > 16 + 200, "it begins again");
}

#[test]
fn a_receiver_without_room_or_rings_costs_its_frames_and_no_more() {
    let mut street = street(&setup());
    street.send(0, &vec![sent(ON, 1000); 20]);
    assert_eq!(drops(&street, 1, "full"), 20 - 16);
    assert_eq!(street.receive().concat().len(), 16);
    let end = &mut street.ends[1];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            end.enable(false).expect("a back end that answers");
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            street.engine.poll(Time(0));
        }
    });
    street.send(0, &vec![sent(ON, 1000); 5]);
    assert_eq!(drops(&street, 1, "down"), 5);
    assert_eq!(lending(&street), [25, 1]);
}

/// A guest writes to its payloads while they are with the worker: what it wrote reaches the receiver, behind the headers
/// that were read once and decided on.
#[test]
fn who_rewrites_what_it_lent_spoils_its_own_payload() {
    let mut street = street(&setup());
    street.send(0, &[sent(ON, 1000)]);
    let expected = street.receive().concat().remove(0).1;
    let layout = street.ends[0].layouts()[1];
    let memory = Arc::clone(street.ends[0].memory());
    let done = AtomicBool::new(false);
    let (mut sent_frames, mut spoiled) = (1, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for buffer in 0..layout.size {
                    let at = layout.buffer(buffer) + NetHeader::LEN;
                    memory.write(at + 54, &[0xaa; 1000]);
                }
            }
        });
        let start = Instant::now();
        while spoiled < 10 && start.elapsed() < Duration::from_secs(20) {
            street.send(0, &vec![sent(ON, 1000); 8]);
            sent_frames += 8;
            for (header, frame) in street.receive().concat() {
                assert_eq!((header.flags, header.gso_type), (0, 0));
                assert_eq!(frame.len(), expected.len());
                assert_eq!(frame[..54], expected[..54]);
                let changed = frame[54..].iter().zip(&expected[54..]);
                assert!(
                    changed
                        .clone()
                        .all(|(got, sent)| got == sent || *got == 0xaa)
                );
                spoiled += usize::from(frame != expected);
            }
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(lending(&street), [sent_frames, 1]);
    assert!(
        spoiled > 0,
        "{sent_frames} frames, and none was rewritten in time"
    );
}

/// The file behind a guest's memory is cut while its payloads are read: they turn to zeros, its ring breaks, and the
/// receiver gets nothing else.
#[test]
fn who_truncates_the_memory_it_lent_sends_zeros() {
    for cycle in 0..8 {
        let mut street = street(&setup());
        street.send(0, &[sent(ON, 1000)]);
        let expected = street.receive().concat().remove(0).1;
        let file = street.ends[0]
            .memory_file()
            .try_clone()
            .expect("a descriptor");
        let file = std::fs::File::from(file);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_micros(200 * cycle));
                file.set_len(0).expect("a truncated file");
            });
            for _ in 0..200 {
                let transmit = &mut street.guests[0][0].transmit;
                while transmit.send(NetHeader::default(), &sent(ON, 1000).bytes) {}
                transmit.flush();
                street.engine.poll(Time(0));
                for (_, frame) in street.receive().concat() {
                    assert_eq!(frame.len(), expected.len());
                    let bytes = frame.iter().zip(&expected);
                    assert!(bytes.clone().all(|(got, sent)| got == sent || *got == 0));
                }
            }
        });
        street.engine.poll(Time(0));
        assert_eq!(street.engine.pool.free(), [256, 128]);
        snapshot(&street)
            .check_conservation()
            .expect("every packet is counted");
    }
}
