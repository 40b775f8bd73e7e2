//! Runs steps one after the other, goes on when one fails, and says at the end how all of them went.

use std::io::{BufRead, BufReader, Write, pipe, stdout};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// How the steps went.
#[derive(Default)]
pub struct Report {
    /// One line a step.
    steps: Vec<String>,
    /// What cargo test said in short.
    summaries: Vec<String>,
    /// What the machine could not do.
    notes: Vec<String>,
    failed: bool,
}

impl Report {
    /// Runs a step and shows its output.
    pub fn step(&mut self, name: &str, mut command: Command) {
        announce(name);
        let start = Instant::now();
        let success = command.status().is_ok_and(|status| status.success());
        self.record(name, success, start);
    }

    /// Runs a step that is `cargo test`, shows its output, and keeps its summary lines for the end.
    pub fn tests(&mut self, name: &str, mut command: Command) {
        announce(name);
        let start = Instant::now();
        let summaries = &mut self.summaries;
        let mut run = || -> std::io::Result<bool> {
            let (reader, writer) = pipe()?;
            command.stdout(writer.try_clone()?).stderr(writer);
            let mut child = command.spawn()?;
            // The command holds the pipe's other end too; only without it does the end of output show.
            drop(std::mem::replace(&mut command, Command::new("true")));
            for line in BufReader::new(reader).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
                writeln!(stdout(), "{line}")?;
                if is_summary(&line) {
                    summaries.push(line);
                }
            }
            Ok(child.wait()?.success())
        };
        let success = run().unwrap_or(false);
        self.record(name, success, start);
    }

    /// Something that the reader must know of, at the end too.
    pub fn note(&mut self, note: String) {
        println!("NOTE: {note}");
        self.notes.push(note);
    }

    /// A step that we did ourselves has failed.
    pub fn failure(&mut self, what: &str) {
        println!("FAILED: {what}");
        self.steps.push(format!("FAILED  {what}"));
        self.failed = true;
    }

    fn record(&mut self, name: &str, success: bool, start: Instant) {
        let word = if success { "ok    " } else { "FAILED" };
        self.failed |= !success;
        self.steps
            .push(format!("{word}  {name} ({} s)", start.elapsed().as_secs()));
    }

    /// Prints how the steps went and what cargo test said.
    pub fn finish(self) -> ExitCode {
        if !self.steps.is_empty() {
            println!("\n==== in short ====");
        }
        for line in self.steps {
            println!("{line}");
        }
        for note in self.notes {
            println!("NOTE: {note}");
        }
        for line in self.summaries {
            println!("{line}");
        }
        if self.failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

fn announce(name: &str) {
    println!("\n==== {name} ====");
    // A failure to write will show in the step's own output.
    let _ = stdout().flush();
}

/// Which test program ran, what it left out, what failed, and its result.
fn is_summary(line: &str) -> bool {
    let text = line.trim_start();
    text.starts_with("Running ")
        || text.starts_with("Doc-tests ")
        || text.starts_with("test result: ")
        || text.starts_with("test [left out")
        || (text.starts_with("test ") && text.ends_with(" FAILED"))
}
