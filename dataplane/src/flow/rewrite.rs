//! What a path does to a packet's headers, as data, and doing it.
//!
//! There are two forms. The packet of nearly every flow (IPv4 without options, TCP or UDP) is rewritten where its fields
//! are known to be, all of them, changed or not: what a path left alone is written as it was. The general form finds the
//! fields by the packet's layers. Both give the same packet.

use super::key::{FlowKey, words};
use super::record::{Record, Wide};
use super::recorder::Recorder;
use super::template::Work;
use crate::packet::{Packet, Sum, protocol};

/// New addresses and ports, with what the checksums change by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rewrite {
    pub src: [u64; 2],
    pub dst: [u64; 2],
    pub ports: u32,
    pub addresses: u16,
    pub transport: u16,
    pub port_change: u16,
    pub ip: u16,
}

impl Rewrite {
    /// What became of addresses, ports and TTL: the packet as it left, against the key it came with.
    pub fn of(recorder: &Recorder, key: &FlowKey, packet: &Packet) -> Self {
        let (src, dst) = (words(packet.ip_src()), words(packet.ip_dst()));
        let (from, to) = packet.ports().unwrap_or_default();
        let ports = u32::from(from) << 16 | u32::from(to);
        let mut addresses = Sum::default();
        if (src, dst) != (key.src, key.dst) {
            addresses = minus(minus(addresses, &key.src), &key.dst);
            addresses = plus(plus(addresses, &src), &dst);
        }
        let mut change = Sum::default();
        if ports != key.ports {
            change = port_change(packet, key.ports, ports);
        }
        let transport = addresses.plus(change.folded());
        let mut ip = Sum::default().plus(addresses.folded());
        if recorder.ttl != 0 {
            ip = ip.minus(u16::from(recorder.ttl) << 8);
        }
        Self {
            src,
            dst,
            ports,
            addresses: addresses.folded(),
            transport: transport.folded(),
            port_change: change.folded(),
            ip: ip.folded(),
        }
    }
}

fn plus(sum: Sum, words: &[u64; 2]) -> Sum {
    sum.plus_bytes(&words[0].to_be_bytes())
        .plus_bytes(&words[1].to_be_bytes())
}

fn minus(sum: Sum, words: &[u64; 2]) -> Sum {
    sum.minus_bytes(&words[0].to_be_bytes())
        .minus_bytes(&words[1].to_be_bytes())
}

/// An echo has one identifier, which the key holds twice.
fn port_change(packet: &Packet, old: u32, new: u32) -> Sum {
    let change = Sum::default().minus(old as u16).plus(new as u16);
    if packet.is_echo() {
        change
    } else {
        change.minus((old >> 16) as u16).plus((new >> 16) as u16)
    }
}

/// Whether a packet of the record's flow meets its guards; if so, it is rewritten.
#[inline]
pub(super) fn apply(packet: &mut Packet, work: &Work, record: &Record, wide: &Wide) -> bool {
    if work.guarded != 0 && !guarded_mac_is_right(packet, work) {
        return false;
    }
    let l3_len = packet.len() - usize::from(packet.layers().l3).min(packet.len());
    // A piece is never longer than what it is cut from.
    if l3_len > work.wire_len as usize && packet.wire_len() > work.wire_len as usize {
        return false;
    }
    match record.key.transport_over_ipv4() {
        Some(transport) => plain(packet, transport, work, record),
        None => general(packet, work, record, wide),
    }
}

#[inline]
fn guarded_mac_is_right(packet: &Packet, work: &Work) -> bool {
    let first = packet
        .head()
        .first_chunk()
        .map(|bytes| u64::from_ne_bytes(*bytes));
    first.is_some_and(|first| (first ^ work.guard) & work.guarded == 0)
}

#[inline]
fn rewrite_macs(packet: &mut Packet, work: &Work) {
    let Some(macs) = packet.head_mut().first_chunk_mut::<12>() else {
        return;
    };
    let mut words: [u32; 3] = zerocopy::transmute!(*macs);
    for (word, (kept, new)) in words.iter_mut().zip(work.kept.iter().zip(&work.macs)) {
        *word = *word & kept | new;
    }
    *macs = zerocopy::transmute!(words);
}

/// A checksum field after what it covers has changed (RFC 1624, equation 3); both are folded sums.
#[inline]
fn changed(field: u16, by: u16) -> u16 {
    let sum = u32::from(!field) + u32::from(by);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// TCP or UDP over an IPv4 header without options.
#[inline]
fn plain(packet: &mut Packet, transport: u8, work: &Work, record: &Record) -> bool {
    /// The IPv4 header and the ports.
    const BYTES: usize = 24;
    let l3 = usize::from(packet.layers().l3);
    let partial = packet.has_partial_checksum();
    let Some(header) = packet
        .head_mut()
        .get_mut(l3..)
        .and_then(<[u8]>::first_chunk_mut::<BYTES>)
    else {
        return false;
    };
    if work.ttl != 0 && header[8] <= work.ttl {
        return false;
    }
    header[8] = header[8].wrapping_sub(work.ttl);
    let checksum = u16::from_be_bytes([header[10], header[11]]);
    [header[10], header[11]] = changed(checksum, record.ip).to_be_bytes();
    header[12..16].copy_from_slice(&record.new_src);
    header[16..20].copy_from_slice(&record.new_dst);
    header[20..24].copy_from_slice(&record.new_ports);
    let udp = transport == protocol::UDP;
    let at = l3 + 20 + if udp { 6 } else { 16 };
    if let Some([high, low]) = packet.head_mut().get_mut(at..at + 2) {
        let field = u16::from_be_bytes([*high, *low]);
        [*high, *low] = transport_checksum(field, udp, partial, record).to_be_bytes();
    }
    rewrite_macs(packet, work);
    true
}

#[inline]
fn transport_checksum(field: u16, udp: bool, partial: bool, record: &Record) -> u16 {
    if partial {
        // The sum of the pseudo-header, not complemented.
        return !changed(!field, record.addresses);
    }
    if udp && field == 0 {
        return 0;
    }
    match changed(field, record.transport) {
        0 if udp => 0xffff,
        new => new,
    }
}

pub(super) fn general(packet: &mut Packet, work: &Work, record: &Record, wide: &Wide) -> bool {
    if work.ttl != 0 && packet.ttl() <= work.ttl {
        return false;
    }
    rewrite_macs(packet, work);
    let ipv6 = record.key.is_ipv6();
    let l3 = usize::from(packet.layers().l3);
    if ipv6 {
        write(packet, l3 + 8, &zerocopy::transmute!(wide.new) as &[u8; 32]);
    } else {
        write(packet, l3 + 12, &record.new_src);
        write(packet, l3 + 16, &record.new_dst);
    }
    let l4 = usize::from(packet.layers().l4);
    if packet.is_echo() {
        let [.., high, low] = record.new_ports;
        write(packet, l4 + 4, &[high, low]);
    } else {
        write(packet, l4, &record.new_ports);
    }
    let at = l3 + if ipv6 { 7 } else { 8 };
    if let Some(ttl) = packet.head_mut().get_mut(at) {
        *ttl = ttl.wrapping_sub(work.ttl);
    }
    if !ipv6 && record.ip != 0 {
        packet.adjust_ip_checksum(Sum::default().plus(record.ip));
    }
    if record.addresses != 0 || record.ports != 0 {
        adjust_transport(packet, record);
    }
    true
}

/// Checksums of ICMP cover no addresses, and those left to be completed no ports yet.
fn adjust_transport(packet: &mut Packet, record: &Record) {
    packet.adjust_transport_checksum(
        Sum::default().plus(record.addresses),
        Sum::default().plus(record.ports),
    );
}

#[inline]
fn write<const N: usize>(packet: &mut Packet, at: usize, bytes: &[u8; N]) {
    if let Some(field) = packet.head_mut().get_mut(at..at + N) {
        field.copy_from_slice(bytes);
    }
}
