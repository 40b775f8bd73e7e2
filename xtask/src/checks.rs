//! What can be said of the code without running it.

use crate::report::Report;
use crate::{cargo, parts};

/// Formatting, clippy and cargo deny.
pub fn all(report: &mut Report) {
    let mut fmt = cargo();
    fmt.args(["fmt", "--all", "--check"]);
    report.step("formatting", fmt);

    let mut clippy = cargo();
    clippy.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]);
    report.step("clippy", clippy);

    let mut deny = parts::cargo_deny(report);
    deny.args(["check", "bans", "licenses", "sources"]);
    report.step("bans, licences and sources of dependencies", deny);
}
