//! The command line's side of the control socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Request, Response};

/// How long an instance may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the instance at `socket`; the stream behind the answer is for captures.
///
/// # Errors
/// That nobody is there, does not answer, or says no; the text is for the user.
pub fn ask(socket: &Path, request: &Request) -> Result<(Response, BufReader<UnixStream>), String> {
    let failed = |error: io::Error| format!("control socket `{}`: {error}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut stream = BufReader::new(stream);
    let mut answer = Vec::new();
    stream.read_until(b'\n', &mut answer).map_err(failed)?;
    let response = serde_json::from_slice(&answer).map_err(|_| {
        format!(
            "`{}` does not answer as a chainplane does",
            socket.display()
        )
    })?;
    match response {
        Response::Error(error) => Err(error),
        response => Ok((response, stream)),
    }
}

/// The socket of the only instance in `directory`.
///
/// # Errors
/// That there is none, or several; the text is for the user.
pub fn only_instance(directory: &Path) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut live: Vec<_> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path())
        .filter(|path| UnixStream::connect(path).is_ok())
        .collect();
    match (live.pop(), live.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(format!(
            "several instances run, see `{}`: choose one by --socket",
            directory.display()
        )),
        (None, _) => Err(format!(
            "no instance runs (no live socket in `{}`); one elsewhere is named by --socket",
            directory.display()
        )),
    }
}
