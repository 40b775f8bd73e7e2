//! A wire as the network device of a smoltcp interface, with or without checksum offload.

use std::net::IpAddr;

use chainplane_dataplane::packet::{Pseudo, Sum, pseudo_header};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet};

use super::wire::{Checksum, MAX_FRAME, Wire};

/// Bytes from the start of a TCP header to its checksum (RFC 9293, section 3.1).
const TCP_CHECKSUM: u16 = 16;

/// The device.
pub struct Card<W> {
    wire: W,
    received: Vec<u8>,
    sent: Vec<u8>,
    offload: bool,
}

impl<W: Wire> Card<W> {
    pub fn new(wire: W) -> Self {
        let offload = wire.offloads_checksums();
        Self {
            wire,
            received: Vec::with_capacity(MAX_FRAME),
            sent: Vec::with_capacity(MAX_FRAME),
            offload,
        }
    }

    pub fn wire(&mut self) -> &mut W {
        &mut self.wire
    }

    /// The next frame whose checksum is right, or vouched for.
    fn next(&mut self) -> bool {
        loop {
            self.received.clear();
            let Some(checksum) = self.wire.receive(&mut self.received) else {
                return false;
            };
            let looked_at = self.offload && checksum == Checksum::Present;
            if !looked_at || tcp_sum_is_right(&self.received) {
                return true;
            }
        }
    }
}

impl<W: Wire> phy::Device for Card<W> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Sender<'a, W>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        // A frame is only taken when an answer can be sent; until then it waits in the ring.
        if !self.wire.can_send() || !self.next() {
            return None;
        }
        let Self {
            wire,
            received,
            sent,
            offload,
            ..
        } = self;
        let sender = Sender {
            wire,
            sent,
            offload: *offload,
        };
        Some((Received(received), sender))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        self.wire.can_send().then_some(Sender {
            wire: &mut self.wire,
            sent: &mut self.sent,
            offload: self.offload,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME;
        if self.offload {
            capabilities.checksum.tcp = phy::Checksum::None;
        }
        capabilities
    }
}

/// A frame that came in.
pub struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame to send.
pub struct Sender<'a, W> {
    wire: &'a mut W,
    sent: &'a mut Vec<u8>,
    offload: bool,
}

impl<W: Wire> phy::TxToken for Sender<'_, W> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.sent.clear();
        self.sent.resize(len, 0);
        let result = f(self.sent);
        let checksum = if self.offload {
            leave_tcp_sum(self.sent)
        } else {
            Checksum::Present
        };
        self.wire.send(self.sent, checksum);
        result
    }
}

/// Where a frame's TCP segment is, and the sum of its pseudo-header.
struct Segment {
    start: usize,
    end: usize,
    pseudo: Sum,
}

/// The whole, unfragmented TCP segment in a frame without VLAN tags and extension headers; other frames have none.
fn segment(bytes: &[u8]) -> Option<Segment> {
    let frame = EthernetFrame::new_checked(bytes).ok()?;
    let l3 = EthernetFrame::<&[u8]>::header_len();
    let (addresses, l4, end): ((IpAddr, IpAddr), _, _) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
            let whole = !ip.more_frags() && ip.frag_offset() == 0;
            (whole && ip.next_header() == IpProtocol::Tcp).then_some(())?;
            let addresses = (ip.src_addr().into(), ip.dst_addr().into());
            (addresses, ip.header_len().into(), ip.total_len().into())
        }
        EthernetProtocol::Ipv6 => {
            let ip = Ipv6Packet::new_checked(frame.payload()).ok()?;
            (ip.next_header() == IpProtocol::Tcp).then_some(())?;
            let addresses = (ip.src_addr().into(), ip.dst_addr().into());
            (addresses, ip.header_len(), ip.total_len())
        }
        _ => return None,
    };
    let (start, end): (usize, usize) = (l3 + l4, l3 + end);
    // The segment reaches its own checksum, and the frame holds it all.
    (start + usize::from(TCP_CHECKSUM) + 2 <= end && end <= bytes.len()).then_some(())?;
    let pseudo = match addresses {
        (IpAddr::V4(from), IpAddr::V4(to)) => Pseudo::V4(from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => Pseudo::V6(from, to),
        _ => return None,
    };
    let pseudo = pseudo_header(pseudo, IpProtocol::Tcp.into(), end - start);
    Some(Segment { start, end, pseudo })
}

/// Whether the TCP checksum is right; frames without one pass.
fn tcp_sum_is_right(bytes: &[u8]) -> bool {
    segment(bytes).is_none_or(|tcp| tcp.pseudo.plus_bytes(&bytes[tcp.start..tcp.end]).finish() == 0)
}

/// Leaves the TCP checksum to the other side, if the frame has one.
fn leave_tcp_sum(bytes: &mut [u8]) -> Checksum {
    let Some(Segment { start, pseudo, .. }) = segment(bytes) else {
        return Checksum::Present;
    };
    let field = start + usize::from(TCP_CHECKSUM);
    bytes[field..field + 2].copy_from_slice(&pseudo.folded().to_be_bytes());
    Checksum::Partial {
        start: start as u16,
        offset: TCP_CHECKSUM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 frame with a TCP segment of 3 bytes of payload, its checksum field 0.
    fn frame() -> Vec<u8> {
        let mut bytes = vec![0; 14 + 20 + 23];
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        bytes[14] = 0x45;
        bytes[17] = 43;
        bytes[23] = 6;
        bytes[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        bytes[46] = 0x50;
        bytes[54..].copy_from_slice(b"abc");
        bytes
    }

    #[test]
    fn a_sum_that_was_left_is_right_once_completed() {
        let mut bytes = frame();
        let left = leave_tcp_sum(&mut bytes);
        let (start, offset) = (34, TCP_CHECKSUM);
        assert_eq!(left, Checksum::Partial { start, offset });
        assert!(!tcp_sum_is_right(&bytes));
        let sum = Sum::default().plus_bytes(&bytes[34..]).finish();
        bytes[50..52].copy_from_slice(&sum.to_be_bytes());
        assert!(tcp_sum_is_right(&bytes));
        bytes[55] ^= 4;
        assert!(!tcp_sum_is_right(&bytes));
    }

    #[test]
    fn bytes_behind_the_packet_do_not_count() {
        let mut bytes = frame();
        leave_tcp_sum(&mut bytes);
        let sum = Sum::default().plus_bytes(&bytes[34..]).finish();
        bytes[50..52].copy_from_slice(&sum.to_be_bytes());
        bytes.extend([1, 2, 3, 4]);
        assert!(tcp_sum_is_right(&bytes));
    }

    #[test]
    fn other_and_cut_frames_are_left_alone() {
        let whole = frame();
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            assert_eq!(leave_tcp_sum(&mut cut), Checksum::Present, "{len}");
            assert_eq!(cut, whole[..len]);
        }
        let mut fragment = whole.clone();
        fragment[20] = 0x20;
        assert_eq!(leave_tcp_sum(&mut fragment), Checksum::Present);
        let mut udp = whole;
        udp[23] = 17;
        assert_eq!(leave_tcp_sum(&mut udp), Checksum::Present);
    }
}
