//! The chores of this workspace; `cargo xtask help` lists them.

#![forbid(unsafe_code)]

mod checks;
mod instructions;
mod parts;
mod report;
mod rights;

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use report::Report;
use rights::Rights;

const HELP: &str = "\
cargo xtask test    installs what the tests need (Debian packages, a guest kernel, cargo-deny),
                    then runs every check and test and the demo
cargo xtask check   formatting, clippy, cargo deny and the fuzz targets, without running a test
cargo xtask parts   installs what the tests need, and nothing else
cargo xtask instructions [--record]
                    counts the back end's instructions a packet by callgrind and compares them with
                    benches/instructions.txt, or writes that file
cargo xtask help    this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut report = Report::default();
    match words[..] {
        ["test"] => test(&mut report),
        ["check"] => checks::all(&mut report),
        ["parts"] => {
            parts::install(Rights::find(), &mut report);
        }
        ["instructions"] => instructions::run(false, &mut report),
        ["instructions", "--record"] => instructions::run(true, &mut report),
        ["help" | "-h" | "--help"] => print!("{HELP}"),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    }
    report.finish()
}

fn test(report: &mut Report) {
    let rights = Rights::find();
    let complete = parts::install(rights, report);
    checks::all(report);
    tests(rights, complete, report);
    if complete {
        instructions::run(false, report);
    }
    let mut demo = cargo();
    demo.args(["run", "--release", "--package", "chainplane", "--", "demo"]);
    report.step("the demo", demo);
}

/// Runs every test. Those with real parts need root, so without it they run a second time under sudo.
fn tests(rights: Rights, complete: bool, report: &mut Report) {
    let mut build = cargo();
    build.args(["build", "--package", "chainplane", "--bin", "chainplane"]);
    report.step("the program for the tests", build);

    let program = target_directory().join("debug/chainplane");
    let prepare = |command: &mut Command, required: bool| {
        command
            .env("CHAINPLANE_BIN", &program)
            .env("CHAINPLANE_PARTS", parts::directory())
            // The same random cases each time: a change is judged by what it changes.
            .env("PROPTEST_RNG_SEED", "20261123");
        command.env("CHAINPLANE_REQUIRE_PARTS", if required { "1" } else { "0" });
    };
    let mut all = cargo();
    all.args(["test", "--workspace", "--no-fail-fast"]);
    prepare(&mut all, complete && rights == Rights::Root);
    report.tests("all tests", all);

    if rights == Rights::Sudo {
        let mut real = cargo();
        real.args(["test", "--package", "chainplane-tests", "--test", "real"]);
        real.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -n -E");
        prepare(&mut real, complete);
        report.tests("the tests with real parts, as root", real);
    }
}

/// The cargo that runs us, at the root of the workspace.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).env("CARGO_NET_RETRY", "5");
    command
}

fn workspace() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Where cargo builds, if no configuration file says otherwise.
fn target_directory() -> PathBuf {
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
