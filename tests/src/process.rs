//! Child processes that end with the test, whatever becomes of it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Result, parts};

/// A command for `name` that the kernel kills when the thread that started it dies, so that even a
/// test program that is killed leaves nothing running.
///
/// `setpriv` sets that signal for us: doing so ourselves between fork and exec would need `unsafe`.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(name)
        .env("PATH", parts::search_path());
    command
}

/// What a command that ended has left.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Both streams together, for a failure message.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `command` to its end and returns what it left, whatever its exit code.
pub fn run(command: Command, limit: Duration) -> Result<Output> {
    let mut process = Process::start("", command)?;
    process.close_stdin();
    let code = process.wait_exit(limit)?;
    Ok(Output {
        code,
        stdout: process.stdout(),
        stderr: process.stderr(),
    })
}

/// How long the thread that reads a child's output may take to read the last of it on a busy machine.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A stream of a child, gathered by a thread of its own so that the child never blocks on it.
#[derive(Default)]
struct Stream {
    state: Mutex<StreamState>,
    changed: Condvar,
}

#[derive(Default)]
struct StreamState {
    bytes: Vec<u8>,
    closed: bool,
}

impl Stream {
    fn gather(mut from: impl Read + Send + 'static) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let shared = Arc::clone(&stream);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let got = from.read(&mut buffer).unwrap_or(0);
                let mut state = shared.lock();
                state.bytes.extend_from_slice(&buffer[..got]);
                state.closed = got == 0;
                shared.changed.notify_all();
                if got == 0 {
                    return;
                }
            }
        });
        stream
    }

    fn lock(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// Waits until `find` finds something in the text after byte `from`; `None` if the stream ends or
    /// `limit` passes first.
    fn wait<T>(&self, from: usize, limit: Duration, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            let text = String::from_utf8_lossy(state.bytes.get(from..).unwrap_or_default());
            if let Some(found) = find(&text) {
                return Some(found);
            }
            let left = limit.saturating_sub(start.elapsed());
            if state.closed || left.is_zero() {
                return None;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for the end of the stream, so that what the child wrote last is there too.
    fn wait_closed(&self, limit: Duration) {
        self.wait(0, limit, |_| None::<()>);
    }
}

/// A running child process. Dropping it kills it and waits for its end.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
}

impl Process {
    /// Starts `command`; an empty `name` takes that of its program.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        let after_setpriv = words
            .iter()
            .position(|word| word == "--")
            .map_or(0, |at| at + 1);
        let name = if name.is_empty() {
            words[after_setpriv..].join(" ")
        } else {
            name.to_owned()
        };
        let mut child = command
            .spawn()
            .map_err(|error| Error::new(format!("can't start {name}: {error}")))?;
        let stdin = child.stdin.take();
        let missing = || Error::new("the child has no pipes");
        let stdout = Stream::gather(child.stdout.take().ok_or_else(missing)?);
        let stderr = Stream::gather(child.stderr.take().ok_or_else(missing)?);
        Ok(Self {
            name,
            child,
            stdin,
            stdout,
            stderr,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// How many bytes it has written to standard output so far: a place to [wait](Self::wait_stdout)
    /// from.
    pub fn stdout_len(&self) -> usize {
        self.stdout.lock().bytes.len()
    }

    /// Writes `text` to its standard input.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let stdin = self
            .stdin
            .as_mut()
            .ok_or_else(|| Error::new("standard input is closed"))?;
        stdin.write_all(text.as_bytes())?;
        stdin.flush()?;
        Ok(())
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until `find` finds something in what it wrote to standard output after byte `from`.
    pub fn wait_stdout<T>(
        &self,
        from: usize,
        limit: Duration,
        what: &str,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        self.stdout
            .wait(from, limit, find)
            .ok_or_else(|| self.error(&format!("no {what}")))
    }

    /// Waits until it has written `text` to standard error.
    pub fn wait_stderr(&self, limit: Duration, text: &str) -> Result<()> {
        self.stderr
            .wait(0, limit, |stderr| stderr.contains(text).then_some(()))
            .ok_or_else(|| self.error(&format!("no `{text}` on standard error")))
    }

    /// The exit code if it has ended: `Some(None)` if a signal ended it.
    pub fn ended(&mut self) -> Result<Option<Option<i32>>> {
        Ok(self.child.try_wait()?.map(|status| status.code()))
    }

    /// Waits for its end and returns the exit code; `None` if a signal ended it.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<Option<i32>> {
        let start = Instant::now();
        loop {
            if let Some(code) = self.ended()? {
                // A grandchild may hold the pipes open for ever; the child's own output is in them by now.
                self.stdout.wait_closed(LAST_WORDS);
                self.stderr.wait_closed(LAST_WORDS);
                return Ok(code);
            }
            if start.elapsed() > limit {
                return Err(self.error(&format!("has not ended within {limit:?}")));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new("no process id"))?;
        kill_process(pid, signal).map_err(|error| Error::new(error.to_string()))
    }

    /// A line for each of its threads: its name, what the kernel says it does (see proc(5): state and processor time are
    /// in `stat`), and where in the kernel it waits.
    pub fn threads(&self) -> String {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid()));
        let told = tasks.into_iter().flatten().flatten().map(|task| {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let [stat, wchan, syscall] = ["stat", "wchan", "syscall"].map(read);
            format!("{} {} {}\n", stat.trim(), wchan.trim(), syscall.trim())
        });
        told.collect()
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        // Both fail only if it has ended and was waited for, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// An error about this process, with the end of its output.
    pub fn error(&self, problem: &str) -> Error {
        let mut text = format!("{}: {problem}", self.name);
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let output = stream.text();
            let lines: Vec<&str> = output.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            if !last.is_empty() {
                // Writing to a string can't fail.
                let _ = write!(text, "\n--- its {name} ---\n{}", last.join("\n"));
            }
        }
        Error::new(text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = program("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_exit_code_come_back() {
        let output = run(
            shell("echo out; echo err >&2; exit 3"),
            Duration::from_mins(1),
        )
        .unwrap();
        assert_eq!(output.code, Some(3));
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    fn a_command_that_does_not_end_is_an_error_with_its_output() {
        let error = run(shell("echo busy; sleep 60"), Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("busy"), "{error}");
    }

    #[test]
    fn input_is_answered() {
        let mut process = Process::start("cat", program("cat")).unwrap();
        process.write("hello\n").unwrap();
        let find = |text: &str| text.contains("hello").then_some(());
        process
            .wait_stdout(0, Duration::from_mins(1), "greeting", find)
            .unwrap();
        process.signal(Signal::TERM).unwrap();
        assert_eq!(process.wait_exit(Duration::from_mins(1)).unwrap(), None);
    }

    #[test]
    fn what_a_process_is_at_is_told() {
        let process = Process::start("sleep", shell("exec sleep 60")).unwrap();
        let told = process.threads();
        assert!(told.starts_with(&format!("{} (", process.pid())), "{told}");
    }
}
