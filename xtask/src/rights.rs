//! What this user may do to the machine.

use std::process::{Command, Stdio};

/// How administration commands can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// We are root.
    Root,
    /// `sudo` works and asks for no password.
    Sudo,
    /// Not at all.
    None,
}

impl Rights {
    /// Finds out.
    pub fn find() -> Self {
        let id = Command::new("id").arg("-u").output();
        if id.is_ok_and(|output| output.stdout.trim_ascii() == b"0") {
            return Self::Root;
        }
        let sudo = Command::new("sudo")
            .args(["-n", "true"])
            .stderr(Stdio::null())
            .status();
        if sudo.is_ok_and(|status| status.success()) {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// A command that runs `program` with the rights of root; `None` where there are none.
    pub fn command(self, program: &str) -> Option<Command> {
        match self {
            Self::Root => Some(Command::new(program)),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", "--", program]);
                Some(command)
            }
            Self::None => None,
        }
    }
}
