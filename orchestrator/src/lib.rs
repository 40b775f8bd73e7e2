//! YAML to a running chain; command line, control socket, capture.
#![forbid(unsafe_code)]

pub mod cli;
pub mod diagnostic;
pub mod plan;
pub mod spec;
