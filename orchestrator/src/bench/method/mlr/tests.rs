//! Classification against the RFC's own example (RFC 9971, appendix C), and the search on its own.

use std::time::Duration;

use super::*;

fn goal(name: &str, last: u64, sum: u64, loss_ratio: f64, exceed_ratio: f64) -> Goal {
    Goal {
        name: name.into(),
        loss_ratio,
        exceed_ratio,
        width: 0.01,
        initial_trial: Duration::from_secs(1),
        final_trial: Duration::from_secs(last),
        duration_sum: Duration::from_secs(sum),
    }
}

/// The goals of the example: RFC 2544, TST009, "1s final", "20% exceed".
fn examples() -> [Goal; 4] {
    [
        goal("rfc2544", 60, 60, 0.0, 0.0),
        goal("tst009", 60, 120, 0.0, 0.5),
        goal("1s final", 1, 120, 0.005, 0.5),
        goal("20% exceed", 60, 60, 0.005, 0.2),
    ]
}

fn trials(count: usize, duration: f64, loss: f64) -> Vec<Evidence> {
    vec![
        Evidence {
            duration,
            effective: duration,
            loss,
            excused: 0.0
        };
        count
    ]
}

fn classes(trials: &[Evidence]) -> [Class; 4] {
    examples().map(|goal| {
        let (full, sum) = (
            goal.final_trial.as_secs_f64(),
            goal.duration_sum.as_secs_f64(),
        );
        goal.classify(trials, full, sum, usize::MAX)
    })
}

#[test]
fn loads_are_classified_as_the_attributes_say() {
    use Class::{Lower, Undecided, Upper};
    // Nothing measured decides nothing.
    assert_eq!(classes(&[]), [Undecided; 4]);
    // Short trials without loss are no proof.
    let mut all = trials(59, 1.0, 0.0);
    assert_eq!(classes(&all), [Undecided; 4]);
    // One more of a second with 1 % loss fails what allows no exceeding.
    all.extend(trials(1, 1.0, 0.01));
    assert_eq!(classes(&all), [Upper, Undecided, Undecided, Undecided]);
    // Sixty seconds of full length without loss meet the last goal.
    all.extend(trials(1, 60.0, 0.0));
    assert_eq!(classes(&all), [Upper, Lower, Lower, Lower]);
}

#[test]
fn a_full_trial_with_loss_fails_only_the_goals_it_exceeds() {
    use Class::{Lower, Undecided, Upper};
    let mut all = trials(1, 60.0, 0.001);
    // 0.1 % is too much where nothing may be lost, and no proof of half the time yet.
    assert_eq!(classes(&all), [Upper, Undecided, Lower, Lower]);
    all.extend(trials(1, 60.0, 0.001));
    assert_eq!(classes(&all)[1], Upper);
}

#[test]
fn noise_excuses_loss_only_as_far_as_it_goes() {
    let goal = goal("ndr", 1, 1, 0.0, 0.0);
    let trial = |loss, excused| Evidence {
        duration: 1.0,
        effective: 1.0,
        loss,
        excused,
    };
    assert_eq!(goal.side(&trial(0.0, 0.5)), Side::Low);
    assert_eq!(goal.side(&trial(0.01, 0.02)), Side::Spoiled);
    assert_eq!(goal.side(&trial(0.1, 0.02)), Side::High);
    let spoiled = [trial(0.01, 0.02); 3];
    assert_eq!(goal.classify(&spoiled, 1.0, 1.0, 4), Class::Undecided);
    assert_eq!(goal.classify(&spoiled, 1.0, 1.0, 3), Class::Spoiled);
}

#[test]
fn conditional_throughput_is_that_of_the_worst_trial_not_excused() {
    let goal = goal("1s final", 1, 4, 0.005, 0.5);
    let mut all = trials(3, 1.0, 0.0);
    all.extend(trials(2, 1.0, 0.1));
    // Half of five seconds are the three trials without loss.
    assert_eq!(goal.conditional_throughput(1e6, &all), Some(1e6));
    all.extend(trials(2, 1.0, 0.004));
    // Half of seven seconds reach into the fourth best trial, which lost 0.4 %.
    assert_eq!(goal.conditional_throughput(1e6, &all), Some(1e6 * 0.996));
    // What was never measured counts as lost.
    assert_eq!(
        goal.conditional_throughput(1e6, &trials(1, 1.0, 0.0)),
        Some(0.0)
    );
    assert_eq!(goal.conditional_throughput(1e6, &[]), None);
    // Short trials do not count.
    assert_eq!(goal.conditional_throughput(1e6, &trials(9, 0.5, 0.0)), None);
}

/// Runs a search against `loss`, the loss ratio at a load.
fn run(
    goals: Vec<Goal>,
    lowest: f64,
    highest: f64,
    loss: impl Fn(f64) -> f64,
) -> (Vec<Found>, usize) {
    let mut search = Search::new(goals, lowest, highest);
    let mut count = 0;
    while let Next::Trial { load, duration } = search.next() {
        assert!((lowest * 0.98..=highest).contains(&load), "{load}");
        assert!(search.remaining() > 0.0);
        count += 1;
        assert!(count < 2000, "the search does not end");
        search.add(
            load,
            Evidence {
                duration,
                effective: duration,
                loss: loss(load),
                excused: 0.0,
            },
        );
    }
    (search.found(), count)
}

#[test]
fn bounds_close_around_any_edge() {
    for edge in [2.0, 77.0, 1e3, 54_321.0, 900_000.0] {
        let goals = vec![goal("pdr", 1, 5, 0.005, 0.5), goal("ndr", 1, 5, 0.0, 0.5)];
        let (found, count) = run(goals, 1.0, 1e6, |load| (1.0 - edge / load).max(0.0));
        for (found, loss) in found.iter().zip([0.005, 0.0]) {
            let truth = edge / (1.0 - loss);
            let (lower, upper) = (found.lower.unwrap(), found.upper.unwrap());
            assert_eq!(found.status, Status::Regular);
            assert!(
                lower.load <= truth * 1.000_001 && truth <= upper.load,
                "{found:?} of {truth}"
            );
            assert!(1.0 - lower.load / upper.load <= 0.010_001, "{found:?}");
        }
        assert!(count < 120, "{count} trials for {edge}");
    }
}

/// The loss of a real device need not rise with the load: the search ends with a lower bound below every failure.
#[test]
fn a_hole_in_the_curve_bounds_from_below() {
    let hole = |load: f64| {
        if (400.0..500.0).contains(&load) || load > 800.0 {
            0.1
        } else {
            0.0
        }
    };
    let (found, _) = run(vec![goal("ndr", 1, 1, 0.0, 0.0)], 1.0, 1000.0, hole);
    let (lower, upper) = (found[0].lower.unwrap().load, found[0].upper.unwrap().load);
    assert!(
        lower < upper && (upper <= 810.0 && lower >= 390.0),
        "{lower} {upper}"
    );
}

#[test]
fn ends_are_told() {
    let none = run(vec![goal("ndr", 1, 1, 0.0, 0.0)], 1.0, 1000.0, |_| 1.0);
    assert_eq!((none.0[0].status, none.0[0].lower), (Status::AtLeast, None));
    let all = run(vec![goal("ndr", 1, 1, 0.0, 0.0)], 1.0, 1000.0, |_| 0.0);
    assert_eq!(all.0[0].status, Status::AtLimit);
    assert!(all.0[0].lower.unwrap().load >= 1000.0);
    let search = Search::new(vec![goal("ndr", 1, 1, 0.0, 0.0)], 1.0, 1000.0);
    assert_eq!(search.found()[0].status, Status::Stopped);
}

/// The limit was a guess: raised, the search goes on with what it knows.
#[test]
fn a_limit_can_be_raised() {
    let mut search = Search::new(vec![goal("ndr", 1, 1, 0.0, 0.0)], 1.0, 1000.0);
    let (mut count, mut raised) = (0, 0);
    loop {
        let Next::Trial { load, duration } = search.next() else {
            if search.found()[0].status != Status::AtLimit {
                break;
            }
            raised += 1;
            search.raise(1.5);
            continue;
        };
        count += 1;
        let loss = (1.0 - 5000.0 / load).max(0.0);
        search.add(
            load,
            Evidence {
                duration,
                effective: duration,
                loss,
                excused: 0.0,
            },
        );
    }
    let found = search.found()[0];
    let (lower, upper) = (found.lower.unwrap().load, found.upper.unwrap().load);
    assert!(
        lower <= 5000.0 && 5000.0 <= upper && upper / lower < 1.0102,
        "{lower} {upper}"
    );
    assert!((raised, count) < (6, 40), "{raised} {count}");
}
