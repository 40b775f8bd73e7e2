//! Tests of the router as a whole: frames in, frames out, under a clock of their own.

mod arp;
mod batches;
mod config;
mod discovery;
mod errors;
mod fixture;
mod forwarding;
mod hostile;
mod replay;
