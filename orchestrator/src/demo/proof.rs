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
    let mut text = format!(
        "denied {silent} times; {} packets dropped and counted",
        number(dropped)
    );
    if !places.is_empty() {
        let _ = write!(text, " ({})", places.join("; "));
    }
    Some(proof(dropped >= u64::from(silent), text))
}

/// No packet came from nowhere or went there.
fn conservation(snapshots: &[Snapshot]) -> Proof {
    let unbalanced = snapshots.iter().find_map(|s| s.check_conservation().err());
    if let Some(unbalanced) = unbalanced {
        return proof(false, format!("conservation law: {unbalanced}"));
    }
    let totals = Totals::of(snapshots);
    let sent: u64 = totals.ports.iter().map(|port| port.tx_packets).sum();
    let text = format!(
        "every packet is accounted for: {} in, {} out, {} dropped",
        number(totals.received()),
        number(sent),
        number(totals.dropped())
    );
    proof(true, text)
}
