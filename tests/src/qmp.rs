//! QEMU's machine protocol: what a management layer says to it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Error, Result, wait_until};

/// How long QEMU may take to answer.
const LIMIT: Duration = Duration::from_mins(1);

/// A connection to a QEMU's monitor.
pub(crate) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to the monitor at `path`, once QEMU has made it.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let stream = wait_until(LIMIT, "a monitor", || Ok(UnixStream::connect(path).ok()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
        };
        monitor.line()?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(Error::new("QEMU has closed its monitor"));
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Has a command executed; returns what it returns.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}")?;
        loop {
            // Events come in between.
            let mut answer = self.line()?;
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
            if answer.get("error").is_some() {
                return Err(Error::new(format!("{command}: {answer}")));
            }
        }
    }
}
