//! Timers of very many connections: a wheel of milliseconds, each with the connections that may want something then
//! (Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987).

/// Milliseconds of a turn: a timer that is further away comes round more than once.
const SLOTS: usize = 4096;
const MILLISECOND: u64 = 1_000_000;

/// The wheel. Whoever comes out of it looks at its own deadline, and goes in again if that has not passed.
pub struct Wheel {
    slots: Vec<Vec<u32>>,
    /// The millisecond that was turned to last.
    now: u64,
    due: Vec<u32>,
}

impl Wheel {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            now: 0,
            due: Vec::new(),
        }
    }

    /// Puts a connection in for a time in nanoseconds.
    pub fn insert(&mut self, connection: u32, deadline: u64) {
        let tick = (deadline / MILLISECOND + 1)
            .max(self.now + 1)
            .min(self.now + SLOTS as u64 - 1);
        self.slots[tick as usize % SLOTS].push(connection);
    }

    /// Turns to `now`, in nanoseconds, and takes out whoever may be due; hand the list back by [`Wheel::give_back`].
    pub fn turn(&mut self, now: u64) -> Vec<u32> {
        let mut due = std::mem::take(&mut self.due);
        let tick = now / MILLISECOND;
        // More than a turn at once is a turn.
        self.now = self.now.max(tick.saturating_sub(SLOTS as u64));
        while self.now < tick {
            self.now += 1;
            due.append(&mut self.slots[self.now as usize % SLOTS]);
        }
        due
    }

    /// Takes the list back, whose room is used again.
    pub fn give_back(&mut self, mut due: Vec<u32>) {
        due.clear();
        self.due = due;
    }
}

/// What a connection knows of itself in the wheel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer {
    /// Times that it is in.
    count: u16,
    /// The earliest of them, in nanoseconds.
    earliest: u64,
}

impl Timer {
    /// Whether it has to be put in to come out at `at`; it is taken for in then.
    pub fn wants(&mut self, at: u64) -> bool {
        if self.count > 0 && (self.earliest <= at || self.count == u16::MAX) {
            return false;
        }
        self.count += 1;
        self.earliest = at;
        true
    }

    /// It has come out once.
    pub fn came_out(&mut self) {
        self.count = self.count.saturating_sub(1);
        // Others may still be in; at worst it is put in once more.
        self.earliest = u64::MAX;
    }

    /// Whether it is not in at all.
    pub fn is_out(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_out_at_their_time() {
        let mut wheel = Wheel::new();
        wheel.insert(1, 5 * MILLISECOND);
        wheel.insert(2, 0);
        wheel.insert(3, 9_000 * MILLISECOND);
        assert_eq!(wheel.turn(MILLISECOND), [2]);
        assert_eq!(wheel.turn(5 * MILLISECOND), [0u32; 0]);
        let due = wheel.turn(6 * MILLISECOND);
        assert_eq!(due, [1]);
        wheel.give_back(due);
        // It comes out early, and goes in again.
        assert_eq!(wheel.turn(8_000 * MILLISECOND), [3]);
    }
}
