//! A guest of a vhost-user back end as an endpoint.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use chainplane_vhost::driver::{DriverError, DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{NetHeader, feature};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::VhostOptions;
use crate::bench::traffic::fill::{Fill, MAX_FRAME};
use crate::bench::traffic::head::HEAD;
use crate::bench::trial::BenchError;

/// Bytes of a buffer: an odd number of cache lines, so that the beginnings of all buffers share out the whole cache.
const BUFFER: u32 = 33 * 64;
/// From one look at the user's wish, and at the socket, to the next.
const LOOK: Duration = Duration::from_millis(20);

/// An attached guest.
pub struct VhostEnd {
    socket: String,
    // Before the pairs' memory goes, the other side lets go of it.
    front_end: FrontEnd,
    pairs: Vec<DriverPair>,
    link: UnixStream,
    options: VhostOptions,
}

impl VhostEnd {
    pub fn attach(
        socket: &Path,
        options: &VhostOptions,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, BenchError> {
        let at = format!("vhost-user socket {}", socket.display());
        let stream = if options.listen {
            answer(&at, socket, options.patience, cancelled)?
        } else {
            dial(&at, socket, options.patience, cancelled)?
        };
        let link = stream.try_clone()?;
        let (front_end, mut pairs) = negotiate(&at, socket, options, stream, cancelled)?;
        // What was asked for is measured, or nothing.
        if options.packed && front_end.features() & feature::RING_PACKED == 0 {
            return Err(BenchError::Attach {
                endpoint: at,
                reason: "the back end does not offer packed rings".into(),
                hint: Some("measure split rings, or have the back end offer packed ones".into()),
            });
        }
        for pair in &mut pairs {
            pair.receive.disarm();
            pair.transmit.disarm();
        }
        Ok(Self {
            socket: at,
            front_end,
            pairs,
            link,
            options: options.clone(),
        })
    }

    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let has = |bit| self.front_end.features() & bit != 0;
        let merge = if has(feature::MRG_RXBUF) { "on" } else { "off" };
        let format = if has(feature::RING_PACKED) {
            "packed"
        } else {
            "split"
        };
        vec![
            ("queues", self.pairs.len().to_string()),
            ("rings", format.into()),
            ("ring size", self.options.ring.to_string()),
            ("mergeable buffers", merge.into()),
            ("features", format!("{:#x}", self.front_end.features())),
        ]
    }

    #[expect(
        clippy::unused_self,
        reason = "all kinds of endpoint have the same methods"
    )]
    pub fn longest_frame(&self) -> usize {
        MAX_FRAME
    }

    #[inline]
    pub fn queues(&self) -> usize {
        self.pairs.len()
    }

    pub fn set_fill(&mut self, fill: &Fill) {
        for pair in &mut self.pairs {
            pair.transmit.set_stencil(fill.bytes());
        }
    }

    #[inline]
    pub fn prefetch(&self) {
        for pair in &self.pairs {
            pair.receive.prefetch();
            pair.transmit.prefetch();
        }
    }

    #[inline]
    pub fn prepare(&mut self, frames: usize) {
        let queues = self.pairs.len();
        for pair in &mut self.pairs {
            pair.transmit.prepare(frames.div_ceil(queues));
        }
    }

    #[inline]
    pub fn has_room(&mut self, queue: usize, len: usize) -> bool {
        self.pairs[queue].transmit.has_room(len)
    }

    #[inline]
    pub fn send(&mut self, queue: usize, head: &[u8; HEAD], len: usize) -> bool {
        self.pairs[queue].transmit.send_head(head, len)
    }

    pub fn send_whole(&mut self, frame: &[u8]) -> bool {
        self.pairs[0].transmit.send(NetHeader::default(), frame)
    }

    #[inline]
    pub fn flush(&mut self) {
        for pair in &mut self.pairs {
            pair.transmit.flush();
        }
    }

    #[inline]
    pub fn receive(
        &mut self,
        max: usize,
        mut ahead: impl FnMut(&[u8]),
        mut take: impl FnMut(&[u8]),
    ) -> usize {
        let mut count = 0;
        for pair in &mut self.pairs {
            let take = |_, frame: &[u8]| take(frame);
            count += pair.receive.receive_ahead(max, &mut ahead, take);
        }
        count
    }

    pub fn check(&mut self) -> Result<(), BenchError> {
        let died = |reason: String| BenchError::Died {
            endpoint: self.socket.clone(),
            reason,
        };
        // The other side says nothing on the socket that was not asked for, other than that it has gone.
        let mut fds = [PollFd::from_borrowed_fd(self.link.as_fd(), PollFlags::IN)];
        let now = Timespec::default();
        if poll(&mut fds, Some(&now)).unwrap_or(0) > 0 && !fds[0].revents().is_empty() {
            return Err(died("the back end has disconnected".into()));
        }
        let bad = self.pairs.iter();
        let bad: u64 = bad.map(|p| p.receive.bad_used + p.transmit.bad_used).sum();
        if bad > 0 {
            let reason = format!("the back end gave back {bad} descriptors that it did not have");
            return Err(died(reason));
        }
        Ok(())
    }
}

/// Connects to a socket where the back end listens, or will soon.
fn dial(
    at: &str,
    path: &Path,
    patience: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<UnixStream, BenchError> {
    let deadline = Instant::now() + patience.min(Duration::from_secs(3));
    loop {
        let error = match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        // What can change by waiting a little: a back end that starts at the same time.
        let soon = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        );
        if soon && Instant::now() < deadline {
            if cancelled() {
                return Err(BenchError::Cancelled);
            }
            std::thread::sleep(LOOK);
            continue;
        }
        let (reason, hint) = match error.kind() {
            io::ErrorKind::NotFound => (
                "there is no such file".to_owned(),
                "is the back end running? If it connects to a socket of ours instead, write `listen:PATH`",
            ),
            io::ErrorKind::ConnectionRefused => (
                "nobody listens there".to_owned(),
                "the file is left over from a program that has ended, or is no socket; if the back end connects to \
                 a socket of ours instead, write `listen:PATH`",
            ),
            io::ErrorKind::PermissionDenied => (
                error.to_string(),
                "the socket's owner and mode decide who may connect",
            ),
            _ => (error.to_string(), "a path has 107 bytes at most"),
        };
        return Err(BenchError::Attach {
            endpoint: at.to_owned(),
            reason,
            hint: Some(hint.into()),
        });
    }
}

/// Listens until the back end connects.
fn answer(
    at: &str,
    path: &Path,
    patience: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<UnixStream, BenchError> {
    let failed = |reason: String, hint: &str| BenchError::Attach {
        endpoint: at.to_owned(),
        reason,
        hint: Some(hint.into()),
    };
    let listener = UnixListener::bind(path).map_err(|error| {
        failed(
            format!("can't listen: {error}"),
            "a file that is there already has to be removed first; its directory must be writable",
        )
    })?;
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + patience;
    let result = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream.set_nonblocking(false).map(|()| stream),
            Err(_) if cancelled() => {
                let _ = std::fs::remove_file(path);
                return Err(BenchError::Cancelled);
            }
            Err(_) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Err(error) => break Err(error),
        }
    };
    let _ = std::fs::remove_file(path);
    result.map_err(|_| {
        failed(
            format!("nobody connected within {patience:?}"),
            "if the back end listens itself, write the PATH without `listen:`",
        )
    })
}

/// Negotiates on a thread of its own: a socket that is no vhost-user back end's may never answer.
fn negotiate(
    at: &str,
    socket: &Path,
    options: &VhostOptions,
    stream: UnixStream,
    cancelled: &dyn Fn() -> bool,
) -> Result<(FrontEnd, Vec<DriverPair>), BenchError> {
    let failed = |reason: String, hint: Option<String>| BenchError::Attach {
        endpoint: at.to_owned(),
        reason,
        hint,
    };
    let hint = || Some("is that a vhost-user back end, and has it no other guest?".to_owned());
    let config = config(socket, options);
    let cut = stream.try_clone()?;
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("vhost-attach".into())
        .spawn(move || {
            let _ = sender.send(FrontEnd::from_stream(config, stream));
        })?;
    let deadline = Instant::now() + options.patience;
    let result = loop {
        match receiver.recv_timeout(LOOK) {
            Ok(result) => break result,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(failed("the driver failed".into(), None));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let late = Instant::now() >= deadline;
        if late || cancelled() {
            // The thread's read ends, and the thread with it.
            let _ = cut.shutdown(std::net::Shutdown::Both);
            if !late {
                return Err(BenchError::Cancelled);
            }
            let reason = format!(
                "connected, but no answer to a vhost-user request within {:?}",
                options.patience
            );
            return Err(failed(reason, hint()));
        }
    };
    let (front_end, pairs) = result.map_err(|error| match error {
        DriverError::Config(text) => failed(text, None),
        DriverError::Io(error) => failed(error.to_string(), None),
        DriverError::Protocol(error) => failed(
            format!("connected, but the vhost-user negotiation failed: {error}"),
            hint(),
        ),
    })?;
    if pairs.is_empty() {
        return Err(failed("no queues were set up".into(), None));
    }
    Ok((front_end, pairs))
}

fn config(socket: &Path, options: &VhostOptions) -> FrontEndConfig {
    let mut config = FrontEndConfig::new(socket);
    config.queue_pairs = options.queues;
    config.queue_size = options.ring;
    config.huge_pages = true;
    config.transmit_buffer = BUFFER;
    // A frame of 64 bytes is one line to write; the header before it stays as it is.
    config.buffer_offset = 64 - NetHeader::LEN as u32;
    config.features = feature::VERSION_1 | feature::INDIRECT_DESC;
    if options.packed {
        config.features |= feature::RING_PACKED;
    }
    if options.queues > 1 {
        config.features |= feature::MQ;
    }
    if options.mergeable {
        config.features |= feature::MRG_RXBUF;
        config.receive_buffer = BUFFER;
    } else {
        config.receive_buffer = (MAX_FRAME + NetHeader::LEN).next_multiple_of(64) as u32 | 64;
    }
    config
}
