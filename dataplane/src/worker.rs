//! A worker: a thread, pinned to a core where one is named, that polls its engine and sleeps as its idle mode says.
//!
//! Control threads reach it by a mailbox, looked at between two polls: one relaxed load when it is empty.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, Sender, bounded};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::event::{EventfdFlags, eventfd};

use crate::capture::Tap;
use crate::engine::{Engine, EngineCounter};
use crate::function::SessionInfo;
use crate::stats::WorkerStats;
use crate::time::Time;

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Polls on: the lowest latency, a whole core.
    Busy,
    /// Polls on for a while, then sleeps until it is notified.
    #[default]
    Adaptive,
    /// Sleeps at once until it is notified.
    Interrupt,
}

/// How long an adaptive worker polls in vain before it sleeps: some times what it costs to be woken up.
const PATIENCE: Duration = Duration::from_micros(100);
/// The longest sleep, so that timers run (sessions, neighbours).
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// Commands waiting at most; whoever sends one more waits.
const MAILBOX: usize = 16;

/// How a worker's thread is to run.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The thread's name, 15 bytes at most are shown by the system.
    pub name: String,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// What it does when there is nothing to do.
    pub idle: Idle,
}

/// What control threads ask of a worker.
enum Command {
    Sessions {
        function: usize,
        cursor: usize,
        out: Vec<SessionInfo>,
        reply: Sender<SessionPage>,
    },
    Watch {
        port: usize,
        tap: Tap,
    },
}

/// A piece of a function's sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<SessionInfo>,
    /// Where to go on; `None` at the end.
    pub next: Option<usize>,
}

struct Mail {
    waiting: AtomicBool,
    stop: AtomicBool,
    finished: AtomicBool,
    bell: OwnedFd,
}

/// Wakes a sleeping worker; cheap enough for control threads, not for every packet.
#[derive(Clone)]
pub struct WakeHandle(Arc<Mail>);

impl WakeHandle {
    /// A handle for a worker that is started with it later, so that whoever wakes it can be made before.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Mail {
            waiting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            bell,
        })))
    }

    /// Has the worker do a poll soon, even if it sleeps.
    pub fn wake(&self) {
        // A full counter is a bell that rings already.
        let _ = rustix::io::write(&self.0.bell, &1u64.to_ne_bytes());
    }
}

/// A running worker, as its owner sees it. Dropping it stops the thread.
pub struct Worker {
    mail: WakeHandle,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    stats: WorkerStats,
    start: SystemTime,
}

impl Worker {
    /// Starts the thread, which builds its engine itself, so that packets and tables belong to it from the start.
    ///
    /// # Errors
    /// What `build` fails with, or that the thread can't be made or pinned. The handle serves one worker.
    pub fn start(
        config: &WorkerConfig,
        mail: WakeHandle,
        build: impl FnOnce() -> io::Result<Engine> + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, inbox) = bounded(MAILBOX);
        let (ready, readiness) = bounded(1);
        let handle = mail.clone();
        let (core, idle) = (config.core, config.idle);
        let thread = std::thread::Builder::new()
            .name(config.name.clone())
            .spawn(move || {
                let engine = pin(core).and_then(|()| build());
                let built = engine.and_then(|engine| Ok((Sleeper::new(&handle.0)?, engine)));
                match built {
                    Ok((sleeper, engine)) => {
                        let start = (Instant::now(), SystemTime::now());
                        let _ = ready.send(Ok((WorkerStats::of(&engine), start.1)));
                        Loop {
                            engine,
                            sleeper,
                            inbox,
                            mail: handle.0,
                            start: start.0,
                        }
                        .run(idle);
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            })?;
        let gone = |_| io::Error::other("the worker's thread ended while it was built");
        let (stats, start) = readiness.recv().map_err(gone)??;
        Ok(Self {
            mail,
            commands,
            thread: Some(thread),
            stats,
            start,
        })
    }

    /// Its counters.
    pub fn stats(&self) -> &WorkerStats {
        &self.stats
    }

    /// The wall-clock time of its [`Time`] 0.
    pub fn start_time(&self) -> SystemTime {
        self.start
    }

    /// Whether nothing will ever come in by any of its ports.
    pub fn is_finished(&self) -> bool {
        self.mail.0.finished.load(Ordering::Acquire)
    }

    /// Whether its thread runs; one that ended without being asked has met a defect.
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// A piece of the sessions of a function, `limit` at most, from `cursor` on.
    ///
    /// # Errors
    /// When the worker does not answer.
    pub fn sessions(
        &self,
        function: usize,
        cursor: usize,
        limit: usize,
    ) -> io::Result<SessionPage> {
        let (reply, answer) = bounded(1);
        let out = Vec::with_capacity(limit);
        self.send(Command::Sessions {
            function,
            cursor,
            out,
            reply,
        })?;
        answer
            .recv_timeout(Duration::from_secs(5))
            .map_err(io::Error::other)
    }

    /// Copies a port's packets to `tap` until its watch is dropped; an earlier one of the same port ends.
    ///
    /// # Errors
    /// When the worker does not answer.
    pub fn watch(&self, port: usize, tap: Tap) -> io::Result<()> {
        self.send(Command::Watch { port, tap })
    }

    fn send(&self, command: Command) -> io::Result<()> {
        let timeout = Duration::from_secs(5);
        self.commands.send_timeout(command, timeout).map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the worker does not take commands")
        })?;
        self.mail.0.waiting.store(true, Ordering::Release);
        self.mail.wake();
        Ok(())
    }

    /// Stops polling and waits for the thread, after which the counters are final.
    pub fn stop(&mut self) {
        self.mail.0.stop.store(true, Ordering::Release);
        self.mail.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker ended by a defect");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn pin(core: Option<usize>) -> io::Result<()> {
    let Some(core) = core else { return Ok(()) };
    let mut set = rustix::thread::CpuSet::new();
    if core >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::Error::other(format!("there is no core {core}")));
    }
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|error| io::Error::other(format!("cannot run on core {core}: {error}")))
}

/// What a worker's thread runs.
struct Loop {
    engine: Engine,
    sleeper: Sleeper,
    inbox: Receiver<Command>,
    mail: Arc<Mail>,
    start: Instant,
}

impl Loop {
    fn now(&self) -> Time {
        Time(self.start.elapsed().as_nanos() as u64)
    }

    fn run(mut self, idle: Idle) {
        let mut last_busy = self.now();
        let mut working = false;
        while !self.mail.stop.load(Ordering::Relaxed) {
            if self.mail.waiting.load(Ordering::Relaxed) {
                self.read_mail();
            }
            let now = self.now();
            if std::mem::take(&mut working) {
                let took = now.since(last_busy).as_nanos() as u64;
                self.engine
                    .counters
                    .add(EngineCounter::BusyNanoseconds as usize, took);
            }
            if self.engine.poll(now) > 0 {
                (last_busy, working) = (now, true);
                continue;
            }
            let patience = match idle {
                Idle::Busy => Duration::MAX,
                Idle::Adaptive => PATIENCE,
                Idle::Interrupt => Duration::ZERO,
            };
            if now.since(last_busy) < patience {
                std::hint::spin_loop();
                continue;
            }
            self.sleep(now);
            last_busy = self.now();
        }
        self.engine.poll(self.now());
        self.engine.shut_down(self.now());
    }

    fn read_mail(&mut self) {
        self.mail.waiting.swap(false, Ordering::AcqRel);
        let now = self.now();
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Sessions {
                    function,
                    cursor,
                    mut out,
                    reply,
                } => {
                    let next = self.engine.sessions(function, now, cursor, &mut out);
                    let _ = reply.try_send(SessionPage {
                        sessions: out,
                        next,
                    });
                }
                Command::Watch { port, tap } => self.engine.watch(port, tap),
            }
        }
    }

    fn sleep(&mut self, now: Time) {
        self.engine.publish_gauges();
        self.mail
            .finished
            .store(self.engine.is_finished(), Ordering::Release);
        if !self.engine.arm() {
            self.engine.counters.add(EngineCounter::Sleeps as usize, 1);
            let until = self
                .engine
                .deadline()
                .map_or(LONGEST_SLEEP, |at| at.since(now));
            self.sleeper.sleep(&self.engine, until.min(LONGEST_SLEEP));
        }
        self.engine.disarm();
    }
}

/// Waits for the descriptors of all ports and for the worker's bell.
struct Sleeper {
    poll: Poll,
    events: Events,
    mail: Arc<Mail>,
    descriptors: Vec<RawFd>,
    generation: u64,
}

impl Sleeper {
    fn new(mail: &Arc<Mail>) -> io::Result<Self> {
        Ok(Self {
            poll: listening(mail, &[])?,
            events: Events::with_capacity(64),
            mail: Arc::clone(mail),
            descriptors: Vec::new(),
            generation: 0,
        })
    }

    fn sleep(&mut self, engine: &Engine, timeout: Duration) {
        self.descriptors.clear();
        let generation = engine.wakeups(&mut self.descriptors);
        if generation != self.generation {
            // A descriptor whose other end lives on in a guest's process stays registered after we close ours, and
            // can't be taken out any more; so whatever changes, start with a fresh set.
            match listening(&self.mail, &self.descriptors) {
                Ok(poll) => (self.poll, self.generation) = (poll, generation),
                Err(error) => {
                    tracing::warn!(%error, "cannot wait for ports; polling every {LONGEST_SLEEP:?}");
                }
            }
        }
        // An interrupted wait is a short sleep.
        let _ = self.poll.poll(&mut self.events, Some(timeout));
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.mail.bell, &mut count);
    }
}

fn listening(mail: &Mail, descriptors: &[RawFd]) -> io::Result<Poll> {
    let poll = Poll::new()?;
    let bell = mail.bell.as_fd().as_raw_fd();
    poll.registry()
        .register(&mut SourceFd(&bell), Token(0), Interest::READABLE)?;
    for (index, descriptor) in descriptors.iter().enumerate() {
        let registered = poll.registry().register(
            &mut SourceFd(descriptor),
            Token(index + 1),
            Interest::READABLE,
        );
        if let Err(error) = registered
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!(%error, "cannot be woken up by a port");
        }
    }
    Ok(poll)
}
