//! The harness itself, held against DPDK: what fails here is no fault of ours.

use std::time::Duration;

use chainplane_tests::{
    Guest, LARGE, Need, Netns, Nginx, Nic, Result, Testpmd, Workspace, wait_until,
};

use crate::{GUEST, Test};

pub const TESTS: &[Test] = &[
    Test {
        name: "reference::two_guests_over_dpdk",
        needs: &[
            GUEST[0],
            GUEST[1],
            GUEST[2],
            GUEST[3],
            Need::Program("dpdk-testpmd"),
        ],
        run: two_guests_over_dpdk,
    },
    Test {
        name: "reference::testpmd_over_dpdk",
        needs: &[Need::Program("dpdk-testpmd")],
        run: testpmd_over_dpdk,
    },
    Test {
        name: "reference::curl_and_nginx_over_veth",
        needs: &[
            Need::NetworkNamespaces,
            Need::Program("ip"),
            Need::Program("nginx"),
            Need::Program("curl"),
        ],
        run: curl_and_nginx_over_veth,
    },
];

fn two_guests_over_dpdk() -> Result<()> {
    let files = Workspace::new()?;
    let (left, right) = (files.path("left.sock"), files.path("right.sock"));
    let mut dpdk = Testpmd::back_end(&[&left, &right])?;
    let mut one = Guest::start("one", &[Nic::new(&left, "52:54:00:00:00:01")])?;
    let mut two = Guest::boot("two", &[Nic::new(&right, "52:54:00:00:00:02")])?;
    one.wait_booted()?;
    one.address("eth0", "10.0.0.1/24")?;
    two.address("eth0", "10.0.0.2/24")?;
    one.ok("ping -c 3 -W 10 10.0.0.2")?;
    assert!(dpdk.counter(0, "RX-packets")? >= 3);
    two.ok("iperf3 --server --daemon")?;
    one.ok("iperf3 --client 10.0.0.2 --time 2 --connect-timeout 10000")?;
    Ok(())
}

fn testpmd_over_dpdk() -> Result<()> {
    let files = Workspace::new()?;
    let (left, right) = (files.path("left.sock"), files.path("right.sock"));
    let _back_end = Testpmd::back_end(&[&left, &right])?;
    let mut front_end = Testpmd::front_end(&[&left, &right])?;
    front_end.ask("start tx_first 4")?;
    for port in 0..2 {
        wait_until(Duration::from_mins(1), "packets that go round", || {
            Ok((front_end.counter(port, "RX-packets")? > 10_000).then_some(()))
        })?;
    }
    Ok(())
}

fn curl_and_nginx_over_veth() -> Result<()> {
    let (client, server) = (Netns::new("client")?, Netns::new("server")?);
    client.veth("veth0", &server, "veth0")?;
    client.ok("ip addr add 10.0.0.1/24 dev veth0")?;
    server.ok("ip addr add 10.0.0.2/24 dev veth0")?;
    let _nginx = Nginx::start(&server, "only")?;
    assert_eq!(
        client.ok("curl --silent --max-time 30 http://10.0.0.2/")?,
        "only 10.0.0.1\n"
    );
    let size = client.ok("curl --silent --max-time 60 http://10.0.0.2/large | wc -c")?;
    assert_eq!(size.trim(), LARGE.to_string());
    Ok(())
}
