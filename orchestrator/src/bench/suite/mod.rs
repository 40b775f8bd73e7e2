//! Several targets, several kinds of traffic: what a suite's file or a command line asks for, in order.
//!
//! `file` has the types of the YAML file, `read` reads and checks it, `plan` is what both a file and
//! a command line come down to; `open` brings targets up, `run` measures, `compare` measures two in
//! turn; `part` goes on where an earlier run ended.

mod compare;
pub mod file;
mod open;
mod part;
pub mod plan;
mod read;
mod run;
#[cfg(test)]
mod tests;

pub use open::{Open, open};
pub use part::{Part, earlier};
pub use plan::{CasePlan, ComparisonPlan, Plan, TargetKind, TargetPlan};
pub use read::{load, parse, schema};
pub use run::{Finished, run};
