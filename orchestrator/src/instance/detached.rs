//! A configuration of one worker, opened without its thread.

use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::worker::WakeHandle;
use chainplane_vhost::backend::Device;

use super::StartError;
use super::open::OpenedPorts;
use super::recipe::Recipe;
use crate::plan::Plan;
use crate::spec::Model;

/// What an engine without a worker needs besides: keep it for as long as the engine is polled. For measurements, which
/// poll the engine themselves.
pub struct Detached {
    devices: Vec<(usize, Device)>,
    _sockets: tempfile::TempDir,
}

impl Detached {
    /// Opens a configuration's ports and builds its first worker's engine.
    ///
    /// # Errors
    /// The first thing that can't be had.
    pub fn open(model: &Model) -> Result<(Engine, Self), StartError> {
        let plan = Plan::new(model).map_err(StartError::Plan)?;
        let sockets = tempfile::tempdir().map_err(StartError::Directory)?;
        let failed = |error| StartError::Worker(0, error);
        let wake = WakeHandle::new().map_err(failed)?;
        let worker = plan.workers.into_iter().next().unwrap_or_default();
        let opened = OpenedPorts::open(model, &worker, &wake, sockets.path())?;
        let mut engine = Recipe::new(model, worker)
            .cook(opened.makers)
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
