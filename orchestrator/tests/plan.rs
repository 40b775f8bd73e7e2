//! Which workers run what, and what is said of it.

use std::path::Path;

use chainplane::plan::{Place, Plan, Source};
use chainplane::spec::{self, Environment};
use chainplane_dataplane::engine::Hop;

fn plan(text: &str) -> Plan {
    let environment = Environment {
        cores: (0..8).collect(),
        socket_directory: "/run/chainplane".into(),
    };
    let model = spec::parse(text, Path::new("test.yaml"), &environment);
    let model = model.unwrap_or_else(|report| panic!("{}", report.render(false)));
    Plan::new(&model).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// A firewall between two guests with so many queue pairs, for each of `parts`.
fn pairs_of_guests(settings: &str, parts: &[(&str, u16)]) -> String {
    let port = |port: String, queues: &u16| {
        format!("  {port}: {{ vhost-user: {{ socket: {port}.sock, queues: {queues} }} }}\n")
    };
    let lines = |line: &dyn Fn(&str, &u16) -> String| -> String {
        parts
            .iter()
            .map(|(name, queues)| line(name, queues))
            .collect()
    };
    let ports = lines(&|name, queues| {
        port(format!("{name}-in"), queues) + &port(format!("{name}-out"), queues)
    });
    let functions = lines(&|name, _| {
        format!("  {name}: {{ firewall: {{ default: {{ outbound: allow, inbound: allow }} }} }}\n")
    });
    let chains = lines(&|name, _| format!("  {name}: [{name}-in, {name}, {name}-out]\n"));
    format!("version: 1\n{settings}\nports:\n{ports}functions:\n{functions}chains:\n{chains}")
}

fn members(plan: &Plan) -> Vec<Vec<usize>> {
    plan.parts
        .iter()
        .map(|part| match &part.place {
            Place::One(worker, _) => vec![*worker],
            Place::Crew(members, _) => members.clone(),
            Place::Named(..) => panic!("nothing was named"),
        })
        .collect()
}

const FOUR: &str = "workers: [{ cores: [0, 1, 2, 3] }]";

#[test]
fn one_worker_needs_no_words() {
    let plan = plan(&pairs_of_guests("", &[("a", 4)]));
    assert_eq!(members(&plan), [[0]]);
    assert_eq!(plan.told.parts, [""; 0]);
    assert!(plan.crews.is_empty() && plan.patches.is_empty());
}

#[test]
fn single_queues_stay_together_and_parts_are_spread() {
    let plan = plan(&pairs_of_guests(FOUR, &[("a", 1), ("b", 1)]));
    assert_eq!(members(&plan), [[0], [1]]);
    assert_eq!(
        plan.told.parts,
        [
            "a-in, a-out: on worker 0, as each has a single queue",
            "b-in, b-out: on worker 1, as each has a single queue",
        ]
    );
}

#[test]
fn queue_pairs_make_a_crew_of_workers_without_anything_else_to_do() {
    let plan = plan(&pairs_of_guests(FOUR, &[("a", 1), ("b", 4), ("c", 2)]));
    assert_eq!(members(&plan), [vec![0], vec![1, 2], vec![3]]);
    assert_eq!(
        plan.told.parts,
        [
            "a-in, a-out: on worker 0, as each has a single queue",
            "b-in, b-out: on workers 1 and 2, as `b-in` has 4 queue pairs; each flow belongs to \
             one of them",
            "c-in, c-out: on worker 3, as all others have something else to do",
        ]
    );
    assert_eq!(plan.crews.len(), 1);
    let ports = |worker: usize| {
        let ports = plan.workers[worker].ports.iter();
        ports
            .map(|port| (port.source, port.link))
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(1), ports(2), "the same numbers for all members");
    assert_eq!(ports(1)[0].0, Source::Port(2));
}

#[test]
fn a_crew_has_no_more_workers_than_queue_pairs() {
    let two = plan(&pairs_of_guests(
        "workers: [{ cores: [0, 1, 2, 3, 4, 5] }]",
        &[("a", 2)],
    ));
    assert_eq!(members(&two), [[0, 1, 2, 3]]);
}

#[test]
fn who_has_parts_enough_needs_no_crew() {
    let plan = plan(&pairs_of_guests(
        "workers: [{ cores: [0, 1] }]",
        &[("a", 4), ("b", 4), ("c", 1)],
    ));
    assert_eq!(members(&plan), [[0], [1], [0]]);
}

#[test]
fn spread_says_always_and_never() {
    let always = format!("{FOUR}\nflows: {{ spread: always }}");
    let always = plan(&pairs_of_guests(&always, &[("a", 1)]));
    assert_eq!(members(&always), [[0, 1, 2, 3]]);
    assert_eq!(
        always.told.parts,
        [
            "a-in, a-out: on workers 0, 1, 2 and 3, as `flows.spread` is `always`; each flow belongs \
          to one of them"
        ]
    );
    let never = format!("{FOUR}\nflows: {{ spread: never }}");
    let never = plan(&pairs_of_guests(&never, &[("a", 8)]));
    assert_eq!(members(&never), [[0]]);
    assert_eq!(
        never.told.parts,
        ["a-in, a-out: on worker 0, as `flows.spread` is `never`"]
    );
}

#[test]
fn what_keeps_no_state_needs_no_owners() {
    let text = "
version: 1
workers: [{ cores: [0, 1] }]
ports:
  a: { vhost-user: { socket: a.sock, queues: 2 } }
  b: { vhost-user: { socket: b.sock, queues: 2 } }
functions:
  core: { router: { interfaces: { a: { address: 10.0.1.1/24 }, b: { address: 10.0.2.1/24 } } } }
chains: { a: [a, core.a], b: [core.b, b] }
";
    assert_eq!(
        plan(text).told.parts,
        ["a, b: on workers 0 and 1, as `a` has 2 queue pairs; whoever gets a packet handles it"]
    );
}

/// Guest, firewall, NAT, router, two guests; `workers` says who runs what.
fn cut(workers: &str) -> Plan {
    plan(&format!(
        "
version: 1
workers: {workers}
ports:
  client: {{ vhost-user: {{ socket: client.sock, queues: 2 }} }}
  web-a: {{ vhost-user: {{ socket: a.sock }} }}
  web-b: {{ vhost-user: {{ socket: b.sock }} }}
functions:
  edge: {{ firewall: {{ default: {{ outbound: allow, inbound: allow }} }} }}
  egress: {{ nat: {{ pool: 203.0.113.2, inside: [10.0.0.0/8] }} }}
  core:
    router:
      interfaces:
        wan: {{ address: 198.51.100.1/24 }}
        a: {{ address: 10.0.1.1/24 }}
        b: {{ address: 10.0.2.1/24 }}
chains:
  wan: [core.wan, egress, edge, client]
  a: [web-a, core.a]
  b: [web-b, core.b]
"
    ))
}

fn names(plan: &Plan, worker: usize) -> (Vec<&str>, Vec<usize>) {
    let worker = &plan.workers[worker];
    let ports = worker.ports.iter().map(|port| port.name.as_str());
    let functions = worker.functions.iter().map(|function| function.index);
    (ports.collect(), functions.collect())
}

#[test]
fn a_chain_is_cut_where_the_file_says() {
    // Functions by name: core 0, edge 1, egress 2 would be alphabetical; the model has them as the file does.
    let plan = cut("[{ runs: [client, edge] }, { runs: [core, web-a] }]");
    let (edge, egress, core) = (0, 1, 2);
    assert_eq!(plan.patches.len(), 1);
    assert_eq!(names(&plan, 0), (vec!["client", "edge~egress"], vec![edge]));
    assert_eq!(
        names(&plan, 1),
        (vec!["web-a", "web-b", "egress~edge"], vec![egress, core])
    );
    // The client's packets go to the firewall's outside, the firewall's inside leads to the patch.
    let [client, patch] = &plan.workers[0].ports[..] else {
        panic!("two ports")
    };
    assert!(
        matches!(client.link, Hop::Function(0, _)) && matches!(patch.link, Hop::Function(0, _))
    );
    assert_ne!(client.link, patch.link);
    let links = plan.workers[0].functions[0].interfaces.iter();
    let links: Vec<_> = links.map(|(name, hop)| (name.as_str(), *hop)).collect();
    assert_eq!(links, [("inside", Hop::Port(1)), ("outside", Hop::Port(0))]);
    assert_eq!(
        plan.told.parts,
        [
            "client, edge: on worker 0, as `runs` says",
            "web-a, web-b, egress, core: on worker 1, as `runs` says",
        ]
    );
    assert!(plan.crews.is_empty());
}

#[test]
fn what_is_not_named_runs_with_its_neighbour() {
    let all = cut("[{}, { runs: [core] }]");
    assert_eq!(names(&all, 0), (vec![], vec![]));
    assert_eq!(names(&all, 1).0, ["client", "web-a", "web-b"]);
    assert!(all.patches.is_empty());
    let three = cut("[{ runs: [edge] }, { runs: [web-b] }, { runs: [core] }]");
    assert_eq!(names(&three, 0).0, ["client", "edge~egress"]);
    assert_eq!(names(&three, 1).0, ["web-b", "web-b~core.b"]);
    assert_eq!(names(&three, 2).0, ["web-a", "core.b~web-b", "egress~edge"]);
}

#[test]
fn the_way_is_that_of_the_worker() {
    let plan = cut("[{ runs: [edge, egress] }, { runs: [core] }]");
    assert_eq!(
        plan.told.ways,
        [
            "from client: by flow records, as `edge` keeps state",
            "from web-a, web-b, core.wan~egress: through functions, which keep no state, without \
             records",
            "from egress~core.wan: by flow records, as `egress` keeps state",
        ]
    );
}

#[test]
fn a_guest_functions_two_sides_may_be_apart() {
    let plan = plan(
        "
version: 1
workers: [{ runs: [ids.inside, b] }, { runs: [ids.outside] }]
ports:
  a: { vhost-user: { socket: a.sock } }
  b: { vhost-user: { socket: b.sock } }
functions:
  ids:
    guest:
      inside: { vhost-user: { socket: in.sock } }
      outside: { vhost-user: { socket: out.sock } }
chains: { all: [a, ids, b] }
",
    );
    assert_eq!(names(&plan, 0).0, ["a", "b", "ids.inside", "b~ids.outside"]);
    assert_eq!(names(&plan, 1).0, ["ids.outside", "ids.outside~b"]);
}

#[test]
fn parts_without_names_go_to_workers_without_names() {
    let text = pairs_of_guests("workers: [{ runs: [a] }, {}, {}]", &[("a", 4), ("b", 2)]);
    let plan = plan(&text);
    assert_eq!(plan.parts[0].place, Place::Named(vec![0, 0], vec![0]));
    let Place::Crew(members, _) = &plan.parts[1].place else {
        panic!("{:?}", plan.parts[1])
    };
    assert_eq!(members, &[1, 2]);
}
