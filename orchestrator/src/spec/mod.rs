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
pub(crate) mod yaml;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::diagnostic::{Diagnostic, Place, Report};
use crate::plan::PlanError;

pub use check::Environment;
pub use model::Model;

/// A checked configuration, and its text for errors that are found later.
#[derive(Debug)]
pub struct Checked {
    /// What it describes.
    pub model: Model,
    file: String,
    text: String,
    tree: yaml::Tree,
}

impl Checked {
    /// A report of what functions have to say about where they stand.
    pub fn explain(&self, errors: Vec<PlanError>) -> Report {
        let diagnostics = errors.into_iter().map(|PlanError { function, error }| {
            let named = &self.model.functions[function];
            function::diagnostic(&named.name, &named.config, error)
        });
        let mut diagnostics = diagnostics.collect::<Vec<_>>();
        locate(&self.tree, &mut diagnostics);
        Report::new(&self.file, &self.text, diagnostics)
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// A report of all that is wrong with it, also where it can't be read.
pub fn open(path: &Path, environment: &Environment) -> Result<Checked, Box<Report>> {
    match read_file(path) {
        Ok(text) => check_text(text, path, environment),
        Err(message) => {
            let name = path.display().to_string();
            let errors = vec![Diagnostic::new(message)];
            Err(Box::new(Report::new(&name, "", errors)))
        }
    }
}

/// As [`open`], for the model alone.
///
/// # Errors
/// As [`open`].
pub fn load(path: &Path, environment: &Environment) -> Result<Model, Box<Report>> {
    open(path, environment).map(|checked| checked.model)
}

/// Checks `text` as if it stood in the file at `path`.
///
/// # Errors
/// A report of all that is wrong with it.
pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Model, Box<Report>> {
    check_text(text.to_owned(), path, environment).map(|checked| checked.model)
}

/// As [`parse`], with all that is needed to explain errors that are found later.
pub(crate) fn check_text(
    text: String,
    path: &Path,
    environment: &Environment,
) -> Result<Checked, Box<Report>> {
    let file = path.display().to_string();
    let report = |errors| Box::new(Report::new(&file, &text, errors));
    let tree = yaml::Tree::parse(&text).map_err(report)?;
    let (spec, found) = read::read(&tree);
    let mut errors = tree.errors.clone();
    errors.extend(found);
    let (model, found) = check::check(&spec, path, environment);
    errors.extend(found);
    match model {
        Some(model) if errors.is_empty() => Ok(Checked {
            model,
            file,
            text,
            tree,
        }),
        _ => {
            locate(&tree, &mut errors);
            Err(report(errors))
        }
    }
}

/// Turns paths into bytes of the text. Where two places are one text that an alias shares, the
/// first is where the alias stands.
pub(crate) fn locate(tree: &yaml::Tree, errors: &mut [Diagnostic]) {
    for error in errors {
        let Some(place) = &error.place else { continue };
        let mut span = tree.locate(place);
        if let Some((related, _)) = &mut error.related {
            let other = tree.locate(related);
            if other == span {
                span = tree.alias_to(place).unwrap_or(span);
            }
            *related = Place::Span(other);
        }
        error.place = Some(Place::Span(span));
    }
}

/// The file's text, or why it can't be had.
pub(crate) fn read_file(path: &Path) -> Result<String, String> {
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
