//! How a run goes: a line that is redrawn on a terminal, a line now and then elsewhere. On standard error, so that
//! results can be piped.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bench::method::Watch;
use crate::bench::trial::Progress;
use crate::bench::units::span;
use crate::diagnostic::printable;

/// From one plain line to the next.
const LINE: Duration = Duration::from_secs(5);
/// Characters of the bar.
const BAR: usize = 16;
/// Columns that are used.
const WIDTH: usize = 79;

/// The display, and the flag that Ctrl-C raises.
pub struct Display {
    stop: Arc<AtomicBool>,
    terminal: bool,
    began: Instant,
    trial: RefCell<Trial>,
    told: Cell<Instant>,
    /// Whether a line stands that is to be redrawn.
    drawn: Cell<bool>,
}

#[derive(Default)]
struct Trial {
    what: String,
    takes: Duration,
    left: Duration,
}

impl Display {
    /// A display of a run that `stop` ends.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let now = Instant::now();
        Self {
            stop,
            terminal: !dumb && io::stderr().is_terminal(),
            began: now,
            trial: RefCell::default(),
            told: Cell::new(now),
            drawn: Cell::new(false),
        }
    }

    /// Takes the line away.
    pub fn end(&self) {
        if self.drawn.replace(false) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn show(&self, fraction: f64) {
        let trial = self.trial.borrow();
        let here = trial.takes.mul_f64(1.0 - fraction.clamp(0.0, 1.0));
        let line = line(&trial.what, self.began.elapsed(), here + trial.left);
        if self.terminal {
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
            self.drawn.set(true);
        } else if self.told.get().elapsed() >= LINE {
            self.told.set(Instant::now());
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// The bar, the trial, and what is left.
fn line(what: &str, past: Duration, left: Duration) -> String {
    let share = past.as_secs_f64() / (past + left).as_secs_f64().max(1e-9);
    let full = (share * BAR as f64) as usize;
    let bar: String = (0..BAR)
        .map(|at| if at < full { '#' } else { '.' })
        .collect();
    let left = if left < Duration::from_secs(1) {
        "nearly done".into()
    } else {
        format!("{} left", whole(left))
    };
    let tail = format!("  {left}");
    let room = WIDTH.saturating_sub(BAR + 3 + tail.chars().count());
    let what: String = printable(what).chars().take(room).collect();
    format!("[{bar}] {what}{tail}")
}

/// A time in whole seconds, minutes or hours.
fn whole(time: Duration) -> String {
    let seconds = time.as_secs();
    let rounded = match seconds {
        0..120 => seconds,
        120..7200 => seconds.div_ceil(60) * 60,
        _ => seconds.div_ceil(3600) * 3600,
    };
    format!("about {}", span(Duration::from_secs(rounded)))
}

impl Progress for Display {
    fn tick(&self, fraction: f64) {
        self.show(fraction);
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

impl Watch for Display {
    fn trial(&self, what: &str, takes: Duration, left: Duration) {
        *self.trial.borrow_mut() = Trial {
            what: what.to_owned(),
            takes,
            left,
        };
        self.show(0.0);
    }

    fn tell(&self, line: &str) {
        self.end();
        let _ = writeln!(io::stderr(), "{}", printable(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_and_says_what_is_left() {
        let said = line(
            "pdr+ndr: 1.234 Mpps for 500 ms",
            Duration::from_secs(10),
            Duration::from_secs(30),
        );
        assert_eq!(
            said,
            "[####............] pdr+ndr: 1.234 Mpps for 500 ms  about 30 s left"
        );
        let long = line(&"x".repeat(500), Duration::ZERO, Duration::from_hours(5));
        assert!(long.chars().count() <= WIDTH, "{long}");
        assert!(line("", Duration::ZERO, Duration::ZERO).ends_with("nearly done"));
    }
}
