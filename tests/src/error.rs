//! One error for all parts: a message for the person who reads the failed test.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

/// Why a part did not do as it was told, in words, with its output where there is some.
#[derive(Debug)]
pub struct Error(String);

/// What every function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<chainplane_vhost::driver::DriverError> for Error {
    fn from(error: chainplane_vhost::driver::DriverError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// Asks `ready` again and again until it answers `Some`.
///
/// For parts that tell nobody when they are ready; `what` names the thing waited for in the error
/// that comes after `limit`.
pub fn wait_until<T>(
    limit: Duration,
    what: &str,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            return Err(Error::new(format!("waited {limit:?} in vain for {what}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
