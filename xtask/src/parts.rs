//! What the tests need and a build machine may not have.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::report::Report;
use crate::rights::Rights;
use crate::{cargo, target_directory};

/// The Debian packages. `dpdk-testpmd` is in `dpdk-dev`; `procps` has sysctl.
const PACKAGES: [&str; 16] = [
    "busybox-static",
    "curl",
    "dpdk",
    "dpdk-dev",
    "ethtool",
    "iperf3",
    "ipxe-qemu",
    "iproute2",
    "nginx-light",
    "procps",
    "qemu-system-x86",
    "seabios",
    "socat",
    "tshark",
    "util-linux",
    "valgrind",
];

/// Debian's name for the newest small kernel; it depends on the package that holds it.
const KERNEL: &str = "linux-image-cloud-amd64";

/// How often a download is tried: mirrors and proxies fail now and then.
const TRIES: u64 = 4;

/// Where fetched parts are kept.
pub fn directory() -> PathBuf {
    target_directory().join("parts")
}

/// Installs the packages and the guest kernel; says whether everything is there now.
pub fn install(rights: Rights, report: &mut Report) -> bool {
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .filter(|name| !is_installed(name))
        .collect();
    let kernel = directory().join("kernel");
    let no_kernel = !kernel.join("boot").is_dir();
    if missing.is_empty() && !no_kernel {
        return true;
    }
    if rights == Rights::None {
        report.note("neither root nor sudo: the tests with real parts are left out".to_owned());
    } else {
        // Stale lists name packages that mirrors have deleted. A third-party list that fails need not
        // concern us: what counts is whether the packages come.
        let _ = retry("apt-get update", || apt(rights, &["update"]));
    }
    let mut complete = rights != Rights::None;
    if !missing.is_empty() {
        let names = missing.join(" ");
        println!("installing {names}");
        let words: Vec<&str> = ["install", "--yes", "--no-install-recommends"]
            .into_iter()
            .chain(missing)
            .collect();
        match rights {
            Rights::None => report.note(format!("Debian packages that are missing: {names}")),
            _ => {
                if let Err(error) = retry("apt-get install", || apt(rights, &words)) {
                    report.failure(&format!("installing {names}: {error}"));
                    complete = false;
                }
            }
        }
    }
    if no_kernel && let Err(error) = fetch_kernel(&kernel) {
        complete = false;
        let text = format!("fetching a kernel for guests: {error}");
        if rights == Rights::None {
            report.note(text);
        } else {
            report.failure(&text);
        }
    }
    complete
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

fn apt(rights: Rights, words: &[&str]) -> io::Result<()> {
    // The environment goes through `env`, because sudo would drop it. RUNLEVEL=1 keeps freshly installed
    // services from being started.
    let mut command = rights
        .command("env")
        .ok_or_else(|| io::Error::other("neither root nor sudo"))?;
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        "RUNLEVEL=1",
        "apt-get",
        "--quiet=2",
    ]);
    command
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"])
        .args(words);
    succeed(&mut command)
}

/// Unpacks Debian's kernel below `to`, never onto the machine itself. Needs no rights.
fn fetch_kernel(to: &Path) -> io::Result<()> {
    let new = to.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir_all(&new)?;
    let show = Command::new("apt-cache")
        .args(["show", "--no-all-versions", KERNEL])
        .output()?;
    let text = String::from_utf8_lossy(&show.stdout).into_owned();
    let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "));
    let package = depends.and_then(|line| line.split_whitespace().next());
    let package = package.ok_or_else(|| io::Error::other(format!("apt knows no {KERNEL}")))?;
    retry("apt-get download", || {
        succeed(
            Command::new("apt-get")
                .args(["--quiet=2", "download", package])
                .current_dir(&new),
        )
    })?;
    let archives: Vec<PathBuf> = fs::read_dir(&new)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    for archive in archives {
        succeed(Command::new("dpkg").arg("-x").arg(&archive).arg(&new))?;
        fs::remove_file(archive)?;
    }
    fs::rename(new, to)
}

/// A command that runs `cargo deny`, which is installed among the parts where cargo has none.
pub fn cargo_deny(report: &mut Report) -> Command {
    let probe = cargo()
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) && !directory().join("bin/cargo-deny").is_file()
    {
        let mut install = cargo();
        // Without optimisation it is there sooner, and fast enough.
        install.args([
            "install",
            "--debug",
            "--locked",
            "cargo-deny@^0.20",
            "--root",
        ]);
        install.arg(directory());
        report.step("installing cargo-deny", install);
    }
    // Cargo looks for its subcommands on the search path.
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(directory().join("bin"));
    let mut deny = cargo();
    deny.arg("deny").env("PATH", path);
    deny
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{status}")))
    }
}

fn retry(what: &str, mut action: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for attempt in 1..TRIES {
        match action() {
            Ok(()) => return Ok(()),
            Err(error) => println!("{what}: {error}; trying again in {} s", attempt * 5),
        }
        thread::sleep(Duration::from_secs(attempt * 5));
    }
    action()
}
