//! What can be said of the code without running it.

use crate::report::Report;
use crate::{cargo, parts, target_directory, workspace};

/// Formatting, clippy, cargo deny, and whether the fuzz targets still compile.
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

    let mut fuzz = cargo();
    fuzz.args(["check", "--manifest-path"])
        .arg(workspace().join("fuzz/Cargo.toml"));
    // A check links nothing; naming any library keeps libFuzzer's C++ from being compiled for it.
    fuzz.arg("--target-dir").arg(target_directory());
    fuzz.env("CUSTOM_LIBFUZZER_PATH", "/none");
    report.step("fuzz targets", fuzz);
}
