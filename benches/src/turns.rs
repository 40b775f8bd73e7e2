//! Driver and back end in turn, in one thread: without the noise between cores, and the same instructions each time.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chainplane::instance::Detached;
use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::time::Time;

use crate::allocations;
use crate::case::Case;
use crate::chain::Setup;
use crate::guests::{AttachError, Guests, Progress};

/// Guests and engine in one thread.
pub struct Turns {
    guests: Guests,
    engine: Engine,
    now: Time,
    _devices: Detached,
    _directory: tempfile::TempDir,
}

impl Turns {
    /// Attaches the guests of a case, and forwards until everything is warm.
    ///
    /// # Panics
    /// If an engine or the guests can't be had.
    pub fn new(case: &Case) -> Self {
        let directory = tempfile::tempdir().expect("a directory for sockets");
        let model = Setup::of(case, directory.path(), "{}").model();
        let (engine, devices) = Detached::open(&model).expect("an engine");
        let (path, case) = (directory.path().to_owned(), *case);
        let (guests, engine) = attach(engine, move || Guests::attach_all(&path, &case));
        let mut made = Self {
            guests,
            engine,
            now: Time(0),
            _devices: devices,
            _directory: directory,
        };
        made.forward(2_000);
        made
    }

    /// Forwards at least so many packets; tells how many.
    ///
    /// # Panics
    /// If none arrive.
    pub fn forward(&mut self, packets: u64) -> u64 {
        let mut progress = Progress::default();
        while progress.total() < packets {
            self.now = Time(self.now.0 + 10_000);
            back_end(&mut self.engine, self.now);
            self.guests.poll(&mut progress);
            let moving = progress.total() > 0 || progress.turns < 10_000;
            assert!(moving, "nothing arrives");
        }
        progress.total()
    }

    /// Packets forwarded, and what was allocated meanwhile.
    pub fn count_allocations(&mut self) -> (u64, u64) {
        let before = allocations::made();
        let packets = self.forward(20_000);
        (packets, allocations::made() - before)
    }
}

/// The back end's turn; a function of its own, so that callgrind can count what happens in it and nothing else.
#[inline(never)]
pub fn back_end(engine: &mut Engine, now: Time) {
    black_box(engine.poll(black_box(now)));
}

/// The engine has to pass poll boundaries while the guests attach, which takes another thread; an engine does not
/// leave its thread, so the guests are attached there and come back.
pub(crate) fn attach(
    mut engine: Engine,
    guests: impl FnOnce() -> Result<Guests, AttachError> + Send + 'static,
) -> (Guests, Engine) {
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let attaching = std::thread::spawn(move || {
        let guests = guests();
        flag.store(true, Ordering::Release);
        guests.expect("guests that attach")
    });
    while !done.load(Ordering::Acquire) && !attaching.is_finished() {
        engine.poll(Time(0));
        std::thread::yield_now();
    }
    (attaching.join().expect("guests that attach"), engine)
}
