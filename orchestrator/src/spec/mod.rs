//! YAML file to a checked model: read, check, explain.
//!
//! `yaml` knows the syntax, `file` the shape, `check` the sense; `function` is the seam to `nf`.
//! All of it takes hostile bytes: sizes are bounded before anything is walked.

mod check;
pub mod file;
mod function;
pub mod model;
mod read;
pub mod schema;
mod yaml;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::diagnostic::{Diagnostic, Place, Report};

pub use check::Environment;
pub use model::Model;

/// Reads and checks the file at `path`.
///
/// # Errors
/// A report of all that is wrong with it, also where it can't be read.
pub fn load(path: &Path, environment: &Environment) -> Result<Model, Box<Report>> {
    match read_file(path) {
        Ok(text) => parse(&text, path, environment),
        Err(message) => {
            let name = path.display().to_string();
            Err(Box::new(Report::new(
                &name,
                "",
                vec![Diagnostic::new(message)],
            )))
        }
    }
}

/// Checks `text` as if it stood in the file at `path`.
///
/// # Errors
/// A report of all that is wrong with it.
pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Model, Box<Report>> {
    let report = |errors| Box::new(Report::new(&path.display().to_string(), text, errors));
    let tree = yaml::Tree::parse(text).map_err(report)?;
    let (spec, found) = read::read(&tree);
    let mut errors = tree.errors.clone();
    errors.extend(found);
    let (model, found) = check::check(&spec, path, environment);
    errors.extend(found);
    for error in &mut errors {
        error.place = error.place.take().map(|p| Place::Span(tree.locate(&p)));
        if let Some((place, _)) = &mut error.related {
            *place = Place::Span(tree.locate(place));
        }
    }
    match model {
        Some(model) if errors.is_empty() => Ok(model),
        _ => Err(report(errors)),
    }
}

/// The file's text, or why it can't be had.
fn read_file(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|e| format!("can't be opened: {e}"))?;
    let metadata = file.metadata().map_err(|e| format!("can't be read: {e}"))?;
    if metadata.is_dir() {
        return Err("a directory, where a YAML file is expected".into());
    }
    let most = yaml::MAX_BYTES as u64;
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("can't be read: {e}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("larger than {} MiB", most >> 20));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].split(|b| *b == b'\n').count();
        format!("not UTF-8 text (line {line})")
    })
}

/// Loads and checks arbitrary bytes: for fuzzing.
#[doc(hidden)]
pub fn fuzz_yaml(data: &[u8]) {
    let environment = Environment {
        cores: vec![0, 1],
        socket_directory: "/run/chainplane".into(),
    };
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(report) = parse(text, Path::new("fuzz.yaml"), &environment)
    {
        report.render(false);
    }
}
