//! Whose turn it is: which ports a poll asks for packets.
//!
//! A port that brought nothing for many turns rests: it is asked in every second turn, in every fourth, and so on up
//! to [`LONGEST_REST`], so that a hundred idle guests cost a busy one next to nothing. It is asked in every turn again
//! as soon as it brought something. Ports that rest take turns, so that no turn asks all of them.
//!
//! A port whose packets run the stages takes more time than one whose packets are replayed. What it takes above a share
//! of each turn it owes, and sits out turns until that is made good, its packets waiting in its own ring, unless nobody
//! else brings anything. So a flood of new flows on one port leaves the others most of the time.

use std::time::Duration;

use crate::time::Time;

/// Turns from one question to the next at most, for a port that rests: what its next packet may wait longer than
/// without. Nor does it wait for more than [`LONGEST_REST_TIME`], however long the turns are.
pub const LONGEST_REST: u32 = 32;

/// As [`LONGEST_REST`], in time.
pub const LONGEST_REST_TIME: Duration = Duration::from_nanos((LONGEST_REST as u64) << TICK);

/// Turns without a packet after which a port rests, and rests twice as long.
const PATIENCE: u8 = 32;
/// Packets of one port that run the stages in a turn, on average, while other ports bring something.
pub const STAGED_SHARE: u32 = 8;

/// Logarithm of a tick's nanoseconds: ticks count turns as long as those are shorter, else time.
const TICK: u32 = 11;

/// How one port rests.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// Ticks from one question to the next, less one; a power of two, less one.
    mask: u8,
    /// Questions in vain since the mask last changed.
    vain: u8,
}

/// What a port owes to the others.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Packets that ran the stages above its share.
    debt: u32,
    /// It sits out this turn.
    out: bool,
}

/// The turns of all ports.
#[derive(Debug, Default)]
pub(crate) struct Rota {
    rests: Vec<Rest>,
    accounts: Vec<Account>,
    /// Ticks until now.
    now: u32,
    /// Ticks of this turn.
    ticks: u32,
    /// The clock at the last turn.
    clock: u64,
    everyone: bool,
}

impl Rota {
    /// The turns of so many.
    pub(crate) fn of(ports: usize) -> Self {
        let mut rota = Self::default();
        (0..ports).for_each(|_| rota.add());
        rota
    }

    /// Adds a port; ports are numbered in the order they are added.
    pub(crate) fn add(&mut self) {
        self.rests.push(Rest::default());
        self.accounts.push(Account::default());
    }

    /// Has the next turn ask every port.
    pub(crate) fn ask_everyone(&mut self) {
        self.everyone = true;
    }

    /// Begins a turn.
    #[inline]
    pub(crate) fn begin(&mut self, now: Time) {
        let clock = now.0 >> TICK;
        let passed = clock.wrapping_sub(self.clock).min(LONGEST_REST.into()) as u32;
        self.clock = clock;
        self.ticks = if std::mem::take(&mut self.everyone) {
            u32::MAX
        } else {
            passed.max(1)
        };
        self.now = self.now.wrapping_add(self.ticks);
    }

    /// Whether a port is asked in this turn.
    #[inline]
    pub(crate) fn asks(&self, port: usize) -> bool {
        let mask = u32::from(self.rests[port].mask);
        // One of this turn's ticks is a multiple of the port's interval, shifted by its number.
        self.now.wrapping_add(port as u32) & mask < self.ticks
    }

    /// Whether a port that would be asked sits out this turn, to make good what it owes.
    #[inline]
    pub(crate) fn sits_out(&mut self, port: usize) -> bool {
        let account = &mut self.accounts[port];
        account.out = account.debt > 0;
        account.debt = account.debt.saturating_sub(STAGED_SHARE);
        account.out
    }

    /// Nobody else brought anything: a port that sat out owes nothing any more. True if it did.
    #[inline]
    pub(crate) fn forgive(&mut self, port: usize) -> bool {
        let account = &mut self.accounts[port];
        let sat_out = account.out;
        if sat_out {
            *account = Account::default();
        }
        sat_out
    }

    /// Notes how many of a port's packets ran the stages in this turn.
    #[inline]
    pub(crate) fn charge(&mut self, port: usize, staged: u32) {
        let debt = &mut self.accounts[port].debt;
        *debt = debt.saturating_add(staged.saturating_sub(STAGED_SHARE));
    }

    /// Notes that a port brought something.
    #[inline]
    pub(crate) fn brought(&mut self, port: usize) {
        self.rests[port] = Rest::default();
    }

    /// Notes that a port was asked in vain; it rests longer only if it `may`.
    #[inline]
    pub(crate) fn asked_in_vain(&mut self, port: usize, may: impl FnOnce() -> bool) {
        let rest = &mut self.rests[port];
        rest.vain += 1;
        if rest.vain == PATIENCE {
            rest.vain = 0;
            if u32::from(rest.mask) + 1 < LONGEST_REST && may() {
                rest.mask = 2 * rest.mask + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lets a turn pass in which nobody brings anything; tells who was asked.
    fn turn(rota: &mut Rota, now: Time) -> Vec<usize> {
        rota.begin(now);
        let asked: Vec<_> = (0..rota.rests.len())
            .filter(|port| rota.asks(*port))
            .collect();
        for port in &asked {
            rota.asked_in_vain(*port, || true);
        }
        asked
    }

    /// A rota of which all ports rest as long as can be, at time 0.
    fn rested(ports: usize) -> Rota {
        let mut rota = Rota::of(ports);
        while rota
            .rests
            .iter()
            .any(|rest| u32::from(rest.mask) + 1 < LONGEST_REST)
        {
            turn(&mut rota, Time(0));
        }
        rota
    }

    #[test]
    fn a_port_is_asked_every_turn_until_it_was_asked_often_in_vain() {
        let mut rota = Rota::of(2);
        for _ in 0..PATIENCE {
            assert_eq!(turn(&mut rota, Time(0)), [0, 1]);
        }
        let asked: usize = (0..100).map(|_| turn(&mut rota, Time(0)).len()).sum();
        assert_eq!(asked, 64 + (100 - 64) / 2);
    }

    #[test]
    fn ports_that_rest_share_the_turns_out() {
        let mut rota = rested(64);
        for _ in 0..50 {
            assert_eq!(turn(&mut rota, Time(0)).len(), 64 / LONGEST_REST as usize);
        }
    }

    #[test]
    fn what_brought_something_is_asked_every_turn_again() {
        let mut rota = rested(3);
        rota.brought(1);
        for _ in 0..PATIENCE {
            assert!(turn(&mut rota, Time(0)).contains(&1));
        }
    }

    #[test]
    fn everyone_is_asked_where_that_is_wanted_and_in_that_turn_only() {
        let mut rota = rested(32);
        rota.ask_everyone();
        assert_eq!(turn(&mut rota, Time(0)).len(), 32);
        assert_eq!(turn(&mut rota, Time(0)).len(), 32 / LONGEST_REST as usize);
    }

    #[test]
    fn who_may_not_rest_does_not() {
        let mut rota = Rota::of(1);
        for _ in 0..1000 {
            rota.begin(Time(0));
            assert!(rota.asks(0));
            rota.asked_in_vain(0, || false);
        }
    }

    proptest! {
        /// However long turns are: nobody waits for more turns than told, nor for longer, but for the turn that runs.
        #[test]
        fn nobody_waits_longer_than_told(turns in prop::collection::vec(0u64..40_000, 1..400)) {
            let mut rota = rested(5);
            let mut now = 0;
            let mut asked = [(0, 0); 5];
            turn(&mut rota, Time(0));
            for (number, took) in turns.into_iter().enumerate() {
                let before = now;
                now += took;
                for port in turn(&mut rota, Time(now)) {
                    asked[port] = (number, now);
                }
                for (turn, time) in asked {
                    prop_assert!(number - turn < LONGEST_REST as usize);
                    prop_assert!(Duration::from_nanos(before.saturating_sub(time)) <= LONGEST_REST_TIME);
                }
            }
        }
    }
}
