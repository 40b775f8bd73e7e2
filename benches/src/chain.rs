//! Chains of so many functions between two guests, as YAML, and the frames that pass them both ways.

use std::fmt::Write;
use std::path::Path;

use chainplane::spec::{self, Environment, Model};
use etherparse::PacketBuilder;

/// How many functions stand between the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// None: port to port.
    Zero,
    /// A firewall.
    One,
    /// Firewall, NAT, load balancer and router.
    Four,
}

impl Length {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zero, Self::One, Self::Four];

    /// As a number.
    pub fn count(self) -> usize {
        match self {
            Self::Zero => 0,
            Self::One => 1,
            Self::Four => 4,
        }
    }
}

const ROUTER_IN: &str = "02:00:00:00:01:01";
const ROUTER_OUT: &str = "02:00:00:00:02:01";
const GUEST_IN: [u8; 6] = [2, 0, 0, 0, 1, 2];
const GUEST_OUT: [u8; 6] = [2, 0, 0, 0, 2, 2];

/// The longest frame that is not a large segment.
pub const LONGEST_PLAIN: usize = 1518;

/// A configuration with guests `a` (inside) and `b` (outside), and as many `idle` ones besides, whose sockets are in
/// `directory`.
///
/// # Panics
/// When the configuration is wrong, which is a mistake here.
pub fn model(length: Length, idle: usize, directory: &Path, workers: &str) -> Model {
    let sockets = directory.display();
    let mut head = format!(
        "version: 1\nworkers: [{workers}]\ncontrol: {{ socket: {sockets}/control.sock }}\nports:\n  \
         a: {{ vhost-user: {{ socket: {sockets}/a.sock }} }}\n  b: {{ vhost-user: {{ socket: {sockets}/b.sock }} }}\n"
    );
    for n in 0..idle {
        let _ = writeln!(
            head,
            "  idle{n}: {{ vhost-user: {{ socket: {sockets}/idle{n}.sock }} }}"
        );
    }
    let mut body = match length {
        Length::Zero => "chains:\n  direct: [a, b]\n".to_owned(),
        Length::One => format!("functions:\n{FIREWALL}chains:\n  one: [a, edge, b]\n"),
        Length::Four => format!(
            "functions:\n{FIREWALL}{REST}  core:\n    router:\n      interfaces:\n        \
             in: {{ address: 10.0.1.1/24, mac: \"{ROUTER_IN}\", neighbours: {{ 10.0.1.2: \"02:00:00:00:01:02\" }} }}\n        \
             out: {{ address: 198.51.100.1/24, mac: \"{ROUTER_OUT}\", neighbours: {{ 198.51.100.2: \"02:00:00:00:02:02\" }} }}\n\
             chains:\n  in: [a, core.in]\n  out: [core.out, frontend, egress, edge, b]\n"
        ),
    };
    for n in (0..idle).step_by(2) {
        let _ = writeln!(body, "  idle{n}: [idle{n}, idle{}]", n + 1);
    }
    let text = head + &body;
    let path = directory.join("bench.yaml");
    spec::parse(&text, &path, &Environment::here())
        .unwrap_or_else(|report| panic!("{}", report.render(false)))
}

const FIREWALL: &str = "  edge:\n    firewall:\n      default: { outbound: allow, inbound: drop }\n      rules:\n        \
    - { allow: tcp, direction: inbound, to: 203.0.113.10, ports: [80, 443] }\n";
const REST: &str = "  frontend:\n    load-balancer:\n      address: \"203.0.113.10:80/tcp\"\n      \
    backends: [{ address: 10.0.1.2 }]\n  egress:\n    nat: { pool: 203.0.113.2, inside: [10.0.0.0/8] }\n";

/// The frames, `size` bytes long, that guest `a` and guest `b` send: one UDP flow and its answers; a TCP connection's
/// segments where they are longer than [`LONGEST_PLAIN`].
pub fn frames(length: Length, size: usize) -> [Vec<u8>; 2] {
    let (out_port, in_port) = (40_000, 9_000);
    let (inside, pool, outside) = ([10, 0, 1, 2], [203, 0, 113, 2], [198, 51, 100, 2]);
    let router = |mac: &str| -> [u8; 6] {
        let mut bytes = mac
            .split(':')
            .map(|pair| u8::from_str_radix(pair, 16).unwrap_or_default());
        std::array::from_fn(|_| bytes.next().unwrap_or_default())
    };
    let (seen, out_mac, back_mac) = match length {
        Length::Four => (pool, router(ROUTER_IN), router(ROUTER_OUT)),
        Length::Zero | Length::One => (inside, GUEST_OUT, GUEST_IN),
    };
    let datagram = |macs: [[u8; 6]; 2], hosts: [[u8; 4]; 2], ports: [u16; 2]| {
        let builder = PacketBuilder::ethernet2(macs[0], macs[1]).ipv4(hosts[0], hosts[1], 64);
        let mut frame = Vec::with_capacity(size);
        let written = if size > LONGEST_PLAIN {
            let builder = builder.tcp(ports[0], ports[1], 1, 0xffff).ack(1);
            builder.write(&mut frame, &vec![0xa5; size - 54])
        } else {
            let builder = builder.udp(ports[0], ports[1]);
            builder.write(&mut frame, &vec![0xa5; size - 42])
        };
        written.expect("a frame in memory");
        frame
    };
    let out = datagram([GUEST_IN, out_mac], [inside, outside], [out_port, in_port]);
    let back = datagram([GUEST_OUT, back_mac], [outside, seen], [in_port, out_port]);
    [out, back]
}
