//! Starts workers side by side, so that none polls before all are there: what one sends another is not lost because
//! that one is late.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::worker::{WakeHandle, Worker, WorkerConfig};

use super::StartError;

/// A worker to be started.
pub(super) struct Start {
    pub config: WorkerConfig,
    pub wake: WakeHandle,
    /// Builds its engine, on its thread.
    pub build: Box<dyn FnOnce() -> io::Result<Engine> + Send>,
}

/// Those who are not there yet.
struct Gate {
    missing: Mutex<usize>,
    none: Condvar,
}

impl Gate {
    fn wait(&self) {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.none.wait_while(missing, |missing| *missing > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// One who is missing until this is dropped, whatever became of it: nobody waits for a worker that could not be started.
struct Missing(Arc<Gate>);

impl Drop for Missing {
    fn drop(&mut self) {
        let missing = &mut self
            .0
            .missing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        **missing -= 1;
        self.0.none.notify_all();
    }
}

/// Starts all, or none.
///
/// # Errors
/// The first that can't be started.
pub(super) fn start(workers: Vec<Start>) -> Result<Vec<Worker>, StartError> {
    let gate = Arc::new(Gate {
        missing: Mutex::new(workers.len()),
        none: Condvar::new(),
    });
    let started: Vec<io::Result<Worker>> = std::thread::scope(|scope| {
        let all: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let (gate, missing) = (Arc::clone(&gate), Missing(Arc::clone(&gate)));
                let build = move || {
                    let engine = (worker.build)();
                    drop(missing);
                    gate.wait();
                    engine
                };
                scope.spawn(move || Worker::start(&worker.config, worker.wake, build))
            })
            .collect();
        let ended = |_| Err(io::Error::other("it ended while it was started"));
        all.into_iter()
            .map(|started| started.join().unwrap_or_else(ended))
            .collect()
    });
    let started = started.into_iter().enumerate();
    started
        .map(|(index, worker)| worker.map_err(|error| StartError::Worker(index, error)))
        .collect()
}
