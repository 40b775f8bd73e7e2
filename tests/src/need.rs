//! What a test needs that a machine may not have.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::{parts, program, run};

const KVM: &str = "/dev/kvm";

/// Something that a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The right to make network namespaces and devices, which in a container root may lack too.
    NetworkNamespaces,
    /// A device or other file.
    File(&'static str),
    /// A program on the search path.
    Program(&'static str),
    /// KVM, and the right to use it.
    Kvm,
    /// The kernel that guests boot, as `cargo xtask test` unpacks it.
    GuestKernel,
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::NetworkNamespaces => can_make_namespaces(),
            Self::File(path) => Path::new(path).exists(),
            Self::Program(name) => parts::find_program(name).is_some(),
            Self::Kvm => File::options().read(true).write(true).open(KVM).is_ok(),
            Self::GuestKernel => parts::guest_kernel().is_ok(),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkNamespaces => f.write_str("root"),
            Self::Program(name) | Self::File(name) => f.write_str(name),
            Self::Kvm => f.write_str(KVM),
            Self::GuestKernel => f.write_str("a guest kernel"),
        }
    }
}

fn can_make_namespaces() -> bool {
    let mut unshare = program("unshare");
    unshare.args(["--net", "--mount", "true"]);
    let output = run(unshare, Duration::from_mins(1));
    rustix::process::geteuid().is_root() && output.is_ok_and(|output| output.code == Some(0))
}

/// Names those of `needs` that this machine does not meet; `None` if it meets them all.
pub fn missing(needs: &[Need]) -> Option<String> {
    let names: Vec<_> = needs
        .iter()
        .filter(|need| !need.is_met())
        .map(Need::to_string)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_named() {
        let needs = [
            Need::Program("sh"),
            Need::Program("no-such-program"),
            Need::Program("env"),
        ];
        assert_eq!(missing(&needs).as_deref(), Some("no-such-program"));
        assert_eq!(missing(&needs[..1]), None);
    }
}
