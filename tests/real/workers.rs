//! Linux guests with several queue pairs, through chains that two workers run.

use std::collections::BTreeSet;

use chainplane_tests::{Chainplane, Guest, Nic, Result, Workspace};
use serde_json::Value;

use crate::guests::FOUR_FUNCTIONS;
use crate::{GUEST, Test};

pub const TESTS: &[Test] = &[
    Test {
        name: "workers::a_crew",
        needs: &GUEST,
        run: a_crew,
    },
    Test {
        name: "workers::a_pipeline",
        needs: &GUEST,
        run: a_pipeline,
    },
];

const PORTS: &str = r"
ports:
  client: { vhost-user: { socket: client.sock, queues: 2 } }
  web-a: { vhost-user: { socket: web-a.sock, queues: 4 } }
  web-b: { embedded-guest: { address: 10.0.2.11/24, gateway: 10.0.2.1, serve: [80] } }
";

/// A worker's counter.
fn counter(report: &Value, worker: usize, name: &str) -> u64 {
    report["workers"][worker]["counters"][name]
        .as_u64()
        .unwrap_or(0)
}

/// One transfer over several connections at a time.
fn iperf(client: &mut Guest, address: &str, options: &str) -> Result<()> {
    client.ok(&format!(
        "iperf3 --client {address} --time 4 --parallel 4 --connect-timeout 20000 {options}"
    ))?;
    Ok(())
}

/// Everything that guests do through the four functions; what `show` says afterwards.
fn through_all_four_functions(workers: &str) -> Result<Value> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        None,
        &format!("version: 1\n{workers}\n{PORTS}{FOUR_FUNCTIONS}"),
    )?;
    let nic = |socket: &str, mac: &str, queues| Nic::new(files.path(socket), mac).queues(queues);
    let mut client = Guest::start("client", &[nic("client.sock", "52:54:00:00:00:01", 2)])?;
    let mut web = Guest::start("web-a", &[nic("web-a.sock", "52:54:00:00:00:02", 4)])?;
    for (guest, address, gateway, queues) in [
        (&mut client, "198.51.100.1/30", "198.51.100.2", 2),
        (&mut web, "10.0.1.11/24", "10.0.1.1", 4),
    ] {
        guest.wait_booted()?;
        guest.address("eth0", address)?;
        guest.ok(&format!("ip route add default via {gateway}"))?;
        guest.ok(&format!("ethtool -L eth0 combined {queues}"))?;
    }

    // From inside to outside, through the NAT; neighbours are found, and found again.
    for _ in 0..3 {
        web.ok("ping -c 3 -W 20 10.0.1.1")?;
        web.ok("ping -c 3 -W 20 198.51.100.1")?;
        web.ok("ip neigh flush dev eth0")?;
        client.ok("ip neigh flush dev eth0")?;
    }
    client.ok("iperf3 --server --daemon --logfile /tmp/iperf3.log")?;
    iperf(&mut web, "198.51.100.1", "")?;
    iperf(&mut web, "198.51.100.1", "--reverse")?;
    let log = client.ok("cat /tmp/iperf3.log")?;
    assert!(
        log.contains("Accepted connection from 203.0.113.2"),
        "the pool's address is not seen:\n{log}"
    );

    // From outside to inside, through the port forward.
    web.ok("iperf3 --server --daemon")?;
    iperf(&mut client, "203.0.113.2", "")?;
    iperf(&mut client, "203.0.113.2", "--reverse")?;

    // Denied by the default, and by a rule.
    let unasked = client.run("ping -c 2 -W 2 10.0.1.11")?;
    assert_ne!(unasked.code, Some(0), "an unasked ping is answered");
    client.ok("nc -ll -p 25 -e true </dev/null >/dev/null 2>&1 &")?;
    let mail = web.run("nc -w 3 198.51.100.1 25 </dev/null")?;
    assert_ne!(mail.code, Some(0), "a connection to port 25 gets through");
    assert!(
        chainplane.drops("functions", "edge")? >= 2,
        "the firewall has counted no drop"
    );

    // Both servers of the load balancer, of which one is embedded and has a single queue.
    web.ok("printf '#!/bin/sh\\nread request\\necho web-a\\n' >/tmp/serve && chmod +x /tmp/serve")?;
    web.ok("nc -ll -p 80 -e /tmp/serve </dev/null >/dev/null 2>&1 &")?;
    let mut served = BTreeSet::new();
    for _ in 0..20 {
        let answer = client.ok("echo send 0 | nc -w 10 203.0.113.10 80")?;
        served.extend(answer.split_whitespace().next().map(str::to_owned));
    }
    assert_eq!(
        served,
        BTreeSet::from(["web-a".to_owned(), "web-b".to_owned()])
    );
    chainplane.assert_conserved()?;
    let report = chainplane.show()?;
    chainplane.stop()?;
    Ok(report)
}

/// Two workers share two and four queue pairs, and a guest that has but one.
fn a_crew() -> Result<()> {
    let report = through_all_four_functions("workers: [{ idle: adaptive }, { idle: adaptive }]")?;
    let parts = report["parts"].to_string();
    assert!(
        parts.contains("on workers 0 and 1, as `web-a` has 4 queue pairs"),
        "{parts}"
    );
    for worker in 0..2 {
        let hits = counter(&report, worker, "flow-hits");
        assert!(hits > 1000, "worker {worker} forwarded {hits} packets");
        assert!(
            counter(&report, worker, "taken-over") > 0,
            "worker {worker}"
        );
    }
    let total = |name| counter(&report, 0, name) + counter(&report, 1, name);
    let (handed, taken) = (total("handed-over"), total("taken-over"));
    assert!(
        handed.abs_diff(taken) < 100,
        "{handed} handed over, {taken} taken over"
    );
    for port in report["ports"].as_array().into_iter().flatten() {
        assert_eq!(port["workers"], serde_json::json!([0, 1]), "{port}");
    }
    Ok(())
}

/// One worker has the guest outside, firewall and NAT, the other one the rest.
fn a_pipeline() -> Result<()> {
    let report = through_all_four_functions(
        "workers: [{ runs: [edge, egress] }, { runs: [core, frontend] }]",
    )?;
    for (worker, name) in [(0, "egress~frontend"), (1, "frontend~egress")] {
        let ports = report["ports"].as_array().into_iter().flatten();
        let patch = ports.into_iter().find(|port| port["name"] == name);
        let patch = patch.unwrap_or_else(|| panic!("no {name} in {report:#}"));
        assert_eq!(patch["kind"], "patch");
        assert!(
            patch["counters"]["rx-packets"].as_u64() > Some(1000),
            "{patch}"
        );
        let hits = counter(&report, worker, "flow-hits");
        assert!(hits > 1000, "worker {worker} forwarded {hits} packets");
    }
    Ok(())
}
