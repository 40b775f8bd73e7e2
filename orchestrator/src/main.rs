//! The `chainplane` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    chainplane::cli::main()
}
