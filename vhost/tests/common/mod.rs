//! What the tests share: a device that sends every frame back, and front ends for it.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chainplane_vhost::backend::{Device, DeviceConfig, DeviceStatus, QueuePair};
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::NetHeader;

/// Longest wait for anything: only a failing test reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A device whose worker sends every frame back on the pair it came from.
pub struct Echo {
    pub device: Device,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<Vec<QueuePair>>>,
}

impl Echo {
    /// What finds no room is lost.
    pub fn start(config: DeviceConfig) -> Self {
        let mut frame = vec![0; 70_000];
        Self::with(config, move |_, pair| echo(pair, &mut frame))
    }

    /// What finds no room is kept: a burst is not left open while memory changes.
    pub fn keeping(config: DeviceConfig) -> Self {
        let mut kept = vec![VecDeque::new(); config.queue_pairs.into()];
        Self::with(config, move |index, pair| keep(pair, &mut kept[index]))
    }

    /// A device whose worker calls `turn` for each pair again and again; it tells how many frames moved.
    fn with(
        config: DeviceConfig,
        mut turn: impl FnMut(usize, &mut QueuePair) -> usize + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (device, mut pairs) = Device::start(config, Box::new(|| {})).expect("device starts");
        let stopped = stop.clone();
        let worker = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut moved = 0;
                for (index, pair) in pairs.iter_mut().enumerate() {
                    pair.poll();
                    moved += turn(index, pair);
                }
                if moved == 0 {
                    std::thread::yield_now();
                }
            }
            pairs
        });
        Self {
            device,
            stop,
            worker: Some(worker),
        }
    }

    pub fn status(&self) -> DeviceStatus {
        self.device.status()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            worker.join().expect("worker ends well");
        }
    }
}

/// Sends a frame back; one that finds no room waits in its own ring.
pub fn echo(pair: &mut QueuePair, frame: &mut [u8]) -> usize {
    let waiting = pair.from_guest.count();
    let count = if waiting > 0 {
        waiting
    } else {
        pair.from_guest.fetch(1)
    };
    if count == 0 {
        return 0;
    }
    // Without room the frame stays where it is until the next call.
    let reserved = pair
        .to_guest
        .reserve(&[pair.from_guest.frame_len(0) as u32]);
    if reserved == 0 {
        return 0;
    }
    let len = pair.from_guest.read(0, 0, frame);
    pair.to_guest
        .fill(0, pair.from_guest.header(0), &frame[..len]);
    pair.to_guest.publish();
    pair.from_guest.complete();
    reserved
}

/// A directory for sockets and a path in it.
pub fn socket() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("a.sock");
    (dir, path)
}

/// A front end with everything on.
pub fn connect(path: &Path) -> (FrontEnd, Vec<DriverPair>) {
    FrontEnd::connect(FrontEndConfig::new(path)).expect("front end connects")
}

/// A frame of `len` bytes that `seed` decides.
pub fn frame(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 31 + seed * 7 + (i >> 8)) as u8)
        .collect()
}

/// Sends frames and waits until all have come back in order, whole.
pub fn ping(pair: &mut DriverPair, lens: &[usize]) {
    let mut next = 0;
    let mut back = 0;
    let deadline = Instant::now() + PATIENCE;
    while back < lens.len() {
        while next < lens.len() && next < back + 16 {
            let header = NetHeader {
                flags: 1,
                csum_start: next as u16,
                ..NetHeader::default()
            };
            if !pair.transmit.send(header, &frame(next, lens[next])) {
                break;
            }
            next += 1;
        }
        pair.transmit.flush();
        pair.receive.receive(64, |header, got| {
            assert_eq!(header.csum_start, back as u16);
            assert_eq!(header.flags, 1);
            assert!(
                got == frame(back, lens[back]),
                "frame {back} of {} bytes",
                lens[back]
            );
            back += 1;
        });
        assert!(
            Instant::now() < deadline,
            "only {back} of {} came back",
            lens.len()
        );
        std::thread::yield_now();
    }
    assert_eq!(pair.receive.bad_used + pair.transmit.bad_used, 0);
}

/// Takes what came, and sends what finds room; tells how many came.
fn keep(pair: &mut QueuePair, kept: &mut VecDeque<(NetHeader, Vec<u8>)>) -> usize {
    let count = pair.from_guest.fetch(64);
    for frame in 0..count {
        let mut bytes = vec![0; pair.from_guest.frame_len(frame)];
        pair.from_guest.read(frame, 0, &mut bytes);
        kept.push_back((pair.from_guest.header(frame), bytes));
    }
    pair.from_guest.complete();
    while let Some((header, bytes)) = kept.front()
        && pair.to_guest.reserve(&[bytes.len() as u32]) == 1
    {
        pair.to_guest.fill(0, *header, bytes);
        pair.to_guest.publish();
        kept.pop_front();
    }
    count
}
