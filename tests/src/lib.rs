//! What the tests against real parts are made of: guests under QEMU, DPDK's testpmd, network
//! namespaces, tshark and the built `chainplane` program, each behind a guard that leaves nothing
//! behind when a test fails.
//!
//! The tests themselves are in `tests/real/`. They need programs that a build machine seldom has, so
//! each names its [needs](Need) and is left out, visibly, where one is missing; `cargo xtask test`
//! installs them all and then leaves out nothing.

#![forbid(unsafe_code)]
// Every function here fails for the same reason: the part that it drives did not do as it was told.
// The error says which and shows the part's output.
#![allow(clippy::missing_errors_doc)]

mod chainplane;
mod error;
pub mod fuzz;
mod guest;
mod image;
mod need;
mod netns;
mod nginx;
mod ovs;
pub mod parts;
mod process;
mod qmp;
mod testpmd;
pub mod wire;

pub use chainplane::{Chainplane, Workspace};
pub use error::{Error, Result, wait_until};
pub use guest::{BOOT_LIMIT, BootFiles, Guest, Machine, Migration, Nic};
pub use need::{Need, missing};
pub use netns::{Netns, sweep};
pub use nginx::{LARGE, Nginx};
pub use ovs::Ovs;
pub use process::{Output, Process, program, run};
pub use testpmd::Testpmd;
