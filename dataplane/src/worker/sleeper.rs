//! How a worker sleeps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::LONGEST_SLEEP;
use super::mail::Mail;
use crate::engine::Engine;

/// Waits for the descriptors of all ports and for the worker's bell.
pub(super) struct Sleeper {
    poll: Poll,
    events: Events,
    mail: Arc<Mail>,
    descriptors: Vec<RawFd>,
    generation: u64,
}

impl Sleeper {
    pub(super) fn new(mail: &Arc<Mail>) -> io::Result<Self> {
        Ok(Self {
            poll: listening(mail, &[])?,
            events: Events::with_capacity(64),
            mail: Arc::clone(mail),
            descriptors: Vec::new(),
            generation: 0,
        })
    }

    /// Sleeps until something is there, or the time has passed; tells whether something is.
    ///
    /// Each descriptor reports what happened since the last sleep once, whether or not it has been read since: so kicks
    /// are left in it, and waking up costs the same with one port or hundreds.
    pub(super) fn sleep(&mut self, engine: &Engine, timeout: Duration) -> bool {
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
        let waited = self.poll.poll(&mut self.events, Some(timeout));
        waited.is_err() || !self.events.is_empty()
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
