//! What a router alone costs: few routes and the Internet's, few destinations and many.
//!
//! * `routing [--rounds N]`: in memory, with flow records and without; cycles a packet, the ports' own included.
//! * `routing --rings N`: between guests, whose turn it is in the same thread; cycles a packet of the back end alone.
//! * `routing --cores few|internet DESTINATIONS SECONDS`: between guests driven from core 1; Mpps.
//! * `routing --count few|internet DESTINATIONS records|functions|stages PACKETS`: for callgrind; in memory.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chainplane_benches::memory::{By, InMemory, router};
use chainplane_benches::rings::{self, Rings, frames};
use chainplane_benches::routes::Routes;
use chainplane_nf::config::Site;
use chainplane_vhost::driver::FastMode;

/// Packets of one measurement.
const PACKETS: u64 = 1 << 20;
/// Destinations a side.
const FLOWS: [usize; 3] = [64, 1024, 1 << 18];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--count", routes, flows, by, packets] => count(routes, flows, by, packets),
        ["--rounds", rounds] => rounds.parse().ok().and_then(time),
        ["--rings", rounds] => rounds.parse().ok().and_then(time_rings),
        ["--cores", routes, flows, seconds] => cores(routes, flows, seconds),
        [] => time(10),
        _ => None,
    };
    if done.is_none() {
        eprintln!("usage: see the head of benches/src/bin/routing.rs");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

fn named(routes: &str) -> Option<Routes> {
    match routes {
        "few" => Some(Routes::Few),
        "internet" => Some(Routes::Internet),
        _ => None,
    }
}

fn cores(routes: &str, flows: &str, seconds: &str) -> Option<()> {
    let (routes, _) = named(routes)?.list();
    let directory = tempfile::tempdir().ok()?;
    let _instance = rings::instance(&routes, directory.path());
    let [a, b] = ["a.sock", "b.sock"].map(|name| directory.path().join(name));
    report([&a, &b], &frames(&routes, flows.parse().ok()?), seconds)
}

fn report(sockets: [&Path; 2], frames: &[Vec<Vec<u8>>; 2], seconds: &str) -> Option<()> {
    let time = Duration::from_secs(seconds.parse().ok()?);
    match rings::drive(sockets, frames, 1, time) {
        Ok((mpps, empty)) => println!("mpps={mpps:.3} empty={:.0}%", empty * 100.0),
        Err(error) => println!("mpps=0 error={error}"),
    }
    Some(())
}

fn time_rings(rounds: usize) -> Option<()> {
    let clock = quanta::Clock::new();
    let count = FLOWS[FLOWS.len() - 1];
    let few = Routes::Few.list().0;
    let (internet, what) = Routes::Internet.list();
    let mut cases = [
        (
            "64 routes, 1024 destinations that the driver does not touch",
            Rings::new(&few, 1024, FastMode::IndexOnly),
            Vec::new(),
        ),
        (
            "64 routes, random destinations",
            Rings::new(&few, count, FastMode::Rewrite),
            Vec::new(),
        ),
        (
            what,
            Rings::new(&internet, count, FastMode::Rewrite),
            Vec::new(),
        ),
    ];
    for round in 0..=rounds {
        for (_, rings, cycles) in &mut cases {
            let (packets, spent) = rings.forward(PACKETS, &clock);
            // The first round warms up.
            if round > 0 {
                cycles.push(spent as f64 / packets as f64);
            }
        }
    }
    for (what, _, cycles) in &mut cases {
        println!("{what}: {}", spread(cycles)?);
    }
    let ratio = cases[1]
        .2
        .iter()
        .zip(&cases[2].2)
        .map(|(few, many)| few / many);
    println!(
        "random destinations: speed with the Internet's prefixes over that with 64 routes: {}",
        spread(&mut ratio.collect::<Vec<_>>())?
    );
    Some(())
}

/// Median, lowest, highest.
fn spread(values: &mut [f64]) -> Option<String> {
    values.sort_by(f64::total_cmp);
    let (low, mid, high) = (values.first()?, values[values.len() / 2], values.last()?);
    Some(format!("{mid:.2} ({low:.2} to {high:.2})"))
}

/// `None` for words that make no sense.
fn count(routes: &str, flows: &str, by: &str, packets: &str) -> Option<()> {
    let routes = named(routes)?;
    let by = match by {
        "records" => By::Records,
        "functions" => By::Functions,
        "stages" => By::Stages,
        _ => return None,
    };
    let mut router = InMemory::new(&routes.list().0, flows.parse().ok()?, by);
    println!("packets={}", router.forward(packets.parse().ok()?));
    Some(())
}

fn time(rounds: usize) -> Option<()> {
    if rounds == 0 {
        return None;
    }
    for routes in [Routes::Few, Routes::Internet] {
        let (list, what) = routes.list();
        let (before, start) = (resident(), Instant::now());
        let blueprint = router(&list).compile(&Site::default());
        let took = start.elapsed();
        let mib = resident().saturating_sub(before) as f64 / f64::from(1 << 20);
        println!(
            "{what}: {} prefixes, compiled in {took:.0?}, {mib:.1} MiB with the configuration",
            list.len()
        );
        drop(blueprint);
        let clock = quanta::Clock::new();
        for flows in FLOWS {
            let ways = [By::Records, By::Functions, By::Stages];
            let mut loops = ways.map(|by| InMemory::new(&list, flows, by));
            for router in &mut loops {
                router.forward(PACKETS);
            }
            let mut cycles = ways.map(|_| Vec::new());
            for _ in 0..rounds {
                for (router, cycles) in loops.iter_mut().zip(&mut cycles) {
                    let start = clock.raw();
                    let done = router.forward(PACKETS);
                    cycles.push((clock.raw() - start) as f64 / done as f64);
                }
            }
            for (by, mut cycles) in ways.into_iter().zip(cycles) {
                println!(
                    "  {flows:>7} destinations, {by:<10?} {} cycles",
                    spread(&mut cycles)?
                );
            }
        }
    }
    Some(())
}

/// Bytes of memory in use.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or_default();
    pages * 4096
}
