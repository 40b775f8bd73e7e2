//! Frames as a driver that follows the specification sends them, and what such a driver makes of frames it gets:
//! written from RFCs and virtio 1.2, section 5.1.6, without the code under test.

use std::net::IpAddr;

use chainplane_vhost::net::{
    FLAG_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NetHeader, feature,
};

/// TCP: the congestion window was reduced.
pub const CWR: u8 = 0x80;
const ACK: u8 = 0x10;
/// TCP: the first packet of a connection.
pub const SYN: u8 = 0x02;
/// Payload bytes of a packet that nobody has to cut.
pub const SIZE: usize = 1400;

/// Where a stretch of data goes.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// By UDP, or else by TCP.
    pub udp: bool,
    /// The next station's address.
    pub to_mac: [u8; 6],
    /// The sender.
    pub from: IpAddr,
    /// The receiver.
    pub to: IpAddr,
    /// The sender's port.
    pub from_port: u16,
    /// The receiver's port.
    pub to_port: u16,
}

impl Route {
    fn l4(&self) -> usize {
        if self.from.is_ipv6() { 54 } else { 34 }
    }

    fn headers(&self) -> usize {
        self.l4() + if self.udp { 8 } else { 20 }
    }

    /// A packet with all checksums computed.
    pub fn packet(&self, flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = [&self.to_mac[..], &[2, 0, 0, 0, 0, 0x99]].concat();
        let len = (self.headers() - self.l4() + payload.len()) as u16;
        let protocol = if self.udp { 17 } else { 6 };
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([8, 0, 0x45, 0]);
                frame.extend((20 + len).to_be_bytes());
                frame.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
                frame.extend([from.octets(), to.octets()].concat());
                let sum = !ones_sum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend([from.octets(), to.octets()].concat());
            }
            _ => panic!("addresses of two IP versions"),
        }
        frame.extend([self.from_port.to_be_bytes(), self.to_port.to_be_bytes()].concat());
        if self.udp {
            frame.extend(len.to_be_bytes());
            frame.extend([0, 0]);
        } else {
            frame.extend(sequence.to_be_bytes());
            let flags = if flags & SYN == 0 { flags | ACK } else { flags };
            frame.extend([0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
        frame.extend(payload);
        let at = self.field();
        let pseudo = pseudo_sum(&frame, self.l4(), protocol);
        let sum = !add(pseudo, ones_sum(&frame[self.l4()..]));
        frame[at..at + 2].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
        frame
    }

    fn field(&self) -> usize {
        self.l4() + if self.udp { 6 } else { 16 }
    }

    /// `payload` as a driver sends it that has negotiated `features`: with as much undone as they allow.
    pub fn send(&self, features: u64, flags: u8, payload: &[u8]) -> Vec<(NetHeader, Vec<u8>)> {
        let (kind, needed) = match (self.udp, self.from.is_ipv6()) {
            (true, _) => (GSO_UDP_L4, feature::HOST_USO),
            (false, true) => (GSO_TCPV6, feature::HOST_TSO6),
            (false, false) => (GSO_TCPV4, feature::HOST_TSO4),
        };
        let ecn = !self.udp && flags & CWR != 0;
        let needed = needed | if ecn { feature::HOST_ECN } else { 0 };
        let whole = features & needed == needed;
        let size = if whole { payload.len() } else { SIZE };
        let pieces = payload.chunks(size).enumerate().map(|(index, piece)| {
            let flags = if index == 0 { flags } else { flags & !CWR };
            let mut frame = self.packet(flags, (index * size) as u32, piece);
            let mut header = NetHeader::default();
            if features & feature::CSUM != 0 {
                self.leave_sum(&mut frame, &mut header);
            }
            if piece.len() > SIZE {
                header.gso_type = kind | if ecn { GSO_ECN } else { 0 };
                header.gso_size = SIZE as u16;
                header.hdr_len = self.headers() as u16;
            }
            (header, frame)
        });
        pieces.collect()
    }

    /// Takes the checksum out again, all but the pseudo-header's part.
    fn leave_sum(&self, frame: &mut [u8], header: &mut NetHeader) {
        let (at, protocol) = (self.field(), if self.udp { 17 } else { 6 });
        let sum = pseudo_sum(frame, self.l4(), protocol);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        header.flags = FLAG_NEEDS_CSUM;
        header.csum_start = self.l4() as u16;
        header.csum_offset = (at - self.l4()) as u16;
    }
}

/// What a driver made of a frame.
#[derive(Debug)]
pub struct Received {
    /// By UDP, or else by TCP.
    pub udp: bool,
    /// The receiver's port.
    pub to_port: u16,
    /// TCP's sequence number.
    pub sequence: u32,
    /// TCP's flags.
    pub flags: u8,
    /// What it was cut to, or is to be.
    pub pieces: usize,
    /// Whether its checksum came undone.
    pub partial: bool,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Takes a frame as a driver does that has negotiated `features`.
///
/// # Errors
/// What such a driver must not get, or what is wrong with the frame; `Ok(None)` for what is neither TCP nor UDP.
pub fn receive(
    features: u64,
    header: NetHeader,
    frame: &[u8],
) -> Result<Option<Received>, &'static str> {
    let need = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
    let partial = header.flags & FLAG_NEEDS_CSUM != 0;
    let flags_allowed = features & feature::GUEST_CSUM != 0 || header.flags == 0;
    need(flags_allowed, "flags without GUEST_CSUM")?;
    need(
        header.flags & !FLAG_NEEDS_CSUM == 0,
        "nobody has checked it",
    )?;
    let (l4, protocol, end) = match frame.get(12..14) {
        Some([8, 0]) => {
            need(
                ones_sum(&frame[14..34]) == 0xffff,
                "the IP header's checksum",
            )?;
            (34, frame[23], 14 + word(frame, 16) as usize)
        }
        Some([0x86, 0xdd]) => (54, frame[20], 54 + word(frame, 18) as usize),
        _ => return Ok(None),
    };
    let udp = match protocol {
        17 => true,
        6 => false,
        _ => return Ok(None),
    };
    need(end == frame.len(), "the IP length")?;
    let v6 = l4 == 54;
    let field = if udp { 6 } else { 16 };
    if partial {
        let place = (
            usize::from(header.csum_start),
            usize::from(header.csum_offset),
        );
        need(place == (l4, field), "the checksum's place")?;
        let left = word(frame, l4 + field);
        need(
            left == pseudo_sum(frame, l4, protocol),
            "the sum that was left",
        )?;
    } else {
        let sum = add(pseudo_sum(frame, l4, protocol), ones_sum(&frame[l4..]));
        need(sum == 0xffff, "the checksum")?;
    }
    let headers = l4
        + if udp {
            8
        } else {
            usize::from(frame[l4 + 12] >> 4) * 4
        };
    let payload = frame[headers..].to_vec();
    let flags = if udp { 0 } else { frame[l4 + 13] };
    if header.gso_type == GSO_NONE {
        need(payload.len() <= SIZE, "too long for a wire")?;
    } else {
        let (kind, allowed) = match (udp, v6) {
            (true, false) => (GSO_UDP_L4, feature::GUEST_USO4),
            (true, true) => (GSO_UDP_L4, feature::GUEST_USO6),
            (false, false) => (GSO_TCPV4, feature::GUEST_TSO4),
            (false, true) => (GSO_TCPV6, feature::GUEST_TSO6),
        };
        let ecn = header.gso_type & GSO_ECN != 0;
        need(header.gso_type & !GSO_ECN == kind, "the type of segment")?;
        need(features & allowed != 0, "a segment that was not negotiated")?;
        need(
            !ecn || features & feature::GUEST_ECN != 0,
            "ECN was not negotiated",
        )?;
        need(ecn == (flags & CWR != 0 && !udp), "ECN is not told")?;
        need(partial, "a segment with its checksum")?;
        need(usize::from(header.gso_size) == SIZE, "the size of pieces")?;
        need(
            usize::from(header.hdr_len) >= headers,
            "the length of headers",
        )?;
    }
    if udp {
        need(
            word(frame, l4 + 4) as usize == frame.len() - l4,
            "the UDP length",
        )?;
    }
    Ok(Some(Received {
        udp,
        to_port: word(frame, l4 + 2),
        sequence: u32::from(word(frame, l4 + 4)) << 16 | u32::from(word(frame, l4 + 6)),
        flags,
        pieces: payload.len().div_ceil(SIZE),
        partial,
        payload,
    }))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The ones' complement sum of big-endian words (RFC 1071).
fn ones_sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        add(sum, u16::from_be_bytes([pair[0], low]))
    })
}

/// The sum of the pseudo-header of the packet in `frame`, of which the transport header begins at `l4`.
fn pseudo_sum(frame: &[u8], l4: usize, protocol: u8) -> u16 {
    let addresses = if l4 == 54 { 22..54 } else { 26..34 };
    let len = (frame.len() - l4) as u16;
    add(add(ones_sum(&frame[addresses]), len), u16::from(protocol))
}
