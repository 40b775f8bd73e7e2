//! Neighbour solicitations and advertisements (RFC 4861, sections 4.3 and 4.4).

use core::net::{IpAddr, Ipv6Addr};

use chainplane_dataplane::packet::{Mac, Packet, Pseudo, ethertype, protocol, pseudo_header};

use super::arp::is_unicast;

/// A frame with a message and one link-layer address option.
pub const FRAME_LEN: usize = 14 + 40 + 32;
/// All nodes on a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;
const FROM_ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has `target`?
    Solicitation {
        target: Ipv6Addr,
        /// The asker's link-layer address.
        mac: Option<Mac>,
    },
    /// `target` is here.
    Advertisement {
        target: Ipv6Addr,
        mac: Option<Mac>,
        solicited: bool,
        overriding: bool,
    },
}

/// Whether it is a solicitation or an advertisement, not router discovery.
pub fn is_neighbour_discovery(kind: u8) -> bool {
    matches!(kind, SOLICITATION | ADVERTISEMENT)
}

/// The group that everyone with this address listens to (RFC 4291, section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let octets = address.octets();
    let low = u16::from_be_bytes([octets[14], octets[15]]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(octets[13]), low)
}

/// Reads and validates the message of a packet (RFC 4861, sections 7.1.1 and 7.1.2); `None` if it is to be ignored.
pub fn parse(packet: &Packet) -> Option<Message> {
    let layers = packet.layers();
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.ip_src(), packet.ip_dst()) else {
        return None;
    };
    // A hop limit below 255 came from beyond the link. RFC 6980 forbids fragments.
    if packet.ttl() != 255 || layers.has_options() || layers.is_fragment() {
        return None;
    }
    let message = packet.data().get(layers.l4 as usize..)?;
    if message.len() < 24 || message[1] != 0 || !checksum_holds(packet, src, dst, message) {
        return None;
    }
    let target: [u8; 16] = message[8..24].try_into().ok()?;
    let target = Ipv6Addr::from(target);
    if target.is_multicast() {
        return None;
    }
    let solicitation = message[0] == SOLICITATION;
    let wanted = if solicitation {
        SOURCE_OPTION
    } else {
        TARGET_OPTION
    };
    let mac = option(&message[24..], wanted)?;
    if mac.is_some_and(|mac| !is_unicast(mac)) {
        return None;
    }
    let (solicited, overriding) = (message[4] & SOLICITED != 0, message[4] & OVERRIDE != 0);
    match message[0] {
        SOLICITATION if src.is_unspecified() => {
            let valid = mac.is_none() && dst == solicited_node(target);
            valid.then_some(Message::Solicitation { target, mac })
        }
        SOLICITATION => Some(Message::Solicitation { target, mac }),
        ADVERTISEMENT if dst.is_multicast() && solicited => None,
        ADVERTISEMENT => Some(Message::Advertisement {
            target,
            mac,
            solicited,
            overriding,
        }),
        _ => None,
    }
}

fn checksum_holds(packet: &Packet, src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> bool {
    // A guest that leaves the checksum to be completed has it on the same host: nothing was lost on the way.
    let offload = packet.offload();
    if offload.needs_checksum || offload.checksum_valid {
        return true;
    }
    let pseudo = pseudo_header(Pseudo::V6(src, dst), protocol::ICMPV6, message.len());
    pseudo.plus_bytes(message).finish() == 0
}

/// The link-layer address in the first option of type `wanted`; `None` if the options are malformed.
#[allow(
    clippy::option_option,
    reason = "absent and malformed are two things, for this one caller"
)]
fn option(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        let [kind, units, ..] = *options else {
            return None;
        };
        let len = units as usize * 8;
        if len == 0 || len > options.len() {
            return None;
        }
        if kind == wanted && found.is_none() {
            found = Some(Mac(options[2..8].try_into().ok()?));
        }
        options = &options[len..];
    }
    Some(found)
}

/// The frame of a solicitation for `target`, to its group or, where its link-layer address is known, to itself.
pub fn solicitation(
    from: (Mac, Ipv6Addr),
    target: Ipv6Addr,
    known: Option<Mac>,
) -> [u8; FRAME_LEN] {
    let group = solicited_node(target);
    let to = known.map_or((Mac::of_ipv6_multicast(group), group), |mac| (mac, target));
    frame(from, to, [SOLICITATION, 0], target, SOURCE_OPTION)
}

/// The frame of an advertisement of `target`, one of the router's own addresses, at `from`. `solicited` says that
/// it answers `to`.
pub fn advertisement(
    from: Mac,
    to: (Mac, Ipv6Addr),
    target: Ipv6Addr,
    solicited: bool,
) -> [u8; FRAME_LEN] {
    let flags = FROM_ROUTER | OVERRIDE | if solicited { SOLICITED } else { 0 };
    frame(
        (from, target),
        to,
        [ADVERTISEMENT, flags],
        target,
        TARGET_OPTION,
    )
}

fn frame(
    from: (Mac, Ipv6Addr),
    to: (Mac, Ipv6Addr),
    [kind, flags]: [u8; 2],
    target: Ipv6Addr,
    option: u8,
) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&to.0.0);
    frame[6..12].copy_from_slice(&from.0.0);
    frame[12..14].copy_from_slice(&ethertype::IPV6.to_be_bytes());
    frame[14] = 0x60;
    frame[19] = 32;
    frame[20] = protocol::ICMPV6;
    frame[21] = 255;
    frame[22..38].copy_from_slice(&from.1.octets());
    frame[38..54].copy_from_slice(&to.1.octets());
    frame[54] = kind;
    frame[58] = flags;
    frame[62..78].copy_from_slice(&target.octets());
    frame[78..80].copy_from_slice(&[option, 1]);
    frame[80..].copy_from_slice(&from.0.0);
    let sum = pseudo_header(Pseudo::V6(from.1, to.1), protocol::ICMPV6, 32)
        .plus_bytes(&frame[54..])
        .finish();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}
