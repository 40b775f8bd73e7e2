//! Chains that several workers run: together as a crew, or in pieces.

mod hosts;

use std::path::Path;
use std::time::{Duration, Instant};

use chainplane::control::report::Report;
use chainplane::demo;
use chainplane::instance::Instance;
use chainplane::spec::{self, Environment};
use chainplane::table::Totals;
use chainplane_dataplane::stats::Snapshot;

use hosts::{Flow, Hosts};

/// How long anything may take, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_mins(1);

fn start(text: &str) -> Instance {
    let environment = Environment {
        cores: vec![0],
        socket_directory: std::env::temp_dir(),
    };
    let model = spec::parse(text, Path::new("workers.yaml"), &environment);
    let model = model.unwrap_or_else(|report| panic!("{}", report.render(false)));
    Instance::start(model).unwrap_or_else(|error| panic!("{error}"))
}

/// So many workers that wait in the same way.
fn workers(count: usize, idle: &str) -> String {
    let worker = format!("{{ idle: {idle} }}");
    format!("workers: [{}]", vec![worker; count].join(", "))
}

fn sum(snapshots: &[Snapshot], name: &str) -> u64 {
    snapshots.iter().map(|snapshot| snapshot.value(name)).sum()
}

/// Waits until nothing is on its way between workers, stops them, and holds the counters against the law.
fn stop(instance: &mut Instance) -> Vec<Snapshot> {
    let deadline = Instant::now() + PATIENCE;
    let crossing =
        |snapshots: &[Snapshot]| sum(snapshots, "handed-over") != sum(snapshots, "taken-over");
    while crossing(&instance.snapshots()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    instance.stop();
    let snapshots = instance.snapshots();
    for snapshot in &snapshots {
        snapshot
            .check_conservation()
            .unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(
        sum(&snapshots, "handed-over"),
        sum(&snapshots, "taken-over"),
        "handed over and taken over"
    );
    snapshots
}

/// The demo's guests with their single queues do all that they do with one worker.
fn demo_with(settings: &str) -> Vec<Snapshot> {
    let mut text = demo::CONFIGURATION.replace(
        "version: 1\n",
        &format!("version: 1\npackets: {{ buffers: 2048, huge-pages: never }}\n{settings}\n"),
    );
    for pause in [
        ", interval-ms: 250",
        ", interval-ms: 150",
        ", interval-ms: 100",
    ] {
        text = text.replace(pause, "");
    }
    let mut instance = start(&text);
    let mut guests = demo::attach(&instance)
        .unwrap_or_else(|error| panic!("{error}"))
        .expect("guests");
    let deadline = Instant::now() + PATIENCE;
    while !guests.are_done() && Instant::now() < deadline {
        guests.wait(Duration::from_millis(100));
    }
    guests.stop();
    let snapshots = stop(&mut instance);
    let proofs = demo::proofs(&guests, &snapshots);
    let lines: Vec<String> = proofs.iter().map(ToString::to_string).collect();
    assert!(
        proofs.iter().all(|proof| proof.held),
        "{settings}:\n{}",
        lines.join("\n")
    );
    snapshots
}

#[test]
fn guests_with_single_queues_are_served_by_a_crew() {
    for (count, idle) in [(2, "interrupt"), (3, "adaptive"), (2, "busy")] {
        let settings = format!("{}\nflows: {{ spread: always }}", workers(count, idle));
        let snapshots = demo_with(&settings);
        assert!(sum(&snapshots, "handed-over") > 100, "{settings}");
        for snapshot in &snapshots {
            assert!(snapshot.value("flow-hits") > 0, "all of them forward");
        }
    }
}

#[test]
fn a_chain_is_cut_between_workers() {
    for settings in [
        "workers: [{ idle: interrupt, runs: [edge, egress] }, { idle: interrupt, runs: [core] }]",
        "workers: [{ runs: [edge] }, { runs: [egress, frontend] }, { runs: [core] }]",
        "workers: [{ idle: busy, runs: [edge, egress, desk] }, { runs: [core] }]",
        // Every link is one between two workers.
        "workers: [{ idle: interrupt, runs: [web1, web2, desk, frontend, edge] }, { idle: interrupt, runs: [core, egress, internet] }]",
    ] {
        let snapshots = demo_with(settings);
        assert_eq!(sum(&snapshots, "handed-over"), 0, "only crews hand over");
        let patched = snapshots.iter().flat_map(|snapshot| &snapshot.ports);
        let patched: Vec<_> = patched.filter(|port| port.name.contains('~')).collect();
        assert!(patched.len() >= 2, "{settings}");
        for port in patched {
            assert!(port.value("rx-packets") > 0, "{}", port.name);
        }
    }
}

/// Four functions between two hosts of several queue pairs each.
fn chain(settings: &str, pairs: u16, directory: &Path) -> String {
    let socket = |name: &str| directory.join(name).display().to_string();
    format!(
        "
version: 1
{settings}
packets: {{ buffers: 4096, huge-pages: never }}
ports:
  inside: {{ vhost-user: {{ socket: {}, queues: {pairs} }} }}
  outside: {{ vhost-user: {{ socket: {}, queues: {pairs} }} }}
functions:
  core:
    router:
      interfaces:
        lan: {{ address: 10.0.1.1/24 }}
        wan: {{ address: 198.51.100.2/24 }}
      routes: [{{ to: 0.0.0.0/0, via: 198.51.100.1 }}]
  frontend:
    load-balancer: {{ address: \"203.0.113.10:7000/udp\", backends: [{{ address: 10.0.1.11 }}] }}
  egress:
    nat:
      pool: 203.0.113.2
      inside: [10.0.0.0/8]
      forwards: [{{ protocol: udp, port: 7001, to: \"10.0.1.11:7001\" }}]
  edge:
    firewall:
      default: {{ outbound: allow, inbound: drop }}
      rules:
        - {{ allow: udp, direction: inbound, to: 203.0.113.10, ports: 7000 }}
        - {{ allow: udp, direction: inbound, to: 203.0.113.2, ports: 7001 }}
chains:
  lan: [inside, core.lan]
  wan: [core.wan, frontend, egress, edge, outside]
",
        socket("inside.sock"),
        socket("outside.sock")
    )
}

/// Flows of each kind.
const FLOWS: u16 = 100;
/// Questions of each flow.
const ROUNDS: usize = 6;

/// Two hosts ask each other by queues at random, through all functions and in all three ways that addresses are
/// translated. Hosts use `used` of `pairs` queue pairs. Every question is answered, from where it was asked.
fn hosts_with(settings: &str, pairs: u16, used: u16) -> (Instance, Hosts, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let instance = start(&chain(settings, pairs, directory.path()));
    let mut hosts = Hosts::connect(directory.path(), used);
    hosts.find_gateways(PATIENCE);
    for round in 0..ROUNDS {
        for flow in (0..FLOWS).flat_map(Flow::all) {
            hosts.ask(flow);
        }
        let missing = hosts.wait(PATIENCE);
        assert_eq!(
            missing,
            [],
            "{settings}, {used} of {pairs} pairs, round {round}"
        );
    }
    (instance, hosts, directory)
}

fn sessions(instance: &Instance, function: &str) -> Vec<String> {
    let functions = instance.model().functions.iter();
    let mut functions = functions.map(|function| function.name.as_str());
    let index = functions
        .position(|name| name == function)
        .expect("a function");
    let (mut found, mut next) = (Vec::new(), Some(0));
    while let Some(cursor) = next {
        let page = instance.sessions(index, cursor, 7).expect("an answer");
        found.extend(page.sessions.into_iter().map(|session| session.text));
        next = page.next;
    }
    found.sort();
    found
}

/// Every connection has one session in each function that knows it, wherever its packets came in.
fn assert_one_session_each(instance: &Instance) {
    let flows = usize::from(FLOWS);
    for (function, count) in [
        ("edge", 3 * flows),
        ("frontend", flows),
        ("egress", 2 * flows),
    ] {
        let found = sessions(instance, function);
        let mut once = found.clone();
        once.dedup();
        assert_eq!(found.len(), once.len(), "{function}: a session twice");
        assert_eq!(found.len(), count, "{function}");
    }
}

#[test]
fn a_crew_answers_whatever_queue_packets_take() {
    for (count, idle, pairs) in [
        (1, "interrupt", 2),
        (2, "interrupt", 2),
        (2, "busy", 4),
        (3, "adaptive", 4),
        (4, "interrupt", 3),
    ] {
        let settings = workers(count, idle);
        let (mut instance, hosts, _directory) = hosts_with(&settings, pairs, pairs);
        assert_one_session_each(&instance);
        let report = Report::of(&instance);
        drop(hosts);
        let snapshots = stop(&mut instance);
        for (index, snapshot) in snapshots.iter().enumerate() {
            let edge = snapshot.function("edge").expect("a firewall");
            assert!(edge.sessions > 0, "worker {index} of {count} has no part");
            assert!(snapshot.value("flow-hits") > 0, "worker {index} of {count}");
        }
        assert_eq!(sum(&snapshots, "handed-over") > 0, count > 1, "{settings}");

        // What is shown is the sum.
        assert_eq!(report.ports.len(), 2);
        assert_eq!(report.workers.len(), count);
        let edge = report
            .functions
            .iter()
            .find(|function| function.name == "edge");
        let edge = edge.expect("a firewall");
        assert_eq!(edge.sessions, 3 * u64::from(FLOWS), "sessions shown");
        assert_eq!(edge.workers.len(), count);
        let packets = u64::from(3 * FLOWS) * ROUNDS as u64;
        let shown: u64 = edge.interfaces.iter().map(|i| i.in_packets).sum();
        let counted = snapshots
            .iter()
            .filter_map(|snapshot| snapshot.function("edge"));
        let counted = counted.flat_map(|edge| &edge.interfaces);
        assert_eq!(shown, counted.map(|i| i.in_packets).sum::<u64>());
        assert!(shown >= 2 * packets, "{shown} of {packets}");
        for port in &report.ports {
            assert!(port.counters["rx-packets"] >= packets, "{}", port.name);
            assert_eq!(
                port.drops.values().sum::<u64>(),
                0,
                "{}: {:?}",
                port.name,
                port.drops
            );
        }
    }
}

#[test]
fn a_driver_may_use_fewer_queues_than_there_are() {
    for used in [1, 2] {
        let (mut instance, _hosts, _directory) = hosts_with(&workers(3, "interrupt"), 4, used);
        assert_one_session_each(&instance);
        stop(&mut instance);
    }
}

#[test]
fn hosts_with_single_queues_are_served_by_a_crew_where_it_is_asked_for() {
    let settings = workers(2, "interrupt") + "\nflows: { spread: always }";
    let (mut instance, _hosts, _directory) = hosts_with(&settings, 1, 1);
    assert_one_session_each(&instance);
    let snapshots = stop(&mut instance);
    assert!(sum(&snapshots, "handed-over") > 0);
}

#[test]
fn a_crew_without_flow_tables_answers_too() {
    let settings = workers(2, "interrupt") + "\nflows: { table: 0 }";
    let (mut instance, _hosts, _directory) = hosts_with(&settings, 2, 2);
    assert_one_session_each(&instance);
    stop(&mut instance);
}

#[test]
fn a_pipeline_answers() {
    for settings in [
        "workers: [{ idle: interrupt, runs: [inside, core, frontend] }, { idle: interrupt, runs: [egress] }]",
        "workers: [{ runs: [inside] }, { runs: [core, frontend] }, { runs: [egress, edge] }]",
    ] {
        let (mut instance, _hosts, _directory) = hosts_with(settings, 2, 2);
        assert_one_session_each(&instance);
        let report = Report::of(&instance);
        let patches = report.ports.iter().filter(|port| port.kind == "patch");
        assert!(patches.count() >= 2, "{settings}");
        stop(&mut instance);
    }
}

#[test]
fn a_capture_has_the_packets_of_all_workers() {
    let (mut instance, mut hosts, _directory) = hosts_with(&workers(2, "interrupt"), 2, 2);
    let watches = instance.capture("outside").expect("watches");
    assert_eq!(watches.len(), 2);
    for flow in (0..FLOWS).flat_map(Flow::all) {
        hosts.ask(flow);
    }
    assert_eq!(hosts.wait(PATIENCE), []);
    stop(&mut instance);
    let mut counts = Vec::new();
    for (mut watch, _) in watches {
        let packets = std::iter::from_fn(|| watch.next_packet());
        counts.push(packets.count());
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), 2 * 3 * usize::from(FLOWS));
    assert!(instance.capture("nowhere").is_err());
}

/// What a file brings goes through the firewall to the other end, and then the run is over.
#[test]
fn a_run_ends_when_all_workers_have_nothing_left() {
    const PACKETS: u64 = 4 * 500;
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/sample.pcap");
    let mut by_one = None;
    for (settings, links) in [
        ("workers: [{}]", 0),
        ("workers: [{}, {}]\nflows: { spread: always }", 0),
        ("workers: [{ runs: [captured] }, { runs: [edge] }]", 1),
        (
            "workers: [{ runs: [captured] }, { runs: [edge] }, { runs: [passed] }]",
            2,
        ),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut instance = start(&format!(
            "
version: 1
{settings}
packets: {{ buffers: 4096, huge-pages: never }}
ports:
  captured: {{ pcap: {{ replay: {}, timing: fast, repeat: 500 }} }}
  passed: {{ pcap: {{ record: {} }} }}
functions:
  edge:
    firewall:
      default: {{ outbound: drop, inbound: drop }}
      rules: [{{ allow: udp, direction: outbound, ports: 53 }}, {{ allow: tcp, direction: outbound, ports: 80 }}]
chains: {{ through: [captured, edge, passed] }}
",
            sample.display(),
            directory.path().join("passed.pcap").display(),
        ));
        let deadline = Instant::now() + PATIENCE;
        while !instance.is_finished() {
            assert!(Instant::now() < deadline, "{settings}: never over");
            std::thread::sleep(Duration::from_millis(10));
        }
        let snapshots = stop(&mut instance);
        let ports = snapshots.iter().flat_map(|snapshot| &snapshot.ports);
        let of = |name: &str, counter: &str| -> u64 {
            let ports = ports.clone().filter(|port| port.name == name);
            ports.map(|port| port.value(counter)).sum()
        };
        assert_eq!(of("captured", "rx-packets"), PACKETS, "{settings}");
        let totals = Totals::of(&snapshots);
        let sent = of("passed", "tx-packets");
        assert_eq!((totals.received(), totals.sent()), (PACKETS, sent));
        let drops: Vec<_> = totals
            .drops
            .iter()
            .map(|drops| (drops.reason, drops.packets))
            .collect();
        let all = by_one.get_or_insert((sent, drops.clone()));
        assert!(sent > 0);
        assert_eq!((sent, drops), *all, "{settings}");
        assert_eq!(instance.patches().len(), links);
    }
}
