//! Network namespaces, made for one test and gone with it.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Error, Output, Process, Result, program, run};

const LIMIT: Duration = Duration::from_mins(1);

/// A network namespace. Dropping it deletes it with every device in it.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback device up. `label` helps a reader of `ip netns`.
    pub fn new(label: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let netns = Self {
            name: format!("chainplane-{}-{number}-{label}", std::process::id()),
        };
        host(&["ip", "netns", "add", &netns.name])?;
        netns.ok("ip link set lo up")?;
        // Without it the kernel's own IPv6 chatter would show up in the tests' counters.
        netns.ok(
            "sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1",
        )?;
        Ok(netns)
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs `name` in this namespace.
    pub fn program(&self, name: &str) -> Command {
        let mut command = program("ip");
        command.args(["netns", "exec", &self.name, name]);
        command
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = self.program("sh");
        command.args(["-c", script]);
        command
    }

    /// Runs a shell command in this namespace to its end.
    pub fn run(&self, script: &str, limit: Duration) -> Result<Output> {
        run(self.shell(script), limit)
    }

    /// Runs a shell command in this namespace that must succeed within a minute; returns its output.
    pub fn ok(&self, script: &str) -> Result<String> {
        let output = self.run(script, LIMIT)?;
        match output.code {
            Some(0) => Ok(output.stdout),
            code => Err(Error::new(format!(
                "`{script}` ended with {code:?}: {}",
                output.text()
            ))),
        }
    }

    /// Starts a shell command in this namespace that goes on until its guard is dropped.
    pub fn start(&self, script: &str) -> Result<Process> {
        Process::start(script, self.shell(&format!("exec {script}")))
    }

    /// Runs `work` on a thread in this namespace; threads that it starts are there as well.
    pub fn enter(&self, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
        let run = || {
            let path = Path::new("/run/netns").join(&self.name);
            let file = fs::File::open(&path).map_err(|e| Error::new(e.to_string()))?;
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind)
                .map_err(|error| Error::new(format!("can't enter {}: {error}", self.name)))?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(run).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Joins two namespaces by a veth pair: `ours` here, `theirs` in `other`, both up.
    pub fn veth(&self, ours: &str, other: &Self, theirs: &str) -> Result<()> {
        self.ok(&format!(
            "ip link add {ours} type veth peer name {theirs} netns {} && ip link set dev {ours} up",
            other.name
        ))?;
        other.ok(&format!("ip link set dev {theirs} up"))?;
        Ok(())
    }

    /// Moves the device `device` from this namespace into `other`.
    pub fn give(&self, device: &str, other: &Self) -> Result<()> {
        self.ok(&format!("ip link set dev {device} netns {}", other.name))?;
        Ok(())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Nothing more can be done about a failure here; `sweep` tries again in the next run.
        let _ = host(&["ip", "netns", "delete", &self.name]);
    }
}

fn host(words: &[&str]) -> Result<()> {
    let mut command = program(words[0]);
    command.args(&words[1..]);
    let output = run(command, LIMIT)?;
    if output.code == Some(0) {
        return Ok(());
    }
    Err(Error::new(format!(
        "`{}`: {}",
        words.join(" "),
        output.text()
    )))
}

/// Deletes the namespaces of test runs that were killed before they could do so.
pub fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix("chainplane-") else {
            continue;
        };
        let owner = rest.split('-').next().unwrap_or_default();
        if !owner.is_empty() && !Path::new("/proc").join(owner).exists() {
            let _ = host(&["ip", "netns", "delete", &name]);
        }
    }
}
