//! The checked configuration as plain data: names resolved to indices, defaults filled in.

use std::path::PathBuf;

use chainplane_nf::FunctionConfig;

use super::file::{HugePages, Idle, Port, Spread};

/// Everything that a running instance is built from.
#[derive(Debug, Clone)]
pub struct Model {
    /// The file's name without directory and extension.
    pub name: String,
    /// Polling threads, at least one.
    pub workers: Vec<Worker>,
    /// The control socket.
    pub control: ControlSocket,
    /// What runs on which worker, where the file says so.
    pub runs: Runs,
    /// Over how many workers the rest is spread.
    pub spread: Spread,
    /// Flow records per worker; 0 for none.
    pub flow_table: u32,
    /// Packets in each worker's pool.
    pub buffers: u32,
    /// Whether they live in huge pages.
    pub huge_pages: HugePages,
    /// All ports. A guest function's two sides are ports `NAME.inside` and `NAME.outside`.
    pub ports: Vec<NamedPort>,
    /// Network functions, guest functions left out.
    pub functions: Vec<NamedFunction>,
    /// Paths between endpoints. A guest function cuts the chain it stands in into two paths.
    pub paths: Vec<Path>,
}

/// One polling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// The core that it is pinned to.
    pub core: Option<u32>,
    /// How it waits for packets.
    pub idle: Idle,
}

/// Which worker, an index into [`Model::workers`], is to run what; `None` where the file does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// By index into [`Model::ports`].
    pub ports: Vec<Option<usize>>,
    /// By index into [`Model::functions`].
    pub functions: Vec<Option<usize>>,
}

/// Where `show` and `capture` reach the running program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSocket {
    /// Path of the socket.
    pub path: PathBuf,
    /// Owner, a user's name or number.
    pub owner: Option<String>,
    /// Group, a name or number.
    pub group: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// A port and its name.
#[derive(Debug, Clone)]
pub struct NamedPort {
    /// As in the file.
    pub name: String,
    /// As in the file; paths of files to replay are complete.
    pub config: Port,
}

/// A function and its name.
#[derive(Debug, Clone)]
pub struct NamedFunction {
    /// As in the file.
    pub name: String,
    /// As in the file.
    pub config: FunctionConfig,
    /// Names of its interfaces where it is a junction, in the order of their numbers.
    pub interfaces: Vec<String>,
}

/// A bidirectional path: packets from `left` run `stages` in order and leave at `right`; packets
/// from `right` run them in reverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The chain's name.
    pub chain: String,
    /// Which part of its chain it is, from 0; above 0 only behind guest functions.
    pub part: usize,
    /// The inside end.
    pub left: Endpoint,
    /// Indices into [`Model::functions`], inline functions from inside to outside.
    pub stages: Vec<usize>,
    /// The outside end.
    pub right: Endpoint,
}

/// An end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Index into [`Model::ports`].
    Port(usize),
    /// An interface of a junction.
    Junction {
        /// Index into [`Model::functions`].
        function: usize,
        /// Index into [`NamedFunction::interfaces`].
        interface: usize,
    },
}

impl Model {
    /// The port called `name`.
    pub fn port(&self, name: &str) -> Option<&NamedPort> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// What a path is made of, from left to right, as drawings show it.
    pub fn words(&self, path: &Path) -> Vec<String> {
        let stage = |&function: &usize| {
            let function = &self.functions[function];
            format!("({} {})", function.config.kind(), function.name)
        };
        let mut words = vec![self.endpoint(path.left)];
        words.extend(path.stages.iter().map(stage));
        words.push(self.endpoint(path.right));
        words
    }

    fn endpoint(&self, endpoint: Endpoint) -> String {
        match endpoint {
            Endpoint::Port(port) => {
                let port = &self.ports[port];
                format!("[{} {}]", port.config.kind(), port.name)
            }
            Endpoint::Junction {
                function,
                interface,
            } => {
                let function = &self.functions[function];
                let interface = &function.interfaces[interface];
                format!("<{} {}.{interface}>", function.config.kind(), function.name)
            }
        }
    }
}
