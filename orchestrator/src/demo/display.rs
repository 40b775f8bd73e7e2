//! What is shown while a configuration runs: a table on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use super::Pace;
use crate::diagnostic::printable;
use crate::guest::{Guests, TaskResult};
use crate::instance::Instance;
use crate::table::{Screen, Table, Totals};

/// From one drawing of the table to the next.
const REDRAW: Duration = Duration::from_millis(500);
/// From one plain line to the next.
const LINE: Duration = Duration::from_secs(2);

/// The display of a run.
pub struct Display {
    name: String,
    started: Instant,
    pace: Pace,
    table: Table,
    screen: Option<Screen>,
    /// Whether plain lines come by themselves, and not only when there is something to tell.
    talks: bool,
}

impl Display {
    /// A display for a run called `name`. Without a terminal, `talks` has it print a line now and then.
    pub fn new(name: &str, talks: bool) -> Self {
        let screen = Screen::open();
        let every = if screen.is_some() { REDRAW } else { LINE };
        Self {
            name: name.to_owned(),
            started: Instant::now(),
            pace: Pace::new(every),
            table: Table::default(),
            screen,
            talks,
        }
    }

    /// Shows what there is to show by now, and what guests have done since the last time.
    ///
    /// # Errors
    /// When standard output can't be written to.
    pub fn show(
        &mut self,
        instance: &Instance,
        guests: Option<&Guests>,
        done: &[TaskResult],
    ) -> io::Result<()> {
        let told: Vec<String> = done.iter().map(told).collect();
        let since = self.pace.strikes();
        if since.is_none() && told.is_empty() {
            return Ok(());
        }
        if let Some(since) = since {
            self.table.update(Totals::of(&instance.snapshots()), since);
            self.table.title = self.title(guests);
        }
        if let Some(screen) = &mut self.screen {
            let lines = self.table.lines(screen.size());
            return screen.draw(&told, &lines);
        }
        let mut out = io::stdout().lock();
        for line in told {
            writeln!(out, "{line}")?;
        }
        if since.is_some() && self.talks {
            writeln!(out, "{}", self.table.line())?;
        }
        out.flush()
    }

    /// Shows the last counters once more, after everything has stopped.
    ///
    /// # Errors
    /// When standard output can't be written to.
    pub fn end(&mut self, instance: &Instance, guests: Option<&Guests>) -> io::Result<()> {
        // Nothing moves any more; what is left to show are the rates of the whole run.
        let mut table = Table::default();
        table.update(Totals::of(&instance.snapshots()), self.started.elapsed());
        table.title = self.title(guests) + ", rates of the whole run";
        let Some(screen) = &mut self.screen else {
            return Ok(());
        };
        let lines = table.lines(screen.size());
        screen.draw(&[], &lines)
    }

    fn title(&self, guests: Option<&Guests>) -> String {
        let seconds = self.started.elapsed().as_secs();
        let mut title = format!("{} {}:{:02}", self.name, seconds / 60, seconds % 60);
        if let Some(guests) = guests.filter(|guests| guests.tasks() > 0) {
            let done = guests.results().len();
            let _ = write!(title, ", {done} of {} tasks done", guests.tasks());
        }
        title
    }
}

/// A finished task as a line. Names in answers come from the network.
fn told(result: &TaskResult) -> String {
    let mark = if result.met() { "done" } else { "FAIL" };
    printable(&format!("{mark}  {result}"))
}
