//! Where things are: this workspace, the parts that `cargo xtask test` fetched, programs.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The root of this workspace.
pub fn workspace() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Where fetched and built parts are kept: `CHAINPLANE_PARTS`, or `parts` in cargo's target directory.
pub fn directory() -> PathBuf {
    if let Some(path) = env::var_os("CHAINPLANE_PARTS") {
        return path.into();
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace().join(target).join("parts")
}

/// The kernel that guests boot, and the directory of its modules.
pub fn guest_kernel() -> Result<(PathBuf, PathBuf)> {
    let root = directory().join("kernel");
    let image = only_entry(&root.join("boot"), "vmlinuz-")?;
    let modules = only_entry(&root.join("lib/modules"), "")?;
    Ok((image, modules))
}

/// The one entry of `directory` whose name starts with `prefix`.
fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory)
        .map_err(|error| Error::new(format!("{}: {error}", directory.display())))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(prefix))
        })
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => Err(Error::new(format!(
            "not one `{prefix}*` in {}",
            directory.display()
        ))),
    }
}

/// The search path with the directories of administration programs, which an ordinary user's lacks.
pub fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// The full path of the program `name`, if there is one.
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|path| path.join(name))
        .find(|path| path.is_file())
}
