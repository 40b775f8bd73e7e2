//! YAML to a running chain; command line, control socket, capture.
#![forbid(unsafe_code)]

pub mod cli;
pub mod diagnostic;
pub mod control;
mod ids;
pub mod instance;
pub mod plan;
pub mod spec;
