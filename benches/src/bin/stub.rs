//! Drives any vhost-user back end that has two ports: two guests whose driver does as little as can be.
//!
//! `stub SOCKET_A SOCKET_B [IDLE_SOCKET …] [--size BYTES] [--seconds N] [--ring N] [--rewrite] [--no-merge] [--server]
//! [--functions 0|1|4] [--core N]`; prints one line `mpps=… gbps=… empty=…`. Frames of more than 1518 bytes are large TCP
//! segments. To the idle sockets guests are attached that send nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chainplane_benches::case::LARGE;
use chainplane_benches::chain::{Length, frames};
use chainplane_benches::guests::{Guests, Progress, Settings};
use chainplane_vhost::backend::Role;
use chainplane_vhost::driver::FastMode;

struct Arguments {
    sockets: Vec<PathBuf>,
    size: usize,
    seconds: u64,
    core: Option<usize>,
    length: Length,
    settings: Settings,
}

fn parse() -> Option<Arguments> {
    let mut parsed = Arguments {
        sockets: Vec::new(),
        size: 64,
        seconds: 3,
        core: None,
        length: Length::Zero,
        settings: Settings::DEFAULT,
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
            "--server" => parsed.settings.role = Role::Server,
            other if !other.starts_with('-') => parsed.sockets.push(other.into()),
            _ => return None,
        }
    }
    (parsed.sockets.len() >= 2).then_some(parsed)
}

fn main() -> ExitCode {
    let Some(arguments) = parse() else {
        eprintln!(
            "usage: stub SOCKET_A SOCKET_B [IDLE_SOCKET …] [--size BYTES] [--seconds N] [--ring N] [--core N]\n            \
             [--functions 0|1|4] [--rewrite] [--no-merge] [--server]"
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
    let mut guests = Guests::attach(
        sockets,
        &arguments.sockets[2..],
        &frames(arguments.length, arguments.size),
        arguments.settings,
    )?;
    drive(&mut guests, Duration::from_secs(1));
    let start = Instant::now();
    let progress = drive(&mut guests, Duration::from_secs(arguments.seconds));
    let mpps = progress.total() as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!(
        "mpps={mpps:.3} gbps={:.2} a={} b={} empty={:.0}%",
        mpps * arguments.size as f64 * 8.0 / 1e3,
        progress.received[0],
        progress.received[1],
        progress.empty as f64 / progress.turns.max(1) as f64 * 100.0
    );
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
