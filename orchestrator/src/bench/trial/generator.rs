//! The generator's thread, and how it is told what to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{BenchError, Progress};
use crate::bench::endpoint::Endpoint;
use crate::bench::trial::engine::Engine;

/// From one look at the generator's progress to the next.
const LOOK: Duration = Duration::from_millis(50);

/// What the generator's thread and its owner share.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    /// Bits of the fraction that is over.
    progress: AtomicU64,
}

impl Control {
    /// Tells how much is over.
    pub fn tick(&self, fraction: f64) {
        self.progress
            .store(fraction.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`BenchError::Cancelled`] if not.
    pub fn check(&self) -> Result<(), BenchError> {
        if self.is_cancelled() {
            Err(BenchError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Whether the user has given up.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

type Job = Box<dyn FnOnce(&mut Engine, &Control) + Send>;

/// The thread. Dropping it detaches the endpoints.
pub struct Generator {
    jobs: Option<Sender<Job>>,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Generator {
    /// Starts the thread on a core, if one is named, and has it attach the endpoints.
    ///
    /// # Errors
    /// A core that is not there; what `attach` fails with.
    pub fn start(
        core: Option<usize>,
        names: [String; 2],
        polite: bool,
        progress: &dyn Progress,
        attach: impl FnOnce(&Control) -> Result<[Endpoint; 2], BenchError> + Send + 'static,
    ) -> Result<Self, BenchError> {
        let control = Arc::new(Control::default());
        let (jobs, inbox) = channel::<Job>();
        let (ready, attached) = channel();
        let ours = Arc::clone(&control);
        let thread = std::thread::Builder::new()
            .name("generator".into())
            .spawn(move || {
                let ends = pin(core).and_then(|()| attach(&ours));
                match ends {
                    Ok(ends) => {
                        let _ = ready.send(Ok(()));
                        let mut engine = Engine::new(ends, &names, polite);
                        while let Ok(job) = inbox.recv() {
                            job(&mut engine, &ours);
                        }
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })?;
        let generator = Self {
            jobs: Some(jobs),
            control,
            thread: Some(thread),
        };
        generator.wait(&attached, progress)??;
        Ok(generator)
    }

    /// Runs a job on the thread, and tells `progress` meanwhile.
    ///
    /// # Errors
    /// What the job fails with, or that the thread has ended by a defect.
    pub fn run<R: Send + 'static>(
        &self,
        progress: &dyn Progress,
        job: impl FnOnce(&mut Engine, &Control) -> Result<R, BenchError> + Send + 'static,
    ) -> Result<R, BenchError> {
        self.control.cancelled.store(false, Ordering::Relaxed);
        self.control.tick(0.0);
        let (sender, result) = channel();
        let job: Job = Box::new(move |engine, control| {
            let _ = sender.send(job(engine, control));
        });
        if let Some(jobs) = &self.jobs {
            // If the thread has ended, so has the result's sender.
            let _ = jobs.send(job);
        }
        self.wait(&result, progress)?
    }

    fn wait<R>(&self, result: &Receiver<R>, progress: &dyn Progress) -> Result<R, BenchError> {
        loop {
            match result.recv_timeout(LOOK) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {
                    progress.tick(f64::from_bits(
                        self.control.progress.load(Ordering::Relaxed),
                    ));
                    if progress.cancelled() {
                        self.control.cancelled.store(true, Ordering::Relaxed);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(BenchError::Died {
                        endpoint: "the generator".into(),
                        reason: "its thread has ended by a defect".into(),
                    });
                }
            }
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.control.cancelled.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pin(core: Option<usize>) -> Result<(), BenchError> {
    use rustix::thread::CpuSet;
    let Some(core) = core else { return Ok(()) };
    let refuse = |why: String| {
        BenchError::Arguments(format!("the generator can't run on core {core}: {why}"))
    };
    if core >= CpuSet::MAX_CPU {
        return Err(refuse("there is none".into()));
    }
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).map_err(|error| refuse(error.to_string()))
}
