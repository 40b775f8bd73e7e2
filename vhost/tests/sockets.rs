//! Paths that can't be sockets, and sockets that are dead or not ours.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use chainplane_vhost::backend::{Device, DeviceConfig, StartError};
use common::{connect, socket};

fn start(path: &Path) -> Result<Device, StartError> {
    Device::start(DeviceConfig::new(path), Box::new(|| {})).map(|(device, _)| device)
}

fn refusal(path: &Path) -> String {
    start(path).expect_err("refused").to_string()
}

#[test]
fn directory() {
    let (dir, _) = socket();
    assert!(refusal(dir.path()).contains("is a directory"));
}

#[test]
fn ordinary_file_stays() {
    let (_dir, path) = socket();
    std::fs::write(&path, "precious").expect("writes");
    assert!(refusal(&path).contains("exists and is not a socket"));
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), "precious");
}

#[test]
fn missing_directory() {
    assert!(refusal(Path::new("/nonexistent/a.sock")).contains("/nonexistent/a.sock"));
}

#[test]
fn directory_without_permission() {
    // Root may write anywhere, but not into /proc.
    let text = refusal(Path::new("/proc/self/a.sock"));
    assert!(text.contains("can't be made"), "{text}");
}

#[test]
fn path_too_long() {
    let text = refusal(&Path::new("/tmp").join("x".repeat(120)));
    assert!(text.contains("longer than 107 bytes"));
}

#[test]
fn live_listener_stays() {
    let (_dir, path) = socket();
    let first = start(&path).expect("starts");
    assert!(refusal(&path).contains("in use"));
    drop(first);
    assert!(!path.exists());
}

#[test]
fn dead_socket_is_replaced() {
    let (_dir, path) = socket();
    drop(UnixListener::bind(&path).expect("binds"));
    assert!(path.exists());
    let device = start(&path).expect("starts");
    connect(&path);
    drop(device);
    assert!(!path.exists());
}

#[test]
fn socket_of_another_is_not_removed() {
    let (_dir, path) = socket();
    let device = start(&path).expect("starts");
    std::fs::remove_file(&path).expect("removes");
    let _other = UnixListener::bind(&path).expect("binds");
    drop(device);
    assert!(path.exists());
}

#[test]
fn owner_group_and_mode() {
    let (dir, path) = socket();
    let me = std::fs::metadata(dir.path()).expect("metadata");
    let config = DeviceConfig {
        owner: Some(me.uid()),
        group: Some(me.gid()),
        mode: Some(0o660),
        ..DeviceConfig::new(&path)
    };
    let device = Device::start(config, Box::new(|| {})).expect("starts");
    let made = std::fs::metadata(&path).expect("metadata");
    assert_eq!(made.permissions().mode() & 0o777, 0o660);
    assert_eq!((made.uid(), made.gid()), (me.uid(), me.gid()));
    drop(device);
}
