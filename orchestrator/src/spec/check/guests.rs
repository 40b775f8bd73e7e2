//! Embedded guests: that their addresses fit each other and their tasks can be done.

use std::collections::HashSet;
use std::net::IpAddr;

use super::{Checker, join};
use crate::diagnostic::{Diagnostic, YamlPath, suggestion};
use crate::spec::file::{EmbeddedGuest, Expected, Fetch, Port, Task};

/// Addresses, served ports and tasks that one guest has room for.
const ADDRESSES: usize = 4;
const SERVED: usize = 16;
const TASKS: usize = 64;
/// Rounds of one task.
const COUNT: std::ops::RangeInclusive<u32> = 1..=100_000;

/// Checks one guest, configured at `at`.
pub fn check(checker: &mut Checker<'_>, guest: &EmbeddedGuest, at: &YamlPath) {
    let addresses = join(at, "address");
    match guest.address.len() {
        0 => checker.value(addresses, "a guest needs an address"),
        n if n > ADDRESSES => checker.value(addresses, format!("more than {ADDRESSES} addresses")),
        _ => {}
    }
    gateways(checker, guest, at);
    served(checker, guest, at);
    let tasks = join(at, "tasks");
    if guest.tasks.len() > TASKS {
        checker.value(tasks.clone(), format!("more than {TASKS} tasks"));
    }
    for (index, task) in guest.tasks.iter().enumerate() {
        one_task(checker, guest, task, &join(&tasks, index));
    }
}

/// One gateway a family, and on a subnet of the guest.
fn gateways(checker: &mut Checker<'_>, guest: &EmbeddedGuest, at: &YamlPath) {
    for (index, gateway) in guest.gateway.iter().enumerate() {
        // The path of a lone value does not end in an index; it is located by the key then.
        let path = join(&join(at, "gateway"), index);
        let same = |other: &IpAddr| other.is_ipv4() == gateway.is_ipv4();
        if guest.gateway[..index].iter().any(same) {
            checker.value(path, "a second gateway of the same IP version");
        } else if !guest.address.iter().any(|a| a.subnet().contains(*gateway)) {
            checker.value(
                path,
                format!("gateway {gateway} is on none of the guest's subnets"),
            );
        } else if guest.address.iter().any(|a| a.address == *gateway) {
            checker.value(
                path,
                format!("gateway {gateway} is the guest's own address"),
            );
        }
    }
}

fn served(checker: &mut Checker<'_>, guest: &EmbeddedGuest, at: &YamlPath) {
    let serve = join(at, "serve");
    if guest.serve.len() > SERVED {
        checker.value(serve.clone(), format!("more than {SERVED} ports"));
    }
    let mut seen = HashSet::new();
    for (index, port) in guest.serve.iter().enumerate() {
        let path = join(&serve, index);
        if *port == 0 {
            checker.value(path, "`0` is no port to serve");
        } else if !seen.insert(port) {
            checker.value(path, format!("port {port} stands here twice"));
        }
    }
}

fn one_task(checker: &mut Checker<'_>, guest: &EmbeddedGuest, task: &Task, at: &YamlPath) {
    let (kind, whom, target, count, interval) = match task {
        Task::Ping(ping) => ("ping", "to", ping.to, ping.count, ping.interval_ms),
        Task::Fetch(fetch) => {
            let (from, count) = (fetch.from.ip(), fetch.count);
            ("fetch", "from", from, count, fetch.interval_ms)
        }
    };
    let at = join(at, kind);
    checker.range(join(&at, "count"), count, COUNT);
    checker.range(join(&at, "interval-ms"), interval, 0..=60_000);
    if let Task::Fetch(fetch) = task {
        checker.range(join(&at, "bytes"), fetch.bytes, 1..=1 << 30);
        if fetch.from.port() == 0 {
            checker.value(join(&at, "from"), "`0` is no port to fetch from");
        }
        answers(checker, fetch, &at);
    }
    let version = if target.is_ipv4() { 4 } else { 6 };
    let subnet = guest.address.iter().any(|a| a.subnet().contains(target));
    let gateway = guest
        .gateway
        .iter()
        .any(|g| g.is_ipv4() == target.is_ipv4());
    if !guest
        .address
        .iter()
        .any(|a| a.address.is_ipv4() == target.is_ipv4())
    {
        checker.value(
            join(&at, whom),
            format!("the guest has no IPv{version} address"),
        );
    } else if !subnet && !gateway {
        let message = format!("{target} is on no subnet of the guest, and it has no gateway");
        checker.value(join(&at, whom), message);
    }
}

/// What is expected of answers: that there are to be any, and that those who shall give them can.
fn answers(checker: &mut Checker<'_>, fetch: &Fetch, at: &YamlPath) {
    let denied = fetch.expect == Expected::Denied;
    if denied && fetch.seen_as.is_some() {
        checker.value(join(at, "seen-as"), "nobody sees what is denied");
    }
    if fetch
        .seen_as
        .is_some_and(|a| a.is_ipv4() != fetch.from.is_ipv4())
    {
        checker.value(
            join(at, "seen-as"),
            "not of the IP version that is fetched by",
        );
    }
    for (index, name) in fetch.served_by.iter().enumerate() {
        let path = join(&join(at, "served-by"), index);
        if denied {
            checker.value(path, "nobody serves what is denied");
            continue;
        }
        let serves = |port: &Port| matches!(port, Port::EmbeddedGuest(g) if !g.serve.is_empty());
        let ports = checker.spec.ports.iter();
        let servers = ports.filter(|(_, port)| port.as_ref().is_some_and(serves));
        let servers: Vec<&str> = servers.map(|(name, _)| name.as_str()).collect();
        if !servers.contains(&name.as_str()) {
            let help = suggestion(name, servers);
            let message = format!("`{name}` is no embedded guest that serves");
            checker.report(Diagnostic::at_value(path, message).help(help));
        }
    }
}
