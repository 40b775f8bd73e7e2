//! `chainplane capture`: a port's packets, live, as pcapng.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fail;
use crate::control::{Request, client};

/// Copies `port`'s packets to `file`, or to standard output, until either side ends.
pub fn run(socket: &Path, port: &str, file: Option<&Path>) -> Result<ExitCode, ExitCode> {
    let stop = super::stop_signal()?;
    let mut out: Box<dyn Write> = match file {
        Some(path) => {
            let made = File::create(path);
            Box::new(made.map_err(|error| fail(&format!("`{}`: {error}", path.display())))?)
        }
        None if io::stdout().is_terminal() => {
            let how = format!("chainplane capture {port} | tshark -i -");
            return Err(fail(&format!(
                "packets are no text for a terminal: `{how}`, or --write FILE"
            )));
        }
        None => Box::new(io::stdout()),
    };
    let request = Request::Capture {
        port: port.to_owned(),
    };
    let (_, mut stream) = client::ask(socket, &request).map_err(|error| fail(&error))?;
    let failed = |error: io::Error| fail(&format!("the capture broke off: {error}"));
    stream
        .get_ref()
        .set_read_timeout(Some(Duration::from_millis(100)))
        .map_err(failed)?;
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Acquire) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => match out.write_all(&buffer[..count]).and_then(|()| out.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                written => written.map_err(failed)?,
            },
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(ExitCode::SUCCESS)
}
