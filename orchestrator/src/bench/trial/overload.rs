//! An overload and what follows it, without a pause: how long a target takes to recover (RFC 2544, section 26.5).

use std::time::{Duration, Instant};

use super::engine::Engine;
use super::generator::Control;
use super::noise::{Gaps, Observed};
use super::pace::Pacer;
use super::{BenchError, Load, TrialResult};

impl Engine {
    /// Sends at `over`, then at `after`. Tells how long after the change the last packet was due that was lost, or that
    /// found no room when it was due; zero if there was none. What was due before the change and found no room is lost.
    ///
    /// # Errors
    /// As [`Engine::trial`].
    pub fn overload(
        &mut self,
        over: &Load,
        after: &Load,
        control: &Control,
    ) -> Result<(TrialResult, Duration), BenchError> {
        let directions = self.begin(control)?;
        let mut first = [0, 1].map(|direction| Pacer::new(over, direction, directions));
        let before = Observed::now();
        let start = Instant::now();
        let mut gaps = Gaps::default();
        let change = over.duration.as_nanos() as u64;
        self.send_all(start, change, &mut first, &mut gaps, control)?;
        let mut second = [0, 1].map(|direction| {
            Pacer::following(after, direction, directions, change, &first[direction])
        });
        let end = change + after.duration.as_nanos() as u64;
        let polls = self.send_all(start, end, &mut second, &mut gaps, control)?;
        let elapsed = start.elapsed();
        let noise = before.until(&Observed::now(), gaps);
        self.drain(start, control)?;
        self.fresh = Some(Instant::now());
        let Some(scene) = &self.scene else {
            return Err(BenchError::Arguments("no traffic was set".into()));
        };
        let mut last = 0;
        let mut settled = Vec::new();
        for direction in 0..directions {
            let (ledger, pacer) = (&scene.ledgers[direction], &second[direction]);
            let lost = ledger.last_missing(pacer.before());
            let lost = lost.map_or(0, |number| pacer.due_after(number));
            let refused = pacer.blocked_at.map_or(0, |at| at.saturating_sub(change));
            last = last.max(lost).max(refused);
            settled.push(ledger.settle(first[direction].offered() + pacer.offered()));
        }
        let result = TrialResult {
            directions: settled,
            elapsed,
            latency: scene.latency.all(),
            noise,
            generator_idle: polls.idle(),
            cycles_per_packet: None,
        };
        Ok((result, Duration::from_nanos(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::traffic::Traffic;
    use crate::bench::trial::{Attached, GeneratorOptions, Rate, Silent, Target as _};

    /// A loop in memory loses nothing at these rates, and both phases are in the accounts.
    #[test]
    fn two_phases_are_one_trial() {
        let options = GeneratorOptions {
            core: None,
            polite: true,
        };
        let mut target = Attached::plain_loop(options).unwrap();
        target.set_traffic(&Traffic::default()).unwrap();
        let load = |rate| Load {
            rate: Rate::PacketsPerSecond(rate),
            duration: Duration::from_millis(100),
            burst: None,
        };
        let (result, _) = target.overload(&load(20e3), &load(10e3), &Silent).unwrap();
        for direction in &result.directions {
            assert_eq!(direction.offered, 3000);
            // What fell due while this machine was away at the change is not made up for.
            assert_eq!(direction.received, direction.sent);
        }
        assert!(result.elapsed >= Duration::from_millis(190));
    }
}
