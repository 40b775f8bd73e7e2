//! Two guests that send the same frames again and again, and count what arrives.

use std::path::{Path, PathBuf};

use chainplane_vhost::backend::Role;
use chainplane_vhost::driver::{DriverError, FastMode, FastPair, FrontEnd, FrontEndConfig, Moved};
use chainplane_vhost::net::{FLAG_NEEDS_CSUM, GSO_TCPV4, NetHeader, feature};

use crate::case::Case;
use crate::chain::{self, LONGEST_PLAIN};

/// Bytes of a buffer for frames that need several: a page, as Linux takes for them.
const PAGE: u32 = 4096;

/// What the guests negotiate and how they behave.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Entries of each ring.
    pub queue_size: u16,
    /// Whether buffers are mergeable.
    pub mergeable: bool,
    /// Whether rings are packed.
    pub packed: bool,
    /// How much of the frames they touch.
    pub mode: FastMode,
    /// Who listens on the sockets; as client, the back end does.
    pub role: Role,
}

impl Settings {
    /// Split rings of 1024 entries, mergeable buffers, connecting; only indices are moved.
    pub const DEFAULT: Self = Self {
        queue_size: 1024,
        mergeable: true,
        packed: false,
        mode: FastMode::IndexOnly,
        role: Role::Client,
    };
}

/// The two guests, and others that do nothing.
pub struct Guests {
    pairs: [FastPair; 2],
    _ends: Vec<FrontEnd>,
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
    /// Attaches guests to two sockets, which send `frames`, and guests that do nothing to the `idle` ones.
    ///
    /// # Errors
    /// What attaching fails with.
    pub fn attach(
        sockets: [&Path; 2],
        idle: &[PathBuf],
        frames: &[Vec<u8>; 2],
        settings: Settings,
    ) -> Result<Self, DriverError> {
        let [a, b] = [0, 1].map(|index| attach(sockets[index], &frames[index], settings));
        let ((a, end_a), (b, end_b)) = (a?, b?);
        let mut ends = vec![end_a, end_b];
        for socket in idle {
            let config = FrontEndConfig {
                role: settings.role,
                ..FrontEndConfig::new(socket)
            };
            ends.push(FrontEnd::connect(config)?.0);
        }
        Ok(Self {
            pairs: [a, b],
            _ends: ends,
        })
    }

    /// Attaches the guests of a case to the ports of [`chain::model`].
    ///
    /// # Errors
    /// What attaching fails with.
    pub fn attach_all(directory: &Path, case: &Case) -> Result<Self, DriverError> {
        let socket = |name: String| directory.join(name + ".sock");
        let idle: Vec<_> = (0..case.idle).map(|n| socket(format!("idle{n}"))).collect();
        let (a, b) = (socket("a".into()), socket("b".into()));
        let frames = chain::frames(case.length, case.size);
        Self::attach([&a, &b], &idle, &frames, case.settings)
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
    if settings.packed {
        config.features |= feature::RING_PACKED;
    }
    let mut header = NetHeader::default();
    if frame.len() > LONGEST_PLAIN {
        config.features |= feature::CSUM | feature::HOST_TSO4;
        config.features |= feature::GUEST_CSUM | feature::GUEST_TSO4;
        (config.receive_buffer, config.transmit_buffer) = (PAGE, PAGE);
        header = SEGMENT;
    }
    let (end, pairs) = FrontEnd::connect(config)?;
    if settings.packed && end.features() & feature::RING_PACKED == 0 {
        return Err(DriverError::Config(
            "the back end has no packed rings".into(),
        ));
    }
    let pair = pairs
        .into_iter()
        .next()
        .ok_or_else(|| DriverError::Config("no queue pair".into()))?;
    Ok((FastPair::new(pair, settings.mode, header, frame), end))
}

/// The header of a large TCP segment over IPv4.
const SEGMENT: NetHeader = NetHeader {
    flags: FLAG_NEEDS_CSUM,
    gso_type: GSO_TCPV4,
    hdr_len: 54,
    gso_size: 1448,
    csum_start: 34,
    csum_offset: 16,
    num_buffers: 0,
};
