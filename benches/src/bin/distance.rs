//! How long a cache line takes from one core to another: `distance CORE CORE` prints `ns=…`, the median of many short
//! runs of two threads that answer each other, for one way.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Alone in its lines, the neighbour that is fetched along included.
#[repr(align(128))]
struct Ball(AtomicU32);

const RUNS: usize = 200;
const ROUNDS: u32 = 200;

fn pin(core: usize) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

fn main() -> ExitCode {
    let cores: Option<Vec<usize>> = std::env::args().skip(1).map(|w| w.parse().ok()).collect();
    let Some([here, there]) = cores.and_then(|cores| <[usize; 2]>::try_from(cores).ok()) else {
        eprintln!("usage: distance CORE CORE");
        return ExitCode::from(2);
    };
    let ball = Ball(AtomicU32::new(0));
    let total = RUNS as u32 * ROUNDS;
    let times = std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(there).expect("a second core");
            for turn in 0..total {
                wait(&ball, 2 * turn + 1);
                ball.0.store(2 * turn + 2, Ordering::Release);
            }
        });
        pin(here).expect("a first core");
        let mut times = Vec::with_capacity(RUNS);
        for run in 0..RUNS as u32 {
            let start = Instant::now();
            for turn in run * ROUNDS..(run + 1) * ROUNDS {
                ball.0.store(2 * turn + 1, Ordering::Release);
                wait(&ball, 2 * turn + 2);
            }
            times.push(start.elapsed().as_nanos() as u64 / u64::from(2 * ROUNDS));
        }
        times
    });
    let mut times = times;
    times.sort_unstable();
    println!("ns={}", times[RUNS / 2]);
    ExitCode::SUCCESS
}

fn wait(ball: &Ball, value: u32) {
    while ball.0.load(Ordering::Acquire) != value {
        std::hint::spin_loop();
    }
}
