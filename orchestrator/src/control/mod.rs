//! Speaking to a running instance over its unix socket.
//!
//! A client sends one line of JSON, a [`Request`]. The answer is one line of JSON, a [`Response`]; behind that of a
//! capture follows a pcapng stream until either side ends it. `server` is the instance's side, `client` the command
//! line's, `report` what `show` shows.

pub mod client;
pub mod report;
pub mod server;
mod watches;

use serde::{Deserialize, Serialize};

use report::{Report, Sessions};

/// What a client may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything but sessions.
    Show {},
    /// A piece of a function's sessions.
    Sessions {
        /// The function's name.
        function: String,
        /// Where to go on; 0 to begin.
        cursor: usize,
    },
    /// A port's packets from now on.
    Capture {
        /// The port's name.
        port: String,
    },
}

/// What the instance answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Show`].
    Report(Box<Report>),
    /// To [`Request::Sessions`].
    Sessions(Sessions),
    /// To [`Request::Capture`]: packets follow.
    Capturing {},
    /// It can't be done.
    Error(String),
}
