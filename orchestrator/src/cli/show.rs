//! `chainplane show`: a running instance, in tables that fit a terminal.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;

use super::{fail, print};
use crate::control::report::{FunctionReport, Negotiated, Report, SessionReport, Values};
use crate::control::{Request, Response, client};

/// What to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// Ports: state, packets and bytes
    Ports,
    /// Functions: packets, sessions, counters of rules and backends
    Functions,
    /// Chains as drawn by `check`, and which way packets go
    Chains,
    /// Packets dropped, by place and reason
    Drops,
    /// Sessions of all functions that have any
    Sessions,
    /// Workers: polls, sleeps, flow records
    Workers,
}

/// Shows one topic, or all but sessions.
pub fn run(socket: &Path, topic: Option<Topic>, json: bool) -> Result<ExitCode, ExitCode> {
    let (response, _) = client::ask(socket, &Request::Show {}).map_err(|error| fail(&error))?;
    let Response::Report(report) = response else {
        return Err(fail("the instance gave another answer than was asked for"));
    };
    let sessions = if topic == Some(Topic::Sessions) {
        sessions(socket, &report)?
    } else {
        Vec::new()
    };
    if json {
        let text = if topic == Some(Topic::Sessions) {
            serde_json::to_string_pretty(
                &sessions
                    .into_iter()
                    .collect::<std::collections::BTreeMap<_, _>>(),
            )
        } else {
            serde_json::to_string_pretty(&report)
        };
        return print(&(text.map_err(|error| fail(&error.to_string()))? + "\n"));
    }
    let mut out = String::new();
    let wanted = |this| topic.is_none() || topic == Some(this);
    if wanted(Topic::Chains) {
        chains(&mut out, &report);
    }
    if wanted(Topic::Ports) {
        ports(&mut out, &report);
    }
    if wanted(Topic::Functions) {
        report
            .functions
            .iter()
            .for_each(|function| show_function(&mut out, function));
    }
    if wanted(Topic::Drops) {
        drops(&mut out, &report);
    }
    if wanted(Topic::Workers) {
        workers(&mut out, &report);
    }
    for (function, sessions) in &sessions {
        show_sessions(&mut out, function, sessions);
    }
    print(&out)
}

fn sessions(socket: &Path, report: &Report) -> Result<Vec<(String, Vec<SessionReport>)>, ExitCode> {
    let mut all = Vec::new();
    for function in report
        .functions
        .iter()
        .filter(|function| function.sessions > 0)
    {
        let (mut found, mut cursor) = (Vec::new(), Some(0));
        while let Some(at) = cursor {
            let request = Request::Sessions {
                function: function.name.clone(),
                cursor: at,
            };
            let (response, _) = client::ask(socket, &request).map_err(|error| fail(&error))?;
            let Response::Sessions(page) = response else {
                return Err(fail("the instance gave another answer than was asked for"));
            };
            found.extend(page.sessions);
            cursor = page.next;
        }
        all.push((function.name.clone(), found));
    }
    Ok(all)
}

fn chains(out: &mut String, report: &Report) {
    let _ = writeln!(
        out,
        "{}, up {}\n",
        report.name,
        duration(report.uptime_seconds)
    );
    for chain in &report.chains {
        let _ = writeln!(out, "  {:12} {}", chain.name, chain.elements.join(" -- "));
    }
    for line in report.ways.iter().chain(&report.parts) {
        let _ = writeln!(out, "  {line}");
    }
    out.push('\n');
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

fn ports(out: &mut String, report: &Report) {
    let _ = writeln!(
        out,
        "{:16} {:14} {:11} {:>10} {:>10} {:>9}",
        "port", "kind", "state", "received", "sent", "dropped"
    );
    for port in &report.ports {
        let _ = writeln!(
            out,
            "{:16} {:14} {:11} {:>10} {:>10} {:>9}",
            port.name,
            port.kind,
            port.state,
            value(&port.counters, "rx-packets"),
            value(&port.counters, "tx-packets"),
            port.drops.values().sum::<u64>()
        );
        if let Some(negotiated) = &port.negotiated {
            show_negotiated(out, negotiated);
        }
        if let Some(error) = &port.last_error {
            let _ = writeln!(out, "  last error: {error}");
        }
    }
    out.push('\n');
}

/// What a guest agreed on, in lines that fit a terminal.
fn show_negotiated(out: &mut String, negotiated: &Negotiated) {
    let mtu = negotiated.mtu.map(|mtu| format!("mtu {mtu}"));
    let status = format!("status {:#04x}", negotiated.device_status);
    let running = format!("{} queue pairs", negotiated.queue_pairs);
    let device: Vec<_> = [Some(running), Some(status), mtu]
        .into_iter()
        .flatten()
        .collect();
    wrapped(out, "device", &device);
    wrapped(out, "features", &negotiated.features);
    wrapped(out, "protocol", &negotiated.protocol_features);
}

/// Words behind a title, as many to a line as fit in 80 columns.
fn wrapped(out: &mut String, title: &str, words: &[String]) {
    let mut line = format!("  {title:9}");
    for word in words {
        if line.len() + 1 + word.len() > 80 {
            let _ = writeln!(out, "{line}");
            line = format!("  {:9}", "");
        }
        line.push(' ');
        line.push_str(word);
    }
    if !words.is_empty() {
        let _ = writeln!(out, "{line}");
    }
}

fn value(values: &Values, name: &str) -> u64 {
    values.get(name).copied().unwrap_or(0)
}

fn show_function(out: &mut String, function: &FunctionReport) {
    let sessions = match function.sessions {
        0 => String::new(),
        sessions => format!(", {sessions} sessions"),
    };
    let _ = writeln!(out, "{} ({}){sessions}", function.name, function.kind);
    for interface in &function.interfaces {
        let _ = writeln!(
            out,
            "  {:24} {:>12} packets in {:>12} out",
            interface.name, interface.in_packets, interface.out_packets
        );
    }
    let own = [
        ("created", function.created),
        ("consumed", function.consumed),
        ("held", function.held),
    ];
    let own = own.iter().map(|(name, value)| (*name, *value));
    let counters = function
        .counters
        .iter()
        .map(|(name, value)| (name.as_str(), *value));
    let slots = function
        .slots
        .iter()
        .map(|(name, value)| (name.as_str(), *value));
    for (name, value) in own
        .chain(counters)
        .chain(slots)
        .filter(|(_, value)| *value > 0)
    {
        let _ = writeln!(out, "  {name:48} {value:>12}");
    }
    out.push('\n');
}

fn drops(out: &mut String, report: &Report) {
    let ports = report.ports.iter().map(|port| (&port.name, &port.drops));
    let functions = report
        .functions
        .iter()
        .map(|function| (&function.name, &function.drops));
    let _ = writeln!(out, "{:24} {:32} {:>12}", "dropped by", "reason", "packets");
    let mut none = true;
    for (place, drops) in ports.chain(functions) {
        for (reason, count) in drops.iter().filter(|(_, count)| **count > 0) {
            none = false;
            let _ = writeln!(out, "{place:24} {reason:32} {count:>12}");
        }
    }
    if none {
        let _ = writeln!(out, "nothing");
    }
    out.push('\n');
}

fn workers(out: &mut String, report: &Report) {
    for worker in &report.workers {
        let core = worker
            .core
            .map_or("any core".to_owned(), |core| format!("core {core}"));
        let _ = writeln!(out, "worker {} ({core}, {})", worker.index, worker.idle);
        for (name, value) in worker.counters.iter().filter(|(_, value)| **value > 0) {
            let _ = writeln!(out, "  {name:48} {value:>12}");
        }
    }
}

fn show_sessions(out: &mut String, function: &str, sessions: &[SessionReport]) {
    let _ = writeln!(out, "{function}");
    for session in sessions {
        let _ = writeln!(
            out,
            "  {}  idle {:.1} s",
            session.session,
            session.idle_ms as f64 / 1e3
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiated_features_fit_a_terminal() {
        let words = |n: usize| (0..n).map(|i| format!("feature-{i}")).collect::<Vec<_>>();
        let negotiated = Negotiated {
            features: words(12),
            protocol_features: vec!["mq".into(), "reply-ack".into()],
            device_status: 15,
            mtu: Some(1500),
            queue_pairs: 2,
        };
        let mut out = String::new();
        show_negotiated(&mut out, &negotiated);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[0], "  device    2 queue pairs status 0x0f mtu 1500");
        assert!(lines[1].starts_with("  features  feature-0 feature-1"));
        assert!(lines[2].starts_with("            feature-"));
        assert_eq!(lines[3], "  protocol  mq reply-ack");
        assert!(lines.iter().all(|line| line.len() <= 80));
    }
}
