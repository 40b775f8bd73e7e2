//! What a poll takes while a hostile guest does its worst, beside what it takes without.

use std::time::Duration;

use chainplane_benches::siege::{Attack, Siege};

const POLLS: usize = 5000;

fn main() {
    let mut alone = None;
    for attack in Attack::ALL {
        let mut siege = Siege::new(attack);
        let mut times: Vec<Duration> = (0..POLLS).map(|_| siege.poll().time).collect();
        times.sort_unstable();
        let [median, late] = [POLLS / 2, POLLS * 99 / 100].map(|at| times[at]);
        let alone = *alone.get_or_insert(median);
        println!(
            "{:10} {median:>10.1?} a poll (99 %: {late:.1?}), {:.1} times as long as without",
            format!("{attack:?}"),
            median.as_secs_f64() / alone.as_secs_f64(),
        );
    }
}
