//! What `show` shows, as data.

use std::collections::BTreeMap;

use chainplane_dataplane::counters::Info;
use chainplane_dataplane::stats::{FunctionSnapshot, PortSnapshot};
use chainplane_vhost::backend::{DeviceStatus, QueueStatus};
use chainplane_vhost::net::{feature, protocol_feature};
use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::plan;

/// Values by name. Counters that are 0 are there as well, so that scripts find them.
pub type Values = BTreeMap<String, u64>;

/// An instance's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The configuration file's name, without directory and extension.
    pub name: String,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Polling threads.
    pub workers: Vec<WorkerReport>,
    /// Ports, in the file's order.
    pub ports: Vec<PortReport>,
    /// Functions, in the file's order.
    pub functions: Vec<FunctionReport>,
    /// Chains, in the file's order.
    pub chains: Vec<ChainReport>,
    /// Which way packets go, and why, in a line for all ports of which that is the same.
    pub ways: Vec<String>,
}

/// A worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WorkerReport {
    /// Its number.
    pub index: usize,
    /// The core it is pinned to.
    pub core: Option<u32>,
    /// Its idle mode.
    pub idle: String,
    /// Its counters.
    pub counters: Values,
}

/// A port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PortReport {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The worker that polls it.
    pub worker: usize,
    /// `up`, or what is missing.
    pub state: String,
    /// What a vhost-user port and its front end agreed on.
    pub negotiated: Option<Negotiated>,
    /// The last thing that went wrong on a vhost-user port.
    pub last_error: Option<String>,
    /// Its counters.
    pub counters: Values,
    /// Packets dropped, by reason.
    pub drops: Values,
}

/// What a vhost-user port and its front end agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Negotiated {
    /// Virtio features, by name.
    pub features: Vec<String>,
    /// Protocol features of vhost-user, by name.
    pub protocol_features: Vec<String>,
    /// The virtio device status, where the front end tells it (virtio 1.2, 2.1).
    pub device_status: u8,
    /// The MTU in bytes that the front end told us.
    pub mtu: Option<u16>,
    /// Pairs of queues that run.
    pub queue_pairs: usize,
}

impl Negotiated {
    fn of(device: &DeviceStatus) -> Option<Self> {
        let running = |pair: &&[QueueStatus]| pair.iter().all(|q| q.started && q.enabled);
        device.connected.then(|| Self {
            features: feature::names(device.features),
            protocol_features: protocol_feature::names(device.protocol_features),
            device_status: device.device_status,
            mtu: device.mtu,
            queue_pairs: device.queues.chunks(2).filter(running).count(),
        })
    }
}

/// A function.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The worker that runs it.
    pub worker: usize,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceReport>,
    /// Packets it made.
    pub created: u64,
    /// Packets that were meant for itself.
    pub consumed: u64,
    /// Packets it keeps for now.
    pub held: u64,
    /// Sessions it has.
    pub sessions: u64,
    /// Its own counters.
    pub counters: Values,
    /// Packets dropped, by reason.
    pub drops: Values,
    /// Rules, backends and the like, in their order, with what each counted.
    pub slots: Vec<(String, u64)>,
}

/// An interface of a function.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InterfaceReport {
    /// Its name.
    pub name: String,
    /// Packets into the function.
    pub in_packets: u64,
    /// Bytes into the function.
    pub in_bytes: u64,
    /// Packets out of the function.
    pub out_packets: u64,
    /// Bytes out of the function.
    pub out_bytes: u64,
}

/// A chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChainReport {
    /// Its name.
    pub name: String,
    /// What it is made of, from left to right.
    pub elements: Vec<String>,
}

/// A piece of a function's sessions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sessions {
    /// The sessions.
    pub sessions: Vec<SessionReport>,
    /// Where to go on; none at the end.
    pub next: Option<usize>,
}

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SessionReport {
    /// Addresses, ports, translations.
    pub session: String,
    /// Milliseconds since a packet was last seen.
    pub idle_ms: u64,
}

impl Report {
    /// An instance's state now.
    pub fn of(instance: &Instance) -> Self {
        let model = instance.model();
        let snapshots = instance.snapshots();
        let ports = model.ports.iter().enumerate().filter_map(|(index, port)| {
            let (worker, at) = instance.home_of_port(index)?;
            let counters = &snapshots[worker].ports[at];
            Some(PortReport::of(
                port.config.kind(),
                worker,
                counters,
                instance.device(index),
            ))
        });
        let functions = model.functions.iter().enumerate().filter_map(|(index, _)| {
            let (worker, at) = instance.home_of_function(index)?;
            Some(FunctionReport::of(worker, &snapshots[worker].functions[at]))
        });
        let workers =
            snapshots
                .iter()
                .zip(&model.workers)
                .enumerate()
                .map(|(index, (snapshot, worker))| WorkerReport {
                    index,
                    core: worker.core,
                    idle: format!("{:?}", worker.idle).to_lowercase(),
                    counters: values(&snapshot.engine),
                });
        Self {
            name: model.name.clone(),
            uptime_seconds: instance.uptime().as_secs_f64(),
            workers: workers.collect(),
            ports: ports.collect(),
            functions: functions.collect(),
            chains: model
                .paths
                .iter()
                .map(|path| ChainReport {
                    name: path.chain.clone(),
                    elements: model.words(path),
                })
                .collect(),
            ways: plan::explain(model, instance.ways()),
        }
    }
}

impl PortReport {
    fn of(kind: &str, worker: usize, port: &PortSnapshot, device: Option<DeviceStatus>) -> Self {
        Self {
            name: port.name.clone(),
            kind: kind.to_owned(),
            worker,
            state: device.as_ref().map_or("up", state).to_owned(),
            negotiated: device.as_ref().and_then(Negotiated::of),
            last_error: device.and_then(|device| device.last_error),
            counters: values(&port.counters),
            drops: values(&port.drops),
        }
    }
}

fn state(device: &DeviceStatus) -> &'static str {
    if device.queues.iter().any(|queue| queue.broken.is_some()) {
        "broken ring"
    } else if !device.connected {
        "no guest"
    } else if device
        .queues
        .iter()
        .any(|queue| queue.started && queue.enabled)
    {
        "up"
    } else {
        "no driver"
    }
}

impl FunctionReport {
    fn of(worker: usize, function: &FunctionSnapshot) -> Self {
        Self {
            name: function.name.clone(),
            kind: function.kind.to_owned(),
            worker,
            interfaces: function
                .interfaces
                .iter()
                .map(|interface| InterfaceReport {
                    name: interface.name.clone(),
                    in_packets: interface.in_packets,
                    in_bytes: interface.in_bytes,
                    out_packets: interface.out_packets,
                    out_bytes: interface.out_bytes,
                })
                .collect(),
            created: function.created,
            consumed: function.consumed,
            held: function.held,
            sessions: function.sessions,
            counters: values(&function.counters),
            drops: values(&function.drops),
            slots: function.slots.clone(),
        }
    }
}

fn values(counters: &[(Info, u64)]) -> Values {
    counters
        .iter()
        .map(|(info, value)| (info.name.to_owned(), *value))
        .collect()
}
