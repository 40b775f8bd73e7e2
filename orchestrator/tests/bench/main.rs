//! `chainplane bench` as a user meets it: what it prints, writes, and says of what can't be.

mod failures;
mod schema;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chainplane"));
    command.arg("bench").env("TERM", "dumb");
    command
}

fn bench(arguments: &[&str]) -> Output {
    program()
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A chain of one firewall, in a directory of its own.
fn chain(directory: &Path, inbound: &str) -> PathBuf {
    let file = directory.join("wall.yaml");
    let yaml = format!(
        "version: 1\nports:\n  a: {{ vhost-user: {{ socket: a.sock }} }}\n  b: {{ tap: {{ interface: tap-b }} }}\n\
         functions:\n  edge: {{ firewall: {{ default: {{ outbound: {inbound}, inbound: drop }} }} }}\n\
         chains: {{ x: [a, edge, b] }}\n"
    );
    fs::write(&file, yaml).expect("written");
    file
}

#[test]
fn a_chain_is_measured_with_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = chain(directory.path(), "allow");
    let at = |name: &str| directory.path().join(name).display().to_string();
    let file = file.display().to_string();
    let output = bench(&[
        "--config",
        &file,
        "--method",
        "mrr,latency",
        "--trial",
        "50ms",
        "--mrr-trials",
        "2",
        "--warm-up",
        "20ms",
        "--load",
        "2k",
        "--json",
        &at("r.json"),
        "--csv",
        &at("r.csv"),
        "--html",
        &at("r.html"),
        "--picture",
        &at("r.svg"),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for words in [
        "wall",
        "64 B, UDP over IPv4, 1 flow, both ways",
        "MRR",
        "p99.99",
    ] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    assert!(
        said.lines().all(|line| line.chars().count() <= 80),
        "{said}"
    );
    let json = fs::read_to_string(at("r.json")).expect("JSON");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let case = &json["cases"][0];
    assert_eq!(case["target"]["chain-length"], 1);
    assert!(
        case["results"][0]["mrr"]["rate"]["median"]
            .as_f64()
            .is_some_and(|rate| rate > 0.0)
    );
    assert_eq!(json["partial"], false);
    for (name, begin) in [
        ("r.csv", "case,target"),
        ("r.html", "<!DOCTYPE html>"),
        ("r.svg", "<svg "),
    ] {
        let written = fs::read_to_string(at(name)).expect("written");
        assert!(written.starts_with(begin), "{name}");
    }
}

/// One command: a rate is found, and a share of it is kept up, with all percentiles and what the machine did.
#[test]
fn a_load_may_be_a_share_of_what_was_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = chain(directory.path(), "allow").display().to_string();
    let csv = directory.path().join("r.csv").display().to_string();
    let output = bench(&[
        "--config",
        &file,
        "--method",
        "soak",
        "--trial",
        "20ms",
        "--limit",
        "2s",
        "--warm-up",
        "20ms",
        "--highest",
        "20k",
        "--load",
        "70%",
        "--soak",
        "2s",
        "--csv",
        &csv,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for words in ["70 % of the PDR", "p99.99", "jumps of the clock:", "steal"] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    let csv = fs::read_to_string(csv).expect("written");
    for measure in ["soak-latency-p99.99", "soak-jumps-over-20us", "soak-steal"] {
        assert!(csv.contains(measure), "no {measure} in\n{csv}");
    }
}

#[test]
fn the_generators_ceiling_is_shown() {
    let output = bench(&[
        "calibrate",
        "--trial",
        "30ms",
        "--mrr-trials",
        "1",
        "--warm-up",
        "10ms",
        "--json",
        "-",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let json: Value =
        serde_json::from_slice(&output.stdout).expect("JSON alone on standard output");
    let names: Vec<&str> = json["cases"]
        .as_array()
        .expect("cases")
        .iter()
        .filter_map(|case| case["name"].as_str())
        .collect();
    assert_eq!(names, ["memory", "rings"]);
    let output = bench(&["calibrate", "--trial", "20ms", "--mrr-trials", "1"]);
    let said = text(&output.stdout).split_whitespace();
    let said = said.collect::<Vec<_>>().join(" ");
    assert!(said.contains("no result can be higher"), "{said}");
    assert!(
        said.contains("generator's polls found nothing to do"),
        "{said}"
    );
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("r.json");
    let mut command = program();
    command
        .args([
            "calibrate",
            "--method",
            "mrr,soak",
            "--trial",
            "20ms",
            "--mrr-trials",
            "1",
            "--warm-up",
            "10ms",
        ])
        .args(["--load", "1k", "--soak", "1m", "--json"])
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    // Long enough for the first method and a slice of the second, which takes minutes.
    std::thread::sleep(Duration::from_secs(8));
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a process");
    // Twice, as timeout(1) does it.
    for pause in [20, 0] {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
        std::thread::sleep(Duration::from_millis(pause));
    }
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("this report is partial"),
        "{}",
        text(&output.stdout)
    );
    // Nobody looks at a terminal: plain lines, a few, and no control sequences.
    let progress = text(&output.stderr);
    assert!(!progress.contains(['\r', '\x1b']), "{progress:?}");
    let json: Value =
        serde_json::from_str(&fs::read_to_string(json).expect("written")).expect("JSON");
    assert_eq!(json["partial"], true);
    let soak = &json["cases"][0]["results"][1]["soak"];
    assert_eq!(soak["quality"]["unfinished"], true, "{soak}");
    assert!(json["cases"][0]["results"][0]["mrr"].is_object(), "{json}");
}

#[test]
fn a_ratio_that_is_not_reached_fails_the_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = chain(directory.path(), "allow").display().to_string();
    let compare = |least: &str| {
        bench(&[
            "compare",
            &file,
            &file,
            "--rounds",
            "3",
            "--at-least",
            least,
            "--trial",
            "30ms",
            "--mrr-trials",
            "1",
            "--warm-up",
            "10ms",
        ])
    };
    let output = compare("1000");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("NOT reached"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_suite_is_checked_without_measuring() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers");
    let mut checked = 0;
    for entry in fs::read_dir(root).expect("benches/peers") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let output = bench(&["suite", "--check", &path.display().to_string()]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            assert!(text(&output.stdout).contains("no errors"));
            checked += 1;
        }
    }
    assert!(checked > 0);
}
