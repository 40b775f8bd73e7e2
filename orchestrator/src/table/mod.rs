//! A live table of ports, functions, packet rates and drops, and plain lines where there is no terminal.
//!
//! The table is redrawn in place: the cursor goes up and every line is written anew. Nothing of the terminal is
//! switched, so that however the program ends, there is nothing to put back; and what is told beside the table
//! scrolls away above it.

mod number;
mod screen;
#[cfg(test)]
mod tests;
mod totals;

use std::fmt::Write as _;
use std::time::Duration;

pub use number::number;
pub use screen::{Screen, Size};
pub use totals::{Drops, FunctionTotals, PortTotals, Totals};

/// Columns of names.
const NAME: usize = 14;

/// Counters at two moments, from which rates follow.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The first line's text: what runs, and what there is to say of it.
    pub title: String,
    now: Totals,
    before: Totals,
    between: Duration,
}

impl Table {
    /// Takes new counters, `since` after the ones before.
    pub fn update(&mut self, totals: Totals, since: Duration) {
        self.before = std::mem::replace(&mut self.now, totals);
        self.between = since;
    }

    /// The last counters.
    pub fn totals(&self) -> &Totals {
        &self.now
    }

    /// Packets a second that come in by all ports.
    pub fn rate(&self) -> u64 {
        self.per_second(self.now.received(), self.before.received())
    }

    /// What `now` is above `before`, in a second. Counters only rise.
    fn per_second(&self, now: u64, before: u64) -> u64 {
        let seconds = self.between.as_secs_f64();
        if seconds <= 0.0 {
            return 0;
        }
        (now.saturating_sub(before) as f64 / seconds).round() as u64
    }

    /// The table in lines that fit `size`.
    pub fn lines(&self, size: Size) -> Vec<String> {
        let (ports, functions, drops) = (self.ports(), self.functions(), self.drops());
        // The title, two blank lines, and the line where the cursor stands.
        let mut room = usize::from(size.rows).saturating_sub(4);
        let mut lines = vec![self.title.clone()];
        for (index, part) in [ports, functions, drops].into_iter().enumerate() {
            if index > 0 && !part.is_empty() {
                lines.push(String::new());
            }
            let part = shortened(part, room);
            room -= part.len();
            lines.extend(part);
        }
        let columns = usize::from(size.columns);
        let cut = |line: String| line.chars().take(columns).collect();
        lines.into_iter().map(cut).collect()
    }

    fn ports(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:NAME$} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>6}",
            "port", "in/s", "out/s", "in bit/s", "out bit/s", "in", "out", "drops"
        )];
        for port in &self.now.ports {
            let before = self.before.ports.iter().find(|p| p.name == port.name);
            let rate = |of: fn(&PortTotals) -> u64| {
                let before = before.map_or(0, of);
                self.per_second(of(port), before)
            };
            lines.push(format!(
                "{:NAME$} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>6}",
                name(&port.name),
                number(rate(|p| p.rx_packets)),
                number(rate(|p| p.tx_packets)),
                number(rate(|p| 8 * p.rx_bytes)),
                number(rate(|p| 8 * p.tx_bytes)),
                number(port.rx_packets),
                number(port.tx_packets),
                number(port.drops),
            ));
        }
        lines
    }

    fn functions(&self) -> Vec<String> {
        if self.now.functions.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![format!(
            "{:NAME$} {:14} {:>14} {:>14} {:>10} {:>8}",
            "function", "kind", "packets/s", "packets", "sessions", "drops"
        )];
        for function in &self.now.functions {
            let before = self.before.functions.iter();
            let before = before.filter(|f| f.name == function.name);
            let before = before.map(|f| f.packets).sum();
            lines.push(format!(
                "{:NAME$} {:14} {:>14} {:>14} {:>10} {:>8}",
                name(&function.name),
                function.kind,
                number(self.per_second(function.packets, before)),
                number(function.packets),
                number(function.sessions),
                number(function.drops),
            ));
        }
        lines
    }

    fn drops(&self) -> Vec<String> {
        if self.now.drops.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![format!(
            "{:NAME$} {:29} {:>14}",
            "dropped by", "reason", "packets"
        )];
        let mut drops = self.now.drops.clone();
        drops.sort_by_key(|drops| std::cmp::Reverse(drops.packets));
        for drops in drops {
            let (place, packets) = (name(&drops.place), number(drops.packets));
            lines.push(format!("{place:NAME$} {:29} {packets:>14}", drops.reason));
        }
        lines
    }

    /// One line, for logs and pipes.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{}: {} packets in, {}/s",
            self.title,
            number(self.now.received()),
            number(self.rate())
        );
        let _ = match self.now.dropped() {
            0 => write!(line, ", none dropped"),
            dropped => write!(line, ", {} dropped", number(dropped)),
        };
        line
    }
}

/// A name that fits its column.
fn name(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.to_owned();
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}

/// The first lines of a part, and how many more there are.
fn shortened(mut part: Vec<String>, room: usize) -> Vec<String> {
    if part.len() > room {
        let shown = room.saturating_sub(1);
        let more = part.len() - shown;
        part.truncate(shown);
        if room > 0 {
            part.push(format!("and {more} more"));
        }
    }
    part
}
