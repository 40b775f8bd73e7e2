//! The initial file system of a guest: busybox, the virtio modules, iperf3 and ethtool.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::{Error, Result, parts, program, run};

/// The modules of a virtio network device in the order in which they depend on each other: Debian 12's
/// kernel has none of them built in, and the guest has no depmod. Newer kernels have some.
const MODULES: [&str; 8] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];

/// The guest's first process. It says `@@ready`, then runs each line `ID COMMAND` that comes on its
/// console and says `@@ID EXIT-CODE` after it.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin:/usr/bin
/bin/busybox mkdir -p /proc /sys /dev /tmp /usr
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module.ko" || echo "@@$module is not loaded"; done
ip link set lo up
stty -echo -onlcr
echo @@ready
while read -r id command; do
    ( eval "$command" ) </dev/null 2>&1
    echo "@@$id $?"
done
"#;

/// The path of the image for the modules in `modules`; built when it is not there yet.
pub fn initramfs(modules: &Path) -> Result<PathBuf> {
    // Tests may run side by side, and the second must not see half an image.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock();
    let archive = Archive::new(modules)?.finish();
    let path = parts::directory().join("initramfs");
    if fs::read(&path).is_ok_and(|old| old == archive) {
        return Ok(path);
    }
    let new = path.with_extension(std::process::id().to_string());
    fs::write(&new, &archive)?;
    fs::rename(&new, &path)?;
    Ok(path)
}

/// A cpio archive in the "newc" form that the kernel unpacks (its documentation calls it the initramfs
/// buffer format). Not compressed: unpacking is what costs time in an emulated guest.
#[derive(Default)]
struct Archive {
    /// By path, so that a directory stands before what is in it.
    entries: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Archive {
    fn new(modules: &Path) -> Result<Self> {
        let mut archive = Self::default();
        archive.add("init", 0o100_755, INIT.as_bytes().to_vec());
        let busybox = need_program("busybox")?;
        archive.add("bin/busybox", 0o100_755, fs::read(busybox)?);
        let mut order = Vec::new();
        for name in MODULES {
            if let Some(module) = read_module(modules, name)? {
                archive.add(&format!("modules/{name}.ko"), 0o100_644, module);
                order.push(name);
            }
        }
        archive.add("modules/order", 0o100_644, order.join("\n").into_bytes());
        for name in ["iperf3", "ethtool"] {
            archive.add_with_libraries(name)?;
        }
        Ok(archive)
    }

    fn add(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        for (slash, _) in path.match_indices('/') {
            self.entries
                .entry(path[..slash].to_owned())
                .or_insert((0o040_755, Vec::new()));
        }
        self.entries.insert(path.to_owned(), (mode, content));
    }

    fn add_with_libraries(&mut self, name: &str) -> Result<()> {
        let path = need_program(name)?;
        let mut ldd = program("ldd");
        ldd.arg(&path);
        for line in run(ldd, Duration::from_mins(1))?.stdout.lines() {
            // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or the loader's path alone.
            if let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) {
                self.add(
                    library.trim_start_matches('/'),
                    0o100_755,
                    fs::read(library)?,
                );
            }
        }
        self.add(&format!("usr/bin/{name}"), 0o100_755, fs::read(path)?);
        Ok(())
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let trailer = ("TRAILER!!!".to_owned(), (0, Vec::new()));
        for (inode, (path, (mode, content))) in
            self.entries.into_iter().chain([trailer]).enumerate()
        {
            let (size, name_size) = (content.len(), path.len() + 1);
            let links = 1;
            // Magic, then inode, mode, owner, group, links, time, size, four device numbers, length of
            // the name, check: each eight hexadecimal digits.
            bytes.extend_from_slice(
                format!(
                    "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}{size:08x}\
                     {0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}{path}\0",
                    0
                )
                .as_bytes(),
            );
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend_from_slice(&content);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }
}

fn need_program(name: &str) -> Result<PathBuf> {
    parts::find_program(name).ok_or_else(|| Error::new(format!("{name} is not installed")))
}

/// The module `name` of the kernel whose modules are in `modules`, unpacked; `None` if it is built in.
fn read_module(modules: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    if let Some(path) = find(modules, &format!("{name}.ko")) {
        return Ok(Some(fs::read(path)?));
    }
    if let Some(path) = find(modules, &format!("{name}.ko.xz")) {
        let output = program("xz").arg("-dc").arg(path).output()?;
        return Ok(Some(output.stdout));
    }
    let built_in = find(modules, "modules.builtin").map(fs::read_to_string);
    let built_in = built_in.transpose()?.unwrap_or_default();
    if built_in.contains(&format!("/{name}.ko")) {
        return Ok(None);
    }
    let place = modules.display();
    Err(Error::new(format!("no {name}.ko below {place}")))
}

/// The file called `name` somewhere below `directory`.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).ok()?.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                _ if entry.file_name() == name => return Some(entry.path()),
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_stand_before_their_files_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.add("a/b/c", 0o100_644, b"hello".to_vec());
        let paths: Vec<_> = archive.entries.keys().cloned().collect();
        assert_eq!(paths, ["a", "a/b", "a/b/c"]);
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let starts: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 4);
        assert!(starts.iter().all(|at| at % 4 == 0));
        assert!(text.contains("hello") && text.contains("TRAILER!!!"));
    }
}
