//! One pass over a packet's headers: where each begins, and whether their lengths and the IPv4 checksum hold.
//!
//! Everything after the parse relies on it: a field inside a parsed header may be read without looking at the
//! packet's length again. A packet that lies about its lengths is refused here and never reaches a function.

mod common;

use super::checksum::checksum;
use super::{Gso, Packet, ethertype, protocol};

pub(crate) use common::{Common, common, plain_ipv4};

/// What a packet was found to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerFlags(u8);

impl LayerFlags {
    const IPV4: u8 = 1;
    const IPV6: u8 = 2;
    const FRAGMENT: u8 = 4;
    const LATER_FRAGMENT: u8 = 8;
    const OPTIONS: u8 = 16;
    const TRANSPORT: u8 = 32;

    const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// Where a packet's headers are. Offsets count from the start of the frame; one that does not apply is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// The network header, behind the link header and its VLAN tags.
    pub l3: u16,
    /// The transport header; 0 where there is none that is understood (a later fragment, another protocol).
    pub l4: u16,
    /// What follows the transport header.
    pub payload: u16,
    /// The type behind the VLAN tags.
    pub ethertype: u16,
    /// The outermost VLAN identifier; 0 without a tag.
    pub vlan: u16,
    /// The IP protocol, behind IPv6 extension headers.
    pub protocol: u8,
    /// What it is.
    pub flags: LayerFlags,
}

impl Layers {
    /// Whether it is IPv4.
    #[inline]
    pub fn is_ipv4(&self) -> bool {
        self.flags.has(LayerFlags::IPV4)
    }

    /// Whether it is IPv6.
    #[inline]
    pub fn is_ipv6(&self) -> bool {
        self.flags.has(LayerFlags::IPV6)
    }

    /// Whether it is one fragment of a datagram, the first or a later one.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags.has(LayerFlags::FRAGMENT)
    }

    /// Whether it is a fragment other than the first, which has no transport header.
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        self.flags.has(LayerFlags::LATER_FRAGMENT)
    }

    /// Whether it has IPv4 options or IPv6 extension headers.
    #[inline]
    pub fn has_options(&self) -> bool {
        self.flags.has(LayerFlags::OPTIONS)
    }

    /// Whether a complete TCP, UDP, ICMP or `ICMPv6` header is at [`Layers::l4`].
    #[inline]
    pub fn has_transport(&self) -> bool {
        self.flags.has(LayerFlags::TRANSPORT)
    }
}

/// Why a packet is refused before any function sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Malformed {
    /// Shorter than its link header.
    Link,
    /// An IPv4 or IPv6 header with a wrong version, or that is cut short.
    IpHeader,
    /// An IP length beyond the end of the frame, or shorter than its headers.
    IpLength,
    /// A wrong IPv4 header checksum.
    IpChecksum,
    /// IPv6 extension headers that are cut short, or more of them than anyone needs.
    Extensions,
    /// A transport header that is cut short or whose length disagrees with the packet's.
    Transport,
}

/// Extension headers walked before a packet is refused (RFC 8200, section 4.1 names six, some twice).
const MAX_EXTENSIONS: usize = 8;

/// Finds the headers, checks them, and notes the result in the packet's [`Layers`]. Bytes behind the IP packet's
/// end (Ethernet padding) are cut off.
///
/// # Errors
/// What is wrong with the packet. A protocol that is not understood is no error.
#[inline]
pub fn parse(packet: &mut Packet) -> Result<(), Malformed> {
    match common(packet.head(), packet.len()) {
        Some(found) => {
            found.note(packet);
            Ok(())
        }
        None => parse_in_full(packet),
    }
}

/// The same, header by header, whatever kind of packet it is.
///
/// # Errors
/// Those of [`parse`].
#[inline(never)]
pub(crate) fn parse_in_full(packet: &mut Packet) -> Result<(), Malformed> {
    let mut layers = Layers::default();
    let end = link(packet.head(), &mut layers)
        .and_then(|()| network(packet.head(), packet.len(), &mut layers))
        .and_then(|end| transport(packet, end, &mut layers).map(|()| end))?;
    packet.truncate(end);
    *packet.layers_mut() = layers;
    Ok(())
}

#[inline]
fn word(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at + 2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

#[inline]
fn link(data: &[u8], layers: &mut Layers) -> Result<(), Malformed> {
    layers.ethertype = word(data, 12).ok_or(Malformed::Link)?;
    layers.l3 = 14;
    let mut tags = 0;
    while matches!(layers.ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN) && tags < 2 {
        let l3 = layers.l3 as usize;
        if tags == 0 {
            layers.vlan = word(data, l3).ok_or(Malformed::Link)? & 0x0fff;
        }
        layers.ethertype = word(data, l3 + 2).ok_or(Malformed::Link)?;
        layers.l3 += 4;
        tags += 1;
    }
    Ok(())
}

/// Returns where the IP packet ends; for anything else, where the frame does, of which `data` is the beginning: all of it,
/// or all of its headers.
#[inline]
fn network(data: &[u8], frame: usize, layers: &mut Layers) -> Result<usize, Malformed> {
    match layers.ethertype {
        ethertype::IPV4 => ipv4(data, frame, layers),
        ethertype::IPV6 => ipv6(data, frame, layers),
        _ => Ok(frame),
    }
}

#[inline]
fn ipv4(data: &[u8], frame: usize, layers: &mut Layers) -> Result<usize, Malformed> {
    let l3 = layers.l3 as usize;
    let header = data.get(l3..l3 + 20).ok_or(Malformed::IpHeader)?;
    let header_len = (header[0] & 0x0f) as usize * 4;
    if header[0] >> 4 != 4 || header_len < 20 {
        return Err(Malformed::IpHeader);
    }
    let total = u16::from_be_bytes([header[2], header[3]]) as usize;
    if total < header_len || l3 + total > frame {
        return Err(Malformed::IpLength);
    }
    let header = data.get(l3..l3 + header_len).ok_or(Malformed::IpHeader)?;
    if checksum(header) != 0 {
        return Err(Malformed::IpChecksum);
    }
    layers.flags.0 |= LayerFlags::IPV4;
    if header_len > 20 {
        layers.flags.0 |= LayerFlags::OPTIONS;
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    note_fragment(layers, fragment != 0, fragment & 0x1fff != 0);
    layers.protocol = header[9];
    layers.l4 = (l3 + header_len) as u16;
    Ok(l3 + total)
}

#[inline]
fn ipv6(data: &[u8], frame: usize, layers: &mut Layers) -> Result<usize, Malformed> {
    let l3 = layers.l3 as usize;
    let header = data.get(l3..l3 + 40).ok_or(Malformed::IpHeader)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::IpHeader);
    }
    let end = l3 + 40 + u16::from_be_bytes([header[4], header[5]]) as usize;
    if end > frame || end > u16::MAX as usize {
        return Err(Malformed::IpLength);
    }
    layers.flags.0 |= LayerFlags::IPV6;
    layers.protocol = header[6];
    let mut at = l3 + 40;
    for _ in 0..MAX_EXTENSIONS {
        let Some(len) = extension(&data[..end.min(data.len())], at, layers)? else {
            layers.l4 = at as u16;
            return Ok(end);
        };
        layers.flags.0 |= LayerFlags::OPTIONS;
        layers.protocol = data[at];
        at += len;
        if layers.is_later_fragment() {
            layers.l4 = at as u16;
            return Ok(end);
        }
    }
    Err(Malformed::Extensions)
}

/// The length of the extension header at `at`, whose type is the protocol found so far; `None` if it is none.
fn extension(data: &[u8], at: usize, layers: &mut Layers) -> Result<Option<usize>, Malformed> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    if !matches!(
        layers.protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    ) {
        return Ok(None);
    }
    let start = data.get(at..at + 8).ok_or(Malformed::Extensions)?;
    let len = match layers.protocol {
        FRAGMENT => {
            let field = u16::from_be_bytes([start[2], start[3]]);
            note_fragment(layers, field & 0xfff9 != 0, field & 0xfff8 != 0);
            8
        }
        AUTHENTICATION => (start[1] as usize + 2) * 4,
        _ => (start[1] as usize + 1) * 8,
    };
    if at + len > data.len() {
        Err(Malformed::Extensions)
    } else {
        Ok(Some(len))
    }
}

#[inline]
fn note_fragment(layers: &mut Layers, fragment: bool, later: bool) {
    if fragment {
        layers.flags.0 |= LayerFlags::FRAGMENT;
    }
    if later {
        layers.flags.0 |= LayerFlags::LATER_FRAGMENT;
    }
}

#[inline]
fn transport(packet: &Packet, end: usize, layers: &mut Layers) -> Result<(), Malformed> {
    if layers.l4 == 0 || layers.is_later_fragment() {
        layers.l4 = 0;
        return Ok(());
    }
    let l4 = layers.l4 as usize;
    let segment = end.checked_sub(l4).ok_or(Malformed::Transport)?;
    let held = packet.head().len();
    let data = packet.head().get(l4..end.min(held));
    let data = data.ok_or(Malformed::Transport)?;
    let len = match layers.protocol {
        protocol::TCP => tcp_header_len(data)?,
        protocol::UDP => udp_header_len(data, segment, layers, packet.offload().gso)?,
        protocol::ICMP if layers.is_ipv4() => at_least(data, 8)?,
        protocol::ICMPV6 if layers.is_ipv6() => at_least(data, 8)?,
        _ => {
            layers.payload = layers.l4;
            layers.l4 = 0;
            return Ok(());
        }
    };
    layers.payload = (l4 + len) as u16;
    layers.flags.0 |= LayerFlags::TRANSPORT;
    Ok(())
}

#[inline]
fn at_least(data: &[u8], len: usize) -> Result<usize, Malformed> {
    if data.len() < len {
        Err(Malformed::Transport)
    } else {
        Ok(len)
    }
}

#[inline]
fn tcp_header_len(data: &[u8]) -> Result<usize, Malformed> {
    at_least(data, 20)?;
    let len = (data[12] >> 4) as usize * 4;
    if len < 20 {
        Err(Malformed::Transport)
    } else {
        at_least(data, len)
    }
}

/// A whole datagram's length field must fit; that of a first fragment speaks of the whole.
#[inline]
fn udp_header_len(
    data: &[u8],
    segment: usize,
    layers: &Layers,
    gso: Gso,
) -> Result<usize, Malformed> {
    at_least(data, 8)?;
    let len = u16::from_be_bytes([data[4], data[5]]) as usize;
    let lies = len < 8 || (len > segment && !layers.is_fragment());
    if lies && gso != Gso::Udp {
        Err(Malformed::Transport)
    } else {
        Ok(8)
    }
}
