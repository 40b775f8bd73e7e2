//! A worker: a thread, pinned to a core where one is named, that polls its engine and sleeps as its idle mode says.
//!
//! Control threads reach it by a mailbox, looked at between two polls: one relaxed load when it is empty.
//!
//! Before it sleeps it asks every port for notifications and looks once more, so that none is missed. It takes that
//! back only once packets came: what woke it is on its way before anything else is done, and an idle worker that looks
//! after its timers leaves guests' memory alone.

mod listing;
mod mail;
mod sleeper;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::capture::Tap;
use crate::engine::{Engine, EngineCounter};
use crate::function::SessionInfo;
use crate::stats::WorkerStats;
use crate::time::Time;
use listing::Listing;
use mail::Mail;
use sleeper::Sleeper;

pub use mail::WakeHandle;

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
/// Sessions that are told between two polls: some microseconds of writing text.
pub const TOLD_AT_ONCE: usize = 8;

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
    Sessions(Listing),
    Watch { port: usize, tap: Tap },
}

/// A piece of a function's sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<SessionInfo>,
    /// Where to go on; `None` at the end.
    pub next: Option<usize>,
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
                    Ok((sleeper, mut engine)) => {
                        engine.heed(handle.clone());
                        let start = (Instant::now(), SystemTime::now());
                        let _ = ready.send(Ok((WorkerStats::of(&engine), start.1)));
                        Loop {
                            engine,
                            sleeper,
                            inbox,
                            mail: handle.0,
                            start: start.0,
                            armed: false,
                            listing: None,
                            finished: false,
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

    /// A piece of the sessions of a function, `limit` at most, from `cursor` on. The worker looks for a few between two
    /// polls, so that no packet waits for more than these.
    ///
    /// # Errors
    /// When the worker does not answer.
    pub fn sessions(
        &self,
        function: usize,
        cursor: usize,
        limit: usize,
    ) -> io::Result<SessionPage> {
        let mut page = SessionPage {
            sessions: Vec::with_capacity(limit),
            next: Some(cursor),
        };
        while let Some(cursor) = page.next
            && page.sessions.len() < limit
        {
            let (listing, answer) = Listing::new(function, cursor, limit - page.sessions.len());
            self.send(Command::Sessions(listing))?;
            let mut piece = listing::wait(&answer)?;
            page.sessions.append(&mut piece.sessions);
            page.next = piece.next;
        }
        Ok(page)
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
        self.mail.ring();
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
    /// Ports were asked for notifications, and not yet told that there is no need.
    armed: bool,
    /// A list of sessions that is not complete.
    listing: Option<Listing>,
    /// It was told that nothing will come in any more.
    finished: bool,
}

impl Loop {
    fn now(&self) -> Time {
        Time(self.start.elapsed().as_nanos() as u64)
    }

    fn run(mut self, idle: Idle) {
        let mut last_busy = self.now();
        let mut told = last_busy;
        let (mut working, mut unwoken) = (false, false);
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
            let late = std::mem::take(&mut unwoken);
            if self.engine.poll(now) > 0 {
                if self.finished {
                    // Another worker had something left.
                    self.tell_finished();
                }
                let overslept = EngineCounter::Overslept as usize;
                self.engine.counters.add(overslept, u64::from(late));
                self.disarm();
                (last_busy, working) = (now, true);
                continue;
            }
            let patience = match idle {
                Idle::Busy => Duration::MAX,
                Idle::Adaptive => PATIENCE,
                Idle::Interrupt => Duration::ZERO,
            };
            if now.since(last_busy) < patience {
                // As often as somebody who sleeps: this one may never do so.
                if now.since(told) >= LONGEST_SLEEP {
                    self.tell_finished();
                    told = now;
                }
                std::hint::spin_loop();
                continue;
            }
            if self.mail.waiting.load(Ordering::Relaxed) || self.engine.has_turns() {
                continue;
            }
            // Woken for nothing, it sleeps again at once.
            unwoken = self.sleep(now);
        }
        self.engine.ask_everyone();
        self.engine.poll(self.now());
        self.engine.shut_down(self.now());
    }

    /// Does one thing that control threads ask for, or a piece of one; what is left has its turn after the next poll.
    fn read_mail(&mut self) {
        self.mail.waiting.swap(false, Ordering::AcqRel);
        let now = self.now();
        if let Some(listing) = self.listing.take() {
            self.listing = listing.go_on(&self.engine, now);
        } else if let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Sessions(listing) => {
                    self.listing = listing.go_on(&self.engine, now);
                }
                Command::Watch { port, tap } => self.engine.watch(port, tap),
            }
        }
        if self.listing.is_some() || !self.inbox.is_empty() {
            self.mail.waiting.store(true, Ordering::Relaxed);
        }
    }

    fn tell_finished(&mut self) {
        self.finished = self.engine.is_finished();
        self.mail.finished.store(self.finished, Ordering::Release);
    }

    /// Sleeps until a port or a control thread wants something, but for no longer than timers allow. True if it slept for
    /// as long as can be, and nobody woke it.
    fn sleep(&mut self, now: Time) -> bool {
        self.engine.publish_gauges();
        self.tell_finished();
        self.armed = true;
        if self.engine.arm() {
            return false;
        }
        self.engine.counters.add(EngineCounter::Sleeps as usize, 1);
        let until = self.engine.deadline().map(|at| at.since(now));
        let until = until.filter(|until| *until < LONGEST_SLEEP);
        let woken = self
            .sleeper
            .sleep(&self.engine, until.unwrap_or(LONGEST_SLEEP));
        until.is_none() && !woken
    }

    /// Tells the ports that they need not notify; after the first packets have gone, which are waited for.
    #[inline]
    fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            self.engine.disarm();
        }
    }
}

#[cfg(test)]
mod tests;
