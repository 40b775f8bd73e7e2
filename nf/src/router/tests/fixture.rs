//! A router with three interfaces, hosts beside them, and the frames they send.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::{Blueprint, Interface};
use chainplane_dataplane::packet::Mac;
use chainplane_dataplane::sim::{Sim, SimFunction};
use chainplane_dataplane::stats::FunctionSnapshot;
use etherparse::PacketBuilder;

use crate::config::{Kind, Site};
use crate::router::Config;
use crate::router::arp::Arp;
use crate::router::ndp;

/// Interfaces are numbered in the order of their names.
pub const A: usize = 0;
pub const B: usize = 1;
pub const C: usize = 2;

pub const OWN: [Mac; 3] = [
    Mac([2, 0, 0, 0, 1, 1]),
    Mac([2, 0, 0, 0, 2, 1]),
    Mac([2, 0, 0, 0, 3, 1]),
];
/// Hosts 10.0.1.2 and `fd00:1::2` on A, 10.0.2.2 and `fd00:2::2` on B; the gateway 198.51.100.1 on C.
pub const HOST: [Mac; 3] = [
    Mac([2, 0, 0, 0, 1, 2]),
    Mac([2, 0, 0, 0, 2, 2]),
    Mac([2, 0, 0, 0, 3, 2]),
];

pub const CONFIG: &str = r#"{
    "interfaces": {
        "a": { "address": ["10.0.1.1/24", "fd00:1::1/64"], "mac": "02:00:00:00:01:01" },
        "b": { "address": ["10.0.2.1/24", "fd00:2::1/64"], "mac": "02:00:00:00:02:01", "mtu": 1400 },
        "c": { "address": "198.51.100.2/30", "mac": "02:00:00:00:03:01",
               "neighbours": { "198.51.100.1": "02:00:00:00:03:02" } }
    },
    "routes": [
        { "to": "0.0.0.0/0", "via": "198.51.100.1" },
        { "to": "10.9.0.0/16", "via": "10.0.2.2" },
        { "to": "fd00:9::/32", "via": "fd00:2::2" }
    ]
}"#;

pub fn config(text: &str) -> Config {
    serde_json::from_str(text).expect("a valid configuration")
}

pub fn blueprint(config: &Config) -> Box<dyn Blueprint> {
    let site = Site {
        name: "core".into(),
        ..Site::default()
    };
    config.compile(&site).expect("a valid configuration")
}

/// A router in a simulation, one port for each interface.
pub struct Net {
    pub sim: Sim,
}

impl Net {
    pub fn new() -> Self {
        Self::with_flows(Some(256))
    }

    pub fn with_flows(flows: Option<usize>) -> Self {
        Self::of(CONFIG, flows)
    }

    pub fn of(text: &str, flows: Option<usize>) -> Self {
        let config = config(text);
        let blueprint = blueprint(&config);
        let names: Vec<&str> = config.interfaces.keys().map(String::as_str).collect();
        let links = names
            .iter()
            .zip(0..)
            .map(|(name, port)| (*name, Hop::Port(port)));
        let function = SimFunction {
            name: "core",
            blueprint: &*blueprint,
            links: links.collect(),
        };
        let mut sim = Sim::new(flows, &[function], 7);
        for (name, interface) in names.iter().zip(0..) {
            sim.add_port(name, Hop::Function(0, Interface(interface)));
        }
        Self { sim }
    }

    /// The router knows the hosts on A and B, by both families.
    pub fn acquainted(flows: Option<usize>) -> Self {
        let mut net = Self::with_flows(flows);
        net.introduce();
        net
    }

    pub fn introduce(&mut self) {
        for port in [A, B] {
            let arp = arp_request(
                HOST[port],
                v4(10, 0, port as u8 + 1, 2),
                v4(10, 0, port as u8 + 1, 1),
            );
            self.send(port, &arp);
            let net = port as u16 + 1;
            let solicitation = ndp::solicitation((HOST[port], v6(net, 2)), v6(net, 1), None);
            self.send(port, &solicitation);
            // The router is told that packets get there and back, so that it does not ask too soon.
            let reply = arp_reply(
                HOST[port],
                v4(10, 0, port as u8 + 1, 2),
                OWN[port],
                v4(10, 0, port as u8 + 1, 1),
            );
            self.send(port, &reply);
            let advertisement =
                ndp::advertisement(HOST[port], (OWN[port], v6(net, 1)), v6(net, 2), true);
            self.send(port, &advertisement);
        }
    }

    /// Runs a frame and returns what came out, each with its port.
    pub fn send(&mut self, port: usize, frame: &[u8]) -> Vec<(usize, Vec<u8>)> {
        self.sim.inject(port, frame);
        self.sim.run();
        self.collect()
    }

    pub fn collect(&mut self) -> Vec<(usize, Vec<u8>)> {
        (0..3)
            .flat_map(|port| {
                self.sim
                    .sent(port)
                    .into_iter()
                    .map(move |frame| (port, frame.bytes))
            })
            .collect()
    }

    /// Runs a frame that has exactly one frame come out.
    #[track_caller]
    pub fn one(&mut self, port: usize, frame: &[u8]) -> (usize, Vec<u8>) {
        let mut out = self.send(port, frame);
        assert_eq!(out.len(), 1, "{out:02x?}\n{:?}", self.non_zero());
        out.remove(0)
    }

    /// Runs a frame that is dropped for this reason, without an answer.
    #[track_caller]
    pub fn dropped(&mut self, port: usize, frame: &[u8], reason: &str) {
        let before = self.value(reason);
        let out = self.send(port, frame);
        assert!(out.is_empty(), "{out:02x?}");
        assert_eq!(self.value(reason), before + 1, "{:?}", self.non_zero());
    }

    /// Moves the clock on and returns what the router sends by itself.
    pub fn wait(&mut self, seconds: u64) -> Vec<(usize, Vec<u8>)> {
        self.sim.advance(Duration::from_secs(seconds));
        self.collect()
    }

    pub fn stats(&mut self) -> FunctionSnapshot {
        self.sim
            .snapshot()
            .function("core")
            .expect("the router")
            .clone()
    }

    pub fn value(&mut self, name: &str) -> u64 {
        self.stats().value(name)
    }

    /// Every counter and drop reason that is not zero.
    pub fn non_zero(&mut self) -> Vec<(&'static str, u64)> {
        let stats = self.stats();
        let all = stats.counters.into_iter().chain(stats.drops);
        all.filter(|(_, value)| *value > 0)
            .map(|(info, value)| (info.name, value))
            .collect()
    }

    pub fn engine(&mut self, name: &str) -> u64 {
        let engine = self.sim.snapshot().engine;
        engine
            .iter()
            .find(|(info, _)| info.name == name)
            .map_or(0, |(_, value)| *value)
    }
}

pub fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

/// `fd00:net::host`.
pub fn v6(net: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, host)
}

pub fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let arp = Arp {
        request: true,
        sender_mac: mac,
        sender,
        target_mac: Mac::default(),
        target,
    };
    arp.frame(Mac::BROADCAST).to_vec()
}

pub fn arp_reply(mac: Mac, sender: Ipv4Addr, to: Mac, target: Ipv4Addr) -> Vec<u8> {
    let arp = Arp {
        request: false,
        sender_mac: mac,
        sender,
        target_mac: to,
        target,
    };
    arp.frame(to).to_vec()
}

/// What a packet is made of; the rest is filled in.
#[derive(Clone, Copy, Debug)]
pub struct Udp {
    pub mac_src: Mac,
    pub mac_dst: Mac,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ports: (u16, u16),
    pub ttl: u8,
    pub len: usize,
}

impl Udp {
    /// From the host on an interface to an address, by the router.
    pub fn from(port: usize, dst: &str) -> Self {
        let dst: IpAddr = dst.parse().expect("an address");
        let src = if dst.is_ipv4() {
            v4(10, 0, port as u8 + 1, 2).into()
        } else {
            v6(port as u16 + 1, 2).into()
        };
        Self {
            mac_src: HOST[port],
            mac_dst: OWN[port],
            src,
            dst,
            ports: (1000, 2000),
            ttl: 64,
            len: 20,
        }
    }

    fn builder(&self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let link = PacketBuilder::ethernet2(self.mac_src.0, self.mac_dst.0);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => link.ipv4(src.octets(), dst.octets(), self.ttl),
            (IpAddr::V6(src), IpAddr::V6(dst)) => link.ipv6(src.octets(), dst.octets(), self.ttl),
            _ => panic!("addresses of two families"),
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        let payload: Vec<u8> = (0..self.len).map(|index| index as u8).collect();
        let mut frame = Vec::new();
        let builder = self.builder().udp(self.ports.0, self.ports.1);
        builder.write(&mut frame, &payload).expect("a packet");
        frame
    }

    /// An echo request with the first port as identifier.
    pub fn echo(&self) -> Vec<u8> {
        let payload: Vec<u8> = (0..self.len).map(|index| index as u8).collect();
        let mut frame = Vec::new();
        if self.dst.is_ipv4() {
            let builder = self.builder().icmpv4_echo_request(self.ports.0, 1);
            builder.write(&mut frame, &payload).expect("a packet");
        } else {
            let builder = self.builder().icmpv6_echo_request(self.ports.0, 1);
            builder.write(&mut frame, &payload).expect("a packet");
        }
        frame
    }
}

/// Writes an IPv4 header field of a frame and mends the header's checksum.
pub fn patched(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    if frame[12..14] == [8, 0] {
        let end = 14 + (frame[14] & 15) as usize * 4;
        frame[24..26].fill(0);
        let sum = chainplane_dataplane::packet::checksum(&frame[14..end]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}
