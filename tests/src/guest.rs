//! A Linux guest under QEMU, whose console the test types on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::image::initramfs;
use crate::qmp::Monitor;
use crate::{Error, Output, Process, Result, parts, program, wait_until};

/// How long a guest may take from the start to its shell. An idle machine needs about four seconds, a
/// busy one has been seen to need sixty.
pub const BOOT_LIMIT: Duration = Duration::from_mins(3);

/// How long a command in a guest may take unless the test says otherwise.
const COMMAND_LIMIT: Duration = Duration::from_mins(2);

/// How long a migration of such a small guest may take.
const MIGRATION_LIMIT: Duration = Duration::from_mins(2);

/// Runs on any machine: TCG needs no KVM.
const MACHINE: &str =
    "-accel tcg -cpu max -nodefaults -no-user-config -nographic -no-reboot -serial stdio";
/// Memory that a back end can map.
const MEMORY: &str = "-machine q35,memory-backend=mem \
    -object memory-backend-memfd,id=mem,size=256M,share=on";
const KERNEL_LINE: &str = "console=ttyS0 quiet loglevel=0 panic=-1 reboot=t mitigations=off";
/// QEMU 7.2 crashes under TCG when vhost-user meets MSI-X.
const NO_MSIX: &str = "vectors=0";

/// A network card of a guest, whose back end listens on a vhost-user socket.
///
/// The guest sees the cards in the order in which they are given as `eth0`, `eth1`, …
#[derive(Clone, Debug)]
pub struct Nic {
    socket: PathBuf,
    mac: String,
    queues: u16,
    listens: bool,
    redials: bool,
    device: String,
}

impl Nic {
    /// A card with one pair of queues at the socket of a listening back end.
    pub fn new(socket: impl AsRef<Path>, mac: &str) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
            mac: mac.to_owned(),
            queues: 1,
            listens: false,
            redials: false,
            device: String::new(),
        }
    }

    /// The same with `queues` pairs of queues.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// The same with the roles on the socket changed: QEMU listens and the back end connects.
    #[must_use]
    pub fn listening(mut self) -> Self {
        self.listens = true;
        self
    }

    /// The same for a QEMU that connects again, every second, after the back end has gone.
    #[must_use]
    pub fn redialing(mut self) -> Self {
        self.redials = true;
        self
    }

    /// The same with further properties of QEMU's `virtio-net-pci`, such as `mrg_rxbuf=off`.
    #[must_use]
    pub fn device(mut self, properties: &str) -> Self {
        self.device.clear();
        for property in properties.split(',') {
            // Writing to a string can't fail.
            let _ = write!(self.device, ",{property}");
        }
        self
    }
}

/// What a guest boots.
pub struct BootFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initial file system.
    pub initramfs: PathBuf,
    /// Its command line.
    pub command_line: &'static str,
}

impl BootFiles {
    /// Those of all guests.
    pub fn new() -> Result<Self> {
        let (kernel, modules) = parts::guest_kernel()?;
        Ok(Self {
            kernel,
            initramfs: initramfs(&modules)?,
            command_line: KERNEL_LINE,
        })
    }
}

/// What QEMU tells of a migration.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// How long the guest stood still.
    pub downtime: Duration,
    /// How long all of it took.
    pub total: Duration,
}

/// What a guest's machine has beside the usual.
#[derive(Clone, Debug)]
pub struct Machine {
    options: Vec<String>,
    memory: String,
    kernel: String,
    monitor: Option<PathBuf>,
    network_boot: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            options: Vec::new(),
            memory: "256M".to_owned(),
            kernel: KERNEL_LINE.to_owned(),
            monitor: None,
            network_boot: false,
        }
    }
}

impl Machine {
    /// The same with nothing to boot from but its first card, whose firmware (iPXE) is to fetch the [`BootFiles`].
    #[must_use]
    pub fn network_boot(mut self) -> Self {
        self.network_boot = true;
        self
    }

    /// The same with an option of QEMU's, before those of the cards.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.extend(option.split(' ').map(str::to_owned));
        self
    }

    /// The same with further words on the kernel's command line.
    #[must_use]
    pub fn kernel(mut self, words: &str) -> Self {
        self.kernel = format!("{} {words}", self.kernel);
        self
    }

    /// The same with another argument of QEMU's `-m`: 256 MiB, and room for what is plugged later.
    #[must_use]
    pub fn memory(mut self, memory: &str) -> Self {
        memory.clone_into(&mut self.memory);
        self
    }

    /// The same with a monitor (QMP) at a socket, for [`Guest::monitor`] and [`Guest::migrate`].
    #[must_use]
    pub fn monitor(mut self, socket: impl AsRef<Path>) -> Self {
        self.monitor = Some(socket.as_ref().to_owned());
        self
    }
}

/// A running guest. Dropping it kills it as a power failure would.
pub struct Guest {
    name: String,
    qemu: Process,
    options: Vec<String>,
    kernel_line: Option<String>,
    commands: u32,
    monitor: Option<PathBuf>,
}

impl Guest {
    /// Starts a guest; [`wait_booted`](Self::wait_booted) waits for its shell. Several guests boot in
    /// less time side by side than one after the other.
    pub fn start(name: &str, nics: &[Nic]) -> Result<Self> {
        Self::start_on(name, nics, &Machine::default())
    }

    /// Starts a guest on another machine than the usual one.
    pub fn start_on(name: &str, nics: &[Nic], machine: &Machine) -> Result<Self> {
        let mut options: Vec<String> = MEMORY.split(' ').map(str::to_owned).collect();
        options.extend(["-m".to_owned(), machine.memory.clone()]);
        options.extend(machine.options.iter().cloned());
        if let Some(monitor) = &machine.monitor {
            let socket = format!("unix:{},server=on,wait=off", monitor.display());
            options.extend(["-qmp".to_owned(), socket]);
        }
        let cores = nics.iter().map(|nic| nic.queues).max().unwrap_or(1);
        options.extend(["-smp".to_owned(), cores.to_string()]);
        for (index, nic) in nics.iter().enumerate() {
            let server = match (nic.listens, nic.redials) {
                (true, _) => ",server=on,wait=off",
                (_, true) => ",reconnect=1",
                _ => "",
            };
            let mq = if nic.queues > 1 { ",mq=on" } else { "" };
            let (socket, queues, mac) = (nic.socket.display(), nic.queues, &nic.mac);
            let rom = match (machine.network_boot, index) {
                (true, 0) => "bootindex=0",
                _ => "romfile=",
            };
            let properties = format!("mac={mac},{rom},{NO_MSIX}{mq}{}", nic.device);
            options.extend([
                "-chardev".to_owned(),
                format!("socket,id=c{index},path={socket}{server}"),
                "-netdev".to_owned(),
                format!("vhost-user,id=n{index},chardev=c{index},queues={queues}"),
                "-device".to_owned(),
                format!("virtio-net-pci,netdev=n{index},{properties}"),
            ]);
        }
        let kernel = (!machine.network_boot).then_some(machine.kernel.as_str());
        let mut guest = Self::with_options(name, &options, kernel)?;
        guest.monitor.clone_from(&machine.monitor);
        Ok(guest)
    }

    /// Starts a guest with the options that `chainplane attach` prints for QEMU.
    pub fn attached(name: &str, options: &[String]) -> Result<Self> {
        let fit = |option: &String| {
            // The machine is small, and QEMU 7.2 has its limits.
            let option = option.replace("1G", "256M");
            let kept = option
                .split(',')
                .filter(|part| !part.starts_with("vectors="));
            let kept = kept.collect::<Vec<_>>().join(",");
            if kept.starts_with("virtio-net-pci,") {
                format!("{kept},romfile=,{NO_MSIX}")
            } else {
                kept
            }
        };
        let options: Vec<_> = options.iter().map(fit).collect();
        Self::with_options(name, &options, Some(KERNEL_LINE))
    }

    /// Without a `kernel_line` it has no kernel either.
    fn with_options(name: &str, options: &[String], kernel_line: Option<&str>) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            qemu: launch(name, options, kernel_line)?,
            options: options.to_vec(),
            kernel_line: kernel_line.map(str::to_owned),
            commands: 0,
            monitor: None,
        })
    }

    /// Starts a guest and waits for its shell.
    pub fn boot(name: &str, nics: &[Nic]) -> Result<Self> {
        let mut guest = Self::start(name, nics)?;
        guest.wait_booted()?;
        Ok(guest)
    }

    /// Waits for its shell.
    ///
    /// One of some hundred guests has been seen to say nothing until [`BOOT_LIMIT`] was over. Such a guest is told of, with
    /// what its QEMU was at, and started once more.
    pub fn wait_booted(&mut self) -> Result<()> {
        let first = self.wait_shell();
        let said = self.qemu.stdout().contains("@@");
        let Err(error) = &first else { return first };
        if said || !self.is_running()? {
            return first;
        }
        eprintln!("{error}\n{}started once more", self.qemu.threads());
        self.qemu.kill();
        self.qemu = launch(&self.name, &self.options, self.kernel_line.as_deref())?;
        self.wait_shell()
    }

    fn wait_shell(&self) -> Result<()> {
        let ready = |text: &str| {
            text.split_once("@@ready")
                .map(|(before, _)| before.contains("@@"))
        };
        if self.qemu.wait_stdout(0, BOOT_LIMIT, "shell", ready)? {
            return Err(self.qemu.error("a module is missing"));
        }
        Ok(())
    }

    /// Runs a shell command in the guest. Both its output streams come back as `stdout`.
    ///
    /// What is to go on in the background must not hold the console: send its output elsewhere.
    pub fn run_within(&mut self, command: &str, limit: Duration) -> Result<Output> {
        self.commands += 1;
        let end = format!("@@{} ", self.commands);
        let start = self.qemu.stdout_len();
        self.qemu.write(&format!(
            "{} {}\n",
            self.commands,
            command.replace('\n', "; ")
        ))?;
        let find = |text: &str| {
            let (output, rest) = text.split_once(&end)?;
            let (code, _) = rest.split_once('\n')?;
            let code = code.trim().parse().ok();
            Some(Output {
                code,
                stdout: output.replace('\r', ""),
                stderr: String::new(),
            })
        };
        self.qemu
            .wait_stdout(start, limit, &format!("answer to `{command}`"), find)
    }

    /// Runs a shell command in the guest for at most two minutes.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_within(command, COMMAND_LIMIT)
    }

    /// Runs a shell command in the guest that must succeed; returns its output.
    pub fn ok(&mut self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        match output.code {
            Some(0) => Ok(output.stdout),
            code => {
                let (name, text) = (&self.name, output.text());
                Err(Error::new(format!(
                    "guest {name}: `{command}` ended with {code:?}: {text}"
                )))
            }
        }
    }

    /// Gives its card `device` an address with prefix length and brings it up.
    pub fn address(&mut self, device: &str, address: &str) -> Result<()> {
        self.ok(&format!(
            "ip addr add {address} dev {device} && ip link set {device} up"
        ))?;
        Ok(())
    }

    /// Migrates the guest, which shall have a monitor, to a new QEMU with `nics`, which shall be as
    /// the guest's were but for their sockets. `channel` is the path of a socket for the state.
    pub fn migrate(self, nics: &[Nic], channel: &Path) -> Result<(Self, Migration)> {
        let uri = format!("unix:{}", channel.display());
        let incoming = Machine::default().option(&format!("-incoming {uri}"));
        let mut target = Self::start_on(&format!("{}, moved", self.name), nics, &incoming)?;
        target.commands = self.commands;
        wait_until(BOOT_LIMIT, "a QEMU to migrate to", || {
            if target.qemu.ended()?.is_some() {
                return Err(target.qemu.error("has ended"));
            }
            Ok(channel.exists().then_some(()))
        })?;
        let mut monitor = self.qmp()?;
        let parameters = json!({ "max-bandwidth": 1_000_000_000u64, "downtime-limit": 300 });
        monitor.execute("migrate-set-parameters", &parameters)?;
        monitor.execute("migrate", &json!({ "uri": uri }))?;
        let end = wait_until(MIGRATION_LIMIT, "the end of a migration", || {
            let state = monitor.execute("query-migrate", &json!({}))?;
            match state["status"].as_str() {
                Some("completed") => Ok(Some(state)),
                Some("failed" | "cancelled") => Err(Error::new(state.to_string())),
                _ => Ok(None),
            }
        })?;
        let number = |name: &str| end[name].as_u64().map(Duration::from_millis);
        let (downtime, total) = (number("downtime"), number("total-time"));
        let missing = || Error::new(format!("no times in {end}"));
        let migration = Migration {
            downtime: downtime.ok_or_else(missing)?,
            total: total.ok_or_else(missing)?,
        };
        Ok((target, migration))
    }

    fn qmp(&self) -> Result<Monitor> {
        let none = || Error::new("the machine has no monitor");
        Monitor::connect(self.monitor.as_ref().ok_or_else(none)?)
    }

    /// Gives QEMU a command of its human monitor; returns what it says. Nothing, mostly, is good.
    pub fn monitor(&self, command: &str) -> Result<String> {
        let line = json!({ "command-line": command });
        let said = self.qmp()?.execute("human-monitor-command", &line)?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// Whether QEMU still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.qemu.ended()?.is_none())
    }

    /// Kills QEMU by SIGKILL, as the host's out-of-memory killer would.
    pub fn kill(mut self) {
        self.qemu.kill();
    }
}

/// Starts QEMU with a guest's options.
fn launch(name: &str, options: &[String], kernel_line: Option<&str>) -> Result<Process> {
    let mut qemu = program("qemu-system-x86_64");
    qemu.args(MACHINE.split(' '));
    if let Some(kernel_line) = kernel_line {
        let files = BootFiles::new()?;
        qemu.arg("-kernel").arg(files.kernel);
        qemu.arg("-initrd").arg(files.initramfs);
        qemu.args(["-append", kernel_line]);
    }
    qemu.args(options);
    Process::start(&format!("guest {name}"), qemu)
}
