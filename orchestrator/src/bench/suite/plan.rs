//! What is to be measured, with everything decided: what files and command lines come down to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file;
use crate::bench::endpoint::{EndpointSpec, VhostOptions};
use crate::bench::method::{Effort, Method, Settings, with_rate};
use crate::bench::output::record::TrafficRecord;
use crate::bench::traffic::{
    Capture, IpVersions, NextHop, Side, Sizes, Spread, Traffic, Transports, replay,
};
use crate::bench::trial::{Derived, GeneratorOptions};
use crate::bench::units::{self, Offered, Span};

/// Everything of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cases in their order.
    pub cases: Vec<CasePlan>,
    /// Comparisons, after the cases.
    pub comparisons: Vec<ComparisonPlan>,
    /// How the generator runs.
    pub generator: GeneratorOptions,
}

impl Plan {
    /// About how long everything takes.
    pub fn cost(&self) -> Duration {
        self.cost_from(0, 0)
    }

    /// About how long the cases from this one on, and the comparisons from that one on, take.
    pub fn cost_from(&self, case: usize, comparison: usize) -> Duration {
        let cases = self
            .cases
            .iter()
            .skip(case)
            .map(|case| case.settings.whole_cost());
        let comparisons = self.comparisons.iter().skip(comparison);
        cases.sum::<Duration>() + comparisons.map(ComparisonPlan::cost).sum::<Duration>()
    }
}

impl ComparisonPlan {
    /// About how long it takes, starting the targets included.
    pub fn cost(&self) -> Duration {
        (self.settings.whole_cost() + START) * 2 * self.rounds as u32
    }
}

/// About how long a target takes to come up.
const START: Duration = Duration::from_millis(500);

/// One target under one traffic.
#[derive(Clone, Debug)]
pub struct CasePlan {
    /// Its name in reports.
    pub name: String,
    /// The target.
    pub target: TargetPlan,
    /// The traffic; the target may know its sides better.
    pub traffic: TrafficPlan,
    /// How it is measured.
    pub settings: Settings,
}

/// Two targets in turn.
#[derive(Clone, Debug)]
pub struct ComparisonPlan {
    /// Its name in reports.
    pub name: String,
    /// First and second target.
    pub targets: [TargetPlan; 2],
    /// The traffic.
    pub traffic: TrafficPlan,
    /// The measure: a method that finds a rate.
    pub measure: Method,
    /// Rounds.
    pub rounds: usize,
    /// The ratio that must be reached.
    pub at_least: Option<f64>,
    /// How each round is measured.
    pub settings: Settings,
}

/// A target, and how it comes to be.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetPlan {
    /// Its name in reports.
    pub name: String,
    /// Functions in the chain, where that is known.
    pub chain_length: Option<u32>,
    /// How it comes to be.
    pub kind: TargetKind,
}

/// How a target comes to be.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetKind {
    /// A configuration of this program.
    Config {
        /// The file.
        file: PathBuf,
        /// Names of the two ports; found where they are not given.
        between: Option<[String; 2]>,
        /// The core of the first worker.
        core: Option<u32>,
        /// What the generator's guests are like.
        guest: file::Generator,
    },
    /// What others run.
    Attach([EndpointSpec; 2]),
    /// A program.
    Command {
        /// Program and arguments, with `{dir}`.
        run: Vec<String>,
        /// The endpoints as text, with `{dir}`.
        endpoints: [String; 2],
        /// What tells about it.
        about: Vec<String>,
        /// Where it runs.
        directory: PathBuf,
        /// How long it may take to come up.
        patience: Duration,
        /// What the generator's guests are like.
        guest: file::Generator,
    },
    /// A plain loop in memory.
    Loop,
    /// A back end in this process that only passes frames on.
    Loopback(file::Generator),
}

/// Traffic with sides that may be left to the target.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficPlan {
    /// The traffic. Its sides stand where the user says nothing and the target knows nothing.
    pub traffic: Traffic,
    /// Whether the user says nothing of lengths: then frames are as short as can be, 64 bytes for UDP over IPv4.
    pub shortest: bool,
    /// What the user says of the sides.
    pub sides: [file::Side; 2],
    /// Versions of IP, where the user says so; else what the target has addresses of.
    pub ip: Option<IpVersions>,
    /// What IP carries, where the user says so; else what the target serves.
    pub transport: Option<Transports>,
}

impl TrafficPlan {
    /// The traffic between sides that a target knows, as far as the user does not say otherwise.
    pub fn with(&self, known: Option<&Derived>) -> Traffic {
        let mut traffic = self.traffic.clone();
        if let Some(known) = known {
            traffic.sides.clone_from(&known.sides);
            traffic.ip = self.ip.unwrap_or(known.ip);
            traffic.transport = self.transport.unwrap_or(known.transport);
        }
        for (side, said) in traffic.sides.iter_mut().zip(&self.sides) {
            said.apply(side);
        }
        let shortest = traffic.shortest_frame();
        if self.shortest {
            traffic.sizes = Sizes::Fixed(shortest);
        }
        // A mix is a mix, whatever its headers; a single length is what the user wants to have measured, or an error.
        traffic.sizes.raise(shortest);
        traffic
    }
}

/// Traffic that both targets of a comparison get: what one of them needs, the other is measured with as well.
pub fn alike(plan: &TrafficPlan, known: [Option<&Derived>; 2]) -> TrafficPlan {
    let mut plan = plan.clone();
    let known = || known.into_iter().flatten();
    let mut transports = known().map(|known| known.transport);
    let transport = transports.find(|kind| *kind != Transports::Udp);
    let mut versions = known().map(|known| known.ip);
    let version = versions.find(|kind| *kind != IpVersions::V4);
    (plan.transport, plan.ip) = (plan.transport.or(transport), plan.ip.or(version));
    if let Some(transport) = plan.transport {
        plan.traffic.transport = transport;
    }
    if let Some(ip) = plan.ip {
        plan.traffic.ip = ip;
    }
    plan
}

impl file::Side {
    fn apply(&self, side: &mut Side) {
        side.mac = self.mac.map_or(side.mac, |mac| mac.0);
        side.v4 = self.v4.unwrap_or(side.v4);
        side.v6 = self.v6.unwrap_or(side.v6);
        side.hosts = self.hosts.unwrap_or(side.hosts);
        side.port = self.port.unwrap_or(side.port);
        let hop = self.next_hop_mac.map(|mac| NextHop::Mac(mac.0));
        side.next_hop = hop.or(self.router.map(NextHop::Router)).or(side.next_hop);
    }
}

/// `traffic` as results keep it.
pub fn record(traffic: &Traffic) -> TrafficRecord {
    let [inside, outside] = &traffic.sides;
    let side = |side: &Side| {
        let hop = match side.next_hop {
            None => String::new(),
            Some(NextHop::Mac(mac)) => format!(", by way of {mac}"),
            Some(NextHop::Router(address)) => format!(", by way of {address}"),
            Some(NextHop::OnLink) => ", resolved on the link".to_owned(),
        };
        format!(
            "{} hosts from {} and {}, ports from {}, {}{hop}",
            side.hosts, side.v4, side.v6, side.port, side.mac
        )
    };
    let settings = BTreeMap::from([
        ("inside".to_owned(), side(inside)),
        ("outside".to_owned(), side(outside)),
        ("frame lengths".to_owned(), traffic.sizes.to_string()),
    ]);
    let record = TrafficRecord {
        description: describe(traffic),
        frame_bytes: traffic.sizes.mean(),
        mixed_sizes: !matches!(traffic.sizes, Sizes::Fixed(_)),
        flows: traffic.flows,
        new_flows: traffic.new_flows,
        directions: if traffic.bidirectional { 2 } else { 1 },
        settings,
        seed: traffic.seed,
    };
    match &traffic.replay {
        // A file that can't be read fails the case, and this record with it.
        Some(file) => match replay::read(file) {
            Ok(capture) => replayed(record, file, &capture),
            Err(_) => record,
        },
        None => record,
    }
}

/// The record of a capture file's packets: what they are counts, not what would have been sent in their place.
fn replayed(mut record: TrafficRecord, file: &Path, capture: &Capture) -> TrafficRecord {
    let lengths = || capture.packets.iter().flatten().map(|(_, len)| *len);
    let packets = lengths().count();
    let bytes: f64 = lengths().map(f64::from).sum();
    let ways = capture.packets.iter().filter(|way| !way.is_empty()).count();
    record.frame_bytes = bytes / packets.max(1) as f64;
    record.mixed_sizes = true;
    record.flows = capture.flows.len() as u32;
    record.new_flows = 0.0;
    record.directions = ways as u32;
    record.description = format!(
        "{packets} packets of {} again and again ({:.0} B on average), {}, {}",
        file.display(),
        record.frame_bytes,
        flows(record.flows),
        directions(ways > 1)
    );
    let tcp = capture.flows.iter().filter(|(_, tcp)| *tcp).count();
    let v6 = capture.flows.iter().filter(|(v6, _)| *v6).count();
    record.settings.insert(
        "frame lengths".into(),
        format!(
            "{} to {}",
            lengths().min().unwrap_or(0),
            lengths().max().unwrap_or(0)
        ),
    );
    record.settings.insert(
        "replay".into(),
        format!("{}: {tcp} flows of TCP, {v6} over IPv6", file.display()),
    );
    record
}

fn flows(count: u32) -> String {
    match count {
        1 => "1 flow".to_owned(),
        count => format!("{count} flows"),
    }
}

fn directions(both: bool) -> &'static str {
    if both { "both ways" } else { "one way" }
}

/// The traffic in a line.
fn describe(traffic: &Traffic) -> String {
    let size = match &traffic.sizes {
        Sizes::Fixed(size) => format!("{size} B"),
        mix @ Sizes::Mix(_) => format!("{mix} ({:.0} B on average)", mix.mean()),
    };
    let transport = match traffic.transport {
        Transports::Udp => "UDP",
        Transports::Tcp => "TCP",
        Transports::Mixed => "TCP and UDP",
    };
    let ip = match traffic.ip {
        IpVersions::V4 => "IPv4",
        IpVersions::V6 => "IPv6",
        IpVersions::Mixed => "IPv4 and IPv6",
    };
    let mut text = format!("{size}, {transport} over {ip}, {}", flows(traffic.flows));
    if let Spread::Zipf(s) = traffic.spread {
        text = format!("{text} (Zipf {s})");
    }
    if traffic.new_flows > 0.0 {
        text = format!("{text}, {} new a second", units::count(traffic.new_flows));
    }
    format!("{text}, {}", directions(traffic.bidirectional))
}

impl file::Traffic {
    /// Every combination of the lists, each with words that tell it from the others; `directory` is where relative
    /// files are.
    pub fn sweep(&self, directory: &Path) -> Vec<(String, TrafficPlan)> {
        let frames = values(&self.frame, file::Size(Sizes::Fixed(64)));
        let flows = values(&self.flows, 1);
        let new_flows = values(&self.new_flows, 0);
        let mut swept = Vec::new();
        for frame in &frames {
            for &flow in &flows {
                for &new in &new_flows {
                    let mut words = Vec::new();
                    if frames.len() > 1 {
                        let unit = if matches!(frame.0, Sizes::Fixed(_)) {
                            " B"
                        } else {
                            ""
                        };
                        words.push(format!("{}{unit}", frame.0));
                    }
                    if flows.len() > 1 {
                        words.push(match flow {
                            1 => "1 flow".to_owned(),
                            flow => format!("{} flows", units::count(f64::from(flow))),
                        });
                    }
                    if new_flows.len() > 1 {
                        words.push(format!("{} new/s", units::count(f64::from(new))));
                    }
                    swept.push((words.join(", "), self.one(&frame.0, flow, new, directory)));
                }
            }
        }
        swept
    }

    fn one(&self, sizes: &Sizes, flows: u32, new_flows: u32, directory: &Path) -> TrafficPlan {
        let plain = Traffic::default();
        let ip = self.ip.map(|ip| match ip {
            file::Ip::V4 => IpVersions::V4,
            file::Ip::V6 => IpVersions::V6,
            file::Ip::Mixed => IpVersions::Mixed,
        });
        let transport = self.transport.map(|transport| match transport {
            file::Transport::Udp => Transports::Udp,
            file::Transport::Tcp => Transports::Tcp,
            file::Transport::Mixed => Transports::Mixed,
        });
        let traffic = Traffic {
            sizes: sizes.clone(),
            flows,
            new_flows: f64::from(new_flows),
            ip: ip.unwrap_or(plain.ip),
            transport: transport.unwrap_or(plain.transport),
            spread: match self.spread.unwrap_or(file::Spread::Uniform) {
                file::Spread::Uniform => Spread::Uniform,
                file::Spread::Zipf(s) => Spread::Zipf(s),
            },
            bidirectional: self.bidirectional.unwrap_or(plain.bidirectional),
            replay: self.replay.as_ref().map(|file| directory.join(file)),
            seed: self.seed.unwrap_or(plain.seed),
            ..plain
        };
        let sides = [&self.inside, &self.outside];
        TrafficPlan {
            traffic,
            shortest: self.frame.is_empty(),
            sides: sides.map(|side| side.clone().unwrap_or_default()),
            ip,
            transport,
        }
    }
}

fn values<T: Clone>(list: &[T], default: T) -> Vec<T> {
    if list.is_empty() {
        vec![default]
    } else {
        list.to_vec()
    }
}

impl file::Measuring {
    /// These, and where they say nothing `others`.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        Self {
            effort: self.effort.or(others.effort),
            searches: self.searches.or(others.searches),
            highest: self.highest.or(others.highest),
            load: self.load.or(others.load),
            warm_up: self.warm_up.or(others.warm_up),
            mrr_trials: self.mrr_trials.or(others.mrr_trials),
            mrr_trial: self.mrr_trial.or(others.mrr_trial),
            final_trial: self.final_trial.or(others.final_trial),
            duration_sum: self.duration_sum.or(others.duration_sum),
            width: self.width.or(others.width),
            rfc2544_trial: self.rfc2544_trial.or(others.rfc2544_trial),
            latency_trial: self.latency_trial.or(others.latency_trial),
            repetitions: self.repetitions.or(others.repetitions),
            soak: self.soak.or(others.soak),
            connections_trial: self.connections_trial.or(others.connections_trial),
            limit: self.limit.or(others.limit),
        }
    }

    /// What they mean for `methods`.
    pub fn settings(&self, methods: &[Method]) -> Settings {
        let share = self.load.and_then(Offered::share);
        let methods = match share {
            Some(_) => with_rate(methods),
            None => methods.to_vec(),
        };
        let mut settings = Settings::new(self.effort.unwrap_or(Effort::Quick), &methods);
        let set = |to: &mut Duration, span: Option<Span>| *to = span.map_or(*to, |span| span.0);
        set(&mut settings.warm_up, self.warm_up);
        set(&mut settings.mrr_trial, self.mrr_trial);
        set(&mut settings.rfc2544_trial, self.rfc2544_trial);
        set(&mut settings.latency_trial, self.latency_trial);
        set(&mut settings.soak, self.soak);
        set(&mut settings.connections_trial, self.connections_trial);
        settings.searches = self.searches.unwrap_or(settings.searches);
        settings.mrr_trials = self.mrr_trials.unwrap_or(settings.mrr_trials);
        settings.repetitions = self.repetitions.unwrap_or(settings.repetitions);
        settings.highest = self.highest.map(|rate| rate as f64);
        settings.load = self.load.and_then(Offered::rate);
        settings.load_share = share;
        settings.limit = self.limit.map_or(settings.limit, |span| Some(span.0));
        if let Some(width) = self.width {
            settings.rfc2544_width = width;
        }
        for goal in &mut settings.goals {
            goal.width = self.width.unwrap_or(goal.width);
            set(&mut goal.final_trial, self.final_trial);
            set(&mut goal.duration_sum, self.duration_sum);
            goal.initial_trial = goal.initial_trial.min(goal.final_trial);
            goal.duration_sum = goal.duration_sum.max(goal.final_trial);
        }
        settings
    }
}

impl file::Generator {
    /// The endpoint that `text` names, with a guest as described here.
    ///
    /// # Errors
    /// A text that names none.
    pub fn endpoint(&self, text: &str) -> Result<EndpointSpec, String> {
        let mut spec: EndpointSpec = text.parse()?;
        if let EndpointSpec::Vhost(_, options) = &mut spec {
            let listen = options.listen;
            *options = VhostOptions {
                listen,
                ..self.guests()
            };
        }
        Ok(spec)
    }

    /// What its guests are like.
    pub fn guests(&self) -> VhostOptions {
        let plain = VhostOptions::default();
        VhostOptions {
            queues: self.queues.unwrap_or(plain.queues),
            ring: self.ring.unwrap_or(plain.ring),
            packed: self.packed.unwrap_or(plain.packed),
            mergeable: self.mergeable.unwrap_or(plain.mergeable),
            ..plain
        }
    }

    /// How the generator runs. Where there are several cores it takes the last, if it is not told which; where there
    /// is one it gives it away whenever it has nothing to do.
    pub fn options(&self) -> GeneratorOptions {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        GeneratorOptions {
            core: self.core.or((cores > 1).then(|| cores - 1)),
            polite: cores == 1,
        }
    }
}
