//! The quick parser against the general one: the same layers, the same key, the same error, whatever the bytes.

use super::*;
use crate::flow::{Parsed, parse_common, parse_general, parse_plain};

/// What a parser made of a packet.
type Seen = (Result<Parsed, Malformed>, Layers, Vec<u8>);

fn seen(bytes: &[u8], gso: Gso, parse: impl Fn(&mut Packet) -> Result<Parsed, Malformed>) -> Seen {
    let mut packet = packet(bytes);
    packet.offload_mut().gso = gso;
    let result = parse(&mut packet);
    (result, *packet.layers(), packet.data().to_vec())
}

fn general(bytes: &[u8], gso: Gso) -> Seen {
    seen(bytes, gso, |packet| parse_general(packet, 3))
}

/// As the engine parses: what is not as most packets are goes another way.
fn parse_quickly(packet: &mut Packet) -> Result<Parsed, Malformed> {
    let parsed = parse_plain(packet, 3);
    let parsed = parsed.or_else(|| parse_common(packet, 3));
    parsed.map_or_else(|| parse_general(packet, 3), Ok)
}

/// The second of the three ways must be right for what the first takes, too.
fn common_first(packet: &mut Packet) -> Result<Parsed, Malformed> {
    parse_common(packet, 3).map_or_else(|| parse_general(packet, 3), Ok)
}

fn quick(bytes: &[u8], gso: Gso) -> Seen {
    seen(bytes, gso, parse_quickly)
}

fn with_tail(
    bytes: &[u8],
    parse: impl Fn(&mut Packet) -> Result<Parsed, Malformed>,
) -> (Result<Parsed, Malformed>, Layers, usize) {
    let mut packet = packet(&bytes[..HEAD]);
    packet.leave_tail(bytes.len(), Tail::default());
    let result = parse(&mut packet);
    (result, *packet.layers(), packet.len())
}

fn gso() -> impl Strategy<Value = Gso> {
    prop_oneof![Just(Gso::None), Just(Gso::Tcp4), Just(Gso::Udp)]
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..120), gso in gso()) {
        prop_assert_eq!(quick(&bytes, gso), general(&bytes, gso));
    }

    #[test]
    fn lies(bytes in super::lies(), gso in gso()) {
        let general = general(&bytes, gso);
        prop_assert_eq!(&seen(&bytes, gso, common_first), &general);
        prop_assert_eq!(quick(&bytes, gso), general);
    }

    #[test]
    fn frames_whose_payload_is_elsewhere(
        v6: bool, kind in kind(), tags in proptest::collection::vec(0u16..4096, 0..3), payload in 80usize..400,
        lies in proptest::collection::vec((0usize..90, any::<u8>()), 0..3), length in proptest::option::of(0u16..500),
    ) {
        let payload = vec![7; payload];
        let mut bytes = frame((address(v6, 1), address(v6, 2)), (1, 2), kind, &payload, &tags);
        for (at, lie) in lies {
            bytes[at] = lie;
        }
        let l3 = 14 + tags.len() * 4;
        if let Some(length) = length {
            let at = l3 + if v6 { 4 } else { 2 };
            bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
        if !v6 {
            set_ip_sum(&mut bytes, l3);
        }
        let general = with_tail(&bytes, |packet| parse_general(packet, 3));
        prop_assert_eq!(with_tail(&bytes, parse_quickly), general);
        prop_assert_eq!(with_tail(&bytes, common_first), general);
    }

    /// The header's first words decide most of it, and random ones are nearly always refused.
    #[test]
    fn headers_that_are_nearly_right(
        bytes in super::lies(), tos: u8, fragment in prop_oneof![Just(0u16), Just(0x4000), Just(0x8000), Just(0x2000), any::<u16>()],
        total in proptest::option::of(0u16..140), protocol in prop_oneof![Just(6u8), Just(17), any::<u8>()], flags: u8,
    ) {
        let mut bytes = bytes;
        if bytes.len() >= 54 && bytes[12..14] == [8, 0] {
            bytes[15] = tos;
            bytes[20..22].copy_from_slice(&fragment.to_be_bytes());
            bytes[23] = protocol;
            bytes[47] = flags;
            if let Some(total) = total {
                bytes[16..18].copy_from_slice(&total.to_be_bytes());
            }
            set_ip_sum(&mut bytes, 14);
        }
        prop_assert_eq!(quick(&bytes, Gso::None), general(&bytes, Gso::None));
    }
}

#[test]
fn valid_frames_and_all_their_beginnings() {
    for v6 in [false, true] {
        for kind in [Kind::Tcp, Kind::Udp, Kind::Echo] {
            for tags in [&[][..], &[0], &[7], &[7, 8]] {
                for payload in [&b""[..], b"x", b"twelve bytes"] {
                    let ends = (address(v6, 9 << 64 | 1), address(v6, 7 << 64 | 2));
                    let mut bytes = frame(ends, (1, 0xffff), kind, payload, tags);
                    bytes.extend([0xee; 3]);
                    let most = tags.len() < 2 && !matches!(kind, Kind::Echo);
                    assert_eq!(
                        common(&bytes, bytes.len()).is_some(),
                        most,
                        "{kind:?} {tags:?}"
                    );
                    for len in 0..=bytes.len() {
                        let bytes = &bytes[..len];
                        assert_eq!(
                            quick(bytes, Gso::None),
                            general(bytes, Gso::None),
                            "{bytes:x?}"
                        );
                    }
                }
            }
        }
    }
}

/// Each bit of a header's checksum counts, and so does each carry.
#[test]
fn every_header_checksum() {
    let ends = ([255; 4].into(), [255, 255, 255, 0].into());
    let mut bytes = frame(ends, (1, 2), Kind::Udp, b"", &[]);
    for sum in 0..=u16::MAX {
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(
            quick(&bytes, Gso::None),
            general(&bytes, Gso::None),
            "{sum:x}"
        );
    }
}
