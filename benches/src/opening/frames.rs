//! Frames of 64 bytes, made from one of their kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chainplane_dataplane::packet::tcp_flag;
use etherparse::PacketBuilder;

/// A frame.
pub(crate) type Frame = [u8; 64];

const IP: usize = 14;
const IP_SUM: usize = IP + 10;
/// Where a payload's last bytes are, also of IPv6.
const NUMBER: usize = 60;

/// A UDP datagram or, of IPv4, a TCP SYN to this host, to be given a source by [`with_source`].
pub(super) fn template(tcp: bool, macs: [[u8; 6]; 2], to: (IpAddr, u16)) -> Frame {
    let ethernet = PacketBuilder::ethernet2(macs[0], macs[1]);
    let builder = match to.0 {
        IpAddr::V4(dst) => ethernet.ipv4(Ipv4Addr::UNSPECIFIED.octets(), dst.octets(), 64),
        IpAddr::V6(dst) => ethernet.ipv6(Ipv6Addr::UNSPECIFIED.octets(), dst.octets(), 64),
    };
    let mut frame = Vec::with_capacity(64);
    let header = IP + if to.0.is_ipv6() { 40 } else { 20 };
    let written = if tcp {
        let payload = vec![0; 64 - header - 20];
        builder
            .tcp(0, to.1, 1, 0xffff)
            .syn()
            .write(&mut frame, &payload)
    } else {
        builder
            .udp(0, to.1)
            .write(&mut frame, &vec![0; 64 - header - 8])
    };
    written.expect("a frame in memory");
    frame.try_into().expect("64 bytes")
}

fn is_ipv6(frame: &Frame) -> bool {
    frame[IP] >> 4 == 6
}

/// Where source and destination are, and how long they are; where the ports are.
fn layout(frame: &Frame) -> (usize, usize, usize) {
    if is_ipv6(frame) {
        (IP + 8, 16, IP + 40)
    } else {
        (IP + 12, 4, IP + 20)
    }
}

/// The same from this host (of IPv6, the network's last four bytes) and port; an IPv4 header's checksum is right, the
/// transport's is not, which nobody checks.
pub(super) fn with_source(template: &Frame, net: IpAddr, host: u32, port: u16) -> Frame {
    let mut frame = *template;
    let (at, len, ports) = layout(&frame);
    match net {
        IpAddr::V4(net) => {
            let host = net.to_bits() | host;
            frame[at..at + len].copy_from_slice(&host.to_be_bytes());
            let old = u16::from_be_bytes([frame[IP_SUM], frame[IP_SUM + 1]]);
            let sum = u32::from(!old) + (host >> 16) + (host & 0xffff);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            frame[IP_SUM..IP_SUM + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        IpAddr::V6(net) => {
            let host = net.to_bits() | u128::from(host);
            frame[at..at + len].copy_from_slice(&host.to_be_bytes());
        }
    }
    frame[ports..ports + 2].copy_from_slice(&port.to_be_bytes());
    frame
}

/// The same back to where it came from.
pub(crate) fn turned_round(frame: &Frame) -> Frame {
    let (at, len, ports) = layout(frame);
    let mut back = *frame;
    swap(&mut back, frame, 0, 6);
    swap(&mut back, frame, at, len);
    swap(&mut back, frame, ports, 2);
    back
}

/// Writes a number into the payload of a UDP datagram, where nothing changes it.
pub(crate) fn set_number(frame: &mut Frame, number: u32) {
    frame[NUMBER..NUMBER + 4].copy_from_slice(&number.to_be_bytes());
}

/// The number that [`set_number`] wrote.
pub(crate) fn number(frame: &Frame) -> u32 {
    let bytes = frame[NUMBER..].first_chunk().expect("a payload");
    u32::from_be_bytes(*bytes)
}

/// Swaps two neighbouring fields.
fn swap(back: &mut Frame, frame: &Frame, at: usize, len: usize) {
    back[at..at + len].copy_from_slice(&frame[at + len..at + 2 * len]);
    back[at + len..at + 2 * len].copy_from_slice(&frame[at..at + len]);
}

/// Whether it opens a connection.
pub(super) fn begins(frame: &Frame) -> bool {
    let protocol = frame[if is_ipv6(frame) { IP + 6 } else { IP + 9 }];
    protocol != 6 || tcp_flags(frame) == tcp_flag::SYN
}

pub(super) fn tcp_flags(frame: &Frame) -> u8 {
    frame[layout(frame).2 + 13]
}

pub(super) fn set_tcp_flags(frame: &mut Frame, flags: u8) {
    let (_, _, ports) = layout(frame);
    frame[ports + 13] = flags;
}
