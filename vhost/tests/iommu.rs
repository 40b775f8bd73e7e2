//! A device behind an IOMMU, as the protocol's text has it: I/O virtual addresses everywhere, and
//! translations that come late, go, and are not what was asked for.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chainplane_vhost::backend::{Device, DeviceConfig, QueuePair};
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig, GUEST_BASE, USER_BASE};
use chainplane_vhost::iotlb::{Entry, access};
use chainplane_vhost::net::{NetHeader, feature};
use common::{Echo, PATIENCE, ping, socket, wait_for};
use vhost::VhostBackend;

const BOTH: u8 = access::READ | access::WRITE;

fn config(path: &std::path::Path) -> FrontEndConfig {
    let mut config = FrontEndConfig::new(path);
    config.features |= feature::ACCESS_PLATFORM;
    config
}

/// A front end whose IOMMU answers, page by page, until it is stopped.
struct Answering {
    stop: Arc<AtomicBool>,
    misses: Arc<AtomicUsize>,
    thread: Option<JoinHandle<FrontEnd>>,
}

impl Answering {
    /// `churn`: after each answer, all but the rings' own pages are taken back.
    fn start(front_end: FrontEnd, churn: bool) -> Self {
        let (stop, misses) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, missed) = (stop.clone(), misses.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let miss = front_end
                    .missed(Duration::from_millis(5))
                    .expect("a request");
                let Some((iova, _)) = miss else {
                    continue;
                };
                missed.fetch_add(1, Ordering::Relaxed);
                front_end.translate_page(iova, BOTH).expect("accepted");
                if churn {
                    let others = |page: u64| {
                        let at = (page - GUEST_BASE) as usize;
                        front_end
                            .layouts()
                            .iter()
                            .all(|l| at < l.desc || at >= l.tables)
                    };
                    let first = iova.saturating_sub(64 << 12).max(GUEST_BASE);
                    for page in (first..iova).step_by(4096).filter(|p| others(*p)) {
                        front_end.invalidate(page, 4096).expect("acknowledged");
                    }
                }
            }
            front_end
        });
        Self {
            stop,
            misses,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> (FrontEnd, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("runs");
        (
            thread.join().expect("ends well"),
            self.misses.load(Ordering::Relaxed),
        )
    }
}

#[test]
fn translations_come_when_they_are_asked_for() {
    translations_come(0);
}

#[test]
fn translations_come_for_packed_rings() {
    translations_come(feature::RING_PACKED);
}

fn translations_come(format: u64) {
    let (_dir, path) = socket();
    let echo = Echo::keeping(DeviceConfig::new(&path));
    let mut config = config(&path);
    config.features |= format;
    let (front_end, mut pairs) = FrontEnd::connect(config).expect("connects");
    assert_eq!(front_end.features() & feature::RING_PACKED, format);
    // Not even where the rings are is known yet.
    assert!(echo.status().queues.iter().all(|queue| !queue.started));
    let answering = Answering::start(front_end, false);
    ping(&mut pairs[0], &[60, 1500, 9000, 200].repeat(60));
    let (mut front_end, misses) = answering.end();
    assert!(misses > 10);
    // Everything is known now: nothing is asked for any more.
    ping(&mut pairs[0], &[60, 1500, 9000, 200].repeat(60));
    assert_eq!(
        front_end.missed(Duration::from_millis(1)).expect("well"),
        None
    );
    // Where it stood it goes on, though all translations are forgotten.
    let bases = front_end.stop().expect("stops");
    front_end.resume(&pairs, &bases).expect("resumes");
    assert!(echo.status().queues.iter().all(|queue| !queue.started));
    let answering = Answering::start(front_end, false);
    ping(&mut pairs[0], &[60; 100]);
    answering.end();
    assert_eq!(echo.status().last_error, None);
}

#[test]
fn translations_that_are_taken_back_all_the_time() {
    translations_go(0);
}

#[test]
fn translations_of_packed_rings_that_are_taken_back_all_the_time() {
    translations_go(feature::RING_PACKED);
}

fn translations_go(format: u64) {
    let (_dir, path) = socket();
    let echo = Echo::keeping(DeviceConfig::new(&path));
    let mut config = config(&path);
    config.features |= format;
    let (front_end, mut pairs) = FrontEnd::connect(config).expect("connects");
    let answering = Answering::start(front_end, true);
    ping(&mut pairs[0], &[60, 1500, 9000, 200, 65].repeat(40));
    let (_front_end, misses) = answering.end();
    assert!(misses > 200, "{misses}");
    assert_eq!(echo.status().last_error, None);
}

#[test]
fn frames_need_not_come_for_their_buffers_to_be_asked_for() {
    let mut hand = Hand::new();
    let layout = hand.front_end.layouts()[0];
    let mut page = (GUEST_BASE + layout.buffer(0) as u64) & !4095;
    // Page after page, each as soon as the one before it is known; all frames find their buffers.
    for _ in 0..8 {
        assert_eq!(hand.asked(access::WRITE, PATIENCE), Some(page));
        hand.with_worker(|f| f.translate_page(page, BOTH).expect("accepted"));
        page += 4096;
    }
    assert_eq!(hand.workers[0].to_guest.reserve(&[1500; 16]), 16);
}

/// A device whose worker the test plays, with every page of the rings known.
struct Hand {
    // Nobody waits for a worker that is gone.
    workers: Vec<QueuePair>,
    device: Device,
    _dir: tempfile::TempDir,
    front_end: FrontEnd,
    pairs: Vec<DriverPair>,
}

impl Hand {
    fn new() -> Self {
        let (dir, path) = socket();
        let (device, workers) =
            Device::start(DeviceConfig::new(&path), Box::new(|| {})).expect("starts");
        let (front_end, pairs) = FrontEnd::connect(config(&path)).expect("connects");
        let mut hand = Self {
            _dir: dir,
            device,
            workers,
            front_end,
            pairs,
        };
        for layout in hand.front_end.layouts().to_vec() {
            let (first, last) = (layout.desc as u64, layout.tables as u64);
            hand.with_worker(|f| {
                f.translate(Entry {
                    iova: GUEST_BASE + first,
                    size: last - first,
                    user: USER_BASE + first,
                    access: BOTH,
                })
                .expect("accepted");
            });
        }
        while hand
            .asked(access::READ, Duration::from_millis(20))
            .is_some()
        {}
        assert!(hand.device.status().queues.iter().all(|q| q.started));
        hand
    }

    /// The page that the device asks for with this access. It looks ahead for what it may write,
    /// so that a test that is about reading must not look at that.
    fn asked(&self, access: u8, patience: Duration) -> Option<u64> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let miss = self.front_end.missed(patience).expect("well");
            if let Some((page, wanted)) = miss
                && wanted == access
            {
                return Some(page);
            }
        }
        None
    }

    /// Lets the front end do what needs a worker that polls.
    fn with_worker(&mut self, act: impl FnOnce(&FrontEnd)) {
        let done = AtomicBool::new(false);
        let (workers, front_end) = (&mut self.workers, &self.front_end);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    workers[0].poll();
                    std::thread::yield_now();
                }
            });
            act(front_end);
            done.store(true, Ordering::Release);
        });
        self.workers[0].poll();
    }

    fn page_of(&self, buffer: u16) -> u64 {
        let layout = self.front_end.layouts()[1];
        (GUEST_BASE + layout.buffer(buffer) as u64) & !4095
    }
}

#[test]
fn a_missing_translation_holds_up_its_ring_and_nobody_waits() {
    let mut hand = Hand::new();
    for byte in 1..=3 {
        hand.pairs[0]
            .transmit
            .send(NetHeader::default(), &[byte; 100]);
    }
    hand.pairs[0].transmit.flush();
    // Two buffers of 2 KiB to a page: the first page is known, the second is not.
    let (first, second) = (hand.page_of(0), hand.page_of(2));
    assert_ne!(first, second);
    hand.with_worker(|f| f.translate_page(first, access::READ).expect("accepted"));
    assert_eq!(hand.workers[0].from_guest.fetch(64), 2);
    hand.workers[0].from_guest.complete();
    for _ in 0..1000 {
        assert_eq!(hand.workers[0].from_guest.fetch(64), 0);
    }
    // A worker that would sleep is not kept awake, and the front end is asked once.
    assert!(!hand.workers[0].from_guest.arm());
    assert_eq!(hand.asked(access::READ, PATIENCE), Some(second));
    assert_eq!(hand.asked(access::READ, Duration::from_millis(50)), None);
    // Unanswered, it is asked again after a second.
    assert_eq!(hand.asked(access::READ, PATIENCE), Some(second));
    // An answer to something else changes nothing.
    hand.with_worker(|f| {
        f.translate_page(second + (8 << 12), BOTH)
            .expect("accepted");
    });
    assert_eq!(hand.workers[0].from_guest.fetch(64), 0);
    // Nor does one that allows to write only.
    hand.with_worker(|f| f.translate_page(second, access::WRITE).expect("accepted"));
    assert_eq!(hand.workers[0].from_guest.fetch(64), 0);
    hand.with_worker(|f| f.translate_page(second, access::READ).expect("accepted"));
    assert_eq!(hand.workers[0].from_guest.fetch(64), 1);
    let mut frame = [0; 100];
    assert_eq!(hand.workers[0].from_guest.read(0, 0, &mut frame), 100);
    assert_eq!(frame, [3; 100]);
    assert!(
        hand.device
            .status()
            .queues
            .iter()
            .all(|q| q.broken.is_none())
    );
}

#[test]
fn frames_to_a_guest_need_leave_to_write() {
    let mut hand = Hand::new();
    let layout = hand.front_end.layouts()[0];
    let page = (GUEST_BASE + layout.buffer(0) as u64) & !4095;
    hand.with_worker(|f| f.translate_page(page, access::READ).expect("accepted"));
    assert_eq!(hand.workers[0].to_guest.reserve(&[100]), 0);
    assert_eq!(hand.asked(access::WRITE, PATIENCE), Some(page));
    hand.with_worker(|f| f.translate_page(page, BOTH).expect("accepted"));
    let to_guest = &mut hand.workers[0].to_guest;
    assert_eq!(to_guest.reserve(&[100]), 1);
    assert!(to_guest.fill(0, NetHeader::default(), &[7; 100]));
    to_guest.publish();
    let mut got = Vec::new();
    hand.pairs[0]
        .receive
        .receive(8, |_, frame| got = frame.to_vec());
    assert_eq!(got, [7; 100]);
}

#[test]
fn what_is_taken_back_is_not_used_again() {
    let mut hand = Hand::new();
    let page = hand.page_of(0);
    hand.with_worker(|f| f.translate_page(page, BOTH).expect("accepted"));
    hand.pairs[0].transmit.send(NetHeader::default(), &[1; 60]);
    hand.pairs[0].transmit.flush();
    // An open burst points there; the acknowledgement comes once it is completed.
    assert_eq!(hand.workers[0].from_guest.fetch(64), 1);
    hand.with_worker(|f| f.invalidate(page, 4096).expect("acknowledged"));
    assert_eq!(hand.workers[0].from_guest.count(), 0);
    hand.pairs[0].transmit.send(NetHeader::default(), &[2; 60]);
    hand.pairs[0].transmit.flush();
    assert_eq!(hand.workers[0].from_guest.fetch(64), 0);
    // The page comes back elsewhere: what is read is there.
    let elsewhere = hand.page_of(200) - GUEST_BASE;
    let at = (page - GUEST_BASE) as usize;
    let offset = hand.front_end.layouts()[1].buffer(1) - at;
    let memory = hand.front_end.memory().clone();
    memory.write(elsewhere as usize + offset, &[0; 12]);
    memory.write(elsewhere as usize + offset + 12, &[9; 60]);
    hand.with_worker(|f| {
        f.translate(Entry {
            iova: page,
            size: 4096,
            user: USER_BASE + elsewhere,
            access: BOTH,
        })
        .expect("accepted");
    });
    assert_eq!(hand.workers[0].from_guest.fetch(64), 1);
    let mut frame = [0; 60];
    hand.workers[0].from_guest.read(0, 0, &mut frame);
    assert_eq!(frame, [9; 60]);
}

#[test]
fn translations_that_make_no_sense_are_refused() {
    let hand = Hand::new();
    let good = Entry {
        iova: GUEST_BASE,
        size: 4096,
        user: USER_BASE,
        access: BOTH,
    };
    let memory = hand.front_end.memory().len() as u64;
    for wrong in [
        Entry { size: 0, ..good },
        Entry { access: 0, ..good },
        Entry { access: 7, ..good },
        Entry {
            user: USER_BASE - 1,
            ..good
        },
        Entry {
            user: USER_BASE + memory,
            ..good
        },
        Entry {
            size: memory + 1,
            ..good
        },
        Entry {
            size: u64::MAX,
            ..good
        },
        Entry {
            iova: u64::MAX - 4094,
            ..good
        },
    ] {
        hand.front_end.translate(wrong).expect_err("refused");
    }
    assert!(hand.device.status().connected);
}

#[test]
fn an_iommu_needs_a_channel_and_goes_with_its_feature() {
    let (_dir, path) = socket();
    let echo = Echo::keeping(DeviceConfig::new(&path));
    {
        // A front end that takes every feature, but can't be asked, has no IOMMU.
        let (front_end, mut pairs) = common::connect(&path);
        let features = front_end.features() | feature::ACCESS_PLATFORM;
        front_end
            .messages()
            .set_features(features)
            .expect("accepted");
        ping(&mut pairs[0], &[60; 10]);
    }
    wait_for("the front end to be gone", || !echo.status().connected);
    let (mut front_end, _pairs) = FrontEnd::connect(config(&path)).expect("connects");
    assert!(echo.status().queues.iter().all(|queue| !queue.started));
    // Another driver does without.
    let features = FrontEndConfig::new(&path).features & front_end.offered();
    drop(front_end.stop().expect("stops"));
    let messages = front_end.messages();
    messages.set_features(features).expect("accepted");
    front_end
        .invalidate(0, u64::MAX)
        .expect("nothing to forget");
    front_end
        .translate_page(GUEST_BASE, BOTH)
        .expect_err("no IOMMU");
}
