//! A router alone between two guests, whose frames go to random destinations.

use std::path::Path;
use std::time::{Duration, Instant};

use chainplane::instance::{Detached, Instance};
use chainplane::spec::{self, Environment, Model};
use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::time::Time;
use chainplane_vhost::driver::FastMode;

use crate::guests::{Guests, Progress, Settings};
use crate::memory::{frame, router};
use crate::routes::{Route, destinations};
use crate::turns::{attach, back_end};

/// A router with these routes between guests `a` and `b`, whose sockets are in `directory`.
///
/// # Panics
/// When the configuration is wrong, which is a mistake here.
pub fn model(routes: &[Route], directory: &Path, worker: &str) -> Model {
    let sockets = directory.display();
    let text = format!(
        "version: 1\nworkers: [{worker}]\ncontrol: {{ socket: {sockets}/control.sock }}\nports:\n  \
         a: {{ vhost-user: {{ socket: {sockets}/a.sock }} }}\n  b: {{ vhost-user: {{ socket: {sockets}/b.sock }} }}\n\
         functions:\n  core:\n    router:\n      interfaces: {{ a: {{ address: 198.18.0.1/24 }}, b: {{ address: 198.19.0.1/24 }} }}\n\
         chains:\n  a: [a, core.a]\n  b: [b, core.b]\n"
    );
    let path = directory.join("routing.yaml");
    let mut model = spec::parse(&text, &path, &Environment::here())
        .unwrap_or_else(|report| panic!("{}", report.render(false)));
    // A file holds no million routes.
    model.functions[0].config = router(routes);
    model
}

/// What the two guests send: frames to so many destinations that the router has behind the other.
pub fn frames(routes: &[Route], count: usize) -> [Vec<Vec<u8>>; 2] {
    [0, 1].map(|side| {
        let to = destinations(routes, 1 - side, count);
        to.into_iter().map(|dst| frame(side, dst)).collect()
    })
}

/// Guests whose rings hold the frames, or, where these are more, that write each anew.
pub fn settings(destinations: usize) -> Settings {
    let few = destinations <= usize::from(Settings::DEFAULT.queue_size);
    Settings {
        mode: if few {
            FastMode::IndexOnly
        } else {
            FastMode::Rewrite
        },
        ..Settings::DEFAULT
    }
}

/// Guests and engine in one thread.
pub struct Rings {
    guests: Guests,
    engine: Engine,
    now: Time,
    _devices: Detached,
    _directory: tempfile::TempDir,
}

impl Rings {
    /// Attaches the guests.
    ///
    /// # Panics
    /// If an engine or the guests can't be had.
    pub fn new(routes: &[Route], count: usize, mode: FastMode) -> Self {
        let directory = tempfile::tempdir().expect("a directory for sockets");
        let (engine, devices) =
            Detached::open(&model(routes, directory.path(), "{}")).expect("an engine");
        let (path, frames) = (directory.path().to_owned(), frames(routes, count));
        let settings = Settings {
            mode,
            ..Settings::DEFAULT
        };
        let (guests, engine) = attach(engine, move || {
            Guests::sending(
                [&path.join("a.sock"), &path.join("b.sock")],
                &frames,
                settings,
            )
        });
        Self {
            guests,
            engine,
            now: Time(0),
            _devices: devices,
            _directory: directory,
        }
    }

    /// Forwards at least so many packets; tells how many, and the back end's own cycles.
    ///
    /// # Panics
    /// If none arrive.
    pub fn forward(&mut self, packets: u64, clock: &quanta::Clock) -> (u64, u64) {
        let (mut progress, mut cycles) = (Progress::default(), 0);
        while progress.total() < packets {
            self.now = Time(self.now.0 + 10_000);
            let start = clock.raw();
            back_end(&mut self.engine, self.now);
            cycles += clock.raw() - start;
            self.guests.poll(&mut progress);
            let moving = progress.total() > 0 || progress.turns < 10_000;
            assert!(moving, "nothing arrives");
        }
        (progress.total(), cycles)
    }
}

/// Drives a back end from `core` for so long; millions of packets a second, and the share of turns without any.
///
/// # Errors
/// What attaching fails with.
pub fn drive(
    sockets: [&Path; 2],
    frames: &[Vec<Vec<u8>>; 2],
    core: usize,
    time: Duration,
) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set)?;
    let mut guests = Guests::sending(sockets, frames, settings(frames[0].len()))?;
    let mut run = |time: Duration| {
        let (start, mut progress) = (Instant::now(), Progress::default());
        while start.elapsed() < time {
            for _ in 0..256 {
                guests.poll(&mut progress);
            }
        }
        let mpps = progress.total() as f64 / start.elapsed().as_secs_f64() / 1e6;
        (mpps, progress.empty as f64 / progress.turns.max(1) as f64)
    };
    run(Duration::from_millis(500));
    Ok(run(time))
}

/// A running instance with these routes, its worker on core 0.
///
/// # Panics
/// If it can't be had.
pub fn instance(routes: &[Route], directory: &Path) -> Instance {
    let model = model(routes, directory, "{ cores: [0], idle: busy }");
    Instance::start(model).expect("an instance")
}
