//! A guest's tasks, one after the other, and what became of them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::fetch::FetchJob;
use super::ping::PingJob;
use super::stack::Stack;
use super::wire::Wire;
use crate::spec::file::{Expected, Reached, Task};

/// Servers and addresses that one result tells apart at most: answers come from outside.
const TOLD_APART: usize = 64;

/// What became of a task.
#[derive(Clone, Debug)]
pub struct TaskResult {
    /// The guest that did it.
    pub guest: String,
    /// What it was.
    pub task: Task,
    /// Rounds that were answered in full.
    pub answered: u32,
    /// Rounds that came to nothing: no answer, no connection.
    pub unanswered: u32,
    /// Those of them that the other end refused, instead of saying nothing.
    pub refused: u32,
    /// Connections that came about, but broke, or brought other bytes than the pattern.
    pub broken: u32,
    /// Answers by each server, by its name.
    pub servers: BTreeMap<String, u32>,
    /// Answers by each address that servers saw as ours.
    pub seen_as: BTreeMap<IpAddr, u32>,
    /// The first thing that went wrong.
    pub trouble: Option<String>,
    /// From its start to its end.
    pub took: Duration,
}

impl TaskResult {
    pub(super) fn new(guest: &str, task: &Task) -> Self {
        Self {
            guest: guest.to_owned(),
            task: task.clone(),
            answered: 0,
            unanswered: 0,
            refused: 0,
            broken: 0,
            servers: BTreeMap::new(),
            seen_as: BTreeMap::new(),
            trouble: None,
            took: Duration::ZERO,
        }
    }

    /// Whether its rounds came out as the configuration expects.
    pub fn met(&self) -> bool {
        self.shortfall().is_none()
    }

    /// Whether it was to come to nothing: something on the way denies it.
    pub fn is_denial(&self) -> bool {
        !expects_answers(&self.task)
    }

    /// What is not as the configuration expects.
    pub fn shortfall(&self) -> Option<String> {
        let Self {
            answered,
            unanswered,
            broken,
            ..
        } = self;
        if *broken > 0 {
            return Some(format!("{broken} broken"));
        }
        match (expects_answers(&self.task), *answered, *unanswered) {
            (true, _, missing @ 1..) => Some(format!("{missing} unanswered")),
            (false, unwanted @ 1.., _) => Some(format!("{unwanted} answered")),
            _ => self.sight(),
        }
    }

    /// Which server, or which address, the configuration names and nobody saw.
    fn sight(&self) -> Option<String> {
        let Task::Fetch(fetch) = &self.task else {
            return None;
        };
        let idle = |name: &&String| !self.servers.contains_key(*name);
        if let Some(name) = fetch.served_by.iter().find(idle) {
            return Some(format!("{name} served none"));
        }
        let others = |wanted: IpAddr| self.seen_as.keys().find(|seen| **seen != wanted).copied();
        let seen = fetch.seen_as.and_then(others)?;
        Some(format!("seen as {seen}"))
    }

    pub(super) fn count_server(&mut self, name: String) {
        if self.servers.len() < TOLD_APART || self.servers.contains_key(&name) {
            *self.servers.entry(name).or_default() += 1;
        }
    }

    pub(super) fn count_sight(&mut self, address: IpAddr) {
        if self.seen_as.len() < TOLD_APART || self.seen_as.contains_key(&address) {
            *self.seen_as.entry(address).or_default() += 1;
        }
    }

    pub(super) fn note(&mut self, trouble: String) {
        self.trouble.get_or_insert(trouble);
    }
}

/// Whether a task is right when it is answered, rather than when it is not.
fn expects_answers(task: &Task) -> bool {
    match task {
        Task::Ping(ping) => ping.expect == Reached::Answered,
        Task::Fetch(fetch) => fetch.expect == Expected::Answered,
    }
}

impl fmt::Display for TaskResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.answered + self.unanswered + self.broken;
        let (what, refusal) = match &self.task {
            Task::Ping(ping) => (format!("ping {}", ping.to), "unanswered"),
            Task::Fetch(fetch) => (format!("fetch {}", fetch.from), "denied"),
        };
        write!(f, "{}: {what}: ", self.guest)?;
        let counts = [
            (self.answered, "answered"),
            (self.unanswered, refusal),
            (self.broken, "broken"),
        ];
        let mut joint = "";
        for (n, word) in counts.iter().filter(|(n, _)| *n > 0) {
            write!(f, "{joint}{n} of {count} {word}")?;
            joint = ", ";
        }
        let list = |counts: Vec<String>| counts.join(", ");
        if !self.servers.is_empty() {
            let servers = self.servers.iter().map(|(name, n)| format!("{name} {n}"));
            write!(f, "; by {}", list(servers.collect()))?;
        }
        if !self.seen_as.is_empty() {
            let seen = self.seen_as.keys().map(IpAddr::to_string);
            write!(f, "; seen as {}", list(seen.collect()))?;
        }
        if let Some(shortfall) = self.shortfall() {
            let expected = if expects_answers(&self.task) {
                "answered"
            } else {
                refusal
            };
            write!(f, "; NOT as expected ({expected}): {shortfall}")?;
            if let Some(trouble) = &self.trouble {
                write!(f, ": {trouble}")?;
            }
        }
        Ok(())
    }
}

/// What a job wants next.
pub(super) enum Step {
    /// A turn of the stack, then another step.
    Again,
    /// A frame, or the time to pass.
    Until(Instant),
    /// Nothing: it is done.
    Done,
}

/// A task under way.
enum Job {
    Ping(PingJob),
    Fetch(FetchJob),
}

/// The tasks of one guest.
pub(super) struct Tasks {
    guest: String,
    waiting: VecDeque<Task>,
    current: Option<(Job, TaskResult, Instant)>,
}

impl Tasks {
    pub fn new(guest: &str, tasks: &[Task]) -> Self {
        Self {
            guest: guest.to_owned(),
            waiting: tasks.iter().cloned().collect(),
            current: None,
        }
    }

    /// Goes on with the task in hand; a finished one goes to `done`. Tells when the next step is due, at the
    /// latest; `None` when all tasks are done.
    pub fn step<W: Wire>(
        &mut self,
        stack: &mut Stack<W>,
        done: impl FnOnce(TaskResult),
    ) -> Option<Instant> {
        if self.current.is_none() {
            let task = self.waiting.pop_front()?;
            let job = match &task {
                Task::Ping(ping) => Job::Ping(PingJob::new(stack, ping.clone())),
                Task::Fetch(fetch) => Job::Fetch(FetchJob::new(stack, fetch.clone())),
            };
            let result = TaskResult::new(&self.guest, &task);
            self.current = Some((job, result, Instant::now()));
        }
        let (job, result, start) = self.current.as_mut()?;
        let step = match job {
            Job::Ping(job) => job.step(stack, result),
            Job::Fetch(job) => job.step(stack, result),
        };
        match step {
            Step::Again => Some(Instant::now()),
            Step::Until(deadline) => Some(deadline),
            Step::Done => {
                result.took = start.elapsed();
                if let Some((_, result, _)) = self.current.take() {
                    done(result);
                }
                (!self.waiting.is_empty()).then(Instant::now)
            }
        }
    }
}
