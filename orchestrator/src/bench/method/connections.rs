//! TCP connections after RFC 9411: new ones a second (7.2), transactions a second (7.3), open at a time (7.5).
//!
//! A value counts if at most 0.001 % of its connections fail, as the RFC demands. The highest such
//! value is found by doubling and halving, from what a closed loop reaches where there is one.

use std::time::Duration;

use super::runner::{LEAST_IDLE, MOST_NOISE, Runner, Stop, noise_share};
use super::settings::Method;
use crate::bench::output::latency::Latency;
use crate::bench::output::record::{Connections, Outcome, Quality};
use crate::bench::trial::{Pace, StatefulLoad, StatefulResult};

/// Share of connections that may fail (RFC 9411, section 7.2.3.3).
const MOST_FAILED: f64 = 1e-5;
/// Share of the connections ordered that must at least come about.
const LEAST_REACHED: f64 = 0.99;
/// Relative width at which a search ends.
const WIDTH: f64 = 0.05;
/// Connections of a closed loop.
const LOOP: u32 = 256;

/// The result of one of the three.
pub fn run(
    runner: &mut Runner<'_>,
    method: Method,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), Stop> {
    let (found, end) = match method {
        Method::ConcurrentConnections => concurrent(runner),
        Method::Transactions => transactions(runner)?,
        _ => per_second(runner)?,
    };
    runner.expect(Duration::ZERO);
    if let Some(mut found) = found {
        found.quality.unfinished = end.is_err();
        outcomes.push(Outcome::Connections(found));
    }
    end
}

/// What was found, before a stop if there was one.
type Found = (Option<Connections>, Result<(), Stop>);

/// The load of `pace` with `transactions` requests a connection.
fn load(runner: &Runner<'_>, pace: Pace, transactions: u32) -> StatefulLoad {
    StatefulLoad {
        pace,
        duration: runner.settings.connections_trial,
        transactions,
        request: runner.settings.request,
        response: runner.settings.response,
    }
}

fn failed_share(result: &StatefulResult) -> f64 {
    result.failed as f64 / result.attempted.max(1) as f64
}

fn per_second(runner: &mut Runner<'_>) -> Result<Found, Stop> {
    let closed = load(runner, Pace::Concurrent(LOOP), 1);
    let result = runner.connect("connections a second: closed loop", &closed)?;
    let reached = result.completed as f64 / result.elapsed.as_secs_f64().max(1e-9);
    let mut search = Doubling::new(reached.max(1.0), 1e9);
    while let Some(rate) = search.next() {
        runner.expect(runner.settings.connections_trial * search.left());
        let order = load(runner, Pace::ConnectionsPerSecond(rate), 1);
        let result = match runner.connect(&format!("{rate:.0} connections a second"), &order) {
            Ok(result) => result,
            Err(stop) => return Ok((search.cut_off("connections-per-second"), Err(stop))),
        };
        let asked = rate * result.elapsed.as_secs_f64();
        search.add(rate, result, |result| {
            result.established as f64 >= LEAST_REACHED * asked
        });
    }
    Ok((
        Some(search.outcome("connections-per-second", |rate, _| rate)),
        Ok(()),
    ))
}

fn concurrent(runner: &mut Runner<'_>) -> Found {
    let most = runner.settings.most_connections.max(1);
    let mut search = Doubling::new(f64::from(most.min(1000)), f64::from(most));
    while let Some(count) = search.next() {
        let count = count.floor();
        runner.expect(runner.settings.connections_trial * search.left());
        let order = load(runner, Pace::Hold(count as u32), 1);
        let result = match runner.connect(&format!("{count:.0} connections at a time"), &order) {
            Ok(result) => result,
            Err(stop) => return (search.cut_off("concurrent-connections"), Err(stop)),
        };
        search.add(count, result, |result| result.most_open as f64 >= count);
    }
    let found = search.outcome("concurrent-connections", |count, _| count);
    (Some(found), Ok(()))
}

fn transactions(runner: &mut Runner<'_>) -> Result<Found, Stop> {
    let order = load(runner, Pace::Concurrent(LOOP), runner.settings.transactions);
    let mut search = Doubling::new(f64::from(LOOP), f64::from(LOOP));
    let result = runner.connect("transactions", &order)?;
    search.add(f64::from(LOOP), result, |_| true);
    let found = search.outcome("transactions", |_, result| {
        result.transactions as f64 / result.elapsed.as_secs_f64().max(1e-9)
    });
    Ok((Some(found), Ok(())))
}

/// A search upwards by doubling, then between by halving.
struct Doubling {
    start: f64,
    most: f64,
    good: Option<(f64, StatefulResult)>,
    bad: Option<(f64, StatefulResult)>,
    steps: Vec<(f64, f64)>,
    quality: Quality,
}

impl Doubling {
    fn new(start: f64, most: f64) -> Self {
        Self {
            start,
            most,
            good: None,
            bad: None,
            steps: Vec::new(),
            quality: Quality::default(),
        }
    }

    /// The next value to try.
    fn next(&self) -> Option<f64> {
        let good = self.good.as_ref().map(|(value, _)| *value);
        let bad = self.bad.as_ref().map(|(value, _)| *value);
        match (good, bad) {
            (None, None) => Some(self.start),
            (Some(good), None) => (good < self.most).then(|| (good * 2.0).min(self.most)),
            (None, Some(bad)) => (bad >= 2.0).then_some(bad / 2.0),
            (Some(good), Some(bad)) => {
                let near = bad - good <= (good * WIDTH).max(1.0);
                (!near).then(|| f64::midpoint(good, bad))
            }
        }
    }

    /// Trials that are left after the next one, about.
    fn left(&self) -> u32 {
        match (&self.good, &self.bad) {
            (Some((good, _)), Some((bad, _))) => {
                ((bad - good) / (good * WIDTH)).max(1.0).log2() as u32
            }
            _ => 5,
        }
    }

    fn add(
        &mut self,
        value: f64,
        result: StatefulResult,
        reached: impl Fn(&StatefulResult) -> bool,
    ) {
        let failed = failed_share(&result);
        self.steps.push((value, failed));
        if failed <= MOST_FAILED && reached(&result) {
            self.good = Some((value, result));
        } else {
            let noise = noise_share(&result.noise, result.elapsed.as_secs_f64());
            self.quality.spoiled |= noise > MOST_NOISE;
            self.bad = Some((value, result));
        }
    }

    /// What a search that was stopped had found until then.
    fn cut_off(self, method: &str) -> Option<Connections> {
        self.good.is_some().then_some(())?;
        Some(self.outcome(method, |value, _| value))
    }

    fn outcome(mut self, method: &str, value: impl Fn(f64, &StatefulResult) -> f64) -> Connections {
        let at_limit = self.bad.is_none();
        let worst = self.bad.take();
        if self.good.is_none() {
            self.quality
                .remarks
                .push("too many connections failed at every value".into());
        }
        let (found, result) = match (self.good, worst) {
            (Some((found, result)), _) => (value(found, &result), Some(result)),
            (None, worst) => (0.0, worst.map(|(_, result)| result)),
        };
        let result = result.as_ref();
        self.quality.generator_limited = result.is_some_and(|r| r.generator_idle < LEAST_IDLE);
        let seconds = result.map_or(1.0, |r| r.elapsed.as_secs_f64().max(1e-9));
        Connections {
            method: method.to_owned(),
            value: found,
            at_limit,
            goodput_bytes: result.map_or(0.0, |r| r.bytes as f64 / seconds),
            failed: result.map_or(0, |r| r.failed),
            connect: result.and_then(|r| Latency::of(&r.connect_latency)),
            transaction: result.and_then(|r| Latency::of(&r.transaction_latency)),
            steps: self.steps,
            quality: self.quality,
        }
    }
}
