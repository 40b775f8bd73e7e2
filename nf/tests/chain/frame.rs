//! Frames put together field by field, so that any field can be wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chainplane_dataplane::packet::{Gso, Offload, Pseudo, checksum, pseudo_header};

pub type MacBytes = [u8; 6];

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;
pub const RST: u8 = 4;

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp { from: u16, to: u16, flags: u8 },
    Udp { from: u16, to: u16 },
    Echo { id: u16, reply: bool },
    Other(u8),
}

/// Something unusual about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    None,
    Ttl(u8),
    FirstFragment,
    LaterFragment,
    Options,
    BadIpChecksum,
    BadTransportChecksum(u16),
    UdpWithoutChecksum,
    DontFragment,
    Partial,
    /// The checksum left undone is that of something inside.
    PartialInside,
    /// The checksum left undone is said to be here.
    PartialAt(u16),
    /// To be cut into pieces of this much payload.
    Gso(u16),
    Vlan(u16),
    TwoVlans(u16, u16),
    TypeOfService(u8),
    Cut(u16),
    Padded(u8),
    Flipped(u16, u8),
    LengthField(u16),
}

/// A frame to be.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub macs: (MacBytes, MacBytes),
    pub src: IpAddr,
    pub dst: IpAddr,
    pub transport: Transport,
    pub payload: usize,
    pub quirk: Quirk,
    /// What no function reads to decide is made from this: payload, identification, flow label, sequence numbers,
    /// window.
    pub salt: u64,
}

impl Spec {
    pub fn build(&self) -> (Vec<u8>, Offload) {
        let mut frame = [self.macs.1, self.macs.0].concat();
        match self.quirk {
            Quirk::Vlan(id) => frame.extend([0x81, 0, (id >> 8) as u8, id as u8]),
            Quirk::TwoVlans(a, b) => frame.extend([
                0x88,
                0xa8,
                (a >> 8) as u8,
                a as u8,
                0x81,
                0,
                (b >> 8) as u8,
                b as u8,
            ]),
            _ => {}
        }
        let mut transport = self.transport_bytes();
        let protocol = self.protocol();
        let mut offload = Offload::default();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let pseudo = Pseudo::V4(src, dst);
                self.fill_checksum(&mut transport, pseudo, protocol);
                frame.extend([8, 0]);
                self.ipv4(&mut frame, src, dst, protocol, transport.len());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let pseudo = Pseudo::V6(src, dst);
                self.fill_checksum(&mut transport, pseudo, protocol);
                frame.extend([0x86, 0xdd]);
                self.ipv6(&mut frame, src, dst, protocol, transport.len());
            }
            _ => panic!("addresses of two families"),
        }
        self.note_offload(&mut offload, frame.len() as u16, transport.len());
        frame.extend(transport);
        self.spoil(&mut frame);
        (frame, offload)
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp { .. } => 17,
            Transport::Echo { .. } if self.src.is_ipv4() => 1,
            Transport::Echo { .. } => 58,
            Transport::Other(protocol) => protocol,
        }
    }

    fn transport_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.transport {
            Transport::Tcp { from, to, flags } => {
                bytes.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
                bytes.extend((1 ^ self.salt).to_be_bytes());
                let window = 0x2000 ^ (self.salt >> 7) as u16;
                bytes.extend([0x50, flags]);
                bytes.extend(window.to_be_bytes());
                bytes.extend([0, 0, 0, 0]);
            }
            Transport::Udp { from, to } => {
                bytes.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
                bytes.extend(((self.payload + 8) as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
            Transport::Echo { id, reply } => {
                let kind = match (self.src.is_ipv4(), reply) {
                    (true, true) => 0,
                    (true, false) => 8,
                    (false, true) => 129,
                    (false, false) => 128,
                };
                bytes.extend([kind, 0, 0, 0, (id >> 8) as u8, id as u8]);
                bytes.extend((1 ^ self.salt as u16).to_be_bytes());
            }
            Transport::Other(_) => {}
        }
        bytes.extend((0..self.payload).map(|i| (i * 7 + 3) as u8 ^ self.salt as u8));
        bytes
    }

    fn checksum_at(&self) -> Option<usize> {
        match self.transport {
            Transport::Tcp { .. } => Some(16),
            Transport::Udp { .. } => Some(6),
            Transport::Echo { .. } => Some(2),
            Transport::Other(_) => None,
        }
    }

    fn fill_checksum(&self, transport: &mut [u8], pseudo: Pseudo, protocol: u8) {
        let Some(at) = self.checksum_at() else { return };
        let mut sum = pseudo_header(pseudo, protocol, transport.len());
        if protocol == 1 {
            sum = chainplane_dataplane::packet::Sum::default();
        }
        let value = match self.quirk {
            Quirk::Partial | Quirk::Gso(_) => sum.folded(),
            Quirk::UdpWithoutChecksum if protocol == 17 => 0,
            Quirk::BadTransportChecksum(value) => value,
            _ => match sum.plus_bytes(transport).finish() {
                0 if protocol == 17 => 0xffff,
                sum => sum,
            },
        };
        transport[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn ttl(&self) -> u8 {
        match self.quirk {
            Quirk::Ttl(ttl) => ttl,
            _ => 64,
        }
    }

    fn tos(&self) -> u8 {
        match self.quirk {
            Quirk::TypeOfService(tos) => tos,
            _ => 0,
        }
    }

    fn ipv4(&self, frame: &mut Vec<u8>, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) {
        let options: &[u8] = if self.quirk == Quirk::Options {
            &[1, 1, 1, 0]
        } else {
            &[]
        };
        let header = 20 + options.len();
        let fragment: u16 = match self.quirk {
            Quirk::FirstFragment => 0x2000,
            Quirk::LaterFragment => 0x0010,
            Quirk::DontFragment | Quirk::Gso(_) => 0x4000,
            _ => 0,
        };
        let at = frame.len();
        frame.extend([0x40 | (header / 4) as u8, self.tos()]);
        frame.extend(((header + len) as u16).to_be_bytes());
        frame.extend((0x1234 ^ (self.salt >> 3) as u16).to_be_bytes());
        frame.extend(fragment.to_be_bytes());
        frame.extend([self.ttl(), protocol, 0, 0]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        frame.extend(options);
        let mut sum = checksum(&frame[at..]);
        if self.quirk == Quirk::BadIpChecksum {
            sum ^= 1;
        }
        frame[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    }

    fn ipv6(&self, frame: &mut Vec<u8>, src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: usize) {
        let extension: Option<[u8; 8]> = match self.quirk {
            Quirk::FirstFragment => Some([protocol, 0, 0, 1, 0, 0, 0, 9]),
            Quirk::LaterFragment => Some([protocol, 0, 0, 16, 0, 0, 0, 9]),
            Quirk::Options => Some([protocol, 0, 1, 4, 0, 0, 0, 0]),
            _ => None,
        };
        let next = match self.quirk {
            Quirk::FirstFragment | Quirk::LaterFragment => 44,
            Quirk::Options => 60,
            _ => protocol,
        };
        let tos = self.tos();
        let label = (self.salt >> 5) as u16;
        frame.extend([0x60 | tos >> 4, tos << 4, (label >> 8) as u8, label as u8]);
        let len = len + extension.map_or(0, |bytes| bytes.len());
        frame.extend((len as u16).to_be_bytes());
        frame.extend([next, self.ttl()]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        frame.extend(extension.into_iter().flatten());
    }

    fn note_offload(&self, offload: &mut Offload, l4: u16, len: usize) {
        let Some(at) = self.checksum_at() else { return };
        match self.quirk {
            Quirk::Partial | Quirk::Gso(_) => {
                offload.needs_checksum = true;
                offload.checksum_start = l4;
                offload.checksum_offset = at as u16;
            }
            Quirk::PartialAt(start) => {
                offload.needs_checksum = true;
                offload.checksum_start = start;
                offload.checksum_offset = at as u16;
            }
            Quirk::PartialInside if len >= 60 => {
                offload.needs_checksum = true;
                offload.checksum_start = l4 + 30;
                offload.checksum_offset = 16;
            }
            _ => {}
        }
        if let Quirk::Gso(size) = self.quirk {
            offload.gso = match self.transport {
                Transport::Tcp { .. } if self.src.is_ipv4() => Gso::Tcp4,
                Transport::Tcp { .. } => Gso::Tcp6,
                Transport::Udp { .. } => Gso::Udp,
                _ => return,
            };
            offload.gso_size = size;
        }
    }

    fn spoil(&self, frame: &mut Vec<u8>) {
        match self.quirk {
            Quirk::Cut(len) => frame.truncate(len as usize),
            Quirk::Padded(count) => frame.resize(frame.len() + count as usize, 0x55),
            Quirk::Flipped(at, bits) => {
                let at = at as usize % frame.len();
                frame[at] ^= bits;
            }
            Quirk::LengthField(value) => {
                let at = if self.src.is_ipv4() { 16 } else { 18 };
                frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
            }
            _ => {}
        }
    }
}

/// What an untagged frame without options says: addresses, transport, MACs. `None` for anything else.
pub fn read(frame: &[u8]) -> Option<Spec> {
    let mac = |at: usize| <MacBytes>::try_from(frame.get(at..at + 6)?).ok();
    let (src, dst, l4, protocol): (IpAddr, IpAddr, usize, u8) = match frame.get(12..14)? {
        [8, 0] if frame.get(14) == Some(&0x45) => {
            let at = |at: usize| <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok();
            (at(26)?.into(), at(30)?.into(), 34, *frame.get(23)?)
        }
        [0x86, 0xdd] => {
            let at = |at: usize| <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok();
            (at(22)?.into(), at(38)?.into(), 54, *frame.get(20)?)
        }
        _ => return None,
    };
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let transport = match protocol {
        6 => Transport::Tcp {
            from: word(l4)?,
            to: word(l4 + 2)?,
            flags: *frame.get(l4 + 13)?,
        },
        17 => Transport::Udp {
            from: word(l4)?,
            to: word(l4 + 2)?,
        },
        1 | 58 if matches!(frame.get(l4)?, 0 | 8 | 128 | 129) => Transport::Echo {
            id: word(l4 + 4)?,
            reply: matches!(frame[l4], 0 | 129),
        },
        other => Transport::Other(other),
    };
    Some(Spec {
        macs: (mac(6)?, mac(0)?),
        src,
        dst,
        transport,
        payload: 0,
        quirk: Quirk::None,
        salt: 0,
    })
}

/// The answer that a host gives to a frame it received.
pub fn answer_to(frame: &[u8], flags: u8, payload: usize) -> Option<Spec> {
    let seen = read(frame)?;
    let transport = match seen.transport {
        Transport::Tcp { from, to, .. } => Transport::Tcp {
            from: to,
            to: from,
            flags,
        },
        Transport::Udp { from, to } => Transport::Udp { from: to, to: from },
        Transport::Echo { id, reply: false } => Transport::Echo { id, reply: true },
        Transport::Echo { .. } | Transport::Other(_) => return None,
    };
    Some(Spec {
        macs: (seen.macs.1, seen.macs.0),
        src: seen.dst,
        dst: seen.src,
        transport,
        payload,
        quirk: Quirk::None,
        salt: 0,
    })
}

/// An ICMP error from `from` about a frame, sent back to whoever it came from.
pub fn error_about(frame: &[u8], from: IpAddr, kind: (u8, u8), keep: usize) -> Option<Vec<u8>> {
    let seen = read(frame)?;
    let quoted = &frame[14..frame.len().min(14 + keep)];
    let mut message = vec![kind.0, kind.1, 0, 0, 0, 0, 5, 0];
    message.extend(quoted);
    let spec = Spec {
        macs: (seen.macs.1, seen.macs.0),
        src: from,
        dst: seen.src,
        transport: Transport::Other(if from.is_ipv4() { 1 } else { 58 }),
        payload: message.len(),
        quirk: Quirk::None,
        salt: 0,
    };
    if from.is_ipv4() != seen.src.is_ipv4() {
        return None;
    }
    let (mut error, _) = spec.build();
    let l4 = if from.is_ipv4() { 34 } else { 54 };
    error.truncate(l4);
    error.extend(&message);
    let sum = match (from, seen.src) {
        (IpAddr::V6(a), IpAddr::V6(b)) => pseudo_header(Pseudo::V6(a, b), 58, message.len())
            .plus_bytes(&message)
            .finish(),
        _ => checksum(&message),
    };
    error[l4 + 2..l4 + 4].copy_from_slice(&sum.to_be_bytes());
    Some(error)
}
