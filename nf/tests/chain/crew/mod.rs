//! Several workers against one, through random chains.
//!
//! A world of [`worlds`](crate::worlds) is played by one worker and by a crew of two to five, whose members have the same
//! packets come in by queues of any of them. After every step both must have sent the same frames, those of a flow in
//! the same order, dropped as many packets for the same reasons, counted the same and know the same sessions. Where the
//! NAT chose other ports, both are compared, and answered, by what the ports stand for ([`names`]).
//!
//! `CREW_WORLD=number` plays one world and tells what happened; `CREW_WORLDS=n` plays so many.

mod names;
mod owners;
mod plain;
mod play;
mod settle;

macro_rules! tell {
    ($self:ident, $($text:tt)*) => {
        if let Some(story) = &mut $self.story {
            let _ = std::fmt::Write::write_fmt(story, format_args!("{}\n", format_args!($($text)*)));
        }
    };
}

use tell;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use play::{Ending, Play};

/// Worlds where nobody asks for more.
const WORLDS: u64 = 400;

/// What the worlds have to reach, each at least so often in a hundred worlds.
const REACHED: &[(&str, u64)] = &[
    ("handed-over", 9000),
    ("copied", 3500),
    ("flow-hits", 1800),
    ("firewall: in-session", 3500),
    ("firewall: related", 40),
    ("nat: translated-inbound", 300),
    ("nat: hairpinned", 100),
    ("nat: icmp-errors", 4),
    ("nat: no-mapping", 30),
    ("load-balancer: to-backends", 100),
    ("load-balancer: to-clients", 6),
    ("router: ttl-exceeded", 12),
    ("router: too-long", 120),
];

#[derive(Default)]
struct Reached {
    endings: BTreeMap<Ending, u64>,
    counts: BTreeMap<String, u64>,
}

fn play(number: u64, tells: bool) -> Result<(Ending, BTreeMap<String, u64>), String> {
    let mut play = Play::new(number, tells);
    let run = catch_unwind(AssertUnwindSafe(|| play.run()));
    let outcome = run.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    let story = play.story();
    if tells {
        println!("{story}");
    }
    outcome
        .map(|ending| (ending, play.reached()))
        .map_err(|what| format!("{what}\nCREW_WORLD={number}"))
}

#[test]
fn several_workers_do_what_one_does() {
    if let Ok(text) = std::env::var("CREW_WORLD") {
        let (ending, _) = play(text.parse().expect("a world's number"), true)
            .unwrap_or_else(|what| panic!("{what}"));
        return println!("{ending:?}");
    }
    let wanted =
        std::env::var("CREW_WORLDS").map_or(WORLDS, |text| text.parse().expect("a number"));
    let (next, reached) = (AtomicU64::new(0), Mutex::new(Reached::default()));
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= wanted {
                        break;
                    }
                    match play(number, false) {
                        Ok((ending, counts)) => {
                            let mut reached = reached.lock().unwrap();
                            *reached.endings.entry(ending).or_default() += 1;
                            for (name, count) in counts {
                                *reached.counts.entry(name).or_default() += count;
                            }
                        }
                        Err(what) => failed.lock().unwrap().push((number, what)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    if let Some((_, what)) = failed.first() {
        let all: Vec<_> = failed.iter().map(|(number, _)| number).collect();
        panic!("{what}\n{} worlds fail: {all:?}", all.len());
    }
    let reached = reached.into_inner().unwrap();
    println!("{:#?}\n{:#?}", reached.endings, reached.counts);
    let whole = reached.endings.get(&Ending::Whole).copied();
    assert!(
        whole >= Some(wanted * 3 / 4),
        "too few worlds were played to their end"
    );
    for (name, least) in REACHED {
        let count = reached.counts.get(*name).copied().unwrap_or_default();
        let least = least * wanted / 100;
        assert!(count >= least, "{name}: {count}, fewer than {least}");
    }
}
