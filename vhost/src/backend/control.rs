//! The control thread of a device: connections, and messages one at a time.
//!
//! The thread never blocks where [`Device::stop`](super::Device::stop) can't reach it: it reads a
//! message only once the whole of it has arrived, and a stop shuts the connection down.

use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Shared;
use super::connection::{Announced, Connection};
use super::iommu::RETRY;
use super::messages::Header;
use super::socket::Endpoint;
use crate::socket::Listener;

/// How long a front end may take to send the rest of a message.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts to connect as client.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How a connection ended.
enum End {
    /// The front end closed it between two messages.
    Closed,
    /// We are to stop.
    Stopped,
    /// It was not to be borne.
    Failed(String),
}

pub(super) struct Control {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    connection: Arc<Mutex<Option<UnixStream>>>,
    /// For each queue, how many breaks were told of.
    told: Vec<Cell<u64>>,
}

impl Control {
    pub(super) fn new(
        shared: Arc<Shared>,
        endpoint: Endpoint,
        connection: Arc<Mutex<Option<UnixStream>>>,
    ) -> Self {
        let told = vec![Cell::new(0); 2 * shared.pairs.len()];
        Self {
            shared,
            endpoint,
            connection,
            told,
        }
    }

    /// Serves one front end after the other until the device is stopped.
    pub(super) fn run(self) {
        for pair in &self.shared.pairs {
            pair.set_control(std::thread::current());
        }
        while let Some(stream) = self.next() {
            tracing::info!(socket = %self.shared.config.socket.display(), "front end connected");
            match self.serve(stream) {
                Ok(End::Closed) => {
                    tracing::info!(socket = %self.shared.config.socket.display(), "front end left");
                }
                Ok(End::Stopped) => break,
                Ok(End::Failed(reason)) => self.fail(reason),
                Err(error) => self.fail(format!("control socket failed: {error}")),
            }
        }
    }

    /// Reports why a connection was given up. Where we connect, a front end that we can't agree with would be tried
    /// again at once and for ever; so wait.
    fn fail(&self, reason: String) {
        self.shared.report(reason);
        if matches!(self.endpoint, Endpoint::Client(_)) {
            let _ = self.wait(None, Some(BACKOFF.1));
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Waits for the next front end; `None` when stopped.
    fn next(&self) -> Option<UnixStream> {
        match &self.endpoint {
            Endpoint::Server(server) => self.accept(server),
            Endpoint::Client(path) => {
                let (mut pause, longest) = BACKOFF;
                while !self.stopping() {
                    match UnixStream::connect(path) {
                        Ok(stream) => return Some(stream),
                        Err(error) => {
                            tracing::debug!(socket = %path.display(), %error, "no front end yet");
                        }
                    }
                    let _ = self.wait(None, Some(pause));
                    pause = (pause * 2).min(longest);
                }
                None
            }
        }
    }

    fn accept(&self, server: &Listener) -> Option<UnixStream> {
        while !self.stopping() {
            match server.accept() {
                Ok(Some(stream)) => return Some(stream),
                Ok(None) => {
                    let _ = self.wait(Some(server.as_fd()), None);
                }
                Err(error) => {
                    // Out of file descriptors, mostly: they come back, and nothing else does.
                    self.shared
                        .report(format!("front end can't be accepted: {error}"));
                    let _ = self.wait(None, Some(BACKOFF.1));
                }
            }
        }
        None
    }

    /// Waits until `fd` is readable, or the device is woken, or `timeout` is over; tells whether
    /// `fd` is readable.
    fn wait(
        &self,
        fd: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> rustix::io::Result<bool> {
        let wake = self.shared.wake.as_fd();
        let timeout = timeout.map(|t| Timespec {
            tv_sec: t.as_secs() as i64,
            tv_nsec: t.subsec_nanos().into(),
        });
        let mut fds = [
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
            PollFd::from_borrowed_fd(fd.unwrap_or(wake), PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let woken = !fds[0].revents().is_empty();
        let readable = fd.is_some() && !fds[1].revents().is_empty();
        if woken && !self.stopping() {
            self.shared.wake.clear();
            self.tell_broken();
        }
        Ok(readable)
    }

    /// Tells of rings that broke since the last time.
    fn tell_broken(&self) {
        for (index, told) in self.told.iter().enumerate() {
            let report = self.shared.pairs[index / 2].report(index % 2);
            let breaks = report.counters().breaks;
            if told.replace(breaks) != breaks
                && let Some(error) = report.broken()
            {
                self.shared
                    .report(format!("queue {index} is broken: {error}"));
            }
        }
    }

    /// Serves one front end until it leaves, misbehaves or the device is stopped.
    fn serve(&self, stream: UnixStream) -> std::io::Result<End> {
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(stream.try_clone()?);
        let mut connection = Connection::new(self.shared.clone(), stream)?;
        let end = loop {
            if self.stopping() {
                break End::Stopped;
            }
            let asking = connection.ask();
            match self.message(&connection, asking.then_some(RETRY)) {
                Ok(Some(header)) => {
                    if let Err(error) = connection.handle(header) {
                        break End::Failed(format!("front end was disconnected: {error}"));
                    }
                }
                Ok(None) => {}
                Err(end) => break end,
            }
        };
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        connection.close();
        Ok(end)
    }

    /// Waits for the next whole message; `None` when something else was to be done, or after
    /// `timeout`.
    fn message(
        &self,
        connection: &Connection,
        timeout: Option<Duration>,
    ) -> Result<Option<Header>, End> {
        let failed = |e: &dyn fmt::Display| End::Failed(format!("control socket failed: {e}"));
        if !self
            .wait(Some(connection.as_fd()), timeout)
            .map_err(|e| failed(&e))?
        {
            return Ok(None);
        }
        let deadline = Instant::now() + MESSAGE_PATIENCE;
        while !self.stopping() {
            let closed = connection.is_closed().map_err(|e| failed(&e))?;
            match connection.announced().map_err(|e| failed(&e))? {
                None => return Err(End::Closed),
                Some(Announced::Whole(header)) => return Ok(Some(header)),
                Some(_) if closed => {
                    return Err(End::Failed(
                        "front end left in the middle of a message".into(),
                    ));
                }
                Some(_) if Instant::now() > deadline => {
                    return Err(End::Failed("front end sent half a message".into()));
                }
                // The rest is on its way, or never comes; poll(2) would return at once.
                Some(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(None)
    }
}
