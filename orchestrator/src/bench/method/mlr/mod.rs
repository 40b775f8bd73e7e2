//! MLRsearch (RFC 9971): the throughput for several loss ratios in one search.
//!
//! `goal` holds what the RFC prescribes: the attributes of a goal, how the trials at one load
//! classify it, and the conditional throughput. `search` is the part that the RFC leaves to the
//! implementation: which load to try next and for how long. Neither knows time, sockets or
//! packets; [`super::rates`] runs them against a target.
//!
//! How the next load is found: loads are points of a geometric grid, so that the goals share their
//! trials. The search goes through phases from short trials and a wide interval to those of the
//! goal; within a phase it first looks again at the bounds of the phase before, then widens by
//! doubling steps where a bound is missing, then halves. Each goal's turn uses what the others
//! learned.
//!
//! One thing is added to the RFC: a trial whose loss the host's own noise may have caused says
//! nothing about the goal (see [`Evidence::excused`]) and is tried again, a bounded number of times.

mod goal;
mod search;
#[cfg(test)]
mod tests;

pub use goal::{Class, Evidence, Goal, Side};
pub use search::{Bound, Found, Next, Search, Status};
