//! Drives any vhost-user back end that has two ports: two guests whose driver does as little as can be.
//!
//! `stub SOCKET_A SOCKET_B [IDLE_SOCKET …] [--case CASE] [--seconds N] [--core N] [--server] [--kvm]` opens the case's flows,
//! prints `open`, sends for
//! a second and for as long as is measured, and prints one line `mpps=… gbps=… lost=… empty=…`. To the idle sockets guests are attached that send
//! nothing. With `--server` it listens, and the back end connects. With `--kvm` the driver runs inside a KVM guest that
//! has both ports; it rewrites and reads every buffer.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chainplane_benches::case::Case;
use chainplane_benches::guests::{Guests, Progress};
#[cfg(target_arch = "x86_64")]
use chainplane_benches::microguest::{self, MicroGuest, PortConfig};
use chainplane_benches::traffic::LONGEST_PLAIN;
#[cfg(target_arch = "x86_64")]
use chainplane_benches::traffic::frames;
use chainplane_vhost::backend::Role;

struct Arguments {
    sockets: Vec<PathBuf>,
    case: Case,
    seconds: u64,
    core: Option<usize>,
    kvm: bool,
}

fn parse() -> Option<Arguments> {
    let mut parsed = Arguments {
        sockets: Vec::new(),
        case: Case::find("64")?,
        seconds: 3,
        core: None,
        kvm: false,
    };
    let (mut words, mut role) = (std::env::args().skip(1), Role::Client);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--case" => parsed.case = Case::find(&words.next()?)?,
            "--seconds" => parsed.seconds = words.next()?.parse().ok()?,
            "--core" => parsed.core = Some(words.next()?.parse().ok()?),
            "--kvm" => parsed.kvm = true,
            "--server" => role = Role::Server,
            other if !other.starts_with('-') => parsed.sockets.push(other.into()),
            _ => return None,
        }
    }
    parsed.case.settings.role = role;
    // The guest under KVM checks what it receives against what was sent, in split rings with buffers of one size, and
    // connects.
    let Case { size, settings, .. } = parsed.case;
    let fits = parsed.sockets.len() == 2
        && size <= LONGEST_PLAIN
        && !settings.packed
        && settings.role == Role::Client;
    (parsed.sockets.len() >= 2 && (fits || !parsed.kvm)).then_some(parsed)
}

fn main() -> ExitCode {
    let Some(arguments) = parse() else {
        eprintln!(
            "usage: stub SOCKET_A SOCKET_B [IDLE_SOCKET …] [--case CASE] [--seconds N] [--core N] [--server] [--kvm]\n\
             cases: {}",
            Case::ALL.map(|case| case.name).join(" ")
        );
        return ExitCode::from(2);
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(core) = arguments.core {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    let sockets = [
        arguments.sockets[0].as_path(),
        arguments.sockets[1].as_path(),
    ];
    if arguments.kvm {
        return run_under_kvm(arguments, sockets);
    }
    let mut guests = Guests::attach(
        sockets,
        &arguments.sockets[2..],
        &arguments.case.traffic(),
        arguments.case.settings,
    )?;
    // Whoever reads the back end's counters can leave out what opening took.
    println!("open");
    drive(&mut guests, Duration::from_secs(1));
    let start = Instant::now();
    let progress = drive(&mut guests, Duration::from_secs(arguments.seconds));
    print(arguments, &progress, start.elapsed());
    Ok(())
}

fn drive(guests: &mut Guests, time: Duration) -> Progress {
    let (start, mut progress) = (Instant::now(), Progress::default());
    while start.elapsed() < time {
        for _ in 0..256 {
            guests.poll(&mut progress);
        }
    }
    progress
}

fn print(arguments: &Arguments, progress: &Progress, time: Duration) {
    let mpps = progress.total() as f64 / time.as_secs_f64() / 1e6;
    println!(
        "mpps={mpps:.3} gbps={:.2} a={} b={} lost={:.1}% empty={:.0}%",
        mpps * arguments.case.size as f64 * 8.0 / 1e3,
        progress.received[0],
        progress.received[1],
        100.0 * progress.sent.saturating_sub(progress.total()) as f64 / progress.sent.max(1) as f64,
        progress.empty as f64 / progress.turns.max(1) as f64 * 100.0
    );
}

#[cfg(target_arch = "x86_64")]
fn run_under_kvm(
    arguments: &Arguments,
    sockets: [&Path; 2],
) -> Result<(), Box<dyn std::error::Error>> {
    let [there, back] = &frames(arguments.case.size);
    let port = |socket, sends, expects| PortConfig {
        socket,
        sends,
        expects,
    };
    let ports = [port(sockets[0], there, back), port(sockets[1], back, there)];
    let settings = microguest::Settings {
        queue_size: arguments.case.settings.queue_size,
        mergeable: arguments.case.settings.mergeable,
        ..microguest::Settings::default()
    };
    let guest = MicroGuest::start(&ports, settings)?;
    for port in 0..2 {
        guest.send(port, i64::MAX as u64);
    }
    let now = || {
        let counters = [0, 1].map(|port| guest.counters(port));
        let [turns, empty] = guest.rounds();
        let received = counters.map(|counters| counters.received);
        let errors = counters[0].errors + counters[1].errors;
        let progress = Progress {
            received,
            sent: counters.map(|counters| counters.sent).iter().sum(),
            turns,
            empty,
        };
        (progress, errors, Instant::now())
    };
    std::thread::sleep(Duration::from_secs(1));
    let (before, _, start) = now();
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let (after, errors, end) = now();
    let progress = Progress {
        received: [0, 1].map(|port| after.received[port] - before.received[port]),
        sent: after.sent - before.sent,
        turns: after.turns - before.turns,
        empty: after.empty - before.empty,
    };
    print(arguments, &progress, end - start);
    guest.stop()?;
    if errors > 0 {
        return Err(format!("{errors} frames were not what was sent").into());
    }
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn run_under_kvm(_: &Arguments, _: [&Path; 2]) -> Result<(), Box<dyn std::error::Error>> {
    Err("the guest's program is for x86-64".into())
}
