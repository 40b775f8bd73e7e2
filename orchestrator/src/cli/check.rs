//! `chainplane check`: the chains as a drawing.

use std::fmt::Write as _;
use std::path::Path as FilePath;
use std::process::ExitCode;

use super::{explain, open, print};
use crate::plan::{Plan, Told};
use crate::spec::Model;

/// Widest line of a drawing.
const WIDTH: usize = 78;

/// Checks `file` and prints what it describes.
pub fn run(file: &FilePath) -> Result<ExitCode, ExitCode> {
    let checked = open(file)?;
    let plan = Plan::new(&checked.model).map_err(|errors| explain(&checked.explain(errors)))?;
    print(&summary(&checked.model, &plan.told))
}

/// What the configuration describes, in a few lines.
fn summary(model: &Model, told: &Told) -> String {
    let mut out = String::new();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let _ = writeln!(
        out,
        "{}: {}, {}, {}, {}\n",
        model.name,
        count(model.workers.len(), "worker"),
        count(model.ports.len(), "port"),
        count(model.functions.len(), "function"),
        count(model.paths.iter().filter(|p| p.part == 0).count(), "chain"),
    );
    let widest = model.paths.iter().map(|p| p.chain.len()).max().unwrap_or(0);
    for path in &model.paths {
        let name = if path.part == 0 {
            path.chain.as_str()
        } else {
            ""
        };
        draw(&mut out, name, widest, &model.words(path));
    }
    for lines in [&told.ways, &told.parts] {
        if !lines.is_empty() {
            out.push('\n');
        }
        for line in lines {
            let _ = writeln!(out, "  {line}");
        }
    }
    let _ = writeln!(out, "\nno errors");
    out
}

/// One path, folded where it is too long for a line.
fn draw(out: &mut String, name: &str, widest: usize, words: &[String]) {
    let mut line = format!("  {name:widest$}  ");
    let indent = line.len() + 2;
    for (index, word) in words.iter().enumerate() {
        let joint = if index == 0 { "" } else { " -- " };
        if line.len() + joint.len() + word.len() > WIDTH && index > 0 {
            let _ = writeln!(out, "{line} --");
            line = " ".repeat(indent);
            line.push_str(word);
        } else {
            line.push_str(joint);
            line.push_str(word);
        }
    }
    let _ = writeln!(out, "{line}");
}
