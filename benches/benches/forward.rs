//! Forwarding from vhost-user to vhost-user, by 0, 1 and 4 functions, at 64 and 1500 bytes, in cycles a packet.
//!
//! `two-cores`: the driver stub on core 1, the worker on core 0; the figure is the time between packets. `one-core`:
//! driver and worker in turn in one thread, which leaves out the distance between the cores and counts the driver's
//! own cycles in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use chainplane::instance::{Detached, Instance};
use chainplane_benches::allocations;
use chainplane_benches::chain::{self, Length};
use chainplane_benches::cycles::Cycles;
use chainplane_benches::guests::{Guests, Progress, Settings};
use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::time::Time;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

const SIZES: [usize; 2] = [64, 1500];

fn two_cores(criterion: &mut Criterion<Cycles>) {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("two-cores: left out, as there is one core");
        return;
    }
    let mut group = criterion.benchmark_group("two-cores");
    group.throughput(Throughput::Elements(1));
    for (length, size) in cases() {
        let directory = tempfile::tempdir().expect("a directory for sockets");
        let model = chain::model(length, directory.path(), "{ cores: [0], idle: busy }");
        let _instance = Instance::start(model).expect("an instance");
        pin(1);
        let mut guests = attach(directory.path(), length, size);
        group.bench_function(id(length, size), |bencher| {
            bencher.iter_custom(|packets| {
                let clock = quanta::Clock::new();
                let (start, mut progress) = (clock.raw(), Progress::default());
                while progress.total() < packets {
                    guests.poll(&mut progress);
                }
                // What arrived in one go beyond the wanted number counts as well.
                (clock.raw() - start) * packets / progress.total()
            });
        });
    }
    group.finish();
}

fn one_core(criterion: &mut Criterion<Cycles>) {
    let mut group = criterion.benchmark_group("one-core");
    group.throughput(Throughput::Elements(1));
    for (length, size) in cases() {
        let mut loop_ = OneCore::new(length, size);
        let (packets, allocations) = loop_.count_allocations();
        println!("one-core/{length:?}/{size}: {allocations} allocations in {packets} packets");
        assert_eq!(allocations, 0, "the polled loop allocates");
        group.bench_function(id(length, size), |bencher| {
            bencher.iter_custom(|packets| {
                let clock = quanta::Clock::new();
                let start = clock.raw();
                let done = loop_.forward(packets);
                (clock.raw() - start) * packets / done
            });
        });
    }
    group.finish();
}

/// Guests and engine in one thread.
struct OneCore {
    guests: Guests,
    engine: Engine,
    now: Time,
    _devices: Detached,
    _directory: tempfile::TempDir,
}

impl OneCore {
    fn new(length: Length, size: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory for sockets");
        let model = chain::model(length, directory.path(), "{}");
        let (engine, devices) = Detached::open(&model).expect("an engine");
        let (guests, engine) = attach_polling(directory.path(), length, size, engine);
        let mut made = Self {
            guests,
            engine,
            now: Time(0),
            _devices: devices,
            _directory: directory,
        };
        made.forward(10_000);
        made
    }

    fn forward(&mut self, packets: u64) -> u64 {
        let mut progress = Progress::default();
        while progress.total() < packets {
            self.now = Time(self.now.0 + 10_000);
            self.engine.poll(self.now);
            self.guests.poll(&mut progress);
        }
        progress.total()
    }

    fn count_allocations(&mut self) -> (u64, u64) {
        let before = allocations::made();
        let packets = self.forward(200_000);
        (packets, allocations::made() - before)
    }
}

/// The engine has to pass poll boundaries while the guests attach, which takes another thread; an engine does not
/// leave its thread, so the guests are attached there and come back.
fn attach_polling(
    directory: &std::path::Path,
    length: Length,
    size: usize,
    mut engine: Engine,
) -> (Guests, Engine) {
    let done = Arc::new(AtomicBool::new(false));
    let (flag, path) = (Arc::clone(&done), directory.to_owned());
    let attaching: JoinHandle<Guests> = std::thread::spawn(move || {
        let guests = attach(&path, length, size);
        flag.store(true, Ordering::Release);
        guests
    });
    while !done.load(Ordering::Acquire) && !attaching.is_finished() {
        engine.poll(Time(0));
        std::thread::yield_now();
    }
    (attaching.join().expect("guests that attach"), engine)
}

fn attach(directory: &std::path::Path, length: Length, size: usize) -> Guests {
    let (a, b) = (directory.join("a.sock"), directory.join("b.sock"));
    Guests::attach([&a, &b], &chain::frames(length, size), Settings::default())
        .expect("guests that attach")
}

fn cases() -> impl Iterator<Item = (Length, usize)> {
    Length::ALL
        .into_iter()
        .flat_map(|length| SIZES.map(|size| (length, size)))
}

fn id(length: Length, size: usize) -> BenchmarkId {
    BenchmarkId::new(
        format!("{} functions", length.count()),
        format!("{size} bytes"),
    )
}

fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("a core to run on");
}

criterion_group! {
    name = forward;
    config = Criterion::default()
        .with_measurement(Cycles(quanta::Clock::new()))
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2))
        .sample_size(20);
    targets = one_core, two_cores
}
criterion_main!(forward);
