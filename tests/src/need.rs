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
    /// A program that the tests compare with, and that is not ours to install.
    Peer(&'static str),
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::NetworkNamespaces => can_make_namespaces(),
            Self::File(path) | Self::Peer(path) => Path::new(path).exists(),
            Self::Program(name) => parts::find_program(name).is_some(),
            Self::Kvm => File::options().read(true).write(true).open(KVM).is_ok(),
            Self::GuestKernel => parts::guest_kernel().is_ok(),
        }
    }

    /// Whether a test may be left out for it even where every part is required.
    fn is_optional(self) -> bool {
        matches!(self, Self::Peer(_))
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkNamespaces => f.write_str("root"),
            Self::Program(name) | Self::File(name) | Self::Peer(name) => f.write_str(name),
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

/// What of a test's needs a machine lacks.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    /// Their names.
    pub names: String,
    /// All of it is of a kind that even a machine with every part may lack.
    pub optional: bool,
}

/// Names those of `needs` that this machine does not meet; `None` if it meets them all.
pub fn missing(needs: &[Need]) -> Option<Missing> {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_met()).collect();
    let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
    (!missing.is_empty()).then(|| Missing {
        names: names.join(", "),
        optional: missing.iter().all(|need| need.is_optional()),
    })
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
        let found = missing(&needs).unwrap();
        assert_eq!(
            (found.names.as_str(), found.optional),
            ("no-such-program", false)
        );
        assert_eq!(missing(&needs[..1]), None);
        assert!(missing(&[Need::Peer("/no/such/peer")]).unwrap().optional);
    }
}
