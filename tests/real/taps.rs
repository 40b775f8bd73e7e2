//! TCP between network namespaces through tap ports and packet sockets: curl against nginx.

use std::collections::BTreeMap;
use std::time::Duration;

use chainplane_tests::{Chainplane, Need, Netns, Nginx, Result, Workspace};

use crate::Test;

const NEEDS: &[Need] = &[
    Need::NetworkNamespaces,
    Need::File("/dev/net/tun"),
    Need::Program("ip"),
    Need::Program("nginx"),
    Need::Program("curl"),
    Need::Program("busybox"),
];

pub const TESTS: &[Test] = &[
    Test {
        name: "taps::through_a_firewall",
        needs: NEEDS,
        run: through_a_firewall,
    },
    Test {
        name: "taps::through_load_balancer_and_nat",
        needs: NEEDS,
        run: through_load_balancer_and_nat,
    },
    Test {
        name: "taps::veth_by_packet_socket",
        needs: NEEDS,
        run: veth_by_packet_socket,
    },
];

/// Gives `netns` an address on `device` and a default route.
fn configure(netns: &Netns, device: &str, address: &str, gateway: &str) -> Result<()> {
    netns.ok(&format!(
        "ip addr add {address} dev {device} && ip link set dev {device} up && ip route add default via {gateway}"
    ))?;
    Ok(())
}

fn get(client: &Netns, address: &str) -> Result<String> {
    client.ok(&format!(
        "curl --silent --show-error --max-time 60 http://{address}/"
    ))
}

/// Downloads the large file and holds what came against what nginx has, byte for byte.
fn download(client: &Netns, address: &str, nginx: &Nginx) -> Result<()> {
    let url = format!("http://{address}/large");
    let file = nginx.large();
    client.ok(&format!(
        "curl --silent --show-error --max-time 100 {url} | cmp - {}",
        file.display()
    ))?;
    Ok(())
}

/// The mean length of the packets that `device` has received, in bytes.
fn mean_length(netns: &Netns, device: &str) -> Result<u64> {
    let statistics = format!("/sys/class/net/{device}/statistics");
    let count = |name: &str| -> Result<u64> {
        let text = netns.ok(&format!("cat {statistics}/{name}"))?;
        Ok(text.trim().parse().unwrap_or(0))
    };
    Ok(count("rx_bytes")? / count("rx_packets")?.max(1))
}

fn through_a_firewall() -> Result<()> {
    let (host, client, server) = (
        Netns::new("host")?,
        Netns::new("client")?,
        Netns::new("server")?,
    );
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        Some(&host),
        r"
version: 1
ports:
  client: { tap: { interface: client } }
  server: { tap: { interface: server } }
functions:
  edge:
    firewall:
      default: { outbound: allow, inbound: drop }
      rules:
        - { allow: tcp, direction: inbound, to: 10.0.2.2, ports: 80 }
  core:
    router:
      interfaces:
        server: { address: 10.0.2.1/24 }
        client: { address: 10.0.1.1/24 }
chains:
  server: [server, core.server]
  client: [core.client, edge, client]
",
    )?;
    host.give("client", &client)?;
    host.give("server", &server)?;
    configure(&client, "client", "10.0.1.2/24", "10.0.1.1")?;
    configure(&server, "server", "10.0.2.2/24", "10.0.2.1")?;

    let nginx = Nginx::start(&server, "behind-the-firewall")?;
    assert_eq!(get(&client, "10.0.2.2")?, "behind-the-firewall 10.0.1.2\n");
    download(&client, "10.0.2.2", &nginx)?;
    // Segments that TSO has left whole arrive whole.
    let length = mean_length(&client, "client")?;
    assert!(
        length > 3000,
        "mean length of received packets: {length} bytes"
    );

    // What the default denies gets nowhere; the other direction does.
    let denied = client.run(
        "curl --silent --max-time 3 http://10.0.2.2:81/",
        Duration::from_mins(1),
    )?;
    assert_eq!(
        denied.code,
        Some(28),
        "a connection to port 81 must time out"
    );
    server.ok("busybox ping -c 3 -W 10 10.0.1.2")?;
    assert!(
        chainplane.drops("functions", "edge")? > 0,
        "the firewall has counted no drop"
    );
    chainplane.assert_conserved()?;
    chainplane.stop()
}

fn through_load_balancer_and_nat() -> Result<()> {
    let (host, client) = (Netns::new("host")?, Netns::new("client")?);
    let (a, b) = (Netns::new("a")?, Netns::new("b")?);
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        Some(&host),
        r#"
version: 1
ports:
  a: { tap: { interface: a } }
  b: { tap: { interface: b } }
  client: { tap: { interface: client } }
functions:
  frontend:
    load-balancer: { address: "203.0.113.10:80/tcp", backends: [{ address: 10.0.1.2 }, { address: 10.0.2.2 }] }
  egress:
    nat: { pool: 203.0.113.2, inside: [10.0.0.0/8] }
  core:
    router:
      interfaces:
        a: { address: 10.0.1.1/24 }
        b: { address: 10.0.2.1/24 }
        wan: { address: 198.51.100.2/30 }
      routes: [{ to: 0.0.0.0/0, via: 198.51.100.1 }]
chains:
  a: [a, core.a]
  b: [b, core.b]
  wan: [core.wan, frontend, egress, client]
"#,
    )?;
    for (device, netns) in [("a", &a), ("b", &b), ("client", &client)] {
        host.give(device, netns)?;
    }
    configure(&a, "a", "10.0.1.2/24", "10.0.1.1")?;
    configure(&b, "b", "10.0.2.2/24", "10.0.2.1")?;
    configure(&client, "client", "198.51.100.1/30", "198.51.100.2")?;

    let nginx_a = Nginx::start(&a, "a")?;
    let _nginx_b = Nginx::start(&b, "b")?;
    let mut served: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..40 {
        *served.entry(get(&client, "203.0.113.10")?).or_default() += 1;
    }
    let names: Vec<&str> = served.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["a 198.51.100.1\n", "b 198.51.100.1\n"],
        "{served:?}"
    );
    download(&client, "203.0.113.10", &nginx_a)?;

    // The other way the servers are clients, and the pool's address is all that is seen of them.
    let outside = Nginx::start(&client, "outside")?;
    for inside in [&a, &b] {
        assert_eq!(get(inside, "198.51.100.1")?, "outside 203.0.113.2\n");
        download(inside, "198.51.100.1", &outside)?;
        inside.ok("busybox ping -c 3 -W 10 198.51.100.1")?;
    }
    chainplane.assert_conserved()?;
    chainplane.stop()
}

fn veth_by_packet_socket() -> Result<()> {
    let (host, client, server) = (
        Netns::new("host")?,
        Netns::new("client")?,
        Netns::new("server")?,
    );
    host.veth("wire", &client, "eth0")?;
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        Some(&host),
        r"
version: 1
ports:
  client: { af-packet: { interface: wire } }
  server: { tap: { interface: server } }
functions:
  core:
    router:
      interfaces:
        server: { address: 10.0.2.1/24 }
        client: { address: 10.0.1.1/24 }
chains:
  server: [server, core.server]
  client: [core.client, client]
",
    )?;
    host.give("server", &server)?;
    configure(&client, "eth0", "10.0.1.2/24", "10.0.1.1")?;
    configure(&server, "server", "10.0.2.2/24", "10.0.2.1")?;
    client.ok("busybox ping -c 3 -W 10 10.0.2.2")?;
    let nginx = Nginx::start(&server, "over-the-wire")?;
    assert_eq!(get(&client, "10.0.2.2")?, "over-the-wire 10.0.1.2\n");
    download(&client, "10.0.2.2", &nginx)?;
    let outside = Nginx::start(&client, "other-side")?;
    download(&server, "10.0.1.2", &outside)?;
    chainplane.assert_conserved()?;
    chainplane.stop()
}
