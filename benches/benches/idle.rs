//! What idle ports and an idle process cost, beside the bars they are held to. Takes two minutes; it needs two cores
//! for itself, and free 2 MiB pages where they are to be used.
//!
//! `cargo bench --bench idle -- [--ports] [--process]` measures one or both.

use std::time::Duration;

use chainplane_benches::idle::{Sleeper, Waiting, busy_pair, pin};

/// Ports that are idle beside the busy ones, as the bar says.
const IDLE: usize = 64;
const ROUNDS: usize = 10;
/// Guests of the process that waits, besides the two that send.
const GUESTS: usize = 14;
const WAIT: Duration = Duration::from_secs(15);
const WAKES: usize = 300;
/// What it is idle for before it is woken, at least.
const PAUSE: Duration = Duration::from_millis(50);

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let has = |word: &str| words.iter().any(|given| given == word);
    let all = !has("--ports") && !has("--process");
    if all || has("--ports") {
        ports();
    }
    if all || has("--process") {
        process();
    }
}

/// In turn, and in every other round the other way round.
fn ports() {
    let measure = |idle| busy_pair(idle, Duration::from_secs(1)).expect("two guests");
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let (without, with) = if round % 2 == 0 {
            let without = measure(0);
            (without, measure(IDLE))
        } else {
            let with = measure(IDLE);
            (measure(0), with)
        };
        println!("round {round}: {without:.2} Mpps alone, {with:.2} beside {IDLE} idle ports");
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "a busy pair beside {IDLE} idle ports keeps {:.1} % of its packets ({:.1} to {:.1}, {ROUNDS} rounds); bar: 95 %",
        100.0 * ratios[ROUNDS / 2],
        100.0 * ratios[0],
        100.0 * ratios[ROUNDS - 1],
    );
}

fn process() {
    pin(1);
    let mut waiting = Waiting::start(GUESTS).expect("guests");
    std::thread::sleep(Duration::from_secs(1));
    let spent = waiting.idle(WAIT);
    println!(
        "an idle process with {} guests spends {:.3} % of a core ({} polls, {} sleeps in {:?}); bar: 1 %",
        GUESTS + 2,
        100.0 * spent.processor.as_secs_f64() / spent.time.as_secs_f64(),
        spent.polls,
        spent.sleeps,
        spent.time,
    );
    let mut sleeper = Sleeper::start().expect("a thread");
    let (mut packets, mut events) = (Vec::new(), Vec::new());
    for wake in 0..WAKES {
        // Not in step with timers.
        let pause = PAUSE + Duration::from_micros(997 * (wake as u64 % 23));
        std::thread::sleep(pause);
        packets.push(waiting.first_packet());
        std::thread::sleep(pause);
        events.push(sleeper.wake());
    }
    println!(
        "first packet after idle, {WAKES} times, in turn with a plain event between threads; bar: 100 µs"
    );
    for (what, mut times) in [("first packet", packets), ("plain event", events)] {
        times.sort_unstable();
        let late = times
            .iter()
            .filter(|time| **time > Duration::from_micros(100));
        let late = late.count();
        let [median, most] = [50, 99].map(|percent| times[times.len() * percent / 100]);
        let last = times[times.len() - 1];
        println!(
            "  {what:12}  median {median:.1?}, 99 %: {most:.1?}, longest {last:.1?}, {late} over the bar"
        );
    }
}
