//! Linux guests under QEMU, attached to a running chainplane.

use std::collections::BTreeSet;

use chainplane_tests::{Chainplane, Guest, Nic, Result, Workspace};

use crate::{GUEST, Test};

pub const TESTS: &[Test] = &[
    Test {
        name: "guests::through_all_four_functions",
        needs: &GUEST,
        run: through_all_four_functions,
    },
    Test {
        name: "guests::attached_in_other_ways",
        needs: &GUEST,
        run: attached_in_other_ways,
    },
    Test {
        name: "guests::packed_rings",
        needs: &GUEST,
        run: packed_rings,
    },
    Test {
        name: "guests::attach_and_restart",
        needs: &GUEST,
        run: attach_and_restart,
    },
    Test {
        name: "guests::one_killed_harms_no_other",
        needs: &GUEST,
        run: one_killed_harms_no_other,
    },
];

/// All four functions between the ports `client`, outside, and `web-a` and `web-b`, two servers of one service.
pub const FOUR_FUNCTIONS: &str = r#"functions:
  edge:
    firewall:
      default: { outbound: allow, inbound: drop }
      rules:
        - { allow: tcp, direction: inbound, to: 203.0.113.10, ports: 80 }
        - { allow: tcp, direction: inbound, to: 203.0.113.2, ports: 5201 }
        - { drop: tcp, direction: outbound, ports: 25 }
  frontend:
    load-balancer: { address: "203.0.113.10:80/tcp", backends: [{ address: 10.0.1.11 }, { address: 10.0.2.11 }] }
  egress:
    nat:
      pool: 203.0.113.2
      inside: [10.0.0.0/8]
      forwards: [{ protocol: tcp, port: 5201, to: "10.0.1.11:5201" }]
  core:
    router:
      interfaces:
        a: { address: 10.0.1.1/24 }
        b: { address: 10.0.2.1/24 }
        wan: { address: 198.51.100.2/30 }
      routes: [{ to: 0.0.0.0/0, via: 198.51.100.1 }]
chains:
  web-a: [web-a, core.a]
  web-b: [web-b, core.b]
  wan: [core.wan, frontend, egress, edge, client]
"#;

/// Gives `guest` an address on its first card and a default route.
fn configure(guest: &mut Guest, address: &str, gateway: &str) -> Result<()> {
    guest.wait_booted()?;
    guest.address("eth0", address)?;
    guest.ok(&format!("ip route add default via {gateway}"))?;
    Ok(())
}

/// One TCP transfer of a few seconds from `client` to the server at `address`, or back.
fn iperf(client: &mut Guest, address: &str, options: &str) -> Result<()> {
    client.ok(&format!(
        "iperf3 --client {address} --time 4 --connect-timeout 20000 {options}"
    ))?;
    Ok(())
}

/// Asserts that the driver has negotiated checksum offload and TSO.
fn assert_offloads(guest: &mut Guest) -> Result<()> {
    let features = guest.ok("ethtool -k eth0")?;
    for feature in [
        "rx-checksumming",
        "tx-checksumming",
        "tcp-segmentation-offload",
    ] {
        let on = features
            .lines()
            .any(|line| line.trim().starts_with(&format!("{feature}: on")));
        assert!(on, "{feature} is off:\n{features}");
    }
    Ok(())
}

/// The mean length of the packets that the guest's card has received since `before`, in bytes, and its
/// counters now.
fn mean_length(guest: &mut Guest, before: (u64, u64)) -> Result<(u64, (u64, u64))> {
    let mut count = |name: &str| -> Result<u64> {
        let text = guest.ok(&format!("cat /sys/class/net/eth0/statistics/{name}"))?;
        Ok(text.trim().parse().unwrap_or(0))
    };
    let now = (count("rx_bytes")?, count("rx_packets")?);
    Ok(((now.0 - before.0) / (now.1 - before.1).max(1), now))
}

/// Asserts that most large frames went from guest to guest in one copy.
fn assert_payloads_stayed(chainplane: &Chainplane) -> Result<()> {
    let counters = chainplane.show()?["workers"][0]["counters"].take();
    let [lent, fetched] = ["payloads-lent", "payloads-fetched"]
        .map(|name| counters[name].as_u64().unwrap_or_default());
    assert!(
        lent > 1000 && fetched * 10 < lent,
        "{lent} payloads stayed with their senders, {fetched} of them not to the end"
    );
    Ok(())
}

fn through_all_four_functions() -> Result<()> {
    let files = Workspace::new()?;
    let ports = r"
version: 1
workers: [{ idle: adaptive }]
ports:
  client: { vhost-user: { socket: client.sock } }
  web-a: { vhost-user: { socket: web-a.sock } }
  web-b: { embedded-guest: { address: 10.0.2.11/24, gateway: 10.0.2.1, serve: [80] } }
";
    let chainplane = Chainplane::start(&files, None, &format!("{ports}{FOUR_FUNCTIONS}"))?;
    let mut client = Guest::start(
        "client",
        &[Nic::new(files.path("client.sock"), "52:54:00:00:00:01")],
    )?;
    let mut web = Guest::start(
        "web-a",
        &[Nic::new(files.path("web-a.sock"), "52:54:00:00:00:02")],
    )?;
    configure(&mut client, "198.51.100.1/30", "198.51.100.2")?;
    configure(&mut web, "10.0.1.11/24", "10.0.1.1")?;
    assert_offloads(&mut client)?;
    assert_offloads(&mut web)?;

    // From inside to outside, through the NAT.
    web.ok("ping -c 3 -W 20 10.0.1.1")?;
    web.ok("ping -c 3 -W 20 198.51.100.1")?;
    client.ok("iperf3 --server --daemon --logfile /tmp/iperf3.log")?;
    let before = mean_length(&mut client, (0, 0))?.1;
    iperf(&mut web, "198.51.100.1", "")?;
    iperf(&mut web, "198.51.100.1", "--reverse")?;
    let log = client.ok("cat /tmp/iperf3.log")?;
    assert!(
        log.contains("Accepted connection from 203.0.113.2"),
        "the pool's address is not seen:\n{log}"
    );
    let (length, _) = mean_length(&mut client, before)?;
    assert!(
        length > 3000,
        "mean length of received packets: {length} bytes"
    );

    // From outside to inside, through the port forward.
    web.ok("iperf3 --server --daemon")?;
    iperf(&mut client, "203.0.113.2", "")?;
    iperf(&mut client, "203.0.113.2", "--reverse")?;
    assert_payloads_stayed(&chainplane)?;

    // Denied by the default, and by a rule.
    let unasked = client.run("ping -c 2 -W 2 10.0.1.11")?;
    assert_ne!(
        unasked.code,
        Some(0),
        "an unasked ping from outside is answered"
    );
    client.ok("nc -ll -p 25 -e true </dev/null >/dev/null 2>&1 &")?;
    let mail = web.run("nc -w 3 198.51.100.1 25 </dev/null")?;
    assert_ne!(mail.code, Some(0), "a connection to port 25 gets through");

    assert!(
        chainplane.drops("functions", "edge")? >= 2,
        "the firewall has counted no drop"
    );

    // Both servers of the load balancer, of which one is embedded.
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
    chainplane.stop()
}

/// Two pairs of queues on one side; on the other a guest that listens for us, whose card has neither mergeable
/// buffers nor offloads, so that large segments are cut on the way.
fn attached_in_other_ways() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        None,
        r"
version: 1
workers: [{ idle: adaptive }]
ports:
  one: { vhost-user: { socket: one.sock, queues: 2 } }
  two: { vhost-user: { socket: two.sock, role: client } }
functions:
  filter:
    firewall: { default: { outbound: allow, inbound: drop } }
chains:
  only: [one, filter, two]
",
    )?;
    let plain =
        "mrg_rxbuf=off,csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ufo=off";
    let first = Nic::new(files.path("one.sock"), "52:54:00:00:00:01").queues(2);
    let second = Nic::new(files.path("two.sock"), "52:54:00:00:00:02");
    let mut one = Guest::start("one", &[first])?;
    let mut two = Guest::start("two", &[second.listening().device(plain)])?;
    one.wait_booted()?;
    two.wait_booted()?;
    one.address("eth0", "10.0.0.1/24")?;
    two.address("eth0", "10.0.0.2/24")?;
    assert_offloads(&mut one)?;
    one.ok("ethtool -L eth0 combined 2")?;
    one.ok("ping -c 3 -W 20 10.0.0.2")?;
    two.ok("iperf3 --server --daemon")?;
    iperf(&mut one, "10.0.0.2", "--parallel 4")?;
    iperf(&mut one, "10.0.0.2", "--parallel 4 --reverse")?;
    chainplane.assert_conserved()?;
    chainplane.stop()
}

/// Linux drives packed rings, with several queues and the longest rings of QEMU on one side and without mergeable
/// buffers on the other; its driver comes and goes on the same connection.
fn packed_rings() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        None,
        r"
version: 1
workers: [{ idle: adaptive }]
ports:
  one: { vhost-user: { socket: one.sock, queues: 2 } }
  two: { vhost-user: { socket: two.sock } }
chains:
  only: [one, two]
",
    )?;
    let long = "packed=on,rx_queue_size=1024,tx_queue_size=1024";
    let first = Nic::new(files.path("one.sock"), "52:54:00:00:00:01").queues(2);
    let second = Nic::new(files.path("two.sock"), "52:54:00:00:00:02");
    let mut one = Guest::start("one", &[first.device(long)])?;
    let mut two = Guest::start("two", &[second.device("packed=on,mrg_rxbuf=off")])?;
    one.wait_booted()?;
    two.wait_booted()?;
    one.address("eth0", "10.0.0.1/24")?;
    two.address("eth0", "10.0.0.2/24")?;
    for port in ["one", "two"] {
        let report = chainplane.report("ports", port)?;
        let features = report["negotiated"]["features"].as_array().cloned();
        assert!(
            features.is_some_and(|all| all.iter().any(|f| f == "ring-packed")),
            "{report}"
        );
    }
    one.ok("ethtool -L eth0 combined 2")?;
    for _ in 0..2 {
        one.ok("ping -c 3 -W 20 10.0.0.2")?;
        two.ok("iperf3 --server --daemon --one-off")?;
        iperf(&mut one, "10.0.0.2", "--parallel 4")?;
        two.ok("iperf3 --server --daemon --one-off")?;
        iperf(&mut one, "10.0.0.2", "--parallel 4 --reverse")?;
        // The driver lets the device go and takes it up again.
        let bound = "/sys/bus/virtio/drivers/virtio_net";
        two.ok(&format!(
            "echo virtio0 >{bound}/unbind; sleep 1; echo virtio0 >{bound}/bind"
        ))?;
        two.address("eth0", "10.0.0.2/24")?;
    }
    one.ok("ping -c 3 -W 20 10.0.0.2")?;
    chainplane.assert_conserved()?;
    chainplane.stop()
}

/// Guests start with the options that `chainplane attach` prints, and come back by themselves when chainplane is
/// started anew.
fn attach_and_restart() -> Result<()> {
    let yaml = r"
version: 1
workers: [{ idle: adaptive }]
ports:
  one: { vhost-user: { socket: one.sock } }
  two: { vhost-user: { socket: two.sock, queues: 2 } }
chains:
  only: [one, two]
";
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(&files, None, yaml)?;
    let mut one = Guest::attached("one", &Chainplane::attach(&files, "one")?)?;
    let mut two = Guest::attached("two", &Chainplane::attach(&files, "two")?)?;
    one.wait_booted()?;
    two.wait_booted()?;
    one.address("eth0", "10.0.0.1/24")?;
    two.address("eth0", "10.0.0.2/24")?;
    one.ok("ping -c 3 -W 20 10.0.0.2")?;
    chainplane.stop()?;
    let cut = one.run("ping -c 1 -W 1 10.0.0.2")?;
    assert_ne!(cut.code, Some(0), "there is an answer while nothing runs");

    let chainplane = Chainplane::start(&files, None, yaml)?;
    one.ok("for i in $(seq 60); do ping -c 1 -W 1 10.0.0.2 && exit 0; done; exit 1")?;
    two.ok("iperf3 --server --daemon")?;
    iperf(&mut one, "10.0.0.2", "")?;
    chainplane.stop()
}

fn one_killed_harms_no_other() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        None,
        r"
version: 1
workers: [{ idle: adaptive }]
ports:
  one: { vhost-user: { socket: one.sock } }
  two: { vhost-user: { socket: two.sock } }
  three: { vhost-user: { socket: three.sock } }
functions:
  core:
    router:
      interfaces:
        one: { address: 10.0.1.1/24 }
        two: { address: 10.0.2.1/24 }
        three: { address: 10.0.3.1/24 }
chains:
  one: [one, core.one]
  two: [two, core.two]
  three: [three, core.three]
",
    )?;
    let start = |name: &str, mac: &str| {
        Guest::start(name, &[Nic::new(files.path(&format!("{name}.sock")), mac)])
    };
    let mut one = start("one", "52:54:00:00:00:01")?;
    let mut two = start("two", "52:54:00:00:00:02")?;
    let mut three = start("three", "52:54:00:00:00:03")?;
    configure(&mut one, "10.0.1.2/24", "10.0.1.1")?;
    configure(&mut two, "10.0.2.2/24", "10.0.2.1")?;
    configure(&mut three, "10.0.3.2/24", "10.0.3.1")?;

    // The second guest serves both others; the third dies while it sends.
    two.ok("iperf3 --server --daemon")?;
    two.ok("iperf3 --server --daemon --port 5202")?;
    three.ok("ping -c 2 -W 20 10.0.2.2")?;
    three.ok("iperf3 --client 10.0.2.2 --time 600 >/dev/null 2>&1 &")?;
    one.ok("ping -c 2 -W 20 10.0.3.2")?;
    one.ok(
        "(iperf3 --client 10.0.2.2 --port 5202 --time 10; echo ended with $?) >/tmp/log 2>&1 &",
    )?;
    // A ping that comes back shows that both transfers have had time to start.
    three.ok("ping -c 3 -W 20 10.0.2.2")?;
    three.kill();
    let ended = "until grep -q 'ended with' /tmp/log; do sleep 1; done; cat /tmp/log";
    let log = one.ok(ended)?;
    assert!(
        log.contains("ended with 0"),
        "the transfer between the other two broke:\n{log}"
    );
    two.ok("ping -c 3 -W 20 10.0.1.2")?;

    // A new one in its place, with another card.
    let mut three = start("three", "52:54:00:00:00:33")?;
    configure(&mut three, "10.0.3.2/24", "10.0.3.1")?;
    three.ok("ping -c 3 -W 20 10.0.1.2")?;
    one.ok("ping -c 3 -W 20 10.0.3.2")?;
    chainplane.assert_conserved()?;
    chainplane.stop()
}
