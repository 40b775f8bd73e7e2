//! The packet that an ICMP error quotes (RFC 792; RFC 4443, section 2.4): found, and rewritten as the one that it
//! speaks of was.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chainplane_dataplane::packet::{Packet, Sum, protocol};

/// What an error says of the packet that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its source.
    pub src: (IpAddr, u16),
    /// Its destination.
    pub dst: (IpAddr, u16),
    /// TCP or UDP.
    pub protocol: u8,
    /// Where it starts.
    l3: usize,
    /// Where its transport header starts.
    l4: usize,
}

/// Which end of the quoted packet to rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it came from.
    Src,
    /// Where it was going.
    Dst,
}

/// Whether this is an ICMP error, which quotes a packet.
pub fn is_error(packet: &Packet) -> bool {
    match packet.icmp_type_code() {
        Some((kind, _)) if packet.layers().is_ipv4() => matches!(kind, 3 | 4 | 11 | 12),
        Some((kind, _)) => (1..=4).contains(&kind),
        None => false,
    }
}

/// The TCP or UDP packet that an error quotes; `None` where it quotes something else, or not enough of it.
pub fn quoted(packet: &Packet) -> Option<Quote> {
    let l3 = packet.layers().l4 as usize + 8;
    let data = packet.data();
    let (header_len, protocol) = if packet.layers().is_ipv4() {
        ipv4(data.get(l3..)?)?
    } else {
        ipv6(data.get(l3..)?)?
    };
    let l4 = l3 + header_len;
    let ports = data.get(l4..l4 + 4)?;
    if !matches!(protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let (src, dst) = addresses(data, l3, packet.layers().is_ipv4())?;
    Some(Quote {
        src: (src, u16::from_be_bytes([ports[0], ports[1]])),
        dst: (dst, u16::from_be_bytes([ports[2], ports[3]])),
        protocol,
        l3,
        l4,
    })
}

/// The length of the quoted header, and the protocol behind it.
fn ipv4(data: &[u8]) -> Option<(usize, u8)> {
    let header = data.get(..20)?;
    let header_len = (header[0] & 0x0f) as usize * 4;
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    (header[0] >> 4 == 4 && header_len >= 20 && !later_fragment).then_some((header_len, header[9]))
}

fn ipv6(data: &[u8]) -> Option<(usize, u8)> {
    let header = data.get(..40)?;
    (header[0] >> 4 == 6).then_some((40, header[6]))
}

fn addresses(data: &[u8], l3: usize, is_ipv4: bool) -> Option<(IpAddr, IpAddr)> {
    if is_ipv4 {
        let at = |at: usize| <[u8; 4]>::try_from(data.get(at..at + 4)?).ok();
        let (src, dst) = (at(l3 + 12)?, at(l3 + 16)?);
        Some((Ipv4Addr::from(src).into(), Ipv4Addr::from(dst).into()))
    } else {
        let at = |at: usize| <[u8; 16]>::try_from(data.get(at..at + 16)?).ok();
        let (src, dst) = (at(l3 + 8)?, at(l3 + 24)?);
        Some((Ipv6Addr::from(src).into(), Ipv6Addr::from(dst).into()))
    }
}

/// Puts another address and port into the quoted packet, and keeps right its checksums and the error's own.
pub fn rewrite(packet: &mut Packet, quote: &Quote, end: End, to: (IpAddr, u16)) {
    let (l4, len) = (packet.layers().l4 as usize, packet.len());
    let is_ipv4 = packet.layers().is_ipv4();
    // What changes lies in the quoted headers; even offsets from the message's start, so that words stay words.
    let region = quote.l3..len.min(quote.l4 + 20);
    let before = Sum::default().plus_bytes(&packet.data()[region.clone()]);
    let data = packet.data_mut();
    let change = write_end(data, quote, end, to);
    if is_ipv4 {
        let ip_change = change.addresses;
        adjust(data, quote.l3 + 10, ip_change);
    }
    let sum_at = match quote.protocol {
        protocol::TCP => quote.l4 + 16,
        _ => quote.l4 + 6,
    };
    let udp_without =
        quote.protocol == protocol::UDP && data.get(sum_at..sum_at + 2) == Some(&[0, 0]);
    if !udp_without {
        adjust(data, sum_at, change.addresses.plus(change.port.folded()));
    }
    let after = Sum::default().plus_bytes(&packet.data()[region]);
    if !packet.has_partial_checksum() {
        let change = after.minus(before.folded());
        adjust(packet.data_mut(), l4 + 2, change);
    }
}

struct Change {
    addresses: Sum,
    port: Sum,
}

fn write_end(data: &mut [u8], quote: &Quote, end: End, (address, port): (IpAddr, u16)) -> Change {
    let (old, port_at) = match end {
        End::Src => (quote.src, quote.l4),
        End::Dst => (quote.dst, quote.l4 + 2),
    };
    let addresses = match (old.0, address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let at = quote.l3 + if end == End::Src { 12 } else { 16 };
            write(data, at, &to.octets());
            Sum::default()
                .minus_bytes(&from.octets())
                .plus_bytes(&to.octets())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let at = quote.l3 + if end == End::Src { 8 } else { 24 };
            write(data, at, &to.octets());
            Sum::default()
                .minus_bytes(&from.octets())
                .plus_bytes(&to.octets())
        }
        _ => Sum::default(),
    };
    write(data, port_at, &port.to_be_bytes());
    Change {
        addresses,
        port: Sum::default().minus(old.1).plus(port),
    }
}

fn write(data: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = data.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Adjusts a checksum field, if the packet reaches that far.
fn adjust(data: &mut [u8], at: usize, change: Sum) {
    if let Some(field) = data.get_mut(at..at + 2) {
        let new = change.apply(u16::from_be_bytes([field[0], field[1]]));
        field.copy_from_slice(&new.to_be_bytes());
    }
}
