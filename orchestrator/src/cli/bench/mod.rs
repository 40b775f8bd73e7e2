//! `chainplane bench`: measures chains, ours or anybody's.

mod arguments;
mod progress;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use self::arguments::{Generating, Measure, Sending, TargetName};
use self::progress::Display;
use self::write::Writing;
use super::{explain, fail, print};
use crate::bench::method::Method;
use crate::bench::output::record::Results;
use crate::bench::output::{self, ceiling, text};
use crate::bench::suite::plan::TrafficPlan;
use crate::bench::suite::{
    self, CasePlan, ComparisonPlan, Finished, Part, Plan, TargetKind, TargetPlan,
};
use crate::bench::units::{Span, span};

/// Exit code where a ratio that was asked for was not reached.
const NOT_REACHED: u8 = 3;
/// Exit code where something is left for another run.
const LEFT: u8 = 4;
/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Methods where none is named.
const METHODS: [Method; 2] = [Method::Mrr, Method::Pdr];

/// What is measured.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigTarget,
    #[command(flatten)]
    how: How,
}

/// A configuration of this program.
#[derive(Debug, Args)]
struct ConfigTarget {
    /// The configuration to start and measure; its sockets are replaced by private ones
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The two ports to measure between, inside first; found where two ports are joined
    #[arg(long, value_name = "PORT,PORT", value_parser = arguments::pair, requires = "config")]
    between: Option<[String; 2]>,
    /// The core of the first worker; as the file says, else core 0
    #[arg(long, value_name = "CORE", requires = "config")]
    worker_core: Option<u32>,
}

/// Everything that all commands share.
#[derive(Debug, Args)]
struct How {
    #[command(flatten)]
    sending: Sending,
    #[command(flatten)]
    measure: Measure,
    #[command(flatten)]
    generating: Generating,
    #[command(flatten)]
    writing: Writing,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure what others run: a vhost-user back end, taps, interfaces
    ///
    /// An endpoint is the SOCKET of a vhost-user back end that listens, `listen:SOCKET` where the back
    /// end connects, `tap:NAME`, or `af-packet:NAME`. Give the inside first: there flows are opened.
    Attach {
        /// The inside
        #[arg(value_name = "INSIDE")]
        first: String,
        /// The outside
        #[arg(value_name = "OUTSIDE")]
        second: String,
        #[command(flatten)]
        how: How,
    },
    /// Compare two targets, measured in turn, and say their ratio with its confidence interval
    ///
    /// A target is a configuration's FILE, or two endpoints with a comma between them, as for `bench
    /// attach`. Two targets that run all the time should not share cores. Exit code 3 if --at-least is
    /// not reached with 95 % confidence.
    Compare {
        /// The first target: above the fraction bar
        a: TargetName,
        /// The second target
        b: TargetName,
        /// What is compared: mrr, pdr, ndr or throughput
        #[arg(long, value_name = "METHOD", default_value = "mrr")]
        measure: Method,
        /// Rounds, each of which measures both, 2 to 1000
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=1000))]
        rounds: u16,
        /// Fail unless the ratio is at least this with 95 % confidence
        #[arg(long, value_name = "RATIO", value_parser = arguments::ratio)]
        at_least: Option<f64>,
        #[command(flatten)]
        how: How,
    },
    /// Run a suite: a YAML file of targets, traffic, cases and comparisons
    ///
    /// Exit code 3 if a ratio that the file asks for is not reached.
    Suite {
        /// The suite
        file: PathBuf,
        /// Check the file and tell what it would measure
        #[arg(long)]
        check: bool,
        /// Take over what the file of --json has of an earlier run on this machine, and measure what is left
        #[arg(long, requires = "json")]
        resume: bool,
        /// Begin nothing that would last longer than so long from now, as 3m; --resume goes on. Exit code 4 if
        /// something is left
        #[arg(long = "for", value_name = "TIME")]
        time: Option<Span>,
        #[command(flatten)]
        writing: Writing,
    },
    /// Find the generator's own ceiling, in memory and over rings
    ///
    /// Over a plain loop in memory, and over the rings of a back end in this process that does nothing
    /// but pass frames on. No target can be measured above the first. Each result of each target tells for
    /// itself whether the generator was the limit: fewer than 10 % of its polls found nothing to do.
    Calibrate {
        #[command(flatten)]
        how: How,
    },
    /// Print the JSON Schema of results, or of suite files
    Schema {
        /// Of what
        #[arg(value_enum)]
        of: SchemaOf,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SchemaOf {
    /// Of a suite's file, for editors
    Suite,
    /// Of what --json writes
    Results,
}

/// Runs the command.
pub fn run(bench: Bench) -> Result<ExitCode, ExitCode> {
    match bench.command {
        None => {
            let Some(file) = bench.config.config else {
                return Err(fail(
                    "what is to be measured? Give --config FILE, or see --help",
                ));
            };
            let name = file
                .file_stem()
                .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            let kind = TargetKind::Config {
                file,
                between: bench.config.between,
                core: bench.config.worker_core,
                guest: bench.how.generating.file(),
            };
            single(&target(name, kind), &bench.how)
        }
        Some(Command::Attach { first, second, how }) => {
            let generator = how.generating.file();
            let endpoint = |text: &str| generator.endpoint(text).map_err(|error| fail(&error));
            let kind = TargetKind::Attach([endpoint(&first)?, endpoint(&second)?]);
            single(&target("target".into(), kind), &how)
        }
        Some(Command::Compare {
            a,
            b,
            measure,
            rounds,
            at_least,
            how,
        }) => {
            let plan = comparison([a, b], measure, rounds, at_least, &how)?;
            measure_all(&plan, &how.writing)
        }
        Some(Command::Suite {
            file,
            check,
            resume,
            time,
            writing,
        }) => {
            let plan = suite::load(&file).map_err(|report| explain(&report))?;
            if check {
                return tell(&plan);
            }
            let earlier = if resume {
                let file = writing.json_file().map_err(|error| fail(&error))?;
                suite::earlier(file).map_err(|error| fail(&error))?
            } else {
                None
            };
            let time = time.map(|time| time.0);
            measure_part(&plan, Part { earlier, time }, &writing, text::results)
        }
        Some(Command::Calibrate { how }) => {
            let rings = TargetKind::Loopback(how.generating.file());
            let targets = [
                target("memory".into(), TargetKind::Loop),
                target("rings".into(), rings),
            ];
            let plan = planned(&targets, &[Method::Mrr], &how)?;
            measure_part(&plan, Part::default(), &how.writing, ceiling::text)
        }
        Some(Command::Schema { of }) => print(&match of {
            SchemaOf::Suite => suite::schema(),
            SchemaOf::Results => output::schema(),
        }),
    }
}

fn target(name: String, kind: TargetKind) -> TargetPlan {
    TargetPlan {
        name,
        chain_length: None,
        kind,
    }
}

/// One target under all the traffic that the flags describe.
fn single(target: &TargetPlan, how: &How) -> Result<ExitCode, ExitCode> {
    measured(std::slice::from_ref(target), &METHODS, how)
}

/// Targets under all the traffic that the flags describe, by the methods named or by `methods`.
fn measured(targets: &[TargetPlan], methods: &[Method], how: &How) -> Result<ExitCode, ExitCode> {
    measure_all(&planned(targets, methods, how)?, &how.writing)
}

fn planned(targets: &[TargetPlan], methods: &[Method], how: &How) -> Result<Plan, ExitCode> {
    let methods = how.measure.methods(methods);
    let settings = how
        .measure
        .settings(&methods)
        .map_err(|error| fail(&error))?;
    let swept = how.sending.sweep();
    let case = |target: &TargetPlan, words: &str, traffic: &TrafficPlan| CasePlan {
        name: if words.is_empty() {
            target.name.clone()
        } else {
            format!("{}, {words}", target.name)
        },
        target: target.clone(),
        traffic: traffic.clone(),
        settings: settings.clone(),
    };
    let cases = targets.iter().flat_map(|target| {
        let case = &case;
        swept
            .iter()
            .map(move |(words, traffic)| case(target, words, traffic))
    });
    Ok(Plan {
        cases: cases.collect(),
        comparisons: Vec::new(),
        generator: how.generating.file().options(),
    })
}

fn comparison(
    names: [TargetName; 2],
    measure: Method,
    rounds: u16,
    at_least: Option<f64>,
    how: &How,
) -> Result<Plan, ExitCode> {
    if ![Method::Mrr, Method::Pdr, Method::Ndr, Method::Throughput].contains(&measure) {
        return Err(fail(&format!(
            "`{}` finds no rate; compare by mrr, pdr, ndr or throughput",
            measure.name()
        )));
    }
    let generator = how.generating.file();
    let mut targets = Vec::new();
    for name in names {
        let (name, kind) = name.target(&generator).map_err(|error| fail(&error))?;
        if let TargetKind::Config { file, .. } = &kind {
            super::open(file)?;
        }
        targets.push(target(name, kind));
    }
    let Ok(targets) = <[TargetPlan; 2]>::try_from(targets) else {
        return Err(fail("a comparison has two targets"));
    };
    let mut settings = how
        .measure
        .settings(&[measure])
        .map_err(|error| fail(&error))?;
    if how.measure.is_default() {
        // Many short rounds say more than few long ones: the host changes from second to second.
        settings.mrr_trials = 1;
        settings.mrr_trial = Duration::from_secs(1);
    }
    let title = format!("{} against {}", targets[0].name, targets[1].name);
    let comparison = |(words, traffic): (String, _)| ComparisonPlan {
        name: if words.is_empty() {
            title.clone()
        } else {
            format!("{title}, {words}")
        },
        targets: targets.clone(),
        traffic,
        measure,
        rounds: usize::from(rounds),
        at_least,
        settings: settings.clone(),
    };
    let swept = how.sending.sweep();
    Ok(Plan {
        cases: Vec::new(),
        comparisons: swept.into_iter().map(comparison).collect(),
        generator: generator.options(),
    })
}

/// Says what a suite would measure.
fn tell(plan: &Plan) -> Result<ExitCode, ExitCode> {
    let cases = plan.cases.iter().map(|case| {
        let methods = case.settings.methods.iter().map(|method| method.name());
        format!("{}: {}", case.name, methods.collect::<Vec<_>>().join(", "))
    });
    let comparisons = plan
        .comparisons
        .iter()
        .map(|it| format!("{}: {} rounds of {}", it.name, it.rounds, it.measure.name()));
    let mut lines: Vec<String> = cases.chain(comparisons).collect();
    lines.push(format!("about {} in all; no errors\n", span(plan.cost())));
    print(&lines.join("\n"))
}

/// Measures, shows, writes.
fn measure_all(plan: &Plan, writing: &Writing) -> Result<ExitCode, ExitCode> {
    measure_part(plan, Part::default(), writing, text::results)
}

/// Measures what is left, shows it as `form` says, writes.
fn measure_part(
    plan: &Plan,
    part: Part,
    writing: &Writing,
    form: fn(&Results) -> String,
) -> Result<ExitCode, ExitCode> {
    writing.check().map_err(|error| fail(&error))?;
    let display = Display::new(super::stop_signal()?);
    let command = std::env::args().collect();
    let finished = suite::run(plan, command, part, &display);
    display.end();
    // Of what could not be measured at all, the errors say everything.
    if !writing.takes_stdout() && finished.results.has_figures() {
        print(&form(&finished.results))?;
    }
    writing
        .write(&finished.results)
        .map_err(|error| fail(&error))?;
    Ok(conclude(&finished))
}

fn conclude(finished: &Finished) -> ExitCode {
    for (case, error) in &finished.failures {
        let mut message = format!("{case}: {error}");
        if let Some(hint) = error.hint() {
            message = format!("{message}\n  help: {hint}");
        }
        fail(&message);
    }
    if finished.cancelled {
        ExitCode::from(INTERRUPTED)
    } else if !finished.failures.is_empty() {
        ExitCode::FAILURE
    } else if finished.left > 0 {
        ExitCode::from(LEFT)
    } else if !finished.reached {
        ExitCode::from(NOT_REACHED)
    } else {
        ExitCode::SUCCESS
    }
}
