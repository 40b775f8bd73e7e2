//! The built `chainplane` program.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::{Error, Result, parts};

/// The directory of one running chainplane: its YAML file and its sockets.
pub struct Workspace {
    directory: tempfile::TempDir,
}

impl Workspace {
    /// A new empty directory, deleted when dropped.
    pub fn new() -> Result<Self> {
        // Short, because a socket's path may have no more than 107 bytes.
        Ok(Self {
            directory: tempfile::Builder::new().prefix("cp-").tempdir()?,
        })
    }

    /// The path of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// The built program.
pub struct Chainplane;

impl Chainplane {
    /// The program under test: `CHAINPLANE_BIN`, or the one that cargo builds now.
    ///
    /// Cargo builds the programs of the package under test only, and this is another package; so the
    /// first test that needs the program has it built.
    pub fn binary() -> Result<PathBuf> {
        if let Some(path) = env::var_os("CHAINPLANE_BIN") {
            return Ok(path.into());
        }
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args([
                "build",
                "--quiet",
                "--package",
                "chainplane",
                "--bin",
                "chainplane",
            ])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(parts::workspace());
        let output = cargo.output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        stdout
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|message| Some(message["executable"].as_str()?.into()))
            .ok_or_else(|| Error::new(String::from_utf8_lossy(&output.stderr)))
    }
}
