//! Frames in which ports of pools have the same numbers, whatever the NAT chose.

use std::net::{IpAddr, Ipv4Addr};

use chainplane_dataplane::packet::{Pseudo, Sum, pseudo_header};
use chainplane_dataplane::sim::Frame;

use super::names::{ICMP, Names, TCP, UDP};

/// What a transport's checksum is. By how much a wrong one is wrong does not count: answers to two frames that differ in
/// ports are given the same wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Checksum {
    Right,
    Absent,
    Wrong,
}

/// What is compared of a frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plain {
    /// Packets of which this is the same have to leave in order; `None` for those that have none to keep, like errors.
    pub flow: Option<Vec<u8>>,
    bytes: Vec<u8>,
    sum: Checksum,
    offload: String,
}

/// Where headers of an untagged or tagged IPv4 frame are.
struct Places {
    l3: usize,
    l4: usize,
    end: usize,
    protocol: u8,
}

impl Plain {
    pub fn of(frame: &Frame, names: &Names) -> Self {
        let mut plain = Self {
            flow: None,
            bytes: frame.bytes.clone(),
            sum: Checksum::Right,
            offload: format!("{:?}", frame.offload),
        };
        if let Some(places) = places(&frame.bytes) {
            plain.sum = checksum_of(frame, &places);
            plain.rename(&places, names);
        } else if frame.bytes.get(12..14) == Some(&[0x86, 0xdd]) {
            plain.flow = frame.bytes.get(22..58).map(<[u8]>::to_vec);
        }
        plain
    }

    fn rename(&mut self, places: &Places, names: &Names) {
        let bytes = &mut self.bytes;
        let is_error = places.protocol == ICMP && matches!(bytes[places.l4], 3 | 11 | 12);
        rename(bytes, places, names);
        if is_error {
            let l3 = places.l4 + 8;
            if let Some(quoted) = places_at(bytes, l3, places.end) {
                rename(bytes, &quoted, names);
            }
        } else {
            let mut flow = bytes[places.l3 + 12..places.l3 + 20].to_vec();
            flow.push(places.protocol);
            match places.protocol {
                TCP | UDP => flow.extend(&bytes[places.l4..places.l4 + 4]),
                _ => flow.extend(&bytes[places.l4..places.l4 + 6]),
            }
            self.flow = Some(flow);
        }
    }
}

fn places(bytes: &[u8]) -> Option<Places> {
    let mut at = 12;
    while matches!(bytes.get(at..at + 2)?, [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    (bytes.get(at..at + 2)? == [8, 0]).then_some(())?;
    places_at(bytes, at + 2, bytes.len())
}

/// Of a packet that has ports or an echo's identifier, or is an ICMP error.
fn places_at(bytes: &[u8], l3: usize, end: usize) -> Option<Places> {
    let header = bytes.get(l3..l3 + 20)?;
    let l4 = l3 + (header[0] & 15) as usize * 4;
    let len = u16::from_be_bytes([header[2], header[3]]) as usize;
    let later = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let protocol = header[9];
    let known = match protocol {
        TCP | UDP => true,
        ICMP => matches!(bytes.get(l4)?, 0 | 3 | 8 | 11 | 12),
        _ => false,
    };
    let end = end.min(l3 + len);
    (header[0] >> 4 == 4 && !later && known && end >= l4 + 8).then_some(Places {
        l3,
        l4,
        end,
        protocol,
    })
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

/// Gives ports their names, and leaves checksums out.
fn rename(bytes: &mut [u8], places: &Places, names: &Names) {
    let ends = [places.l3 + 12, places.l3 + 16].map(|at| IpAddr::V4(address(bytes, at)));
    let (l4, sum) = (places.l4, places.l4 + checksum_at(places.protocol));
    let ports = match (places.protocol, bytes[l4]) {
        (TCP | UDP, _) => vec![(l4, ends[0]), (l4 + 2, ends[1])],
        (_, 8) => vec![(l4 + 4, ends[0])],
        (_, 0) => vec![(l4 + 4, ends[1])],
        _ => Vec::new(),
    };
    for (at, address) in ports {
        let port = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let port = names.port(places.protocol, address, port);
        bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
    }
    if let Some(sum) = bytes.get_mut(sum..sum + 2) {
        sum.fill(0);
    }
}

fn checksum_at(protocol: u8) -> usize {
    match protocol {
        TCP => 16,
        UDP => 6,
        _ => 2,
    }
}

/// The transport's checksum; of one that is left to be completed, and covers addresses alone, whether it is right so far.
fn checksum_of(frame: &Frame, places: &Places) -> Checksum {
    let (l4, field) = (places.l4, places.l4 + checksum_at(places.protocol));
    let body = &frame.bytes[l4..places.end];
    let (src, dst) = (
        address(&frame.bytes, places.l3 + 12),
        address(&frame.bytes, places.l3 + 16),
    );
    let pseudo = match places.protocol {
        ICMP => Sum::default(),
        protocol => pseudo_header(Pseudo::V4(src, dst), protocol, body.len()),
    };
    let Some(sum) = frame.bytes.get(field..field + 2) else {
        return Checksum::Absent;
    };
    if sum == [0, 0] && places.protocol == UDP {
        return Checksum::Absent;
    }
    let undone = frame.offload.needs_checksum && frame.offload.checksum_start as usize == l4;
    let right = if undone {
        sum == pseudo.folded().to_be_bytes()
    } else {
        pseudo.plus_bytes(body).folded() == 0xffff
    };
    if right {
        Checksum::Right
    } else {
        Checksum::Wrong
    }
}
