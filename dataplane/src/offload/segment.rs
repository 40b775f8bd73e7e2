//! Cutting a large TCP segment, or a train of UDP datagrams, into pieces that fit a wire.

use super::{Outgoing, TCP_CHECKSUM, UDP_CHECKSUM, never_zero};
use crate::packet::{Gso, Layers, Offload, Packet, Sum, checksum, tcp_flag};
use crate::port::{PortContext, PortCounter, PortDrop};

/// The most pieces that one packet is cut into: 64 KiB in pieces of 256 bytes, half of the smallest segment that
/// TCP has to accept (RFC 9293, section 3.7.1). Who asks for more wants to keep the worker busy.
pub(super) const MAX_PIECES: usize = 256;
/// Pieces that any packet may be cut into.
const FEW_PIECES: usize = 4;
/// Payload bytes, on average, of the pieces of a packet that is cut into more: many small packets must not ask for
/// more work in one poll than a few large ones can. Linux makes trains of up to 128 datagrams of any size; those of
/// voice or games are of some 100 bytes.
const SMALL_PIECE: usize = 64;

/// The most pieces that a packet with so much payload is cut into.
pub(super) fn most_pieces(payload: usize) -> usize {
    (payload / SMALL_PIECE).clamp(FEW_PIECES, MAX_PIECES)
}

/// Cuts a packet whose headers and offloads were checked, and hands on the pieces in order. Counts the packet as
/// consumed and each piece as created; pieces for which there is no buffer are created and dropped.
pub(super) fn cut(packet: &Packet, cx: &mut PortContext<'_>, ready: &mut Outgoing<'_>) {
    let Some(plan) = Plan::of(packet) else {
        cx.tally.drop(PortDrop::Offload, 1);
        return;
    };
    cx.tally.add(PortCounter::Consumed, 1);
    cx.tally.add(PortCounter::Created, plan.pieces as u64);
    for index in 0..plan.pieces {
        let Some(piece) = plan.piece(packet, index, cx) else {
            let missing = plan.pieces - index;
            cx.tally.drop(PortDrop::NoBuffer, missing as u64);
            return;
        };
        cx.tally.add(PortCounter::Checksummed, 1);
        ready.push(cx, piece);
    }
}

struct Plan {
    layers: Layers,
    /// Length of all headers.
    headers: usize,
    /// Payload bytes of a piece but the last.
    size: usize,
    pieces: usize,
}

impl Plan {
    fn of(packet: &Packet) -> Option<Self> {
        let layers = *packet.layers();
        let headers = layers.payload as usize;
        let size = packet.offload().gso_size as usize;
        let payload = packet.len().checked_sub(headers)?;
        let pieces = payload.div_ceil(size.max(1));
        // A connection does not begin or end abruptly in the middle of a stretch of data.
        let abrupt = packet.tcp_flags() & (tcp_flag::SYN | tcp_flag::RST) != 0;
        (size > 0 && (1..=most_pieces(payload)).contains(&pieces) && !abrupt).then_some(Self {
            layers,
            headers,
            size,
            pieces,
        })
    }

    fn piece(&self, packet: &Packet, index: usize, cx: &mut PortContext<'_>) -> Option<Packet> {
        let data = packet.data();
        let start = self.headers + index * self.size;
        let payload = &data[start..data.len().min(start + self.size)];
        let mut piece = cx.pool.take(self.headers + payload.len())?;
        let (head, tail) = piece
            .extend(self.headers + payload.len())?
            .split_at_mut(self.headers);
        head.copy_from_slice(&data[..self.headers]);
        tail.copy_from_slice(payload);
        *piece.layers_mut() = self.layers;
        *piece.offload_mut() = Offload::default();

        self.set_ip(&mut piece, index);
        let checksum = if packet.offload().gso == Gso::Udp {
            self.set_udp(&mut piece);
            UDP_CHECKSUM
        } else {
            self.set_tcp(&mut piece, index);
            TCP_CHECKSUM
        };
        self.set_checksum(&mut piece, self.layers.l4 as usize + checksum as usize);
        Some(piece)
    }

    fn set_ip(&self, piece: &mut Packet, index: usize) {
        let l3 = self.layers.l3 as usize;
        let len = piece.len() - l3;
        let ip = &mut piece.data_mut()[l3..];
        if self.layers.is_ipv6() {
            put(ip, 4, (len - 40) as u16);
            return;
        }
        put(ip, 2, len as u16);
        // Each is a datagram of its own (RFC 6864).
        let id = word(ip, 4).wrapping_add(index as u16);
        put(ip, 4, id);
        put(ip, 10, 0);
        let header = self.layers.l4 as usize - l3;
        let sum = checksum(&ip[..header]);
        put(ip, 10, sum);
    }

    fn set_udp(&self, piece: &mut Packet) {
        let l4 = self.layers.l4 as usize;
        let len = piece.len() - l4;
        put(&mut piece.data_mut()[l4..], 4, len as u16);
    }

    fn set_tcp(&self, piece: &mut Packet, index: usize) {
        let offset = index * self.size;
        let tcp = &mut piece.data_mut()[self.layers.l4 as usize..];
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        tcp[4..8].copy_from_slice(&sequence.wrapping_add(offset as u32).to_be_bytes());
        if index > 0 {
            tcp[13] &= !tcp_flag::CWR;
        }
        if index + 1 < self.pieces {
            tcp[13] &= !(tcp_flag::FIN | tcp_flag::PSH);
        }
        if tcp[13] & tcp_flag::URG != 0 {
            // The pointer counts from the piece's own sequence number.
            let urgent = word(tcp, 18).saturating_sub(offset as u16);
            put(tcp, 18, urgent);
            if urgent == 0 && offset > 0 {
                tcp[13] &= !tcp_flag::URG;
            }
        }
    }

    fn set_checksum(&self, piece: &mut Packet, at: usize) {
        let pseudo = self.pseudo(piece);
        let data = piece.data_mut();
        put(data, at, 0);
        let sum = pseudo.plus_bytes(&data[self.layers.l4 as usize..]).finish();
        put(data, at, never_zero(sum));
    }

    /// The pseudo-header's sum. The addresses are those of the IP header: a routing header that names another final
    /// destination is not looked at.
    fn pseudo(&self, piece: &Packet) -> Sum {
        let (l3, l4) = (self.layers.l3 as usize, self.layers.l4 as usize);
        let len = piece.len() - l4;
        let addresses = if self.layers.is_ipv6() {
            &piece.data()[l3 + 8..l3 + 40]
        } else {
            &piece.data()[l3 + 12..l3 + 20]
        };
        Sum::default()
            .plus_bytes(addresses)
            .plus(u16::from(self.layers.protocol))
            .plus((len >> 16) as u16)
            .plus(len as u16)
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
