//! `chainplane run`: a configuration, from start to stop.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{explain, fail, open, print};
use crate::control::server::Server;
use crate::instance::{Instance, StartError};

/// How often the main thread looks for an end.
const GLANCE: Duration = Duration::from_millis(50);

/// Runs `file` until a signal, or until nothing can come in any more.
pub fn run(file: &Path) -> Result<ExitCode, ExitCode> {
    let checked = open(file)?;
    let stop = super::stop_signal()?;
    let instance = Instance::start(checked.model.clone()).map_err(|error| match error {
        StartError::Plan(errors) => explain(&checked.explain(errors)),
        error => fail(&error.to_string()),
    })?;
    let instance = Arc::new(instance);
    let server =
        Server::start(&instance.model().control, &instance).map_err(|error| fail(&error))?;
    print(&format!(
        "{} runs; see it by: chainplane show --socket {}\n",
        instance.model().name,
        instance.model().control.path.display()
    ))?;
    let broken = wait(&instance, &stop);
    drop(server);
    let Some(mut instance) = Arc::into_inner(instance) else {
        return Err(fail("a client of the control socket did not let go"));
    };
    instance.stop();
    match broken {
        Some(worker) => Err(fail(&format!("worker {worker} met a defect and ended"))),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Waits for the end; tells which worker broke, if one did.
fn wait(instance: &Instance, stop: &AtomicBool) -> Option<usize> {
    while !stop.load(Ordering::Acquire) && !instance.is_finished() {
        if let Some(worker) = instance.broken_worker() {
            return Some(worker);
        }
        std::thread::sleep(GLANCE);
    }
    None
}
