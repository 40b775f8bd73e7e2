//! A terminal on which a table is redrawn in place.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

/// The terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            columns: 80,
            rows: 24,
        }
    }
}

/// Standard output, where it is a terminal.
#[derive(Debug, Default)]
pub struct Screen {
    /// Lines of the table above the cursor.
    drawn: usize,
}

impl Screen {
    /// Standard output, if it is a terminal that can move its cursor.
    pub fn open() -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        (!dumb && io::stdout().is_terminal()).then(Self::default)
    }

    /// Its size now; 80 by 24 where it does not tell.
    pub fn size(&self) -> Size {
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
                columns: size.ws_col,
                rows: size.ws_row,
            },
            _ => Size::default(),
        }
    }

    /// Draws the table where it was, below `told`, which stays.
    ///
    /// # Errors
    /// When the terminal can't be written to.
    pub fn draw(&mut self, told: &[String], table: &[String]) -> io::Result<()> {
        let frame = self.frame(told, table);
        let mut out = io::stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }

    /// The bytes of one redraw, written at once so that no half of it is ever seen.
    pub(super) fn frame(&mut self, told: &[String], table: &[String]) -> String {
        let mut frame = String::new();
        if self.drawn > 0 {
            let _ = write!(frame, "\x1b[{}A", self.drawn);
        }
        // To the line's start; each line is erased behind its end, and what was below at the end.
        frame.push('\r');
        for line in told.iter().chain(table) {
            let _ = write!(frame, "{line}\x1b[K\r\n");
        }
        frame.push_str("\x1b[J");
        self.drawn = table.len();
        frame
    }
}
