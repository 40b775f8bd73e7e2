//! Several targets, several kinds of traffic: what a suite's file or a command line asks for, in order.
//!
//! `file` has the types of the YAML file, `read` reads and checks it, `plan` is what both a file and
//! a command line come down to; `open` brings targets up, `run` measures, `compare` measures two in
//! turn.

mod compare;
pub mod file;
mod open;
pub mod plan;
mod read;
mod run;
#[cfg(test)]
mod tests;

pub use open::{Open, open};
pub use plan::{CasePlan, ComparisonPlan, Plan, TargetKind, TargetPlan};
pub use read::{load, parse, schema};
pub use run::{Finished, run};
