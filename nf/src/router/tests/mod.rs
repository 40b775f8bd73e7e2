//! Tests of the router as a whole: frames in, frames out, under a clock of their own.

mod arp;
mod fixture;
mod forwarding;
