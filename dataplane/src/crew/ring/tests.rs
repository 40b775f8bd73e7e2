use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::packet::{HugePages, LARGE, PoolConfig};

fn pool(small: usize, large: usize) -> Pool {
    Pool::new(PoolConfig {
        small,
        large,
        huge_pages: HugePages::Never,
    })
    .unwrap()
}

/// A packet in words.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    kind: Kind,
    port: u16,
    bytes: Vec<u8>,
    offload: Offload,
}

fn offload() -> impl Strategy<Value = Offload> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let gso = prop_oneof![
        Just(Gso::None),
        Just(Gso::Tcp4),
        Just(Gso::Tcp6),
        Just(Gso::Udp)
    ];
    let words = any::<[u16; 4]>();
    (flags, gso, words).prop_map(
        |((needs_checksum, checksum_valid, ecn), gso, words)| Offload {
            needs_checksum,
            checksum_valid,
            ecn,
            gso,
            gso_size: words[0],
            header_len: words[1],
            checksum_start: words[2],
            checksum_offset: words[3],
        },
    )
}

fn packet() -> impl Strategy<Value = (Kind, Vec<u8>, Offload)> {
    let kind = prop_oneof![Just(Kind::Enter), Just(Kind::Listen), Just(Kind::Leave)];
    let len = prop_oneof![20 => 0usize..200, 5 => 0usize..2000, 1 => 0usize..=LARGE];
    (kind, len, any::<u8>(), offload()).prop_map(|(kind, len, first, offload)| {
        let bytes = (0..len).map(|at| (at as u8).wrapping_mul(7).wrapping_add(first));
        (kind, bytes.collect(), offload)
    })
}

/// A batch of a port that is sent, or how many are taken.
#[derive(Clone, Debug)]
enum Step {
    Send(u16, Vec<(Kind, Vec<u8>, Offload)>),
    Take(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batch = prop::collection::vec(packet(), 1..BURST);
    let step = prop_oneof![
        (0u16..3, batch).prop_map(|(port, batch)| Step::Send(port, batch)),
        (0usize..=BURST).prop_map(Step::Take),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// A ring is a queue of packets, in runs of one kind and port, of which the last ones sent may find no room.
    #[test]
    fn a_ring_is_a_queue(steps in steps()) {
        let mut pool = pool(2 * BURST, 2 * BURST);
        let (mut sender, mut receiver) = ring();
        let mut model = VecDeque::new();
        let mut bytes = 0;
        for step in steps {
            match step {
                Step::Send(port, batch) => {
                    let mut packets = Batch::new();
                    for (_, bytes, offload) in &batch {
                        let mut packet = pool.copy_of(bytes).unwrap();
                        *packet.offload_mut() = *offload;
                        packets.push(packet);
                    }
                    let kinds = batch.iter().map(|(kind, ..)| *kind);
                    let refs: Vec<_> = kinds.zip(&packets).collect();
                    let sent = sender.send(port, &refs, Lenders::default());
                    bytes += packets[..sent].iter().map(size).sum::<usize>();
                    prop_assert!(bytes <= CAPACITY);
                    if let Some(refused) = packets.get(sent) {
                        prop_assert!(bytes + size(refused) > CAPACITY);
                    }
                    for (kind, bytes, offload) in batch.into_iter().take(sent) {
                        model.push_back(Sent { kind, port, bytes, offload });
                    }
                }
                Step::Take(limit) => {
                    let mut batch = Batch::new();
                    let run = receiver.take(limit, &mut pool, &mut batch);
                    prop_assert_eq!(run.is_none(), limit == 0 || model.is_empty());
                    let Some(run) = run else { continue };
                    prop_assert_eq!((run.packets, run.lost), (batch.len(), 0));
                    for packet in &batch {
                        bytes -= size(packet);
                        let sent = model.pop_front().unwrap();
                        prop_assert_eq!((sent.kind, sent.port), (run.kind, run.port));
                        prop_assert_eq!(&sent.bytes, packet.data());
                        prop_assert_eq!(&sent.offload, packet.offload());
                    }
                    if let Some(next) = model.front() {
                        let same = (next.kind, next.port) == (run.kind, run.port);
                        prop_assert!(!same || run.packets == limit, "it stops too soon");
                    }
                }
            }
            prop_assert_eq!(receiver.is_empty(), model.is_empty());
            prop_assert_eq!(sender.is_drained(), model.is_empty());
        }
    }
}

#[test]
fn a_ring_holds_some_of_the_largest_frames() {
    let mut pool = pool(0, 32);
    let (mut sender, _receiver) = ring();
    let mut sent = 0;
    let frame = vec![1; LARGE];
    while sender.send(
        0,
        &[(Kind::Enter, &pool.copy_of(&frame).unwrap())],
        Lenders::default(),
    ) == 1
    {
        sent += 1;
    }
    assert!(sent >= 8, "{sent}");
}

#[test]
fn what_finds_no_buffer_is_counted_and_gone() {
    let mut pool = pool(4, 0);
    let (mut sender, mut receiver) = ring();
    let packets: Vec<_> = (0..4).map(|n| pool.copy_of(&[n; 60]).unwrap()).collect();
    let refs: Vec<_> = packets.iter().map(|packet| (Kind::Enter, packet)).collect();
    assert_eq!(sender.send(0, &refs, Lenders::default()), 4);
    drop(packets);
    let hoard: Vec<_> = (0..3).map(|_| pool.take(1)).collect();
    let mut batch = Batch::new();
    let run = receiver.take(BURST, &mut pool, &mut batch).unwrap();
    assert_eq!((run.packets, run.lost, batch.len()), (4, 3, 1));
    assert_eq!(batch[0].data(), [0; 60]);
    assert!(receiver.is_empty());
    drop(hoard);
}
