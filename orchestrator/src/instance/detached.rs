//! A configuration of one worker, opened without its thread.

use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::worker::WakeHandle;
use chainplane_vhost::backend::Device;

use super::open::OpenedPorts;
use super::recipe::Recipe;
use super::{StartError, function_seeds};
use crate::plan::Plan;
use crate::spec::Model;

/// What an engine without a worker needs besides: keep it for as long as the engine is polled. For measurements, which
/// poll the engine themselves.
pub struct Detached {
    devices: Vec<(usize, Device)>,
    _sockets: tempfile::TempDir,
}

impl Detached {
    /// Opens a configuration's ports and builds the engine of one worker that runs all of it.
    ///
    /// # Errors
    /// The first thing that can't be had.
    pub fn open(model: &Model) -> Result<(Engine, Self), StartError> {
        let mut model = model.clone();
        model.workers.truncate(1);
        model.runs.ports.fill(None);
        model.runs.functions.fill(None);
        let plan = Plan::new(&model).map_err(StartError::Plan)?;
        let sockets = tempfile::tempdir().map_err(StartError::Directory)?;
        let failed = |error| StartError::Worker(0, error);
        let wake = WakeHandle::new().map_err(failed)?;
        let wakes = std::slice::from_ref(&wake);
        let mut opened = OpenedPorts::open(&model, &plan, wakes, sockets.path())?;
        let seeds = function_seeds(&model);
        let worker = plan.workers.into_iter().next().unwrap_or_default();
        let makers = opened.makers.pop().unwrap_or_default();
        let mut engine = Recipe::new(&model, worker, &seeds, None)
            .cook(makers)
            .map_err(failed)?;
        engine.heed(wake);
        Ok((
            engine,
            Self {
                devices: opened.devices,
                _sockets: sockets,
            },
        ))
    }

    /// The device of a vhost-user port, by the port's place among all ports in the order of their names.
    pub fn device(&self, port: usize) -> Option<&Device> {
        let found = self.devices.iter().find(|(index, _)| *index == port);
        found.map(|(_, device)| device)
    }
}
