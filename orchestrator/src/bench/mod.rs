//! Measuring service chains, ours or anybody's.
//!
//! `traffic` says what is sent, `trial` sends it at a load and tells what became of it.

pub mod endpoint;
#[cfg(test)]
mod faulty;
pub mod loopback;
pub mod method;
pub mod output;
mod stateful;
pub mod stats;
pub mod suite;
pub mod traffic;
pub mod trial;
pub mod units;
