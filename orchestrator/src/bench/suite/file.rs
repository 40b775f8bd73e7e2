//! What a suite's YAML file says. As in configurations, enums are tagged from outside and unknown keys are errors.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use chainplane_nf::config::{Mac, OneOrMany};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::bench::method::{Effort, Method};
use crate::bench::traffic::Sizes;
use crate::bench::units::{Offered, Span};

/// How everything is measured, unless a case says otherwise.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Measuring {
    /// How much time a result is worth. Default: `quick`.
    pub effort: Option<Effort>,
    /// Searches for each rate; more than one give a confidence interval. Default 1.
    #[schemars(range(min = 1, max = 1000))]
    pub searches: Option<usize>,
    /// Highest load, packets a second in each direction. Default: found by a trial.
    #[schemars(range(min = 1))]
    pub highest: Option<u64>,
    /// Load of latency and soak: packets a second in each direction, or a share of the rate that is found, as `70%`: of the
    /// NDR, the throughput or the PDR, the first of these that is. Where no method finds one, the PDR is searched for.
    /// Default: shares of what was found.
    pub load: Option<Offered>,
    /// Traffic before the first trial, which does not count, as `2s`.
    pub warm_up: Option<Span>,
    /// Trials for the maximum receive rate.
    #[schemars(range(min = 1, max = 10_000))]
    pub mrr_trials: Option<usize>,
    /// Their duration.
    pub mrr_trial: Option<Span>,
    /// Duration of the final trials of a search for NDR and PDR.
    pub final_trial: Option<Span>,
    /// Time of trials that decides about a load in a search for NDR and PDR.
    pub duration_sum: Option<Span>,
    /// Relative width at which searches end, as 0.01.
    pub width: Option<f64>,
    /// Duration of the trials of RFC 2544's methods.
    pub rfc2544_trial: Option<Span>,
    /// Duration of a latency trial.
    pub latency_trial: Option<Span>,
    /// Repetitions of bursts and recoveries.
    #[schemars(range(min = 1, max = 1000))]
    pub repetitions: Option<usize>,
    /// Duration of a soak.
    pub soak: Option<Span>,
    /// Duration of a trial with TCP connections.
    pub connections_trial: Option<Span>,
    /// Ends the searches of a case after so long, with what was found until then. Default: with quick effort, 1m.
    pub limit: Option<Span>,
}

/// The generator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Generator {
    /// The core it is pinned to. Default: the last one, where there are several.
    pub core: Option<usize>,
    /// Queue pairs at each vhost-user socket. Default 1.
    #[schemars(range(min = 1, max = 16))]
    pub queues: Option<u16>,
    /// Entries of each ring, a power of two. Default 1024.
    #[schemars(range(min = 64, max = 32_768))]
    pub ring: Option<u16>,
    /// Whether to ask for packed rings. Default: no.
    pub packed: Option<bool>,
    /// Whether to ask for mergeable receive buffers. Default: yes.
    pub mergeable: Option<bool>,
}

/// Something to be measured.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Target {
    /// A configuration of this program, which is started for the measurement.
    Config(Config),
    /// What others run.
    Attach(Attach),
    /// A program that is started for the measurement.
    Command(Command),
    /// A plain loop in memory: the generator's own ceiling.
    Loop(Loop),
}

/// A configuration of this program.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The file; a relative path starts at the suite's directory.
    pub file: PathBuf,
    /// The two ports between which is measured, inside first. Default: the first path between two ports that guests
    /// could be at.
    #[serde(default)]
    pub between: Vec<String>,
    /// The core of the first worker. Default: what the file says, or the first core.
    pub core: Option<u32>,
}

/// Two endpoints.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Attach {
    /// The socket where the back end listens, `listen:SOCKET` where it connects, `tap:NAME`, or `af-packet:NAME`.
    /// Inside first.
    pub endpoints: Vec<String>,
    /// Functions in the chain, for plots.
    pub chain_length: Option<u32>,
}

/// A program that is started and ended.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Command {
    /// The program and its arguments; `{dir}` stands for a directory of its own, which is there while it runs. A
    /// relative program starts at the suite's directory. SIGTERM ends it.
    pub run: Vec<String>,
    /// As for `attach`; `{dir}` stands for the same directory.
    pub endpoints: Vec<String>,
    /// A program that prints lines of `name: value`, which the report shows beside the target: versions, features.
    #[serde(default)]
    pub about: Vec<String>,
    /// How long it may take until the generator can attach. Default 30s.
    pub patience: Option<Span>,
    /// Functions in the chain, for plots.
    pub chain_length: Option<u32>,
}

/// Nothing in between.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Loop {}

/// What is sent. Lists are swept: each value in turn, with every value of the others.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Traffic {
    /// Lengths of frames in bytes, without check sequence: a number, `imix`, a mix as `64:7,594:4,1514:1`, or a genome
    /// of RFC 6985 as `7a4d1g`. Default the shortest: 64 for UDP over IPv4, 10 more for TCP, 20 more for IPv6.
    pub frame: OneOrMany<Size>,
    /// Flows at a time. Default 1.
    pub flows: OneOrMany<u32>,
    /// New flows a second. Default 0.
    pub new_flows: OneOrMany<u32>,
    /// How packets are spread over flows. Default: `uniform`.
    pub spread: Option<Spread>,
    /// Versions of IP. Default: `v4`.
    pub ip: Option<Ip>,
    /// What IP carries. Default: `udp`.
    pub transport: Option<Transport>,
    /// Whether packets go both ways. Default: yes.
    pub bidirectional: Option<bool>,
    /// Who opens flows. For a configuration of this program it is found from the file.
    pub inside: Option<Side>,
    /// Who answers.
    pub outside: Option<Side>,
    /// A capture file whose lengths, protocols and flows are sent instead; a relative path starts at the suite's
    /// directory.
    pub replay: Option<PathBuf>,
    /// Where everything random starts. Default 1.
    pub seed: Option<u64>,
}

/// Versions of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ip {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Every other flow is IPv6.
    Mixed,
}

/// What IP carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// UDP datagrams.
    Udp,
    /// TCP segments, each flow opened by a handshake.
    Tcp,
    /// Every other flow is TCP.
    Mixed,
}

/// How packets are spread over flows.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Spread {
    /// Each flow in turn.
    Uniform,
    /// Flow n gets a share in proportion to n to the power of minus this, as 1.1.
    Zipf(f64),
}

/// An endpoint's place in the network. What is left out is as by default, or as the configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Side {
    /// The MAC address of all hosts here.
    pub mac: Option<Mac>,
    /// The first IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The first IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Hosts: consecutive addresses.
    #[schemars(range(min = 1))]
    pub hosts: Option<u32>,
    /// The first port; of the side that answers, the only one.
    pub port: Option<u16>,
    /// Where frames go first: a MAC address.
    pub next_hop_mac: Option<Mac>,
    /// Where frames go first: a router's address, which is resolved.
    pub router: Option<IpAddr>,
}

/// Targets under traffic.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// Names of targets.
    pub targets: OneOrMany<String>,
    /// Names of traffics.
    pub traffic: OneOrMany<String>,
    /// Methods. Default: `mrr` and `pdr`.
    #[serde(default)]
    pub methods: OneOrMany<Method>,
    /// What differs from the suite's measuring.
    #[serde(default)]
    pub measuring: Measuring,
}

/// Two targets, measured in turn.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Comparison {
    /// The first target: above the fraction bar.
    pub first: String,
    /// The second.
    pub second: String,
    /// The traffic.
    pub traffic: OneOrMany<String>,
    /// What is compared: `mrr`, `pdr`, `ndr` or `throughput`. Default: `mrr`.
    pub measure: Option<Method>,
    /// Rounds: each measures both. Default 10.
    #[schemars(range(min = 2, max = 1000))]
    pub rounds: Option<usize>,
    /// Fails the run if the ratio is not at least this with 95 % confidence.
    pub at_least: Option<f64>,
    /// What differs from the suite's measuring.
    #[serde(default)]
    pub measuring: Measuring,
}

/// Lengths of frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Size(pub Sizes);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a frame length, `imix`, or a mix as `64:7,594:4,1514:1`")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Size, E> {
                let size = u16::try_from(number);
                let size =
                    size.map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))?;
                Ok(Size(Sizes::Fixed(size)))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                let size = u64::try_from(number);
                size.map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                    .and_then(|number| self.visit_u64(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map(Size).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 64, "maximum": 9216 },
            { "type": "string", "examples": ["imix", "64:7,594:4,1514:1", "7a4d1g"] },
        ] })
    }
}

/// A suite: what is measured, under which traffic, how.
#[derive(JsonSchema)]
#[schemars(rename = "Suite", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct Suite {
    /// Version of this format.
    #[schemars(range(min = 1, max = 1))]
    version: u64,
    /// How everything is measured.
    #[schemars(default)]
    measuring: Measuring,
    /// The generator.
    #[schemars(default)]
    generator: Generator,
    /// What is measured, by name. Names that differ in a number at the end, as `chain-1` and `chain-4`, are one line
    /// in a plot by chain length.
    targets: BTreeMap<String, Target>,
    /// What is sent, by name.
    traffic: BTreeMap<String, Traffic>,
    /// Targets under traffic, by name.
    #[schemars(default)]
    cases: BTreeMap<String, Case>,
    /// Pairs of targets measured in turn, by name.
    #[schemars(default)]
    comparisons: BTreeMap<String, Comparison>,
}
