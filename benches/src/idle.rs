//! What idle ports and an idle process cost: the packets of a busy pair of ports beside ports that nobody uses, the
//! processor time of a process that waits, and what its first packet waits for.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chainplane::instance::Instance;
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{NetHeader, feature};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::time::{ClockId, clock_gettime};

use crate::case::Case;
use crate::chain::Setup;
use crate::guests::{Guests, Progress};
use crate::traffic::frames;

/// What a first packet that does not come is waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs this thread on one core, where there is one of that number.
pub fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    // A machine with fewer cores measures all the same.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Mpps that two guests get forwarded, 64-byte frames both ways, while so many `idle` ones are attached: a busy worker on
/// core 0, the guests on core 1.
///
/// # Errors
/// What attaching fails with.
///
/// # Panics
/// When the configuration can't be run.
pub fn busy_pair(idle: usize, time: Duration) -> io::Result<f64> {
    let case = Case {
        idle,
        ..Case::find("64").expect("a case of small frames")
    };
    let directory = tempfile::tempdir()?;
    let workers = "{ cores: [0], idle: busy }";
    let model = Setup::of(&case, directory.path(), workers).model();
    let _instance = Instance::start(model).map_err(io::Error::other)?;
    pin(1);
    let mut guests = Guests::attach_all(directory.path(), &case).map_err(io::Error::other)?;
    let mut drive = |time: Duration| {
        let (start, mut progress) = (Instant::now(), Progress::default());
        while start.elapsed() < time {
            (0..256).for_each(|_| guests.poll(&mut progress));
        }
        progress.total() as f64 / start.elapsed().as_secs_f64() / 1e6
    };
    drive(time / 4);
    Ok(drive(time))
}

/// A process in which a worker waits for the packets of some ports, and two guests that send one now and then.
pub struct Waiting {
    instance: Instance,
    pairs: [DriverPair; 2],
    frame: Vec<u8>,
    _ends: Vec<FrontEnd>,
    _directory: tempfile::TempDir,
}

/// What a process did for some time.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Processor time of all its threads.
    pub processor: Duration,
    /// The time that passed.
    pub time: Duration,
    /// Polls of the worker.
    pub polls: u64,
    /// Times that it slept.
    pub sleeps: u64,
}

impl Waiting {
    /// Starts a worker with two ports and so many `idle` ones, with a guest at each, in adaptive mode on core 0.
    ///
    /// # Errors
    /// What attaching fails with.
    pub fn start(idle: usize) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let workers = "{ cores: [0], idle: adaptive }";
        let case = Case {
            idle,
            ..Case::find("64").expect("a case of small frames")
        };
        let model = Setup::of(&case, path, workers).model();
        let instance = Instance::start(model).map_err(io::Error::other)?;
        let names = ["a".to_owned(), "b".to_owned()];
        let names = names
            .into_iter()
            .chain((0..idle).map(|n| format!("idle{n}")));
        let (mut ends, mut pairs) = (Vec::new(), Vec::new());
        for name in names {
            let mut config = FrontEndConfig::new(path.join(name + ".sock"));
            config.features = feature::VERSION_1 | feature::MRG_RXBUF;
            let (end, mut queues) = FrontEnd::connect(config).map_err(io::Error::other)?;
            pairs.push(queues.remove(0));
            ends.push(end);
        }
        pairs.truncate(2);
        let pairs = pairs.try_into().expect("two guests that send");
        let [frame, _] = frames(64);
        Ok(Self {
            instance,
            pairs,
            frame,
            _ends: ends,
            _directory: directory,
        })
    }

    /// Does nothing for some time, and tells what the process spent.
    pub fn idle(&self, time: Duration) -> Spent {
        let (start, before, counted) = (Instant::now(), processor_time(), self.counters());
        std::thread::sleep(time);
        let after = self.counters();
        Spent {
            processor: processor_time().saturating_sub(before),
            time: start.elapsed(),
            polls: after[0] - counted[0],
            sleeps: after[1] - counted[1],
        }
    }

    fn counters(&self) -> [u64; 2] {
        let engine = &self.instance.snapshots()[0].engine;
        ["polls", "sleeps"].map(|name| {
            let found = engine.iter().find(|(info, _)| info.name == name);
            found.map_or(0, |(_, value)| *value)
        })
    }

    /// Sends a frame from the one guest, and tells how long it takes to the other one's used ring: the guest's kick, the
    /// worker waking up, the poll.
    ///
    /// # Panics
    /// If it does not come.
    pub fn first_packet(&mut self) -> Duration {
        let [from, to] = &mut self.pairs;
        from.transmit.reclaim();
        assert!(from.transmit.send(NetHeader::default(), &self.frame));
        let start = Instant::now();
        from.transmit.flush();
        while !to.receive.has_work() {
            assert!(start.elapsed() < LIMIT, "a packet is lost");
            std::hint::spin_loop();
        }
        let took = start.elapsed();
        to.receive.receive(64, |_, _| ());
        to.receive.flush();
        took
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A thread that waits for an event as a worker does, and does nothing else: the least that waking up takes here.
pub struct Sleeper {
    shared: Arc<Shared>,
    answered: u64,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    event: OwnedFd,
    answers: AtomicU64,
    stop: AtomicBool,
}

impl Sleeper {
    /// Starts it on core 0.
    ///
    /// # Errors
    /// When the system has no descriptor or thread left.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            answers: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&set, &shared.event, epoll::EventData::new_u64(0), flags)?;
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().spawn(move || {
            pin(0);
            let mut events = Vec::with_capacity(1);
            while !theirs.stop.load(Ordering::Acquire) {
                let room = rustix::buffer::spare_capacity(&mut events);
                if epoll::wait(&set, room, None).is_ok() {
                    theirs.answers.fetch_add(1, Ordering::Release);
                }
                events.clear();
            }
        })?;
        Ok(Self {
            shared,
            answered: 0,
            thread: Some(thread),
        })
    }

    /// Wakes it, and tells how long it takes until that is seen.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn wake(&mut self) -> Duration {
        let start = Instant::now();
        self.ring();
        self.answered += 1;
        while self.shared.answers.load(Ordering::Acquire) < self.answered {
            assert!(start.elapsed() < LIMIT, "no answer");
            std::hint::spin_loop();
        }
        start.elapsed()
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.shared.event, &1u64.to_ne_bytes());
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.ring();
        // A thread that panicked has told so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
