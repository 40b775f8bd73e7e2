//! Replays the corpora of the fuzz targets, so that what they once found stays found without a fuzzer.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use chainplane_tests::{fuzz, parts};

/// Feeds `target` each file of its corpus, and each with every byte in turn cut off its end.
fn replay(name: &str, target: fn(&[u8])) {
    let directory = parts::workspace().join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        for len in (0..=bytes.len()).rev().take(100) {
            let run = catch_unwind(AssertUnwindSafe(|| target(&bytes[..len])));
            assert!(run.is_ok(), "{} cut to {len} bytes", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "the corpus of {name} is empty");
}

#[test]
fn parser() {
    replay("parser", fuzz::parser);
}

#[test]
fn yaml() {
    replay("yaml", fuzz::yaml);
}

#[test]
fn offload() {
    replay("offload", fuzz::offload);
}

#[test]
fn virtqueue() {
    replay("virtqueue", fuzz::virtqueue);
}

#[test]
fn guests() {
    replay("guests", fuzz::guests);
}

#[test]
fn control() {
    replay("control", fuzz::control);
}
