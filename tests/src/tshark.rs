//! tshark, as the reader of what `chainplane capture` writes.

use std::path::Path;
use std::time::Duration;

use crate::{Error, Result, program, run};

/// How to call tshark.
pub struct Tshark;

impl Tshark {
    /// Reads the capture in `file` and returns the lines of `fields` (tab-separated) of the packets that
    /// the display filter `filter` keeps.
    pub fn fields(file: &Path, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        let mut command = program("tshark");
        command
            .arg("-r")
            .arg(file)
            .args(["-n", "-Y", filter, "-T", "fields"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = run(command, Duration::from_mins(2))?;
        if output.code != Some(0) {
            return Err(Error::new(format!(
                "tshark can't read it: {}",
                output.stderr
            )));
        }
        let split = |line: &str| line.split('\t').map(str::to_owned).collect();
        Ok(output.stdout.lines().map(split).collect())
    }
}
