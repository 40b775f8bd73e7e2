//! When each packet is due.

use super::{Load, Rate};

/// The clock of one direction.
pub struct Pacer {
    /// Nanoseconds from one packet to the next; `None` as fast as it goes.
    interval: Option<f64>,
    /// When the first is due.
    offset: f64,
    /// Packets in all.
    limit: u64,
    sent: u64,
    /// When the phase begins, in nanoseconds, and packets that were sent before it.
    from: u64,
    before: u64,
    /// The target had no room for what was due last.
    pub blocked: bool,
    /// When it last had none.
    pub blocked_at: Option<u64>,
}

impl Pacer {
    /// Of a direction, of so many.
    pub fn new(load: &Load, direction: usize, directions: usize) -> Self {
        let interval = match load.rate {
            Rate::Max => None,
            Rate::PacketsPerSecond(rate) => Some(1e9 / rate.max(1e-9)),
        };
        let time = load.duration.as_nanos() as f64;
        // The directions take turns.
        let offset = interval.map_or(0.0, |i| i * direction as f64 / directions as f64);
        let fits = interval.map_or(u64::MAX, |i| ((time - offset) / i).ceil().max(0.0) as u64);
        let limit = if direction < directions {
            fits.min(load.burst.unwrap_or(u64::MAX))
        } else {
            0
        };
        Self {
            interval,
            offset,
            limit,
            sent: 0,
            from: 0,
            before: 0,
            blocked: false,
            blocked_at: None,
        }
    }

    /// Of a direction at another load, from `from` nanoseconds on, after the packets of `earlier`. What was due then
    /// and was not sent stays unsent.
    pub fn following(
        load: &Load,
        direction: usize,
        directions: usize,
        from: u64,
        earlier: &Self,
    ) -> Self {
        Self {
            from,
            before: earlier.before + earlier.sent,
            ..Self::new(load, direction, directions)
        }
    }

    /// Packets that were sent before this phase.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// Nanoseconds from the phase's beginning to when its packet `number` was due; numbers go on from earlier phases.
    pub fn due_after(&self, number: u64) -> u64 {
        let own = number.saturating_sub(self.before) as f64;
        self.interval.map_or(0, |i| (self.offset + own * i) as u64)
    }

    /// Packets that are due and not sent at `now`, in nanoseconds from the start.
    #[inline]
    pub fn due(&self, now: u64) -> u64 {
        let due = match self.interval {
            None => u64::MAX,
            Some(interval) => {
                let intervals = (now as f64 - self.from as f64 - self.offset) / interval;
                if intervals < 0.0 {
                    0
                } else {
                    intervals as u64 + 1
                }
            }
        };
        due.min(self.limit).saturating_sub(self.sent)
    }

    /// The number of the next packet, and when it is due.
    #[inline]
    pub fn next(&self, now: u64) -> (u64, u64) {
        let number = self.before + self.sent;
        let due = match self.interval {
            Some(_) => self.from + self.due_after(number),
            None => now,
        };
        (number, due)
    }

    /// The next packet has been sent.
    #[inline]
    pub fn sent(&mut self) {
        self.sent += 1;
    }

    /// Packets that were due by the end and not sent, though the target had room.
    pub fn owed(&self) -> u64 {
        if self.blocked || self.interval.is_none() {
            0
        } else {
            self.limit - self.sent
        }
    }

    /// Whether all have been sent.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.sent >= self.limit
    }

    /// Packets that were due in the whole time.
    pub fn offered(&self) -> u64 {
        if self.interval.is_some() {
            self.limit
        } else {
            self.sent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn load(rate: Rate, burst: Option<u64>) -> Load {
        Load {
            rate,
            duration: Duration::from_millis(10),
            burst,
        }
    }

    #[test]
    fn packets_fall_due_by_the_clock() {
        let load = load(Rate::PacketsPerSecond(1e6), None);
        let [mut a, b] = [0, 1].map(|direction| Pacer::new(&load, direction, 2));
        assert_eq!([a.due(0), b.due(0)], [1, 0]);
        assert_eq!([a.due(500), b.due(500)], [1, 1]);
        assert_eq!(a.due(9_999_999), 10_000);
        assert_eq!(a.due(1 << 40), 10_000);
        for number in 0..10_000 {
            assert_eq!(a.next(77), (number, number * 1000));
            a.sent();
        }
        assert!(a.is_over() && !b.is_over());
        assert_eq!([a.offered(), b.offered()], [10_000, 10_000]);
    }

    #[test]
    fn a_second_phase_goes_on_where_the_first_ended() {
        let load = load(Rate::PacketsPerSecond(1e6), None);
        let mut first = Pacer::new(&load, 0, 1);
        for _ in 0..900 {
            first.sent();
        }
        let second = Pacer::following(&load, 0, 1, 10_000_000, &first);
        assert_eq!(second.due(9_999_999), 0);
        assert_eq!(second.due(10_002_500), 3);
        assert_eq!(second.next(0), (900, 10_000_000));
        assert_eq!((second.due_after(905), second.before()), (5_000, 900));
    }

    #[test]
    fn bursts_end_and_one_way_has_no_other() {
        let burst = Pacer::new(&load(Rate::PacketsPerSecond(1e6), Some(16)), 0, 1);
        assert_eq!((burst.due(1 << 30), burst.offered()), (16, 16));
        let none = Pacer::new(&load(Rate::Max, None), 1, 1);
        assert!(none.is_over() && none.due(5) == 0);
        let max = Pacer::new(&load(Rate::Max, None), 0, 1);
        assert_eq!(max.next(123), (0, 123));
        assert!(max.due(0) > 1 << 40 && max.offered() == 0);
    }
}
