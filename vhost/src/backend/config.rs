//! What a device is made of, and which features follow from it.

use std::fmt;
use std::path::PathBuf;

use super::status::MIN_MTU;
use crate::net::feature;

/// Who listens on the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// We do, and the front end connects.
    #[default]
    Server,
    /// The front end does; we connect, again and again until it is there.
    Client,
}

/// Configuration of a [`Device`](super::Device).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Path of the unix socket, at most 107 bytes.
    pub socket: PathBuf,
    /// Who listens.
    pub role: Role,
    /// User id that shall own the socket; as server only.
    pub owner: Option<u32>,
    /// Group id of the socket; as server only.
    pub group: Option<u32>,
    /// Permission bits of the socket; as server only.
    pub mode: Option<u32>,
    /// Pairs of queues, 1 to [`DeviceConfig::MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// Offloads to offer, of [`feature::OFFLOADS`].
    pub offloads: u64,
    /// Whether to offer mergeable receive buffers.
    pub mergeable: bool,
    /// Whether to offer packed rings beside split ones.
    pub packed: bool,
    /// Whether drivers may reset one queue while the others go on. Off by default: QEMU (10.0 and before) passes
    /// the offer on to the guest, but does not tell a vhost-user back end of the reset, so that a guest that
    /// resizes its rings is cut off. Only for front ends that stop and start the queue here.
    pub ring_reset: bool,
    /// Largest MTU in bytes to tell the guest, 68 to 65535.
    pub mtu: Option<u16>,
    /// MAC address to tell front ends that ask for the device's configuration.
    pub mac: Option<[u8; 6]>,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::new(),
            role: Role::Server,
            owner: None,
            group: None,
            mode: None,
            queue_pairs: 1,
            offloads: feature::OFFLOADS,
            mergeable: true,
            packed: true,
            ring_reset: false,
            mtu: None,
            mac: None,
        }
    }
}

/// A contradiction in a [`DeviceConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The socket path is empty or longer than a socket address can hold.
    SocketPath(PathBuf),
    /// No queue pairs, or more than [`DeviceConfig::MAX_QUEUE_PAIRS`].
    QueuePairs(u16),
    /// Bits that are not offloads, or an offload without the one it needs.
    Offloads(u64),
    /// An MTU below 68.
    Mtu(u16),
    /// Owner, group or mode for a socket that the front end makes.
    ClientPermissions,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SocketPath(path) => {
                write!(
                    f,
                    "socket path `{}` is empty or longer than 107 bytes",
                    path.display()
                )
            }
            Self::QueuePairs(n) => {
                write!(
                    f,
                    "{n} queue pairs; 1 to {} are possible",
                    DeviceConfig::MAX_QUEUE_PAIRS
                )
            }
            Self::Offloads(bits) => write!(
                f,
                "offloads {bits:#x}: only checksum, TSO and USO bits, and each only with what it \
                 needs (TSO and USO need checksum, ECN needs TSO)"
            ),
            Self::Mtu(mtu) => write!(f, "MTU {mtu} is below {MIN_MTU}"),
            Self::ClientPermissions => {
                write!(
                    f,
                    "owner, group and mode are for a socket that we make, as server"
                )
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl DeviceConfig {
    /// Most pairs of queues. The protocol numbers queues with 8 bits, so that 128 is the limit.
    pub const MAX_QUEUE_PAIRS: u16 = 64;

    /// A device with one queue pair and every offload, listening at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            ..Self::default()
        }
    }

    /// Looks for contradictions.
    ///
    /// # Errors
    /// The first one found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let len = self.socket.as_os_str().len();
        if len == 0 || len > 107 {
            return Err(ConfigError::SocketPath(self.socket.clone()));
        }
        if self.queue_pairs == 0 || self.queue_pairs > Self::MAX_QUEUE_PAIRS {
            return Err(ConfigError::QueuePairs(self.queue_pairs));
        }
        if self.offloads & !feature::OFFLOADS != 0 || Self::is_contradictory(self.offloads) {
            return Err(ConfigError::Offloads(self.offloads));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return Err(ConfigError::Mtu(mtu));
        }
        let permissions = self.owner.or(self.group).or(self.mode);
        if self.role == Role::Client && permissions.is_some() {
            return Err(ConfigError::ClientPermissions);
        }
        Ok(())
    }

    /// Whether a feature is there without one that it needs (virtio 1.2, 5.1.3.1).
    fn is_contradictory(features: u64) -> bool {
        let needs = [
            (
                feature::GUEST_TSO4
                    | feature::GUEST_TSO6
                    | feature::GUEST_USO4
                    | feature::GUEST_USO6,
                feature::GUEST_CSUM,
            ),
            (
                feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_USO,
                feature::CSUM,
            ),
            (
                feature::GUEST_ECN,
                feature::GUEST_TSO4 | feature::GUEST_TSO6,
            ),
            (feature::HOST_ECN, feature::HOST_TSO4 | feature::HOST_TSO6),
            // MQ and GUEST_ANNOUNCE need CTRL_VQ, which QEMU serves itself and never tells us of.
        ];
        needs
            .iter()
            .any(|(what, need)| features & what != 0 && features & need == 0)
    }

    /// The features to offer: what is handled here and nothing else.
    pub fn features(&self) -> u64 {
        let mut bits = feature::VERSION_1
            | feature::ANY_LAYOUT
            | feature::INDIRECT_DESC
            | feature::EVENT_IDX
            | feature::LOG_ALL
            | feature::IN_ORDER
            | feature::PROTOCOL_FEATURES
            | feature::ACCESS_PLATFORM
            // Front ends serve the control queue, and have the guest announce itself by it.
            | feature::CTRL_VQ
            | feature::GUEST_ANNOUNCE
            | self.offloads;
        if self.mergeable {
            bits |= feature::MRG_RXBUF;
        }
        if self.packed {
            bits |= feature::RING_PACKED;
        }
        if self.ring_reset {
            bits |= feature::RING_RESET;
        }
        if self.queue_pairs > 1 {
            bits |= feature::MQ;
        }
        if self.mtu.is_some() {
            bits |= feature::MTU;
        }
        if self.mac.is_some() {
            bits |= feature::MAC;
        }
        if self.has_space() {
            bits |= feature::STATUS;
        }
        bits
    }

    /// Whether front ends can ask for the configuration space. QEMU, which has one of its own,
    /// warns of every device that offers another.
    pub(super) fn has_space(&self) -> bool {
        self.mac.is_some()
    }

    /// Bytes of the configuration space.
    pub(crate) const SPACE: usize = 12;

    /// The configuration space (virtio 1.2, 5.1.4): MAC, status (the link is up), pairs, MTU.
    pub(crate) fn space(&self) -> [u8; Self::SPACE] {
        let mut space = [0; Self::SPACE];
        space[..6].copy_from_slice(&self.mac.unwrap_or_default());
        space[6..8].copy_from_slice(&1u16.to_le_bytes());
        space[8..10].copy_from_slice(&self.queue_pairs.to_le_bytes());
        space[10..].copy_from_slice(&self.mtu.unwrap_or_default().to_le_bytes());
        space
    }
}
