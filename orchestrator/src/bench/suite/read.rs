//! A suite's file to a plan: every error with line, column and what was meant.

use std::path::Path;

use chainplane_nf::config::OneOrMany;
use serde::de::DeserializeOwned;

use super::file::{Case, Comparison, Generator, Measuring, Suite, Target, Traffic};
use super::plan::{CasePlan, ComparisonPlan, Plan, TargetKind, TargetPlan, TrafficPlan};
use crate::bench::method::Method;
use crate::bench::traffic::MAX_FLOWS;
use crate::bench::units::Offered;
use crate::diagnostic::{Diagnostic, Place, Report, YamlPath, suggestion};
use crate::spec::yaml::{self, Kind, NodeId, Tree};
use crate::{spec, yaml_path};

/// The keys at the top of the file.
const SECTIONS: [&str; 7] = [
    "version",
    "measuring",
    "generator",
    "targets",
    "traffic",
    "cases",
    "comparisons",
];
/// Most cases that a file may come down to.
const MOST: usize = 10_000;
/// Methods of a case that names none.
const METHODS: [Method; 2] = [Method::Mrr, Method::Pdr];
/// Methods that find a rate.
const MEASURES: [Method; 4] = [Method::Mrr, Method::Ndr, Method::Pdr, Method::Throughput];

/// Reads and checks the file at `path`.
///
/// # Errors
/// A report of all that is wrong with it, also where it can't be read.
pub fn load(path: &Path) -> Result<Plan, Box<Report>> {
    match spec::read_file(path) {
        Ok(text) => parse(&text, path),
        Err(message) => {
            let name = path.display().to_string();
            Err(Box::new(Report::new(
                &name,
                "",
                vec![Diagnostic::new(message)],
            )))
        }
    }
}

/// Checks `text` as if it stood in the file at `path`.
///
/// # Errors
/// A report of all that is wrong with it.
pub fn parse(text: &str, path: &Path) -> Result<Plan, Box<Report>> {
    let report = |errors| Box::new(Report::new(&path.display().to_string(), text, errors));
    let tree = Tree::parse(text).map_err(report)?;
    let mut reader = Reader {
        tree: &tree,
        directory: path.parent().unwrap_or(Path::new("")),
        errors: tree.errors.clone(),
    };
    let plan = reader.plan();
    let mut errors = reader.errors;
    if errors.is_empty() {
        return Ok(plan);
    }
    spec::locate(&tree, &mut errors);
    Err(report(errors))
}

/// The JSON Schema of suites, as text that ends in a line break.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Suite);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

struct Reader<'t> {
    tree: &'t Tree,
    directory: &'t Path,
    errors: Vec<Diagnostic>,
}

/// Entries of a section in the order of the file; what could not be read is `None`, and its name still counts.
type Named<T> = Vec<(String, Option<T>)>;

#[derive(Default)]
struct Sections {
    measuring: Measuring,
    generator: Generator,
    targets: Named<Target>,
    traffic: Named<Traffic>,
    cases: Named<Case>,
    comparisons: Named<Comparison>,
}

impl Reader<'_> {
    fn plan(&mut self) -> Plan {
        let sections = self.sections();
        let targets: Named<TargetPlan> = sections
            .targets
            .iter()
            .map(|(name, target)| {
                (
                    name.clone(),
                    target
                        .as_ref()
                        .and_then(|t| self.target(name, t, &sections.generator)),
                )
            })
            .collect();
        let traffic: Named<Vec<(String, TrafficPlan)>> = sections
            .traffic
            .iter()
            .map(|(name, traffic)| {
                (
                    name.clone(),
                    traffic.as_ref().map(|t| self.traffic(name, t)),
                )
            })
            .collect();
        let mut plan = Plan {
            cases: Vec::new(),
            comparisons: Vec::new(),
            generator: sections.generator.options(),
        };
        for (name, case) in &sections.cases {
            let Some(case) = case else { continue };
            self.measuring(&yaml_path!["cases", name, "measuring"], &case.measuring);
            let cases = self.case(name, case, &sections.measuring, &targets, &traffic);
            plan.cases.extend(cases);
        }
        for (name, comparison) in &sections.comparisons {
            let Some(comparison) = comparison else {
                continue;
            };
            self.measuring(
                &yaml_path!["comparisons", name, "measuring"],
                &comparison.measuring,
            );
            let comparisons =
                self.comparison(name, comparison, &sections.measuring, &targets, &traffic);
            plan.comparisons.extend(comparisons);
        }
        if plan.cases.len() + plan.comparisons.len() > MOST {
            self.errors
                .push(Diagnostic::new(format!("more than {MOST} cases")));
        }
        plan
    }

    fn sections(&mut self) -> Sections {
        let mut sections = Sections::default();
        let tree = self.tree;
        let root = tree.root();
        if !matches!(tree.resolve(root).1.kind, Kind::Map(_)) {
            self.error(
                root,
                "expected a mapping at the top of the file",
                &suggestion("", SECTIONS),
            );
            return sections;
        }
        let mut found = Vec::new();
        for (section, key, value) in tree.entries(root) {
            found.push(section);
            match section {
                "version" => self.version(key, value),
                "measuring" => sections.measuring = self.value(key, value).unwrap_or_default(),
                "generator" => sections.generator = self.value(key, value).unwrap_or_default(),
                "targets" => sections.targets = self.named(value),
                "traffic" => sections.traffic = self.named(value),
                "cases" => sections.cases = self.named(value),
                "comparisons" => sections.comparisons = self.named(value),
                other => self.error(
                    key,
                    &format!("unknown key `{other}`"),
                    &suggestion(other, SECTIONS),
                ),
            }
        }
        for (needed, help) in [
            ("version", "begin with `version: 1`"),
            ("targets", ""),
            ("traffic", ""),
        ] {
            if !found.contains(&needed) {
                self.missing(&format!("`{needed}` is missing"), help);
            }
        }
        if !found.contains(&"cases") && !found.contains(&"comparisons") {
            self.missing("neither `cases` nor `comparisons`: nothing is measured", "");
        }
        self.measuring(&yaml_path!["measuring"], &sections.measuring);
        self.generator(&sections.generator);
        sections
    }

    fn missing(&mut self, message: &str, help: &str) {
        let start = self.tree.node(self.tree.root()).span.start;
        self.errors
            .push(Diagnostic::at(Place::Span(start..start), message).help(help));
    }

    fn error(&mut self, at: NodeId, message: &str, help: &str) {
        let span = self.tree.node(at).span.clone();
        self.errors
            .push(Diagnostic::at(Place::Span(span), message).help(help));
    }

    /// An error at the value that `path` leads to.
    fn at(&mut self, path: YamlPath, message: impl Into<String>, help: &str) {
        self.errors
            .push(Diagnostic::at_value(path, message).help(help));
    }

    fn version(&mut self, key: NodeId, value: NodeId) {
        if self
            .value::<u64>(key, value)
            .is_some_and(|version| version != 1)
        {
            self.error(value, "this version is not known", "write `version: 1`");
        }
    }

    fn value<T: DeserializeOwned>(&mut self, key: NodeId, value: NodeId) -> Option<T> {
        match yaml::read(self.tree, Some(key), value) {
            Ok(value) => Some(value),
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        }
    }

    fn named<T: DeserializeOwned>(&mut self, section: NodeId) -> Named<T> {
        let tree = self.tree;
        if !matches!(tree.resolve(section).1.kind, Kind::Map(_)) {
            self.error(section, "expected a mapping from names", "as `name: { … }`");
            return Vec::new();
        }
        let entries = tree.entries(section).take(MOST);
        entries
            .map(|(name, key, value)| (name.to_owned(), self.value(key, value)))
            .collect()
    }

    /// A number outside its range.
    fn range<T: PartialOrd + Copy + std::fmt::Display>(
        &mut self,
        path: &YamlPath,
        key: &str,
        value: Option<T>,
        low: T,
        high: T,
    ) {
        if let Some(value) = value
            && (value < low || value > high)
        {
            let mut path = path.clone();
            path.push(key.into());
            self.at(path, format!("`{value}` is not from {low} to {high}"), "");
        }
    }

    fn measuring(&mut self, path: &YamlPath, measuring: &Measuring) {
        self.range(path, "searches", measuring.searches, 1, 1000);
        self.range(path, "highest", measuring.highest, 1, 10_000_000_000);
        let rate = measuring.load.and_then(Offered::rate);
        self.range(path, "load", rate, 1.0, 1e10);
        self.range(path, "mrr-trials", measuring.mrr_trials, 1, 10_000);
        self.range(path, "repetitions", measuring.repetitions, 1, 1000);
        self.range(path, "width", measuring.width, 0.0001, 0.5);
    }

    fn generator(&mut self, generator: &Generator) {
        let path = yaml_path!["generator"];
        self.range(&path, "queues", generator.queues, 1, 16);
        self.range(&path, "ring", generator.ring, 64, 32_768);
        if generator.ring.is_some_and(|ring| !ring.is_power_of_two()) {
            self.at(
                yaml_path!["generator", "ring"],
                "a ring's size is a power of two",
                "",
            );
        }
    }

    fn target(&mut self, name: &str, target: &Target, generator: &Generator) -> Option<TargetPlan> {
        let (kind, chain_length) = match target {
            Target::Loop(_) => (TargetKind::Loop, None),
            Target::Config(config) => {
                let path = yaml_path!["targets", name, "config", "between"];
                let between = match config.between.as_slice() {
                    [] => None,
                    [a, b] => Some([a.clone(), b.clone()]),
                    _ => {
                        self.at(path, "expected two ports", "inside first");
                        return None;
                    }
                };
                let kind = TargetKind::Config {
                    file: self.directory.join(&config.file),
                    between,
                    core: config.core,
                    guest: generator.clone(),
                };
                (kind, None)
            }
            Target::Attach(attach) => {
                let path = yaml_path!["targets", name, "attach", "endpoints"];
                let [a, b] = self.endpoints(&path, &attach.endpoints)?;
                let spec = |text: &String| generator.endpoint(text).ok();
                (
                    TargetKind::Attach([spec(&a)?, spec(&b)?]),
                    attach.chain_length,
                )
            }
            Target::Command(command) => {
                let path = yaml_path!["targets", name, "command", "endpoints"];
                let endpoints = self.endpoints(&path, &command.endpoints)?;
                if command.run.is_empty() {
                    self.at(
                        yaml_path!["targets", name, "command", "run"],
                        "no program",
                        "",
                    );
                    return None;
                }
                let kind = TargetKind::Command {
                    run: command.run.clone(),
                    endpoints,
                    about: command.about.clone(),
                    directory: self.directory.to_owned(),
                    patience: command
                        .patience
                        .map_or(super::open::PATIENCE, |span| span.0),
                    guest: generator.clone(),
                };
                (kind, command.chain_length)
            }
        };
        Some(TargetPlan {
            name: name.to_owned(),
            chain_length,
            kind,
        })
    }

    fn endpoints(&mut self, path: &YamlPath, texts: &[String]) -> Option<[String; 2]> {
        for (index, text) in texts.iter().enumerate() {
            if let Err(error) = Generator::default().endpoint(text) {
                let mut path = path.clone();
                path.push(index.into());
                self.at(path, error, "");
                return None;
            }
        }
        if let [a, b] = texts {
            return Some([a.clone(), b.clone()]);
        }
        self.at(
            path.clone(),
            format!("expected two endpoints, found {}", texts.len()),
            "inside first",
        );
        None
    }

    fn traffic(&mut self, name: &str, traffic: &Traffic) -> Vec<(String, TrafficPlan)> {
        let path = yaml_path!["traffic", name];
        for &flows in traffic.flows.iter() {
            self.range(&path, "flows", Some(flows), 1, MAX_FLOWS);
        }
        for size in traffic.frame.iter() {
            let longest = size.0.longest().unwrap_or(0);
            self.range(&path, "frame", Some(longest), 64, 9216);
        }
        if let Some(super::file::Spread::Zipf(s)) = traffic.spread {
            let path = yaml_path!["traffic", name, "spread"];
            self.range(&path, "zipf", Some(s), 0.01, 10.0);
        }
        for key in ["inside", "outside"] {
            let side = if key == "inside" {
                &traffic.inside
            } else {
                &traffic.outside
            };
            let hosts = side.as_ref().and_then(|side| side.hosts);
            self.range(
                &yaml_path!["traffic", name, key],
                "hosts",
                hosts,
                1,
                1 << 24,
            );
        }
        traffic.sweep(self.directory)
    }

    /// What `names`, which stand at `path`, name.
    fn find<'a, T>(
        &mut self,
        path: &YamlPath,
        names: &[String],
        known: &'a Named<T>,
        what: &str,
    ) -> Vec<(&'a str, &'a T)> {
        let mut found = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match known.iter().find(|(other, _)| other == name) {
                Some((name, Some(value))) => found.push((name.as_str(), value)),
                // What is wrong with it has been said.
                Some((_, None)) => {}
                None => {
                    let help = suggestion(name, known.iter().map(|(name, _)| name.as_str()));
                    let mut path = path.clone();
                    path.push(index.into());
                    self.at(path, format!("there is no {what} `{name}`"), &help);
                }
            }
        }
        if names.is_empty() {
            self.at(path.clone(), format!("names no {what}"), "");
        }
        found
    }

    fn case(
        &mut self,
        name: &str,
        case: &Case,
        measuring: &Measuring,
        targets: &Named<TargetPlan>,
        traffic: &Named<Vec<(String, TrafficPlan)>>,
    ) -> Vec<CasePlan> {
        let targets = self.find(
            &yaml_path!["cases", name, "targets"],
            &case.targets,
            targets,
            "target",
        );
        let traffic = self.find(
            &yaml_path!["cases", name, "traffic"],
            &case.traffic,
            traffic,
            "traffic",
        );
        let methods = if case.methods.is_empty() {
            &METHODS[..]
        } else {
            &case.methods[..]
        };
        let settings = case.measuring.or(measuring).settings(methods);
        let mut plans = Vec::new();
        for (target_name, target) in &targets {
            for (traffic_name, swept) in &traffic {
                for (words, one) in *swept {
                    let mut title = vec![name.to_owned()];
                    if targets.len() > 1 {
                        title.push((*target_name).to_owned());
                    }
                    if traffic.len() > 1 {
                        title.push((*traffic_name).to_owned());
                    }
                    if !words.is_empty() {
                        title.push(words.clone());
                    }
                    plans.push(CasePlan {
                        name: title.join(", "),
                        target: (*target).clone(),
                        traffic: one.clone(),
                        settings: settings.clone(),
                    });
                }
            }
        }
        plans
    }

    fn comparison(
        &mut self,
        name: &str,
        comparison: &Comparison,
        measuring: &Measuring,
        targets: &Named<TargetPlan>,
        traffic: &Named<Vec<(String, TrafficPlan)>>,
    ) -> Vec<ComparisonPlan> {
        let path = yaml_path!["comparisons", name];
        let mut both = Vec::new();
        for (key, target) in [("first", &comparison.first), ("second", &comparison.second)] {
            let path = yaml_path!["comparisons", name, key];
            let named = OneOrMany(vec![target.clone()]);
            both.extend(self.find(&path, &named, targets, "target"));
        }
        let traffic = self.find(
            &yaml_path!["comparisons", name, "traffic"],
            &comparison.traffic,
            traffic,
            "traffic",
        );
        self.range(&path, "rounds", comparison.rounds, 2, 1000);
        self.range(&path, "at-least", comparison.at_least, 0.001, 1000.0);
        let measure = comparison.measure.unwrap_or(Method::Mrr);
        if !MEASURES.contains(&measure) {
            let names = MEASURES
                .map(|method| format!("`{}`", method.name()))
                .join(", ");
            let help = format!("expected one of {names}");
            self.at(
                yaml_path!["comparisons", name, "measure"],
                "this method finds no rate",
                &help,
            );
        }
        let [(_, first), (_, second)] = both.as_slice() else {
            return Vec::new();
        };
        let settings = comparison.measuring.or(measuring).settings(&[measure]);
        let mut plans = Vec::new();
        for (traffic_name, swept) in &traffic {
            for (words, one) in *swept {
                let mut title = vec![name.to_owned()];
                if traffic.len() > 1 {
                    title.push((*traffic_name).to_owned());
                }
                if !words.is_empty() {
                    title.push(words.clone());
                }
                plans.push(ComparisonPlan {
                    name: title.join(", "),
                    targets: [(*first).clone(), (*second).clone()],
                    traffic: one.clone(),
                    measure,
                    rounds: comparison.rounds.unwrap_or(10),
                    at_least: comparison.at_least,
                    settings: settings.clone(),
                });
            }
        }
        plans
    }
}
