//! Writes pcapng (draft-ietf-opsawg-pcapng): one section, one Ethernet interface, nanosecond timestamps.

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINK_ETHERNET: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_FLAGS: u16 = 2;
const OPTION_DROP_COUNT: u16 = 4;
const OPTION_RESOLUTION: u16 = 9;
/// Bits 0 and 1 of a packet's flags: its direction.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A capture file being written.
pub struct Writer<W> {
    out: W,
    block: Vec<u8>,
    missed: u64,
    missed_written: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file with packets of the interface `name`.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn new(out: W, name: &str) -> io::Result<Self> {
        let mut writer = Self {
            out,
            block: Vec::with_capacity(2048),
            missed: 0,
            missed_written: 0,
        };
        writer.begin();
        writer.word(BYTE_ORDER_MAGIC);
        writer.half(1);
        writer.half(0);
        // The section's length is not known.
        writer.block.extend(u64::MAX.to_le_bytes());
        writer.end(SECTION_HEADER)?;
        writer.begin();
        writer.half(LINK_ETHERNET);
        writer.half(0);
        writer.word(0);
        writer.option(OPTION_NAME, &name.as_bytes()[..name.len().min(255)]);
        // Powers of ten: nanoseconds.
        writer.option(OPTION_RESOLUTION, &[9]);
        writer.word(0);
        writer.end(INTERFACE_DESCRIPTION)?;
        Ok(writer)
    }

    /// Says how many packets the capture has missed since its beginning; the next packet tells the reader.
    pub fn missed(&mut self, total: u64) {
        self.missed = total;
    }

    /// Writes a packet of which `bytes` are the first of `len`; `time` counts nanoseconds from 1970 on.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn packet(&mut self, time: u64, sent: bool, len: u32, bytes: &[u8]) -> io::Result<()> {
        self.begin();
        self.word(0);
        self.word((time >> 32) as u32);
        self.word(time as u32);
        self.word(bytes.len() as u32);
        self.word(len);
        self.padded(bytes);
        let direction = if sent { OUTBOUND } else { INBOUND };
        self.option(OPTION_FLAGS, &direction.to_le_bytes());
        let missed = self.missed.saturating_sub(self.missed_written);
        if missed > 0 {
            self.option(OPTION_DROP_COUNT, &missed.to_le_bytes());
            self.missed_written = self.missed;
        }
        self.word(0);
        self.end(ENHANCED_PACKET)
    }

    /// Hands what was written on.
    ///
    /// # Errors
    /// What flushing fails with.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn begin(&mut self) {
        self.block.clear();
    }

    fn half(&mut self, value: u16) {
        self.block.extend(value.to_le_bytes());
    }

    fn word(&mut self, value: u32) {
        self.block.extend(value.to_le_bytes());
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.block.extend(bytes);
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.half(code);
        self.half(value.len() as u16);
        self.padded(value);
    }

    /// A block's length stands before and behind it.
    fn end(&mut self, kind: u32) -> io::Result<()> {
        let len = (self.block.len() as u32 + 12).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&len)?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_framed_by_their_length() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "uplink").unwrap();
        writer
            .packet(1_700_000_000_123_456_789, true, 100, b"seven b")
            .unwrap();
        let mut kinds = Vec::new();
        let mut rest = &file[..];
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(len - 4) as usize, len);
            kinds.push(word(0));
            rest = &rest[len..];
        }
        assert_eq!(
            kinds,
            [SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET]
        );
    }

    #[test]
    fn tshark_reads_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.as_file(), "uplink").unwrap();
        let mut packet = [0; 60];
        packet[12..14].copy_from_slice(&[0x88, 0xb5]);
        writer.packet(1_000_000_007, false, 60, &packet).unwrap();
        writer.missed(3);
        writer.packet(1_000_000_009, true, 90, &packet).unwrap();
        writer.packet(1_000_000_009, true, 60, &packet).unwrap();
        let fields = [
            "frame.time_epoch",
            "frame.interface_name",
            "frame.packet_flags_direction",
            "frame.len",
            "frame.drop_count",
        ];
        let output = std::process::Command::new("tshark")
            .args(["-n", "-T", "fields"])
            .args(fields.iter().flat_map(|field| ["-e", field]))
            .arg("-r")
            .arg(file.path())
            .output();
        let Ok(output) = output else {
            return crate::testing::leave_out("tshark");
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<_> = text.lines().map(|line| line.replace('\t', " ")).collect();
        assert_eq!(
            lines,
            [
                "1.000000007 uplink 0x00000001 60 ",
                "1.000000009 uplink 0x00000002 90 3",
                "1.000000009 uplink 0x00000002 60 ",
            ]
        );
    }
}
