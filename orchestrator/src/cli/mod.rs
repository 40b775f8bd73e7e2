//! The command line.

mod attach;
mod check;

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::spec::{self, Environment, Model, schema};

/// Service chains of network functions between virtual machines, as a YAML file says.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 80, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a configuration and draw its chains
    ///
    /// Reads FILE and reports everything that is wrong with it, with line, column and help.
    /// Starts nothing. Exit code 0 if it is right, 1 if not.
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Print the settings that attach a virtual machine to a port
    ///
    /// For QEMU, libvirt and cloud-hypervisor. PORT is a vhost-user port, or one side of a guest
    /// function: `ids.inside`.
    Attach {
        /// The configuration
        file: PathBuf,
        /// The port's name
        port: String,
    },
    /// Print the JSON Schema of configurations, for editors
    Schema,
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Check { file } => check::run(&file),
        Command::Attach { file, port } => attach::run(&file, &port),
        Command::Schema => print(&schema::json()),
    };
    done.unwrap_or_else(|code| code)
}

/// Loads `file` for a command; its errors go to standard error.
///
/// # Errors
/// The exit code of a configuration that is wrong.
pub fn load(file: &Path) -> Result<Model, ExitCode> {
    spec::load(file, &Environment::here()).map_err(|report| {
        let text = report.render(io::stderr().is_terminal());
        let _ = anstream::stderr().write_all(text.as_bytes());
        ExitCode::FAILURE
    })
}

/// Prints a command's error.
fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {message}");
    ExitCode::FAILURE
}

/// Prints a command's result. A reader that has gone away (`| head`) is no error.
fn print(text: &str) -> Result<ExitCode, ExitCode> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(fail(&format!("can't write: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
