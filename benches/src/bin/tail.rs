//! How long each piece of a worker's work besides packets takes: ticks of every function, gauges, lists of sessions,
//! with tables of a million sessions that are made, kept, and die all at once, 4000 neighbours, and random flows.
//!
//! `tail [--sessions N] [--runs N] [--parts]` goes the same course several times. Beside it a loop that does nothing but
//! read the time stamp counter tells what the machine itself takes. A piece that the machine disturbed in one run was
//! hardly disturbed in all: of the same piece in all runs the shortest time is the piece's own. Exit code 1 if one of
//! these is above 20 µs. A small course goes first, so that all of the program is in memory.

use std::process::ExitCode;
use std::time::Duration;

use chainplane_benches::opening::{Samples, Spin, Tail};

/// Sessions of the course that goes first.
const SMALL: u32 = 1 << 13;

struct Options {
    sessions: u32,
    runs: usize,
    parts: bool,
}

fn options() -> Option<Options> {
    let mut options = Options {
        sessions: 1 << 20,
        runs: 3,
        parts: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = |most| {
            let number = words.next()?.parse::<u32>().ok()?;
            (1..=most).contains(&number).then_some(number)
        };
        match word.as_str() {
            "--sessions" => options.sessions = number(1 << 22)?,
            "--runs" => options.runs = number(100)? as usize,
            "--parts" => options.parts = true,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: tail [--sessions N] [--runs N] [--parts]");
        return ExitCode::from(2);
    };
    drop(Tail::new(SMALL).run());
    let (mut spin, mut runs) = (Spin::default(), Vec::new());
    for _ in 0..options.runs {
        spin.run(Duration::from_secs(2));
        runs.push(Tail::new(options.sessions).run());
    }
    spin.run(Duration::from_secs(2));
    println!(
        "the machine: {:.1} gaps above 20 µs a second in {:.0} s of doing nothing, the longest {:.1} µs, {:.3} % of the time",
        spin.over as f64 / spin.seconds,
        spin.seconds,
        spin.longest as f64 / 1e3,
        spin.lost as f64 / spin.seconds / 1e7,
    );
    for (index, run) in runs.iter().enumerate() {
        println!("\nrun {} of {}", index + 1, options.runs);
        table(run, options.parts && options.runs == 1, &spin);
    }
    let Some(shortest) = Samples::shortest(&runs) else {
        println!("\nthe runs went different courses: nothing is said of them together");
        return ExitCode::FAILURE;
    };
    println!("\nof each piece the shortest time in {} runs", options.runs);
    if table(&shortest, options.parts, &spin) == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints all pieces; tells how many times that are not packets' are above the bound.
fn table(samples: &Samples, parts: bool, spin: &Spin) -> usize {
    println!(
        "| piece | times | p50 µs | p99 | p99.9 | longest | above 20 µs | of these the machine's, by its rate |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    let mut over = 0;
    for (name, told) in samples.told(parts) {
        let [p50, p99, p999, longest] = told.percentiles.map(|ns| f64::from(ns) / 1e3);
        println!(
            "| {name} | {} | {p50:.2} | {p99:.2} | {p999:.2} | {longest:.2} | {} | {:.1} |",
            told.count,
            told.over,
            spin.expected(told.total)
        );
        // What packets cost is not bounded by time but by their number.
        if !name.starts_with('(') {
            over += told.over;
        }
    }
    over
}
