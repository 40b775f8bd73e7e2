//! One port after another driver's: firmware, Linux, DPDK, Linux again.

use std::fs;
use std::time::Duration;

use chainplane_tests::{
    BootFiles, Chainplane, Guest, Machine, Need, Netns, Nic, Result, Testpmd, Workspace, wait_until,
};
use serde_json::Value;

use crate::{GUEST, Test};

pub const TESTS: &[Test] = &[Test {
    name: "drivers::firmware_kernel_and_dpdk",
    needs: &[
        GUEST[0],
        GUEST[1],
        GUEST[2],
        GUEST[3],
        Need::NetworkNamespaces,
        Need::Program("ip"),
        Need::Program("dpdk-testpmd"),
    ],
    run: firmware_kernel_and_dpdk,
}];

const CHAIN: &str = r"
version: 1
workers: [{ idle: adaptive }]
ports:
  vm: { vhost-user: { socket: vm.sock } }
  uplink: { tap: { interface: uplink } }
chains:
  only: [vm, uplink]
";

/// A boot server on the host's side of the tap: addresses, and the files by HTTP.
fn serve(host: &Netns, files: &Workspace) -> Result<[chainplane_tests::Process; 2]> {
    let boot = BootFiles::new()?;
    let web = files.path("web");
    fs::create_dir(&web)?;
    fs::copy(&boot.kernel, web.join("vmlinuz"))?;
    fs::copy(&boot.initramfs, web.join("initramfs"))?;
    // The kernel asks by the name that the file has on the other side.
    let script = format!(
        "#!ipxe\nkernel vmlinuz initrd=initramfs {}\ninitrd initramfs\nboot\n",
        boot.command_line
    );
    fs::write(web.join("boot.ipxe"), script)?;
    let (leases, addresses) = (files.path("leases"), files.path("udhcpd.conf"));
    fs::write(&leases, "")?;
    let lines = format!(
        "interface uplink\nstart 10.0.0.2\nend 10.0.0.2\nlease_file {}\npidfile {}\nopt subnet 255.255.255.0\n\
         boot_file http://10.0.0.1/boot.ipxe\n",
        leases.display(),
        files.path("udhcpd.pid").display()
    );
    fs::write(&addresses, lines)?;
    host.ok("ip addr add 10.0.0.1/24 dev uplink && ip link set dev uplink up")?;
    Ok([
        host.start(&format!("busybox udhcpd -f {}", addresses.display()))?,
        host.start(&format!("busybox httpd -f -p 80 -h {}", web.display()))?,
    ])
}

fn frames(chainplane: &Chainplane) -> Result<u64> {
    let report = chainplane.report("ports", "vm")?;
    Ok(report["counters"]["rx-packets"].as_u64().unwrap_or(0))
}

/// The firmware fetches kernel and file system through the chain; the kernel's driver, DPDK's and another kernel's follow.
fn firmware_kernel_and_dpdk() -> Result<()> {
    let files = Workspace::new()?;
    let host = Netns::new("host")?;
    let chainplane = Chainplane::start(&files, Some(&host), CHAIN)?;
    let _servers = serve(&host, &files)?;
    let socket = files.path("vm.sock");
    let card = [Nic::new(&socket, "52:54:00:00:00:01")];
    let mut guest = Guest::start_on("network boot", &card, &Machine::default().network_boot())?;
    guest.wait_booted()?;
    let by_firmware = frames(&chainplane)?;
    assert!(by_firmware > 1000, "{by_firmware} frames");
    guest.address("eth0", "10.0.0.2/24")?;
    guest.ok("ping -c 2 -W 20 10.0.0.1")?;
    drop(guest);
    for options in ["packed_vq=1", "mrg_rxbuf=0"] {
        let before = frames(&chainplane)?;
        let mut dpdk = Testpmd::front_end_with(&[&socket], options, 1)?;
        dpdk.ask("set fwd txonly")?;
        dpdk.ask("start")?;
        wait_until(Duration::from_mins(1), "frames of DPDK's", || {
            Ok((frames(&chainplane)? > before + 10_000).then_some(()))
        })?;
    }
    let mut guest = Guest::boot("afterwards", &card)?;
    guest.address("eth0", "10.0.0.2/24")?;
    guest.ok("ping -c 2 -W 20 10.0.0.1")?;
    let report = chainplane.report("ports", "vm")?;
    assert_eq!(report["last-error"], Value::Null);
    chainplane.stop()
}
