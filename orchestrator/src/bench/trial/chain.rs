//! A configuration's chain, started in this process, as a target.

use std::path::Path;
use std::time::{Duration, Instant};

use chainplane_dataplane::engine::EngineCounter;
use chainplane_dataplane::port::PortCounter;
use chainplane_dataplane::stats::Snapshot;

use super::attached::{Attached, GeneratorOptions};
use super::derive::{self, Derived};
use super::{
    BenchError, Load, Progress, StatefulLoad, StatefulResult, StatefulTarget, Target,
    TargetDescription, TrialResult,
};
use crate::bench::endpoint::{EndpointSpec, VhostOptions};
use crate::bench::traffic::Traffic;
use crate::instance::Instance;
use crate::spec::Model;
use crate::spec::file::{self, Offloads, Port, VhostUser};
use crate::table::Totals;

/// A running chain with guests of the generator at two of its ports.
///
/// Ports of any kind are replaced by vhost-user ports in a directory of their own, so that nothing else is needed and
/// nothing outside is touched; functions and their links stay as they are.
pub struct Chain {
    // The guests go before the ports do.
    attached: Attached,
    instance: Instance,
    ports: [usize; 2],
    derived: Derived,
    description: TargetDescription,
    _sockets: tempfile::TempDir,
}

/// How the guests attach, and where things run.
#[derive(Clone, Debug, Default)]
pub struct ChainOptions {
    /// The ports to measure between, the one that opens flows first; `None` takes the ends of the first chain, or,
    /// where that ends at a router, of two of its chains.
    pub between: Option<[String; 2]>,
    /// What the guests are like.
    pub guests: VhostOptions,
    /// Where the generator runs; `None` decides by the cores that there are.
    pub generator: Option<GeneratorOptions>,
}

impl Chain {
    /// Starts the chain and attaches to it.
    ///
    /// # Errors
    /// No such ports, no way between them, a chain that does not start.
    pub fn start(
        mut model: Model,
        options: &ChainOptions,
        progress: &dyn Progress,
    ) -> Result<Self, BenchError> {
        let ports = derive::ends(&model, options.between.as_ref())?;
        let derived = derive::derive(&model, ports)?;
        let sockets = tempfile::tempdir()?;
        let kinds = ports.map(|port| model.ports[port].config.kind());
        replace_ports(&mut model, sockets.path(), options.guests.queues);
        let cores = cores();
        let pinned = pin_workers(&mut model, &cores);
        let generator = options.generator.unwrap_or_else(|| GeneratorOptions {
            core: pinned.then(|| cores.last().copied()).flatten(),
            polite: !pinned,
        });
        let path: Vec<_> = model.paths.iter().map(|path| model.words(path)).collect();
        let names = ports.map(|port| model.ports[port].name.clone());
        let file = model.name.clone();
        let workers = model.workers.clone();
        let started = Instance::start(model);
        let instance = started.map_err(|error| BenchError::Start(error.to_string()))?;
        let specs = [0, 1].map(|end| {
            let socket = socket(sockets.path(), ports[end]);
            EndpointSpec::Vhost(socket, options.guests.clone())
        });
        let called = [0, 1].map(|end| format!("`{}`", names[end]));
        let attached = Attached::named(&file, &called, specs, generator, progress)?;
        let mut description = attached.describe();
        description.name = format!("chain of {file} from {} to {}", names[0], names[1]);
        description.endpoints = [0, 1]
            .map(|end| match kinds[end] {
                "vhost-user" => format!("{} (vhost-user)", names[end]),
                kind => format!("{} (vhost-user in place of {kind})", names[end]),
            })
            .to_vec();
        let chains: Vec<_> = path.iter().map(|words| words.join(" ")).collect();
        description
            .settings
            .insert("chains".into(), chains.join("; "));
        let worker = |worker: &crate::spec::model::Worker| match worker.core {
            Some(core) => format!("core {core}, {:?}", worker.idle).to_lowercase(),
            None => format!("not pinned, {:?}", worker.idle).to_lowercase(),
        };
        let workers: Vec<_> = workers.iter().map(worker).collect();
        description
            .settings
            .insert("workers".into(), workers.join("; "));
        Ok(Self {
            attached,
            instance,
            ports,
            derived,
            description,
            _sockets: sockets,
        })
    }

    /// Addresses, and what else follows from the configuration, for traffic through this chain.
    pub fn derived(&self) -> &Derived {
        &self.derived
    }

    /// Network functions on the way from one port to the other.
    pub fn length(&self) -> usize {
        self.derived.functions
    }

    /// As [`Attached::overload`].
    ///
    /// # Errors
    /// As [`Target::trial`].
    pub fn overload(
        &mut self,
        over: &Load,
        after: &Load,
        progress: &dyn Progress,
    ) -> Result<(TrialResult, Duration), BenchError> {
        self.check()?;
        let result = self.attached.overload(over, after, progress);
        self.check()?;
        result
    }

    /// For what reasons most packets were dropped so far, in words; empty if none were.
    pub fn drops(&self) -> String {
        let mut drops = Totals::of(&self.instance.snapshots()).drops;
        drops.sort_by_key(|drops| std::cmp::Reverse(drops.packets));
        let told = drops.iter().take(4);
        let told = told.map(|d| format!("{} at `{}` for `{}`", d.packets, d.place, d.reason));
        told.collect::<Vec<_>>().join(", ")
    }

    /// Whether the chain is still there.
    fn check(&self) -> Result<(), BenchError> {
        match self.instance.broken_worker() {
            None => Ok(()),
            Some(worker) => Err(BenchError::Died {
                endpoint: self.description.name.clone(),
                reason: format!("worker {worker} has ended by a defect"),
            }),
        }
    }

    /// Nanoseconds that the workers were busy, and packets that they sent by the two ports.
    fn work(&self) -> (u64, u64) {
        let snapshots = self.instance.snapshots();
        let busy = snapshots.iter().map(busy).sum();
        let ports = self
            .ports
            .iter()
            .map(|at| &self.instance.model().ports[*at].name);
        let homes = ports.flat_map(|name| self.instance.homes_of_port(name));
        let sent = homes.filter_map(|(worker, at)| {
            let counters = &snapshots[worker].ports[at].counters;
            counters
                .get(PortCounter::TxPackets as usize)
                .map(|(_, value)| *value)
        });
        (busy, sent.sum())
    }
}

fn busy(snapshot: &Snapshot) -> u64 {
    let counter = snapshot.engine.get(EngineCounter::BusyNanoseconds as usize);
    counter.map_or(0, |(_, value)| *value)
}

impl Target for Chain {
    fn describe(&self) -> TargetDescription {
        self.description.clone()
    }

    fn set_traffic(&mut self, traffic: &Traffic) -> Result<(), BenchError> {
        self.attached.set_traffic(traffic)
    }

    fn trial(&mut self, load: &Load, progress: &dyn Progress) -> Result<TrialResult, BenchError> {
        self.check()?;
        let clock = quanta::Clock::new();
        let (before, cycles, start) = (self.work(), clock.raw(), Instant::now());
        let result = self.attached.trial(load, progress);
        self.check()?;
        let mut result = result?;
        let (after, cycles) = (self.work(), clock.raw().saturating_sub(cycles));
        let (busy, packets) = (after.0 - before.0, after.1 - before.1);
        let cycles_per_ns = cycles as f64 / start.elapsed().as_nanos().max(1) as f64;
        if packets > 0 && busy > 0 {
            result.cycles_per_packet = Some(busy as f64 * cycles_per_ns / packets as f64);
        }
        Ok(result)
    }
}

impl StatefulTarget for Chain {
    fn stateful(
        &mut self,
        load: &StatefulLoad,
        progress: &dyn Progress,
    ) -> Result<StatefulResult, BenchError> {
        self.check()?;
        let result = self.attached.stateful(load, progress);
        self.check()?;
        result
    }
}

fn socket(directory: &Path, port: usize) -> std::path::PathBuf {
    directory.join(format!("port{port}.sock"))
}

fn replace_ports(model: &mut Model, directory: &Path, queues: u16) {
    for (index, port) in model.ports.iter_mut().enumerate() {
        let (mtu, queues) = match &port.config {
            Port::VhostUser(config) => (config.mtu, config.queues.max(queues)),
            Port::Tap(config) => (config.mtu, queues),
            _ => (None, queues),
        };
        port.config = Port::VhostUser(VhostUser {
            socket: socket(directory, index),
            role: file::Role::Server,
            queues,
            packed: true,
            ring_reset: false,
            owner: None,
            group: None,
            mode: None,
            offloads: Offloads::default(),
            mtu,
            mac: None,
        });
    }
}

/// Cores that this process may run on.
fn cores() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect()
}

/// Pins workers to the first cores, unless the file says where they run, if that leaves the last one to the generator.
fn pin_workers(model: &mut Model, cores: &[usize]) -> bool {
    let last = cores.last().copied();
    if model.workers.iter().any(|worker| worker.core.is_some()) {
        let taken = |core| {
            model
                .workers
                .iter()
                .any(|w| w.core.map(|c| c as usize) == core)
        };
        return last.is_some() && !taken(last);
    }
    if model.workers.len() >= cores.len() {
        return false;
    }
    for (worker, core) in model.workers.iter_mut().zip(cores) {
        worker.core = Some(*core as u32);
    }
    true
}
