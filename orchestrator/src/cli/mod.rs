//! The command line.

mod attach;
mod bench;
mod capture;
mod check;
mod run;
mod show;

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::control::client;
use crate::diagnostic::Report;
use crate::spec::{self, Checked, Environment, schema};

/// Service chains of network functions between virtual machines, as a YAML file says.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 80, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a configuration
    ///
    /// Opens FILE's ports and forwards packets until SIGINT or SIGTERM, or until nothing can come in
    /// any more (capture files at their end, or no ports but embedded guests that have done their
    /// tasks). Shows a live table on a terminal; see more by `chainplane show`. Exit code 0 if all
    /// tasks of embedded guests went as the file expects.
    Run {
        /// The configuration
        file: PathBuf,
    },
    /// Run the demo: a chain between guests inside this process, and what it proves
    ///
    /// As `chainplane run configs/demo.yaml`, which the program carries with it. Needs no root, no
    /// huge pages and no network. Ends by itself; exit code 0 if everything was proved.
    Demo,
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
    /// Show ports, functions, chains, drops, sessions and workers of a running instance
    Show {
        /// Only this; all but sessions without it
        topic: Option<show::Topic>,
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        instance: InstanceChoice,
    },
    /// Capture a port's packets from a running instance, as pcapng
    ///
    /// Live: `chainplane capture web | tshark -i -`
    Capture {
        /// The port's name
        port: String,
        /// Write to this file rather than to standard output
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        #[command(flatten)]
        instance: InstanceChoice,
    },
    /// Measure a chain: throughput, latency, loss, connections, by the methods of the field
    ///
    /// `chainplane bench --config FILE` starts the configuration and measures it, with nothing else
    /// installed. `bench attach` measures what others run. Exit code 0 if everything was measured, 1
    /// if not, 3 if a ratio that was asked for was not reached, 130 after Ctrl-C, which ends with a
    /// report of what was found until then.
    Bench(Box<bench::Bench>),
    /// Print the JSON Schema of configurations, for editors
    Schema,
}

/// Which running instance is meant.
#[derive(Debug, Args)]
struct InstanceChoice {
    /// Its control socket; not needed when one instance runs
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl InstanceChoice {
    fn find(self) -> Result<PathBuf, ExitCode> {
        match self.socket {
            Some(socket) => Ok(socket),
            None => client::only_instance(&Environment::here().socket_directory)
                .map_err(|error| fail(&error)),
        }
    }
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log();
    let done = match arguments.command {
        Command::Run { file } => run::run(&file),
        Command::Demo => run::demo(),
        Command::Show {
            topic,
            json,
            instance,
        } => instance
            .find()
            .and_then(|socket| show::run(&socket, topic, json)),
        Command::Capture {
            port,
            write,
            instance,
        } => instance
            .find()
            .and_then(|socket| capture::run(&socket, &port, write.as_deref())),
        Command::Check { file } => check::run(&file),
        Command::Attach { file, port } => attach::run(&file, &port),
        Command::Bench(bench) => bench::run(*bench),
        Command::Schema => print(&schema::json()),
    };
    done.unwrap_or_else(|code| code)
}

/// Reads and checks `file` for a command; its errors go to standard error.
///
/// # Errors
/// The exit code of a configuration that is wrong.
pub fn open(file: &Path) -> Result<Checked, ExitCode> {
    spec::open(file, &Environment::here()).map_err(|report| explain(&report))
}

/// Prints what is wrong with a file, in colour where standard error is a terminal that likes it.
pub fn explain(report: &Report) -> ExitCode {
    let text = report.render(io::stderr().is_terminal());
    let _ = anstream::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

/// Signals within this time are one wish: timeout(1) sends one to the program and another to its group.
const ONE_WISH: Duration = Duration::from_millis(500);

/// A flag that SIGINT and SIGTERM raise; one that comes later than those of one wish ends the process at once.
fn stop_signal() -> Result<Arc<AtomicBool>, ExitCode> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    let watch = move |mut signals: Signals| {
        let mut first = None;
        for _ in &mut signals {
            raised.store(true, Ordering::Relaxed);
            if first.get_or_insert_with(Instant::now).elapsed() >= ONE_WISH {
                std::process::exit(130);
            }
        }
    };
    Signals::new([SIGINT, SIGTERM])
        .and_then(|signals| {
            let thread = thread::Builder::new().name("signals".into());
            thread.spawn(move || watch(signals))
        })
        .map_err(|error| fail(&format!("no signals: {error}")))?;
    Ok(flag)
}

/// Logs of control threads go to standard error; `CHAINPLANE_LOG` says what is logged, warnings by default.
fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_env("CHAINPLANE_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    /// Names of arguments that clash are found only where they are parsed.
    #[test]
    fn the_arguments_of_all_commands_fit_together() {
        super::Arguments::command().debug_assert();
    }
}
