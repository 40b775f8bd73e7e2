//! What a run with tasks has proved.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use chainplane_dataplane::stats::Snapshot;

use crate::guest::{Guests, TaskResult};
use crate::spec::file::Task;
use crate::table::{Totals, number};

/// One thing that was to be proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Whether it was.
    pub held: bool,
    /// What, and what was seen.
    pub text: String,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.held { "ok  " } else { "FAIL" };
        write!(f, "{mark}  {}", self.text)
    }
}

/// What guests and counters prove, after all guests and workers have stopped.
pub fn proofs(guests: &Guests, snapshots: &[Snapshot]) -> Vec<Proof> {
    let results = guests.results();
    let mut proofs = vec![tasks(guests.tasks(), results, guests.failures())];
    proofs.extend(pings(results));
    for result in results {
        proofs.extend(servers(result));
        proofs.extend(sights(result));
    }
    proofs.extend(denials(results, snapshots));
    proofs.push(conservation(snapshots));
    proofs
}

fn proof(held: bool, text: String) -> Proof {
    Proof { held, text }
}

/// Every task was done, and came out as expected.
fn tasks(all: usize, results: &[TaskResult], failures: &[String]) -> Proof {
    let met = results.iter().filter(|result| result.met()).count();
    let mut text = format!("{met} of {all} tasks went as expected");
    for failure in failures {
        let _ = write!(text, "; {failure}");
    }
    proof(met == all && failures.is_empty(), text)
}

/// Pings that were to be answered were.
fn pings(results: &[TaskResult]) -> Option<Proof> {
    let wanted = |r: &&TaskResult| matches!(r.task, Task::Ping(_)) && !r.is_denial();
    let pings: Vec<_> = results.iter().filter(wanted).collect();
    let answered: u32 = pings.iter().map(|r| r.answered).sum();
    let sent: u32 = pings.iter().map(|r| r.answered + r.unanswered).sum();
    let text = format!("ping crossed: {answered} of {sent} answered");
    (!pings.is_empty()).then(|| proof(answered == sent, text))
}

/// Every server that was to serve did.
fn servers(result: &TaskResult) -> Option<Proof> {
    let Task::Fetch(fetch) = &result.task else {
        return None;
    };
    let wanted = &fetch.served_by;
    let count = |name: &String| result.servers.get(name).copied().unwrap_or(0);
    let counts: Vec<_> = wanted
        .iter()
        .map(|name| format!("{name} {}", count(name)))
        .collect();
    let held = wanted.iter().all(|name| count(name) > 0);
    let text = format!("{} was served by {}", fetch.from, counts.join(", "));
    (!wanted.is_empty()).then(|| proof(held, text))
}

/// Servers saw the address that they were to see, and no other.
fn sights(result: &TaskResult) -> Option<Proof> {
    let Task::Fetch(fetch) = &result.task else {
        return None;
    };
    let wanted = fetch.seen_as?;
    let held = result.seen_as.keys().eq([&wanted]);
    let seen: Vec<_> = result.seen_as.keys().map(IpAddr::to_string).collect();
    let seen = if seen.is_empty() {
        "nobody".to_owned()
    } else {
        seen.join(", ")
    };
    let text = format!("{} saw {} as {seen}", fetch.from, result.guest);
    Some(proof(held, text))
}

/// What was denied in silence was dropped by a function, and counted.
fn denials(results: &[TaskResult], snapshots: &[Snapshot]) -> Option<Proof> {
    let denials = results.iter().filter(|result| result.is_denial());
    let silent: u32 = denials.map(|r| r.unanswered - r.refused).sum();
    let totals = Totals::of(snapshots);
    if silent == 0 || totals.functions.is_empty() {
        return None;
    }
    let dropped = totals.dropped_by_functions();
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let of_functions = |place: &str| totals.functions.iter().any(|f| f.name == place);
    for drops in totals.drops.iter().filter(|d| of_functions(&d.place)) {
        let reason = format!("{} {}", drops.reason, number(drops.packets));
        places.entry(&drops.place).or_default().push(reason);
    }
    let places: Vec<_> = places
        .iter()
        .map(|(place, reasons)| format!("{place}: {}", reasons.join(", ")))
        .collect();
    let places = if places.is_empty() {
        "nobody".to_owned()
    } else {
        places.join("; ")
    };
    let text = format!("{silent} denied in silence; dropped and counted by {places}");
    Some(proof(dropped >= u64::from(silent), text))
}

/// No packet came from nowhere or went there.
fn conservation(snapshots: &[Snapshot]) -> Proof {
    let unbalanced = snapshots.iter().find_map(|s| s.check_conservation().err());
    if let Some(unbalanced) = unbalanced {
        return proof(false, format!("conservation law: {unbalanced}"));
    }
    let totals = Totals::of(snapshots);
    let text = format!(
        "every packet is accounted for: {} in, {} out, {} dropped",
        number(totals.received()),
        number(totals.sent()),
        number(totals.dropped())
    );
    proof(true, text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chainplane_dataplane::counters::Info;
    use chainplane_dataplane::stats::{FunctionSnapshot, PortSnapshot};
    use chainplane_nf::config::OneOrMany;

    use super::*;
    use crate::spec::file::{Expected, Fetch};

    fn fetched(expect: Expected, answered: u32, unanswered: u32) -> TaskResult {
        TaskResult {
            guest: "desk".into(),
            task: Task::Fetch(Fetch {
                from: "10.0.0.2:80".parse().unwrap(),
                count: 3,
                bytes: 1,
                interval_ms: 0,
                expect,
                served_by: OneOrMany(vec!["a".into(), "b".into()]),
                seen_as: Some([203, 0, 113, 2].into()),
            }),
            answered,
            unanswered,
            refused: 0,
            broken: 0,
            servers: BTreeMap::new(),
            seen_as: BTreeMap::new(),
            trouble: None,
            took: Duration::ZERO,
        }
    }

    fn info(name: &'static str) -> Info {
        Info { name, help: "" }
    }

    /// A port that got packets, and a firewall that may have dropped them.
    fn snapshot(received: u64, dropped: u64) -> Snapshot {
        let firewall = FunctionSnapshot {
            name: "edge".into(),
            kind: "firewall",
            interfaces: Vec::new(),
            created: dropped,
            consumed: 0,
            held: 0,
            sessions: 0,
            drops: vec![(info("denied"), dropped)],
            counters: Vec::new(),
            slots: Vec::new(),
        };
        let port = PortSnapshot {
            name: "web".into(),
            counters: vec![(info("rx-packets"), received)],
            drops: Vec::new(),
        };
        Snapshot {
            functions: vec![firewall],
            ports: vec![port],
            engine: Vec::new(),
        }
    }

    #[test]
    fn every_server_must_have_served() {
        let mut result = fetched(Expected::Answered, 3, 0);
        result.servers.insert("a".into(), 3);
        let one = servers(&result).unwrap();
        assert_eq!(one.to_string(), "FAIL  10.0.0.2:80 was served by a 3, b 0");
        result.servers.insert("b".into(), 1);
        assert!(servers(&result).unwrap().held);
    }

    #[test]
    fn no_address_but_the_one_may_be_seen() {
        let mut result = fetched(Expected::Answered, 3, 0);
        assert_eq!(
            sights(&result).unwrap().to_string(),
            "FAIL  10.0.0.2:80 saw desk as nobody"
        );
        result.seen_as.insert([203, 0, 113, 2].into(), 2);
        assert!(sights(&result).unwrap().held);
        result.seen_as.insert([10, 0, 0, 1].into(), 1);
        assert!(!sights(&result).unwrap().held);
    }

    #[test]
    fn denials_must_be_counted() {
        let denied = [fetched(Expected::Denied, 0, 3)];
        assert!(!denials(&denied, &[snapshot(0, 0)]).unwrap().held);
        assert!(!denials(&denied, &[snapshot(0, 2)]).unwrap().held);
        let counted = denials(&denied, &[snapshot(0, 4)]).unwrap();
        assert_eq!(
            counted.to_string(),
            "ok    3 denied in silence; dropped and counted by edge: denied 4"
        );
        assert_eq!(
            denials(&[fetched(Expected::Answered, 3, 0)], &[snapshot(0, 4)]),
            None
        );
    }

    #[test]
    fn a_lost_packet_breaks_the_law() {
        assert!(conservation(&[snapshot(0, 2)]).held);
        let broken = conservation(&[snapshot(0, 2), snapshot(1, 0)]);
        assert!(!broken.held && broken.text.contains("worker"), "{broken}");
    }

    #[test]
    fn a_task_that_was_not_done_or_a_guest_that_failed_is_no_success() {
        let mut result = fetched(Expected::Answered, 3, 0);
        result.servers = [("a".into(), 1), ("b".into(), 2)].into();
        assert!(tasks(1, std::slice::from_ref(&result), &[]).held);
        assert!(!tasks(2, std::slice::from_ref(&result), &[]).held);
        assert!(!tasks(1, &[result], &["guest web: gone".into()]).held);
    }
}
