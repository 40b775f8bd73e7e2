//! What the host does to a trial.

use std::fs;

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
            gaps: gaps.count,
            longest_gap_ns: gaps.longest_ns,
            descheduled: later.descheduled.saturating_sub(self.descheduled),
        }
    }
}

/// Jumps of a polled loop's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    last: Option<u64>,
    count: u64,
    longest_ns: u64,
}

impl Gaps {
    /// Notes the time of a poll, in nanoseconds.
    #[inline]
    pub fn tick(&mut self, now: u64) {
        let gap = self.last.map_or(0, |last| now.saturating_sub(last));
        self.last = Some(now);
        if gap > Noise::GAP.as_nanos() as u64 {
            self.count += 1;
        }
        self.longest_ns = self.longest_ns.max(gap);
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
        assert_eq!((gaps.count, gaps.longest_ns), (2, 790_000));
    }

    #[test]
    fn the_kernel_tells_of_switches() {
        let before = Observed::now();
        let noise = before.until(&Observed::now(), Gaps::default());
        assert!(noise.descheduled < 1000);
        assert!(switches("/proc/thread-self") < 1 << 40);
    }
}
