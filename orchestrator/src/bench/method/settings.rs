//! What is measured, how long, how often.

use std::time::Duration;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mlr::Goal;
use crate::bench::units::seconds;

/// A method.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Maximum receive rate: what comes through when as much is sent as the target takes
    Mrr,
    /// No drop rate, by MLRsearch (RFC 9971)
    Ndr,
    /// Partial drop rate, 0.5 % loss, by MLRsearch (RFC 9971)
    Pdr,
    /// Throughput without loss, by halving (RFC 2544)
    Throughput,
    /// Loss by load (RFC 2544)
    FrameLoss,
    /// Longest burst without loss, and the buffer it means (RFC 9004)
    BackToBack,
    /// Time until loss ends after an overload (RFC 2544)
    Recovery,
    /// Latency at shares of the NDR
    Latency,
    /// A long run at one load
    Soak,
    /// New TCP connections a second (RFC 9411)
    ConnectionsPerSecond,
    /// TCP connections open at a time (RFC 9411)
    ConcurrentConnections,
    /// Requests a second over TCP connections (RFC 9411)
    Transactions,
}

impl Method {
    /// As it is written.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Whether it works with TCP connections.
    pub fn is_stateful(self) -> bool {
        matches!(
            self,
            Self::ConnectionsPerSecond | Self::ConcurrentConnections | Self::Transactions
        )
    }
}

/// How much time a result is worth.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Effort {
    /// An answer within a minute
    #[default]
    Quick,
    /// Trials of a second that decide by their sum, as FD.io CSIT does: some minutes
    Standard,
    /// Trials of 60 seconds, as RFC 2544 has them: hours
    Rfc2544,
}

/// Where the host disturbs a search, no quick one goes on for longer.
const QUICK: Duration = Duration::from_mins(1);

/// Everything about how a case is measured. Times are in seconds in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// The methods, in the order in which they run.
    pub methods: Vec<Method>,
    /// Goals of the MLRsearch.
    pub goals: Vec<Goal>,
    /// Searches for a rate, each from its beginning.
    pub searches: usize,
    /// Traffic before the first trial, which does not count.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub warm_up: Duration,
    /// Highest load, packets a second in each direction; found by a trial where it is not given.
    pub highest: Option<f64>,
    /// The trial that finds it.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub probe: Duration,
    /// Trials for the maximum receive rate.
    pub mrr_trials: usize,
    /// Their duration.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub mrr_trial: Duration,
    /// Duration of the trials of RFC 2544's methods.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub rfc2544_trial: Duration,
    /// Relative width at which RFC 2544's throughput search ends.
    pub rfc2544_width: f64,
    /// Repetitions of bursts and of recoveries.
    pub repetitions: usize,
    /// Longest burst, in frames of each direction.
    pub longest_burst: u64,
    /// Loads at which latency is measured, as shares of the reference.
    pub latency_loads: Vec<f64>,
    /// Duration of a latency trial.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub latency_trial: Duration,
    /// Load of latency and soak, packets a second in each direction, in place of shares of what was found.
    pub load: Option<f64>,
    /// Load of latency and soak as a share of the rate that was found, in place of others.
    #[serde(default)]
    pub load_share: Option<f64>,
    /// Share of the NDR at which a soak runs.
    pub soak_share: f64,
    /// Duration of a soak.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub soak: Duration,
    /// Duration of a trial with TCP connections.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub connections_trial: Duration,
    /// Most connections that are tried to be held open.
    pub most_connections: u32,
    /// Requests of a connection, for transactions.
    pub transactions: u32,
    /// Bytes of a request.
    pub request: u32,
    /// Bytes of an answer.
    pub response: u32,
    /// Times that a trial which noise spoiled is made again.
    pub retries: usize,
    /// Ends the searches of a case after so long, with what was found until then.
    #[serde(with = "optional")]
    #[schemars(with = "Option<f64>")]
    pub limit: Option<Duration>,
}

impl Settings {
    /// What `effort` means.
    pub fn new(effort: Effort, methods: &[Method]) -> Self {
        let seconds = Duration::from_secs_f64;
        let (warm_up, probe, mrr_trials, mrr_trial, rfc2544_trial, latency_trial) = match effort {
            Effort::Quick => (0.5, 0.5, 5, 0.5, 1.0, 2.0),
            Effort::Standard => (2.0, 1.0, 10, 1.0, 10.0, 10.0),
            Effort::Rfc2544 => (10.0, 2.0, 10, 10.0, 60.0, 120.0),
        };
        Self {
            methods: in_order(methods),
            goals: goals(effort, methods),
            searches: 1,
            warm_up: seconds(warm_up),
            highest: None,
            probe: seconds(probe),
            mrr_trials,
            mrr_trial: seconds(mrr_trial),
            rfc2544_trial: seconds(rfc2544_trial),
            rfc2544_width: if effort == Effort::Quick { 0.02 } else { 0.005 },
            repetitions: match effort {
                Effort::Quick => 5,
                Effort::Standard => 20,
                Effort::Rfc2544 => 50,
            },
            longest_burst: 1 << 20,
            latency_loads: vec![0.1, 0.5, 0.9],
            latency_trial: seconds(latency_trial),
            load: None,
            load_share: None,
            soak_share: 0.9,
            soak: seconds(if effort == Effort::Quick {
                60.0
            } else {
                3600.0
            }),
            connections_trial: seconds(if effort == Effort::Quick { 2.0 } else { 10.0 }),
            most_connections: 100_000,
            transactions: 10,
            request: 100,
            response: 1024,
            retries: 3,
            limit: (effort == Effort::Quick).then_some(QUICK),
        }
    }

    /// About how long `method` takes.
    pub fn cost(&self, method: Method) -> Duration {
        let repetitions = self.repetitions as u32;
        match method {
            Method::Mrr => self.mrr_trial * self.mrr_trials as u32,
            Method::Ndr | Method::Pdr => self.search_cost() * self.searches as u32,
            Method::Throughput => self.rfc2544_trial * 8 * self.searches as u32,
            Method::FrameLoss => self.rfc2544_trial * 6,
            Method::BackToBack => Duration::from_secs(4) * repetitions,
            Method::Recovery => self.rfc2544_trial * 2 * repetitions,
            Method::Latency => {
                self.latency_trial
                    * if self.load.is_some() || self.load_share.is_some() {
                        1
                    } else {
                        self.latency_loads.len() as u32
                    }
            }
            Method::Soak => self.soak,
            Method::ConnectionsPerSecond | Method::ConcurrentConnections => {
                self.connections_trial * 8
            }
            Method::Transactions => self.connections_trial,
        }
    }

    /// As searches went on devices that behave: eight short trials, five of the middle phase, and four decisions by the
    /// whole sum.
    fn search_cost(&self) -> Duration {
        let goals = self.goals.iter().map(|goal| {
            let (first, sum) = (
                goal.initial_trial.as_secs_f64(),
                goal.duration_sum.as_secs_f64(),
            );
            8.0 * first + 5.0 * (first * sum).sqrt() + 4.0 * sum
        });
        Duration::from_secs_f64(goals.sum())
    }

    /// About how long everything takes.
    pub fn whole_cost(&self) -> Duration {
        let all = |soak: bool| -> Duration {
            let methods = self
                .methods
                .iter()
                .filter(|&&m| soak == (m == Method::Soak));
            methods.map(|&method| self.cost(method)).sum()
        };
        let cost = self.warm_up + all(false);
        // No limit ends a soak.
        all(true)
            + self
                .limit
                .map_or(cost, |limit| cost.min(limit + self.mrr_trial))
    }
}

/// `methods`, and the search for the PDR where one of them takes a share of a rate and none finds one.
pub fn with_rate(methods: &[Method]) -> Vec<Method> {
    let any = |of: &[Method]| of.iter().any(|method| methods.contains(method));
    let takes = any(&[Method::Latency, Method::Soak]);
    let finds = any(&[Method::Ndr, Method::Pdr, Method::Throughput]);
    let search = (takes && !finds).then_some(Method::Pdr);
    methods.iter().copied().chain(search).collect()
}

/// Each method once, in an order in which later ones use what earlier ones found. NDR and PDR are one search.
fn in_order(methods: &[Method]) -> Vec<Method> {
    let mut methods = methods.to_vec();
    methods.sort_unstable();
    methods.dedup();
    if methods.contains(&Method::Ndr) {
        methods.retain(|&method| method != Method::Pdr);
    }
    methods
}

/// NDR and PDR as RFC 9971 describes them for FD.io CSIT, with less time for less effort.
fn goals(effort: Effort, methods: &[Method]) -> Vec<Goal> {
    let goal = |name: &str, loss_ratio| {
        let (exceed_ratio, width, times) = match effort {
            Effort::Quick => (0.5, 0.02, [0.1, 0.5, 1.5]),
            Effort::Standard => (0.5, 0.005, [1.0, 1.0, 21.0]),
            Effort::Rfc2544 => (0.0, 0.005, [1.0, 60.0, 60.0]),
        };
        let [initial_trial, final_trial, duration_sum] = times.map(Duration::from_secs_f64);
        Goal {
            name: name.into(),
            loss_ratio,
            exceed_ratio,
            width,
            initial_trial,
            final_trial,
            duration_sum,
        }
    };
    // The looser goal first: its bounds are nearer to the rate at which the search begins.
    let known = [(Method::Pdr, "pdr", 0.005), (Method::Ndr, "ndr", 0.0)];
    let wanted = known
        .into_iter()
        .filter(|(method, ..)| methods.contains(method));
    wanted.map(|(_, name, loss)| goal(name, loss)).collect()
}

/// Optional durations as seconds.
mod optional {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub fn serialize<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.serialize_some(&time.as_secs_f64()),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let read = |seconds| Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom);
        Option::<f64>::deserialize(from)?.map(read).transpose()
    }
}
