//! Writes what a port sends to a pcap file, by a thread of its own.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::capture::{self, SNAP_LEN, Tap, Watch};
use crate::packet::Packet;
use crate::port::{PortContext, PortDrop};

/// Bytes between the worker and the writer: what ten million small packets a second need for two pauses.
const RING: usize = 16 << 20;
/// How long the writer sleeps when there is nothing to write.
const PAUSE: Duration = Duration::from_millis(10);

/// The worker's side. Dropping it waits until everything is in the file.
pub struct Recorder {
    /// Gone only while the recorder is dropped.
    tap: Option<Tap>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Nanoseconds from 1970 to the worker's time 0; 0 until the first packet.
    start: AtomicU64,
    failed: AtomicBool,
}

impl Recorder {
    pub fn open(path: &Path) -> io::Result<Self> {
        let wrong = |error: io::Error| {
            let message = format!("cannot record to `{}`: {error}", path.display());
            io::Error::new(error.kind(), message)
        };
        let mut file = BufWriter::new(File::create(path).map_err(wrong)?);
        file.write_all(&header()).map_err(wrong)?;
        file.flush().map_err(wrong)?;
        let (tap, watch) = capture::tap(RING);
        let shared = Arc::new(Shared::default());
        let (theirs, name) = (Arc::clone(&shared), path.display().to_string());
        let writer = std::thread::Builder::new()
            .name("pcap-writer".to_owned())
            .spawn(move || {
                if let Err(error) = write(file, watch, &theirs) {
                    theirs.failed.store(true, Ordering::Relaxed);
                    tracing::error!(%error, file = name, "recording has ended");
                }
            })
            .map_err(wrong)?;
        Ok(Self {
            tap: Some(tap),
            shared,
            writer: Some(writer),
        })
    }

    /// Hands packets to the writer. Those it has no room for, and all once the file can't be written, are dropped.
    pub fn record(&mut self, cx: &PortContext<'_>, packets: &[Packet]) {
        if self.shared.failed.load(Ordering::Relaxed) {
            return cx.tally.drop(PortDrop::Refused, packets.len() as u64);
        }
        if self.shared.start.load(Ordering::Relaxed) == 0 {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let start = now.unwrap_or_default().as_nanos() as u64;
            let start = start.saturating_sub(cx.now.0).max(1);
            // Published with the packets, by the ring.
            self.shared.start.store(start, Ordering::Relaxed);
        }
        for packet in packets {
            let written = self
                .tap
                .as_mut()
                .is_some_and(|tap| tap.copy(packet, cx.now, true));
            if written {
                cx.tally.sent(1, packet.len() as u64);
            } else {
                cx.tally.drop(PortDrop::Full, 1);
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.tap = None;
        if let Some(writer) = self.writer.take() {
            // It has reported what it failed with.
            let _ = writer.join();
        }
    }
}

/// The header of a pcap file with nanoseconds, of Ethernet packets.
fn header() -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&0xa1b2_3c4d_u32.to_le_bytes());
    header[4] = 2;
    header[6] = 4;
    header[16..20].copy_from_slice(&(SNAP_LEN as u32).to_le_bytes());
    header[20] = 1;
    header
}

fn write(mut file: BufWriter<File>, mut watch: Watch, shared: &Shared) -> io::Result<()> {
    loop {
        // Looked at before the ring: what was sent before the end is still written.
        let over = watch.is_over();
        while let Some(packet) = watch.next_packet() {
            let time = shared.start.load(Ordering::Relaxed) + packet.time.0;
            let (seconds, nanoseconds) = (time / 1_000_000_000, time % 1_000_000_000);
            let words = [
                seconds as u32,
                nanoseconds as u32,
                packet.bytes.len() as u32,
                packet.len,
            ];
            for word in words {
                file.write_all(&word.to_le_bytes())?;
            }
            file.write_all(&packet.bytes)?;
        }
        file.flush()?;
        if over {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}
