//! A chain of router, load balancer, NAT and firewall, as an operator would draw it: who reaches whom, and as whom.

use std::net::IpAddr;

use chainplane_dataplane::packet::Offload;
use chainplane_dataplane::sim::Sim;
use chainplane_dataplane::stats::Snapshot;

use crate::frame::{ACK, MacBytes, Quirk, SYN, Spec, Transport, answer_to, error_about, read};
use crate::host::Host;
use crate::site::{DB, GATEWAY_MAC, POOL, PORTS, Plan, UPLINK, VIRTUAL, WEB, hosts};

struct Net {
    plan: Plan,
    sim: Sim,
    hosts: Vec<Host>,
}

impl Net {
    fn new() -> Self {
        let plan = Plan::new(false);
        Self {
            sim: plan.sim(Some(64), 11),
            plan,
            hosts: hosts(),
        }
    }

    /// Sends a frame, answers the router's questions, and returns what came out of each port beside them.
    fn send(&mut self, port: usize, spec: Spec) -> [Vec<Vec<u8>>; PORTS] {
        let (bytes, offload) = spec.build();
        self.send_bytes(port, &bytes, offload)
    }

    fn send_bytes(&mut self, port: usize, bytes: &[u8], offload: Offload) -> [Vec<Vec<u8>>; PORTS] {
        self.sim.inject_with(port, bytes, offload);
        let mut out: [Vec<Vec<u8>>; PORTS] = Default::default();
        for _ in 0..3 {
            self.sim.run();
            for (port, out) in out.iter_mut().enumerate() {
                for sent in self.sim.sent(port) {
                    let asked = self.hosts.iter().filter(|host| host.port == port);
                    let mut answer = asked.filter_map(|host| host.neighbour_answer(&sent.bytes));
                    match answer.next_back() {
                        Some(answer) => self.sim.inject(port, &answer),
                        None => out.push(sent.bytes),
                    }
                }
            }
        }
        out
    }

    /// The one frame that a frame became, at the port where it was to come out.
    fn through(&mut self, from: usize, spec: Spec, to: usize) -> Vec<u8> {
        let mut out = self.send(from, spec);
        let total: usize = out.iter().map(Vec::len).sum();
        assert_eq!((total, out[to].len()), (1, 1), "{out:?}");
        out[to].remove(0)
    }

    fn nothing(&mut self, from: usize, spec: Spec) {
        let out = self.send(from, spec);
        assert!(out.iter().all(Vec::is_empty), "{out:?}");
    }

    fn snapshot(&mut self) -> Snapshot {
        self.sim.snapshot()
    }

    fn value(&mut self, function: &str, name: &str) -> u64 {
        self.snapshot()
            .function(function)
            .map_or(0, |function| function.value(name))
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn spec(macs: (MacBytes, MacBytes), ends: (&str, &str), transport: Transport) -> Spec {
    Spec {
        macs,
        src: address(ends.0),
        dst: address(ends.1),
        transport,
        payload: 5,
        quirk: Quirk::None,
        salt: 0,
    }
}

fn tcp(from: u16, to: u16, flags: u8) -> Transport {
    Transport::Tcp { from, to, flags }
}

fn ends(frame: &[u8]) -> (IpAddr, IpAddr) {
    let seen = read(frame).unwrap();
    (seen.src, seen.dst)
}

#[test]
fn a_client_fetches_from_both_servers_behind_one_address() {
    let mut net = Net::new();
    let mut served = std::collections::BTreeMap::new();
    for port in 40_000..40_030 {
        let macs = (GATEWAY_MAC, Plan::virtual_mac());
        let names = ("192.0.2.7", "203.0.113.10");
        let opening = net.through(UPLINK, spec(macs, names, tcp(port, 80, SYN)), WEB);
        let seen = read(&opening).unwrap();
        assert_eq!(seen.src, address("192.0.2.7"), "servers see the client");
        *served.entry(seen.dst).or_insert(0) += 1;
        let answer = net.through(WEB, answer_to(&opening, SYN | ACK, 0).unwrap(), UPLINK);
        assert_eq!(ends(&answer).0, IpAddr::from(VIRTUAL));
        let mut request = spec(macs, names, tcp(port, 80, ACK));
        request.payload = 0;
        net.through(UPLINK, request, WEB);
        request.payload = 300;
        for _ in 0..4 {
            let request = net.through(UPLINK, request, WEB);
            let page = net.through(WEB, answer_to(&request, ACK, 1200).unwrap(), UPLINK);
            assert_eq!(ends(&page), (IpAddr::from(VIRTUAL), address("192.0.2.7")));
        }
    }
    assert_eq!(served.len(), 2, "{served:?}");
    assert!(served.values().all(|count| *count >= 3), "{served:?}");
    assert_eq!(net.value("frontend", "connections"), 30);
    let snapshot = net.snapshot();
    let hits = snapshot
        .engine
        .iter()
        .find(|(info, _)| info.name == "flow-hits");
    assert!(hits.is_some_and(|(_, hits)| *hits >= 30 * 6), "replayed");
}

#[test]
fn a_host_inside_goes_out_under_the_pools_address() {
    let mut net = Net::new();
    let macs = (net.hosts[2].mac, net.plan.router_mac("db"));
    let names = ("10.0.2.5", "192.0.2.50");
    let opening = net.through(DB, spec(macs, names, tcp(5000, 443, SYN)), UPLINK);
    assert_eq!(ends(&opening), (IpAddr::from(POOL), address("192.0.2.50")));
    assert_eq!(opening[..6], GATEWAY_MAC);
    let mut back = answer_to(&opening, SYN | ACK, 0).unwrap();
    back.macs = (GATEWAY_MAC, Plan::pool_mac());
    let answer = net.through(UPLINK, back, DB);
    assert_eq!(ends(&answer).1, address("10.0.2.5"));
    let echo = Transport::Echo {
        id: 9,
        reply: false,
    };
    let ping = net.through(DB, spec(macs, names, echo), UPLINK);
    let mut back = answer_to(&ping, 0, 5).unwrap();
    back.macs = (GATEWAY_MAC, Plan::pool_mac());
    let pong = net.through(UPLINK, back, DB);
    assert_eq!(ends(&pong), (address("192.0.2.50"), address("10.0.2.5")));
    assert_eq!(
        read(&pong).unwrap().transport,
        Transport::Echo { id: 9, reply: true }
    );
}

#[test]
fn what_the_rules_deny_is_counted_and_goes_nowhere() {
    let mut net = Net::new();
    let outside = (GATEWAY_MAC, Plan::virtual_mac());
    let names = ("192.0.2.7", "203.0.113.10");
    net.nothing(UPLINK, spec(outside, names, tcp(1000, 22, SYN)));
    assert_eq!(net.value("edge", "denied-by-default"), 1);
    let inside = (net.hosts[0].mac, net.plan.router_mac("web"));
    let mail = spec(inside, ("10.0.1.11", "192.0.2.25"), tcp(1000, 25, SYN));
    net.nothing(WEB, mail);
    assert_eq!(net.value("edge", "denied-by-rule"), 1);
}

#[test]
fn a_forward_leads_from_the_pool_to_a_host() {
    let mut net = Net::new();
    let macs = (GATEWAY_MAC, Plan::pool_mac());
    let names = ("192.0.2.7", "203.0.113.2");
    let opening = net.through(UPLINK, spec(macs, names, tcp(7000, 2222, SYN)), DB);
    let seen = read(&opening).unwrap();
    assert_eq!(seen.dst, address("10.0.2.5"));
    assert_eq!(seen.transport, tcp(7000, 22, SYN));
    let answer = net.through(DB, answer_to(&opening, SYN | ACK, 0).unwrap(), UPLINK);
    assert_eq!(ends(&answer).0, IpAddr::from(POOL));
}

#[test]
fn subnets_talk_through_the_router_alone() {
    let mut net = Net::new();
    let macs = (net.hosts[2].mac, net.plan.router_mac("db"));
    for names in [("10.0.2.5", "10.0.1.11"), ("fd00:2::5", "fd00:1::11")] {
        let seen = net.through(DB, spec(macs, names, tcp(1, 22, SYN)), WEB);
        assert_eq!(ends(&seen), (address(names.0), address(names.1)));
        assert_eq!(seen[..6], net.hosts[0].mac);
    }
    assert_eq!(net.value("edge", "sessions-opened"), 0);
}

#[test]
fn path_mtu_discovery_reaches_a_server_through_the_whole_chain() {
    let mut net = Net::new();
    let macs = (GATEWAY_MAC, Plan::virtual_mac());
    let names = ("192.0.2.7", "203.0.113.10");
    let opening = net.through(UPLINK, spec(macs, names, tcp(40_000, 80, SYN)), WEB);
    let server = ends(&opening).1;
    let answer = net.through(WEB, answer_to(&opening, SYN | ACK, 0).unwrap(), UPLINK);
    let mut error = error_about(&answer, address("192.0.2.99"), (3, 4), 28).unwrap();
    error[..6].copy_from_slice(&Plan::virtual_mac());
    error[6..12].copy_from_slice(&GATEWAY_MAC);
    let out = net.send_bytes(UPLINK, &error, Offload::default());
    let [reached] = &out[WEB][..] else {
        panic!("{out:?}")
    };
    assert_eq!(ends(reached).1, server);
    assert_eq!(
        reached[42 + 12..42 + 16],
        reached[30..34],
        "the quote is the server's own"
    );
}

#[test]
fn the_chain_answers_for_its_own_addresses() {
    let mut net = Net::new();
    let gateway = net.hosts[3].clone();
    for (wanted, mac) in [
        (VIRTUAL, Plan::virtual_mac()),
        (POOL, Plan::pool_mac()),
        ([198, 51, 100, 2], net.plan.router_mac("wan")),
    ] {
        let request = gateway.arp_request(wanted.into());
        let out = net.send_bytes(UPLINK, &request, Offload::default());
        assert_eq!(out[UPLINK].len(), 1, "{wanted:?}");
        assert_eq!(out[UPLINK][0][22..28], mac);
    }
    let macs = (GATEWAY_MAC, Plan::virtual_mac());
    let echo = Transport::Echo {
        id: 3,
        reply: false,
    };
    let pong = net.through(
        UPLINK,
        spec(macs, ("192.0.2.7", "203.0.113.10"), echo),
        UPLINK,
    );
    assert_eq!(ends(&pong).0, IpAddr::from(VIRTUAL));
    assert_eq!(net.value("frontend", "echo-replies"), 1);
}
