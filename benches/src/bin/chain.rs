//! Prints a case's configuration: `chain CASE DIRECTORY [WORKER]`. Sockets are in the directory; the worker is YAML.

use std::path::Path;
use std::process::ExitCode;

use chainplane_benches::case::Case;
use chainplane_benches::chain::Setup;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (case, directory, worker) = match &words[..] {
        [case, directory] => (case, directory, "{}"),
        [case, directory, worker] => (case, directory, worker.as_str()),
        _ => return usage(),
    };
    let Some(case) = Case::find(case) else {
        return usage();
    };
    print!("{}", Setup::of(&case, Path::new(directory), worker).yaml());
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let names = Case::ALL.map(|case| case.name).join(" ");
    eprintln!("usage: chain CASE DIRECTORY [WORKER]\ncases: {names}");
    ExitCode::from(2)
}
