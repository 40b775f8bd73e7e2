//! The form for plain TCP and UDP over IPv4 gives what the general form gives.

use proptest::prelude::*;

use super::super::record::Record;
use super::super::rewrite::{apply, general};
use super::super::template::work;
use super::*;
use crate::packet::Mac;

#[derive(Clone, Copy, Debug)]
struct Case {
    tcp: bool,
    tag: Option<u16>,
    addresses: [[u8; 4]; 2],
    ports: [u16; 2],
    new_addresses: [Option<[u8; 4]>; 2],
    new_ports: [Option<u16>; 2],
    macs: [Option<[u8; 6]>; 2],
    guard: Option<[u8; 6]>,
    ttl: u8,
    taken: u8,
    checksum: Option<u16>,
    partial: bool,
    wire_len: u32,
}

fn case() -> impl Strategy<Value = Case> {
    let macs = proptest::array::uniform2(proptest::option::of(any::<[u8; 6]>()));
    let fields = (
        any::<bool>(),
        proptest::option::of(0u16..4096),
        any::<[[u8; 4]; 2]>(),
        any::<[u16; 2]>(),
        proptest::array::uniform2(proptest::option::of(any::<[u8; 4]>())),
        proptest::array::uniform2(proptest::option::of(any::<u16>())),
        macs,
    );
    let checksum = prop_oneof![
        Just(None),
        Just(Some(0)),
        Just(Some(0xffff)),
        any::<u16>().prop_map(Some)
    ];
    let guard = proptest::option::of(prop_oneof![Just([4; 6]), any::<[u8; 6]>()]);
    let rest = (
        guard,
        1u8..6,
        0u8..4,
        checksum,
        any::<bool>(),
        prop_oneof![Just(u32::MAX), 20u32..80],
    );
    (fields, rest).prop_map(
        |((tcp, tag, addresses, ports, new_addresses, new_ports, macs), rest)| {
            let (guard, ttl, taken, checksum, partial, wire_len) = rest;
            Case {
                tcp,
                tag,
                addresses,
                ports,
                new_addresses,
                new_ports,
                macs,
                guard,
                ttl,
                taken,
                checksum,
                partial,
                wire_len,
            }
        },
    )
}

impl Case {
    fn packet(&self, pool: &mut Pool) -> Packet {
        let mut frame = Vec::new();
        let [src, dst] = self.addresses;
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, self.ttl);
        let written = if self.tcp {
            builder
                .tcp(self.ports[0], self.ports[1], 1, 2)
                .write(&mut frame, b"payload")
        } else {
            builder
                .udp(self.ports[0], self.ports[1])
                .write(&mut frame, b"payload")
        };
        written.unwrap();
        if let Some(checksum) = self.checksum {
            let at = 34 + if self.tcp { 16 } else { 6 };
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        if let Some(tag) = self.tag {
            let [high, low] = tag.to_be_bytes();
            frame.splice(12..12, [0x81, 0, high, low]);
        }
        let mut packet = pool.copy_of(&frame).unwrap();
        parse(&mut packet).unwrap();
        if self.partial {
            let start = packet.layers().l4;
            packet.offload_mut().needs_checksum = true;
            packet.offload_mut().checksum_start = start;
        }
        packet
    }

    fn recorder(&self) -> Recorder {
        let mut recorder = recording();
        recorder.guard_wire_len(self.wire_len as usize);
        if let Some(mac) = self.guard {
            recorder.guard_mac_dst(Mac(mac));
        }
        if let Some(mac) = self.macs[0] {
            recorder.set_mac_dst(Mac(mac));
        }
        if let Some(mac) = self.macs[1] {
            recorder.set_mac_src(Mac(mac));
        }
        (0..self.taken).for_each(|_| recorder.decrement_ttl());
        recorder
    }

    /// What stages do to it.
    fn rewrite(&self, packet: &mut Packet) {
        for (address, set) in self
            .new_addresses
            .iter()
            .zip([Packet::set_ip_src, Packet::set_ip_dst])
        {
            if let Some(address) = address {
                set(packet, (*address).into());
            }
        }
        for (port, set) in self
            .new_ports
            .iter()
            .zip([Packet::set_port_src, Packet::set_port_dst])
        {
            if let Some(port) = port {
                set(packet, *port);
            }
        }
        for (mac, set) in self
            .macs
            .iter()
            .zip([Packet::write_mac_dst, Packet::write_mac_src])
        {
            if let Some(mac) = mac {
                set(packet, Mac(*mac));
            }
        }
        (0..self.taken).for_each(|_| packet.decrement_ttl());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn agree_with_each_other_and_with_the_stages(case in case()) {
        let mut pool = pool();
        let [mut fast, mut slow, mut staged] = [(); 3].map(|()| case.packet(&mut pool));
        let before = fast.data().to_vec();
        let key = key_of(&fast, 0).unwrap();
        let recorder = case.recorder();
        case.rewrite(&mut staged);
        let (record, wide) = Record::new(&key, 0, &recorder, &staged, 0);
        let work = work(&recorder, End::Port(0));
        let guards = case.guard.is_none_or(|mac| fast.mac_dst() == Mac(mac));
        let expected = guards && fast.wire_len() <= case.wire_len as usize
            && (case.taken == 0 || case.ttl > case.taken);
        prop_assert_eq!(apply(&mut fast, &work, &record, &wide), expected);
        if expected {
            prop_assert!(general(&mut slow, &work, &record, &wide));
            prop_assert_eq!(fast.data(), slow.data());
            prop_assert_eq!(fast.data(), staged.data());
        } else {
            prop_assert_eq!(fast.data(), &before[..]);
        }
    }
}
