//! What a path does to a packet's headers, as data, and doing it.
//!
//! There are two forms. The packet of nearly every flow (IPv4 without options, TCP or UDP, no VLAN) is rewritten where its fields
//! are known to be, all of them, changed or not: what a path left alone is written as it was. The general form finds the
//! fields by the packet's layers. Both give the same packet.

use super::key::{FlowKey, words};
use super::record::{Record, Wide};
use super::recorder::Recorder;
use super::template::Work;
use crate::packet::{Packet, Sum, protocol};

/// Both MAC addresses of a frame.
const MACS: usize = 12;

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
#[inline(always)]
pub(super) fn apply(packet: &mut Packet, work: &Work, record: &Record, wide: &Wide) -> bool {
    let l3 = packet.layers().l3;
    // A piece is never longer than what it is cut from.
    let fits =
        packet.len() <= work.wire_len as usize || packet.wire_len() <= work.wire_len as usize;
    if let (14, true, Some(transport)) = (l3, fits, record.key.transport_over_ipv4()) {
        plain(packet, transport, work, record)
    } else {
        fits && general(packet, work, record, wide)
    }
}

/// Rewrites a frame's MAC addresses, if the first of them is as it must be.
#[inline(always)]
fn rewrite_macs(frame: &mut [u8; MACS], work: &Work) -> bool {
    let [low @ .., h0, h1, h2, h3] = *frame;
    let (low, high) = (
        u64::from_ne_bytes(low),
        u32::from_ne_bytes([h0, h1, h2, h3]),
    );
    if (low ^ work.guard) & work.guarded != 0 {
        return false;
    }
    let ((kept_low, kept_high), (new_low, new_high)) = (work.kept.words(), work.macs.words());
    frame[..8].copy_from_slice(&(low & kept_low | new_low).to_ne_bytes());
    frame[8..].copy_from_slice(&(high & kept_high | new_high).to_ne_bytes());
    true
}

/// A checksum field after what it covers has changed (RFC 1624, equation 3); both are folded sums.
#[inline(always)]
fn changed(field: u16, by: u16) -> u16 {
    let sum = u32::from(!field) + u32::from(by);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// TCP or UDP over an IPv4 header without options, in a frame without a tag.
#[inline(always)]
fn plain(packet: &mut Packet, transport: u8, work: &Work, record: &Record) -> bool {
    /// All headers up to UDP's.
    const BYTES: usize = 42;
    const TTL: usize = 22;
    const TCP_CHECKSUM: usize = 50;
    let partial = packet.has_partial_checksum();
    let Some((frame, rest)) = packet.head_mut().split_first_chunk_mut::<BYTES>() else {
        return false;
    };
    if work.ttl != 0 && frame[TTL] <= work.ttl {
        return false;
    }
    let Some(macs) = frame.first_chunk_mut::<MACS>() else {
        return false;
    };
    if !rewrite_macs(macs, work) {
        return false;
    }
    frame[TTL] = frame[TTL].wrapping_sub(work.ttl);
    let checksum = u16::from_be_bytes([frame[24], frame[25]]);
    [frame[24], frame[25]] = changed(checksum, record.ip).to_be_bytes();
    frame[26..30].copy_from_slice(&record.new_src);
    frame[30..34].copy_from_slice(&record.new_dst);
    frame[34..38].copy_from_slice(&record.new_ports);
    if transport == protocol::UDP {
        let field = u16::from_be_bytes([frame[40], frame[41]]);
        [frame[40], frame[41]] = transport_checksum(field, true, partial, record).to_be_bytes();
    } else if let Some([high, low]) = rest.get_mut(TCP_CHECKSUM - BYTES..TCP_CHECKSUM - BYTES + 2) {
        let field = u16::from_be_bytes([*high, *low]);
        [*high, *low] = transport_checksum(field, false, partial, record).to_be_bytes();
    }
    true
}

#[inline(always)]
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

#[inline(never)]
pub(super) fn general(packet: &mut Packet, work: &Work, record: &Record, wide: &Wide) -> bool {
    if work.ttl != 0 && packet.ttl() <= work.ttl {
        return false;
    }
    let macs = packet.head_mut().first_chunk_mut();
    if !macs.is_some_and(|macs| rewrite_macs(macs, work)) {
        return false;
    }
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
