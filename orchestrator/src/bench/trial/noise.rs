//! What the host does to a trial.

use std::fs;

use serde::{Deserialize, Serialize};

use super::Noise;

/// What the kernel says of disturbances, at one moment.
pub struct Observed {
    steal_ns: u64,
    descheduled: u64,
}

impl Observed {
    /// Reads `/proc`: what can't be read counts as nothing.
    pub fn now() -> Self {
        Self {
            steal_ns: steal(),
            descheduled: descheduled(),
        }
    }

    /// What happened since; `gaps` are the generator's own.
    pub fn until(&self, later: &Self, gaps: Gaps) -> Noise {
        Noise {
            steal_ns: later.steal_ns.saturating_sub(self.steal_ns),
            gaps: gaps.jumps.over_200_us,
            longest_gap_ns: gaps.longest_ns,
            jumps: gaps.jumps,
            descheduled: later.descheduled.saturating_sub(self.descheduled),
        }
    }
}

/// How often the clock of a polled loop jumped by how much. What counts as the longer counts as the shorter as well.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub struct Jumps {
    /// By more than 20 µs.
    pub over_20_us: u64,
    /// By more than 50 µs.
    pub over_50_us: u64,
    /// By more than 100 µs.
    pub over_100_us: u64,
    /// By more than 200 µs.
    pub over_200_us: u64,
    /// By more than 1 ms.
    pub over_1_ms: u64,
}

impl Jumps {
    /// The shortest that counts, in nanoseconds.
    const LEAST: u64 = 20_000;

    /// What is counted, with its name.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("20 µs", self.over_20_us),
            ("50 µs", self.over_50_us),
            ("100 µs", self.over_100_us),
            ("200 µs", self.over_200_us),
            ("1 ms", self.over_1_ms),
        ]
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.over_20_us += other.over_20_us;
        self.over_50_us += other.over_50_us;
        self.over_100_us += other.over_100_us;
        self.over_200_us += other.over_200_us;
        self.over_1_ms += other.over_1_ms;
    }

    #[cold]
    fn note(&mut self, ns: u64) {
        let over = |limit| u64::from(ns > limit);
        self.over_20_us += over(Self::LEAST);
        self.over_50_us += over(50_000);
        self.over_100_us += over(100_000);
        self.over_200_us += over(Noise::GAP.as_nanos() as u64);
        self.over_1_ms += over(1_000_000);
    }
}

/// Jumps of a polled loop's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    last: Option<u64>,
    jumps: Jumps,
    longest_ns: u64,
}

impl Gaps {
    /// Notes the time, in nanoseconds, at a place that the loop comes by after little work.
    #[inline]
    pub fn tick(&mut self, now: u64) {
        let gap = self.last.map_or(0, |last| now.saturating_sub(last));
        self.last = Some(now);
        if gap > Jumps::LEAST {
            self.jumps.note(gap);
        }
        self.longest_ns = self.longest_ns.max(gap);
    }

    /// Notes the time after work that may take long: it is no jump.
    pub fn pass_over(&mut self, now: u64) {
        self.last = Some(now);
    }
}

/// The eighth value of the first line of /proc/stat, in clock ticks of 10 ms (proc(5)).
fn steal() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().nth(8);
    ticks.and_then(|t| t.parse::<u64>().ok()).unwrap_or(0) * 10_000_000
}

/// Involuntary context switches of this thread and of dataplane workers in this process.
fn descheduled() -> u64 {
    let own = switches("/proc/thread-self");
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return own;
    };
    let workers = threads.flatten().filter_map(|thread| {
        let path = thread.path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        name.starts_with("worker-")
            .then(|| switches(&path.to_string_lossy()))
    });
    own + workers.sum::<u64>()
}

fn switches(task: &str) -> u64 {
    let text = fs::read_to_string(format!("{task}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_of_the_clock_are_counted() {
        let mut gaps = Gaps::default();
        for now in [
            1_000_000, 1_010_000, 1_800_000, 1_810_000, 2_010_000, 2_310_001,
        ] {
            gaps.tick(now);
        }
        let jumps = gaps.jumps.named().map(|(_, count)| count);
        assert_eq!((jumps, gaps.longest_ns), ([3, 3, 3, 2, 0], 790_000));
        let mut twice = gaps.jumps;
        twice.add(&gaps.jumps);
        assert_eq!(twice.named().map(|(_, count)| count), [6, 6, 6, 4, 0]);
    }

    #[test]
    fn the_kernel_tells_of_switches() {
        let before = Observed::now();
        let noise = before.until(&Observed::now(), Gaps::default());
        assert!(noise.descheduled < 1000);
        assert!(switches("/proc/thread-self") < 1 << 40);
    }
}
