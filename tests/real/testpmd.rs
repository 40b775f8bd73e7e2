//! DPDK's virtio-user as a guest that is not Linux's driver.

use std::time::Duration;

use chainplane_tests::{Chainplane, Need, Result, Testpmd, Workspace, wait_until};

use crate::Test;

const NEEDS: &[Need] = &[Need::Program("dpdk-testpmd")];

pub const TESTS: &[Test] = &[
    Test {
        name: "testpmd::packets_circulate",
        needs: NEEDS,
        run: packets_circulate,
    },
    Test {
        name: "testpmd::listens_and_comes_back",
        needs: NEEDS,
        run: listens_and_comes_back,
    },
];

const LIMIT: Duration = Duration::from_mins(1);

/// Waits until `more` further packets have come back on both ports.
fn wait_for_packets(dpdk: &mut Testpmd, more: u64) -> Result<()> {
    for port in 0..2 {
        let before = dpdk.counter(port, "RX-packets")?;
        wait_until(LIMIT, "packets that go round", || {
            Ok((dpdk.counter(port, "RX-packets")? >= before + more).then_some(()))
        })?;
    }
    Ok(())
}

fn packets_circulate() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        None,
        r"
version: 1
ports:
  left: { vhost-user: { socket: left.sock } }
  right: { vhost-user: { socket: right.sock } }
functions:
  filter:
    firewall: { default: { outbound: allow, inbound: allow } }
chains:
  only: [left, filter, right]
",
    )?;
    // The second time the guest has gone without a word and a new one stands in its place.
    for _ in 0..2 {
        let mut dpdk = Testpmd::front_end(&[&files.path("left.sock"), &files.path("right.sock")])?;
        dpdk.ask("start tx_first 4")?;
        wait_for_packets(&mut dpdk, 10_000)?;
    }
    chainplane.stop()
}

/// Here chainplane connects to a guest that listens, so it must wait for it to come, and to come back.
fn listens_and_comes_back() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        None,
        r"
version: 1
ports:
  left: { vhost-user: { socket: left.sock, role: client } }
  right: { vhost-user: { socket: right.sock, role: client } }
chains:
  only: [left, right]
",
    )?;
    for _ in 0..2 {
        let mut dpdk =
            Testpmd::listening_front_end(&[&files.path("left.sock"), &files.path("right.sock")])?;
        dpdk.ask("start tx_first 4")?;
        wait_for_packets(&mut dpdk, 10_000)?;
    }
    chainplane.stop()
}
