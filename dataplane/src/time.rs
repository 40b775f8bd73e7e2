//! Time as data: read once a poll by whoever drives a worker, handed down from there.

use core::ops::{Add, Sub};
use core::time::Duration;

/// Nanoseconds since a start that the driver of the worker chose; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// A coarse clock for last-seen stamps: units of 2^20 ns, about a millisecond. It wraps after 52 days, so only
    /// differences count.
    #[inline]
    pub const fn ticks(self) -> u32 {
        (self.0 >> 20) as u32
    }

    /// How long after `earlier` this is; zero if it is not.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in [`Time::ticks`], rounded up.
pub const fn to_ticks(duration: Duration) -> u32 {
    let ticks = duration.as_nanos().div_ceil(1 << 20);
    // Half the range is the most that wrapping differences can tell.
    if ticks > (u32::MAX / 2) as u128 {
        u32::MAX / 2
    } else {
        ticks as u32
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    #[inline]
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_nanos() as u64))
    }
}
