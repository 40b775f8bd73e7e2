//! A back end inside this process that passes frames on between two vhost-user sockets and does nothing else: what the
//! generator and the rings cost together, with the least behind them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use chainplane_vhost::backend::{Device, DeviceConfig, QueuePair};
use chainplane_vhost::ring::BURST;

use super::endpoint::{EndpointSpec, VhostOptions};
use super::trial::BenchError;

/// The running back end. Dropping it disconnects its guests.
pub struct Loopback {
    devices: Vec<Device>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    directory: tempfile::TempDir,
    queues: u16,
}

/// One direction's way through the back end.
pub trait Lane: Send {
    /// Moves frames; tells how many.
    fn pass(&mut self, from: &mut QueuePair, to: &mut QueuePair) -> usize;
}

/// Passes everything on, straight from the buffers of one guest into those of the other; what finds no room is lost.
#[derive(Default)]
pub struct Plain;

impl Lane for Plain {
    fn pass(&mut self, from: &mut QueuePair, to: &mut QueuePair) -> usize {
        let count = from.from_guest.fetch(BURST);
        if count == 0 {
            return 0;
        }
        let mut lens = [0; BURST];
        for (len, frame) in lens.iter_mut().zip(from.from_guest.frame_lens()) {
            *len = frame;
        }
        let reserved = to.to_guest.reserve(&lens[..count]);
        for frame in 0..reserved {
            to.to_guest.carry(
                frame,
                from.from_guest.header(frame),
                &from.from_guest,
                frame,
            );
        }
        to.to_guest.publish();
        from.from_guest.complete();
        count
    }
}

impl Loopback {
    /// Starts it with plain lanes, on a core if one is named.
    ///
    /// # Errors
    /// No sockets, no thread, no such core.
    pub fn start(queues: u16, core: Option<usize>) -> Result<Self, BenchError> {
        let lanes = (0..2 * queues).map(|_| Box::new(Plain) as Box<dyn Lane>);
        Self::with(queues, core, lanes.collect())
    }

    /// Starts it with a lane for each queue from the first socket to the second, then for each back.
    ///
    /// # Errors
    /// As [`Loopback::start`].
    pub fn with(
        queues: u16,
        core: Option<usize>,
        mut lanes: Vec<Box<dyn Lane>>,
    ) -> Result<Self, BenchError> {
        let directory = tempfile::tempdir()?;
        let failed = |error: String| BenchError::Start(format!("loopback: {error}"));
        let (mut devices, mut ends) = (Vec::new(), Vec::new());
        for name in ["a.sock", "b.sock"] {
            let config = DeviceConfig {
                queue_pairs: queues,
                offloads: 0,
                ..DeviceConfig::new(directory.path().join(name))
            };
            let (device, pairs) = Device::start(config, Box::new(|| {}))
                .map_err(|error| failed(error.to_string()))?;
            devices.push(device);
            ends.push(pairs);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            if let Some(core) = core {
                let mut set = rustix::thread::CpuSet::new();
                set.set(core);
                // On another core it is slower, not wrong.
                let _ = rustix::thread::sched_setaffinity(None, &set);
            }
            let [a, b] = ends.as_mut_slice() else { return };
            while !stopped.load(Ordering::Relaxed) {
                let mut moved = 0;
                for (index, (a, b)) in a.iter_mut().zip(b.iter_mut()).enumerate() {
                    a.poll();
                    b.poll();
                    moved += lanes[index].pass(a, b);
                    moved += lanes[usize::from(queues) + index].pass(b, a);
                }
                if moved == 0 && core.is_none() {
                    std::thread::yield_now();
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("loopback".into())
            .spawn(run)?;
        Ok(Self {
            devices,
            stop,
            thread: Some(thread),
            directory,
            queues,
        })
    }

    /// Where its guests attach, on rings of `ring` entries.
    pub fn endpoints(&self, ring: u16) -> [EndpointSpec; 2] {
        ["a.sock", "b.sock"].map(|name| {
            let socket: PathBuf = self.directory.path().join(name);
            let queues = self.queues;
            EndpointSpec::Vhost(
                socket,
                VhostOptions {
                    queues,
                    ring,
                    ..VhostOptions::default()
                },
            )
        })
    }

    /// Ends it, as a back end ends that is killed.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.devices.clear();
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.stop();
    }
}
