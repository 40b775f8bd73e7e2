//! All embedded guests of a run.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{Event, Guest, GuestSpec, TaskResult};

/// How long all guests together may take to connect.
const PATIENCE: Duration = Duration::from_secs(30);

/// The guests, and what they have told.
pub struct Guests {
    running: Vec<(String, Guest)>,
    events: Receiver<Event>,
    tasks: usize,
    results: Vec<TaskResult>,
    failures: Vec<String>,
}

impl Guests {
    /// Starts guests, each with the socket of its port's back end, and returns when all are connected. Then
    /// [`Guests::begin`] starts their tasks: a task may need other guests.
    ///
    /// # Errors
    /// Which guest did not come up, and why.
    pub fn start(specs: Vec<(GuestSpec, PathBuf)>) -> Result<Self, String> {
        let (sender, events) = channel();
        let tasks = specs.iter().map(|(spec, _)| spec.tasks.len()).sum();
        let mut running = Vec::new();
        for (spec, socket) in specs {
            let name = spec.name.clone();
            let guest = Guest::start(spec, socket, sender.clone());
            let guest = guest.map_err(|error| format!("guest {name}: {error}"))?;
            running.push((name, guest));
        }
        let started = Self {
            running,
            events,
            tasks,
            results: Vec::new(),
            failures: Vec::new(),
        };
        started.wait_up()?;
        Ok(started)
    }

    fn wait_up(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut up = 0;
        while up < self.running.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Up { .. }) => up += 1,
                Ok(Event::Task(_)) => {}
                Ok(Event::Failed { guest, error }) => {
                    return Err(format!("guest {guest}: {error}"));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let count = self.running.len();
                    return Err(format!(
                        "only {up} of {count} guests came up in {PATIENCE:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Has all guests begin their tasks.
    pub fn begin(&self) {
        self.running.iter().for_each(|(_, guest)| guest.begin());
    }

    /// Waits up to `patience` for guests to tell something; what was done since the last call is returned.
    pub fn wait(&mut self, patience: Duration) -> &[TaskResult] {
        let old = self.results.len();
        if let Ok(event) = self.events.recv_timeout(patience) {
            self.take(event);
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
        &self.results[old..]
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Up { .. } => {}
            Event::Task(result) => self.results.push(*result),
            Event::Failed { guest, error } => self.failures.push(format!("guest {guest}: {error}")),
        }
    }

    /// Whether nothing more will come of them: there were tasks, and all are done, or a guest has failed.
    pub fn are_done(&self) -> bool {
        !self.failures.is_empty() || (self.tasks > 0 && self.results.len() == self.tasks)
    }

    /// Tasks of all guests.
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// What became of the tasks that are done, in the order in which they ended.
    pub fn results(&self) -> &[TaskResult] {
        &self.results
    }

    /// Guests that ended before they were asked to, and why.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Requests that each guest has answered in full, and their bytes.
    pub fn served(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.running.iter().map(|(name, guest)| {
            let served = guest.served();
            (name.as_str(), served.requests(), served.bytes())
        })
    }

    /// Stops all guests: their cards disconnect.
    pub fn stop(&mut self) {
        self.running.iter_mut().for_each(|(_, guest)| guest.stop());
        while let Ok(event) = self.events.try_recv() {
            if let Event::Task(result) = event {
                self.results.push(*result);
            }
        }
    }
}
