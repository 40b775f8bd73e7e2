//! What QEMU asks of the vhost-user protocol beside queues: an IOMMU, memory that is plugged, an MTU, an
//! announcement.

use std::time::Duration;

use chainplane_tests::{
    Chainplane, Guest, Machine, Nic, Process, Result, Workspace, program, wait_until,
};
use serde_json::Value;

use crate::{GUEST, Test};

pub const TESTS: &[Test] = &[
    Test {
        name: "protocol::behind_an_iommu",
        needs: &GUEST,
        run: behind_an_iommu,
    },
    Test {
        name: "protocol::guest_is_announced",
        needs: &GUEST,
        run: guest_is_announced,
    },
    Test {
        name: "protocol::memory_is_plugged_and_mtu_told",
        needs: &GUEST,
        run: memory_is_plugged_and_mtu_told,
    },
    Test {
        name: "protocol::rings_are_not_resized",
        needs: &GUEST,
        run: rings_are_not_resized,
    },
];

/// An embedded guest that answers, and a port for QEMU.
const CHAIN: &str = r"
version: 1
workers: [{ idle: adaptive }]
ports:
  vm: { vhost-user: { socket: vm.sock, mtu: 1600 } }
  web: { embedded-guest: { address: 10.0.0.1/24, serve: [80] } }
chains:
  link: [vm, web]
";

/// What the port and QEMU agreed on.
fn negotiated(chainplane: &Chainplane, group: &str) -> Result<Vec<String>> {
    let report = chainplane.report("ports", "vm")?;
    let names = report["negotiated"][group].as_array().into_iter().flatten();
    Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn has(names: &[String], wanted: &[&str]) {
    for name in wanted {
        assert!(names.iter().any(|n| n == name), "no {name} in {names:?}");
    }
}

fn no_error(chainplane: &Chainplane) -> Result<()> {
    let report = chainplane.report("ports", "vm")?;
    assert_eq!(report["last-error"], Value::Null);
    Ok(())
}

fn behind_an_iommu() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(&files, None, CHAIN)?;
    let card = Nic::new(files.path("vm.sock"), "52:54:00:00:00:01")
        .device("bus=root,iommu_platform=on,ats=on,disable-legacy=on");
    // Without a root port the card has no ATS, and no translation is ever taken back.
    let machine = Machine::default()
        .option("-device intel-iommu,intremap=off,device-iotlb=on")
        .option("-device pcie-root-port,id=root,chassis=1")
        .kernel("intel_iommu=on");
    let mut guest = Guest::start_on("iommu", &[card], &machine)?;
    guest.wait_booted()?;
    guest.address("eth0", "10.0.0.2/24")?;
    guest.ok("ping -c 5 -W 20 10.0.0.1")?;
    let fetched =
        guest.ok("(echo 'send 300000'; sleep 8) | nc 10.0.0.1 80 | head -c 300000 | wc -c")?;
    assert_eq!(fetched.trim(), "300000");
    has(&negotiated(&chainplane, "features")?, &["access-platform"]);
    let protocol = negotiated(&chainplane, "protocol-features")?;
    has(&protocol, &["backend-req", "reply-ack"]);
    // The driver goes and comes back: all translations are new.
    guest.ok("ip link set eth0 down; rmmod virtio_net && insmod /modules/virtio_net.ko")?;
    guest.address("eth0", "10.0.0.2/24")?;
    guest.ok("ping -c 5 -W 20 10.0.0.1")?;
    no_error(&chainplane)?;
    chainplane.stop()
}

/// QEMU asks for an announcement on behalf of a guest that can't make its own, here because its card lacks the
/// feature.
fn guest_is_announced() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(&files, None, CHAIN)?;
    let card = Nic::new(files.path("vm.sock"), "52:54:00:00:00:01").device("guest_announce=off");
    let machine = Machine::default().monitor(files.path("monitor.sock"));
    let mut guest = Guest::start_on("announced", &[card], &machine)?;
    guest.wait_booted()?;
    guest.ok("ip link set eth0 up")?;
    let capture = chainplane.command(&["capture", "vm"])?;
    let words: Vec<_> = capture
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    let seen = files.path("seen.pcapng");
    let mut shell = program("sh");
    shell.args([
        "-c",
        &format!("exec setpriv {} > {}", words.join(" "), seen.display()),
    ]);
    let _capturing = Process::start("chainplane capture", shell)?;
    // Broadcast, from the guest's address, reverse ARP.
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x54, 0, 0, 0, 1, 0x80, 0x35]);
    wait_until(Duration::from_mins(1), "the announcement", || {
        guest.monitor("announce_self")?;
        let bytes = std::fs::read(&seen).unwrap_or_default();
        let found = bytes.windows(frame.len()).any(|window| window == frame);
        Ok(found.then_some(()))
    })?;
    no_error(&chainplane)?;
    chainplane.stop()
}

fn memory_is_plugged_and_mtu_told() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(&files, None, CHAIN)?;
    let card = Nic::new(files.path("vm.sock"), "52:54:00:00:00:01").device("host_mtu=1600");
    let machine = Machine::default()
        .memory("256M,slots=4,maxmem=1G")
        .monitor(files.path("monitor.sock"));
    let mut guest = Guest::start_on("hotplug", &[card], &machine)?;
    guest.wait_booted()?;
    guest.address("eth0", "10.0.0.2/24")?;
    guest.ok("ping -c 2 -W 20 10.0.0.1")?;
    let protocol = negotiated(&chainplane, "protocol-features")?;
    has(
        &protocol,
        &["configure-mem-slots", "reply-ack", "rarp", "mtu", "status"],
    );
    has(
        &negotiated(&chainplane, "features")?,
        &["mtu", "guest-announce"],
    );
    let report = chainplane.report("ports", "vm")?;
    assert_eq!(report["negotiated"]["mtu"], 1600);
    assert_eq!(report["negotiated"]["device-status"], 15);
    assert_eq!(guest.ok("cat /sys/class/net/eth0/mtu")?.trim(), "1600");
    // Memory comes and goes while packets pass.
    guest.ok("ping -i 0.1 -c 100 10.0.0.1 > /tmp/ping 2>&1 &")?;
    for slot in 0..3 {
        guest.monitor(&format!(
            "object_add memory-backend-memfd,id=m{slot},size=128M,share=on"
        ))?;
        let said = guest.monitor(&format!("device_add pc-dimm,id=d{slot},memdev=m{slot}"))?;
        assert!(said.is_empty(), "{said}");
    }
    wait_until(Duration::from_mins(1), "the plugged memory", || {
        let blocks = guest.ok("ls -d /sys/devices/system/memory/memory*")?;
        Ok((blocks.split_whitespace().count() >= 5).then_some(()))
    })?;
    guest.monitor("device_del d2")?;
    guest.ok("wait; sleep 8; cat /tmp/ping")?;
    guest.ok("ping -c 2 -W 20 10.0.0.1")?;
    no_error(&chainplane)?;
    chainplane.stop()
}

/// Linux resizes its rings by resetting them one by one, which QEMU does not tell a vhost-user back end. So it must not be
/// offered, and a guest that asks for it keeps its network.
fn rings_are_not_resized() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(&files, None, CHAIN)?;
    let card = Nic::new(files.path("vm.sock"), "52:54:00:00:00:01");
    let mut guest = Guest::boot("resizer", &[card])?;
    guest.address("eth0", "10.0.0.2/24")?;
    guest.ok("ping -c 2 -W 20 10.0.0.1")?;
    let resize = guest.run("ethtool -G eth0 rx 128 tx 64")?;
    assert_ne!(resize.code, Some(0), "{}", resize.text());
    guest.ok("ping -c 2 -W 20 10.0.0.1")?;
    no_error(&chainplane)?;
    chainplane.stop()
}
