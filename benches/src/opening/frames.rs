//! Frames of 64 bytes, made from one of their kind.

use chainplane_dataplane::packet::tcp_flag;
use etherparse::PacketBuilder;

/// A frame.
pub(super) type Frame = [u8; 64];

const IP: usize = 14;
const PROTOCOL: usize = IP + 9;
const IP_SUM: usize = IP + 10;
const PORTS: usize = IP + 20;
const TCP_FLAGS: usize = PORTS + 13;

/// A UDP datagram or a TCP SYN between these hosts, to be changed by [`with_source`].
pub(super) fn template(tcp: bool, macs: [[u8; 6]; 2], to: ([u8; 4], u16)) -> Frame {
    let builder = PacketBuilder::ethernet2(macs[0], macs[1]).ipv4([0; 4], to.0, 64);
    let mut frame = Vec::with_capacity(64);
    let written = if tcp {
        builder
            .tcp(0, to.1, 1, 0xffff)
            .syn()
            .write(&mut frame, &[0; 10])
    } else {
        builder.udp(0, to.1).write(&mut frame, &[0; 22])
    };
    written.expect("a frame in memory");
    frame.try_into().expect("64 bytes")
}

/// The same from this host and port; the IP header's checksum is right, the transport's is not, which nobody checks.
pub(super) fn with_source(template: &Frame, host: u32, port: u16) -> Frame {
    let mut frame = *template;
    frame[IP + 12..IP + 16].copy_from_slice(&host.to_be_bytes());
    frame[PORTS..PORTS + 2].copy_from_slice(&port.to_be_bytes());
    let old = u16::from_be_bytes([frame[IP_SUM], frame[IP_SUM + 1]]);
    let sum = u32::from(!old) + (host >> 16) + (host & 0xffff);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[IP_SUM..IP_SUM + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

/// The same back to where it came from.
pub(super) fn turned_round(frame: &Frame) -> Frame {
    let mut back = *frame;
    back[..6].copy_from_slice(&frame[6..12]);
    back[6..12].copy_from_slice(&frame[..6]);
    back[IP + 12..IP + 16].copy_from_slice(&frame[IP + 16..IP + 20]);
    back[IP + 16..IP + 20].copy_from_slice(&frame[IP + 12..IP + 16]);
    back[PORTS..PORTS + 2].copy_from_slice(&frame[PORTS + 2..PORTS + 4]);
    back[PORTS + 2..PORTS + 4].copy_from_slice(&frame[PORTS..PORTS + 2]);
    back
}

/// Whether it opens a connection.
pub(super) fn begins(frame: &Frame) -> bool {
    frame[PROTOCOL] != 6 || tcp_flags(frame) == tcp_flag::SYN
}

pub(super) fn tcp_flags(frame: &Frame) -> u8 {
    frame[TCP_FLAGS]
}

pub(super) fn set_tcp_flags(frame: &mut Frame, flags: u8) {
    frame[TCP_FLAGS] = flags;
}
