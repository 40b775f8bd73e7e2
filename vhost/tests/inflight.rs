//! In-flight tracking over a real socket (vhost-user, "Inflight I/O tracking").

mod common;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use chainplane_vhost::backend::DeviceConfig;
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{NetHeader, feature};
use common::{Echo, ping, socket, wait_for};
use rustix::fs::{MemfdFlags, fcntl_get_seals, ftruncate, memfd_create};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

const FORMATS: [u64; 4] = [
    0,
    feature::IN_ORDER,
    feature::RING_PACKED,
    feature::RING_PACKED | feature::IN_ORDER,
];

fn config(path: &std::path::Path, features: u64) -> FrontEndConfig {
    let mut config = FrontEndConfig {
        inflight: true,
        queue_pairs: 2,
        ..FrontEndConfig::new(path)
    };
    config.features |= features;
    config
}

fn device(path: &std::path::Path) -> DeviceConfig {
    DeviceConfig {
        queue_pairs: 2,
        ..DeviceConfig::new(path)
    }
}

fn ping_all(pairs: &mut [DriverPair]) {
    for pair in pairs {
        ping(pair, &[60, 1500, 9000, 65_550].repeat(20));
    }
}

#[test]
fn queues_go_on_with_the_next_back_end() {
    for features in FORMATS {
        let (_dir, path) = socket();
        let mut echo = Echo::start(device(&path));
        let (mut front_end, mut pairs) =
            FrontEnd::connect(config(&path, features)).expect("connects");
        assert_eq!(front_end.features() & features, features);
        for _ in 0..4 {
            ping_all(&mut pairs);
            drop(echo);
            // Nobody is there to take these.
            for _ in 0..5 {
                pairs[1].transmit.send(NetHeader::default(), &[7; 3000]);
            }
            pairs[1].transmit.flush();
            echo = Echo::start(device(&path));
            front_end.reconnect(&pairs).expect("reconnects");
            // Those that come before the queue is enabled are discarded.
            wait_for("buffers that were sent to nobody", || {
                pairs[1].transmit.is_idle()
            });
            pairs[1]
                .receive
                .receive(64, |_, frame| assert_eq!(frame, [7; 3000]));
        }
        ping_all(&mut pairs);
        assert_eq!(echo.status().last_error, None);
    }
}

#[test]
fn packed_queues_are_lost_without_it() {
    let (_dir, path) = socket();
    let echo = Echo::start(device(&path));
    let plain = FrontEndConfig {
        inflight: false,
        ..config(&path, feature::RING_PACKED)
    };
    let (mut front_end, pairs) = FrontEnd::connect(plain).expect("connects");
    drop(echo);
    let _echo = Echo::start(device(&path));
    let error = front_end.reconnect(&pairs).expect_err("nobody knows");
    assert!(error.to_string().contains("lost"), "{error}");
}

/// A queue that is stopped goes on by what the front end is told, whatever the region told before;
/// and drivers come and go with other formats.
#[test]
fn queues_that_stop_and_start_and_change() {
    let (_dir, path) = socket();
    let echo = Echo::start(device(&path));
    let (mut front_end, _) = FrontEnd::connect(config(&path, 0)).expect("connects");
    let plain = front_end.features();
    for features in FORMATS.into_iter().cycle().take(8) {
        let mut pairs = front_end.restart(plain | features).expect("restarts");
        ping_all(&mut pairs);
        let bases = front_end.stop().expect("stops");
        front_end.resume(&pairs, &bases).expect("goes on");
        ping_all(&mut pairs);
        // This one's rings begin anew, with the same area.
        pairs[1] = front_end.reset_pair(1).expect("resets");
        ping_all(&mut pairs);
        front_end.enable(false).expect("disables");
        front_end.enable(true).expect("enables");
        front_end.share_memory().expect("shares");
        ping_all(&mut pairs);
    }
    assert_eq!(echo.status().last_error, None);
}

#[test]
fn absurd_areas_are_refused() {
    let (_dir, path) = socket();
    let _echo = Echo::start(device(&path));
    for features in [0, feature::RING_PACKED] {
        let (front_end, mut pairs) = FrontEnd::connect(config(&path, features)).expect("connects");
        let mut messages = front_end.messages();
        let (area, size, _) = front_end.inflight_file().expect("an area");
        let seals = fcntl_get_seals(area).expect("a memfd");
        assert!(seals.contains(rustix::fs::SealFlags::SHRINK));
        let mut refused = |size: u64, offset: u64, queues: u16, entries: u16, file: &File| {
            let said = VhostUserInflight::new(size, offset, queues, entries);
            let result = messages.set_inflight_fd(&said, file.as_raw_fd());
            assert!(result.is_err(), "{size} {offset} {queues} {entries}");
        };
        // The queues run.
        refused(size, 0, 4, 256, area);
        ping_all(&mut pairs);
        drop(front_end);
        drop(pairs);
    }
    let plain = FrontEndConfig {
        inflight: true,
        ..FrontEndConfig::new(&path)
    };
    let (mut front_end, _pairs) = FrontEnd::connect(plain).expect("connects");
    front_end.stop().expect("stops");
    let mut messages = front_end.messages();
    let file = |len: u64| {
        let fd = memfd_create("area", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fd, len).expect("size");
        File::from(fd)
    };
    let bytes = 4 * 4160;
    for (size, offset, queues, entries, len) in [
        (bytes, 0, 5, 256, bytes),
        (bytes, 0, 4, 32_769, bytes),
        (bytes - 65, 0, 4, 256, bytes),
        (bytes, 0, 4, 256, bytes - 1),
        (bytes, 8, 4, 256, bytes),
        (bytes, 4, 4, 256, 2 * bytes),
        (bytes, u64::MAX - 7, 4, 256, bytes),
        (u64::MAX, 0, 4, 256, bytes),
        (257 << 20, 0, 4, 256, 257 << 20),
    ] {
        let said = VhostUserInflight::new(size, offset, queues, entries);
        let result = messages.set_inflight_fd(&said, file(len).as_raw_fd());
        assert!(result.is_err(), "{size} {offset} {queues} {entries} {len}");
    }
    let said = VhostUserInflight::new(bytes, 4096, 4, 256);
    let fits = messages.set_inflight_fd(&said, file(bytes + 4096).as_raw_fd());
    fits.expect("fits");
    let pipe = rustix::pipe::pipe().expect("pipe").0;
    let said = VhostUserInflight::new(bytes, 0, 4, 256);
    let result = messages.set_inflight_fd(&said, pipe.as_raw_fd());
    assert!(result.is_err(), "a pipe");
}

#[test]
fn areas_that_are_asked_for() {
    let (_dir, path) = socket();
    for (queues, entries, good) in [
        (4, 32_768, true),
        (1, 1, true),
        (5, 256, false),
        (0, 256, false),
        (4, 0, false),
        (4, 32_769, false),
    ] {
        let _echo = Echo::start(device(&path));
        let (front_end, _pairs) = FrontEnd::connect(config(&path, 0)).expect("connects");
        let asked = VhostUserInflight::new(0, 0, queues, entries);
        match front_end.messages().get_inflight_fd(&asked) {
            Ok((said, file)) => {
                assert!(good, "{queues} {entries}");
                assert_eq!((said.num_queues, said.queue_size), (queues, entries));
                let meta = file.metadata().expect("a file");
                assert_eq!(said.mmap_offset + said.mmap_size, meta.len());
                assert_eq!(meta.blocks(), 0, "memory was taken before it was needed");
            }
            Err(_) => assert!(!good, "{queues} {entries}"),
        }
    }
}

/// What the region tells is nonsense: the queue does not start, or starts somewhere, and the device
/// is there for the next one.
#[test]
fn a_region_of_nonsense() {
    for features in [0, feature::RING_PACKED] {
        for (at, word, broken) in [
            // Another version, another size, a place outside of the ring.
            (8, 2 | 256 << 16, true),
            (8, 1 | 255 << 16, true),
            (16, 0xffff_ffff, features != 0),
            (8, 0, false),
        ] {
            let (_dir, path) = socket();
            let echo = Echo::start(device(&path));
            let (mut front_end, mut pairs) =
                FrontEnd::connect(config(&path, features)).expect("connects");
            ping_all(&mut pairs);
            drop(echo);
            let (file, ..) = front_end.inflight_file().expect("an area");
            file.write_all_at(&u64::to_le_bytes(word), at)
                .expect("writes");
            let echo = Echo::start(device(&path));
            let result = front_end.reconnect(&pairs);
            assert_eq!(result.is_err(), broken, "{features:#x} {at} {word:#x}");
            if broken {
                wait_for("the reason", || {
                    let error = echo.status().last_error.unwrap_or_default();
                    error.contains("in-flight region")
                });
            }
            drop(front_end);
            let mut fresh = FrontEnd::connect(config(&path, features)).expect("connects");
            ping_all(&mut fresh.1);
        }
    }
}

#[test]
fn an_area_that_shrinks_harms_nobody() {
    let (_dir, path) = socket();
    let _echo = Echo::start(device(&path));
    let (mut front_end, mut pairs) =
        FrontEnd::connect(config(&path, feature::RING_PACKED)).expect("connects");
    let bases = front_end.stop().expect("stops");
    let fd = memfd_create("area", MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&fd, 1 << 20).expect("size");
    let said = VhostUserInflight::new(1 << 20, 0, 4, 256);
    let mut messages = front_end.messages();
    messages
        .set_inflight_fd(&said, fd.as_raw_fd())
        .expect("fits");
    front_end.resume(&pairs, &bases).expect("goes on");
    ping_all(&mut pairs);
    ftruncate(&fd, 0).expect("size");
    ping_all(&mut pairs);
}
