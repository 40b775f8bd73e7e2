//! YAML to a running chain; command line, control socket, capture.
#![forbid(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod control;
pub mod demo;
pub mod diagnostic;
pub mod guest;
mod ids;
pub mod instance;
pub mod plan;
pub mod spec;
pub mod table;
