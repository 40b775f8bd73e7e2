//! Rings that stop, start and change while a worker polls, sleeps, or is not there.

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use chainplane_vhost::backend::{Device, DeviceConfig};
use chainplane_vhost::driver::{FastMode, FastPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::event::Event;
use chainplane_vhost::net::{NetHeader, feature};
use common::{Echo, PATIENCE, connect, echo, ping, socket, wait_for};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::VhostUserFrontend;

#[test]
fn another_driver_without_a_new_connection() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let config = FrontEndConfig {
        receive_buffer: 65_700,
        ..FrontEndConfig::new(&path)
    };
    let all = config.features;
    let (mut front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
    ping(&mut pairs[0], &[60; 300]);
    // Firmware knows little, a kernel much, DPDK something in between.
    let packed = all | feature::RING_PACKED;
    let steps = [
        0,
        all,
        packed,
        feature::VERSION_1,
        packed & !feature::EVENT_IDX | feature::IN_ORDER,
        0,
        packed,
        all & !feature::EVENT_IDX | feature::IN_ORDER,
        all,
    ];
    for features in steps {
        let mut pairs = front_end.restart(features).expect("restarts");
        ping(&mut pairs[0], &[60, 1500, 64, 200, 14].repeat(40));
        assert_eq!(
            echo.status().features & !feature::PROTOCOL_FEATURES,
            front_end.features()
        );
    }
    assert_eq!(echo.status().connections, 1);
    assert_eq!(echo.status().last_error, None);
}

fn go_on(features: u64, base: impl Fn(u32) -> u32) {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let mut config = FrontEndConfig::new(&path);
    config.features |= features;
    let (mut front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
    for round in 1..=8u32 {
        ping(&mut pairs[0], &[60; 100]);
        let bases = front_end.stop().expect("stops");
        assert_eq!(bases, [base(round * 100); 2]);
        assert!(echo.status().queues.iter().all(|q| !q.started));
        front_end.resume(&pairs, &bases).expect("resumes");
    }
    ping(&mut pairs[0], &[60; 100]);
}

#[test]
fn rings_go_on_where_they_stood() {
    go_on(0, |frames| frames);
    // vhost-user: index and wrap counter, of the next available and the next used descriptor.
    let place = |frames: u32| {
        let wrap = u32::from((frames / 256).is_multiple_of(2));
        (frames % 256) | (wrap << 15)
    };
    go_on(feature::RING_PACKED, |frames| place(frames) * 0x1_0001);
}

/// Virtio 1.2, 2.6.1: one queue is reset, the others know nothing of it.
#[test]
fn one_pair_is_reset_while_the_others_go_on() {
    for format in [0, feature::RING_PACKED] {
        let (_dir, path) = socket();
        let echo = Echo::start(DeviceConfig {
            queue_pairs: 3,
            ring_reset: true,
            ..DeviceConfig::new(&path)
        });
        let mut config = FrontEndConfig {
            queue_pairs: 3,
            ..FrontEndConfig::new(&path)
        };
        config.features |= feature::RING_RESET | format;
        let (mut front_end, mut pairs) = FrontEnd::connect(config).expect("connects");
        assert_ne!(front_end.features() & feature::RING_RESET, 0);
        let mut others = pairs.split_off(1);
        let stop = Arc::new(AtomicUsize::new(0));
        let stopped = stop.clone();
        let traffic = std::thread::spawn(move || {
            let mut rounds = 0;
            while stopped.load(Ordering::Relaxed) == 0 {
                for pair in &mut others {
                    ping(pair, &[60, 1500, 9000].repeat(10));
                }
                rounds += 1;
            }
            rounds
        });
        for round in 0..40 {
            // Frames are under way when it is stopped, in some rounds.
            if round % 2 == 0 {
                for _ in 0..20 {
                    pairs[0].transmit.send(NetHeader::default(), &[3; 700]);
                }
                pairs[0].transmit.flush();
            }
            pairs[0] = front_end.reset_pair(0).expect("resets");
            ping(&mut pairs[0], &[60; 100 + 7]);
        }
        stop.store(1, Ordering::Relaxed);
        assert!(traffic.join().expect("the others go on") > 0);
        assert_eq!(echo.status().last_error, None);
    }
}

fn memory_table_changes(features: u64) {
    let (_dir, path) = socket();
    let _echo = Echo::start(DeviceConfig::new(&path));
    let mut config = FrontEndConfig::new(&path);
    config.features |= features;
    let (front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
    for _ in 0..20 {
        // In flight while the map is replaced.
        for _ in 0..30 {
            pairs[0].transmit.send(NetHeader::default(), &[3; 700]);
        }
        pairs[0].transmit.flush();
        front_end.share_memory().expect("shares");
        let mut back = 0;
        wait_for("the frames", || {
            back += pairs[0]
                .receive
                .receive(64, |_, frame| assert_eq!(frame, [3; 700]));
            back == 30
        });
    }
}

#[test]
fn memory_table_changes_under_traffic() {
    memory_table_changes(0);
    memory_table_changes(feature::RING_PACKED);
}

#[test]
fn disabled_rings_discard_what_the_guest_sends() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let (mut front_end, mut pairs) = connect(&path);
    ping(&mut pairs[0], &[60; 10]);
    front_end.enable(false).expect("disables");
    assert!(echo.status().queues.iter().all(|q| q.started && !q.enabled));
    front_end.enable(true).expect("enables");
    ping(&mut pairs[0], &[60; 10]);
}

#[test]
fn discards_while_disabled() {
    let (_dir, path) = socket();
    let (device, mut workers) =
        Device::start(DeviceConfig::new(&path), Box::new(|| {})).expect("starts");
    let (mut front_end, mut pairs) = connect(&path);
    workers[0].poll();
    let polling = std::thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        while workers[0].from_guest.is_running() || workers[0].to_guest.is_running() {
            workers[0].poll();
            assert!(Instant::now() < deadline);
        }
        workers
    });
    front_end.enable(false).expect("disables");
    let mut workers = polling.join().expect("joins");
    for _ in 0..5 {
        assert!(pairs[0].transmit.send(NetHeader::default(), &[1; 60]));
    }
    pairs[0].transmit.flush();
    assert_eq!(workers[0].from_guest.fetch(64), 0);
    assert_eq!(workers[0].to_guest.reserve(&[60]), 0);
    assert_eq!(workers[0].from_guest.counters().disabled, 5);
    assert!(pairs[0].transmit.is_idle());
    drop(device);
}

#[test]
fn worker_that_never_polls_hangs_nobody() {
    let (_dir, path) = socket();
    let (device, workers) =
        Device::start(DeviceConfig::new(&path), Box::new(|| {})).expect("starts");
    let start = Instant::now();
    for _ in 0..3 {
        connect(&path);
    }
    device.stop();
    drop(workers);
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn worker_that_stops_polling_is_told_of_and_hangs_nobody() {
    let (_dir, path) = socket();
    let (device, mut workers) =
        Device::start(DeviceConfig::new(&path), Box::new(|| {})).expect("starts");
    let (front_end, _pairs) = connect(&path);
    assert!(workers[0].poll());
    assert!(workers[0].from_guest.is_running());
    drop(front_end);
    wait_for("the control thread to go on", || !device.status().connected);
    assert!(
        device
            .status()
            .last_error
            .expect("told")
            .contains("does not poll")
    );
    // The worker comes back, and finds what it held gone.
    workers[0].poll();
    assert!(!workers[0].from_guest.is_running());
    let (_front_end, mut pairs) = connect(&path);
    workers[0].poll();
    pairs[0].transmit.send(NetHeader::default(), &[9; 99]);
    pairs[0].transmit.flush();
    assert_eq!(workers[0].from_guest.fetch(64), 1);
    drop(workers);
}

#[test]
fn dropped_worker_hangs_nobody() {
    let (_dir, path) = socket();
    let (device, mut workers) =
        Device::start(DeviceConfig::new(&path), Box::new(|| {})).expect("starts");
    let (mut front_end, _pairs) = connect(&path);
    workers[0].poll();
    drop(workers);
    assert_eq!(front_end.stop().expect("stops"), [0, 0]);
    drop(front_end);
    connect(&path);
    device.stop();
}

/// Both sides sleep until they are woken, as an adaptive worker and an embedded guest do.
fn both_sides_sleep(features: u64) {
    let (_dir, path) = socket();
    let waker = Arc::new(Event::new().expect("eventfd"));
    let wake = waker.clone();
    let (device, mut workers) =
        Device::start(DeviceConfig::new(&path), Box::new(move || wake.signal())).expect("starts");
    let sleeps = Arc::new(AtomicUsize::new(0));
    let (woken, slept) = (waker.clone(), sleeps.clone());
    let stop = Arc::new(AtomicUsize::new(0));
    let stopped = stop.clone();
    let worker = std::thread::spawn(move || {
        let pair = &mut workers[0];
        let mut frame = vec![0; 70_000];
        while stopped.load(Ordering::Acquire) == 0 {
            pair.poll();
            while echo(pair, &mut frame) > 0 {}
            // A frame that waits for room waits for the guest's buffers, and only then.
            let waits = pair.from_guest.count() > 0;
            let work = if waits {
                pair.to_guest.arm()
            } else {
                pair.from_guest.arm()
            };
            if !work {
                slept.fetch_add(1, Ordering::Relaxed);
                let mut fds = vec![PollFd::from_borrowed_fd(woken.as_fd(), PollFlags::IN)];
                let kicks = pair.kick_fds();
                fds.extend(
                    kicks
                        .into_iter()
                        .flatten()
                        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
                );
                poll(&mut fds, None).expect("polls");
                drop(fds);
                woken.clear();
                pair.clear_kicks();
            }
            pair.from_guest.disarm();
            pair.to_guest.disarm();
        }
    });
    let config = FrontEndConfig {
        features,
        ..FrontEndConfig::new(&path)
    };
    let (front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
    for round in 0..300usize {
        let pair = &mut pairs[0];
        assert!(
            pair.transmit
                .send(NetHeader::default(), &vec![round as u8; 60 + round])
        );
        pair.transmit.flush();
        let deadline = Instant::now() + PATIENCE;
        while pair
            .receive
            .receive(64, |_, got| assert_eq!(got.len(), 60 + round))
            == 0
        {
            if !pair.receive.arm() {
                let timeout = Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                };
                let call = pair.receive.call_fd();
                poll(
                    &mut [PollFd::from_borrowed_fd(call, PollFlags::IN)],
                    Some(&timeout),
                )
                .expect("polls");
                pair.receive.call().clear();
            }
            pair.receive.disarm();
            assert!(Instant::now() < deadline, "round {round} never came back");
        }
    }
    assert!(sleeps.load(Ordering::Relaxed) > 10);
    stop.store(1, Ordering::Release);
    waker.signal();
    worker.join().expect("worker ends");
    drop((front_end, device));
}

#[test]
fn both_sides_sleep_with_event_index() {
    let features = feature::VERSION_1 | feature::EVENT_IDX | feature::MRG_RXBUF;
    both_sides_sleep(features);
    both_sides_sleep(features | feature::RING_PACKED);
    both_sides_sleep(features | feature::RING_PACKED | feature::IN_ORDER);
}

#[test]
fn both_sides_sleep_without_event_index() {
    both_sides_sleep(feature::VERSION_1 | feature::MRG_RXBUF);
    both_sides_sleep(feature::VERSION_1 | feature::MRG_RXBUF | feature::RING_PACKED);
}

fn polling_sides(features: u64) {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let config = FrontEndConfig {
        features,
        ..FrontEndConfig::new(&path)
    };
    let (_front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
    pairs[0].transmit.disarm();
    pairs[0].receive.disarm();
    ping(&mut pairs[0], &[60; 1000]);
    // A ring that starts always tells once.
    assert!(
        echo.status()
            .queues
            .iter()
            .all(|q| q.counters.notifications <= 1)
    );
    assert!(pairs[0].transmit.kicks() <= 1);
}

#[test]
fn polling_sides_send_no_notifications() {
    for format in [0, feature::RING_PACKED] {
        for event_index in [0, feature::EVENT_IDX] {
            polling_sides(feature::VERSION_1 | feature::MRG_RXBUF | event_index | format);
        }
    }
}

#[test]
fn fast_driver_keeps_the_rings_full() {
    let chained = feature::VERSION_1 | feature::MRG_RXBUF;
    for mode in [FastMode::IndexOnly, FastMode::Rewrite] {
        let packed = feature::RING_PACKED;
        for (len, features) in [
            (64, chained),
            (9000, chained),
            (65_536, chained | feature::INDIRECT_DESC),
            (64, chained | packed),
            (64, chained | packed | feature::IN_ORDER),
            (9000, chained | packed),
            (9000, chained | feature::IN_ORDER),
            (65_536, chained | packed | feature::INDIRECT_DESC),
        ] {
            let (_dir, path) = socket();
            let echo = Echo::start(DeviceConfig::new(&path));
            let config = FrontEndConfig {
                features,
                ..FrontEndConfig::new(&path)
            };
            let (_front_end, mut pairs) = FrontEnd::connect(config).expect("connects");
            let frame = vec![0x5a; len];
            let mut fast = FastPair::new(pairs.remove(0), mode, NetHeader::default(), &[frame], 0);
            let (mut sent, mut received) = (0, 0);
            wait_for("frames", || {
                for _ in 0..100 {
                    let moved = fast.poll();
                    sent += moved.sent;
                    received += moved.received;
                }
                sent > 2000 && received > 1000
            });
            // The device delivers a frame before it gives the buffer back that it came in.
            let most = sent + u32::from(FastPair::BURST);
            assert!(received <= most, "{len}: {received} of {sent}");
            assert_eq!(fast.checksum > 0, mode == FastMode::Rewrite);
            let status = echo.status();
            assert_eq!(status.last_error, None);
            let taken = status.queues[1].counters;
            // The worker goes on meanwhile: the two counters are not of one moment.
            assert_eq!(taken.bytes % len as u64, 0);
        }
    }
}

#[test]
fn straight_from_one_guest_to_another() {
    let (_dirs, paths): (Vec<_>, Vec<_>) = (0..2).map(|_| socket()).unzip();
    let start = |path| Device::start(DeviceConfig::new(path), Box::new(|| {})).expect("starts");
    let (_a, mut from) = start(&paths[0]);
    let (_b, mut to) = start(&paths[1]);
    let small = FrontEndConfig {
        transmit_buffer: 300,
        ..FrontEndConfig::new(&paths[0])
    };
    let (_guest_a, mut a) = FrontEnd::connect(small).expect("connects");
    let small = FrontEndConfig {
        receive_buffer: 200,
        ..FrontEndConfig::new(&paths[1])
    };
    let (_guest_b, mut b) = FrontEnd::connect(small).expect("connects");
    from[0].poll();
    to[0].poll();
    for len in [20, 60, 187, 188, 189, 500, 1500, 9000] {
        let sent = common::frame(len, len);
        assert!(a[0].transmit.send(NetHeader::default(), &sent));
        a[0].transmit.flush();
        assert_eq!(from[0].from_guest.fetch(64), 1);
        // The first 20 bytes are rewritten on the host, 14 of the guest's are left out.
        let head = [0xAA; 20];
        assert_eq!(to[0].to_guest.reserve(&[len as u32 + 6]), 1);
        assert!(to[0].to_guest.fill_from(
            0,
            NetHeader::default(),
            &head,
            &from[0].from_guest,
            0,
            14
        ));
        to[0].to_guest.publish();
        from[0].from_guest.complete();
        let mut got = Vec::new();
        assert_eq!(b[0].receive.receive(1, |_, frame| got = frame.to_vec()), 1);
        assert!(got[..20] == head && got[20..] == sent[14..], "{len}");
        assert!(a[0].transmit.is_idle());
    }
}

#[test]
fn frame_that_no_buffer_holds_is_counted_and_holds_nobody_up() {
    let (_dir, path) = socket();
    let (_device, mut workers) =
        Device::start(DeviceConfig::new(&path), Box::new(|| {})).expect("starts");
    let features = feature::VERSION_1;
    let config = FrontEndConfig {
        features,
        ..FrontEndConfig::new(&path)
    };
    let (_front_end, mut pairs) = FrontEnd::connect(config).expect("connects");
    workers[0].poll();
    let to_guest = &mut workers[0].to_guest;
    let frames = [vec![1; 100], vec![2; 5000], vec![3; 100]];
    let lens: Vec<u32> = frames.iter().map(|f| f.len() as u32).collect();
    assert_eq!(to_guest.reserve(&lens), 3);
    let filled: Vec<bool> = (0..3)
        .map(|i| to_guest.fill(i, NetHeader::default(), &frames[i]))
        .collect();
    assert_eq!(filled, [true, false, true]);
    to_guest.publish();
    let mut got = Vec::new();
    assert_eq!(
        pairs[0]
            .receive
            .receive(64, |_, frame| got.push(frame.to_vec())),
        2
    );
    assert_eq!(got, [frames[0].clone(), frames[2].clone()]);
    let counters = to_guest.counters();
    assert_eq!(
        (counters.frames, counters.bytes, counters.oversize),
        (2, 200, 1)
    );
}

#[test]
fn memory_slots_come_and_go_under_traffic() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let config = FrontEndConfig {
        memory_slots: true,
        ..FrontEndConfig::new(&path)
    };
    let (mut front_end, mut pairs) = FrontEnd::connect(config).expect("connects");
    let mut messages = front_end.messages();
    assert_eq!(messages.get_max_mem_slots().expect("answers"), 509);
    for slot in 1..40u64 {
        let fd = rustix::fs::memfd_create("slot", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        rustix::fs::ftruncate(&fd, 4096).expect("size");
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: (1 << 40) + slot * 4096,
            memory_size: 4096,
            userspace_addr: (1 << 45) + slot * 4096,
            mmap_offset: 0,
            mmap_handle: fd.as_raw_fd(),
        };
        messages.add_mem_region(&region).expect("adds");
        let overlapping = VhostUserMemoryRegionInfo {
            userspace_addr: region.userspace_addr + 2048,
            ..region
        };
        messages.add_mem_region(&overlapping).expect_err("overlaps");
        ping(&mut pairs[0], &[60, 1500]);
        if slot % 2 == 0 {
            messages.remove_mem_region(&region).expect("removes");
            messages.remove_mem_region(&region).expect_err("gone");
            ping(&mut pairs[0], &[60, 1500]);
        }
    }
    let features = front_end.features();
    ping(
        &mut front_end.restart(features).expect("restarts")[0],
        &[60, 1500],
    );
    assert!(echo.status().queues.iter().all(|q| q.broken.is_none()));
}
