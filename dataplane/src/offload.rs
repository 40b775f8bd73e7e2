//! Completes what a sender left undone, where the egress can't pass it on: transport checksums and the cutting of
//! large segments.

use crate::packet::{Batch, Gso, Packet, Sum};
use crate::port::{Offloads, Port, PortContext, PortCounter, PortDrop};

/// Sends a batch by a port, after completing what the receiver can't do itself. The batch is empty afterwards.
pub fn complete_and_send(port: &mut dyn Port, cx: &mut PortContext<'_>, batch: &mut Batch) {
    let offloads = port.offloads();
    if batch.iter().any(|packet| !is_ready(packet, offloads)) {
        batch.retain(|packet| is_ready(packet, offloads) || complete(packet, cx));
    }
    port.send(cx, batch);
}

#[inline]
fn is_ready(packet: &Packet, able: Offloads) -> bool {
    let offload = packet.offload();
    let gso = match offload.gso {
        Gso::None => true,
        Gso::Tcp4 => able.tcp4 && (able.ecn || !offload.ecn),
        Gso::Tcp6 => able.tcp6 && (able.ecn || !offload.ecn),
        Gso::Udp => able.udp,
    };
    gso && (able.checksum || !offload.needs_checksum)
}

fn complete(packet: &mut Packet, cx: &PortContext<'_>) -> bool {
    let done = packet.offload().gso == Gso::None && complete_checksum(packet);
    if done {
        cx.tally.add(PortCounter::Checksummed, 1);
    } else {
        cx.tally.drop(PortDrop::Offload, 1);
    }
    done
}

/// Computes the checksum that the sender left; false if its place lies outside of the packet.
fn complete_checksum(packet: &mut Packet) -> bool {
    let offload = *packet.offload();
    let start = offload.checksum_start as usize;
    let field = start + offload.checksum_offset as usize;
    if field + 2 > packet.len() {
        return false;
    }
    let sum = Sum::default().plus_bytes(&packet.data()[start..]).finish();
    // A sum of 0 means "none" in UDP; 0xffff stands for the same number everywhere (RFC 768).
    let sum = if sum == 0 { 0xffff } else { sum };
    packet.data_mut()[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    packet.offload_mut().needs_checksum = false;
    true
}
