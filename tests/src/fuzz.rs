//! What the fuzz targets do with their input. The targets in `fuzz/` call these, and so does the test that
//! replays the corpora; a finding is a panic.

use std::cell::RefCell;
use std::net::IpAddr;

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::flow::{key_of, parse_common, parse_general, parse_plain};
use chainplane_dataplane::offload::from_header;
use chainplane_dataplane::packet::{
    Gso, HugePages, Offload, Packet, Pool, PoolConfig, parse, protocol,
};
use chainplane_dataplane::sim::{Frame, Sim};
use chainplane_vhost::net::NetHeader;

/// Takes `bytes` as a frame. All parsers must see the same; a frame that is accepted must bear all that functions do to
/// it, and be as sound afterwards as before.
pub fn parser(bytes: &[u8]) {
    let mut quick = [None; 2];
    for (parse, quick) in [parse_plain, parse_common].into_iter().zip(&mut quick) {
        with_packet(bytes, |packet| {
            let parsed = parse(packet, 1);
            *quick = parsed.map(|parsed| (Ok(parsed), *packet.layers(), packet.len()));
        });
    }
    with_packet(bytes, |packet| {
        let parsed = parse_general(packet, 1);
        let general = (parsed, *packet.layers(), packet.len());
        for quick in quick {
            assert_eq!(quick.unwrap_or(general), general);
        }
        if parsed.is_ok() {
            accepted(packet);
        }
    });
}

/// Takes `bytes` as a frame with a virtio-net header in front, and sends it by a port that can complete
/// nothing itself: what comes out must be whole packets with right checksums.
pub fn offload(bytes: &[u8]) {
    thread_local! {
        static WORKER: RefCell<Sim> = RefCell::new({
            let mut sim = Sim::new(None, &[], 0);
            sim.add_port("in", Hop::Port(1));
            sim.add_port("out", Hop::Port(0));
            sim
        });
    }
    let Some((header, frame)) = bytes.split_first_chunk() else {
        return;
    };
    let Ok(asked) = from_header(&NetHeader::from_short(*header), frame.len()) else {
        return;
    };
    WORKER.with_borrow_mut(|sim| {
        sim.inject_with(0, frame, asked);
        sim.run();
        let sent = sim.sent(1);
        if asked.gso == Gso::None {
            assert!(sent.iter().all(|out| out.bytes.len() <= frame.len()));
        } else {
            pieces(frame, asked, &sent);
        }
    });
}

/// Checks the pieces into which `frame` was cut: sound each, and together the same payload.
fn pieces(frame: &[u8], asked: Offload, pieces: &[Frame]) {
    with_packet(frame, |whole| {
        *whole.offload_mut() = asked;
        if parse(whole).is_err() {
            assert!(pieces.is_empty(), "a malformed frame was cut");
            return;
        }
        let mut payload = Vec::new();
        for piece in pieces {
            with_packet(&piece.bytes, |piece| {
                assert_eq!(parse(piece), Ok(()), "a piece is malformed");
                assert_eq!(
                    transport_sum(piece),
                    Some(0xffff),
                    "a piece's checksum is wrong"
                );
                let data = &piece.data()[usize::from(piece.layers().payload)..];
                assert!(
                    data.len() <= usize::from(asked.gso_size),
                    "a piece is too large"
                );
                payload.extend_from_slice(data);
            });
        }
        let start = usize::from(whole.layers().payload);
        assert!(
            pieces.is_empty() || payload == whole.data()[start..],
            "payload was lost"
        );
    });
}

/// Takes `bytes` as the moves of a guest that writes what it likes into its rings and memory.
pub fn virtqueue(bytes: &[u8]) {
    chainplane_vhost::fuzzing::ring(bytes);
}

/// Takes `bytes` as what a guest and its front end do beside another guest: rings, memory that comes and goes, starts and
/// stops, frames both ways.
pub fn guests(bytes: &[u8]) {
    chainplane_vhost::crossfire::two_guests(bytes);
}

/// Takes `bytes` as the messages of a front end.
pub fn control(bytes: &[u8]) {
    chainplane_vhost::fuzzing::control_messages(bytes);
}

/// Takes `bytes` as a configuration file, reads and checks it, and renders what is wrong with it.
pub fn yaml(bytes: &[u8]) {
    chainplane::spec::fuzz_yaml(bytes);
}

/// Calls `use_it` with a packet that holds `bytes`; not at all if they are too many for any packet.
fn with_packet(bytes: &[u8], use_it: impl FnOnce(&mut Packet)) {
    thread_local! {
        static POOL: RefCell<Pool> = RefCell::new(
            Pool::new(PoolConfig { small: 2, large: 2, huge_pages: HugePages::Never })
                .expect("ordinary memory for four packets"),
        );
    }
    let packet = POOL.with_borrow_mut(|pool| pool.copy_of(bytes));
    if let Some(mut packet) = packet {
        use_it(&mut packet);
    }
}

fn accepted(packet: &mut Packet) {
    let layers = *packet.layers();
    for offset in [layers.l3, layers.l4, layers.payload] {
        assert!(
            usize::from(offset) <= packet.len(),
            "{layers:?} of {} bytes",
            packet.len()
        );
    }
    if layers.has_transport() {
        assert!(
            layers.l3 < layers.l4 && layers.l4 < layers.payload,
            "{layers:?}"
        );
    }
    let _ = (
        packet.mac_src(),
        packet.mac_dst(),
        packet.ttl(),
        packet.is_echo(),
        key_of(packet, 0),
    );
    if !layers.is_ipv4() && !layers.is_ipv6() {
        return;
    }
    let sum = transport_sum(packet);
    let (source, destination): (IpAddr, IpAddr) = if layers.is_ipv4() {
        ([192, 0, 2, 1].into(), [203, 0, 113, 255].into())
    } else {
        (
            [0x2001, 0xdb8, 1, 2, 3, 4, 5, 6].into(),
            [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1].into(),
        )
    };
    packet.set_ip_src(source);
    packet.set_ip_dst(destination);
    let has_ports = packet.ports().is_some();
    packet.set_port_src(7);
    packet.set_port_dst(7);
    assert_eq!((packet.ip_src(), packet.ip_dst()), (source, destination));
    assert_eq!(packet.ports(), has_ports.then_some((7, 7)));
    assert_eq!(parse(packet), Ok(()), "rewriting has broken it");
    assert_eq!(*packet.layers(), layers, "rewriting has moved its headers");
    assert_eq!(
        transport_sum(packet),
        sum,
        "rewriting has changed what its checksum says"
    );
}

/// The ones' complement sum over the pseudo-header and the transport segment: 0xffff where the checksum is
/// right. `None` where there is no checksum to judge by.
fn transport_sum(packet: &Packet) -> Option<u16> {
    let layers = packet.layers();
    if !layers.has_transport() || layers.is_fragment() {
        return None;
    }
    let segment = &packet.data()[usize::from(layers.l4)..];
    if layers.protocol == protocol::UDP && segment[6..8] == [0, 0] {
        return None;
    }
    let mut bytes = Vec::new();
    if layers.protocol != protocol::ICMP {
        for address in [packet.ip_src(), packet.ip_dst()] {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        bytes.extend((segment.len() as u32 + u32::from(layers.protocol)).to_be_bytes());
    }
    bytes.extend(segment);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let mut sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // The two zeros of ones' complement are one number; the positive one is the sum of zeros only.
    Some(if sum == 0 { 0xffff } else { sum as u16 })
}
