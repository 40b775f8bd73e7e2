//! Methods against a device whose capacity is known.

use super::sim::Device;
use super::*;
use crate::bench::output::record::{Connections, GoalOutcome};
use crate::bench::suite::file::Measuring;
use crate::bench::trial::{BenchError, Silent};
use std::time::Duration;

fn measure(device: &mut Device, settings: &Settings) -> (Vec<Outcome>, usize) {
    let mut outcomes = Vec::new();
    let mut runner = Runner::new(device, settings, &Silent);
    run(&mut runner, &mut outcomes).expect("a result");
    let trials = runner.trials.len();
    (outcomes, trials)
}

fn quick(methods: &[Method]) -> Settings {
    Settings::new(Effort::Quick, methods)
}

fn goal<'o>(outcomes: &'o [Outcome], name: &str) -> &'o GoalOutcome {
    let named = outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Goal(goal) if goal.goal.name == name => Some(goal),
        _ => None,
    });
    named.unwrap_or_else(|| panic!("no {name} in {outcomes:#?}"))
}

#[test]
fn rates_are_those_of_the_device() {
    for effort in [Effort::Quick, Effort::Standard, Effort::Rfc2544] {
        for capacity in [60e3, 800e3, 7.3e6, 14.88e6] {
            let settings = Settings::new(effort, &[Method::Mrr, Method::Ndr, Method::Pdr]);
            let (outcomes, trials) = measure(&mut Device::new(capacity), &settings);
            assert!(trials < 250, "{trials} trials for {effort:?}");
            let width = settings.goals[0].width;
            for (name, loss) in [("ndr", 0.0), ("pdr", 0.005)] {
                let goal = goal(&outcomes, name);
                let (lower, upper) = (goal.lower.unwrap(), goal.upper.unwrap());
                // The queue takes a little more than the capacity for the length of a trial.
                let queue = 256.0 / settings.goals[0].final_trial.as_secs_f64();
                let truth = 2.0 * capacity / (1.0 - loss);
                let most = 2.0 * (capacity + queue) / (1.0 - loss);
                assert!(
                    lower <= most * 1.0001,
                    "{name} {effort:?}: {lower} of {truth}"
                );
                assert!(
                    upper >= truth * 0.9999,
                    "{name} {effort:?}: {upper} of {truth}"
                );
                assert!(
                    (upper - lower) / upper <= width * 1.0001,
                    "{name}: {lower} to {upper}"
                );
                assert_eq!(goal.quality, Quality::default());
                let conditional = goal.conditional_throughput.unwrap();
                assert!(conditional <= lower && conditional >= lower * (1.0 - loss));
            }
            let Outcome::Mrr(mrr) = &outcomes[0] else {
                panic!("{outcomes:#?}")
            };
            assert!((mrr.rate.median / (2.0 * capacity) - 1.0).abs() < 1e-3);
        }
    }
}

#[test]
fn a_quick_search_takes_less_than_a_minute() {
    let settings = quick(&[Method::Mrr, Method::Ndr, Method::Pdr, Method::Latency]);
    let mut device = Device::new(5e6);
    let mut outcomes = Vec::new();
    let mut runner = Runner::new(&mut device, &settings, &Silent);
    run(&mut runner, &mut outcomes).expect("a result");
    let seconds: f64 = runner.trials.iter().map(|trial| trial.duration_s).sum();
    assert!(
        seconds < 45.0,
        "{seconds} s in {} trials",
        runner.trials.len()
    );
}

/// Gaps in every third trial cost packets; the zero-loss rate is found all the same.
#[test]
fn noise_does_not_lower_the_rates() {
    let mut device = Device::new(2e6);
    device.noise = Some((3, 0.01));
    let (outcomes, trials) = measure(&mut device, &quick(&[Method::Ndr, Method::Pdr]));
    for name in ["ndr", "pdr"] {
        let goal = goal(&outcomes, name);
        assert!(goal.lower.unwrap() > 4e6 * 0.97, "{goal:#?}");
        assert!(!goal.quality.spoiled, "{goal:#?}");
    }
    assert!(trials < 120, "{trials}");
}

/// When every trial is disturbed no zero-loss rate is quoted, and the search still ends.
#[test]
fn a_host_that_is_never_quiet_spoils_the_ndr() {
    let mut device = Device::new(2e6);
    device.noise = Some((1, 0.01));
    let (outcomes, trials) = measure(&mut device, &quick(&[Method::Ndr]));
    assert!(goal(&outcomes, "ndr").quality.spoiled);
    assert!(trials < 400, "{trials}");
}

#[test]
fn a_device_that_varies_gets_bounds_all_the_same() {
    let mut device = Device::new(3e6);
    device.jitter = 0.03;
    let (outcomes, trials) = measure(&mut device, &quick(&[Method::Ndr, Method::Pdr]));
    let lower = goal(&outcomes, "ndr").lower.unwrap();
    assert!((6e6 * 0.95..6e6 * 1.05).contains(&lower), "{lower}");
    assert!(trials < 200, "{trials}");
}

#[test]
fn a_device_that_always_loses_has_a_pdr_and_no_ndr() {
    let mut device = Device::new(2e6);
    device.leak = 0.001;
    let (outcomes, _) = measure(&mut device, &quick(&[Method::Ndr, Method::Pdr]));
    let ndr = goal(&outcomes, "ndr");
    assert!(ndr.lower.is_none_or(|lower| lower < 5_000.0), "{ndr:#?}");
    assert!(goal(&outcomes, "pdr").lower.unwrap() > 3.8e6);
}

#[test]
fn a_limit_that_the_device_meets_is_said_to_be_one() {
    let mut settings = quick(&[Method::Ndr, Method::Throughput]);
    settings.highest = Some(1e6);
    let (outcomes, trials) = measure(&mut Device::new(9e6), &settings);
    let ndr = goal(&outcomes, "ndr");
    assert!(
        ndr.at_limit && ndr.lower == Some(2e6) && ndr.upper.is_none(),
        "{ndr:#?}"
    );
    assert!(trials < 10, "{trials}");
}

#[test]
fn repeated_searches_have_an_interval() {
    let mut settings = quick(&[Method::Pdr, Method::Throughput]);
    settings.searches = 4;
    let mut device = Device::new(3e6);
    device.jitter = 0.1;
    let (outcomes, _) = measure(&mut device, &settings);
    let estimate = goal(&outcomes, "pdr").searches.clone().unwrap();
    assert_eq!(estimate.count, 4);
    assert!(estimate.low.unwrap() <= estimate.mean && estimate.mean < estimate.high.unwrap());
}

#[test]
fn halving_finds_the_throughput() {
    let (outcomes, trials) = measure(&mut Device::new(4e6), &quick(&[Method::Throughput]));
    let Outcome::Throughput(found) = &outcomes[0] else {
        panic!("{outcomes:#?}")
    };
    let rate = found.rate.unwrap();
    assert!((8e6 * 0.98..8e6 * 1.002).contains(&rate), "{rate}");
    assert!(trials < 12, "{trials}");
}

#[test]
fn loss_falls_with_the_load_and_ends_at_none() {
    let (outcomes, _) = measure(&mut Device::new(4e6), &quick(&[Method::FrameLoss]));
    let Outcome::FrameLoss(curve) = &outcomes[0] else {
        panic!("{outcomes:#?}")
    };
    let loss: Vec<f64> = curve.points.iter().map(|point| point.loss_ratio).collect();
    assert!(
        loss[0] > 0.19 && loss.windows(2).all(|w| w[0] >= w[1]),
        "{loss:?}"
    );
    assert_eq!(&loss[loss.len() - 2..], [0.0, 0.0]);
}

/// A queue of 256 packets, filled at twice the ceiling of 1.25 times the capacity.
#[test]
fn a_burst_measures_the_queue() {
    let mut settings = quick(&[Method::Throughput, Method::BackToBack]);
    settings.repetitions = 3;
    let (outcomes, _) = measure(&mut Device::new(4e6), &settings);
    let Outcome::BackToBack(found) = &outcomes[1] else {
        panic!("{outcomes:#?}")
    };
    let buffer = found.corrected_s * found.burst_load;
    assert!(
        (240.0..260.0).contains(&buffer),
        "{buffer} packets: {found:#?}"
    );
    assert!(!found.at_limit);
}

#[test]
fn recovery_is_timed_from_the_end_of_the_overload() {
    let (outcomes, _) = measure(
        &mut Device::new(4e6),
        &quick(&[Method::Ndr, Method::Recovery]),
    );
    let Outcome::Recovery(found) = &outcomes[1] else {
        panic!("{outcomes:#?}")
    };
    assert_eq!((found.time_s.mean, found.time_s.count), (150e-6, 5));
    assert!(found.overload_load > 4e6 && found.after_load < 4e6);
}

#[test]
fn latency_is_measured_at_shares_of_the_ndr() {
    let (outcomes, _) = measure(
        &mut Device::new(4e6),
        &quick(&[Method::Ndr, Method::Latency]),
    );
    let Outcome::Latency(found) = &outcomes[1] else {
        panic!("{outcomes:#?}")
    };
    assert_eq!(found.reference, "ndr");
    let shares: Vec<f64> = found.points.iter().map(|point| point.share).collect();
    assert_eq!(shares, [0.1, 0.5, 0.9]);
    let medians: Vec<u64> = found.points.iter().map(|point| point.latency.p50).collect();
    assert!(
        medians.is_sorted() && medians[0] < medians[2],
        "{medians:?}"
    );
}

#[test]
fn a_soak_tells_its_slices() {
    let mut settings = quick(&[Method::Soak]);
    settings.load = Some(1e6);
    let (outcomes, _) = measure(&mut Device::new(4e6), &settings);
    let Outcome::Soak(soak) = &outcomes[0] else {
        panic!("{outcomes:#?}")
    };
    assert_eq!(soak.slices.len(), 60);
    assert!(soak.loss_ratio == 0.0 && soak.latency.as_ref().unwrap().count == 60_000);
}

/// What a user asks of a soak, on a device that carries four million packets a second.
fn soak_at(load: &str, methods: &[Method], device: &mut Device) -> Result<Vec<Outcome>, Stop> {
    let asked = Measuring {
        load: Some(load.parse().expect("a load")),
        ..Measuring::default()
    };
    let settings = asked.settings(methods);
    let mut outcomes = Vec::new();
    let mut runner = Runner::new(device, &settings, &Silent);
    run(&mut runner, &mut outcomes).map(|()| outcomes)
}

#[test]
fn a_soak_at_a_share_goes_by_the_rate_that_was_found() {
    for (methods, name) in [
        (&[Method::Pdr, Method::Soak][..], "pdr"),
        (&[Method::Ndr, Method::Pdr, Method::Soak], "ndr"),
        (&[Method::Throughput, Method::Soak], "throughput"),
        // Where no method finds a rate one is added.
        (&[Method::Soak], "pdr"),
        (&[Method::Mrr, Method::Soak], "pdr"),
    ] {
        let outcomes = soak_at("70%", methods, &mut Device::new(4e6)).expect("results");
        let figures = outcomes.iter().filter_map(Outcome::figure);
        let mut named = figures.filter(|figure| figure.name == name);
        let found = named.next().expect("a rate").rate;
        let Some(Outcome::Soak(soak)) = outcomes.last() else {
            panic!("{outcomes:#?}")
        };
        assert_eq!(soak.reference.as_deref(), Some(name), "{methods:?}");
        assert_eq!(soak.share, Some(0.7));
        assert!((soak.offered / found - 0.7).abs() < 1e-6, "{soak:#?}");
    }
}

#[test]
fn latency_at_a_share_is_measured_there_alone() {
    let methods = [Method::Pdr, Method::Latency];
    let outcomes = soak_at("70%", &methods, &mut Device::new(4e6)).expect("results");
    let Some(Outcome::Latency(found)) = outcomes.last() else {
        panic!("{outcomes:#?}")
    };
    let shares: Vec<f64> = found.points.iter().map(|point| point.share).collect();
    assert_eq!((found.reference.as_str(), shares), ("pdr", vec![0.7]));
}

#[test]
fn a_share_of_nothing_is_an_error() {
    let settings = quick(&[Method::Soak]);
    let mut device = Device::new(4e6);
    let runner = Runner::new(&mut device, &settings, &Silent);
    match whole(&runner, &[], 0.7) {
        Err(Stop::Failed(error)) => assert!(error.to_string().contains("70 %"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_soak_tells_what_the_host_did_meanwhile() {
    let mut device = Device::new(4e6);
    device.noise = Some((2, 0.001));
    let outcomes = soak_at("1M", &[Method::Soak], &mut device).expect("results");
    let Outcome::Soak(soak) = &outcomes[0] else {
        panic!("{outcomes:#?}")
    };
    // A gap of a millisecond in every other slice of a second.
    assert_eq!((soak.noise.gaps, soak.reference.as_deref()), (30, None));
    assert_eq!(soak.noise.longest_gap_ns, 1_000_000);
    assert!((soak.noise.share - 0.0005).abs() < 1e-9, "{soak:#?}");
    assert!((soak.doubtful_share - 0.001).abs() < 1e-9);
}

/// A limit ends searches, not a soak; who plans a run in parts must know.
#[test]
fn a_soak_costs_its_whole_time() {
    let settings = quick(&[Method::Pdr, Method::Soak]);
    let whole = settings.whole_cost();
    assert!(whole >= settings.soak + Duration::from_secs(5), "{whole:?}");
}

fn connections(method: Method) -> Connections {
    let (outcomes, _) = measure(&mut Device::new(4e6), &quick(&[method]));
    let Outcome::Connections(found) = &outcomes[0] else {
        panic!("{outcomes:#?}")
    };
    found.clone()
}

#[test]
fn connections_are_those_that_the_device_takes() {
    let rate = connections(Method::ConnectionsPerSecond);
    assert!((47_000.0..=50_500.0).contains(&rate.value), "{rate:#?}");
    let held = connections(Method::ConcurrentConnections);
    assert!((9_500.0..=10_000.0).contains(&held.value), "{held:#?}");
    assert!(connections(Method::Transactions).value > 0.0);
}

#[test]
fn a_slow_generator_is_named() {
    let mut device = Device::new(4e6);
    device.idle = 0.05;
    let (outcomes, _) = measure(&mut device, &quick(&[Method::Mrr, Method::Pdr]));
    let Outcome::Mrr(mrr) = &outcomes[0] else {
        panic!("{outcomes:#?}")
    };
    assert!(mrr.quality.generator_limited && goal(&outcomes, "pdr").quality.generator_limited);
}

#[test]
fn what_was_found_before_a_target_dies_is_kept() {
    let settings = quick(&[Method::Mrr, Method::Pdr]);
    let mut device = Device::new(4e6);
    device.dies = Some(12);
    let mut outcomes = Vec::new();
    let mut runner = Runner::new(&mut device, &settings, &Silent);
    let stop = run(&mut runner, &mut outcomes).expect_err("it died");
    assert!(matches!(stop, Stop::Failed(_)));
    assert!(matches!(outcomes[0], Outcome::Mrr(_)));
    assert_eq!(runner.trials.len(), 12);
}

/// What was found before a target dies is kept, and marked.
#[test]
fn a_target_that_dies_leaves_what_was_found() {
    for (method, dies) in [
        (Method::Mrr, 3),
        (Method::FrameLoss, 4),
        (Method::Soak, 6),
        (Method::Latency, 3),
        (Method::Throughput, 6),
        (Method::BackToBack, 30),
    ] {
        let mut device = Device::new(1e6);
        device.dies = Some(dies);
        let (settings, mut outcomes) = (quick(&[method]), Vec::new());
        let mut runner = Runner::new(&mut device, &settings, &Silent);
        let end = run(&mut runner, &mut outcomes);
        assert!(matches!(end, Err(Stop::Failed(_))), "{method:?}");
        assert_eq!(outcomes.len(), 1, "{method:?}");
        let latency = matches!(outcomes[0], Outcome::Latency(_));
        assert!(latency || outcomes[0].quality().unfinished, "{outcomes:#?}");
    }
}

/// A target that lets openings through and nothing else is told before anything is measured.
#[test]
fn a_target_that_carries_no_load_is_told() {
    let mut device = Device::new(0.0);
    let (settings, mut outcomes) = (quick(&[Method::Mrr]), Vec::new());
    let mut runner = Runner::new(&mut device, &settings, &Silent);
    match run(&mut runner, &mut outcomes) {
        Err(Stop::Failed(BenchError::Blocked { hint, .. })) => {
            assert!(hint.is_some_and(|hint| hint.contains("MTU")));
        }
        other => panic!("{other:?}"),
    }
}
