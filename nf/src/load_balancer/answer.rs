//! Answers in the virtual address's name: ARP (RFC 826), neighbour discovery (RFC 4861) and ping. A question is turned
//! into its answer in place.

use core::net::{IpAddr, Ipv6Addr};

use chainplane_dataplane::packet::{
    Mac, Packet, Pseudo, Sum, checksum, ethertype, parse, protocol, pseudo_header,
};

/// TTL and hop limit of what is sent in the virtual address's name.
const TTL: u8 = 64;
/// Length of an ARP message for Ethernet and IPv4.
const ARP_LEN: usize = 28;
/// Length of a neighbour advertisement with the target's link-layer address.
const ADVERTISEMENT_LEN: usize = 32;

fn write(packet: &mut Packet, at: usize, bytes: &[u8]) {
    if let Some(place) = packet.data_mut().get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn turn_frame(packet: &mut Packet, mac: Mac) {
    let to = packet.mac_src();
    write(packet, 0, &to.0);
    write(packet, 6, &mac.0);
}

/// Turns an ARP request for `address` into the answer that it is at `mac`; false, and the packet unchanged, if it is
/// something else.
pub fn arp(packet: &mut Packet, address: IpAddr, mac: Mac) -> bool {
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let IpAddr::V4(address) = address else {
        return false;
    };
    if packet.layers().ethertype != ethertype::ARP {
        return false;
    }
    let at = packet.layers().l3 as usize;
    let Some(message) = packet.data().get(at..at + ARP_LEN) else {
        return false;
    };
    let wanted = message[24..28] == address.octets();
    // A sender who claims the address for itself is no question.
    if message[..8] != REQUEST || !wanted || message[14..18] == address.octets() {
        return false;
    }
    if packet.mac_src().is_multicast() {
        return false;
    }
    let mut asker = [0; 10];
    asker.copy_from_slice(&message[8..18]);
    turn_frame(packet, mac);
    write(packet, at + 6, &[0, 2]);
    write(packet, at + 8, &mac.0);
    write(packet, at + 14, &address.octets());
    write(packet, at + 18, &asker);
    *packet.offload_mut() = chainplane_dataplane::packet::Offload::default();
    true
}

/// Turns a neighbour solicitation for `address` into the advertisement that it is at `mac`; false, and the packet
/// unchanged, if it is something else or not valid (RFC 4861, section 7.1.1).
pub fn solicitation(packet: &mut Packet, address: IpAddr, mac: Mac) -> bool {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let (IpAddr::V6(target), IpAddr::V6(from)) = (address, packet.ip_src()) else {
        return false;
    };
    let layers = *packet.layers();
    let l4 = layers.l4 as usize;
    if packet.icmp_type_code() != Some((135, 0)) || layers.has_options() || layers.is_fragment() {
        return false;
    }
    let asked = packet.data().get(l4 + 8..l4 + 24) == Some(&target.octets());
    if !asked || packet.ttl() != 255 || from == target || packet.mac_src().is_multicast() {
        return false;
    }
    if !packet.has_partial_checksum() && icmpv6_sum(packet) != 0 {
        return false;
    }
    // An asker without an address is testing whether this one is free: everybody is told (section 7.2.4).
    let (to, flags) = if from.is_unspecified() {
        (ALL_NODES, 0x20)
    } else {
        (from, 0x60)
    };
    if !resize(packet, l4 + ADVERTISEMENT_LEN) {
        return false;
    }
    turn_frame(packet, mac);
    if from.is_unspecified() {
        write(packet, 0, &Mac::of_ipv6_multicast(to).0);
    }
    let l3 = layers.l3 as usize;
    write(packet, l3 + 4, &(ADVERTISEMENT_LEN as u16).to_be_bytes());
    write(packet, l3 + 8, &target.octets());
    write(packet, l3 + 24, &to.octets());
    write(packet, l4, &[136, 0, 0, 0, flags, 0, 0, 0]);
    write(packet, l4 + 8, &target.octets());
    write(packet, l4 + 24, &[2, 1]);
    write(packet, l4 + 26, &mac.0);
    let sum = icmpv6_sum(packet);
    write(packet, l4 + 2, &sum.to_be_bytes());
    *packet.offload_mut() = chainplane_dataplane::packet::Offload::default();
    parse(packet).is_ok()
}

/// The checksum over the message as it is: 0 if its own is right.
fn icmpv6_sum(packet: &Packet) -> u16 {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.ip_src(), packet.ip_dst()) else {
        return 0;
    };
    let message = packet
        .data()
        .get(packet.layers().l4 as usize..)
        .unwrap_or_default();
    pseudo_header(Pseudo::V6(src, dst), protocol::ICMPV6, message.len())
        .plus_bytes(message)
        .finish()
}

fn resize(packet: &mut Packet, len: usize) -> bool {
    packet.truncate(len);
    let missing = len - packet.len();
    match packet.extend(missing) {
        Some(fresh) => {
            fresh.fill(0);
            true
        }
        None => false,
    }
}

/// Turns a ping to the virtual address into its answer; false, and the packet unchanged, if it is something else or
/// comes from where no answer may go.
pub fn echo(packet: &mut Packet) -> bool {
    let request = match packet.icmp_type_code() {
        Some((8, 0)) => packet.layers().is_ipv4(),
        Some((128, 0)) => packet.layers().is_ipv6(),
        _ => false,
    };
    let (from, to) = (packet.ip_src(), packet.ip_dst());
    let answerable = !from.is_multicast() && !from.is_unspecified() && from != to;
    if !request || !answerable || packet.layers().has_options() {
        return false;
    }
    let mac = packet.mac_dst();
    turn_frame(packet, mac);
    packet.set_ip_src(to);
    packet.set_ip_dst(from);
    set_ttl(packet);
    set_echo_reply(packet);
    true
}

fn set_ttl(packet: &mut Packet) {
    let l3 = packet.layers().l3 as usize;
    if packet.layers().is_ipv6() {
        write(packet, l3 + 7, &[TTL]);
        return;
    }
    write(packet, l3 + 8, &[TTL]);
    write(packet, l3 + 10, &[0, 0]);
    let sum = checksum(packet.data().get(l3..l3 + 20).unwrap_or_default());
    write(packet, l3 + 10, &sum.to_be_bytes());
}

fn set_echo_reply(packet: &mut Packet) {
    let l4 = packet.layers().l4 as usize;
    let (old, new) = if packet.layers().is_ipv4() {
        (8u8, 0u8)
    } else {
        (128, 129)
    };
    write(packet, l4, &[new]);
    if packet.has_partial_checksum() {
        return;
    }
    let field = packet
        .data()
        .get(l4 + 2..l4 + 4)
        .map_or(0, |field| u16::from_be_bytes([field[0], field[1]]));
    let change = Sum::default()
        .minus(u16::from_be_bytes([old, 0]))
        .plus(u16::from_be_bytes([new, 0]));
    write(packet, l4 + 2, &change.apply(field).to_be_bytes());
}
