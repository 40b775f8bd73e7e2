//! Flags of `chainplane bench`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chainplane_nf::config::{Mac, OneOrMany};
use clap::{Args, ValueEnum};

use crate::bench::method::{Effort, Method, Settings};
use crate::bench::suite::TargetKind;
use crate::bench::suite::file::{Generator, Ip, Measuring, Side, Size, Spread, Traffic, Transport};
use crate::bench::suite::plan::TrafficPlan;
use crate::bench::traffic::{MAX_FLOWS, Sizes};
use crate::bench::units::{Offered, Span, parse_rate};

/// What is sent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Traffic")]
pub struct Sending {
    /// Frame length in bytes, without check sequence (1514 fill an MTU of 1500): a number from 64 to 9216, `imix`, a mix
    /// as `64:7,594:4,1514:1`, or a genome of RFC 6985 as `7a4d1g`. Several flags are measured in turn [default: the
    /// shortest, 64 for UDP over IPv4, 10 more for TCP, 20 more for IPv6]
    #[arg(long, value_name = "LENGTH", value_parser = size)]
    frame: Vec<Sizes>,
    /// Flows at a time, 1 to 10 million. Several flags are measured in turn [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_FLOWS)))]
    flows: Vec<u32>,
    /// New flows a second. Several flags are measured in turn [default: 0]
    #[arg(long, value_name = "N")]
    new_flows: Vec<u32>,
    /// Spread packets over flows by Zipf's law with this exponent, 0.01 to 10, rather than evenly
    #[arg(long, value_name = "S", value_parser = zipf)]
    zipf: Option<f64>,
    /// Versions of IP [default: what --config has addresses of, else v4]
    #[arg(long, value_name = "VERSION")]
    ip: Option<IpChoice>,
    /// What IP carries [default: what a load balancer of --config serves, else udp]
    #[arg(long, value_name = "PROTOCOL")]
    transport: Option<TransportChoice>,
    /// Send from inside to outside only
    #[arg(long)]
    one_way: bool,
    /// Send with the lengths, protocols and flows of this capture file
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Where everything random starts: the same seed gives the same packets
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    places: Places,
}

/// Where the two sides are in the network.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Addresses (known for --config; else of the networks for benchmarks)"
)]
struct Places {
    /// The first address of the hosts inside; twice for IPv4 and IPv6
    #[arg(long, value_name = "ADDRESS")]
    inside: Vec<IpAddr>,
    /// The first address of the hosts outside
    #[arg(long, value_name = "ADDRESS")]
    outside: Vec<IpAddr>,
    /// The MAC address of the hosts inside
    #[arg(long, value_name = "MAC", value_parser = mac)]
    inside_mac: Option<Mac>,
    /// The MAC address of the hosts outside
    #[arg(long, value_name = "MAC", value_parser = mac)]
    outside_mac: Option<Mac>,
    /// Where frames from inside go first: a MAC address, or a router's IP address
    #[arg(long, value_name = "MAC|ADDRESS")]
    inside_next_hop: Option<Hop>,
    /// Where frames from outside go first
    #[arg(long, value_name = "MAC|ADDRESS")]
    outside_next_hop: Option<Hop>,
    /// The first port of the hosts inside
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    inside_port: Option<u16>,
    /// The port that the hosts outside serve
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    outside_port: Option<u16>,
    /// Hosts inside: so many consecutive addresses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    inside_hosts: Option<u32>,
}

/// A MAC address or a router's address.
#[derive(Clone, Copy, Debug)]
enum Hop {
    Mac(Mac),
    Router(IpAddr),
}

impl FromStr for Hop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.parse(), text.parse()) {
            (Ok(mac), _) => Ok(Self::Mac(mac)),
            (_, Ok(address)) => Ok(Self::Router(address)),
            _ => Err("expected a MAC address or an IP address".into()),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IpChoice {
    /// IPv4
    V4,
    /// IPv6
    V6,
    /// Every other flow is IPv6
    Mixed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransportChoice {
    /// UDP datagrams
    Udp,
    /// TCP segments, each flow opened by a handshake
    Tcp,
    /// Every other flow is TCP
    Mixed,
}

impl Sending {
    /// Every combination, with words that tell it from the others.
    pub fn sweep(&self) -> Vec<(String, TrafficPlan)> {
        let traffic = Traffic {
            frame: OneOrMany(self.frame.iter().cloned().map(Size).collect()),
            flows: OneOrMany(self.flows.clone()),
            new_flows: OneOrMany(self.new_flows.clone()),
            spread: self.zipf.map(Spread::Zipf),
            ip: self.ip.map(|ip| match ip {
                IpChoice::V4 => Ip::V4,
                IpChoice::V6 => Ip::V6,
                IpChoice::Mixed => Ip::Mixed,
            }),
            transport: self.transport.map(|transport| match transport {
                TransportChoice::Udp => Transport::Udp,
                TransportChoice::Tcp => Transport::Tcp,
                TransportChoice::Mixed => Transport::Mixed,
            }),
            bidirectional: Some(!self.one_way),
            inside: Some(Side {
                mac: self.places.inside_mac,
                hosts: self.places.inside_hosts,
                port: self.places.inside_port,
                ..side(&self.places.inside, self.places.inside_next_hop)
            }),
            outside: Some(Side {
                mac: self.places.outside_mac,
                port: self.places.outside_port,
                ..side(&self.places.outside, self.places.outside_next_hop)
            }),
            replay: self.replay.clone(),
            seed: Some(self.seed),
        };
        traffic.sweep(Path::new(""))
    }
}

fn side(addresses: &[IpAddr], hop: Option<Hop>) -> Side {
    let mut side = Side::default();
    for address in addresses {
        match address {
            IpAddr::V4(address) => side.v4 = Some(*address),
            IpAddr::V6(address) => side.v6 = Some(*address),
        }
    }
    match hop {
        Some(Hop::Mac(mac)) => side.next_hop_mac = Some(mac),
        Some(Hop::Router(address)) => side.router = Some(address),
        None => {}
    }
    side
}

/// How it is measured.
#[derive(Debug, Args)]
#[command(next_help_heading = "Measuring")]
pub struct Measure {
    /// Methods, with commas between them or a flag each [default: mrr,pdr]
    #[arg(long, value_name = "METHOD", value_delimiter = ',')]
    method: Vec<Method>,
    /// How much time a result is worth
    #[arg(long, value_name = "EFFORT", default_value = "quick")]
    effort: Effort,
    /// Searches for each rate, 1 to 1000; several give a confidence interval [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    searches: Option<u16>,
    /// Duration of trials, as 500ms, 2s, 1m: of MRR, of latency, the final ones of searches
    #[arg(long, value_name = "TIME")]
    trial: Option<Span>,
    /// Trials of the maximum receive rate, 1 to 10000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    mrr_trials: Option<u16>,
    /// Relative width at which searches end, 0.0001 to 0.5
    #[arg(long, value_name = "SHARE", value_parser = width)]
    width: Option<f64>,
    /// Highest load that searches offer, packets a second in each direction, as 1.5M; found by a trial where not given
    #[arg(long, value_name = "PPS", value_parser = parse_rate)]
    highest: Option<f64>,
    /// Load of latency and soak: packets a second in each direction, or a share of the rate that is found, as 70% (of the NDR,
    /// the throughput or the PDR; where no method finds one, the PDR is searched for) [default: shares of the NDR]
    #[arg(long, value_name = "PPS|SHARE")]
    load: Option<Offered>,
    /// Traffic before the first trial, which does not count
    #[arg(long, value_name = "TIME")]
    warm_up: Option<Span>,
    /// Duration of a soak [default: 1 min, with more effort 1 h]
    #[arg(long, value_name = "TIME")]
    soak: Option<Span>,
    /// Repetitions of bursts and recoveries, 1 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    repetitions: Option<u16>,
    /// End the searches of a case after so long, with what was found until then [default: 1m, with more effort none]
    #[arg(long, value_name = "TIME")]
    limit: Option<Span>,
}

impl Measure {
    /// The methods named, or `default`.
    pub fn methods(&self, default: &[Method]) -> Vec<Method> {
        if self.method.is_empty() {
            default.to_vec()
        } else {
            self.method.clone()
        }
    }

    /// Whether nothing is said about trials.
    pub fn is_default(&self) -> bool {
        self.trial.is_none() && self.mrr_trials.is_none() && self.effort == Effort::Quick
    }

    /// What the flags mean for `methods`.
    ///
    /// # Errors
    /// Flags that contradict each other.
    pub fn settings(&self, methods: &[Method]) -> Result<Settings, String> {
        let whole = |rate: f64| rate.round() as u64;
        if let (Some(load), Some(highest)) = (self.load.and_then(Offered::rate), self.highest)
            && load > highest
        {
            return Err("--load is above --highest".into());
        }
        let takes = [Method::Latency, Method::Soak];
        if self.load.is_some() && !takes.iter().any(|method| methods.contains(method)) {
            return Err("--load is for latency and soak: name one of them by --method".into());
        }
        let measuring = Measuring {
            effort: Some(self.effort),
            searches: self.searches.map(usize::from),
            highest: self.highest.map(whole),
            load: self.load,
            warm_up: self.warm_up,
            mrr_trials: self.mrr_trials.map(usize::from),
            mrr_trial: self.trial,
            final_trial: self.trial,
            duration_sum: None,
            width: self.width,
            rfc2544_trial: self.trial,
            latency_trial: self.trial,
            repetitions: self.repetitions.map(usize::from),
            soak: self.soak,
            connections_trial: self.trial,
            limit: self.limit,
        };
        Ok(measuring.settings(methods))
    }
}

/// The generator.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generator")]
pub struct Generating {
    /// The core that the generator is pinned to [default: the last, where there are several]
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// Queue pairs at each vhost-user socket, 1 to 16
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    queues: Option<u16>,
    /// Entries of each ring, a power of two from 64 to 32768 [default: 1024]
    #[arg(long, value_name = "N", value_parser = ring)]
    ring: Option<u16>,
    /// Ask for packed rings
    #[arg(long)]
    packed: bool,
    /// Do not ask for mergeable receive buffers
    #[arg(long)]
    no_mergeable: bool,
}

impl Generating {
    /// As a suite's file would say it.
    pub fn file(&self) -> Generator {
        Generator {
            core: self.core,
            queues: self.queues,
            ring: self.ring,
            packed: self.packed.then_some(true),
            mergeable: self.no_mergeable.then_some(false),
        }
    }
}

/// A target of a comparison.
#[derive(Clone, Debug)]
pub enum TargetName {
    /// A configuration.
    Config(PathBuf),
    /// Two endpoints.
    Attach(String, String),
}

impl FromStr for TargetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_file = |end: &str| Path::new(text).extension().is_some_and(|e| e == end);
        if let Some((a, b)) = text.split_once(',') {
            Ok(Self::Attach(a.to_owned(), b.to_owned()))
        } else if is_file("yaml") || is_file("yml") {
            Ok(Self::Config(text.into()))
        } else {
            Err("expected a configuration's FILE.yaml, or two endpoints as A.sock,B.sock".into())
        }
    }
}

impl TargetName {
    /// Its name in reports, and what it is.
    ///
    /// # Errors
    /// Endpoints that are none.
    pub fn target(self, generator: &Generator) -> Result<(String, TargetKind), String> {
        match self {
            Self::Config(file) => {
                let name = file
                    .file_stem()
                    .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
                let kind = TargetKind::Config {
                    file,
                    between: None,
                    core: None,
                    guest: generator.clone(),
                };
                Ok((name, kind))
            }
            Self::Attach(a, b) => {
                let ends = [generator.endpoint(&a)?, generator.endpoint(&b)?];
                Ok((format!("{a},{b}"), TargetKind::Attach(ends)))
            }
        }
    }
}

fn size(text: &str) -> Result<Sizes, String> {
    let sizes: Sizes = text.parse()?;
    let (low, high) = match &sizes {
        Sizes::Fixed(size) => (*size, *size),
        Sizes::Mix(mix) => {
            let all = || mix.iter().map(|(size, _)| *size);
            (all().min().unwrap_or(0), all().max().unwrap_or(0))
        }
    };
    if low < 64 || high > 9216 {
        return Err("a frame has 64 to 9216 bytes".into());
    }
    Ok(sizes)
}

fn mac(text: &str) -> Result<Mac, String> {
    text.parse().map_err(str::to_owned)
}

fn number(text: &str, low: f64, high: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("expected a number from {low} to {high}")),
    }
}

fn zipf(text: &str) -> Result<f64, String> {
    number(text, 0.01, 10.0)
}

fn width(text: &str) -> Result<f64, String> {
    number(text, 0.0001, 0.5)
}

/// Two names with a comma between them.
pub fn pair(text: &str) -> Result<[String; 2], String> {
    match text.split_once(',') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(',') => {
            Ok([a.trim().to_owned(), b.trim().to_owned()])
        }
        _ => Err("expected two ports as `a,b`".into()),
    }
}

/// A ratio to be reached.
pub fn ratio(text: &str) -> Result<f64, String> {
    number(text, 0.001, 1000.0)
}

fn ring(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(size) if size.is_power_of_two() && (64..=32_768).contains(&size) => Ok(size),
        _ => Err("expected a power of two from 64 to 32768".into()),
    }
}
