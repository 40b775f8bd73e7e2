//! Ports: where packets enter and leave.

use std::net::IpAddr;
use std::path::PathBuf;

use chainplane_dataplane::packet;
use chainplane_nf::config::Mac;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{EmbeddedGuest, FileMode};

/// Where packets enter and leave.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Port {
    /// A virtual machine or container, through a vhost-user socket.
    VhostUser(VhostUser),
    /// A tap interface of the host.
    Tap(Tap),
    /// An interface of the host, through a packet socket.
    AfPacket(AfPacket),
    /// Packets from a capture file, to a capture file, or both.
    Pcap(Pcap),
    /// A source and sink of made-up traffic.
    Generator(Generator),
    /// A small guest inside this process, with a TCP/IP stack behind real virtqueues.
    EmbeddedGuest(EmbeddedGuest),
}

impl Port {
    /// The kind as it is written in the file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::VhostUser(_) => "vhost-user",
            Self::Tap(_) => "tap",
            Self::AfPacket(_) => "af-packet",
            Self::Pcap(_) => "pcap",
            Self::Generator(_) => "generator",
            Self::EmbeddedGuest(_) => "embedded-guest",
        }
    }
}

/// Which end of a vhost-user connection listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Chainplane listens, the virtual machine connects.
    #[default]
    Server,
    /// The virtual machine's side listens, Chainplane connects and reconnects.
    Client,
}

/// Work that may be left undone in packets, for the other end or nobody to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Offloads {
    /// Checksums of TCP and UDP.
    pub checksum: bool,
    /// Cutting of large TCP segments (TSO). Needs `checksum`.
    pub segmentation: bool,
    /// Cutting of trains of UDP datagrams (USO). Needs `checksum`. Without it, as `segmentation`.
    pub udp_segmentation: Option<bool>,
}

impl Offloads {
    /// Whether trains of UDP datagrams may be left uncut.
    pub fn udp(self) -> bool {
        self.udp_segmentation.unwrap_or(self.segmentation)
    }
}

impl Default for Offloads {
    fn default() -> Self {
        Self {
            checksum: true,
            segmentation: true,
            udp_segmentation: None,
        }
    }
}

fn one() -> u16 {
    1
}

fn yes() -> bool {
    true
}

/// A vhost-user port, back end side.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VhostUser {
    /// Path of the socket; a relative one starts at the directory where the program runs.
    pub socket: PathBuf,
    /// Which end listens.
    #[serde(default)]
    pub role: Role,
    /// Queue pairs.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub queues: u16,
    /// Whether guests may use packed rings, where their side of the socket can, too.
    #[serde(default = "yes")]
    pub packed: bool,
    /// Whether guests may reset one queue while the others go on. Not for QEMU up to 10.0, which keeps the
    /// reset to itself: a guest that resizes its rings would lose its network.
    #[serde(default)]
    pub ring_reset: bool,
    /// The socket's owner, a user's name or number. Only for a server.
    pub owner: Option<String>,
    /// The socket's group, a name or number. Only for a server.
    pub group: Option<String>,
    /// The socket's mode, octal, as `"0660"`. Only for a server.
    pub mode: Option<FileMode>,
    /// Work that may be left undone.
    #[serde(default)]
    pub offloads: Offloads,
    /// Largest packet, without Ethernet header, told to the guest.
    #[schemars(range(min = 576, max = 9216))]
    pub mtu: Option<u16>,
    /// The guest's MAC address: `chainplane attach` prints it.
    pub mac: Option<Mac>,
}

impl VhostUser {
    /// The MAC address that the machine at the port `name` is told to use.
    pub fn mac(&self, name: &str) -> packet::Mac {
        self.mac
            .map_or_else(|| packet::Mac::local(name), |mac| mac.0)
    }
}

/// A tap interface.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tap {
    /// Its name; made if it is not there, for as long as the program runs.
    pub interface: String,
    /// Largest packet, without Ethernet header.
    #[schemars(range(min = 576, max = 9216))]
    pub mtu: Option<u16>,
    /// Work that may be left undone.
    #[serde(default)]
    pub offloads: Offloads,
}

/// A packet socket on an interface.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AfPacket {
    /// The interface's name.
    pub interface: String,
    /// Work that may be left undone in packets that leave.
    #[serde(default)]
    pub offloads: Offloads,
}

/// When replayed packets enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Timing {
    /// As they were captured.
    #[default]
    Original,
    /// As fast as it goes.
    Fast,
}

/// Capture files. At least one of `replay` and `record`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pcap {
    /// The file whose packets enter here; a relative path starts at the YAML file's directory.
    pub replay: Option<PathBuf>,
    /// The file that takes what leaves here; a relative path starts where the program runs.
    pub record: Option<PathBuf>,
    /// When replayed packets enter.
    #[serde(default)]
    pub timing: Timing,
    /// How often the file is replayed.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub repeat: u64,
}

fn once() -> u64 {
    1
}

/// Packets a second.
pub type Pps = u64;

/// What generated packets carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// UDP datagrams.
    #[default]
    Udp,
    /// TCP segments without a connection.
    Tcp,
    /// ICMP echo requests.
    Icmp,
}

/// A source of made-up packets, and a sink that counts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Generator {
    /// Packets to send; without it, no end. 0 makes it a sink only.
    pub packets: Option<u64>,
    /// Packets a second; without it, as fast as it goes.
    #[schemars(range(min = 1))]
    pub rate: Option<Pps>,
    /// Bytes of a packet, Ethernet header included, checksum (FCS) not.
    #[serde(default = "smallest")]
    #[schemars(range(min = 60, max = 9216))]
    pub size: u16,
    /// Flows that take turns: they differ in source port (or ICMP identifier).
    #[serde(default = "one_flow")]
    #[schemars(range(min = 1, max = 65_536))]
    pub flows: u32,
    /// Source address.
    pub from: IpAddr,
    /// Destination address.
    pub to: IpAddr,
    /// First source port.
    #[serde(default = "first_port")]
    #[schemars(range(min = 1))]
    pub from_port: u16,
    /// Destination port.
    #[serde(default = "to_port")]
    #[schemars(range(min = 1))]
    pub to_port: u16,
    /// What the packets carry.
    #[serde(default)]
    pub protocol: Protocol,
    /// Source MAC address.
    pub from_mac: Mac,
    /// Destination MAC address.
    pub to_mac: Mac,
}

fn smallest() -> u16 {
    64
}

fn one_flow() -> u32 {
    1
}

fn first_port() -> u16 {
    1024
}

fn to_port() -> u16 {
    9
}
