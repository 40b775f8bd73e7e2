//! Instructions a packet of the back end, counted by callgrind and held against a recorded baseline.
//!
//! Times say little on a shared machine; instructions are the same in every run, but for a part in a hundred that
//! depends on when threads meet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::report::Report;
use crate::{cargo, target_directory, workspace};

/// The cases of `turns` that are counted, and packets of each.
const CASES: [(&str, u32); 12] = [
    ("64", 50_000),
    ("64-no-merge", 50_000),
    ("64-ring-256", 50_000),
    ("64-packed", 50_000),
    // What opening the flows takes depends on each run's seeds, and is to be lost among many packets.
    ("64-one-function", 150_000),
    ("64-four-functions", 150_000),
    ("64-eight-functions", 150_000),
    ("64-router", 20_000),
    ("1518", 20_000),
    ("1518-four-functions", 100_000),
    // Fewer vary by more than is tolerated: rings and buffers are touched for the first time.
    ("large", 6400),
    ("large-four-functions", 6400),
];

/// What a case may cost more, or less, than was recorded, in percent.
const TOLERANCE: f64 = 3.0;

/// What the counts are of: whatever this function calls.
const COUNTED: &str = "--toggle-collect=*turns::back_end*";

/// What was counted, and by which compiler the program was made.
#[derive(Default, PartialEq)]
struct Counts {
    compiler: String,
    cases: BTreeMap<String, f64>,
}

/// Counts and compares; with `record`, writes the baseline anew.
pub fn run(record: bool, report: &mut Report) {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "chainplane-benches"]);
    build.args(["--bin", "turns"]);
    report.step("the program whose instructions are counted", build);
    let result = count().and_then(|counts| {
        if record {
            fs::write(baseline(), counts.to_text()).map(|()| Vec::new())
        } else {
            let recorded = Counts::from_text(&fs::read_to_string(baseline())?);
            Ok(compare(&recorded, &counts, report))
        }
    });
    match result {
        Ok(problems) => problems.iter().for_each(|problem| report.failure(problem)),
        Err(error) => report.failure(&format!("counting instructions: {error}")),
    }
}

fn baseline() -> PathBuf {
    workspace().join("benches/instructions.txt")
}

fn count() -> io::Result<Counts> {
    let version = Command::new("rustc").arg("--version").output()?;
    let compiler = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let program = target_directory().join("release/turns");
    let mut cases = BTreeMap::new();
    for (case, packets) in CASES {
        let each = count_case(&program, case, packets)?;
        println!("{case:<20} {each:>10.1} instructions a packet");
        cases.insert(case.to_owned(), each);
    }
    Ok(Counts { compiler, cases })
}

/// What the warm-up takes is left out by counting twice.
fn count_case(program: &Path, case: &str, packets: u32) -> io::Result<f64> {
    let [(few, short), (many, long)] = [
        callgrind(program, case, packets / 4)?,
        callgrind(program, case, packets)?,
    ];
    Ok((long - short) / (many - few))
}

/// Packets forwarded, and instructions of the back end.
fn callgrind(program: &Path, case: &str, packets: u32) -> io::Result<(f64, f64)> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            COUNTED,
        ])
        .arg(program)
        .args(["--count", case, &packets.to_string()])
        .output()?;
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let number = |text: &str, before: &str| {
        let after = text.split(before).nth(1)?;
        let word = after
            .trim_start_matches([' ', ':'])
            .split_whitespace()
            .next()?;
        word.parse().ok()
    };
    let found = number(&texts[0], "packets=").zip(number(&texts[1], "Collected"));
    found.ok_or_else(|| io::Error::other(format!("callgrind on {case}: {}", texts[1])))
}

/// What is not as it was recorded.
fn compare(recorded: &Counts, now: &Counts, report: &mut Report) -> Vec<String> {
    if recorded.compiler != now.compiler {
        report.note(format!(
            "instructions were recorded with {}, this is {}: not compared",
            recorded.compiler, now.compiler
        ));
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (case, &count) in &now.cases {
        let Some(&before) = recorded.cases.get(case) else {
            problems.push(format!("{case} has no recorded count of instructions"));
            continue;
        };
        let change = (count / before - 1.0) * 100.0;
        if change.abs() > TOLERANCE {
            problems.push(format!(
                "{case} takes {count:.1} instructions a packet, {change:+.1} % of the recorded {before:.1}; \
                 if that is meant: cargo xtask instructions --record"
            ));
        }
    }
    problems
}

impl Counts {
    fn to_text(&self) -> String {
        let mut text = format!(
            "# Instructions a packet of the back end; written by `cargo xtask instructions --record`.\n{}\n",
            self.compiler
        );
        for (case, count) in &self.cases {
            let _ = writeln!(text, "{case} {count:.1}");
        }
        text
    }

    fn from_text(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line
                .rsplit_once(' ')
                .map(|(name, count)| (name, count.parse()))
            {
                Some((case, Ok(count))) => drop(counts.cases.insert(case.to_owned(), count)),
                _ => line.clone_into(&mut counts.compiler),
            }
        }
        counts
    }
}
