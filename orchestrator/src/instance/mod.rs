//! A running configuration: ports opened, workers polling, guests attached.

mod detached;
mod open;
mod recipe;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use chainplane_dataplane::capture::{self, Watch};
use chainplane_dataplane::stats::Snapshot;
use chainplane_dataplane::worker::{Idle, SessionPage, WakeHandle, Worker, WorkerConfig};
use chainplane_vhost::backend::{Device, DeviceStatus};

use crate::plan::{Plan, PlanError, Way, WorkerPlan};
use crate::spec::file;
use crate::spec::model::Model;

use open::OpenedPorts;
use recipe::Recipe;

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
    /// Indices into the model's ports, in the worker's order.
    ports: Vec<usize>,
    /// Indices into the model's functions, in the worker's order.
    functions: Vec<usize>,
}

/// A running configuration. Dropping it stops everything.
pub struct Instance {
    model: Model,
    ways: Vec<Option<Way>>,
    running: Vec<Running>,
    devices: Vec<(usize, Device)>,
    seats: Vec<GuestSeat>,
    started: Instant,
    sockets: tempfile::TempDir,
}

impl Instance {
    /// Opens all ports and starts the workers.
    ///
    /// # Errors
    /// The first thing that can't be had.
    pub fn start(model: Model) -> Result<Self, StartError> {
        let plan = Plan::new(&model).map_err(StartError::Plan)?;
        let sockets = tempfile::tempdir().map_err(StartError::Directory)?;
        let mut instance = Self {
            ways: plan.ways(&model),
            model,
            running: Vec::new(),
            devices: Vec::new(),
            seats: Vec::new(),
            started: Instant::now(),
            sockets,
        };
        for (index, worker) in plan.workers.into_iter().enumerate() {
            instance.start_worker(index, worker)?;
        }
        Ok(instance)
    }

    fn start_worker(&mut self, index: usize, plan: WorkerPlan) -> Result<(), StartError> {
        let failed = |error| StartError::Worker(index, error);
        let wake = WakeHandle::new().map_err(failed)?;
        let opened = OpenedPorts::open(&self.model, &plan, &wake, self.sockets.path())?;
        self.devices.extend(opened.devices);
        self.seats.extend(opened.seats);
        let settings = self.model.workers[index];
        let config = WorkerConfig {
            name: format!("worker-{index}"),
            core: settings.core.map(|core| core as usize),
            idle: match settings.idle {
                file::Idle::Busy => Idle::Busy,
                file::Idle::Adaptive => Idle::Adaptive,
                file::Idle::Interrupt => Idle::Interrupt,
            },
        };
        let ports = plan.ports.iter().map(|port| port.index).collect();
        let functions = plan
            .functions
            .iter()
            .map(|function| function.index)
            .collect();
        let (recipe, makers) = (Recipe::new(&self.model, plan), opened.makers);
        let worker = Worker::start(&config, wake, move || recipe.cook(makers)).map_err(failed)?;
        self.running.push(Running {
            worker,
            ports,
            functions,
        });
        Ok(())
    }

    /// The configuration that runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Which way each port's packets go; `None` for a port in no chain.
    pub fn ways(&self) -> &[Option<Way>] {
        &self.ways
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

    /// The worker that runs a port, and the port's number there.
    pub fn home_of_port(&self, port: usize) -> Option<(usize, usize)> {
        find(self.running.iter().map(|running| &running.ports), port)
    }

    /// The worker that runs a function, and the function's number there.
    pub fn home_of_function(&self, function: usize) -> Option<(usize, usize)> {
        find(
            self.running.iter().map(|running| &running.functions),
            function,
        )
    }

    /// The state of a port's vhost-user device, where it is one.
    pub fn device(&self, port: usize) -> Option<DeviceStatus> {
        let (_, device) = self.devices.iter().find(|(index, _)| *index == port)?;
        Some(device.status())
    }

    /// A piece of a function's sessions.
    ///
    /// # Errors
    /// When its worker does not answer.
    pub fn sessions(
        &self,
        function: usize,
        cursor: usize,
        limit: usize,
    ) -> io::Result<SessionPage> {
        let (worker, index) = self
            .home_of_function(function)
            .ok_or_else(|| io::Error::other("no such function"))?;
        self.running[worker].worker.sessions(index, cursor, limit)
    }

    /// Copies of a port's packets from now on, and the wall-clock time of their clock's zero.
    ///
    /// # Errors
    /// When its worker does not answer.
    pub fn capture(&self, port: usize) -> io::Result<(Watch, SystemTime)> {
        let (worker, index) = self
            .home_of_port(port)
            .ok_or_else(|| io::Error::other("no such port"))?;
        let (tap, watch) = capture::tap(CAPTURE_RING);
        let worker = &self.running[worker].worker;
        worker.watch(index, tap)?;
        Ok((watch, worker.start_time()))
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

fn find<'a>(
    mut lists: impl Iterator<Item = &'a Vec<usize>>,
    wanted: usize,
) -> Option<(usize, usize)> {
    let mut at = 0;
    let worker = lists.position(|list| {
        list.iter()
            .position(|index| *index == wanted)
            .is_some_and(|found| {
                at = found;
                true
            })
    })?;
    Some((worker, at))
}
