//! A list of sessions under way: a few between two polls, told all at once.
//!
//! Whoever asked looks for the answer from time to time. To wake a thread that waits would be a system call for the
//! worker, which often takes longer than all else that it does between two polls.

use std::io;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};

use super::{SessionPage, TOLD_AT_ONCE};
use crate::engine::Engine;
use crate::function::SessionInfo;
use crate::time::Time;

/// Pieces of a list after which it is told, however few sessions were found.
pub(super) const PIECES: usize = 256;
/// From one look for the answer to the next.
const LOOK: Duration = Duration::from_micros(200);
/// The longest wait for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A list that a control thread asked for.
pub(super) struct Listing {
    function: usize,
    cursor: usize,
    limit: usize,
    pieces: usize,
    all: Vec<SessionInfo>,
    /// A piece; its capacity is how many it may have.
    few: Vec<SessionInfo>,
    reply: Sender<SessionPage>,
}

impl Listing {
    /// A list of at most `limit` sessions of a function from `cursor` on, and where it is told.
    pub fn new(function: usize, cursor: usize, limit: usize) -> (Self, Receiver<SessionPage>) {
        let (reply, answer) = bounded(1);
        let listing = Self {
            function,
            cursor,
            limit,
            pieces: 0,
            all: Vec::with_capacity(limit.min(PIECES * TOLD_AT_ONCE)),
            few: Vec::with_capacity(limit.min(TOLD_AT_ONCE)),
            reply,
        };
        (listing, answer)
    }

    /// Does one piece. Gives the list back unless that was the last one, after which it is told.
    pub fn go_on(mut self, engine: &Engine, now: Time) -> Option<Self> {
        let next = engine.sessions(self.function, now, self.cursor, &mut self.few);
        self.all.append(&mut self.few);
        self.pieces += 1;
        let is_full = self.all.len() + self.few.capacity() > self.limit;
        if let Some(next) = next
            && !is_full
            && self.pieces < PIECES
        {
            self.cursor = next;
            return Some(self);
        }
        let page = SessionPage {
            sessions: self.all,
            next,
        };
        let _ = self.reply.try_send(page);
        None
    }
}

/// Waits for a list.
pub(super) fn wait(answer: &Receiver<SessionPage>) -> io::Result<SessionPage> {
    let until = Instant::now() + PATIENCE;
    loop {
        match answer.try_recv() {
            Ok(page) => return Ok(page),
            Err(TryRecvError::Empty) if Instant::now() < until => std::thread::sleep(LOOK),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}
