//! One front end's connection: messages as they come, each handled by the one who knows it.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use vhost::vhost_user::message::MAX_MSG_SIZE;
use vhost::vhost_user::{BackendReqHandler, Error, Result};

use super::messages::{self, HEADER, Header};
use super::{Session, Shared};

/// What is known of the message at the head of the socket's queue.
pub(super) enum Announced {
    /// It has arrived.
    Whole(Header),
    /// Some of it is still to come.
    Part,
}

/// A connection, and what its front end has told us.
pub(super) struct Connection {
    stream: UnixStream,
    shared: Arc<Shared>,
    session: Arc<Mutex<Session>>,
    handler: BackendReqHandler<Mutex<Session>>,
}

impl Connection {
    /// Begins a session over a socket.
    ///
    /// # Errors
    /// No more file descriptors.
    pub(super) fn new(shared: Arc<Shared>, stream: UnixStream) -> std::io::Result<Self> {
        let ours = stream.try_clone()?;
        let session = Arc::new(Mutex::new(Session::new(shared.clone())));
        let handler = BackendReqHandler::from_stream(stream, session.clone());
        shared.update(|status| {
            status.connected = true;
            status.connections += 1;
        });
        Ok(Self {
            stream: ours,
            shared,
            session,
            handler,
        })
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the front end for what the rings miss; tells whether answers are due.
    pub(super) fn ask(&self) -> bool {
        self.session().ask()
    }

    /// Takes and answers a message that has arrived whole.
    ///
    /// # Errors
    /// Why the connection can't go on.
    pub(super) fn handle(&mut self, header: Header) -> Result<()> {
        let result = if header.is_ours() {
            self.handle_ours(header)
        } else {
            self.handler.handle_request()
        };
        match result {
            // The stream of messages is still in step: the request was understood and refused.
            Err(error @ Error::ReqHandlerError(_)) if self.session().is_told(header) => {
                self.shared.report(format!("request was refused: {error}"));
                Ok(())
            }
            result => result,
        }
    }

    /// A message that the crate does not take.
    fn handle_ours(&self, header: Header) -> Result<()> {
        let mut session = self.session();
        let negotiated = session.protocol();
        let request = messages::take(&self.stream, header, negotiated)?;
        let result = session.perform(request);
        messages::answer(&self.stream, header, negotiated, result)
    }

    /// Whether the other side has closed the connection; what it sent before may still wait.
    pub(super) fn is_closed(&self) -> rustix::io::Result<bool> {
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default()))?;
        Ok(!fds[0].revents().is_empty())
    }

    /// Looks at the message at the head of the queue without taking it; `None` at the end of the
    /// stream.
    pub(super) fn announced(&self) -> rustix::io::Result<Option<Announced>> {
        let mut bytes = [0u8; HEADER];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let got = match recv(&self.stream, &mut bytes, flags) {
            Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Ok((_, got)) => got,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error),
        };
        if got < HEADER {
            return Ok(Some(Announced::Part));
        }
        let header = Header::from_bytes(bytes);
        let waiting = rustix::io::ioctl_fionread(&self.stream)?;
        let size = header.size as usize;
        // What is too long for a message is left to whoever takes it, and refuses it by its header.
        let whole = size > MAX_MSG_SIZE || waiting >= (HEADER + size) as u64;
        Ok(Some(if whole {
            Announced::Whole(header)
        } else {
            Announced::Part
        }))
    }

    /// Ends the session: every queue stops.
    pub(super) fn close(self) {
        self.session().close();
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
