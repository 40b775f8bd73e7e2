//! Two guests that send the same frames again and again, and count what arrives.

use std::path::Path;

use chainplane_vhost::backend::Role;
use chainplane_vhost::driver::{DriverError, FastMode, FastPair, FrontEnd, FrontEndConfig, Moved};
use chainplane_vhost::net::feature;

/// What the guests negotiate and how they behave.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Entries of each ring.
    pub queue_size: u16,
    /// Whether buffers are mergeable.
    pub mergeable: bool,
    /// How much of the frames they touch.
    pub mode: FastMode,
    /// Who listens on the sockets; as client, the back end does.
    pub role: Role,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_size: 1024,
            mergeable: true,
            mode: FastMode::IndexOnly,
            role: Role::Client,
        }
    }
}

/// The two guests.
pub struct Guests {
    pairs: [FastPair; 2],
    _ends: [FrontEnd; 2],
}

/// What the guests moved in one turn or in many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Frames that arrived at the two guests.
    pub received: [u64; 2],
    /// Turns.
    pub turns: u64,
    /// Turns in which nothing had arrived: the back end was the limit.
    pub empty: u64,
}

impl Progress {
    /// Frames that arrived at either.
    pub fn total(&self) -> u64 {
        self.received[0] + self.received[1]
    }
}

impl Guests {
    /// Attaches guests to two sockets; they send `frames`.
    ///
    /// # Errors
    /// What attaching fails with.
    pub fn attach(
        sockets: [&Path; 2],
        frames: &[Vec<u8>; 2],
        settings: Settings,
    ) -> Result<Self, DriverError> {
        let [a, b] = [0, 1].map(|index| attach(sockets[index], &frames[index], settings));
        let ((a, end_a), (b, end_b)) = (a?, b?);
        Ok(Self {
            pairs: [a, b],
            _ends: [end_a, end_b],
        })
    }

    /// One turn of both.
    #[inline]
    pub fn poll(&mut self, progress: &mut Progress) {
        let [a, b]: [Moved; 2] = [self.pairs[0].poll(), self.pairs[1].poll()];
        progress.received[0] += u64::from(a.received);
        progress.received[1] += u64::from(b.received);
        progress.turns += 1;
        progress.empty += u64::from(a.received + b.received == 0);
    }
}

fn attach(
    socket: &Path,
    frame: &[u8],
    settings: Settings,
) -> Result<(FastPair, FrontEnd), DriverError> {
    let mut config = FrontEndConfig::new(socket);
    config.queue_size = settings.queue_size;
    config.role = settings.role;
    config.huge_pages = true;
    config.features = feature::VERSION_1 | feature::INDIRECT_DESC;
    if settings.mergeable {
        config.features |= feature::MRG_RXBUF;
    }
    let (end, pairs) = FrontEnd::connect(config)?;
    let pair = pairs
        .into_iter()
        .next()
        .ok_or_else(|| DriverError::Config("no queue pair".into()))?;
    Ok((FastPair::new(pair, settings.mode, frame), end))
}
