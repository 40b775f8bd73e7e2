//! Ports one by one, and what two of them can't share.

use std::path::{Path as FilePath, PathBuf};

use chainplane_dataplane::packet;
use chainplane_nf::config::Mac;

use super::{Checker, Once, guests, join};
use crate::diagnostic::{Diagnostic, YamlPath};
use crate::spec::file::{
    Generator, GuestSide, Offloads, Pcap, Port, Protocol, Role, Tap, VhostUser,
};
use crate::spec::function::Function;
use crate::yaml_path;

/// Longest path of a unix socket, in bytes (`sun_path`, less its zero byte).
const SOCKET_PATH: usize = 107;
/// Longest name of an interface, in bytes (`IFNAMSIZ`, less its zero byte).
const INTERFACE: usize = 15;
/// Sizes of packets without Ethernet header: IPv4's least and the usual jumbo frame.
const MTU: std::ops::RangeInclusive<u16> = 576..=9216;

struct Shared {
    sockets: Once<PathBuf>,
    interfaces: Once<String>,
    macs: Once<Mac>,
    records: Once<PathBuf>,
}

/// Checks all ports, guest functions' sides among them.
pub fn check(checker: &mut Checker<'_>, control: &FilePath) {
    let mut shared = Shared {
        sockets: Once::new("socket"),
        interfaces: Once::new("interface"),
        macs: Once::new("MAC address"),
        records: Once::new("file"),
    };
    if checker.spec.control.socket.is_some() {
        let path = yaml_path!["control", "socket"];
        shared.sockets.add(checker, control.into(), "", path);
    }
    for (name, port) in &checker.spec.ports {
        if let Some(port) = port {
            let at = yaml_path!["ports", name, port.kind()];
            one(checker, &mut shared, name, port, &at);
        }
    }
    for (name, function) in &checker.spec.functions {
        match function {
            Some(Function::Guest(guest)) => {
                for (side, which) in [(&guest.inside, "inside"), (&guest.outside, "outside")] {
                    let GuestSide::VhostUser(port) = side;
                    let at = yaml_path!["functions", name, "guest", which, "vhost-user"];
                    vhost_user(checker, &mut shared, &format!("{name}.{which}"), port, &at);
                }
            }
            Some(function) => {
                for (mac, path) in function.macs(name) {
                    shared.macs.add(checker, mac, &mac.0.to_string(), path);
                }
            }
            None => {}
        }
    }
}

fn one(checker: &mut Checker<'_>, shared: &mut Shared, name: &str, port: &Port, at: &YamlPath) {
    match port {
        Port::VhostUser(port) => vhost_user(checker, shared, name, port, at),
        Port::Tap(port) => tap(checker, shared, port, at),
        Port::AfPacket(port) => {
            interface_name(checker, shared, &port.interface, join(at, "interface"));
            offloads(checker, port.offloads, at);
        }
        Port::Pcap(port) => pcap(checker, shared, port, at),
        Port::Generator(port) => generator(checker, port, at),
        Port::EmbeddedGuest(guest) => {
            guests::check(checker, guest, at);
            mac(checker, shared, guest.mac(name), at);
        }
    }
}

fn vhost_user(
    checker: &mut Checker<'_>,
    shared: &mut Shared,
    name: &str,
    port: &VhostUser,
    at: &YamlPath,
) {
    let path = join(at, "socket");
    socket_path(checker, &port.socket, path.clone());
    let shown = port.socket.display().to_string();
    shared
        .sockets
        .add(checker, port.socket.clone(), &shown, path);
    checker.range(join(at, "queues"), port.queues, 1..=64);
    if let Some(mtu) = port.mtu {
        checker.range(join(at, "mtu"), mtu, MTU);
    }
    offloads(checker, port.offloads, at);
    mac(checker, shared, port.mac(name), at);
    let owned = [
        ("owner", port.owner.is_some()),
        ("group", port.group.is_some()),
        ("mode", port.mode.is_some()),
    ];
    for (key, given) in owned {
        if given && port.role == Role::Client {
            checker.report(
                Diagnostic::at_key(
                    join(at, key),
                    format!("a client's socket has no `{key}` to set"),
                )
                .help("the virtual machine's side makes the socket; or let `role` be `server`"),
            );
        }
    }
}

/// Checks the path of a unix socket.
pub fn socket_path(checker: &mut Checker<'_>, socket: &FilePath, at: YamlPath) {
    let bytes = socket.as_os_str().as_encoded_bytes();
    if bytes.is_empty() || bytes.contains(&0) || bytes.ends_with(b"/") {
        checker.value(
            at,
            format!("`{}` is no path for a socket", socket.display()),
        );
    } else if bytes.len() > SOCKET_PATH {
        let length = bytes.len();
        checker.value(
            at,
            format!("a socket path of {length} bytes; {SOCKET_PATH} is the most"),
        );
    }
}

fn offloads(checker: &mut Checker<'_>, offloads: Offloads, at: &YamlPath) {
    let key = if offloads.segmentation {
        "segmentation"
    } else {
        "udp-segmentation"
    };
    if (offloads.segmentation || offloads.udp()) && !offloads.checksum {
        checker.report(
            Diagnostic::at_value(
                join(&join(at, "offloads"), "checksum"),
                format!("`{key}` needs `checksum`"),
            )
            .help(format!("set `{key}: false` too")),
        );
    }
}

/// The MAC address of a machine, configured or made from its port's name.
fn mac(checker: &mut Checker<'_>, shared: &mut Shared, mac: packet::Mac, at: &YamlPath) {
    unicast(checker, Mac(mac), join(at, "mac"));
    let shown = mac.to_string();
    shared.macs.add(checker, Mac(mac), &shown, join(at, "mac"));
}

fn unicast(checker: &mut Checker<'_>, mac: Mac, at: YamlPath) {
    let bytes = mac.0.0;
    if bytes[0] & 1 != 0 || bytes == [0; 6] {
        checker.report(
            Diagnostic::at_value(at, format!("`{}` is no address of one interface", mac.0))
                .help("the first byte is even, as 02, and not all bytes are 0"),
        );
    }
}

fn interface_name(checker: &mut Checker<'_>, shared: &mut Shared, name: &str, at: YamlPath) {
    let bad = |c: char| c == '/' || c == ':' || !c.is_ascii_graphic();
    if name.is_empty() || matches!(name, "." | "..") || name.contains(bad) {
        checker.value(at, format!("`{name}` is no interface's name"));
    } else if name.len() > INTERFACE {
        let length = name.len();
        checker.value(
            at,
            format!("an interface's name of {length} bytes; {INTERFACE} is the most"),
        );
    } else {
        shared.interfaces.add(checker, name.to_owned(), name, at);
    }
}

fn tap(checker: &mut Checker<'_>, shared: &mut Shared, port: &Tap, at: &YamlPath) {
    interface_name(checker, shared, &port.interface, join(at, "interface"));
    if let Some(mtu) = port.mtu {
        checker.range(join(at, "mtu"), mtu, MTU);
    }
    offloads(checker, port.offloads, at);
}

fn pcap(checker: &mut Checker<'_>, shared: &mut Shared, port: &Pcap, at: &YamlPath) {
    if port.replay.is_none() && port.record.is_none() {
        checker.report(
            Diagnostic::at_key(at.clone(), "a pcap port without a file")
                .help("give it `replay`, `record` or both"),
        );
    }
    checker.range(join(at, "repeat"), port.repeat, 1..=1_000_000_000);
    if let Some(file) = &port.replay {
        let full = checker.directory.join(file);
        if !full.is_file() {
            checker.report(
                Diagnostic::at_value(join(at, "replay"), format!("no file `{}`", full.display()))
                    .help("a relative path starts at the YAML file's directory"),
            );
        }
    }
    if let Some(file) = &port.record {
        let shown = file.display().to_string();
        if shown.is_empty() || shown.ends_with('/') {
            checker.value(
                join(at, "record"),
                format!("`{shown}` is no path for a file"),
            );
        }
        shared
            .records
            .add(checker, file.clone(), &shown, join(at, "record"));
    }
}

fn generator(checker: &mut Checker<'_>, port: &Generator, at: &YamlPath) {
    if port.from.is_ipv4() != port.to.is_ipv4() {
        checker.value(join(at, "to"), "`from` and `to` are of two IP versions");
    }
    let ip = if port.from.is_ipv4() { 20 } else { 40 };
    let transport = if port.protocol == Protocol::Tcp {
        20
    } else {
        8
    };
    checker.range(
        join(at, "size"),
        port.size,
        (14 + ip + transport).max(60)..=9216,
    );
    checker.range(join(at, "flows"), port.flows, 1..=65_536);
    checker.range(join(at, "from-port"), port.from_port, 1..=u16::MAX);
    checker.range(join(at, "to-port"), port.to_port, 1..=u16::MAX);
    if let Some(rate) = port.rate {
        checker.range(join(at, "rate"), rate, 1..=1_000_000_000);
    }
    let most = 65_536 - u32::from(port.from_port);
    if port.protocol != Protocol::Icmp && port.flows > most {
        let message = format!("only {most} source ports from {} on", port.from_port);
        checker.value(join(at, "flows"), message);
    }
    unicast(checker, port.from_mac, join(at, "from-mac"));
    unicast(checker, port.to_mac, join(at, "to-mac"));
}
