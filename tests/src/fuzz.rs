//! What the fuzz targets do with their input. The targets in `fuzz/` call these, and so does the test that
//! replays the corpora; a finding is a panic.

use std::net::IpAddr;

use chainplane_dataplane::flow::key_of;
use chainplane_dataplane::packet::{HugePages, Packet, Pool, PoolConfig, parse, protocol};

/// Takes `bytes` as a frame. One that is accepted must bear all that functions do to it, and be as sound
/// afterwards as before.
pub fn parser(bytes: &[u8]) {
    thread_local! {
        static POOL: std::cell::RefCell<Pool> = std::cell::RefCell::new(
            Pool::new(PoolConfig { small: 1, large: 1, huge_pages: HugePages::Never })
                .expect("ordinary memory for two packets"),
        );
    }
    POOL.with_borrow_mut(|pool| {
        if let Some(mut packet) = pool.copy_of(bytes)
            && parse(&mut packet).is_ok()
        {
            accepted(&mut packet);
        }
    });
}

/// Takes `bytes` as a configuration file, reads and checks it, and renders what is wrong with it.
pub fn yaml(bytes: &[u8]) {
    chainplane::spec::fuzz_yaml(bytes);
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
