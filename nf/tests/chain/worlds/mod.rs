//! Replay against the stages, for a million packets through random chains.
//!
//! A *world* is drawn from a number: routers, firewalls, NATs and load balancers in any order, with random rules,
//! pools, backends and routes, the hosts at its ports and their flows. It is played twice, with a flow table and
//! without. After every step both must have sent the same frames in the same order, dropped the same packets for the
//! same reasons, counted the same, and list the same sessions, idle for as long.
//!
//! A world that fails is cut down to the packets that matter, and told with what to set to see it again:
//! `REPLAY_WORLD=number` (or `number/units`) plays one world, `REPLAY_PACKETS=n` as many as that takes.

mod config;
pub mod dice;
pub mod map;
mod play;
pub mod traffic;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use chainplane_dataplane::stats::Snapshot;

use play::{Difference, Play, STEPS, unit};

/// Packets where nobody asks for more.
const PACKETS: u64 = 1_000_000;
/// How many of a hundred packets replay a record, at least.
const HITS: u64 = 40;

/// What the worlds have to reach, each at least so often in a million packets.
const REACHED: &[(&str, u64)] = &[
    ("flow-guarded", 20_000),
    ("flow-stale", 4000),
    ("flow-evicted", 1_000),
    ("firewall: in-session", 200_000),
    ("firewall: sessions-full", 2000),
    ("firewall: related", 1000),
    ("firewall: denied-by-rule", 10_000),
    ("nat: translated-outbound", 40_000),
    ("nat: translated-inbound", 20_000),
    ("nat: hairpinned", 4000),
    ("nat: sessions-full", 1000),
    ("nat: icmp-errors", 400),
    ("load-balancer: to-backends", 10_000),
    ("load-balancer: to-clients", 2000),
    ("load-balancer: connections-lost", 20),
    ("load-balancer: sessions-full", 100),
    ("router: forwarded", 200_000),
    ("router: too-long", 10_000),
    ("router: ttl-exceeded", 1000),
    ("router: neighbours-changed", 50),
    ("router: neighbours-lost", 10),
    ("router: other-station", 2000),
    ("port: bad-offload", 1000),
    ("port: malformed-ip-checksum", 1000),
];

/// What the worlds reached, so that it shows when they stop testing something.
#[derive(Default)]
struct Reached {
    packets: u64,
    counts: BTreeMap<String, u64>,
}

impl Reached {
    fn add(&mut self, snapshot: &Snapshot) {
        let mut count = |name: String, value: u64| *self.counts.entry(name).or_default() += value;
        for (info, value) in &snapshot.engine {
            count(info.name.to_owned(), *value);
        }
        for function in &snapshot.functions {
            for (info, value) in function.drops.iter().chain(&function.counters) {
                count(format!("{}: {}", function.kind, info.name), *value);
            }
        }
        for port in &snapshot.ports {
            for (info, value) in &port.drops {
                count(format!("port: {}", info.name), *value);
            }
            self.packets += port.value("rx-packets");
        }
    }
}

/// Plays a world without the units named. A panic is a difference, too.
fn play(number: u64, skip: &BTreeSet<u64>, last: u64) -> Result<Snapshot, Difference> {
    let run = || Play::new(number, skip.clone(), false).run(last);
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(Difference {
            step: last,
            what: format!("panic: {}", text.unwrap_or_default()),
        })
    })
}

/// Leaves out whatever can be left out of a world that fails, in ever smaller pieces.
fn shrink(number: u64, found: &Difference) -> (BTreeSet<u64>, u64) {
    let last = found.step;
    let mut skip = BTreeSet::new();
    let mut piece = unit(last + 1, 0);
    while piece > 0 {
        for start in (0..unit(last + 1, 0)).step_by(piece as usize) {
            let mut more = skip.clone();
            more.extend(start..start + piece);
            if more.len() > skip.len() && play(number, &more, last).is_err() {
                skip = more;
            }
        }
        piece /= 2;
    }
    (skip, last)
}

fn tell(number: u64, found: &Difference) -> String {
    let (skip, last) = shrink(number, found);
    let kept: Vec<_> = (0..unit(last + 1, 0))
        .filter(|unit| !skip.contains(unit))
        .collect();
    let kept = kept
        .iter()
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let mut again = Play::new(number, skip, true);
    let outcome = catch_unwind(AssertUnwindSafe(|| again.run(last)));
    let what = match outcome {
        Ok(Err(difference)) => difference.what,
        Ok(Ok(_)) => "it does not fail any more".into(),
        Err(_) => found.what.clone(),
    };
    format!("{}\n{what}\nREPLAY_WORLD={number}/{kept}", again.story())
}

/// The world that somebody asks for by name.
fn named(text: &str) {
    let (number, kept) = text.split_once('/').unwrap_or((text, ""));
    let number = number.parse().expect("a world's number");
    let kept: BTreeSet<u64> = kept
        .split(',')
        .filter_map(|unit| unit.parse().ok())
        .collect();
    let last = kept
        .last()
        .map_or(STEPS - 1, |unit| unit / self::unit(1, 0));
    let all = 0..self::unit(last + 1, 0);
    let skip = all
        .filter(|unit| !kept.is_empty() && !kept.contains(unit))
        .collect();
    let mut play = Play::new(number, skip, true);
    let outcome = play.run(last);
    println!("{}", play.story());
    if let Err(Difference { step, what }) = outcome {
        panic!("step {step}: {what}");
    }
}

#[test]
fn replay_is_what_the_stages_do_in_a_million_packets() {
    if let Ok(text) = std::env::var("REPLAY_WORLD") {
        return named(&text);
    }
    let wanted = std::env::var("REPLAY_PACKETS")
        .map_or(PACKETS, |text| text.parse().expect("a number of packets"));
    let (next, reached) = (AtomicU64::new(0), Mutex::new(Reached::default()));
    let failed = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() && reached.lock().unwrap().packets < wanted {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match play(number, &BTreeSet::new(), STEPS - 1) {
                        Ok(snapshot) => reached.lock().unwrap().add(&snapshot),
                        Err(difference) => {
                            failed.lock().unwrap().get_or_insert((number, difference));
                        }
                    }
                }
            });
        }
    });
    if let Some((number, difference)) = failed.into_inner().unwrap() {
        panic!("{}", tell(number, &difference));
    }
    let reached = reached.into_inner().unwrap();
    println!(
        "{} packets in {} worlds\n{:#?}",
        reached.packets,
        next.into_inner(),
        reached.counts
    );
    let hits = reached.counts["flow-hits"] * 100 / reached.packets;
    println!("{hits} % of the packets replayed a record");
    assert!(hits >= HITS, "too few replayed a record");
    for (name, least) in REACHED {
        let (count, least) = (reached.counts[*name], least * reached.packets / PACKETS);
        assert!(count >= least, "{name}: {count}, fewer than {least}");
    }
}
