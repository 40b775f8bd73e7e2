//! The tests against real parts, with a harness of our own that shows which are left out and why.
//!
//! They run one after the other unless `--test-threads` says otherwise: each keeps both cores of a small
//! machine busy. `CHAINPLANE_REQUIRE_PARTS=1` makes a missing part a failure.

#![forbid(unsafe_code)]

mod bench;
mod capture;
mod drivers;
mod guests;
#[cfg(target_arch = "x86_64")]
mod kvm;
mod migration;
mod offloads;
mod protocol;
mod reference;
mod restarts;
mod taps;
mod testpmd;
mod workers;

use std::env;
use std::process::ExitCode;

use chainplane_tests::{Need, Result, missing, sweep};
use libtest_mimic::{Arguments, Failed, Trial};

/// A test and what it needs.
struct Test {
    name: &'static str,
    needs: &'static [Need],
    run: fn() -> Result<()>,
}

/// Needs of every test with a guest.
const GUEST: [Need; 4] = [
    Need::GuestKernel,
    Need::Program("qemu-system-x86_64"),
    Need::Program("busybox"),
    Need::Program("iperf3"),
];

const TESTS: &[&[Test]] = &[
    reference::TESTS,
    taps::TESTS,
    testpmd::TESTS,
    capture::TESTS,
    offloads::TESTS,
    bench::TESTS,
    guests::TESTS,
    workers::TESTS,
    drivers::TESTS,
    protocol::TESTS,
    #[cfg(target_arch = "x86_64")]
    kvm::TESTS,
    migration::TESTS,
    restarts::TESTS,
];

fn main() -> ExitCode {
    if let Some(code) = restarts::play_driver() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let required = env::var_os("CHAINPLANE_REQUIRE_PARTS").is_some_and(|value| value == "1");
    sweep();
    let trials = TESTS
        .iter()
        .copied()
        .flatten()
        .map(|test| trial(test, required))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(test: &'static Test, required: bool) -> Trial {
    let missing = missing(test.needs);
    let left_out = missing.as_ref().map(|parts| {
        let reason = format!("left out: needs {}", parts.names);
        (reason, parts.optional)
    });
    let trial = Trial::test(test.name, move || match missing {
        Some(parts) => Err(Failed::from(format!(
            "needs {}, and every part is required",
            parts.names
        ))),
        None => (test.run)().map_err(Failed::from),
    });
    match left_out {
        Some((reason, optional)) if optional || !required => {
            trial.with_kind(reason).with_ignored_flag(true)
        }
        _ => trial,
    }
}
