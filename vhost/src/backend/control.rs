//! The control thread of a device: connections, and messages one at a time.
//!
//! The thread never blocks where [`Device::stop`](super::Device::stop) can't reach it: it reads a
//! message only once the whole of it has arrived, and a stop shuts the connection down.

use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use vhost::vhost_user::BackendReqHandler;
use vhost::vhost_user::message::MAX_MSG_SIZE;

use super::iommu::RETRY;
use super::messages::{self, HEADER, Header};
use super::socket::Endpoint;
use super::{Session, Shared};
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

/// What is known of the message at the head of the socket's queue.
enum Announced {
    /// It has arrived.
    Whole(Header),
    /// Some of it is still to come.
    Part,
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
        let (ours, peek) = (stream.try_clone()?, stream.try_clone()?);
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(ours);
        let session = Arc::new(Mutex::new(Session::new(self.shared.clone())));
        let mut handler = BackendReqHandler::from_stream(stream, session.clone());
        self.shared.update(|status| {
            status.connected = true;
            status.connections += 1;
        });
        let end = loop {
            if self.stopping() {
                break End::Stopped;
            }
            let asking = lock(&session).ask();
            match self.message(&peek, asking.then_some(RETRY)) {
                Ok(Some(header)) => {
                    let result = if header.is_ours() {
                        handle(&peek, header, &session)
                    } else {
                        handler.handle_request()
                    };
                    let Err(error) = result else {
                        continue;
                    };
                    let told = lock(&session).is_told(header);
                    if !(told && is_refusal(&error)) {
                        break End::Failed(format!("front end was disconnected: {error}"));
                    }
                    self.shared.report(format!("request was refused: {error}"));
                }
                Ok(None) => {}
                Err(end) => break end,
            }
        };
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        lock(&session).close();
        Ok(end)
    }

    /// Waits for the next whole message; `None` when something else was to be done, or after
    /// `timeout`.
    fn message(
        &self,
        stream: &UnixStream,
        timeout: Option<Duration>,
    ) -> Result<Option<Header>, End> {
        let failed = |e: &dyn fmt::Display| End::Failed(format!("control socket failed: {e}"));
        if !self
            .wait(Some(stream.as_fd()), timeout)
            .map_err(|e| failed(&e))?
        {
            return Ok(None);
        }
        let deadline = Instant::now() + MESSAGE_PATIENCE;
        while !self.stopping() {
            let closed = is_closed(stream).map_err(|e| failed(&e))?;
            match announced(stream).map_err(|e| failed(&e))? {
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

/// Whether the other side has closed the connection; what it sent before may still wait.
fn is_closed(stream: &UnixStream) -> rustix::io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut fds, Some(&Timespec::default()))?;
    Ok(!fds[0].revents().is_empty())
}

/// Looks at the message at the head of the queue without taking it; `None` at the end of the
/// stream.
fn announced(stream: &UnixStream) -> rustix::io::Result<Option<Announced>> {
    let mut bytes = [0u8; HEADER];
    let got = match recv(stream, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Ok((_, got)) => got,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
        Err(error) => return Err(error),
    };
    if got < HEADER {
        return Ok(Some(Announced::Part));
    }
    let header = Header::from_bytes(bytes);
    let waiting = rustix::io::ioctl_fionread(stream)?;
    let size = header.size as usize;
    // What is too long for a message is left to whoever takes it, and refuses it by its header.
    let whole = size > MAX_MSG_SIZE || waiting >= (HEADER + size) as u64;
    Ok(Some(if whole {
        Announced::Whole(header)
    } else {
        Announced::Part
    }))
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes and answers a message that the crate does not take.
fn handle(
    stream: &UnixStream,
    header: Header,
    session: &Mutex<Session>,
) -> vhost::vhost_user::Result<()> {
    let mut session = lock(session);
    let negotiated = session.protocol();
    let request = messages::take(stream, header, negotiated)?;
    let result = session.perform(request);
    messages::answer(stream, header, negotiated, result)
}

/// Whether the stream of messages is still in step after an error: the request was understood and
/// refused.
fn is_refusal(error: &vhost::vhost_user::Error) -> bool {
    matches!(error, vhost::vhost_user::Error::ReqHandlerError(_))
}
