//! `chainplane demo`, and `run` of configurations of embedded guests, without a terminal.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long any of them may take, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_mins(1);

fn start(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_chainplane"))
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Exit code and standard output of a program that ends in time.
fn end(mut child: Child) -> (Option<i32>, String) {
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("its state") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("killed");
            panic!("still running after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut text = String::new();
    let mut out = child.stdout.take().expect("a pipe");
    out.read_to_string(&mut text).expect("UTF-8");
    (status.code(), text)
}

/// Two guests on one cable, of which the first has `tasks`.
fn cable(directory: &Path, tasks: &str) -> String {
    let socket = directory.join("control.sock");
    let text = format!(
        "version: 1
workers: [{{ idle: interrupt }}]
packets: {{ buffers: 2048, huge-pages: never }}
control: {{ socket: {} }}
ports:
  client: {{ embedded-guest: {{ address: 10.0.0.1/24, tasks: [{tasks}] }} }}
  server: {{ embedded-guest: {{ address: 10.0.0.2/24, serve: [80] }} }}
chains:
  cable: [client, server]
",
        socket.display()
    );
    let file = directory.join("cable.yaml");
    fs::write(&file, text).expect("written");
    file.display().to_string()
}

#[test]
fn the_demo_proves_all_it_promises() {
    let (code, text) = end(start(&["demo"]));
    assert_eq!(code, Some(0), "{text}");
    for promise in [
        "ok    9 of 9 tasks went as expected\n",
        "ok    ping crossed: 20 of 20 answered\n",
        "ok    203.0.113.10:80 was served by web1 ",
        "ok    198.51.100.1:80 saw desk as 203.0.113.2\n",
        "ok    3 denied in silence; dropped and counted by edge: denied-by-default ",
        "ok    every packet is accounted for: ",
    ] {
        assert!(text.contains(promise), "{promise}\n{text}");
    }
    assert!(!text.contains("FAIL") && !text.contains('\x1b'), "{text:?}");
}

#[test]
fn a_task_that_goes_otherwise_fails_the_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = cable(
        directory.path(),
        "{ fetch: { from: \"10.0.0.2:81\" } }, { ping: { to: 10.0.0.2, count: 1 } }",
    );
    let (code, text) = end(start(&["run", &file]));
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("FAIL  client: fetch 10.0.0.2:81: 1 of 1 denied; NOT as expected (answered)"),
        "{text}"
    );
    assert!(
        text.contains("done  client: ping 10.0.0.2: 1 of 1 answered"),
        "{text}"
    );
    assert!(
        text.contains("FAIL  1 of 2 tasks went as expected\n"),
        "{text}"
    );
    assert!(
        text.contains("ok    every packet is accounted for"),
        "{text}"
    );
}

#[test]
fn a_run_that_is_interrupted_has_not_proved_its_tasks() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = cable(
        directory.path(),
        "{ ping: { to: 10.0.0.9, count: 1000, expect: unanswered } }",
    );
    let mut child = start(&["run", &file]);
    // Its first line comes when the signals are in place.
    let mut first = [0; 6];
    child
        .stdout
        .as_mut()
        .expect("a pipe")
        .read_exact(&mut first)
        .expect("a line");
    assert_eq!(&first, b"cable ");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("a signal");
    let (code, text) = end(child);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("FAIL  0 of 1 tasks went as expected\n"),
        "{text}"
    );
    assert!(!directory.path().join("control.sock").exists());
}
