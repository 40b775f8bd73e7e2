//! Frames for tests, and what is wrong with a frame that came out.

use core::net::{IpAddr, Ipv4Addr};

use chainplane_dataplane::packet::tcp_flag::{ACK, FIN, RST, SYN};
use chainplane_dataplane::packet::{Offload, Pseudo, Sum, checksum, pseudo_header};
use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, PacketBuilderStep,
    SlicedPacket, TransportSlice,
};

use super::Endpoint;

/// The link-layer address of hosts and routers inside.
pub(crate) const INNER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];
/// The same outside.
pub(crate) const OUTER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x22];

/// `10.0.0.1:80`, or `[2001:db8::1]:80`.
pub(crate) fn at(text: &str) -> Endpoint {
    let socket: core::net::SocketAddr = text.parse().expect("an address with a port");
    Endpoint::new(socket.ip(), socket.port())
}

pub(crate) fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => panic!("IPv4 expected"),
    }
}

fn ip(src: IpAddr, dst: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(INNER, OUTER);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), 64),
        _ => panic!("two addresses of one family"),
    }
}

pub(crate) fn udp(src: Endpoint, dst: Endpoint) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(src.address, dst.address)
        .udp(src.port, dst.port)
        .write(&mut frame, b"some payload")
        .unwrap();
    frame
}

pub(crate) fn tcp(src: Endpoint, dst: Endpoint, flags: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut header = etherparse::TcpHeader::new(src.port, dst.port, 1000, 4096);
    (header.syn, header.fin) = (flags & SYN != 0, flags & FIN != 0);
    (header.rst, header.ack) = (flags & RST != 0, flags & ACK != 0);
    ip(src.address, dst.address)
        .tcp_header(header)
        .write(&mut frame, b"some more payload")
        .unwrap();
    frame
}

/// An echo request from `src`, with its port as identifier, or, where `src` has port 0, a reply to `dst`.
pub(crate) fn echo(src: Endpoint, dst: Endpoint) -> Vec<u8> {
    let mut frame = Vec::new();
    let ip = ip(src.address, dst.address);
    let step = (src.address.is_ipv6(), src.port == 0);
    match step {
        (false, false) => ip
            .icmpv4_echo_request(src.port, 7)
            .write(&mut frame, b"ping"),
        (false, true) => ip.icmpv4_echo_reply(dst.port, 7).write(&mut frame, b"ping"),
        (true, false) => ip
            .icmpv6_echo_request(src.port, 7)
            .write(&mut frame, b"ping"),
        (true, true) => ip.icmpv6_echo_reply(dst.port, 7).write(&mut frame, b"ping"),
    }
    .unwrap();
    frame
}

/// Destination unreachable from `src` to `dst` about the packet in `frame`, of which `quoted` bytes are quoted.
pub(crate) fn unreachable(src: IpAddr, dst: IpAddr, frame: &[u8], quoted: usize) -> Vec<u8> {
    let quoted = &frame[14..][..quoted.min(frame.len() - 14)];
    let mut out = Vec::new();
    let ip = ip(src, dst);
    if src.is_ipv6() {
        ip.icmpv6(Icmpv6Type::DestinationUnreachable(
            etherparse::icmpv6::DestUnreachableCode::Port,
        ))
        .write(&mut out, quoted)
    } else {
        ip.icmpv4(Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::Port,
        ))
        .write(&mut out, quoted)
    }
    .unwrap();
    out
}

/// Time exceeded from `src` to `dst` about the packet in `frame`.
pub(crate) fn expired(src: IpAddr, dst: IpAddr, frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let ip = ip(src, dst);
    if src.is_ipv6() {
        let code = etherparse::icmpv6::TimeExceededCode::HopLimitExceeded;
        ip.icmpv6(Icmpv6Type::TimeExceeded(code))
            .write(&mut out, &frame[14..])
    } else {
        let code = etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit;
        ip.icmpv4(Icmpv4Type::TimeExceeded(code))
            .write(&mut out, &frame[14..])
    }
    .unwrap();
    out
}

/// An ICMP message, whose header is at `l4`, of which a checksum in the last 8 bytes is still to be computed; the
/// message's own covers what it will be, as a sender of tunnelled packets computes it.
pub(crate) fn with_partial_inside(mut frame: Vec<u8>, l4: usize) -> (Vec<u8>, Offload) {
    let start = frame.len() - 8;
    let field = start + 6..start + 8;
    let before = Sum::default().minus_bytes(&frame[start..]);
    frame[field.clone()].copy_from_slice(&[0x12, 0x34]);
    let mut completed = frame[start..].to_vec();
    let sum = Sum::default().plus_bytes(&completed).finish();
    completed[6..].copy_from_slice(&sum.to_be_bytes());
    let own = u16::from_be_bytes([frame[l4 + 2], frame[l4 + 3]]);
    let own = before.plus_bytes(&completed).apply(own);
    frame[l4 + 2..l4 + 4].copy_from_slice(&own.to_be_bytes());
    let offload = Offload {
        needs_checksum: true,
        checksum_start: start as u16,
        checksum_offset: 6,
        ..Offload::default()
    };
    (frame, offload)
}

/// Any IPv4 packet with this protocol.
pub(crate) fn raw(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(src.into(), dst.into())
        .write(&mut frame, etherparse::IpNumber(protocol), payload)
        .unwrap();
    frame
}

/// A frame that is not IP.
pub(crate) fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        source: INNER,
        destination: [0xff; 6],
        ether_type: EtherType(ethertype),
    };
    [&header.to_bytes()[..], payload].concat()
}

/// An ARP request for `target` from `sender`.
pub(crate) fn who_has(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
    body.extend(INNER);
    body.extend(sender.octets());
    body.extend([0; 6]);
    body.extend(target.octets());
    frame(0x0806, &body)
}

/// What a TCP, UDP or ICMP packet over IPv4 says of its endpoints. Every checksum in it is verified.
pub(crate) fn endpoints(frame: &[u8]) -> (Endpoint, Endpoint) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a well-formed frame");
    let Some(NetSlice::Ipv4(ipv4)) = &sliced.net else {
        panic!("IPv4 expected");
    };
    let header = ipv4.header();
    assert_eq!(checksum(header.slice()), 0, "IP header checksum");
    let (src, dst) = (header.source_addr(), header.destination_addr());
    let bytes = ipv4.payload().payload;
    let (from, to) = match sliced.transport.as_ref().expect("a transport header") {
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
        TransportSlice::Icmpv4(icmp) => {
            let id = u16::from_be_bytes([bytes[4], bytes[5]]);
            match icmp.type_u8() {
                8 => (id, 0),
                0 => (0, id),
                _ => (0, 0),
            }
        }
        other => panic!("{other:?}"),
    };
    let protocol = header.protocol().0;
    if !(protocol == 17 && bytes[6..8] == [0, 0]) {
        let pseudo = match protocol {
            1 => chainplane_dataplane::packet::Sum::default(),
            _ => pseudo_header(Pseudo::V4(src, dst), protocol, bytes.len()),
        };
        assert_eq!(pseudo.plus_bytes(bytes).folded(), 0xffff, "checksum");
    }
    (Endpoint::new(src, from), Endpoint::new(dst, to))
}

/// The packet that an ICMP error over IPv4 quotes, as a frame. The error's own checksums are verified.
pub(crate) fn quoted(frame: &[u8]) -> Vec<u8> {
    endpoints(frame);
    [&frame[..14], &frame[14 + 20 + 8..]].concat()
}

/// The same IPv4 packet as a fragment at this offset (in units of 8 bytes) with more to follow.
pub(crate) fn fragment(mut frame: Vec<u8>, offset: u16) -> Vec<u8> {
    frame[20..22].copy_from_slice(&(0x2000 | offset).to_be_bytes());
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}
