//! Network functions, one folder each.
//!
//! A function's folder holds its configuration, its tables, its processing and its tests; its line in
//! [`catalogue`] is all that the rest of the program knows of it.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod config;
pub mod firewall;
pub mod load_balancer;
pub mod nat;
pub mod router;
pub mod track;

pub use catalogue::FunctionConfig;
