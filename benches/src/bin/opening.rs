//! New connections through four functions, in one thread: how many a second, at how many cycles, and every drop.
//!
//! `opening [out|in]-[udp|tcp|udp6] [--answers] [--seconds S | --count N [--rate R]] [--sessions N] [--flows N] [--timeout S]`
//! opens connections for so long by the real clock, or so many by a clock that says there are R a second. Connections
//! from inside go through router, NAT and firewall, those from outside to the load balancer's address.
//!
//! `opening --flood [--established N] [--rate R] …` offers R packets a second of N established flows for a second, alone
//! and beside a flood of new flows on another chain of the same worker, in turn; prints what arrived.

use std::process::ExitCode;
use std::time::Duration;

use chainplane_benches::opening::{Flood, Kind, Opening, Outcome, Size};
use chainplane_dataplane::packet::protocol;
use chainplane_dataplane::stats::Snapshot;

struct Options {
    kind: Kind,
    size: Size,
    seconds: u64,
    count: u64,
    rate: u64,
    flood: bool,
    established: u64,
}

fn options() -> Option<Options> {
    let mut options = Options {
        kind: Kind {
            protocol: protocol::UDP,
            ipv6: false,
            inbound: false,
            answers: false,
        },
        size: Size {
            sessions: 2 << 20,
            flows: 4 << 20,
            timeout: 1,
        },
        seconds: 10,
        count: 0,
        rate: 1_000_000,
        flood: false,
        established: 1000,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        match word.as_str() {
            "out-udp" | "out-tcp" | "in-udp" | "in-tcp" => {
                options.kind.inbound = word.starts_with("in");
                options.kind.protocol = if word.ends_with("tcp") {
                    protocol::TCP
                } else {
                    protocol::UDP
                };
            }
            "out-udp6" | "in-udp6" => {
                options.kind.inbound = word.starts_with("in");
                options.kind.ipv6 = true;
            }
            "--answers" => options.kind.answers = true,
            "--flood" => options.flood = true,
            "--established" => options.established = number()?.max(1),
            "--seconds" => options.seconds = number()?,
            "--count" => options.count = number()?,
            "--rate" => options.rate = number()?.max(1),
            "--sessions" => options.size.sessions = number()? as u32,
            "--flows" => options.size.flows = number()? as usize,
            "--timeout" => options.size.timeout = number()? as u32,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!(
            "usage: opening [out|in]-[udp|tcp|udp6] [--answers] [--seconds S | --count N [--rate R]] \
             [--sessions N] [--flows N] [--timeout S]\n       opening --flood [--established N] [--rate R] …"
        );
        return ExitCode::from(2);
    };
    if options.flood {
        return flood(&options);
    }
    let before = resident();
    let mut opening = Opening::new(options.kind, options.size);
    let empty = resident();
    let outcome = if options.count > 0 {
        opening.open(options.count, options.rate)
    } else {
        opening.open_for(Duration::from_secs(options.seconds))
    };
    print(&outcome);
    println!(
        "memory (MiB): {before} before, {empty} with empty tables, {} at the end",
        resident()
    );
    counters(&opening.snapshot());
    ExitCode::SUCCESS
}

/// Rounds of a second alone and a second beside the flood.
fn flood(options: &Options) -> ExitCode {
    let mut flood = Flood::new(options.kind, options.size);
    let mut run = |attack| {
        let second = Duration::from_secs(1);
        flood.run(second, options.established, options.rate, attack)
    };
    run(false);
    for round in 1..=options.seconds {
        let (alone, beside) = (run(false), run(true));
        println!(
            "round {round}: of {} offered {} arrived alone, {} beside {} new flows ({:.1} %)",
            alone.offered,
            alone.arrived,
            beside.arrived,
            beside.flood,
            100.0 * beside.arrived as f64 / alone.arrived.max(1) as f64
        );
    }
    ExitCode::SUCCESS
}

fn print(outcome: &Outcome) {
    let seconds = outcome.took.as_secs_f64();
    println!(
        "{} connections in {seconds:.2} s: {:.0} a second, {:.0} cycles of the engine each ({:.0} packets a second); {} did not arrive",
        outcome.begun,
        outcome.begun as f64 / seconds,
        outcome.cycles as f64 / outcome.begun.max(1) as f64,
        outcome.packets as f64 / seconds,
        outcome.begun - outcome.arrived,
    );
}

fn counters(snapshot: &Snapshot) {
    for (info, value) in &snapshot.engine {
        if *value > 0 && info.name.starts_with("flow-") {
            println!("  {}: {value}", info.name);
        }
    }
    let functions = snapshot.functions.iter().map(|at| (&at.name, &at.drops));
    for (name, drops) in functions.chain(snapshot.ports.iter().map(|at| (&at.name, &at.drops))) {
        for (info, value) in drops.iter().filter(|(_, value)| *value > 0) {
            println!("  dropped by {name}: {} {value}", info.name);
        }
    }
    for function in snapshot.functions.iter().filter(|at| at.sessions > 0) {
        println!("  sessions of {}: {}", function.name, function.sessions);
    }
}

/// The process's resident memory in MiB, that in huge pages included, which the kernel counts apart.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let both = ["VmRSS:", "HugetlbPages:"].into_iter().filter_map(kib);
    both.sum::<u64>() / 1024
}
