//! The log of written pages: what a migrating front end copies by it is what the guest has.

mod common;

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use chainplane_vhost::backend::DeviceConfig;
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig, PageLog, RingLayout};
use chainplane_vhost::event::Event;
use chainplane_vhost::memory::Mapping;
use chainplane_vhost::net::{NetHeader, feature};
use common::{Echo, connect, ping, socket, wait_for};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::{VhostBackend, VhostUserDirtyLogRegion};

const PAGE: usize = 4096;

/// Memory at the destination of a migration.
struct Destination {
    source: Arc<Mapping>,
    copy: Vec<u8>,
}

impl Destination {
    /// A copy of everything, as a migration begins.
    fn new(source: &Arc<Mapping>) -> Self {
        let mut copy = vec![0; source.len()];
        source.read(0, &mut copy);
        Self {
            source: source.clone(),
            copy,
        }
    }

    /// Copies what was written since the last time; tells how many pages that were.
    fn sync(&mut self, log: &PageLog) -> usize {
        let pages = log.take();
        for page in &pages {
            self.source.read(*page, &mut self.copy[*page..][..PAGE]);
        }
        pages.len()
    }

    /// Asserts that a part of memory has arrived.
    fn assert_same(&self, what: &str, range: Range<usize>) {
        let mut now = vec![0; range.len()];
        self.source.read(range.start, &mut now);
        let differs = now.iter().zip(&self.copy[range]).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{what} differs at this offset");
    }
}

/// What the device writes of a queue, by name; all of it starts at a page of its own.
fn written(queue: usize, layout: &RingLayout) -> Vec<(&'static str, Range<usize>)> {
    let size = usize::from(layout.size);
    let mut parts = vec![("used ring", layout.used..layout.used + 6 + 8 * size)];
    if queue.is_multiple_of(2) {
        let end = layout.buffers + size * layout.buffer_size;
        parts.push(("receive buffers", layout.buffers..end));
    }
    parts
}

/// Migrates under traffic: copies what the log names while frames come and go, stops the queues,
/// copies the rest, and compares.
fn migrate(features: u64, lens: &[usize]) {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let config = FrontEndConfig {
        features,
        // Used rings of three pages.
        queue_size: 1024,
        ..FrontEndConfig::new(&path)
    };
    let (mut front_end, mut pairs) = FrontEnd::connect(config).expect("connects");
    ping(&mut pairs[0], lens);
    let log = front_end.start_log(&pairs).expect("logs");
    let mut destination = Destination::new(front_end.memory());
    for _ in 0..10 {
        ping(&mut pairs[0], lens);
        assert!(destination.sync(&log) > 0, "nothing was logged");
    }
    let bases = front_end.stop().expect("stops");
    destination.sync(&log);
    let layouts = front_end.layouts().to_vec();
    for (queue, layout) in layouts.iter().enumerate() {
        for (what, range) in written(queue, layout) {
            destination.assert_same(what, range);
        }
    }
    assert_eq!(echo.status().last_error, None);

    // The source goes on, as after a migration that failed, and logs no more.
    front_end.stop_log(&pairs).expect("stops logging");
    front_end.resume(&pairs, &bases).expect("resumes");
    ping(&mut pairs[0], lens);
    assert!(log.take().is_empty());
}

const FRAMES: [usize; 7] = [60, 1500, 9000, 64, 20_000, 300, 65_000];

#[test]
fn everything_written_is_logged() {
    migrate(FrontEndConfig::new("").features, &FRAMES.repeat(8));
}

#[test]
fn everything_written_is_logged_without_event_index() {
    migrate(feature::VERSION_1 | feature::MRG_RXBUF, &FRAMES.repeat(8));
}

/// In a packed ring both sides write the same descriptors, so that the copy can't be compared: the
/// driver's own writes are the VMM's to know.
#[test]
fn packed_rings_are_logged() {
    for features in [0, feature::IN_ORDER] {
        let features = features | feature::RING_PACKED | FrontEndConfig::new("").features;
        migrate(features, &FRAMES.repeat(8));
        let (_dir, path) = socket();
        let _echo = Echo::start(DeviceConfig::new(&path));
        let config = FrontEndConfig {
            features,
            queue_size: 1024,
            ..FrontEndConfig::new(&path)
        };
        let (mut front_end, mut pairs) = FrontEnd::connect(config).expect("connects");
        let log = front_end.start_log(&pairs).expect("logs");
        ping(&mut pairs[0], &[60; 2000]);
        let pages = log.take();
        for layout in front_end.layouts() {
            for page in [0, 1, 2, 3].map(|page| layout.desc + page * PAGE) {
                assert!(pages.contains(&page), "{page:#x} is missing");
            }
        }
    }
}

#[test]
fn only_what_is_written_is_logged() {
    let (_dir, path) = socket();
    let _echo = Echo::start(DeviceConfig::new(&path));
    let (mut front_end, mut pairs) = connect(&path);
    let log = front_end.start_log(&pairs).expect("logs");
    log.take();
    ping(&mut pairs[0], &[60; 20]);
    let layouts = front_end.layouts().to_vec();
    let parts: Vec<_> = layouts
        .iter()
        .enumerate()
        .flat_map(|(queue, layout)| written(queue, layout))
        .collect();
    let pages = log.take();
    for page in &pages {
        assert!(
            parts.iter().any(|(_, range)| range.contains(page)),
            "page at {page:#x} is none that the device writes"
        );
    }
    // 20 buffers of 2 KiB, and two used rings.
    assert!((12..=13).contains(&pages.len()), "{pages:x?}");
}

#[test]
fn logging_starts_and_stops_while_frames_pass() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let (mut front_end, mut pairs) = connect(&path);
    for _ in 0..50 {
        let pair: &mut DriverPair = &mut pairs[0];
        for _ in 0..20 {
            pair.transmit.send(NetHeader::default(), &[7; 200]);
        }
        pair.transmit.flush();
        let log = front_end.start_log(&pairs).expect("logs");
        let mut back = 0;
        wait_for("the frames", || {
            back += pairs[0].receive.receive(64, |_, _| {});
            back == 20
        });
        front_end.stop_log(&pairs).expect("stops logging");
        log.take();
        ping(&mut pairs[0], &[100; 3]);
        assert!(log.take().is_empty());
    }
    assert_eq!(echo.status().connections, 1);
}

#[test]
fn changes_of_the_log_are_told_to_who_wants_to_know() {
    let (_dir, path) = socket();
    let _echo = Echo::start(DeviceConfig::new(&path));
    let (mut front_end, mut pairs) = connect(&path);
    let event = Event::new().expect("eventfd");
    front_end
        .messages()
        .set_log_fd(event.as_fd().as_raw_fd())
        .expect("takes an event");
    ping(&mut pairs[0], &[60; 5]);
    assert!(!event.clear(), "nothing is logged yet");
    let _log = front_end.start_log(&pairs).expect("logs");
    ping(&mut pairs[0], &[60; 5]);
    wait_for("the event", || event.clear());
}

/// A log is asked for by a message that has no negative answer; so the connection ends.
#[test]
fn logs_that_do_not_fit_end_the_connection() {
    let file = |len: u64| {
        let fd = memfd_create("log", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fd, len).expect("size");
        fd
    };
    let (reader, _writer) = rustix::pipe::pipe().expect("pipe");
    for (log, size, offset) in [
        // Too short for the memory; shorter than its size; at no place; no file.
        (file(4096), 4096, 0),
        (file(1 << 20), 2 << 20, 0),
        (file(1 << 20), 1 << 20, u64::MAX - (1 << 20)),
        (reader, 1 << 20, 0),
    ] {
        let (_dir, path) = socket();
        let echo = Echo::start(DeviceConfig::new(&path));
        let (front_end, _pairs) = connect(&path);
        let region = VhostUserDirtyLogRegion {
            mmap_size: size,
            mmap_offset: offset,
            mmap_handle: log.as_raw_fd(),
        };
        front_end
            .messages()
            .set_log_base(0, Some(region))
            .expect_err("refused");
        wait_for("the end", || !echo.status().connected);
        let (_front_end, mut pairs) = connect(&path);
        ping(&mut pairs[0], &[60; 5]);
    }
}
