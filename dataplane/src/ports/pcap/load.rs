//! Reads capture files: pcap in all its variants (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).
//!
//! The file is not trusted: each length is held against what is left of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use crate::packet::LARGE;

/// The largest file that is taken into memory.
const LARGEST: u64 = 1 << 30;
const LINK_ETHERNET: u32 = 1;

/// A capture in memory.
#[derive(Debug)]
pub struct Capture {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    offset: usize,
    len: usize,
    /// Nanoseconds since the first packet.
    time: u64,
}

impl Capture {
    /// Packets.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// A packet's bytes, as far as they were captured.
    pub fn packet(&self, index: usize) -> &[u8] {
        let record = &self.records[index];
        &self.bytes[record.offset..record.offset + record.len]
    }

    /// When a packet was captured, from the first one on; never before the packet in front of it.
    pub fn time(&self, index: usize) -> Duration {
        Duration::from_nanos(self.records[index].time)
    }
}

/// Reads a whole file.
///
/// # Errors
/// It can't be read, or what is wrong with its format and where.
pub fn load(path: &Path) -> io::Result<Capture> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 1 GiB"));
    }
    parse(bytes)
}

/// Reads a file from memory.
fn parse(bytes: Vec<u8>) -> io::Result<Capture> {
    let mut reader = Reader {
        bytes: &bytes,
        at: 0,
        big_endian: false,
    };
    let found = match bytes.first_chunk::<4>() {
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => pcapng(&mut reader),
        Some(_) => pcap(&mut reader),
        None => Err("it is too short for a capture file"),
    };
    let at = reader.at;
    let mut records = found.map_err(|wrong| {
        let message = format!("{wrong} (at byte {at})");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })?;
    let first = records.first().map_or(0, |record| record.time);
    let mut last = 0;
    for record in &mut records {
        last = record.time.saturating_sub(first).max(last);
        record.time = last;
    }
    Ok(Capture { bytes, records })
}

type Wrong = &'static str;

const CUT_SHORT: Wrong = "it is cut short";

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        let taken = self.bytes[self.at..].get(..count).ok_or(CUT_SHORT)?;
        self.at += count;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u32, Wrong> {
        let bytes = self.take(4)?.try_into().map_err(|_| CUT_SHORT)?;
        Ok(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    fn half(&mut self) -> Result<u16, Wrong> {
        let bytes = self.take(2)?.try_into().map_err(|_| CUT_SHORT)?;
        Ok(if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }

    /// A packet of `len` bytes that starts here.
    fn record(&mut self, len: usize, time: u64) -> Result<Record, Wrong> {
        if len > LARGE {
            return Err("a packet is longer than any Ethernet packet may be");
        }
        let offset = self.at;
        self.take(len)?;
        Ok(Record { offset, len, time })
    }
}

fn pcap(reader: &mut Reader<'_>) -> Result<Vec<Record>, Wrong> {
    let nanoseconds = match reader.word()? {
        0xa1b2_c3d4 => 1000,
        0xa1b2_3c4d => 1,
        0xd4c3_b2a1 => {
            reader.big_endian = true;
            1000
        }
        0x4d3c_b2a1 => {
            reader.big_endian = true;
            1
        }
        _ => return Err("it is neither a pcap nor a pcapng file"),
    };
    // The version, two fields that nobody uses, and the snap length.
    reader.take(16)?;
    // The upper bits say whether a frame check sequence is there, and how long it is.
    let link = reader.word()?;
    if link & 0xffff != LINK_ETHERNET {
        return Err("its packets are not Ethernet packets");
    }
    if link & 0x0400_0000 != 0 && link >> 28 != 0 {
        return Err("its packets have a frame check sequence at their end");
    }
    let mut records = Vec::new();
    while !reader.is_at_end() {
        let (seconds, fraction) = (reader.word()?, reader.word()?);
        let len = reader.word()? as usize;
        reader.word()?;
        let time = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * nanoseconds;
        records.push(reader.record(len, time)?);
    }
    Ok(records)
}

/// An interface of a pcapng section.
struct Interface {
    snap_len: u32,
    /// Units of its timestamps in a second.
    units: u128,
    /// Seconds to be added to its timestamps.
    offset: i64,
}

impl Interface {
    fn time(&self, stamp: u64) -> u64 {
        let nanoseconds = u128::from(stamp) * 1_000_000_000 / self.units;
        let offset = i128::from(self.offset) * 1_000_000_000;
        u64::try_from(nanoseconds as i128 + offset).unwrap_or(0)
    }
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

fn pcapng(reader: &mut Reader<'_>) -> Result<Vec<Record>, Wrong> {
    let mut records: Vec<Record> = Vec::new();
    let mut interfaces: Vec<Interface> = Vec::new();
    while !reader.is_at_end() {
        let start = reader.at;
        let kind = reader.word()?;
        if kind == SECTION_HEADER {
            section(reader)?;
            interfaces.clear();
        }
        let total = reader.word()? as usize;
        let block = reader.bytes[start..].get(..total).ok_or(CUT_SHORT)?;
        if total < 12 || !total.is_multiple_of(4) {
            return Err("a block's length makes no sense");
        }
        let mut body = Reader {
            bytes: &reader.bytes[..start + total - 4],
            at: start + 8,
            big_endian: reader.big_endian,
        };
        match kind {
            INTERFACE_DESCRIPTION => interfaces.push(interface(&mut body)?),
            ENHANCED_PACKET | OBSOLETE_PACKET => {
                records.push(packet(&mut body, &interfaces, kind)?);
            }
            SIMPLE_PACKET => {
                let time = records.last().map_or(0, |record| record.time);
                records.push(simple_packet(&mut body, &interfaces, time)?);
            }
            // What is not understood is to be skipped.
            _ => {}
        }
        reader.at = start + total - 4;
        if reader.word()? as usize != block.len() {
            return Err("a block's two lengths differ");
        }
    }
    Ok(records)
}

/// Learns the byte order of a section, and stays where it is.
fn section(reader: &mut Reader<'_>) -> Result<(), Wrong> {
    let magic = reader.bytes[reader.at..].get(4..8).ok_or(CUT_SHORT)?;
    reader.big_endian = match magic {
        [0x1a, 0x2b, 0x3c, 0x4d] => true,
        [0x4d, 0x3c, 0x2b, 0x1a] => false,
        _ => return Err("a section's byte order makes no sense"),
    };
    Ok(())
}

fn interface(body: &mut Reader<'_>) -> Result<Interface, Wrong> {
    const RESOLUTION: u16 = 9;
    const OFFSET: u16 = 14;
    let link = body.half()?;
    body.half()?;
    if u32::from(link) != LINK_ETHERNET {
        return Err("its packets are not Ethernet packets");
    }
    let mut interface = Interface {
        snap_len: body.word()?,
        units: 1_000_000,
        offset: 0,
    };
    while !body.is_at_end() {
        let (code, len) = (body.half()?, body.half()? as usize);
        let value = body.take(len)?;
        match (code, value) {
            (0, _) => break,
            (RESOLUTION, [resolution]) => {
                let power = u32::from(resolution & 0x7f);
                let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
                let units = base.checked_pow(power).filter(|units| *units < 1 << 64);
                interface.units = units.ok_or("timestamps finer than any clock")?;
            }
            (OFFSET, value) if len == 8 => {
                let bytes = value.try_into().map_err(|_| CUT_SHORT)?;
                interface.offset = if body.big_endian {
                    i64::from_be_bytes(bytes)
                } else {
                    i64::from_le_bytes(bytes)
                };
            }
            _ => {}
        }
        // Options are padded to words; the last need not be.
        let padding = len.next_multiple_of(4) - len;
        body.take(padding.min(body.bytes.len() - body.at))?;
    }
    Ok(interface)
}

fn packet(body: &mut Reader<'_>, interfaces: &[Interface], kind: u32) -> Result<Record, Wrong> {
    let index = if kind == ENHANCED_PACKET {
        body.word()? as usize
    } else {
        // With a count of drops behind it.
        let index = body.half()? as usize;
        body.half()?;
        index
    };
    let interface = interfaces
        .get(index)
        .ok_or("a packet of an interface that was not described")?;
    let (high, low) = (body.word()?, body.word()?);
    let len = body.word()? as usize;
    body.word()?;
    let time = interface.time(u64::from(high) << 32 | u64::from(low));
    body.record(len, time)
}

fn simple_packet(
    body: &mut Reader<'_>,
    interfaces: &[Interface],
    time: u64,
) -> Result<Record, Wrong> {
    let interface = interfaces
        .first()
        .ok_or("a packet of an interface that was not described")?;
    let len = body.word()?;
    let captured = match interface.snap_len {
        0 => len,
        snap_len => len.min(snap_len),
    };
    body.record(captured as usize, time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcapng;
    use proptest::prelude::*;

    fn classic(magic: u32, big: bool, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let word = |value: u32| {
            if big {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            }
        };
        let mut file = word(magic).to_vec();
        file.extend([0; 16]);
        file.extend(word(1));
        for (seconds, fraction, bytes) in packets {
            let len = bytes.len() as u32;
            let header = [*seconds, *fraction, len, len].map(word);
            file.extend(header.as_flattened());
            file.extend(*bytes);
        }
        file
    }

    fn read(capture: &Capture) -> Vec<(u64, Vec<u8>)> {
        (0..capture.len())
            .map(|i| {
                (
                    capture.time(i).as_nanos() as u64,
                    capture.packet(i).to_vec(),
                )
            })
            .collect()
    }

    #[test]
    fn all_variants_of_pcap_are_read() {
        let packets: [(u32, u32, &[u8]); 3] = [(5, 10, b"one"), (6, 5, b"three"), (4, 0, b"")];
        for (magic, unit) in [(0xa1b2_c3d4, 1000), (0xa1b2_3c4d, 1)] {
            for big in [false, true] {
                let capture = parse(classic(magic, big, &packets)).unwrap();
                let second = 1_000_000_000 - 5 * unit;
                // Time never goes back.
                let expected = [
                    (0, b"one".to_vec()),
                    (second, b"three".to_vec()),
                    (second, vec![]),
                ];
                assert_eq!(read(&capture), expected);
            }
        }
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = (body.len() + 12) as u32;
        [
            &kind.to_be_bytes()[..],
            &len.to_be_bytes(),
            body,
            &len.to_be_bytes(),
        ]
        .concat()
    }

    #[test]
    fn pcapng_is_read_with_each_interfaces_clock() {
        let mut file = block(
            SECTION_HEADER,
            &[
                0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255,
            ],
        );
        file.extend(block(INTERFACE_DESCRIPTION, &[0, 1, 0, 0, 0, 0, 0, 3]));
        let seconds = [0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0];
        file.extend(block(INTERFACE_DESCRIPTION, &seconds));
        file.extend(block(0xbad, &[0; 8]));
        let enhanced = |interface: u8, stamp: u32| {
            let mut body = vec![0, 0, 0, interface, 0, 0, 0, 0];
            body.extend(stamp.to_be_bytes());
            body.extend([0, 0, 0, 2, 0, 0, 0, 9, 7, 8, 0, 0]);
            block(ENHANCED_PACKET, &body)
        };
        file.extend(enhanced(0, 5_000_000));
        file.extend(enhanced(1, 6));
        file.extend(block(SIMPLE_PACKET, &[0, 0, 0, 4, 1, 2, 3, 4]));
        let capture = parse(file).unwrap();
        let second = 1_000_000_000;
        assert_eq!(
            read(&capture),
            [
                (0, vec![7, 8]),
                (second, vec![7, 8]),
                (second, vec![1, 2, 3])
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let good = classic(0xa1b2_c3d4, false, &[(0, 0, b"packet")]);
        let mut loopback = good.clone();
        loopback[20] = 113;
        let mut long = good.clone();
        long[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        let cases: [(&[u8], &str); 6] = [
            (b"", "too short"),
            (b"#!/bin/sh", "neither"),
            (&good[..45], "cut short (at byte 40)"),
            (&good[..30], "cut short"),
            (&loopback, "not Ethernet"),
            (&long, "longer than any"),
        ];
        for (file, expected) in cases {
            let error = parse(file.to_vec()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn damaged_files_are_refused_or_read(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<proptest::sample::Index>(), ng: bool,
        ) {
            let mut file = Vec::new();
            if ng {
                let mut writer = pcapng::Writer::new(&mut file, "port").unwrap();
                for (index, packet) in packets.iter().enumerate() {
                    writer.packet(index as u64 * 7, false, packet.len() as u32, packet).unwrap();
                }
            } else {
                let packets: Vec<_> = packets.iter().map(|packet| (0, 0, &packet[..])).collect();
                file = classic(0xa1b2_c3d4, false, &packets);
            }
            let capture = parse(file.clone()).unwrap();
            let read: Vec<_> = read(&capture).into_iter().map(|(_, packet)| packet).collect();
            prop_assert_eq!(read, packets);
            for (at, value) in changes {
                let at = at.index(file.len());
                file[at] = value;
            }
            file.truncate(cut.index(file.len() + 1));
            if let Ok(capture) = parse(file) {
                (0..capture.len()).for_each(|index| drop(capture.packet(index).to_vec()));
            }
        }
    }
}
