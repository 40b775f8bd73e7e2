//! What several workers copied of one port, as one stream.

use std::time::SystemTime;

use chainplane_dataplane::capture::{Captured, Watch};

/// Watches of the same port, one at each worker that has it.
pub struct Watches(Vec<Source>);

struct Source {
    watch: Watch,
    /// Nanoseconds since 1970 at which the worker's clock was 0.
    start: u64,
    /// The next packet, and its time in nanoseconds since 1970.
    next: Option<(u64, Captured)>,
}

impl Watches {
    /// Watches and the wall-clock times of their clocks' zeros.
    pub fn new(watches: Vec<(Watch, SystemTime)>) -> Self {
        let source = |(watch, start): (Watch, SystemTime)| Source {
            watch,
            start: start
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_nanos() as u64,
            next: None,
        };
        Self(watches.into_iter().map(source).collect())
    }

    /// The oldest packet that is there, and its time in nanoseconds since 1970. What one worker is late with comes after
    /// younger ones of the others: nobody waits for it.
    pub fn next_packet(&mut self) -> Option<(u64, Captured)> {
        for source in &mut self.0 {
            if source.next.is_none() {
                let packet = source.watch.next_packet();
                source.next = packet.map(|packet| (source.start + packet.time.0, packet));
            }
        }
        let waiting = self.0.iter_mut().filter(|source| source.next.is_some());
        let time = |source: &&mut Source| source.next.as_ref().map(|(time, _)| *time);
        waiting.min_by_key(time)?.next.take()
    }

    /// Packets that were not copied as a ring was full.
    pub fn missed(&self) -> u64 {
        self.0.iter().map(|source| source.watch.missed()).sum()
    }

    /// Whether all workers have gone and everything was read.
    pub fn are_over(&self) -> bool {
        let is_over = |source: &Source| source.next.is_none() && source.watch.is_over();
        self.0.iter().all(is_over)
    }
}
