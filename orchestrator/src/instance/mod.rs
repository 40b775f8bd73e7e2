//! A running configuration: ports opened, workers polling, guests attached.

mod detached;
mod open;
mod recipe;
mod start;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use chainplane_dataplane::capture::{self, Watch};
use chainplane_dataplane::crew::{self, Membership};
use chainplane_dataplane::stats::Snapshot;
use chainplane_dataplane::worker::{Idle, SessionPage, WakeHandle, Worker, WorkerConfig};
use chainplane_vhost::backend::{Device, DeviceStatus};

use crate::plan::{Plan, PlanError, Source, Told};
use crate::spec::model::Model;
use crate::spec::{self, file};

use open::OpenedPorts;
use recipe::{Recipe, Seeds};
use start::Start;

pub use detached::Detached;

/// Bytes of packets between a worker and whoever captures.
const CAPTURE_RING: usize = 8 << 20;

/// Why a configuration does not start.
#[derive(Debug)]
pub enum StartError {
    /// A port can't be opened.
    Port(String, String),
    /// Functions do not fit where they stand.
    Plan(Vec<PlanError>),
    /// A worker can't be started.
    Worker(usize, io::Error),
    /// No place for the sockets of embedded guests.
    Directory(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(name, error) => write!(f, "port `{name}`: {error}"),
            Self::Worker(index, error) => write!(f, "worker {index}: {error}"),
            Self::Directory(error) => write!(f, "no directory for sockets: {error}"),
            Self::Plan(errors) => {
                let texts: Vec<_> = errors
                    .iter()
                    .map(|error| error.error.message.as_str())
                    .collect();
                f.write_str(&texts.join("; "))
            }
        }
    }
}

impl std::error::Error for StartError {}

/// A guest inside this process that is to be started on its socket.
#[derive(Clone, Debug)]
pub struct GuestSeat {
    /// The port's name.
    pub name: String,
    /// What the guest is.
    pub guest: file::EmbeddedGuest,
    /// Where its front end connects.
    pub socket: PathBuf,
}

/// What runs on one worker, and how to reach it.
pub struct Running {
    worker: Worker,
    /// Its ports and their names, in its order.
    ports: Vec<(Source, String)>,
    /// Indices into the model's functions, in the worker's order.
    functions: Vec<usize>,
}

/// A running configuration. Dropping it stops everything.
pub struct Instance {
    model: Model,
    told: Told,
    patches: Vec<[String; 2]>,
    running: Vec<Running>,
    devices: Vec<(usize, Device)>,
    seats: Vec<GuestSeat>,
    started: Instant,
    _sockets: tempfile::TempDir,
}

impl Instance {
    /// Opens all ports and starts the workers.
    ///
    /// # Errors
    /// The first thing that can't be had.
    pub fn start(model: Model) -> Result<Self, StartError> {
        let plan = Plan::new(&model).map_err(StartError::Plan)?;
        let sockets = tempfile::tempdir().map_err(StartError::Directory)?;
        let wakes = (0..plan.workers.len())
            .map(|worker| WakeHandle::new().map_err(|error| StartError::Worker(worker, error)));
        let wakes = wakes.collect::<Result<Vec<_>, _>>()?;
        let opened = OpenedPorts::open(&model, &plan, &wakes, sockets.path())?;
        let mut memberships = memberships(&plan, &wakes);
        let seeds = function_seeds(&model);
        let patches = plan.patches.into_iter().map(|patch| patch.names);
        let mut instance = Self {
            told: plan.told,
            patches: patches.collect(),
            model,
            running: Vec::new(),
            devices: opened.devices,
            seats: opened.seats,
            started: Instant::now(),
            _sockets: sockets,
        };
        let mut starts = Vec::new();
        let mut lists = Vec::new();
        let workers = plan.workers.into_iter().zip(opened.makers).zip(wakes);
        for (index, ((plan, makers), wake)) in workers.enumerate() {
            let ports = plan.ports.iter();
            let ports = ports.map(|port| (port.source, port.name.clone()));
            let functions = plan.functions.iter().map(|function| function.index);
            lists.push((ports.collect(), functions.collect()));
            let recipe = Recipe::new(&instance.model, plan, &seeds, memberships[index].take());
            starts.push(Start {
                config: config(index, instance.model.workers[index]),
                wake,
                build: Box::new(move || recipe.cook(makers)),
            });
        }
        let workers = start::start(starts)?.into_iter().zip(lists);
        let running = |(worker, (ports, functions))| Running {
            worker,
            ports,
            functions,
        };
        instance.running = workers.map(running).collect();
        Ok(instance)
    }

    /// The configuration that runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Which way packets go, and who runs what.
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// The names of ports that link two workers: one at each of them.
    pub fn patches(&self) -> &[[String; 2]] {
        &self.patches
    }

    /// Embedded guests, whose front ends are to be started by whoever started the instance.
    pub fn seats(&self) -> &[GuestSeat] {
        &self.seats
    }

    /// How long it has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// All counters, worker by worker.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.running
            .iter()
            .map(|running| running.worker.stats().snapshot())
            .collect()
    }

    /// The workers that have the port of this name, and its number at each.
    pub fn homes_of_port(&self, name: &str) -> Vec<(usize, usize)> {
        self.homes(|running| running.ports.iter().position(|(_, known)| known == name))
    }

    /// The workers that run a function, and its number at each.
    pub fn homes_of_function(&self, function: usize) -> Vec<(usize, usize)> {
        self.homes(|running| {
            running
                .functions
                .iter()
                .position(|known| *known == function)
        })
    }

    fn homes(&self, place: impl Fn(&Running) -> Option<usize>) -> Vec<(usize, usize)> {
        let running = self.running.iter().enumerate();
        running
            .filter_map(|(worker, running)| Some((worker, place(running)?)))
            .collect()
    }

    /// The state of a port's vhost-user device, where it is one.
    pub fn device(&self, port: usize) -> Option<DeviceStatus> {
        let (_, device) = self.devices.iter().find(|(index, _)| *index == port)?;
        Some(device.status())
    }

    /// A piece of a function's sessions, those of one worker after the other.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub fn sessions(
        &self,
        function: usize,
        cursor: usize,
        limit: usize,
    ) -> io::Result<SessionPage> {
        let homes = self.homes_of_function(function);
        if homes.is_empty() {
            return Err(io::Error::other("no such function"));
        }
        // Which of the workers, and where there.
        let (turn, at) = (cursor % homes.len(), cursor / homes.len());
        let (worker, index) = homes[turn];
        let mut page = self.running[worker].worker.sessions(index, at, limit)?;
        page.next = match page.next {
            Some(next) => Some(next.saturating_mul(homes.len()).saturating_add(turn)),
            None => Some(turn + 1).filter(|next| *next < homes.len()),
        };
        Ok(page)
    }

    /// Copies of the packets of the port of this name from now on: of each worker that has it, with the wall-clock time
    /// of its clock's zero.
    ///
    /// # Errors
    /// When a worker does not answer, or there is no such port.
    pub fn capture(&self, port: &str) -> io::Result<Vec<(Watch, SystemTime)>> {
        let homes = self.homes_of_port(port);
        if homes.is_empty() {
            return Err(io::Error::other(format!("there is no port `{port}`")));
        }
        let watch = |(worker, index): (usize, usize)| {
            let (tap, watch) = capture::tap(CAPTURE_RING);
            let worker = &self.running[worker].worker;
            worker.watch(index, tap)?;
            Ok((watch, worker.start_time()))
        };
        homes.into_iter().map(watch).collect()
    }

    /// Whether nothing will ever come in by any port.
    pub fn is_finished(&self) -> bool {
        self.running
            .iter()
            .all(|running| running.ports.is_empty() || running.worker.is_finished())
    }

    /// A worker that ended without being asked: it has met a defect.
    pub fn broken_worker(&self) -> Option<usize> {
        self.running
            .iter()
            .position(|running| !running.worker.is_running())
    }

    /// Stops all workers, after which the counters are final.
    pub fn stop(&mut self) {
        self.running
            .iter_mut()
            .for_each(|running| running.worker.stop());
    }
}

/// How a worker's thread runs.
fn config(index: usize, settings: spec::model::Worker) -> WorkerConfig {
    WorkerConfig {
        name: format!("worker-{index}"),
        core: settings.core.map(|core| core as usize),
        idle: match settings.idle {
            file::Idle::Busy => Idle::Busy,
            file::Idle::Adaptive => Idle::Adaptive,
            file::Idle::Interrupt => Idle::Interrupt,
        },
    }
}

/// What members of crews know of theirs, by worker.
fn memberships(plan: &Plan, wakes: &[WakeHandle]) -> Vec<Option<Membership>> {
    let mut all: Vec<_> = wakes.iter().map(|_| None).collect();
    for planned in &plan.crews {
        let members = planned.members.iter();
        let bells = members.clone().map(|worker| wakes[*worker].clone());
        let ports = plan.parts[planned.part].ports.len();
        let memberships = crew::crew(&planned.owners, bells.collect(), ports);
        for (worker, membership) in members.zip(memberships) {
            all[*worker] = Some(membership);
        }
    }
    all
}

/// A secret for each function, fresh at each start. All that run it together use the same: whom a load balancer chooses
/// must not hang on the worker.
fn function_seeds(model: &Model) -> Vec<u64> {
    let mut seeds = Seeds::new();
    model.functions.iter().map(|_| seeds.next()).collect()
}
