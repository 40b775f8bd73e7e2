//! The rules of `docs/architecture.md` that a program can check.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chainplane_tests::parts::workspace;
use serde_json::Value;

/// The crates of the product from the top down. An arrow may only point to a later one.
const LAYERS: [&str; 4] = [
    "chainplane",
    "chainplane-nf",
    "chainplane-dataplane",
    "chainplane-vhost",
];

/// No file of Rust may be longer than this.
const MOST_LINES: usize = 800;

fn relative(path: &Path) -> String {
    path.strip_prefix(workspace())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// All files of the project below `directory` that end in `extension`; not what cargo built.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == extension) && path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<(String, String)> {
    let read = |path: PathBuf| (relative(&path), fs::read_to_string(path).unwrap());
    files(&workspace(), "rs").into_iter().map(read).collect()
}

/// `source` without comments, strings and character literals, so that only code is left.
fn code(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(hashes) = raw_string(rest, &code) {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = hashes + 2;
            rest[body..]
                .find(&end)
                .map_or(rest.len(), |at| body + at + end.len())
        } else if first == '"' {
            string(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\") {
            3 + rest[3..].find('\'').map_or(0, |at| at + 1)
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

/// The number of hashes if a raw string starts here.
fn raw_string(rest: &str, before: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    // The `r` of `for"…"` can't occur; that of `br"…"` can.
    let word = before
        .chars()
        .next_back()
        .is_some_and(|c| (c.is_alphanumeric() && c != 'b') || c == '_');
    let hashes = after.len() - after.trim_start_matches('#').len();
    (!word && after[hashes..].starts_with('"')).then_some(hashes)
}

/// The length of the string literal that starts here.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[test]
fn only_code_is_seen_as_code() {
    let source = r##"
        // one
        /* two */ let a = "three \" four"; let b = r#"five " six"#; let c = ['"', '\'', 'x'];
        let d = b"seven"; seen
    "##;
    let code = code(source);
    for hidden in ["one", "two", "three", "four", "five", "six", "seven"] {
        assert!(!words(&code).any(|word| word == hidden), "{hidden}: {code}");
    }
    assert!(words(&code).any(|word| word == "seen"));
}

#[test]
fn arrows_only_point_down() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(workspace())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let names = package["dependencies"].as_array().unwrap();
        let names = names
            .iter()
            .filter_map(|dependency| dependency["name"].as_str());
        arrows.insert(package["name"].as_str().unwrap(), names.collect());
    }
    let members: BTreeSet<&str> = arrows.keys().copied().collect();
    for (place, layer) in LAYERS.iter().enumerate() {
        let below: BTreeSet<&str> = LAYERS[place + 1..].iter().copied().collect();
        let ours: BTreeSet<&str> = arrows[layer].intersection(&members).copied().collect();
        let up: Vec<_> = ours.difference(&below).collect();
        assert!(
            up.is_empty(),
            "{layer} must not depend on {up:?}, not even for its tests"
        );
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for manifest in files(&workspace(), "toml") {
        if manifest.ends_with("Cargo.toml") && manifest.parent() != Some(&workspace()) {
            let text = fs::read_to_string(&manifest).unwrap();
            let own_workspace = text.contains("[workspace]");
            let takes = text.contains("[lints]\nworkspace = true")
                || text.contains("lints.workspace = true");
            assert!(
                own_workspace || takes,
                "{} has no `lints.workspace = true`",
                relative(&manifest)
            );
        }
    }
}

/// The files that may hold unsafe code: the Rust files that `docs/architecture.md` names in the section
/// about it.
fn unsafe_files() -> BTreeSet<String> {
    let page = fs::read_to_string(workspace().join("docs/architecture.md")).unwrap();
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        if line.starts_with('#') {
            inside = line.to_lowercase().contains("unsafe");
        } else if inside {
            let names = line
                .split('`')
                .filter(|word| Path::new(word).extension().is_some_and(|e| e == "rs"));
            found.extend(names.map(str::to_owned));
        }
    }
    found
}

#[test]
fn unsafe_code_is_where_the_architecture_says() {
    let keyword = concat!("un", "safe");
    let has = |text: &str| words(&code(text)).any(|word| word == keyword);
    let files = rust_files().into_iter().filter(|(_, text)| has(text));
    let found: BTreeSet<String> = files.map(|(name, _)| name).collect();
    let listed = unsafe_files();
    assert_eq!(
        found, listed,
        "left: files with unsafe code; right: the list in docs/architecture.md"
    );
}

#[test]
fn crates_without_unsafe_code_forbid_it() {
    for root in [
        "nf/src/lib.rs",
        "orchestrator/src/lib.rs",
        "orchestrator/src/main.rs",
        "tests/src/lib.rs",
    ] {
        let text = fs::read_to_string(workspace().join(root)).unwrap();
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{root} does not forbid it"
        );
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
    ];
    let macros = [concat!("to", "do!"), concat!("unimple", "mented!")];
    for (name, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            let mark = words(line).find(|word| marks.contains(word));
            let mark = mark.or_else(|| macros.into_iter().find(|word| line.contains(word)));
            assert_eq!(mark, None, "{name}:{}", number + 1);
        }
    }
}

#[test]
fn files_are_short() {
    for (name, text) in rust_files() {
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{name} has {lines} lines");
    }
}
