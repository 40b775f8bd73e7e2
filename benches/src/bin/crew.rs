//! Two workers that run four functions together against one that runs them alone: packets a second, in turn.
//!
//! `crew [--rounds N] [--flows N]` prints medians, with lowest and highest, of one worker; of two that have nothing to do
//! with each other and half of the flows each, which is what the machine can do; of two together to which packets come
//! where they belong, as if a card spread them by the same hash in both directions; and of these when packets come at
//! random, so that half of them are handed over. Uses as many cores as workers.

use std::process::ExitCode;
use std::time::Duration;

use chainplane_benches::crew::{Comes, Crew, Outcome};

/// How long each measurement takes.
const TIME: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let (mut rounds, mut flows) = (15, 4096);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let number = words.next().and_then(|word| word.parse::<u32>().ok());
        match (word.as_str(), number) {
            ("--rounds", Some(number @ 1..)) => rounds = number,
            ("--flows", Some(number @ 2..=1_000_000)) => flows = number,
            _ => {
                eprintln!("usage: crew [--rounds N] [--flows N]");
                return ExitCode::from(2);
            }
        }
    }
    let mut alone = Crew::new(1, false, flows);
    let mut apart = Crew::new(2, false, flows);
    let mut two = Crew::new(2, true, flows);
    let mut outcomes: [Vec<Outcome>; 4] = Default::default();
    for _ in 0..rounds {
        outcomes[0].push(alone.run(Comes::Home, TIME));
        outcomes[1].push(apart.run(Comes::Home, TIME));
        outcomes[2].push(two.run(Comes::Home, TIME));
        outcomes[3].push(two.run(Comes::Anywhere, TIME));
    }
    println!("{flows} flows through four functions, both ways, {rounds} rounds in turn");
    let names = [
        "one",
        "two apart",
        "together, at home",
        "together, anywhere",
    ];
    for (name, outcomes_of) in names.into_iter().zip(&outcomes) {
        let rates = spread(outcomes_of.iter().map(|outcome| outcome.rate / 1e6));
        let pairs = outcomes_of.iter().zip(&outcomes[0]);
        let ratios = spread(pairs.map(|(this, alone)| this.rate / alone.rate));
        let handed = spread(outcomes_of.iter().map(|outcome| outcome.handed * 100.0));
        let lost = spread(outcomes_of.iter().map(|outcome| outcome.lost * 100.0));
        println!(
            "{name:20} {:7.3} M/s ({:.3} to {:.3}), {:.2} times one ({:.2} to {:.2}); {:.1} % handed over, {:.2} % lost",
            rates[1], rates[0], rates[2], ratios[1], ratios[0], ratios[2], handed[1], lost[1]
        );
    }
    ExitCode::SUCCESS
}

/// Lowest, median and highest.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    ]
}
