//! Who has come: one direction's accounts.

use super::Direction;

/// Sequence numbers that are remembered, a power of two: how much later than its followers a packet may come. At ten
/// million packets a second that is six seconds.
const WINDOW: u64 = 1 << 26;

/// One direction's accounts. Sequence numbers on the wire have 32 bits; they are completed by the highest seen.
pub struct Ledger {
    /// Counts so far; what was offered and lost is settled at the end.
    pub counts: Direction,
    /// A bit for each number of the window.
    come: Vec<u64>,
    /// The number after the highest that has come.
    next: u64,
    /// Damaged packets of which nobody knows which they were.
    nameless: u64,
    /// Damaged packets that came before any good copy.
    damaged: u64,
}

/// What is wrong with a packet that has a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Wrong bytes.
    Damaged,
    /// Intact, with other addresses or ports than expected.
    Mistranslated,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            counts: Direction::default(),
            come: vec![0; (WINDOW / 64) as usize],
            next: 0,
            nameless: 0,
            damaged: 0,
        }
    }

    /// Forgets everything, for the next trial of the direction `name`.
    pub fn clear(&mut self, name: &str) {
        let used = (self.next.div_ceil(64) as usize).min(self.come.len());
        self.come[..used].fill(0);
        (self.next, self.nameless, self.damaged) = (0, 0, 0);
        self.counts = Direction {
            name: name.to_owned(),
            ..Direction::default()
        };
    }

    /// Enters a packet; true if it is intact and the first copy.
    #[inline]
    pub fn enter(&mut self, sequence: u32, bytes: usize, fault: Option<Fault>) -> bool {
        let number = self.complete(sequence);
        // What was never sent can't come; a stamp that says so was made by somebody else.
        if number >= self.counts.sent || number + WINDOW - 64 < self.next {
            self.counts.unexpected += 1;
            return false;
        }
        self.advance(number);
        let (cell, bit) = ((number % WINDOW / 64) as usize, 1 << (number % 64));
        if self.come[cell] & bit != 0 {
            self.counts.duplicated += 1;
            return false;
        }
        self.come[cell] |= bit;
        match fault {
            None => {
                self.counts.received += 1;
                self.counts.received_bytes += bytes as u64;
                return true;
            }
            Some(Fault::Damaged) => self.damaged += 1,
            Some(Fault::Mistranslated) => self.counts.mistranslated += 1,
        }
        false
    }

    /// Enters a damaged packet without a stamp that can be read.
    pub fn enter_nameless(&mut self) {
        self.nameless += 1;
    }

    /// All 64 bits of a number.
    #[inline]
    fn complete(&self, sequence: u32) -> u64 {
        let behind = (self.next as u32).wrapping_sub(sequence) as i32;
        self.next.saturating_add_signed(-i64::from(behind))
    }

    /// Moves the window on to hold `number`.
    #[inline]
    fn advance(&mut self, number: u64) {
        if number < self.next {
            return;
        }
        // Cells that now stand for later numbers than they did. Each is cleared when the window first reaches it.
        let (old, new) = (self.next.div_ceil(64), number / 64 + 1);
        let cells = self.come.len() as u64;
        for cell in old..new.min(old + cells) {
            self.come[(cell % cells) as usize] = 0;
        }
        self.next = number + 1;
    }

    /// The highest number from `first` on that was sent and has not come, as far back as the window reaches.
    pub fn last_missing(&self, first: u64) -> Option<u64> {
        let sent = self.counts.sent;
        let first = first.max(sent.saturating_sub(WINDOW - 64));
        (first..sent).rev().find(|&number| {
            number >= self.next
                || self.come[(number % WINDOW / 64) as usize] & (1 << (number % 64)) == 0
        })
    }

    /// Packets that have come in any shape, each counted once.
    pub fn arrived(&self) -> u64 {
        self.counts.received + self.counts.mistranslated + self.damaged + self.nameless
    }

    /// The account at the end, of `offered` packets.
    pub fn settle(&self, offered: u64) -> Direction {
        let mut counts = self.counts.clone();
        counts.offered = offered.max(counts.sent);
        counts.corrupted = self.damaged + self.nameless;
        counts.lost = counts.offered.saturating_sub(self.arrived());
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn agrees_with_a_set(arrivals in proptest::collection::vec((0u64..3000, 0u8..3), 1..4000), shift in 0u64..200) {
            let mut ledger = Ledger::new();
            ledger.clear("a");
            ledger.counts.sent = 4000 + shift;
            let (mut seen, mut good, mut twice) = (HashSet::new(), 0, 0);
            for (at, (number, kind)) in arrivals.iter().enumerate() {
                // Numbers grow with time, as they do.
                let number = (number % 200 + at as u64 / 2 + shift).min(3999);
                let fault = (*kind == 2).then_some(Fault::Damaged);
                let first = seen.insert(number);
                twice += u64::from(!first);
                good += u64::from(first && fault.is_none());
                prop_assert_eq!(ledger.enter(number as u32, 64, fault), first && fault.is_none());
            }
            let account = ledger.settle(4000 + shift);
            prop_assert_eq!(account.received, good);
            prop_assert_eq!(account.duplicated, twice);
            prop_assert_eq!(account.lost, 4000 + shift - seen.len() as u64);
            prop_assert_eq!(account.received + account.lost + account.corrupted, account.offered);
        }
    }

    #[test]
    fn the_last_missing_is_found() {
        let mut ledger = Ledger::new();
        ledger.counts.sent = 1000;
        for number in (0..1000).filter(|n| ![5, 700, 998].contains(n)) {
            ledger.enter(number, 64, None);
        }
        assert_eq!(ledger.last_missing(0), Some(998));
        assert!(ledger.enter(998, 64, None));
        assert_eq!(ledger.last_missing(6), Some(700));
        assert_eq!(ledger.last_missing(701), None);
        ledger.counts.sent = 1002;
        assert_eq!(ledger.last_missing(0), Some(1001));
    }

    #[test]
    fn numbers_beyond_32_bits_go_on() {
        let mut ledger = Ledger::new();
        ledger.counts.sent = u64::MAX;
        let start = u64::from(u32::MAX) - 100;
        ledger.next = start;
        for number in start..start + 200 {
            assert!(ledger.enter(number as u32, 64, None), "{number}");
        }
        assert!(!ledger.enter((start + 3) as u32, 64, None));
        assert_eq!(ledger.counts.duplicated, 1);
    }
}
