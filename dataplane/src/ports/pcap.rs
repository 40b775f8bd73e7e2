//! Capture files: packets come in from one, and go out to another.
//!
//! What is replayed is read into memory when the port is opened, so that the worker never waits for a disk; what is
//! recorded goes over a bounded ring to a thread that writes it.

mod load;
mod record;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use self::load::{Capture, load as capture_file};
use self::record::Recorder;
use crate::packet::{Batch, Packet};
use crate::port::{Port, PortContext};
use crate::time::Time;

/// When replayed packets come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// With the gaps they were captured with.
    #[default]
    Original,
    /// As fast as they are taken.
    Fast,
}

/// A capture to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// A pcap or pcapng file of Ethernet packets, 1 GiB at most.
    pub path: PathBuf,
    /// When its packets come in.
    pub timing: Timing,
    /// How often, 1 at least.
    pub repeat: u64,
}

/// How a pcap port is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcapConfig {
    /// What comes in; nothing without.
    pub replay: Option<Replay>,
    /// The file that takes what is sent, in the pcap format with nanoseconds, made anew; without one, what is sent
    /// is counted, and that is all.
    pub record: Option<PathBuf>,
}

/// A pcap port. Dropping it waits until what was recorded is written.
pub struct Pcap {
    replay: Option<Player>,
    record: Option<Recorder>,
}

impl Pcap {
    /// Reads the capture and makes the record.
    ///
    /// # Errors
    /// With the file's name and what is wrong with it: it can't be read or made, is too large, of another format, not
    /// of Ethernet, or damaged.
    pub fn open(config: &PcapConfig) -> io::Result<Self> {
        let replay = config.replay.as_ref().map(Player::open).transpose()?;
        let record = config.record.as_deref().map(Recorder::open).transpose()?;
        Ok(Self { replay, record })
    }
}

impl Port for Pcap {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        if let Some(player) = &mut self.replay {
            player.play(cx, batch);
        }
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        if let Some(recorder) = &mut self.record {
            recorder.record(cx, batch);
        } else {
            let bytes: usize = batch.iter().map(Packet::len).sum();
            cx.tally.sent(batch.len() as u64, bytes as u64);
        }
        batch.clear();
    }

    fn arm(&mut self) -> bool {
        self.replay.as_ref().is_some_and(Player::is_due)
    }

    fn deadline(&self) -> Option<Time> {
        self.replay.as_ref()?.next_time()
    }

    fn is_finished(&self) -> bool {
        self.replay.as_ref().is_none_or(|player| player.left == 0)
    }
}

/// A capture on its way in.
struct Player {
    capture: Capture,
    timing: Timing,
    /// Passes still to go, the present one included.
    left: u64,
    /// Packets of this pass that have come in.
    at: usize,
    /// When this pass began; `None` before the first poll.
    began: Option<Time>,
    now: Time,
}

impl Player {
    fn open(config: &Replay) -> io::Result<Self> {
        let wrong = |error: io::Error| {
            let message = format!("cannot replay `{}`: {error}", config.path.display());
            io::Error::new(error.kind(), message)
        };
        if config.repeat == 0 {
            return Err(wrong(io::Error::other(
                "it has to be replayed at least once",
            )));
        }
        let capture = load::load(&config.path).map_err(wrong)?;
        Ok(Self {
            left: if capture.is_empty() { 0 } else { config.repeat },
            capture,
            timing: config.timing,
            at: 0,
            began: None,
            now: Time(0),
        })
    }

    fn next_time(&self) -> Option<Time> {
        if self.left == 0 {
            return None;
        }
        Some(match self.timing {
            Timing::Fast => Time(0),
            Timing::Original => self.began.unwrap_or(self.now) + self.capture.time(self.at),
        })
    }

    fn is_due(&self) -> bool {
        self.next_time().is_some_and(|time| time <= self.now)
    }

    fn play(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        self.now = cx.now;
        self.began.get_or_insert(cx.now);
        while !batch.is_full() && self.is_due() {
            // Without a free buffer the packet comes in later.
            let Some(packet) = cx.pool.copy_of(self.capture.packet(self.at)) else {
                return;
            };
            batch.push(packet);
            self.advance();
        }
    }

    fn advance(&mut self) {
        self.at += 1;
        if self.at < self.capture.len() {
            return;
        }
        (self.at, self.left) = (0, self.left - 1);
        self.began = self.began.map(|began| began + self.capture.period());
    }
}

impl Capture {
    /// From the start of one pass to that of the next: the last packet is followed by a gap of mean length.
    fn period(&self) -> Duration {
        let last = self.time(self.len().saturating_sub(1));
        let gaps = u32::try_from(self.len().saturating_sub(1)).unwrap_or(u32::MAX);
        last + last.checked_div(gaps).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
