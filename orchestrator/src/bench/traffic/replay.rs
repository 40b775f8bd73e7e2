//! Capture files as traffic.

use std::collections::HashMap;
use std::path::Path;

use chainplane_dataplane::packet::{ethertype, protocol};
use chainplane_dataplane::ports::capture_file;

use super::packets::{Capture, MAX_FLOWS};
use super::{fill, head};
use crate::bench::trial::BenchError;

/// Addresses and ports of a captured packet, in the order in which they stand there.
type Key = (bool, u8, [Vec<u8>; 2], [u16; 2]);

/// Reads a capture file: each TCP or UDP packet gives its length, its flow and its direction; whoever sent a flow's
/// first packet is on the first side. Other packets, fragments, and what is longer than a longest frame are left out;
/// packets that are too short for their stamp become as long as it needs.
///
/// # Errors
/// A file that can't be read, or without any such packet.
pub fn read(path: &Path) -> Result<Capture, BenchError> {
    let refuse = |text: String| BenchError::Arguments(format!("{}: {text}", path.display()));
    let file = capture_file(path).map_err(|error| refuse(error.to_string()))?;
    let mut capture = Capture {
        packets: [Vec::new(), Vec::new()],
        flows: Vec::new(),
    };
    let mut known: HashMap<Key, (u32, usize)> = HashMap::new();
    for index in 0..file.len() {
        let bytes = file.packet(index);
        let Some((key, len)) = key(bytes) else {
            continue;
        };
        let (v6, tcp) = (key.0, key.1 == protocol::TCP);
        let (flow, direction) = match known.get(&key) {
            Some(found) => *found,
            None if capture.flows.len() == MAX_FLOWS as usize => continue,
            None => {
                let flow = capture.flows.len() as u32;
                capture.flows.push((v6, tcp));
                let (version, next, [src, dst], [from, to]) = key.clone();
                known.insert((version, next, [dst, src], [to, from]), (flow, 1));
                known.insert(key, (flow, 0));
                (flow, 0)
            }
        };
        let len = len.max(head::shortest(v6, tcp).max(60));
        if len <= fill::MAX_FRAME {
            capture.packets[direction].push((flow, len as u16));
        }
    }
    if capture.packets[0].is_empty() {
        return Err(refuse("no TCP or UDP packet in it".into()));
    }
    Ok(capture)
}

/// Addresses, protocol and ports of a packet, and its frame's length.
fn key(frame: &[u8]) -> Option<(Key, usize)> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut l3 = 14;
    let mut ty = word(12)?;
    while matches!(ty, ethertype::VLAN | ethertype::SERVICE_VLAN) && l3 < 22 {
        ty = word(l3 + 2)?;
        l3 += 4;
    }
    let (next, l4, addresses, len) = match ty {
        ethertype::IPV4 => {
            let header = 4 * usize::from(frame.get(l3)? & 15);
            if word(l3 + 6)? & 0x3fff != 0 || header < 20 {
                return None;
            }
            let addresses = [frame.get(l3 + 12..l3 + 16)?, frame.get(l3 + 16..l3 + 20)?];
            let len = usize::from(word(l3 + 2)?);
            (*frame.get(l3 + 9)?, l3 + header, addresses, len)
        }
        ethertype::IPV6 => {
            let addresses = [frame.get(l3 + 8..l3 + 24)?, frame.get(l3 + 24..l3 + 40)?];
            let len = 40 + usize::from(word(l3 + 4)?);
            (*frame.get(l3 + 6)?, l3 + 40, addresses, len)
        }
        _ => return None,
    };
    if !matches!(next, protocol::TCP | protocol::UDP) {
        return None;
    }
    let ports = [word(l4)?, word(l4 + 2)?];
    let addresses = addresses.map(<[u8]>::to_vec);
    // VLAN tags are not replayed.
    Some(((ty == ethertype::IPV6, next, addresses, ports), 14 + len))
}
