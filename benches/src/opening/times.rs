//! How long pieces of work take, by the time stamp counter, and what the machine itself does meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use quanta::Clock;

/// What no piece may exceed, in nanoseconds.
const BOUND: u32 = 20_000;

/// A part of the course, and a piece of work in it.
type Place = (&'static str, &'static str);

/// The times of all pieces of a course, in nanoseconds, in their order.
#[derive(Default)]
pub struct Samples {
    part: Cell<&'static str>,
    /// What was timed and is not entered yet: to enter it may take longer than what is timed around it.
    pending: RefCell<Vec<(&'static str, Duration)>>,
    times: RefCell<BTreeMap<Place, Vec<u32>>>,
}

/// What is to be said of the times of a piece.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// How many there are.
    pub count: usize,
    /// Median, 99 %, 99.9 %, and the longest, in nanoseconds.
    pub percentiles: [u32; 4],
    /// How many are above the bound.
    pub over: usize,
    /// All of them together, in nanoseconds.
    pub total: u64,
}

impl Samples {
    /// What follows is in this part of the course.
    pub(super) fn begin(&self, part: &'static str) {
        self.part.set(part);
    }

    /// Notes a time within something else that is timed.
    pub(super) fn note(&self, piece: &'static str, time: Duration) {
        self.pending.borrow_mut().push((piece, time));
    }

    /// Enters what was noted.
    pub(super) fn settle(&self) {
        for (piece, time) in self.pending.borrow_mut().drain(..) {
            self.add(piece, time);
        }
    }

    pub(super) fn add(&self, piece: &'static str, time: Duration) {
        let time = u32::try_from(time.as_nanos()).unwrap_or(u32::MAX);
        let mut times = self.times.borrow_mut();
        times
            .entry((self.part.get(), piece))
            .or_default()
            .push(time);
    }

    /// The times of this and of other runs of the same course: of each piece the shortest, as the work is the same and
    /// what the machine did meanwhile is not. Where they differ in length, the course was not the same; `None`.
    #[must_use]
    pub fn shortest(runs: &[Self]) -> Option<Self> {
        let (first, others) = runs.split_first()?;
        let mut times = first.times.borrow().clone();
        for other in others {
            let other = other.times.borrow();
            if !times.keys().eq(other.keys()) {
                return None;
            }
            for (all, others) in times.values_mut().zip(other.values()) {
                if all.len() != others.len() {
                    return None;
                }
                for (time, other) in all.iter_mut().zip(others) {
                    *time = (*time).min(*other);
                }
            }
        }
        Some(Self {
            part: Cell::default(),
            pending: RefCell::default(),
            times: RefCell::new(times),
        })
    }

    /// What is to be said of each piece in each part, or in all parts together.
    pub fn told(&self, by_part: bool) -> Vec<(String, Told)> {
        let mut joined: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for ((part, piece), times) in self.times.borrow().iter() {
            let name = if by_part {
                format!("{piece}, {part}")
            } else {
                (*piece).to_owned()
            };
            joined.entry(name).or_default().extend(times);
        }
        let told = joined.into_iter().map(|(name, mut times)| {
            times.sort_unstable();
            (name, Told::of(&times))
        });
        told.collect()
    }
}

impl Told {
    /// Of sorted times.
    fn of(times: &[u32]) -> Self {
        let at = |thousandths: usize| {
            let index = times.len() * thousandths / 1000;
            times[index.min(times.len() - 1)]
        };
        Self {
            count: times.len(),
            percentiles: [at(500), at(990), at(999), at(1000)],
            over: times.len() - times.partition_point(|time| *time <= BOUND),
            total: times.iter().copied().map(u64::from).sum(),
        }
    }
}

/// A loop that does nothing but read the counter: what it sees is the machine's doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spin {
    /// How long it went on, in seconds.
    pub seconds: f64,
    /// Times above the bound from one reading to the next.
    pub over: u64,
    /// The longest, in nanoseconds.
    pub longest: u64,
    /// All time above the bound, in nanoseconds.
    pub lost: u64,
}

impl Spin {
    /// Spins for so long.
    pub fn run(&mut self, time: Duration) {
        let clock = Clock::new();
        let start = clock.raw();
        let mut last = start;
        loop {
            let now = clock.raw();
            let gap = clock.delta_as_nanos(last, now);
            last = now;
            if gap > u64::from(BOUND) {
                self.over += 1;
                self.longest = self.longest.max(gap);
                self.lost += gap;
            }
            if clock.delta(start, now) >= time {
                break;
            }
        }
        self.seconds += clock.delta(start, last).as_secs_f64();
    }

    /// How many are to be expected in so many nanoseconds.
    pub fn expected(&self, nanoseconds: u64) -> f64 {
        self.over as f64 / self.seconds.max(1e-9) * nanoseconds as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(times: &[u64]) -> Samples {
        let samples = Samples::default();
        samples.begin("part");
        for time in times {
            samples.add("piece", Duration::from_nanos(*time));
        }
        samples
    }

    #[test]
    fn the_shortest_of_several_runs_counts() {
        let runs = [samples(&[5, 90_000, 7]), samples(&[80_000, 6, 20_001])];
        let all = Samples::shortest(&runs).expect("the same course");
        let [(name, told)] = &all.told(true)[..] else {
            panic!("one piece")
        };
        assert_eq!(name, "piece, part");
        assert_eq!((told.count, told.over, told.total), (3, 0, 18));
        assert_eq!(told.percentiles, [6, 7, 7, 7]);
        assert_eq!(runs[1].told(false)[0].1.over, 2);
        assert!(Samples::shortest(&[samples(&[1]), samples(&[1, 2])]).is_none());
    }
}
