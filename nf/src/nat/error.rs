//! ICMP errors, and the packets they quote (RFC 5508, section 4).

use core::net::IpAddr;

use chainplane_dataplane::function::{Context, Interface, Verdict};
use chainplane_dataplane::packet::{Packet, Sum, checksum, protocol};

use super::process::{Nat, NatCounter, NatDrop, untouched};
use crate::track::{Endpoint, Quote, quote};

/// The longest IPv4 header and as much of TCP's as has its checksum.
const REGION: usize = 60 + 18;

impl Nat {
    /// Translates an ICMP error about a packet of a session, and what it quotes. The session is as old as before
    /// (REQ-6).
    pub(super) fn error(
        &self,
        cx: &mut Context<'_>,
        mut packet: Packet,
        from: Interface,
    ) -> Verdict {
        let concerns = self.concerns(&packet, from);
        let Some(quote) = quote(&packet, from) else {
            return if concerns {
                Verdict::drop(packet, NatDrop::BadQuote)
            } else {
                untouched(cx, packet, from)
            };
        };
        let found = self
            .sessions
            .find(&quote.answer, cx.objects_ref(), cx.now());
        let session = found.and_then(|(id, way)| {
            let keys = self.sessions.keys(id)?;
            Some((
                keys[1 - way as usize],
                self.sessions.get(id)?.macs[way as usize],
            ))
        });
        let Some((other, mac)) = session else {
            return if concerns {
                Verdict::drop(packet, NatDrop::NoMapping)
            } else {
                untouched(cx, packet, from)
            };
        };
        if packet.ip_dst() != quote.answer.dst.address || !checksums_hold(&packet, &quote) {
            return Verdict::drop(packet, NatDrop::BadQuote);
        }
        // The quoted packet went the opposite way: what answers it comes from where it went to.
        requote(&mut packet, &quote, other.src, other.dst);
        packet.set_ip_dst(other.src.address);
        if other.dst.address != quote.answer.src.address {
            // From the host itself, or from a router that no one outside knows (REQ-5).
            packet.set_ip_src(other.dst.address);
        }
        cx.count(NatCounter::IcmpErrors);
        self.leave(cx, packet, [from, other.side], mac)
    }
}

/// The error's own checksum, unless it, or one that it covers, is still to be computed, and that of the quoted IP
/// header (REQ-3).
fn checksums_hold(packet: &Packet, quote: &Quote) -> bool {
    let data = packet.data();
    let (l4, offload) = (packet.layers().l4 as usize, packet.offload());
    let whole = offload.needs_checksum || offload.checksum_valid || checksum(&data[l4..]) == 0;
    whole && checksum(&data[quote.l3..quote.l4]) == 0
}

/// Rewrites the quoted packet's endpoints, the checksums in it, and the error's.
fn requote(packet: &mut Packet, quote: &Quote, src: Endpoint, dst: Endpoint) {
    let (l4, done_later) = (packet.layers().l4 as usize, packet.has_partial_checksum());
    let end = packet.len().min(quote.l3 + REGION);
    let data = packet.data_mut();
    let Some(region) = data.get_mut(quote.l3..end) else {
        return;
    };
    let mut before = [0; REGION];
    before[..region.len()].copy_from_slice(region);
    let header_len = quote.l4 - quote.l3;
    let addresses = set_addresses(region, src.address, dst.address);
    adjust(region, 10, addresses);
    set_ports(&mut region[header_len..], quote, addresses, src, dst);
    if !done_later {
        // The region begins at an even offset; a last odd byte is as it was.
        let change = Sum::default()
            .minus_bytes(&before[..region.len()])
            .plus_bytes(region);
        adjust(data, l4 + 2, change);
    }
}

fn set_addresses(header: &mut [u8], src: IpAddr, dst: IpAddr) -> Sum {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) else {
        return Sum::default();
    };
    let change = Sum::default().minus_bytes(&header[12..20]);
    header[12..16].copy_from_slice(&src.octets());
    header[16..20].copy_from_slice(&dst.octets());
    change.plus_bytes(&header[12..20])
}

/// Writes the ports, or an echo's identifier, and corrects the transport checksum if the quote is long enough to
/// have it.
fn set_ports(transport: &mut [u8], quote: &Quote, addresses: Sum, src: Endpoint, dst: Endpoint) {
    let (at, new, field) = match quote.answer.protocol {
        protocol::ICMP => {
            // The answer to a request is a reply: the side that asked is the quoted packet's source.
            let id = if quote.answer.echo_reply {
                src.port
            } else {
                dst.port
            };
            (4, u32::from(id) << 16, 2)
        }
        protocol => {
            let field = if protocol == protocol::TCP { 16 } else { 6 };
            (0, u32::from(src.port) << 16 | u32::from(dst.port), field)
        }
    };
    let is_icmp = quote.answer.protocol == protocol::ICMP;
    let len = if is_icmp { 2 } else { 4 };
    let change = Sum::default().minus_bytes(&transport[at..at + len]);
    transport[at..at + len].copy_from_slice(&new.to_be_bytes()[..len]);
    let change = change.plus_bytes(&transport[at..at + len]);
    let change = if is_icmp {
        change
    } else {
        change.plus(addresses.folded())
    };
    let is_udp = quote.answer.protocol == protocol::UDP;
    if !(is_udp && transport[6..8] == [0, 0]) {
        adjust(transport, field, change);
        if is_udp && transport[6..8] == [0, 0] {
            transport[6..8].fill(0xff);
        }
    }
}

/// Changes the checksum field at `at`, if it is there.
fn adjust(bytes: &mut [u8], at: usize, change: Sum) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        let new = change.apply(u16::from_be_bytes([field[0], field[1]]));
        field.copy_from_slice(&new.to_be_bytes());
    }
}
