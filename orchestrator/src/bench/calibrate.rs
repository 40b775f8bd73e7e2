//! What the generator itself can do, with the least behind it.

use super::loopback::Loopback;
use super::traffic::Traffic;
use super::trial::{
    Attached, BenchError, GeneratorOptions, Load, Progress, Rate, Target, TargetDescription,
    TrialResult,
};

/// Results of a calibration.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// Over a loop in memory: making, sending, receiving and checking packets, without rings. No result over rings
    /// that comes near it says anything of a target.
    pub memory: (TargetDescription, TrialResult),
    /// Over the rings of a back end in this process that only passes frames on, on a core of its own where there is
    /// one: the generator and the least that a target can cost.
    pub vhost: (TargetDescription, TrialResult),
}

/// Runs the calibration with these packets, as fast as they go, for `load`'s duration each.
///
/// # Errors
/// Traffic that can't be; the user's wish.
pub fn calibrate(
    traffic: &Traffic,
    load: &Load,
    ring: u16,
    options: GeneratorOptions,
    loopback_core: Option<usize>,
    progress: &dyn Progress,
) -> Result<Calibration, BenchError> {
    let mut traffic = traffic.clone();
    // Nobody is there who could be asked for a next hop.
    traffic
        .sides
        .iter_mut()
        .for_each(|side| side.next_hop = None);
    let load = Load {
        rate: Rate::Max,
        ..*load
    };
    let run = |mut target: Attached| {
        target.set_traffic(&traffic)?;
        let result = target.trial(&load, progress)?;
        Ok::<_, BenchError>((target.describe(), result))
    };
    let memory = run(Attached::plain_loop(options)?)?;
    let loopback = Loopback::start(1, loopback_core)?;
    let target = Attached::new("loopback", loopback.endpoints(ring), options, progress)?;
    let vhost = run(target)?;
    Ok(Calibration { memory, vhost })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::trial::Silent;
    use std::time::Duration;

    #[test]
    fn the_ceiling_is_shown_with_and_without_rings() {
        let load = Load {
            rate: Rate::Max,
            duration: Duration::from_millis(50),
            burst: None,
        };
        let options = GeneratorOptions {
            core: None,
            polite: true,
        };
        let traffic = Traffic::default();
        let result = calibrate(&traffic, &load, 256, options, None, &Silent).unwrap();
        for (target, result) in [result.memory, result.vhost] {
            let received: u64 = result.directions.iter().map(|d| d.received).sum();
            assert!(received > 100, "{target:?} {result:?}");
        }
    }
}
