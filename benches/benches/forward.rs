//! Forwarding from vhost-user to vhost-user, by no, one, four and eight functions and by a router alone, at 64 and 1500
//! bytes, in cycles a packet.
//!
//! `two-cores`: the driver stub on core 1, the worker on core 0; the figure is the time between packets. `one-core`:
//! driver and worker in turn in one thread, which leaves out the distance between the cores and counts the driver's
//! own cycles in.

use chainplane::instance::Instance;
use chainplane_benches::allocations;
use chainplane_benches::case::Case;
use chainplane_benches::chain::{Functions, Setup};
use chainplane_benches::cycles::Cycles;
use chainplane_benches::guests::{Guests, Progress};
use chainplane_benches::turns::Turns;
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
    for case in cases() {
        let directory = tempfile::tempdir().expect("a directory for sockets");
        let workers = "{ cores: [0], idle: busy }";
        let model = Setup::of(&case, directory.path(), workers).model();
        let _instance = Instance::start(model).expect("an instance");
        pin(1);
        let mut guests = Guests::attach_all(directory.path(), &case).expect("guests that attach");
        group.bench_function(id(&case), |bencher| {
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
    for case in cases() {
        let mut turns = Turns::new(&case);
        let (packets, allocations) = turns.count_allocations();
        let name = case.name;
        println!("one-core/{name}: {allocations} allocations in {packets} packets");
        assert_eq!(allocations, 0, "the polled loop allocates");
        group.bench_function(id(&case), |bencher| {
            bencher.iter_custom(|packets| {
                let clock = quanta::Clock::new();
                let start = clock.raw();
                let done = turns.forward(packets);
                (clock.raw() - start) * packets / done
            });
        });
    }
    group.finish();
}

/// Frames of two sizes through each chain.
fn cases() -> impl Iterator<Item = Case> {
    let small = Case::find("64").expect("a case of small frames");
    Functions::ALL.into_iter().flat_map(move |functions| {
        SIZES.map(|size| Case {
            size,
            functions,
            ..small
        })
    })
}

fn id(case: &Case) -> BenchmarkId {
    let functions = case.functions.name();
    BenchmarkId::new(
        format!("{functions} functions"),
        format!("{} bytes", case.size),
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
