//! A target that does not exist: its capacity, loss and latency are known, so that it judges the methods.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::runner::{Subject, Watch};
use crate::bench::traffic::Traffic;
use crate::bench::trial::{
    BenchError, Direction, Load, Noise, Pace, Progress, Rate, Silent, StatefulLoad, StatefulResult,
    StatefulTarget, Target, TargetDescription, TrialResult,
};

/// A device that forwards so many packets a second and drops what is above.
#[derive(Clone, Debug)]
pub struct Device {
    /// Packets a second that it forwards, in each direction.
    pub capacity: f64,
    /// Share of all packets that it loses below its capacity.
    pub leak: f64,
    /// Packets that its queue holds.
    pub queue: f64,
    /// Every so many trials the host takes a share of the trial: (every, share).
    pub noise: Option<(usize, f64)>,
    /// Share of the capacity by which trials differ.
    pub jitter: f64,
    /// Idle polls of the generator.
    pub idle: f64,
    /// Trials until it dies.
    pub dies: Option<usize>,
    /// Connections that it holds.
    pub sessions: u32,
    /// Connections a second that it opens.
    pub opens: f64,
    /// Trials so far.
    pub trials: usize,
    state: u64,
}

impl Device {
    pub fn new(capacity: f64) -> Self {
        Self {
            capacity,
            leak: 0.0,
            queue: 256.0,
            noise: None,
            jitter: 0.0,
            idle: 0.5,
            dies: None,
            sessions: 10_000,
            opens: 50_000.0,
            trials: 0,
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn random(&mut self) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn noise_of_trial(&self, elapsed: f64) -> (Noise, f64) {
        match self.noise {
            Some((every, share)) if self.trials.is_multiple_of(every) => {
                let gap = elapsed * share;
                let noise = Noise {
                    gaps: 1,
                    longest_gap_ns: (gap * 1e9) as u64,
                    ..Noise::default()
                };
                (noise, gap)
            }
            _ => (Noise::default(), 0.0),
        }
    }
}

impl Target for Device {
    fn describe(&self) -> TargetDescription {
        TargetDescription {
            name: "a simulated device".into(),
            ..TargetDescription::default()
        }
    }

    fn set_traffic(&mut self, _: &Traffic) -> Result<(), BenchError> {
        Ok(())
    }

    fn trial(&mut self, load: &Load, _: &dyn Progress) -> Result<TrialResult, BenchError> {
        self.trials += 1;
        if self.dies.is_some_and(|trials| self.trials > trials) {
            return Err(BenchError::Died {
                endpoint: "a.sock".into(),
                reason: "the connection was closed".into(),
            });
        }
        let capacity = self.capacity * (1.0 + self.jitter * (2.0 * self.random() - 1.0));
        let rate = match load.rate {
            Rate::Max => capacity,
            Rate::PacketsPerSecond(rate) => rate,
        };
        let time = load
            .burst
            .map_or(load.duration.as_secs_f64(), |n| n as f64 / rate);
        let (noise, gap) = self.noise_of_trial(time);
        let offered = rate * time;
        // What arrives in a gap beyond the queue is lost, and so is what is above the capacity.
        let by_gap = (rate * gap - self.queue).max(0.0);
        let by_capacity = ((rate - capacity) * time - self.queue).max(0.0);
        let lost = match load.rate {
            Rate::Max => 0.0,
            Rate::PacketsPerSecond(_) => by_gap.max(by_capacity) + (offered * self.leak).floor(),
        };
        let (offered, lost) = (offered as u64, (lost as u64).min(offered as u64));
        let direction = |name: &str| Direction {
            name: name.into(),
            offered,
            sent: offered,
            received: offered - lost,
            lost,
            ..Direction::default()
        };
        let mut latency = Histogram::new(3).expect("a histogram");
        for step in 0..1000_u64 {
            let _ = latency.record(1_000 + step * (1.0 + rate / capacity * 10.0) as u64);
        }
        Ok(TrialResult {
            directions: vec![direction("a to b"), direction("b to a")],
            elapsed: Duration::from_secs_f64(time),
            latency,
            noise,
            generator_idle: self.idle,
            cycles_per_packet: Some(200.0),
        })
    }
}

impl StatefulTarget for Device {
    fn stateful(
        &mut self,
        load: &StatefulLoad,
        _: &dyn Progress,
    ) -> Result<StatefulResult, BenchError> {
        let seconds = load.duration.as_secs_f64();
        let (attempted, possible, most_open) = match load.pace {
            Pace::ConnectionsPerSecond(rate) => (rate * seconds, self.opens * seconds, 100),
            Pace::Concurrent(count) => (self.opens * seconds, self.opens * seconds, count.into()),
            Pace::Hold(count) => {
                let held = count.min(self.sessions);
                (f64::from(count), f64::from(self.sessions), held.into())
            }
        };
        let (attempted, established) = (attempted as u64, attempted.min(possible) as u64);
        let mut latency = Histogram::new(3).expect("a histogram");
        let _ = latency.record(20_000);
        Ok(StatefulResult {
            attempted,
            established,
            failed: attempted - established,
            completed: established,
            most_open,
            transactions: established * u64::from(load.transactions),
            bytes: established * u64::from(load.request + load.response),
            retransmitted: 0,
            elapsed: load.duration,
            connect_latency: latency.clone(),
            transaction_latency: latency,
            noise: Noise::default(),
            generator_idle: self.idle,
        })
    }
}

impl Subject for Device {
    fn stateful(&mut self) -> Option<&mut dyn StatefulTarget> {
        Some(self)
    }

    /// The queue that the overload filled empties at what the capacity has over the load.
    fn overload(
        &mut self,
        over: &Load,
        _: &Load,
        progress: &dyn Progress,
    ) -> Result<(TrialResult, Duration), BenchError> {
        let result = self.trial(over, progress)?;
        let lost = result.loss_ratio() > 0.0;
        Ok((result, Duration::from_micros(if lost { 150 } else { 0 })))
    }
}

impl Watch for Silent {
    fn trial(&self, _: &str, _: Duration, _: Duration) {}

    fn tell(&self, _: &str) {}
}
