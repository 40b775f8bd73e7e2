//! What a user writes: the types of the YAML file, before names are resolved.
//!
//! Every enum is tagged from outside (`tap: { … }`), every unknown key is an error, and the doc
//! comments are the texts of the JSON Schema.

mod guest;
mod port;
mod values;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub use guest::{EmbeddedGuest, Expected, Fetch, Ping, Reached, Task};
pub use port::{
    AfPacket, Generator, Offloads, Pcap, Port, Pps, Protocol, Role, Tap, Timing, VhostUser,
};
pub use values::{FileMode, Word};

/// How a worker waits for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Poll without pause: the lowest latency, and a whole core.
    Busy,
    /// Poll while there is traffic, and for 100 µs after it; then sleep until somebody notifies.
    #[default]
    Adaptive,
    /// Sleep after every poll that found nothing.
    Interrupt,
}

/// Polling threads that share one way to wait.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workers {
    /// Cores, one worker each, pinned. Without it: one worker that the kernel places.
    pub cores: Vec<u32>,
    /// How they wait for packets.
    pub idle: Idle,
    /// Ports and functions that run on this worker, which is then of one core at most. What chains have beside these
    /// runs with its neighbour: the one before it in the chain, if that has a worker, else the one behind it. Without
    /// it: whatever `flows.spread` gives to workers that name nothing.
    pub runs: Vec<String>,
}

/// Over how many workers ports and functions are spread that chains connect with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// Where a vhost-user port among them has two queue pairs or more, over workers that would have nothing else to do,
    /// one for each queue pair at most; otherwise over one.
    #[default]
    Auto,
    /// Over one.
    Never,
    /// Over workers that would have nothing else to do, also where every port has a single queue: what comes in is then
    /// handed from worker to worker.
    Always,
}

/// The socket through which `chainplane show` and `capture` speak to the running program.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Control {
    /// Its path. Default: `chainplane/NAME.sock`, NAME being the file's name without extension,
    /// in `/run` for root, else in `$XDG_RUNTIME_DIR`; without that, `chainplane-UID/NAME.sock` in the
    /// temporary directory.
    pub socket: Option<PathBuf>,
    /// Its owner, a user's name or number.
    pub owner: Option<String>,
    /// Its group, a name or number.
    pub group: Option<String>,
    /// Its mode, octal, as `"0660"`.
    pub mode: Option<FileMode>,
}

/// The flow tables.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Flows {
    /// Flow records per worker, 0 to run every packet through the functions. Default 65536.
    #[schemars(range(min = 0, max = 16_777_216))]
    pub table: Option<u32>,
    /// Over how many workers ports and functions are spread that chains connect with each other. A worker with `runs`
    /// takes no part in that.
    pub spread: Spread,
}

/// Whether packets live in huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HugePages {
    /// Where the kernel has some left, else ordinary memory.
    #[default]
    Auto,
    /// Ordinary memory.
    Never,
    /// Huge pages, or no start.
    Require,
}

/// The packet pool.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Packets {
    /// Packets of the pool of each worker. Default 16384.
    #[schemars(range(min = 1024, max = 4_194_304))]
    pub buffers: Option<u32>,
    /// Whether they live in huge pages.
    pub huge_pages: HugePages,
}

/// A function that runs inside a virtual machine, between two ports.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GuestFunction {
    /// The machine's interface on the chain's left, inside.
    pub inside: GuestSide,
    /// The machine's interface on the chain's right, outside.
    pub outside: GuestSide,
}

/// One side of a guest function.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum GuestSide {
    /// A vhost-user port, as under `ports`.
    VhostUser(VhostUser),
}
