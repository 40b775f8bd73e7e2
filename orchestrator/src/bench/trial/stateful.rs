//! Trials with real TCP connections, as firewalls are measured (RFC 9411).

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{BenchError, Noise, Progress};

/// Connections from clients at the first endpoint to servers at the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatefulLoad {
    /// What is kept up.
    pub pace: Pace,
    /// How long connections begin. Those that are open then do what they were to do if the clock began them, or close
    /// after the answer under way; none is waited for longer than two seconds.
    pub duration: Duration,
    /// Requests of a connection, one after the other; the client closes after the last answer.
    pub transactions: u32,
    /// Bytes of each request.
    pub request: u32,
    /// Bytes of each answer.
    pub response: u32,
}

/// What a stateful trial keeps up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// New connections a second, by the clock.
    ConnectionsPerSecond(f64),
    /// So many connections open at a time: each that ends is replaced at once.
    Concurrent(u32),
    /// So many connections are opened and held open to the end; each does its transactions, spread over the time.
    Hold(u32),
}

/// What became of a stateful trial.
#[derive(Clone, Debug)]
pub struct StatefulResult {
    /// Connections for which a SYN was due.
    pub attempted: u64,
    /// Connections that came about.
    pub established: u64,
    /// Connections that were refused, timed out, or broke.
    pub failed: u64,
    /// Connections that did all they should and closed.
    pub completed: u64,
    /// Most connections open at one time.
    pub most_open: u64,
    /// Answers that came in full.
    pub transactions: u64,
    /// Bytes of answers and requests that arrived, without headers.
    pub bytes: u64,
    /// Segments that were sent again.
    pub retransmitted: u64,
    /// The time in which connections were begun.
    pub elapsed: Duration,
    /// Nanoseconds from when the SYN was due to when the connection was established.
    pub connect_latency: Histogram<u64>,
    /// Nanoseconds from a request's first byte to its answer's last.
    pub transaction_latency: Histogram<u64>,
    /// What the host did to the trial.
    pub noise: Noise,
    /// The fraction of the generator's polls that found nothing to do.
    pub generator_idle: f64,
}

/// Something that carries connections.
pub trait StatefulTarget {
    /// Opens connections, moves requests and answers over them, counts.
    ///
    /// # Errors
    /// As [`Target::trial`](super::Target::trial).
    fn stateful(
        &mut self,
        load: &StatefulLoad,
        progress: &dyn Progress,
    ) -> Result<StatefulResult, BenchError>;
}
