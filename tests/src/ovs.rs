//! Open vSwitch with DPDK, as a peer to compare with.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, Netns, Process, Result, Workspace, program, run, wait_until};

const LIMIT: Duration = Duration::from_mins(1);
/// Debian's build of the switch with DPDK.
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

/// A running Open vSwitch with one learning bridge, whose forwarding thread polls on core 0. Needs 2 MiB huge pages.
pub struct Ovs {
    files: Workspace,
    _processes: [Process; 2],
}

impl Ovs {
    /// Starts one in `netns`: the bridge has a vhost-user port for each of `guests` and a port on the device `wire`.
    pub fn start(netns: &Netns, guests: &[&str], wire: &str) -> Result<Self> {
        let files = Workspace::new()?;
        let at = |name: &str| files.path(name).display().to_string();
        let mut create = program("ovsdb-tool");
        create.args(["create", &at("conf.db")]);
        create.arg("/usr/share/openvswitch/vswitch.ovsschema");
        run(create, LIMIT)?;
        let mut server = program("ovsdb-server");
        server.args([
            at("conf.db"),
            format!("--remote=punix:{}", at("db.sock")),
            format!("--unixctl={}", at("db.ctl")),
        ]);
        let server = Process::start("ovsdb-server", server)?;
        let database = files.path("db.sock");
        wait_until(LIMIT, "the database", || {
            Ok(database.exists().then_some(()))
        })?;
        let control = |words: &str| -> Result<String> {
            let mut command = program("ovs-vsctl");
            command.arg(format!("--db=unix:{}", at("db.sock")));
            command.arg("--timeout=30").args(words.split(' '));
            let output = run(command, LIMIT)?;
            if output.code == Some(0) {
                Ok(output.stdout)
            } else {
                Err(Error::new(format!("ovs-vsctl {words}: {}", output.text())))
            }
        };
        control("--no-wait init")?;
        control(
            "--no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:dpdk-lcore-mask=0x2 \
             other_config:pmd-cpu-mask=0x1 other_config:dpdk-socket-mem=512",
        )?;
        let mut extra = program("ovs-vsctl");
        extra.arg(format!("--db=unix:{}", at("db.sock"))).args([
            "--no-wait",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-extra=\"--in-memory --no-pci --iova-mode=va --no-telemetry\"",
        ]);
        run(extra, LIMIT)?;
        let mut switch = netns.program(SWITCH);
        for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            switch.env(name, files.path(""));
        }
        switch.args([
            format!("unix:{}", at("db.sock")),
            format!("--unixctl={}", at("switch.ctl")),
            format!("--pidfile={}", at("switch.pid")),
        ]);
        let switch = Process::start("ovs-vswitchd", switch)?;
        control("add-br br0 -- set bridge br0 datapath_type=netdev")?;
        control(&format!("add-port br0 {wire}"))?;
        for guest in guests {
            control(&format!(
                "add-port br0 {guest} -- set Interface {guest} type=dpdkvhostuser"
            ))?;
        }
        let ovs = Self {
            files,
            _processes: [switch, server],
        };
        for guest in guests {
            let socket = ovs.socket(guest);
            wait_until(LIMIT, "a port's socket", || {
                Ok(socket.exists().then_some(()))
            })?;
        }
        Ok(ovs)
    }

    /// The socket of the vhost-user port `guest`.
    pub fn socket(&self, guest: &str) -> PathBuf {
        self.files.path(guest)
    }
}
