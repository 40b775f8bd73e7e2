//! The built `chainplane` program.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::{Error, Netns, Process, Result, parts, program, run, wait_until};

const LIMIT: Duration = Duration::from_mins(1);

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

/// A running chainplane. Dropping it without [`Chainplane::stop`] is what a failed test does: then it says what
/// it was doing, and is killed.
pub struct Chainplane {
    process: Process,
    control: PathBuf,
    /// It was killed on purpose.
    killed: bool,
}

impl Chainplane {
    /// Starts `chainplane run` on a file that holds `yaml`, in `netns` if there is one, and waits until
    /// it answers on its control socket. Relative paths in `yaml` start at `files`.
    pub fn start(files: &Workspace, netns: Option<&Netns>, yaml: &str) -> Result<Self> {
        let mut running = Self::launch(files, netns, yaml)?;
        wait_until(LIMIT, "chainplane to answer", || {
            if running.process.ended()?.is_some() {
                return Err(running.process.error("it has ended"));
            }
            Ok(running.show().ok().map(|_| ()))
        })?;
        Ok(running)
    }

    /// As [`start`](Self::start), without waiting for anything.
    pub fn launch(files: &Workspace, netns: Option<&Netns>, yaml: &str) -> Result<Self> {
        let (file, control) = (files.path("chain.yaml"), files.path("control.sock"));
        fs::write(
            &file,
            format!("{yaml}control: {{ socket: {} }}\n", control.display()),
        )?;
        let binary = Self::binary()?;
        let mut command = match netns {
            Some(netns) => netns.program(&binary.to_string_lossy()),
            None => program(&binary),
        };
        command.arg("run").arg(&file).current_dir(files.path(""));
        let process = Process::start("chainplane run", command)?;
        Ok(Self {
            process,
            control,
            killed: false,
        })
    }

    /// Kills it by SIGKILL.
    pub fn kill(mut self) {
        self.killed = true;
        self.process.kill();
    }

    /// The options that `chainplane attach` prints for a QEMU on `port`; `files` are those of
    /// [`start`](Self::start).
    pub fn attach(files: &Workspace, port: &str) -> Result<Vec<String>> {
        let mut command = program(Self::binary()?);
        command
            .arg("attach")
            .arg(files.path("chain.yaml"))
            .arg(port)
            .current_dir(files.path(""));
        let output = run(command, LIMIT)?;
        let lines = output.stdout.lines();
        let qemu = lines.skip_while(|line| !line.starts_with("# QEMU")).skip(1);
        let words = qemu
            .take_while(|line| !line.is_empty())
            .flat_map(str::split_whitespace);
        let words: Vec<_> = words
            .filter(|word| *word != "\\")
            .map(str::to_owned)
            .collect();
        if words.is_empty() {
            return Err(Error::new(format!(
                "no options for QEMU: {}",
                output.text()
            )));
        }
        Ok(words)
    }

    /// A command of the program that speaks to this instance.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = program(Self::binary()?);
        command.args(words).arg("--socket").arg(&self.control);
        Ok(command)
    }

    /// What `chainplane show --json` says.
    pub fn show(&self) -> Result<Value> {
        let output = run(self.command(&["show", "--json"])?, LIMIT)?;
        if output.code != Some(0) {
            return Err(Error::new(output.text()));
        }
        Ok(serde_json::from_str(&output.stdout)?)
    }

    /// The report of the port or function `name`; `group` is `ports` or `functions`.
    pub fn report(&self, group: &str, name: &str) -> Result<Value> {
        let report = self.show()?;
        let entries = report[group].as_array().into_iter().flatten();
        let found = entries
            .into_iter()
            .find(|entry| entry["name"] == name)
            .cloned();
        found.ok_or_else(|| Error::new(format!("no {name} among the {group} of {report}")))
    }

    /// All packets that the port or function `name` has dropped.
    pub fn drops(&self, group: &str, name: &str) -> Result<u64> {
        Ok(sum(&self.report(group, name)?["drops"]))
    }

    /// Waits until the conservation law holds at every function: in + created = out + drops + consumed +
    /// held. While packets move, the counters are not of one moment; so traffic must have stopped.
    pub fn assert_conserved(&self) -> Result<()> {
        let mut last = Value::Null;
        let holds = |function: &Value| {
            let interfaces = function["interfaces"].as_array();
            let total = |name: &str| -> u64 {
                interfaces
                    .into_iter()
                    .flatten()
                    .filter_map(|side| side[name].as_u64())
                    .sum()
            };
            let own = |name: &str| function[name].as_u64().unwrap_or(0);
            let left = own("consumed") + own("held") + sum(&function["drops"]);
            total("in-packets") > 0
                && total("in-packets") + own("created") == total("out-packets") + left
        };
        let wait = wait_until(Duration::from_secs(20), "the conservation law", || {
            last = self.show()?["functions"].take();
            Ok(last
                .as_array()
                .into_iter()
                .flatten()
                .all(holds)
                .then_some(()))
        });
        wait.map_err(|error| Error::new(format!("{error}: {last:#}")))
    }

    /// Stops it by SIGTERM, on which it must end with exit code 0.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        match self.process.wait_exit(LIMIT)? {
            Some(0) => Ok(()),
            code => Err(self
                .process
                .error(&format!("ended with {code:?} on SIGTERM"))),
        }
    }

    /// The program under test: `CHAINPLANE_BIN`, or the one that cargo builds now.
    ///
    /// Cargo builds the programs of the package under test only, and this is another package; so the
    /// first test that needs the program has it built.
    pub fn binary() -> Result<PathBuf> {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        if let Some(path) = env::var_os("CHAINPLANE_BIN") {
            return Ok(path.into());
        }
        if let Some(path) = BUILT.get() {
            return Ok(path.clone());
        }
        let path = Self::build()?;
        Ok(BUILT.get_or_init(|| path).clone())
    }

    fn build() -> Result<PathBuf> {
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

impl Drop for Chainplane {
    fn drop(&mut self) {
        if self.killed || matches!(self.process.ended(), Ok(Some(Some(0)))) {
            return;
        }
        let show = self
            .command(&["show"])
            .and_then(|command| run(command, LIMIT));
        eprintln!("{}", self.process.error("the test has ended before it did"));
        match show {
            Ok(output) => eprintln!("--- chainplane show ---\n{}", output.text()),
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// The sum of an object's numbers.
fn sum(object: &Value) -> u64 {
    object
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, value)| value.as_u64())
        .sum()
}
