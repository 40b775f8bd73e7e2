//! Cycles a packet of driver and back end in turn on one core, case by case, in rounds; or, for callgrind, one case.
//!
//! `turns [--rounds N] [CASE …]` prints each case's median with lowest and highest, and fails if the polled loop
//! allocates. `turns --count CASE PACKETS` forwards so many packets and prints how many it were: run by `cargo xtask
//! instructions`.

use std::process::ExitCode;

use chainplane_benches::allocations;
use chainplane_benches::case::Case;
use chainplane_benches::turns::Turns;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Packets of one measurement; of large ones, a hundredth.
const PACKETS: u64 = 1 << 20;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--count", case, packets] => count(case, packets),
        ["--rounds", rounds, ref cases @ ..] => time(rounds, cases),
        ref cases => time("10", cases),
    };
    if done.is_none() {
        let names: Vec<&str> = Case::ALL.iter().map(|case| case.name).collect();
        eprintln!(
            "usage: turns [--rounds N] [CASE …] | --count CASE PACKETS\ncases: {}",
            names.join(" ")
        );
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

/// `None` for words that make no sense; so with the other one.
fn count(case: &str, packets: &str) -> Option<()> {
    let (case, packets) = (Case::find(case)?, packets.parse().ok()?);
    println!("packets={}", Turns::new(&case).forward(packets));
    Some(())
}

fn time(rounds: &str, cases: &[&str]) -> Option<()> {
    let rounds: usize = rounds.parse().ok().filter(|rounds| *rounds > 0)?;
    let mut cases: Vec<Case> = cases
        .iter()
        .map(|name| Case::find(name))
        .collect::<Option<_>>()?;
    if cases.is_empty() {
        cases = Case::ALL.to_vec();
    }
    let mut loops: Vec<Turns> = cases.iter().map(Turns::new).collect();
    for (case, turns) in cases.iter().zip(&mut loops) {
        let (packets, allocations) = turns.count_allocations();
        assert_eq!(
            allocations, 0,
            "{}: the polled loop allocates ({packets} packets)",
            case.name
        );
    }
    let clock = quanta::Clock::new();
    let mut cycles: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for ((case, turns), cycles) in cases.iter().zip(&mut loops).zip(&mut cycles) {
            let start = clock.raw();
            let done = turns.forward(PACKETS * 64 / (case.size as u64).max(64));
            cycles.push((clock.raw() - start) as f64 / done as f64);
        }
    }
    println!("cycles a packet, driver and back end in turn on one core; no allocation in any case");
    for (case, cycles) in cases.iter().zip(&mut cycles) {
        cycles.sort_by(f64::total_cmp);
        println!(
            "{:<20} {:>8.1}  ({:.1} to {:.1})",
            case.name,
            cycles[cycles.len() / 2],
            cycles[0],
            cycles[cycles.len() - 1]
        );
    }
    Some(())
}
