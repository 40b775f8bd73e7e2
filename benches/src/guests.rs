//! Two guests that open flows, send the same frames again and again from then on, and count what arrives.

use std::fmt;
use std::path::{Path, PathBuf};

use chainplane_vhost::backend::Role;
use chainplane_vhost::driver::{
    DriverError, DriverPair, FastMode, FastPair, FrontEnd, FrontEndConfig, Moved,
};
use chainplane_vhost::net::{FLAG_NEEDS_CSUM, GSO_TCPV4, NetHeader, feature};

use crate::case::Case;
use crate::traffic::{LONGEST_PLAIN, NotOpened, Traffic};

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

/// Why guests are not there.
#[derive(Debug)]
pub enum AttachError {
    /// One could not be attached.
    Driver(DriverError),
    /// Their traffic does not get through.
    Flows(NotOpened),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => error.fmt(f),
            Self::Flows(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AttachError {}

impl From<DriverError> for AttachError {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl From<NotOpened> for AttachError {
    fn from(error: NotOpened) -> Self {
        Self::Flows(error)
    }
}

/// What the guests moved in one turn or in many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Frames that arrived at the two guests.
    pub received: [u64; 2],
    /// Frames that the device has taken.
    pub sent: u64,
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
    /// Attaches guests to two sockets, clients and servers of `traffic`, and guests that do nothing to the `idle` ones.
    ///
    /// # Errors
    /// What attaching fails with.
    pub fn attach(
        sockets: [&Path; 2],
        idle: &[PathBuf],
        traffic: &Traffic,
        settings: Settings,
    ) -> Result<Self, AttachError> {
        let [a, b] = both(sockets, |socket| attach(socket, traffic, settings))?;
        let ((end_a, mut a), (end_b, mut b)) = (a, b);
        let [sent_a, sent_b] = traffic.open([&mut a, &mut b])?;
        let pairs = [(&end_a, a, sent_a), (&end_b, b, sent_b)].map(|(end, pair, frames)| {
            let header = if traffic.is_tcp() {
                SEGMENT
            } else {
                NetHeader::default()
            };
            FastPair::new(pair, settings.mode, header, &frames, end.spare())
        });
        let mut ends = vec![end_a, end_b];
        for socket in idle {
            let config = FrontEndConfig {
                role: settings.role,
                ..FrontEndConfig::new(socket)
            };
            ends.push(FrontEnd::connect(config)?.0);
        }
        Ok(Self { pairs, _ends: ends })
    }

    /// Attaches two guests that send these frames, all of one length, without any opening of flows.
    ///
    /// # Errors
    /// What attaching fails with.
    pub fn sending(
        sockets: [&Path; 2],
        frames: &[Vec<Vec<u8>>; 2],
        settings: Settings,
    ) -> Result<Self, AttachError> {
        let traffic = Traffic {
            size: frames[0].first().map_or(0, Vec::len),
            flows: frames[0].len(),
            frames: frames[0].len(),
        };
        let [(end_a, a), (end_b, b)] = both(sockets, |socket| attach(socket, &traffic, settings))?;
        let pairs = [(&end_a, a, &frames[0]), (&end_b, b, &frames[1])];
        let pairs = pairs.map(|(end, pair, frames)| {
            FastPair::new(
                pair,
                settings.mode,
                NetHeader::default(),
                frames,
                end.spare(),
            )
        });
        Ok(Self {
            pairs,
            _ends: vec![end_a, end_b],
        })
    }

    /// Attaches the guests of a case to the ports of its [`Setup`](crate::chain::Setup).
    ///
    /// # Errors
    /// What attaching fails with.
    pub fn attach_all(directory: &Path, case: &Case) -> Result<Self, AttachError> {
        let socket = |name: String| directory.join(name + ".sock");
        let idle: Vec<_> = (0..case.idle).map(|n| socket(format!("idle{n}"))).collect();
        let (a, b) = (socket("a".into()), socket("b".into()));
        Self::attach([&a, &b], &idle, &case.traffic(), case.settings)
    }

    /// One turn of both.
    #[inline]
    pub fn poll(&mut self, progress: &mut Progress) {
        let [a, b]: [Moved; 2] = [self.pairs[0].poll(), self.pairs[1].poll()];
        progress.received[0] += u64::from(a.received);
        progress.received[1] += u64::from(b.received);
        progress.sent += u64::from(a.sent + b.sent);
        progress.turns += 1;
        progress.empty += u64::from(a.received + b.received == 0);
    }
}

/// Does it for both at once: where we listen, the other side may come to either first.
fn both<T: Send>(
    sockets: [&Path; 2],
    attach: impl Fn(&Path) -> Result<T, DriverError> + Sync,
) -> Result<[T; 2], DriverError> {
    std::thread::scope(|scope| {
        let first = scope.spawn(|| attach(sockets[0]));
        let second = attach(sockets[1])?;
        let first = first.join().expect("no panic while attaching")?;
        Ok([first, second])
    })
}

fn attach(
    socket: &Path,
    traffic: &Traffic,
    settings: Settings,
) -> Result<(FrontEnd, DriverPair), DriverError> {
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
    if traffic.frames > usize::from(settings.queue_size) {
        config.spare_memory = FastPair::spare_memory(traffic.frames, traffic.size);
    }
    if traffic.size > LONGEST_PLAIN {
        config.features |= feature::CSUM | feature::HOST_TSO4;
        config.features |= feature::GUEST_CSUM | feature::GUEST_TSO4;
        (config.receive_buffer, config.transmit_buffer) = (PAGE, PAGE);
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
    Ok((end, pair))
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
