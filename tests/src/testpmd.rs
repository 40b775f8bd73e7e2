//! DPDK's testpmd, as the other side of vhost-user sockets.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{Error, Process, Result, Workspace, program};

const LIMIT: Duration = Duration::from_mins(1);
const PROMPT: &str = "testpmd> ";

/// A running testpmd at its prompt.
pub struct Testpmd {
    process: Process,
    _files: Workspace,
}

impl Testpmd {
    /// A back end that listens on `sockets` and passes packets between them in pairs, without a look
    /// at them: the reference to hold ours against.
    pub fn back_end(sockets: &[&Path]) -> Result<Self> {
        let devices = sockets.iter().enumerate().map(|(index, socket)| {
            // legacy-ol-flags: without it DPDK answers for the guest's checksums itself.
            let socket = socket.display();
            format!("net_vhost{index},iface={socket},queues=1,tso=1,legacy-ol-flags=1")
        });
        Self::start(devices, &["--forward-mode=io", "--auto-start"])
    }

    /// A front end, as a guest would be, on each of the listening `sockets`. It stands still until it
    /// is told to `start`.
    pub fn front_end(sockets: &[&Path]) -> Result<Self> {
        Self::virtio_user(sockets, "", 1)
    }

    /// The same with further options of DPDK's virtio-user, such as `packed_vq=1`, and as many
    /// queue pairs.
    pub fn front_end_with(sockets: &[&Path], options: &str, queues: u16) -> Result<Self> {
        Self::virtio_user(sockets, &format!(",{options}"), queues)
    }

    /// A front end that listens on `sockets` itself, for a back end that connects.
    pub fn listening_front_end(sockets: &[&Path]) -> Result<Self> {
        for socket in sockets {
            // It does not start where the socket of one that was killed still lies.
            let _ = fs::remove_file(socket);
        }
        Self::virtio_user(sockets, ",server=1", 1)
    }

    fn virtio_user(sockets: &[&Path], options: &str, queues: u16) -> Result<Self> {
        let devices = sockets.iter().enumerate().map(|(index, socket)| {
            let (socket, mac) = (socket.display(), format!("02:00:00:00:dd:{index:02x}"));
            format!(
                "net_virtio_user{index},path={socket},queues={queues},queue_size=256,mac={mac}{options}"
            )
        });
        let (rx, tx) = (format!("--rxq={queues}"), format!("--txq={queues}"));
        Self::start(devices, &["--forward-mode=io", "--txpkts=64", &rx, &tx])
    }

    fn start(devices: impl Iterator<Item = String>, options: &[&str]) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Without stdbuf its answers would wait in its buffer until it ends.
        let mut command = program("stdbuf");
        command.args(["-oL", "dpdk-testpmd"]);
        // Both threads may run on any core: with two cores and two guests a pinned one would starve.
        command
            .args([
                "--no-huge",
                "-m",
                "256",
                "--no-pci",
                "--no-telemetry",
                "--lcores",
            ])
            .args(["0@0-1,1@0-1", "--main-lcore", "0", "--file-prefix"])
            .arg(format!("chainplane-{}-{number}", std::process::id()));
        // Its own directory for what it leaves: the default belongs to whoever ran DPDK here first.
        let files = Workspace::new()?;
        command.env("RUNTIME_DIRECTORY", files.path(""));
        for device in devices {
            command.args(["--vdev", &device]);
        }
        command
            .args(["--", "-i", "--total-num-mbufs=8192", "--nb-cores=1"])
            .args(options);
        let process = Process::start("dpdk-testpmd", command)?;
        let prompt = |text: &str| text.contains(PROMPT).then_some(());
        process.wait_stdout(0, LIMIT, "prompt", prompt)?;
        Ok(Self {
            process,
            _files: files,
        })
    }

    /// Types `command` and returns what testpmd says before its next prompt.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        let start = self.process.stdout_len();
        self.process.write(&format!("{command}\n"))?;
        // testpmd echoes the command, which ends with the first line end.
        let find = |text: &str| {
            let (_, answer) = text.split_once('\n')?;
            Some(answer.split_once(PROMPT)?.0.to_owned())
        };
        self.process
            .wait_stdout(start, LIMIT, &format!("answer to `{command}`"), find)
    }

    /// The counters of `port`, by the names that testpmd gives them, such as `RX-packets`.
    pub fn counters(&mut self, port: usize) -> Result<BTreeMap<String, u64>> {
        let text = self.ask(&format!("show port stats {port}"))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let pairs = words.windows(2).filter_map(|pair| {
            Some((pair[0].strip_suffix(':')?.to_owned(), pair[1].parse().ok()?))
        });
        Ok(pairs.collect())
    }

    /// One counter of `port`.
    pub fn counter(&mut self, port: usize, name: &str) -> Result<u64> {
        let counters = self.counters(port)?;
        let value = counters.get(name).copied();
        value.ok_or_else(|| Error::new(format!("testpmd has no counter {name}: {counters:?}")))
    }
}
