//! Workers, sizes, control socket.

use std::env;
use std::fs;
use std::path::PathBuf;

use super::{Checker, Once};
use crate::diagnostic::Diagnostic;
use crate::spec::file::Idle;
use crate::spec::model::{ControlSocket, Worker};
use crate::yaml_path;

/// Flow records per worker where the file does not say.
const FLOW_TABLE: u32 = 65_536;
/// Packets per worker where the file does not say.
const BUFFERS: u32 = 16_384;

/// The cores that the kernel has online; at least core 0.
pub fn online_cores() -> Vec<u32> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cores.extend(first..=last.min(first.saturating_add(4095)));
        }
    }
    if cores.is_empty() {
        cores.push(0);
    }
    cores
}

/// `/run/chainplane` for root, else the user's run-time directory or the temporary one.
pub fn socket_directory() -> PathBuf {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return "/run/chainplane".into();
    }
    match env::var_os("XDG_RUNTIME_DIR") {
        Some(own) => PathBuf::from(own).join("chainplane"),
        // A directory that all users share: each has one of its own there.
        None => env::temp_dir().join(format!("chainplane-{}", user.as_raw())),
    }
}

/// One worker per core; one that the kernel places where the file names none.
pub fn workers(checker: &mut Checker<'_>) -> Vec<Worker> {
    let mut once = Once::new("core");
    let mut workers = Vec::new();
    for (index, group) in checker.spec.workers.iter().enumerate() {
        for (i, &core) in group.cores.iter().enumerate() {
            let at = yaml_path!["workers", index, "cores", i];
            if !checker.environment.cores.contains(&core) {
                let help = format!("it has the cores {}", ranges(&checker.environment.cores));
                let message = format!("this machine has no core {core}");
                checker.report(Diagnostic::at_value(at.clone(), message).help(help));
            }
            once.add(checker, core, &core.to_string(), at);
            workers.push(Worker {
                core: Some(core),
                idle: group.idle,
            });
        }
        if group.cores.is_empty() {
            workers.push(Worker {
                core: None,
                idle: group.idle,
            });
        }
    }
    if workers.is_empty() {
        workers.push(Worker {
            core: None,
            idle: Idle::default(),
        });
    }
    checker.range(yaml_path!["workers"], workers.len(), 1..=64);
    workers
}

/// `0-3, 6`.
fn ranges(cores: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &core in cores {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(core) => *last = core,
            _ => parts.push((core, core)),
        }
    }
    let shown = parts.iter().map(|&(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Flow-table entries and packets per worker.
pub fn sizes(checker: &mut Checker<'_>) -> (u32, u32) {
    let table = checker.spec.flows.table.unwrap_or(FLOW_TABLE);
    checker.range(yaml_path!["flows", "table"], table, 0..=1 << 24);
    let buffers = checker.spec.packets.buffers.unwrap_or(BUFFERS);
    checker.range(yaml_path!["packets", "buffers"], buffers, 1024..=1 << 22);
    (table, buffers)
}

/// The control socket, placed by the file or by default.
pub fn control(checker: &mut Checker<'_>, stem: &str) -> ControlSocket {
    let control = &checker.spec.control;
    let path = control.socket.clone();
    if let Some(path) = &path {
        super::ports::socket_path(checker, path, yaml_path!["control", "socket"]);
    }
    let directory = &checker.environment.socket_directory;
    ControlSocket {
        path: path.unwrap_or_else(|| directory.join(format!("{stem}.sock"))),
        owner: control.owner.clone(),
        group: control.group.clone(),
        mode: control.mode.map(super::super::file::FileMode::bits),
    }
}
