//! Traffic is what its description says, again and again.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn any_traffic() -> impl Strategy<Value = Traffic> {
    let kinds = (
        prop_oneof![
            Just(IpVersions::V4),
            Just(IpVersions::V6),
            Just(IpVersions::Mixed)
        ],
        prop_oneof![
            Just(Transports::Udp),
            Just(Transports::Tcp),
            Just(Transports::Mixed)
        ],
    );
    let sizes = prop_oneof![
        (94u16..1500).prop_map(Sizes::Fixed),
        Just(Sizes::Mix(vec![(94, 7), (594, 4), (1514, 1)])),
    ];
    let spread = prop_oneof![Just(Spread::Uniform), (0.5f64..1.5).prop_map(Spread::Zipf)];
    (kinds, sizes, spread, 1u32..5000, 1u32..300, any::<u64>()).prop_map(
        |((ip, transport), sizes, spread, flows, hosts, seed)| {
            let mut traffic = Traffic {
                sizes,
                ip,
                transport,
                flows,
                spread,
                seed,
                ..Traffic::default()
            };
            traffic.sides[0].hosts = hosts;
            traffic.sides[1].hosts = 1 + hosts / 7;
            traffic
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_same_seed_gives_the_same_packets(traffic in any_traffic(), base in 0u32..100_000) {
        let [a, b] = [0, 1].map(|_| Packets::new(&traffic, None).unwrap());
        prop_assert_eq!(a.fill.bytes(), b.fill.bytes());
        for index in (0..2000).map(|i| i * 7919) {
            for direction in 0..2 {
                let packet = a.packet(direction, a.seek(direction, index), base);
                prop_assert_eq!(packet, b.packet(direction, b.seek(direction, index), base));
                prop_assert_eq!(a.tuple(packet.0), b.tuple(packet.0));
                prop_assert!(packet.0 >= base && packet.0 - base < traffic.flows);
            }
        }
    }

    #[test]
    fn going_on_packet_by_packet_is_the_same_as_seeking(traffic in any_traffic(), start in 0u64..1 << 40) {
        let packets = Packets::new(&traffic, None).unwrap();
        for direction in 0..2 {
            let mut cursor = packets.seek(direction, start);
            for index in start..start + 20_000 {
                prop_assert_eq!(cursor, packets.seek(direction, index));
                packets.advance(direction, &mut cursor);
            }
        }
    }

    #[test]
    fn flows_have_tuples_of_their_own(traffic in any_traffic()) {
        let packets = Packets::new(&traffic, None).unwrap();
        let key = |flow| { let t = packets.tuple(flow); (t.v6, t.tcp, t.src, t.dst, t.src_port, t.dst_port) };
        let tuples: HashSet<_> = (0..traffic.flows).map(key).collect();
        prop_assert_eq!(tuples.len(), traffic.flows as usize);
    }
}

#[test]
fn uniform_flows_take_turns() {
    for flows in [1, 2, 3, 1000, 4096] {
        let traffic = Traffic {
            flows,
            ..Traffic::default()
        };
        let packets = Packets::new(&traffic, None).unwrap();
        let seen: HashSet<_> = (0..u64::from(flows))
            .map(|index| packets.packet(0, packets.seek(0, index), 0).0)
            .collect();
        assert_eq!(seen.len(), flows as usize);
    }
}

#[test]
fn zipf_draws_follow_their_shares() {
    let traffic = Traffic {
        flows: 1000,
        spread: Spread::Zipf(1.0),
        ..Traffic::default()
    };
    let packets = Packets::new(&traffic, None).unwrap();
    let mut counts = vec![0u32; 1000];
    for index in 0..200_000 {
        counts[packets.packet(0, packets.seek(0, index), 0).0 as usize] += 1;
    }
    // The harmonic number of 1000 is 7.485.
    for rank in [1u32, 2, 10, 100] {
        let expected = 200_000.0 / 7.485 / f64::from(rank);
        let got = f64::from(counts[rank as usize - 1]);
        assert!(
            (got - expected).abs() < 6.0 * expected.sqrt() + 1.0,
            "rank {rank}: {got} for {expected}"
        );
    }
}

#[test]
fn a_mix_has_its_shares() {
    let traffic = Traffic {
        sizes: Sizes::imix(),
        ..Traffic::default()
    };
    let packets = Packets::new(&traffic, None).unwrap();
    let count = packets.lengths_len() as u64;
    let of = |size| {
        (0..count)
            .filter(|index| packets.packet(0, packets.seek(0, *index), 0).1 == size)
            .count() as u64
    };
    assert_eq!(
        [of(64), of(594), of(1514)],
        [7, 4, 1].map(|n| n * count / 12)
    );
}

#[test]
fn what_contradicts_itself_is_refused_with_a_reason() {
    let refuse = |change: fn(&mut Traffic), part: &str| {
        let mut traffic = Traffic::default();
        change(&mut traffic);
        let error = Packets::new(&traffic, None).err().expect(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    refuse(|t| t.flows = 0, "1 to 10000000");
    refuse(|t| t.sizes = Sizes::Fixed(63), "64 bytes are the least");
    refuse(|t| t.sizes = Sizes::Fixed(9217), "9216 are the most");
    refuse(|t| t.ip = IpVersions::V6, "82 bytes are the least");
    refuse(
        |t| t.transport = Transports::Mixed,
        "74 bytes are the least",
    );
    refuse(|t| t.spread = Spread::Zipf(f64::NAN), "Zipf");
    refuse(|t| t.new_flows = -1.0, "new flows");
    refuse(|t| t.sides[0].hosts = 0, "host");
    refuse(|t| t.sizes = Sizes::Mix(vec![(64, 0)]), "weight");
    let small = |t: &mut Traffic| {
        t.flows = 70_000;
        t.sides[0].hosts = 1;
    };
    refuse(small, "more hosts");
}

#[test]
fn a_capture_gives_its_lengths_flows_and_directions() {
    use etherparse::PacketBuilder;
    let frame = |reverse: bool, port: u16, len: usize| {
        let mut addresses = [[10, 0, 0, 1], [10, 0, 0, 2]];
        let mut ports = [port, 80];
        if reverse {
            addresses.reverse();
            ports.reverse();
        }
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(addresses[0], addresses[1], 64)
            .tcp(ports[0], ports[1], 1, 1000);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &vec![0; len]).unwrap();
        bytes
    };
    let frames = [
        frame(false, 7, 100),
        frame(true, 7, 1000),
        frame(false, 8, 0),
    ];
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend_from_slice(&65_535u32.to_le_bytes());
    file.extend_from_slice(&1u32.to_le_bytes());
    for frame in frames {
        let len = (frame.len() as u32).to_le_bytes();
        file.extend_from_slice(&[0; 8]);
        file.extend_from_slice(&len);
        file.extend_from_slice(&len);
        file.extend_from_slice(&frame);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcap");
    std::fs::write(&path, file).unwrap();
    let capture = replay::read(&path).unwrap();
    assert_eq!(capture.flows, [(false, true); 2]);
    assert_eq!(capture.packets, [vec![(0, 154), (1, 74)], vec![(0, 1054)]]);
    assert!(replay::read(&dir.path().join("none")).is_err());
}
