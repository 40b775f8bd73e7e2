//! Drives any vhost-user back end that has two ports: two guests whose driver does as little as can be.
//!
//! `stub SOCKET_A SOCKET_B [IDLE_SOCKET …] [--size BYTES] [--seconds N] [--ring N] [--rewrite] [--no-merge] [--packed] [--server]
//! [--functions 0|1|4] [--core N] [--kvm]`; prints one line `mpps=… gbps=… empty=…`. Frames of more than 1518 bytes are
//! large TCP segments. To the idle sockets guests are attached that send nothing. With `--kvm` the driver runs inside a
//! KVM guest that has both ports; it rewrites and reads every buffer.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chainplane_benches::case::LARGE;
use chainplane_benches::chain::{Length, frames};
use chainplane_benches::guests::{Guests, Progress, Settings};
#[cfg(target_arch = "x86_64")]
use chainplane_benches::microguest::{self, MicroGuest, PortConfig};
use chainplane_vhost::backend::Role;
use chainplane_vhost::driver::FastMode;

struct Arguments {
    sockets: Vec<PathBuf>,
    size: usize,
    seconds: u64,
    core: Option<usize>,
    length: Length,
    settings: Settings,
    kvm: bool,
}

fn parse() -> Option<Arguments> {
    let mut parsed = Arguments {
        sockets: Vec::new(),
        size: 64,
        seconds: 3,
        core: None,
        length: Length::Zero,
        settings: Settings::DEFAULT,
        kvm: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--size" => {
                parsed.size = words
                    .next()?
                    .parse()
                    .ok()
                    .filter(|size| (60..=LARGE).contains(size))?;
            }
            "--seconds" => parsed.seconds = words.next()?.parse().ok()?,
            "--ring" => parsed.settings.queue_size = words.next()?.parse().ok()?,
            "--core" => parsed.core = Some(words.next()?.parse().ok()?),
            "--functions" => {
                let count: usize = words.next()?.parse().ok()?;
                parsed.length = Length::ALL
                    .into_iter()
                    .find(|length| length.count() == count)?;
            }
            "--rewrite" => parsed.settings.mode = FastMode::Rewrite,
            "--no-merge" => parsed.settings.mergeable = false,
            "--packed" => parsed.settings.packed = true,
            "--kvm" => parsed.kvm = true,
            "--server" => parsed.settings.role = Role::Server,
            other if !other.starts_with('-') => parsed.sockets.push(other.into()),
            _ => return None,
        }
    }
    // The guest under KVM checks what it receives against what was sent, in split rings with buffers of one size, and
    // connects.
    let fits = parsed.sockets.len() == 2
        && parsed.length != Length::Four
        && parsed.size <= 1518
        && !parsed.settings.packed
        && parsed.settings.role == Role::Client;
    (parsed.sockets.len() >= 2 && (fits || !parsed.kvm)).then_some(parsed)
}

fn main() -> ExitCode {
    let Some(arguments) = parse() else {
        eprintln!(
            "usage: stub SOCKET_A SOCKET_B [IDLE_SOCKET …] [--size BYTES] [--seconds N] [--ring N] [--core N]\n            \
             [--functions 0|1|4] [--rewrite] [--no-merge] [--packed] [--server] [--kvm]"
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
        &frames(arguments.length, arguments.size),
        arguments.settings,
    )?;
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
        "mpps={mpps:.3} gbps={:.2} a={} b={} empty={:.0}%",
        mpps * arguments.size as f64 * 8.0 / 1e3,
        progress.received[0],
        progress.received[1],
        progress.empty as f64 / progress.turns.max(1) as f64 * 100.0
    );
}

#[cfg(target_arch = "x86_64")]
fn run_under_kvm(
    arguments: &Arguments,
    sockets: [&Path; 2],
) -> Result<(), Box<dyn std::error::Error>> {
    let [there, back] = &frames(arguments.length, arguments.size);
    let port = |socket, sends, expects| PortConfig {
        socket,
        sends,
        expects,
    };
    let ports = [port(sockets[0], there, back), port(sockets[1], back, there)];
    let settings = microguest::Settings {
        queue_size: arguments.settings.queue_size,
        mergeable: arguments.settings.mergeable,
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
