//! A guest's thread.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chainplane_vhost::event::Event as Bell;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::greeting::Greeting;
use super::server::{Served, Server};
use super::stack::Stack;
use super::task::Tasks;
use super::virtio::VirtioCard;
use super::wire::Wire;
use super::{GuestSpec, TaskResult};

/// The longest sleep; the clock of the stack moves on.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What a guest tells of itself.
#[derive(Clone, Debug)]
pub enum Event {
    /// Its card is connected, its IPv6 gateways have answered or were waited for, and it serves.
    Up {
        /// Its name.
        guest: String,
    },
    /// It has done a task.
    Task(Box<TaskResult>),
    /// It has ended before it was asked to.
    Failed {
        /// Its name.
        guest: String,
        /// Why.
        error: String,
    },
}

/// What a guest and its owner share.
struct Shared {
    begin: AtomicBool,
    stop: AtomicBool,
    bell: Bell,
}

/// A running guest. Dropping it stops it.
pub struct Guest {
    shared: Arc<Shared>,
    served: Arc<Served>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    /// Starts the guest's thread, which connects to the back end that listens at `socket` and tells `events`
    /// how it goes. It serves at once, and begins its tasks when told to.
    ///
    /// # Errors
    /// When the thread can't be made.
    pub fn start(spec: GuestSpec, socket: PathBuf, events: Sender<Event>) -> io::Result<Self> {
        let checksums = spec.offload_checksums;
        Self::start_with(spec, events, move || {
            VirtioCard::connect(&socket, checksums)
                .map_err(|error| format!("can't attach to {}: {error}", socket.display()))
        })
    }

    /// As [`Guest::start`], with a card that `plug` makes on the thread.
    pub(super) fn start_with<W: Wire>(
        spec: GuestSpec,
        events: Sender<Event>,
        plug: impl FnOnce() -> Result<W, String> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            begin: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            bell: Bell::new()?,
        });
        let served = Arc::new(Served::default());
        let (ours, counts) = (Arc::clone(&shared), Arc::clone(&served));
        let run = move || {
            let guest = spec.name.clone();
            let ended = plug().and_then(|wire| run(&spec, wire, &ours, counts, &events));
            if let Err(error) = ended {
                let _ = events.send(Event::Failed { guest, error });
            }
        };
        let thread = std::thread::Builder::new()
            .name("guest".into())
            .spawn(run)?;
        Ok(Self {
            shared,
            served,
            thread: Some(thread),
        })
    }

    /// Has it begin its tasks.
    pub fn begin(&self) {
        self.shared.begin.store(true, Ordering::Release);
        self.shared.bell.signal();
    }

    /// What it has served so far.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Disconnects its card and waits for its thread.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The guest's life, until it is stopped or its card's other side goes.
fn run<W: Wire>(
    spec: &GuestSpec,
    wire: W,
    shared: &Shared,
    served: Arc<Served>,
    events: &Sender<Event>,
) -> Result<(), String> {
    let mut stack = Stack::new(spec, wire);
    let mut server = Server::new(&mut stack, &spec.name, &spec.serve, served);
    let mut tasks = Tasks::new(&spec.name, &spec.tasks);
    let mut greeting = Greeting::new(&mut stack, &spec.gateways);
    let mut up = false;
    while !shared.stop.load(Ordering::Acquire) {
        stack.turn();
        server.step(&mut stack);
        let greet = greeting.step(&mut stack);
        if !up && greeting.is_over() {
            up = true;
            let guest = spec.name.clone();
            // An owner that does not listen any more is about to stop the guest.
            let _ = events.send(Event::Up { guest });
        }
        let begun = shared.begin.load(Ordering::Acquire);
        let due = begun.then(|| {
            tasks.step(&mut stack, |result| {
                let _ = events.send(Event::Task(Box::new(result)));
            })
        });
        let due = [due.flatten(), greet].into_iter().flatten().min();
        let due = due.map(|due| due.saturating_duration_since(Instant::now()));
        let patience = [due, stack.patience()].into_iter().flatten().min();
        let patience = patience.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
        if !patience.is_zero() && !stack.wire().arm() {
            wait(stack.wire(), &shared.bell, patience)?;
        }
        stack.wire().disarm();
        shared.bell.clear();
    }
    Ok(())
}

/// Sleeps until a frame comes, the owner rings, or time has passed.
fn wait(wire: &mut impl Wire, bell: &Bell, patience: Duration) -> Result<(), String> {
    let (wakeup, link) = (wire.wakeup(), wire.link());
    let mut waited: Vec<PollFd<'_>> = [Some(wakeup), Some(bell.as_fd()), link]
        .into_iter()
        .flatten()
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(patience).unwrap_or_default();
    match poll(&mut waited, Some(&timeout)) {
        Err(rustix::io::Errno::INTR) | Ok(_) => {}
        Err(error) => return Err(format!("can't sleep: {error}")),
    }
    // The other side says nothing on this socket that was not asked for, other than that it has gone.
    match waited.get(2) {
        Some(link) if !link.revents().is_empty() => Err("the port has disconnected it".into()),
        _ => Ok(()),
    }
}
