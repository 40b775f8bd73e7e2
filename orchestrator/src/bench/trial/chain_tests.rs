//! Configurations, started and measured.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::bench::endpoint::VhostOptions;
use crate::bench::traffic::{IpVersions, Sizes, Traffic, Transports};
use crate::spec::{self, Environment, Model};

fn model(text: &str) -> Model {
    let environment = Environment {
        cores: vec![0, 1],
        socket_directory: "/run/chainplane".into(),
    };
    spec::parse(text, Path::new("test.yaml"), &environment)
        .unwrap_or_else(|report| panic!("{}", report.render(false)))
}

fn start(text: &str, between: Option<[&str; 2]>) -> Result<Chain, BenchError> {
    let options = ChainOptions {
        between: between.map(|names| names.map(str::to_owned)),
        guests: VhostOptions {
            ring: 256,
            ..VhostOptions::default()
        },
        generator: Some(GeneratorOptions {
            core: None,
            polite: true,
        }),
    };
    Chain::start(model(text), &options, &Silent)
}

/// Traffic that fits a chain.
fn traffic(chain: &Chain) -> Traffic {
    let derived = chain.derived().clone();
    Traffic {
        sizes: Sizes::Fixed(128),
        flows: 40,
        ip: derived.ip,
        transport: derived.transport,
        sides: derived.sides,
        ..Traffic::default()
    }
}

fn measure(chain: &mut Chain, traffic: &Traffic) {
    chain
        .set_traffic(traffic)
        .unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
    let load = Load {
        rate: Rate::PacketsPerSecond(5000.0),
        duration: Duration::from_millis(200),
        burst: None,
    };
    // A busy machine can keep the chain from its processor for longer than its rings last; that shows as loss, and
    // then the trial counts no more than one with gaps does. Nothing else may ever be wrong.
    for _ in 0..5 {
        let result = chain
            .trial(&load, &Silent)
            .unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
        for direction in &result.directions {
            let Direction {
                mistranslated,
                unexpected,
                corrupted,
                duplicated,
                ..
            } = direction;
            let wrong = mistranslated + unexpected + corrupted + duplicated + direction.reordered;
            assert_eq!(wrong, 0, "{direction:?}");
            assert_eq!(direction.offered, 1000);
        }
        let cycles = result.cycles_per_packet;
        assert!(cycles.is_some_and(|cycles| cycles > 10.0), "{cycles:?}");
        if result
            .directions
            .iter()
            .all(|direction| direction.received == 1000)
        {
            return;
        }
        let what = (&result.directions, result.noise);
        eprintln!("not all came, tried again: {what:?}");
    }
    panic!("in no trial all packets came");
}

fn connect(chain: &mut Chain) -> StatefulResult {
    let load = StatefulLoad {
        pace: Pace::ConnectionsPerSecond(500.0),
        duration: Duration::from_millis(200),
        transactions: 2,
        request: 64,
        response: 20_000,
    };
    let result = chain.stateful(&load, &Silent).unwrap();
    assert_eq!(
        (result.failed, result.completed),
        (0, result.attempted),
        "{result:?}"
    );
    result
}

const PLAIN: &str = "
version: 1
ports: { a: { tap: { interface: none0 } }, b: { af-packet: { interface: none1 } } }
chains: { c: [a, b] }
";

#[test]
fn ports_of_any_kind_are_measured_as_guests() {
    let mut chain = start(PLAIN, None).unwrap();
    let description = chain.describe();
    assert!(
        description.endpoints[0].contains("in place of tap"),
        "{description:?}"
    );
    let mut plain = traffic(&chain);
    measure(&mut chain, &plain);
    plain.ip = IpVersions::Mixed;
    plain.transport = Transports::Mixed;
    measure(&mut chain, &plain);
    assert_eq!(chain.length(), 0);
}

const NAT: &str = "
version: 1
ports: { in: { vhost-user: { socket: in.sock } }, out: { vhost-user: { socket: out.sock } } }
functions:
  guard: { firewall: { default: { outbound: allow, inbound: drop } } }
  egress: { nat: { pool: 203.0.113.2, inside: [10.0.0.0/8] } }
chains: { c: [in, guard, egress, out] }
";

#[test]
fn answers_of_a_nat_are_sent_to_it_and_checked() {
    let mut chain = start(NAT, None).unwrap();
    assert_eq!(chain.length(), 2);
    for transport in [Transports::Udp, Transports::Tcp] {
        let traffic = Traffic {
            transport,
            ..traffic(&chain)
        };
        assert_eq!(traffic.sides[0].v4.octets()[0], 10);
        measure(&mut chain, &traffic);
    }
    let new = Traffic {
        new_flows: 500.0,
        ..traffic(&chain)
    };
    measure(&mut chain, &new);
    connect(&mut chain);
}

const ROUTED: &str = "
version: 1
ports:
  left: { embedded-guest: { address: 10.1.0.5/24 } }
  right: { embedded-guest: { address: 10.2.0.5/24 } }
functions:
  core:
    router:
      interfaces:
        left: { address: [10.1.0.1/24, \"fd00:1::1/64\"] }
        right: { address: [10.2.0.1/24, \"fd00:2::1/64\"] }
chains: { l: [left, core.left], r: [core.right, right] }
";

#[test]
fn a_router_is_asked_for_its_address_and_asks_for_ours() {
    let mut chain = start(ROUTED, None).unwrap();
    let v4 = traffic(&chain);
    measure(&mut chain, &v4);
    let v6 = Traffic {
        ip: IpVersions::V6,
        ..v4.clone()
    };
    measure(&mut chain, &v6);
    let both = Traffic {
        ip: IpVersions::Mixed,
        transport: Transports::Mixed,
        ..v4
    };
    measure(&mut chain, &both);
    connect(&mut chain);
}

const BALANCED: &str = "
version: 1
ports: { farm: { vhost-user: { socket: f.sock } }, world: { vhost-user: { socket: w.sock } } }
functions:
  core:
    router:
      interfaces: { farm: { address: 10.1.0.1/24 }, wan: { address: 198.51.100.2/24 } }
  front:
    load-balancer:
      address: \"203.0.113.10:80/tcp\"
      backends: [{ address: 10.1.0.11 }, { address: 10.1.0.12 }]
chains: { f: [farm, core.farm], w: [core.wan, front, world] }
";

#[test]
fn servers_behind_a_load_balancer_answer_in_its_name() {
    let mut chain = start(BALANCED, None).unwrap();
    let traffic = traffic(&chain);
    assert_eq!(traffic.transport, Transports::Tcp);
    assert_eq!(traffic.sides[1].port, 80);
    measure(&mut chain, &traffic);
    connect(&mut chain);
}

#[test]
fn a_firewall_that_denies_is_told_as_such() {
    let text = NAT.replace("outbound: allow", "outbound: drop");
    let mut chain = start(&text, None).unwrap();
    let traffic = traffic(&chain);
    chain.set_traffic(&traffic).unwrap();
    let load = Load {
        rate: Rate::Max,
        duration: Duration::from_millis(100),
        burst: None,
    };
    let error = chain.trial(&load, &Silent).unwrap_err();
    assert!(
        error.to_string().contains("nothing comes through"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("allow these flows"));
}

#[test]
fn ports_that_are_none_or_apart_are_refused() {
    let refused = |text: &str, between: [&str; 2], part: &str| {
        let error = start(text, Some(between)).err().expect(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(PLAIN, ["a", "z"], "there are a, b");
    refused(PLAIN, ["a", "a"], "two ports");
    let apart = "
version: 1
ports: { a: { tap: { interface: n0 } }, b: { tap: { interface: n1 } }, c: { tap: { interface: n2 } }, d: { tap: { interface: n3 } } }
chains: { one: [a, b], two: [c, d] }
";
    refused(apart, ["a", "c"], "no chain leads");
}

#[test]
fn every_example_that_has_two_ends_has_traffic_for_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    for name in ["demo", "two-vms-firewall", "web-farm", "tenants"] {
        let text = std::fs::read_to_string(directory.join(format!("{name}.yaml"))).unwrap();
        let model = model(&text);
        let ends = derive::ends(&model, None).unwrap();
        let derived = derive::derive(&model, ends).unwrap();
        assert!(derived.functions > 0, "{name}: {derived:?}");
    }
}

fn derived(text: &str) -> Derived {
    Derived::of(&model(text), None).unwrap_or_else(|error| panic!("{error}"))
}

/// Traffic is what a firewall on the way lets begin, from the side where it does.
#[test]
fn traffic_fits_the_firewalls_on_the_way() {
    let wall = |default: &str, rules: &str| {
        derived(&format!(
            "version: 1\nports: {{ a: {{ vhost-user: {{ socket: a }} }}, b: {{ vhost-user: {{ socket: b }} }} }}\n\
             functions: {{ wall: {{ firewall: {{ default: {default}, rules: {rules} }} }} }}\n\
             chains: {{ x: [a, wall, b] }}\n"
        ))
    };
    let both = "{ outbound: drop, inbound: drop }";
    let web = wall(
        both,
        "[{ allow: icmp }, { allow: tcp, direction: outbound, from: 10.0.0.0/24, to: 192.0.2.7, ports: [443] }]",
    );
    assert_eq!(web.transport, Transports::Tcp);
    assert_eq!(web.sides[0].v4.to_string(), "10.0.0.1");
    assert_eq!(
        (web.sides[1].v4.to_string(), web.sides[1].port),
        ("192.0.2.7".into(), 443)
    );
    // Only from outside can flows begin: that side is the first.
    let served = wall(both, "[{ allow: udp, direction: inbound, ports: 53 }]");
    assert_eq!(
        (served.transport, served.sides[1].port),
        (Transports::Udp, 53)
    );
    let open = wall("{ outbound: allow, inbound: drop }", "[]");
    assert_eq!(open.sides, Traffic::default().sides);
}
