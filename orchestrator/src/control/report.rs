//! What `show` shows, as data.

use std::collections::BTreeMap;

use chainplane_dataplane::counters::Info;
use chainplane_dataplane::stats::{FunctionSnapshot, PortSnapshot};
use chainplane_vhost::backend::{DeviceStatus, QueueStatus};
use chainplane_vhost::net::{feature, protocol_feature};
use serde::{Deserialize, Serialize};

use crate::instance::Instance;

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
    /// Which workers run what, and why, in a line for all ports of which that is the same. Nothing where there is one.
    pub parts: Vec<String>,
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
    /// The workers that have it. Counters are of all of them together.
    pub workers: Vec<usize>,
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
    /// The workers that run it. Counters are of all of them together.
    pub workers: Vec<usize>,
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
        let port = |name: &str, kind: &str, device| {
            let homes = instance.homes_of_port(name).into_iter();
            let homes = homes.map(|(worker, at)| (worker, &snapshots[worker].ports[at]));
            PortReport::of(kind, homes.collect(), device)
        };
        let ports = model.ports.iter().enumerate();
        let ports = ports.filter_map(|(index, named)| {
            port(&named.name, named.config.kind(), instance.device(index))
        });
        let patches = instance.patches().iter().flatten();
        let patches = patches.filter_map(|name| port(name, "patch", None));
        let functions = (0..model.functions.len()).filter_map(|index| {
            let homes = instance.homes_of_function(index).into_iter();
            let homes = homes.map(|(worker, at)| (worker, &snapshots[worker].functions[at]));
            FunctionReport::of(homes)
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
            ports: ports.chain(patches).collect(),
            functions: functions.collect(),
            chains: model
                .paths
                .iter()
                .map(|path| ChainReport {
                    name: path.chain.clone(),
                    elements: model.words(path),
                })
                .collect(),
            ways: instance.told().ways.clone(),
            parts: instance.told().parts.clone(),
        }
    }
}

impl PortReport {
    /// What the workers together say that have it; `None` if none does.
    fn of(
        kind: &str,
        homes: Vec<(usize, &PortSnapshot)>,
        device: Option<DeviceStatus>,
    ) -> Option<Self> {
        let mut report = Self {
            name: homes.first()?.1.name.clone(),
            kind: kind.to_owned(),
            workers: Vec::new(),
            state: device.as_ref().map_or("up", state).to_owned(),
            negotiated: device.as_ref().and_then(Negotiated::of),
            last_error: device.and_then(|device| device.last_error),
            counters: Values::new(),
            drops: Values::new(),
        };
        for (worker, port) in homes {
            report.workers.push(worker);
            add(&mut report.counters, &port.counters);
            add(&mut report.drops, &port.drops);
        }
        Some(report)
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
    /// What the workers together say that run it; `None` if none does.
    fn of<'a>(homes: impl Iterator<Item = (usize, &'a FunctionSnapshot)>) -> Option<Self> {
        let reports = homes.map(|(worker, function)| Self::of_one(worker, function));
        reports.reduce(|mut all, more| {
            all.add(more);
            all
        })
    }

    fn of_one(worker: usize, function: &FunctionSnapshot) -> Self {
        Self {
            name: function.name.clone(),
            kind: function.kind.to_owned(),
            workers: vec![worker],
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

    /// Adds what another worker says of the same function.
    fn add(&mut self, other: Self) {
        self.workers.extend(other.workers);
        for (interface, other) in self.interfaces.iter_mut().zip(other.interfaces) {
            interface.in_packets += other.in_packets;
            interface.in_bytes += other.in_bytes;
            interface.out_packets += other.out_packets;
            interface.out_bytes += other.out_bytes;
        }
        self.created += other.created;
        self.consumed += other.consumed;
        self.held += other.held;
        self.sessions += other.sessions;
        for (all, more) in [
            (&mut self.counters, other.counters),
            (&mut self.drops, other.drops),
        ] {
            for (name, value) in more {
                *all.entry(name).or_default() += value;
            }
        }
        for (slot, (_, value)) in self.slots.iter_mut().zip(other.slots) {
            slot.1 += value;
        }
    }
}

fn values(counters: &[(Info, u64)]) -> Values {
    let mut values = Values::new();
    add(&mut values, counters);
    values
}

fn add(values: &mut Values, counters: &[(Info, u64)]) {
    for (info, value) in counters {
        *values.entry(info.name.to_owned()).or_default() += value;
    }
}
