//! Brings a target up: starts what is to be started, attaches, and takes it down again.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::file::Generator;
use super::plan::{TargetKind, TargetPlan};
use crate::bench::endpoint::EndpointSpec;
use crate::bench::loopback::Loopback;
use crate::bench::method::Subject;
use crate::bench::output::record::TargetRecord;
use crate::bench::traffic::Traffic;
use crate::bench::trial::{
    Attached, BenchError, Chain, ChainOptions, Derived, GeneratorOptions, Load, Progress,
    StatefulTarget, Target, TargetDescription, TrialResult,
};
use crate::spec::{self, Environment};

/// How long a program may take to come up.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The core of a calibration's back end, where there are several.
const LOOPBACK_CORE: Option<usize> = Some(0);
/// How long a program may take to end after SIGTERM.
const FAREWELL: Duration = Duration::from_secs(5);
/// From one look to the next.
const GLANCE: Duration = Duration::from_millis(50);

/// A target that is up.
pub struct Open {
    // Dropped first: guests leave before what they are guests of.
    up: Up,
    program: Option<Program>,
    /// The back end of a calibration.
    loopback: Option<Loopback>,
    record: TargetRecord,
}

/// What packets go through.
enum Up {
    /// What runs in this process.
    Chain(Box<Chain>),
    /// What others run, or a program that was started, or nothing at all.
    Attached(Attached),
}

/// Calls the same method of whatever is up.
macro_rules! each {
    ($open:expr, $target:ident => $call:expr) => {
        match $open.up {
            Up::Chain(ref mut $target) => $call,
            Up::Attached(ref mut $target) => $call,
        }
    };
}

/// Brings `plan` up.
///
/// # Errors
/// What does not start or can't be attached to.
pub fn open(
    plan: &TargetPlan,
    generator: GeneratorOptions,
    progress: &dyn Progress,
) -> Result<Open, BenchError> {
    let (mut program, mut loopback) = (None, None);
    let up = match &plan.kind {
        TargetKind::Loop => Up::Attached(Attached::plain_loop(generator)?),
        TargetKind::Loopback(guest) => {
            let started = Loopback::start(
                guest.queues.unwrap_or(1),
                LOOPBACK_CORE.filter(|_| !generator.polite),
            )?;
            let ends = started.endpoints(guest.guests().ring);
            let attached = Attached::new(
                "a back end in this process that only passes frames on",
                ends,
                generator,
                progress,
            )?;
            loopback = Some(started);
            Up::Attached(attached)
        }
        TargetKind::Attach(ends) => {
            let name = format!("{} and {}", ends[0], ends[1]);
            Up::Attached(Attached::new(&name, ends.clone(), generator, progress)?)
        }
        TargetKind::Config {
            file,
            between,
            core,
            guest,
        } => {
            let chain = chain(file, between.as_ref(), *core, guest, generator, progress)?;
            Up::Chain(Box::new(chain))
        }
        TargetKind::Command {
            run,
            endpoints,
            about,
            directory,
            patience,
            guest,
        } => {
            let started = Program::start(run, about, directory)?;
            let ends = started.endpoints(endpoints, guest, *patience, progress)?;
            let attached = Attached::new(&run.join(" "), ends, generator, progress);
            // Why the program ended says more than that nobody listens.
            let attached = attached.map_err(|error| started.explain(error))?;
            program = Some(started);
            Up::Attached(attached)
        }
    };
    let mut open = Open::new(plan, up, program);
    open.loopback = loopback;
    Ok(open)
}

/// What a configuration says of its traffic, without starting it; `None` for what is no configuration, or a wrong one.
pub fn derived(plan: &TargetPlan) -> Option<Derived> {
    let TargetKind::Config { file, between, .. } = &plan.kind else {
        return None;
    };
    let model = spec::load(file, &Environment::here()).ok()?;
    Derived::of(&model, between.as_ref()).ok()
}

fn chain(
    file: &Path,
    between: Option<&[String; 2]>,
    core: Option<u32>,
    guest: &Generator,
    generator: GeneratorOptions,
    progress: &dyn Progress,
) -> Result<Chain, BenchError> {
    let model = spec::load(file, &Environment::here());
    let mut model = model.map_err(|report| BenchError::Start(report.render(false)))?;
    if let Some(worker) = model.workers.first_mut() {
        worker.core = core.or(worker.core);
    }
    let options = ChainOptions {
        between: between.cloned(),
        guests: guest.guests(),
        generator: Some(generator),
    };
    Chain::start(model, &options, progress)
}

impl Open {
    fn new(plan: &TargetPlan, up: Up, program: Option<Program>) -> Self {
        let described = match &up {
            Up::Chain(chain) => chain.describe(),
            Up::Attached(attached) => attached.describe(),
        };
        let mut record = TargetRecord {
            name: plan.name.clone(),
            description: described.name,
            chain_length: plan.chain_length,
            endpoints: described.endpoints,
            settings: described.settings,
        };
        if let Up::Chain(chain) = &up {
            record.description = format!(
                "chainplane {}: {}",
                env!("CARGO_PKG_VERSION"),
                record.description
            );
            record.chain_length = plan.chain_length.or(Some(chain.length() as u32));
        }
        if let Some(program) = &program {
            record.settings.extend(program.about.iter().cloned());
            // Another run has another directory.
            let place = program.directory.path().display().to_string();
            record.endpoints = record
                .endpoints
                .iter()
                .map(|end| end.replace(&place, "{dir}"))
                .collect();
        }
        Self {
            up,
            program,
            loopback: None,
            record,
        }
    }

    /// What results say of it.
    pub fn record(&self) -> &TargetRecord {
        &self.record
    }

    /// The directory of a program's own.
    #[cfg(test)]
    pub fn directory(&self) -> Option<&Path> {
        self.program
            .as_ref()
            .map(|program| program.directory.path())
    }

    /// What the target's configuration says of its traffic.
    pub fn derived(&self) -> Option<&Derived> {
        match &self.up {
            Up::Chain(chain) => Some(chain.derived()),
            Up::Attached(_) => None,
        }
    }
}

impl Target for Open {
    fn describe(&self) -> TargetDescription {
        match &self.up {
            Up::Chain(chain) => chain.describe(),
            Up::Attached(attached) => attached.describe(),
        }
    }

    fn set_traffic(&mut self, traffic: &Traffic) -> Result<(), BenchError> {
        each!(self, target => target.set_traffic(traffic)).map_err(|error| self.explain(error))
    }

    fn trial(&mut self, load: &Load, progress: &dyn Progress) -> Result<TrialResult, BenchError> {
        each!(self, target => target.trial(load, progress)).map_err(|error| self.explain(error))
    }
}

impl Subject for Open {
    fn explain(&self, mut error: BenchError) -> BenchError {
        if let (BenchError::Blocked { hint, .. }, Up::Chain(chain)) = (&mut error, &self.up) {
            let drops = chain.drops();
            if !drops.is_empty() {
                *hint = Some(format!("the chain dropped {drops}"));
            }
        }
        match &self.program {
            Some(program) => program.explain(error),
            None => error,
        }
    }

    fn stateful(&mut self) -> Option<&mut dyn StatefulTarget> {
        match &mut self.up {
            Up::Chain(chain) => Some(chain.as_mut()),
            Up::Attached(attached) => Some(attached),
        }
    }

    fn overload(
        &mut self,
        over: &Load,
        after: &Load,
        progress: &dyn Progress,
    ) -> Result<(TrialResult, Duration), BenchError> {
        each!(self, target => target.overload(over, after, progress))
            .map_err(|error| self.explain(error))
    }
}

/// A program that is the target.
struct Program {
    child: std::cell::RefCell<Child>,
    name: String,
    /// Lines that tell about it.
    about: Vec<(String, String)>,
    directory: tempfile::TempDir,
}

impl Program {
    fn start(run: &[String], about: &[String], directory: &Path) -> Result<Self, BenchError> {
        let own = tempfile::tempdir()?;
        let place = own.path().display().to_string();
        let words: Vec<String> = run
            .iter()
            .map(|word| word.replace("{dir}", &place))
            .collect();
        let about = tell(about, directory)?;
        let log = std::fs::File::create(own.path().join("log"))?;
        let mut command = command(&words, directory)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Of its own group, so that all of it ends, and Ctrl-C reaches us first.
            .process_group(0);
        let child = command.spawn().map_err(|error| {
            BenchError::Start(format!("can't start `{}`: {error}", run.join(" ")))
        })?;
        Ok(Self {
            child: child.into(),
            name: run.join(" "),
            about,
            directory: own,
        })
    }

    /// The endpoints, once they are there.
    fn endpoints(
        &self,
        texts: &[String; 2],
        guest: &Generator,
        patience: Duration,
        progress: &dyn Progress,
    ) -> Result<[EndpointSpec; 2], BenchError> {
        let place = self.directory.path().display().to_string();
        let spec = |text: &String| {
            guest
                .endpoint(&text.replace("{dir}", &place))
                .map_err(BenchError::Arguments)
        };
        let mut ends = [spec(&texts[0])?, spec(&texts[1])?];
        for end in &mut ends {
            if let EndpointSpec::Vhost(_, options) = end {
                options.patience = patience;
            }
        }
        let until = Instant::now() + patience;
        let waits = |end: &EndpointSpec| match end {
            EndpointSpec::Vhost(socket, options) => !options.listen && !socket.exists(),
            EndpointSpec::Tap(_) | EndpointSpec::AfPacket(_) => false,
        };
        while ends.iter().any(waits) && Instant::now() < until {
            if progress.cancelled() {
                return Err(BenchError::Cancelled);
            }
            if let Some(error) = self.ended() {
                return Err(error);
            }
            std::thread::sleep(GLANCE);
        }
        Ok(ends)
    }

    /// The error that it has ended, if it has.
    fn ended(&self) -> Option<BenchError> {
        let status = self.child.borrow_mut().try_wait().ok()??;
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(4)..];
        let said = if last.is_empty() {
            String::new()
        } else {
            format!("; it said: {}", last.join(" / "))
        };
        Some(BenchError::Start(format!(
            "`{}` ended with {status}{said}",
            self.name
        )))
    }

    /// That the program has ended explains any error.
    fn explain(&self, error: BenchError) -> BenchError {
        match error {
            BenchError::Cancelled => error,
            error => self.ended().unwrap_or(error),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let group = Pid::from_raw(child.id().cast_signed());
        let signal = |signal| {
            if let Some(group) = group {
                // It may be gone by now.
                let _ = kill_process_group(group, signal);
            }
        };
        signal(Signal::TERM);
        let until = Instant::now() + FAREWELL;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(GLANCE);
        }
        signal(Signal::KILL);
        let _ = child.wait();
    }
}

/// A command; a relative program with a slash starts at the suite's directory.
fn command(words: &[String], directory: &Path) -> Result<Command, BenchError> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(BenchError::Arguments("a command without a program".into()));
    };
    let program = if program.contains('/') {
        directory.join(program)
    } else {
        program.into()
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// What `about` prints, as names and values.
fn tell(about: &[String], directory: &Path) -> Result<Vec<(String, String)>, BenchError> {
    if about.is_empty() {
        return Ok(Vec::new());
    }
    let output = command(about, directory)?.stdin(Stdio::null()).output();
    let output = output.map_err(|error| {
        BenchError::Start(format!("can't start `{}`: {error}", about.join(" ")))
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let pairs = pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    Ok(pairs.take(64).collect())
}
