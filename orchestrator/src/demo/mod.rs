//! A run with embedded guests, watched: what is shown while it goes, and what it has proved at its end.
//!
//! Everything follows from the configuration: the guests' tasks and what they expect. Where all ports are embedded
//! guests and at least one has a task, the run ends by itself when all tasks are done; nothing can come in then any
//! more. The demo is such a configuration, which the program carries with it.

mod display;
mod proof;

use std::time::{Duration, Instant};

pub use display::Display;
pub use proof::{Proof, proofs};

use crate::guest::{GuestSpec, Guests};
use crate::instance::Instance;
use crate::spec::Model;
use crate::spec::file::Port;

/// The demo's configuration.
pub const CONFIGURATION: &str = include_str!("../../../configs/demo.yaml");
/// Where it stands in the sources; error messages name it so.
pub const FILE: &str = "configs/demo.yaml";

/// Attaches the guests of an instance; `None` where it has none.
///
/// # Errors
/// Which guest did not come up, and why.
pub fn attach(instance: &Instance) -> Result<Option<Guests>, String> {
    let seats = instance.seats();
    if seats.is_empty() {
        return Ok(None);
    }
    let seat = |seat: &crate::instance::GuestSeat| {
        let spec = GuestSpec::new(&seat.name, &seat.guest);
        (spec, seat.socket.clone())
    };
    let guests = Guests::start(seats.iter().map(seat).collect())?;
    guests.begin();
    Ok(Some(guests))
}

/// Whether a run ends when the guests' tasks are done: no other port can bring anything in.
pub fn ends_with_tasks(model: &Model) -> bool {
    let guest = |port: &Port| matches!(port, Port::EmbeddedGuest(_));
    model.ports.iter().all(|port| guest(&port.config))
}

/// A clock that strikes at even intervals.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    last: Instant,
}

impl Pace {
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            last: Instant::now(),
        }
    }

    /// How long ago the last stroke was, if the next is due; it is the last from now on.
    pub fn strikes(&mut self) -> Option<Duration> {
        let since = self.last.elapsed();
        (since >= self.every).then(|| {
            self.last = Instant::now();
            since
        })
    }
}
