//! Completes what a sender left undone, where the egress can't pass it on: transport checksums and the cutting of
//! large segments.

mod header;
mod segment;

use crate::packet::{Batch, Gso, Packet, Sum, ethertype, parse, protocol};
use crate::port::{Offloads, Port, PortContext, PortCounter, PortDrop};

pub use header::{from_header, header_of, to_header};

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: u16 = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: u16 = 6;

/// What a sender left undone makes no sense for its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOffload;

impl From<BadOffload> for PortDrop {
    fn from(_: BadOffload) -> Self {
        Self::BadOffload
    }
}

/// Holds what the sender left undone against the headers of a parsed packet.
///
/// The sum that is filled in at the egress, or by the receiver, must not land in a header field that functions
/// have decided on: a guest could choose its payload so that the sum is the port it may not reach. So the sum
/// belongs into the transport header's own checksum field, or somewhere behind that header (a tunnel's inner
/// packet); ARP has none. A packet to be cut must be what its type says.
///
/// # Errors
/// It does not hold.
#[inline(always)]
pub fn check(packet: &Packet) -> Result<(), BadOffload> {
    if packet.offload().asks_nothing() {
        Ok(())
    } else {
        check_request(packet)
    }
}

fn check_request(packet: &Packet) -> Result<(), BadOffload> {
    let offload = packet.offload();
    let layers = packet.layers();
    let own_field = layers.has_transport()
        && offload.checksum_start == layers.l4
        && match layers.protocol {
            protocol::TCP => offload.checksum_offset == TCP_CHECKSUM,
            protocol::UDP => offload.checksum_offset == UDP_CHECKSUM,
            protocol::ICMP | protocol::ICMPV6 => offload.checksum_offset == 2,
            _ => false,
        };
    let fits = match offload.gso {
        Gso::None => {
            own_field
                || offload.checksum_start >= layers.payload.max(layers.l3)
                    && layers.ethertype != ethertype::ARP
        }
        Gso::Tcp4 => own_field && layers.is_ipv4() && layers.protocol == protocol::TCP,
        Gso::Tcp6 => own_field && layers.is_ipv6() && layers.protocol == protocol::TCP,
        Gso::Udp => own_field && layers.protocol == protocol::UDP,
    };
    let end = offload.checksum_start as usize + offload.checksum_offset as usize + 2;
    if fits && !layers.is_fragment() && end <= packet.len() {
        Ok(())
    } else {
        Err(BadOffload)
    }
}

/// Sends a batch by a port, after completing what the receiver can't do itself. The batch is empty afterwards.
#[inline]
pub fn complete_and_send(port: &mut dyn Port, cx: &mut PortContext<'_>, batch: &mut Batch) {
    let able = port.offloads();
    let fit = |packet: &Packet| is_ready(packet, able) && fits(&*port, packet);
    if batch.iter().all(fit) {
        port.send(cx, batch);
    } else {
        complete_all(port, cx, batch, able);
    }
}

/// Whether the packet may leave as it is. What is to be cut may only once its headers were looked at, which on a
/// link from port to port nobody did before.
#[inline(always)]
pub(crate) fn is_ready(packet: &Packet, able: Offloads) -> bool {
    packet.offload().asks_nothing() || takes(packet, able)
}

/// Whether a receiver that is able to do so much takes what is left undone in the packet.
fn takes(packet: &Packet, able: Offloads) -> bool {
    let offload = packet.offload();
    let gso = match offload.gso {
        Gso::None => true,
        Gso::Tcp4 => able.tcp4 && (able.ecn || !offload.ecn),
        Gso::Tcp6 => able.tcp6 && (able.ecn || !offload.ecn),
        Gso::Udp if packet.layers().is_ipv6() => able.udp6,
        Gso::Udp => able.udp4,
    };
    let whole = offload.gso == Gso::None || packet.layers().l3 != 0;
    gso && whole && (able.checksum || !offload.needs_checksum)
}

/// Whether the port can reach all bytes of the packet.
#[inline]
fn fits(port: &dyn Port, packet: &Packet) -> bool {
    packet.is_whole() || port.takes_tails()
}

/// Pieces are sent as soon as there is a batch of them, so that no more buffers are in use than that.
fn complete_all(port: &mut dyn Port, cx: &mut PortContext<'_>, batch: &mut Batch, able: Offloads) {
    let mut ready = Outgoing {
        port,
        batch: Batch::new(),
    };
    for mut packet in batch.drain(..) {
        if !is_ready(&packet, able) && examine(&mut packet).is_err() {
            cx.tally.drop(PortDrop::BadOffload, 1);
        } else if is_ready(&packet, able) && fits(ready.port, &packet) {
            ready.push(cx, packet);
        } else if let Some(packet) = cx.lenders.whole(packet, cx.pool) {
            complete(packet, able, cx, &mut ready);
        } else {
            cx.tally.drop(PortDrop::NoBuffer, 1);
        }
    }
    ready.flush(cx);
}

/// Does what is left to do of a packet that can't leave as it is, or could not.
fn complete(
    mut packet: Packet,
    able: Offloads,
    cx: &mut PortContext<'_>,
    ready: &mut Outgoing<'_>,
) {
    if is_ready(&packet, able) {
        ready.push(cx, packet);
    } else if packet.offload().gso == Gso::None {
        complete_checksum(&mut packet);
        cx.tally.add(PortCounter::Checksummed, 1);
        ready.push(cx, packet);
    } else {
        segment::cut(&packet, cx, ready);
    }
}

/// What waits to be sent by a port.
struct Outgoing<'a> {
    port: &'a mut dyn Port,
    batch: Batch,
}

impl Outgoing<'_> {
    fn push(&mut self, cx: &mut PortContext<'_>, packet: Packet) {
        if self.batch.is_full() {
            self.flush(cx);
        }
        self.batch.push(packet);
    }

    fn flush(&mut self, cx: &mut PortContext<'_>) {
        if !self.batch.is_empty() {
            self.port.send(cx, &mut self.batch);
        }
    }
}

/// Holds the request against the headers. Where a chain joins two ports without a function in between, nobody has
/// parsed the packet.
pub(crate) fn examine(packet: &mut Packet) -> Result<(), BadOffload> {
    if packet.layers().l3 == 0 {
        parse(packet).map_err(|_| BadOffload)?;
    }
    check(packet)
}

/// Computes the checksum that the sender left; its place was checked to be in the packet.
fn complete_checksum(packet: &mut Packet) {
    let offload = *packet.offload();
    let start = offload.checksum_start as usize;
    let field = start + offload.checksum_offset as usize;
    let sum = Sum::default().plus_bytes(&packet.data()[start..]).finish();
    packet.data_mut()[field..field + 2].copy_from_slice(&never_zero(sum).to_be_bytes());
    packet.offload_mut().needs_checksum = false;
}

/// A sum of 0 means "none" in UDP; 0xffff stands for the same number everywhere (RFC 768).
fn never_zero(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

#[cfg(test)]
mod tests;
