//! Every kind of bad file, and what is said about it: `bad/NAME.yaml` gives `bad/NAME.txt`.
//!
//! `UPDATE_EXPECTED=1 cargo test -p chainplane --test errors` writes what is said now; read the
//! difference before you keep it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use chainplane::spec::{self, Environment};

fn environment() -> Environment {
    Environment {
        cores: vec![0, 1],
        socket_directory: "/run/chainplane".into(),
    }
}

fn bad_files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let entries = fs::read_dir(directory).expect("tests/bad");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files
        .filter(|f| f.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

/// What is said about `file`, by its name alone.
fn said(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a bad file");
    let name = Path::new(file.file_name().expect("a name"));
    match spec::parse(&text, name, &environment()) {
        Ok(_) => "no error\n".into(),
        Err(report) => report.render(false),
    }
}

#[test]
fn every_bad_file_is_explained() {
    let update = env::var_os("UPDATE_EXPECTED").is_some();
    let mut differences = String::new();
    for file in bad_files() {
        let said = said(&file);
        let expected_file = file.with_extension("txt");
        if update {
            fs::write(&expected_file, &said).expect("written");
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        if said != expected {
            let _ = writeln!(differences, "{}:\n{said}", file.display());
        }
    }
    assert!(differences.is_empty(), "said now:\n{differences}");
}

#[test]
fn explanations_fit_a_terminal_and_drive_it_nowhere() {
    for file in bad_files() {
        let said = said(&file);
        assert_ne!(said, "no error\n", "{}", file.display());
        for c in said.chars() {
            assert!(c == '\n' || !c.is_control(), "{}: {c:?}", file.display());
        }
    }
}
