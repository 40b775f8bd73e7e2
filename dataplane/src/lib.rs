//! Packets, batches, flow records, ports, workers, counters.
//!
//! See `docs/architecture.md` for the map of this crate and its invariants.

pub mod capture;
pub mod counters;
pub mod crew;
pub mod engine;
pub mod flow;
pub mod function;
mod hashing;
pub mod huge;
pub mod objects;
pub mod offload;
pub mod packet;
pub mod pcapng;
pub mod port;
pub mod ports;
pub mod prefetch;
pub mod rota;
pub mod session;
pub mod sim;
pub mod stats;
mod tags;
pub mod tails;
#[cfg(test)]
mod testing;
pub mod time;
pub mod worker;
