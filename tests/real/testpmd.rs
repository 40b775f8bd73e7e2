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
    Test {
        name: "testpmd::every_kind_of_ring",
        needs: NEEDS,
        run: every_kind_of_ring,
    },
];

const LIMIT: Duration = Duration::from_mins(1);

/// Whether a virtio feature is among those that a port has negotiated.
fn has(negotiated: &serde_json::Value, feature: &str) -> bool {
    let features = negotiated["features"].as_array().into_iter().flatten();
    features.into_iter().any(|name| name == feature)
}

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

/// Packed and split, in order or not, with and without mergeable buffers, with several queues: one
/// driver after the other on the same running ports.
fn every_kind_of_ring() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        None,
        r"
version: 1
ports:
  left: { vhost-user: { socket: left.sock, queues: 4 } }
  right: { vhost-user: { socket: right.sock, queues: 4 } }
chains:
  only: [left, right]
",
    )?;
    let kinds = [
        ("packed_vq=1", 1, "ring-packed"),
        ("packed_vq=1,in_order=1,mrg_rxbuf=0", 1, "in-order"),
        ("in_order=1", 1, "in-order"),
        ("packed_vq=1,in_order=1", 1, "in-order"),
        ("packed_vq=1", 4, "ring-packed"),
        ("mrg_rxbuf=0", 4, "mq"),
        ("packed_vq=1,mrg_rxbuf=0,vectorized=1", 1, "ring-packed"),
    ];
    let sockets = [files.path("left.sock"), files.path("right.sock")];
    for (options, queues, feature) in kinds {
        let mut dpdk = Testpmd::front_end_with(&[&sockets[0], &sockets[1]], options, queues)?;
        dpdk.ask("start tx_first 4")?;
        wait_for_packets(&mut dpdk, 10_000)?;
        for port in ["left", "right"] {
            let negotiated = &chainplane.report("ports", port)?["negotiated"];
            assert!(has(negotiated, feature), "{options}: {negotiated}");
            assert_eq!(negotiated["queue-pairs"], queues, "{options}");
        }
        drop(dpdk);
    }
    chainplane.stop()
}
