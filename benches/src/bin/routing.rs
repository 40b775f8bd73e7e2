//! What a router alone costs: few routes and the Internet's, few destinations and many, with flow records and without;
//! in memory, in one thread.
//!
//! `routing [--rounds N]` prints cycles a packet, those of the ports in memory included; `routing --count
//! few|internet DESTINATIONS records|functions|stages PACKETS` forwards so many packets, for callgrind.

use std::process::ExitCode;
use std::time::Instant;

use chainplane_benches::memory::{By, InMemory, router};
use chainplane_benches::routes::Routes;
use chainplane_nf::config::Site;

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
        [] => time(10),
        _ => None,
    };
    if done.is_none() {
        eprintln!(
            "usage: routing [--rounds N] | --count few|internet DESTINATIONS records|functions|stages PACKETS"
        );
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

/// `None` for words that make no sense.
fn count(routes: &str, flows: &str, by: &str, packets: &str) -> Option<()> {
    let routes = match routes {
        "few" => Routes::Few,
        "internet" => Routes::Internet,
        _ => return None,
    };
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
                cycles.sort_by(f64::total_cmp);
                let (low, mid, high) = (
                    cycles[0],
                    cycles[cycles.len() / 2],
                    cycles[cycles.len() - 1],
                );
                println!(
                    "  {flows:>7} destinations, {by:<10?} {mid:>7.1} cycles ({low:.1} to {high:.1})"
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
