//! A guest that is migrated from one chainplane to another while it speaks to a host behind a bridge.

use std::time::Duration;

use chainplane_tests::{
    Chainplane, Guest, Machine, Need, Netns, Nic, Ovs, Result, Workspace, wait_until,
};

use crate::{GUEST, Test};

pub const TESTS: &[Test] = &[
    Test {
        name: "migration::between_two_chainplanes",
        needs: &[
            GUEST[0],
            GUEST[1],
            GUEST[2],
            GUEST[3],
            Need::NetworkNamespaces,
            Need::Program("ip"),
        ],
        run: between_two_chainplanes,
    },
    Test {
        name: "migration::between_two_ports_of_ovs",
        needs: &[
            GUEST[0],
            GUEST[1],
            GUEST[2],
            GUEST[3],
            Need::NetworkNamespaces,
            Need::Program("ip"),
            Need::Peer("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"),
        ],
        run: between_two_ports_of_ovs,
    },
];

const MAC: &str = "52:54:00:00:00:01";
/// Time between two pings in milliseconds.
const PING: u64 = 20;

/// A host with a bridge, and a peer behind it that serves iperf3.
pub struct Site {
    pub host: Netns,
    peer: Netns,
}

impl Site {
    pub fn new() -> Result<Self> {
        let (host, peer) = (Netns::new("host")?, Netns::new("peer")?);
        host.ok("ip link add bridge type bridge && ip link set bridge up")?;
        host.veth("wire", &peer, "eth0")?;
        host.ok("ip link set wire master bridge")?;
        peer.ok("ip addr add 10.0.0.1/24 dev eth0")?;
        Ok(Self { host, peer })
    }

    /// The device of the bridge behind which it has learnt the guest to be.
    fn learnt(&self) -> Result<String> {
        let table = self.host.ok("bridge fdb show br bridge dynamic")?;
        let entry = table.lines().find(|line| line.starts_with(MAC));
        let words: Vec<_> = entry.unwrap_or_default().split_whitespace().collect();
        Ok(words.get(2).copied().unwrap_or_default().to_owned())
    }
}

/// Migrates a guest from the back end at one socket to the one at the other while iperf3 runs, and
/// prints what that cost.
pub fn migrate(label: &str, files: &Workspace, site: &Site, sockets: [&str; 2]) -> Result<()> {
    let nic = |socket: &str| [Nic::new(files.path(socket), MAC)];
    let machine = Machine::default().monitor(files.path("monitor.sock"));
    let mut guest = Guest::start_on("guest", &nic(sockets[0]), &machine)?;
    guest.wait_booted()?;
    guest.address("eth0", "10.0.0.2/24")?;
    guest.ok("ping -c 2 -W 20 10.0.0.1")?;
    let _server = site.peer.start("iperf3 --server")?;
    guest.ok(
        "(iperf3 --client 10.0.0.1 --time 25 --connect-timeout 20000; echo ended with $?) >/tmp/log 2>&1 &",
    )?;
    let pings = site
        .peer
        .start(&format!("busybox ping -i 0.0{PING} 10.0.0.2"))?;
    std::thread::sleep(Duration::from_secs(2));
    let answered = || pings.stdout().matches(" bytes from ").count();
    let before = answered();
    assert!(before > 20, "{before} pings were answered");

    let (mut guest, times) = guest.migrate(&nic(sockets[1]), &files.path("state.sock"))?;
    let moved = answered();
    let again = wait_until(Duration::from_secs(20), "answers to pings", || {
        Ok((answered() > moved + 50).then_some(()))
    });
    if again.is_err() {
        println!("{:?}", guest.run("cat /proc/interrupts; ip -s link show eth0; dmesg | tail -5; cat /tmp/log; uptime; ip neigh")?.stdout);
    }
    again?;
    let log = guest.ok("until grep -q 'ended with' /tmp/log; do sleep 1; done; cat /tmp/log")?;
    assert!(log.contains("ended with 0"), "the connection broke:\n{log}");
    println!(
        "{label}: downtime {} ms by QEMU, {} ms without an answer to pings; {} ms in all",
        times.downtime.as_millis(),
        longest_gap(&pings.stdout()) * PING,
        times.total.as_millis()
    );
    Ok(())
}

/// Pings in the longest row that got no answer.
fn longest_gap(pings: &str) -> u64 {
    let sequence = |line: &str| -> Option<u64> {
        let (_, rest) = line.split_once("seq=")?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let numbers: Vec<_> = pings.lines().filter_map(sequence).collect();
    let gaps = numbers
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]));
    gaps.max().unwrap_or(0)
}

/// The monitor of a QEMU (7.2, TCG) has been seen to close in the middle of a migration, once here and once between two
/// ports of OVS-DPDK; why is not known. That is told, and tried once more; whatever else happens is a failure.
fn between_two_chainplanes() -> Result<()> {
    match migrate_once() {
        Err(error) if error.to_string().contains("Broken pipe") => {
            println!("QEMU's monitor has closed ({error}): once more");
            migrate_once()
        }
        outcome => outcome,
    }
}

fn migrate_once() -> Result<()> {
    let site = Site::new()?;
    let (left, right) = (Workspace::new()?, Workspace::new()?);
    let start = |files: &Workspace, uplink: &str| -> Result<Chainplane> {
        let socket = files.path("vm.sock");
        let chainplane = Chainplane::start(
            files,
            Some(&site.host),
            &format!(
                r"
version: 1
workers: [{{ idle: adaptive }}]
ports:
  vm: {{ vhost-user: {{ socket: {} }} }}
  uplink: {{ tap: {{ interface: {uplink} }} }}
chains:
  only: [vm, uplink]
",
                socket.display()
            ),
        )?;
        site.host
            .ok(&format!("ip link set {uplink} master bridge up"))?;
        Ok(chainplane)
    };
    let source = start(&left, "left")?;
    let target = start(&right, "right")?;
    let sockets = [left.path("vm.sock"), right.path("vm.sock")];
    let sockets = sockets
        .each_ref()
        .map(|path| path.to_str().unwrap_or_default());
    migrate("chainplane", &left, &site, sockets)?;
    assert_eq!(site.learnt()?, "right");
    source.stop()?;
    target.stop()
}

/// The same with OVS-DPDK, for comparison: no test of ours, but of what is usual.
fn between_two_ports_of_ovs() -> Result<()> {
    let site = Site::new()?;
    let files = Workspace::new()?;
    site.host.ok("ip link set wire nomaster")?;
    // The switch reads frames off the wire as they are.
    site.peer.ok("ethtool -K eth0 tx off")?;
    let ovs = Ovs::start(&site.host, &["left", "right"], "wire")?;
    let sockets = [ovs.socket("left"), ovs.socket("right")];
    let sockets = sockets
        .each_ref()
        .map(|path| path.to_str().unwrap_or_default());
    migrate("OVS-DPDK", &files, &site, sockets)
}
