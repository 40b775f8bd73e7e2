//! Targets that are none, that let nothing through, that die: each a clear message and an exit code, never a hang.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{bench, chain, program, text};

/// Exit code, and the words that standard error must hold.
fn assert_fails(arguments: &[&str], code: i32, words: &str) {
    let output = bench(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(
        said.contains(words),
        "{arguments:?}: no {words:?} in\n{said}"
    );
}

#[test]
fn wrong_arguments_are_explained() {
    let calibrate = |flag: &'static str, value: &'static str, words: &str| {
        assert_fails(&["calibrate", flag, value], 2, words);
    };
    calibrate("--frame", "20", "a frame has 64 to 9216 bytes");
    calibrate("--frame", "imax", "no frame length");
    calibrate("--flows", "0", "1..=10000000");
    calibrate("--method", "ndp", "a similar value exists: 'ndr'");
    calibrate("--trial", "5", "expected a time as `500ms`");
    calibrate(
        "--highest",
        "1Mpps",
        "expected packets a second as `250000`",
    );
    calibrate("--load", "300%", "`300%` is not from 0.1% to 200%");
    calibrate("--load", "much", "or a share of the rate that is found");
    assert_fails(
        &["calibrate", "--method", "mrr", "--load", "70%"],
        1,
        "--load is for latency and soak",
    );
    calibrate("--ring", "100", "a power of two from 64 to 32768");
    calibrate("--width", "2", "a number from 0.0001 to 0.5");
    assert_fails(
        &["compare", "a", "b"],
        2,
        "a configuration's FILE.yaml, or two endpoints",
    );
    assert_fails(
        &["calibrate", "--json", "-", "--csv", "-"],
        1,
        "only one result can go to standard output",
    );
    assert_fails(
        &["calibrate", "--json", "/nowhere/r.json"],
        1,
        "can't write /nowhere/r.json",
    );
    assert_fails(&["--config", "/nowhere.yaml"], 1, "can't be opened");
    assert_fails(
        &[
            "compare",
            "a.sock,b.sock",
            "c.sock,d.sock",
            "--measure",
            "latency",
        ],
        1,
        "finds no rate",
    );
    assert_fails(&["suite", "/nowhere.yaml"], 1, "can't be opened");
}

#[test]
fn targets_that_are_none_are_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = |name: &str| directory.path().join(name).display().to_string();
    let quick = ["--method", "mrr", "--trial", "20ms"];
    let attach = |a: &str, words: &str| {
        let mut arguments = vec!["attach", a, a];
        arguments.extend(quick);
        assert_fails(&arguments, 1, words);
    };
    fs::write(socket("file"), "").expect("written");
    attach(&socket("file"), "can't attach to");
    // Somebody listens who hangs up at once: no vhost-user.
    let listener = UnixListener::bind(socket("other.sock")).expect("a socket");
    let other = std::thread::spawn(move || drop(listener.accept()));
    attach(&socket("other.sock"), "vhost-user");
    other.join().expect("it hung up");
    // Somebody answers who speaks something else.
    let listener = UnixListener::bind(socket("web.sock")).expect("a socket");
    let web = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a guest");
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        std::thread::sleep(Duration::from_secs(1));
    });
    attach(&socket("web.sock"), "vhost-user");
    web.join().expect("it answered");
    // Somebody listens who never says a word.
    let _mute = UnixListener::bind(socket("mute.sock")).expect("a socket");
    let began = Instant::now();
    attach(
        &socket("mute.sock"),
        "no answer to a vhost-user request within 10s",
    );
    assert!(began.elapsed() < Duration::from_secs(25));
    attach(&socket("nobody.sock"), "there is no such file");
    // A chain that lets nothing through says which function dropped what for which reason.
    let file = chain(directory.path(), "drop").display().to_string();
    let mut arguments = vec!["--config", &file];
    arguments.extend(quick);
    assert_fails(&arguments, 1, "at `edge` for `denied-by-default`");
    arguments.extend(["--between", "a,c"]);
    assert_fails(&arguments, 1, "`c`");
}

/// Openings are short; frames that are longer than a router's MTU are not.
#[test]
fn a_chain_that_drops_the_load_is_told_with_its_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("routed.yaml");
    let yaml = "version: 1\nports: { a: { vhost-user: { socket: a.sock } }, b: { vhost-user: { socket: b.sock } } }\n\
                functions: { core: { router: { interfaces: { in: { address: 10.0.0.1/24 }, out: { address: 10.0.1.1/24 } } } } }\n\
                chains: { in: [a, core.in], out: [core.out, b] }\n";
    fs::write(&file, yaml).expect("written");
    let file = file.display().to_string();
    let flags = ["--config", &file, "--trial", "20ms", "--warm-up", "50ms"];
    let output = bench(&[&flags[..], &["--frame", "1518"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["none of", "came through", "the chain dropped", "`core`"] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    // Nothing was found: there is no report to read.
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn more_flows_than_there_is_room_for_are_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = chain(directory.path(), "allow").display().to_string();
    let began = Instant::now();
    assert_fails(
        &["--config", &file, "--method", "mrr", "--flows", "200000"],
        1,
        "only 65536 of 200000 flows'",
    );
    assert!(began.elapsed() < Duration::from_secs(50));
}

#[test]
fn a_target_that_dies_leaves_a_partial_report() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path();
    let yaml = "version: 1\nports: { a: { vhost-user: { socket: a.sock } }, b: { vhost-user: { socket: b.sock } } }\n\
                chains: { x: [a, b] }\n";
    fs::write(place.join("target.yaml"), yaml).expect("written");
    let mut target = Command::new(env!("CARGO_BIN_EXE_chainplane"))
        .args(["run", "target.yaml"])
        .current_dir(place)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the target starts");
    let run = program()
        .args(["attach", "a.sock", "b.sock", "--method", "mrr,soak"])
        .args(["--trial", "20ms", "--mrr-trials", "1", "--warm-up", "20ms"])
        .args(["--load", "1k", "--soak", "1m", "--json", "r.json"])
        .current_dir(place)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    std::thread::sleep(Duration::from_secs(8));
    target.kill().expect("it runs");
    target.wait().expect("it ends");
    let killed = Instant::now();
    let output = run.wait_with_output().expect("it ends");
    assert!(killed.elapsed() < Duration::from_secs(5));
    let (said, shown) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("a.sock: the back end has disconnected"),
        "{said}"
    );
    assert!(!said.contains(['\r', '\x1b']), "{said:?}");
    assert!(
        shown.contains("MRR") && shown.contains("this report is partial"),
        "{shown}"
    );
    let json = fs::read_to_string(place.join("r.json")).expect("written");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["partial"], true);
    let soak = &json["cases"][0]["results"][1]["soak"];
    assert_eq!(soak["quality"]["unfinished"], true, "{json}");
}
