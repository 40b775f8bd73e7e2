//! What the measurements share: chains of functions between two guests, the traffic that passes them, guests that do as
//! little as can be, cycles as criterion's unit, and a count of allocations.

pub mod allocations;
pub mod case;
pub mod chain;
pub mod crew;
pub mod cycles;
pub mod guests;
pub mod idle;
pub mod memory;
#[cfg(target_arch = "x86_64")]
pub mod microguest;
pub mod opening;
pub mod rings;
pub mod routes;
pub mod siege;
pub mod traffic;
pub mod turns;
