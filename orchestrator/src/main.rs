//! The `chainplane` program.
#![forbid(unsafe_code)]

fn main() {}
