//! Event file descriptors: kicks from the driver and calls to it.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, readlink};
use rustix::io::ReadWriteFlags;
use vmm_sys_util::eventfd::EventFd;

/// An eventfd that never blocks whoever signals or clears it.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// A new one, with nothing signalled.
    ///
    /// # Errors
    /// What eventfd(2) says.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    /// Takes over one that the other side made, after a check that it is one: a write to a pipe
    /// or a file could block a worker.
    ///
    /// # Errors
    /// When it is not an eventfd, or can't be set to non-blocking.
    pub fn adopt(file: File) -> io::Result<Self> {
        let fd = OwnedFd::from(file);
        let link = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
        if link.is_ok_and(|name| name.as_bytes() != b"anon_inode:[eventfd]") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not an eventfd",
            ));
        }
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self(fd))
    }

    /// Another handle of the same event, in the type that the crates for vhost-user and KVM ask for.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn share(&self) -> io::Result<EventFd> {
        let fd = self.0.try_clone()?.into_raw_fd();
        // SAFETY: the fd was just given up by its owner, so nobody else closes it.
        Ok(unsafe { EventFd::from_raw_fd(fd) })
    }

    /// Signals it. A counter that is full is as good as signalled.
    #[inline]
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes what was signalled; tells whether anything was. Never waits, even if the other side,
    /// which shares the descriptor's flags, has made it block.
    pub fn clear(&self) -> bool {
        let mut count = [0u8; 8];
        let into = &mut [IoSliceMut::new(&mut count)];
        // An offset of -1 stands for the file's own position, of which an eventfd has none.
        rustix::io::preadv2(&self.0, into, u64::MAX, ReadWriteFlags::NOWAIT).is_ok()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn clearing_never_waits_even_if_the_other_side_wants_it() {
        let theirs = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
        let ours = Event::adopt(File::from(theirs.try_clone().expect("a copy"))).expect("adopted");
        // The flags belong to both descriptors.
        fcntl_setfl(&theirs, OFlags::empty()).expect("flags");
        let (done, waiting) = channel();
        std::thread::spawn(move || {
            assert!(!ours.clear());
            ours.signal();
            assert!(ours.clear() && !ours.clear());
            done.send(()).expect("somebody waits");
        });
        let answer = waiting.recv_timeout(Duration::from_secs(10));
        answer.expect("the event was cleared without a wait");
    }
}
