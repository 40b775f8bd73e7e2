//! Words of chains to endpoints and stages: what each means, where it may stand, how often.

use std::collections::{HashMap, HashSet};

use super::Checker;
use crate::diagnostic::{Diagnostic, ENOUGH, Place, YamlPath, near_miss, suggestion};
use crate::spec::file::Word;
use crate::spec::function::Function;
use crate::spec::model::{Endpoint, Path};
use crate::yaml_path;

/// Most words of a chain.
const LONGEST: usize = 64;

/// A word's meaning.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// Index into the ports of the specification.
    Port(usize),
    /// Index into the functions of the specification.
    Function(usize),
}

/// A chain with its words resolved; indices are those of the specification.
#[derive(Debug)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Its left end.
    pub left: End,
    /// Inline and guest functions, left to right.
    pub middle: Vec<usize>,
    /// Its right end.
    pub right: End,
}

/// An end of a [`Chain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// A port.
    Port(usize),
    /// A junction and its interface.
    Junction(usize, usize),
}

/// What has been used where; the words' places for errors about a second use.
#[derive(Default)]
struct Used {
    ports: HashMap<usize, YamlPath>,
    functions: HashMap<usize, YamlPath>,
    interfaces: HashMap<(usize, usize), YamlPath>,
    /// Named by a near miss: their not being used is no further error.
    meant: HashSet<String>,
}

/// Resolves all chains, and reports what no chain uses.
pub fn resolve(checker: &mut Checker<'_>) -> Vec<Chain> {
    let mut used = Used::default();
    let mut chains = Vec::new();
    let mut complete = true;
    for (name, words) in &checker.spec.chains {
        if checker.errors.len() >= ENOUGH {
            return chains;
        }
        match words {
            Some(words) => chains.extend(chain(checker, &mut used, name, words)),
            None => complete = false,
        }
    }
    if complete {
        unused(checker, &used);
    }
    chains
}

fn chain(checker: &mut Checker<'_>, used: &mut Used, name: &str, words: &[Word]) -> Option<Chain> {
    if words.len() < 2 {
        checker.report(
            Diagnostic::at_key(
                yaml_path!["chains", name],
                format!("chain `{name}` has no two ends"),
            )
            .help("a chain is a list: endpoint, inline functions, endpoint"),
        );
    }
    if words.len() > LONGEST {
        let message = format!("chain `{name}` has more than {LONGEST} words");
        checker.report(Diagnostic::at_key(yaml_path!["chains", name], message));
        return None;
    }
    let last = words.len().saturating_sub(1);
    let mut ends = Vec::new();
    let mut middle = Vec::new();
    let mut whole = words.len() >= 2;
    for (index, word) in words.iter().enumerate() {
        let at = yaml_path!["chains", name, index];
        let expected = match (index == 0 || index == last, &word.interface) {
            (true, None) => "port",
            _ => "function",
        };
        let Some(meaning) = meaning(checker, used, word, expected, &at) else {
            whole = false;
            continue;
        };
        if index == 0 || index == last {
            let end = end(checker, used, word, meaning, &at);
            whole &= end.is_some();
            ends.extend(end);
        } else {
            let stage = stage(checker, used, word, meaning, &at);
            whole &= stage.is_some();
            middle.extend(stage);
        }
    }
    match ends[..] {
        [left, right] if whole => Some(Chain {
            name: name.into(),
            left,
            middle,
            right,
        }),
        _ => None,
    }
}

fn meaning(
    checker: &mut Checker<'_>,
    used: &mut Used,
    word: &Word,
    expected: &str,
    at: &YamlPath,
) -> Option<Meaning> {
    let spec = checker.spec;
    if let Some(index) = spec.ports.iter().position(|(name, _)| *name == word.name) {
        return Some(Meaning::Port(index));
    }
    if let Some(index) = spec
        .functions
        .iter()
        .position(|(name, _)| *name == word.name)
    {
        return Some(Meaning::Function(index));
    }
    let ports = spec.ports.iter().map(|(name, _)| name.as_str());
    let functions = spec.functions.iter().map(|(name, _)| name.as_str());
    let names: Vec<_> = ports.chain(functions).collect();
    if let Some(near) = near_miss(&word.name, names.iter().copied()) {
        used.meant.insert(near.to_owned());
    }
    checker.report(
        Diagnostic::at_value(at.clone(), format!("unknown {expected} `{}`", word.name))
            .help(suggestion(&word.name, names)),
    );
    None
}

/// An error about the word at `at`.
fn wrong(checker: &mut Checker<'_>, at: &YamlPath, message: String, help: &str) {
    checker.report(Diagnostic::at_value(at.clone(), message).help(help));
}

fn end(
    checker: &mut Checker<'_>,
    used: &mut Used,
    word: &Word,
    meaning: Meaning,
    at: &YamlPath,
) -> Option<End> {
    let name = &word.name;
    let index = match meaning {
        Meaning::Port(index) => {
            if word.interface.is_some() {
                wrong(checker, at, format!("port `{name}` has no interfaces"), "");
            }
            let first = used.ports.insert(index, at.clone());
            return if let Some(first) = first {
                port_twice(checker, name, first, at);
                None
            } else {
                Some(End::Port(index))
            };
        }
        Meaning::Function(index) => index,
    };
    let Some(function) = &checker.spec.functions[index].1 else {
        used.functions.insert(index, at.clone());
        return None;
    };
    let facts = checker.facts;
    let Some(junction) = &facts[index].junction else {
        used.functions.entry(index).or_insert_with(|| at.clone());
        let kind = function.kind();
        let help = "the ends of a chain are ports and interfaces of junctions";
        wrong(
            checker,
            at,
            format!("{kind} `{name}` can't end a chain"),
            help,
        );
        return None;
    };
    used.functions.insert(index, at.clone());
    let interface = interface(checker, used, word, index, &junction.interfaces, at)?;
    if let Some(first) = used.interfaces.insert((index, interface), at.clone()) {
        checker.report(
            Diagnostic::at_value(at.clone(), format!("`{word}` is connected twice"))
                .related(Place::Value(first), "the first")
                .help("an interface stands at one end of one chain"),
        );
        return None;
    }
    Some(End::Junction(index, interface))
}

fn port_twice(checker: &mut Checker<'_>, name: &str, first: YamlPath, at: &YamlPath) {
    let same_chain = first[..2] == at[..2];
    let message = if same_chain {
        format!("the chain joins port `{name}` to itself")
    } else {
        format!("port `{name}` ends two chains")
    };
    checker.report(
        Diagnostic::at_value(at.clone(), message)
            .related(Place::Value(first), "the first")
            .help("a port ends one chain; a router or switch joins several"),
    );
}

fn interface(
    checker: &mut Checker<'_>,
    used: &mut Used,
    word: &Word,
    index: usize,
    interfaces: &[String],
    at: &YamlPath,
) -> Option<usize> {
    let names = interfaces.iter().map(String::as_str);
    let Some(wanted) = &word.interface else {
        let example = interfaces.first().map_or("NAME", String::as_str);
        let message = format!("`{}` needs an interface here", word.name);
        wrong(
            checker,
            at,
            message,
            &format!("as `{}.{example}`", word.name),
        );
        // Which of them is meant, no one knows.
        for interface in 0..interfaces.len() {
            used.interfaces.entry((index, interface)).or_default();
        }
        return None;
    };
    let found = interfaces.iter().position(|i| i == wanted);
    if found.is_none() {
        if let Some(near) = near_miss(wanted, names.clone()) {
            used.meant.insert(format!("{}.{near}", word.name));
        }
        let message = format!("`{}` has no interface `{wanted}`", word.name);
        wrong(checker, at, message, &suggestion(wanted, names));
    }
    found
}

fn stage(
    checker: &mut Checker<'_>,
    used: &mut Used,
    word: &Word,
    meaning: Meaning,
    at: &YamlPath,
) -> Option<usize> {
    let name = &word.name;
    let index = match meaning {
        Meaning::Port(index) => {
            used.ports.entry(index).or_insert_with(|| at.clone());
            let help = "ports are the ends of a chain";
            wrong(
                checker,
                at,
                format!("port `{name}` in the middle of a chain"),
                help,
            );
            return None;
        }
        Meaning::Function(index) => index,
    };
    let Some(function) = &checker.spec.functions[index].1 else {
        used.functions.insert(index, at.clone());
        return None;
    };
    let facts = checker.facts;
    if let Some(junction) = &facts[index].junction {
        used.functions.insert(index, at.clone());
        for interface in 0..junction.interfaces.len() {
            used.interfaces.entry((index, interface)).or_default();
        }
        let help = "a junction's interfaces are the ends of chains: make it two chains";
        let message = format!("{} `{name}` in the middle of a chain", function.kind());
        wrong(checker, at, message, help);
        return None;
    }
    if let Some(interface) = &word.interface {
        let message = format!("`{name}` has no interface `{interface}` to name here");
        wrong(checker, at, message, &format!("write `{name}`"));
    }
    if let Some(first) = used.functions.insert(index, at.clone()) {
        checker.report(
            Diagnostic::at_value(at.clone(), format!("`{name}` stands in a chain twice"))
                .related(Place::Value(first), "the first")
                .help(
                    "the same rules in two chains are two functions; a YAML anchor shares the text",
                ),
        );
        return None;
    }
    Some(index)
}

/// Reports what stands in no chain.
fn unused(checker: &mut Checker<'_>, used: &Used) {
    let spec = checker.spec;
    for (index, (name, _)) in spec.ports.iter().enumerate() {
        if !used.ports.contains_key(&index) && !used.meant.contains(name) {
            checker.report(
                Diagnostic::at_key(
                    yaml_path!["ports", name],
                    format!("port `{name}` stands in no chain"),
                )
                .help("name it at an end of a chain, or remove it"),
            );
        }
    }
    for (index, (name, function)) in spec.functions.iter().enumerate() {
        if !used.functions.contains_key(&index) {
            let clash = spec.ports.iter().any(|(port, _)| port == name);
            if !used.meant.contains(name) && !clash {
                let at = yaml_path!["functions", name];
                checker.report(
                    Diagnostic::at_key(at, format!("function `{name}` stands in no chain"))
                        .help("name it in a chain, or remove it"),
                );
            }
            continue;
        }
        let Some(function) = function else { continue };
        let interfaces = checker.facts[index].interfaces();
        for (i, interface) in interfaces.iter().enumerate() {
            let word = format!("{name}.{interface}");
            if !used.interfaces.contains_key(&(index, i)) && !used.meant.contains(&word) {
                let at = yaml_path!["functions", name, function.kind(), "interfaces", interface];
                checker.report(
                    Diagnostic::at_key(at, format!("interface `{word}` stands in no chain"))
                        .help("connect it by a chain, or remove it"),
                );
            }
        }
    }
}

/// Cuts chains at their guest functions. `network` gives the model's index of a function of the
/// specification; `sides` the model's ports of a guest function.
pub fn cut(
    checker: &Checker<'_>,
    chains: &[Chain],
    network: &HashMap<usize, usize>,
    sides: &HashMap<usize, (usize, usize)>,
) -> Vec<Path> {
    let endpoint = |end| match end {
        End::Port(index) => Endpoint::Port(index),
        End::Junction(function, interface) => Endpoint::Junction {
            function: network[&function],
            interface,
        },
    };
    let mut paths = Vec::new();
    for chain in chains {
        let (mut left, mut stages, mut part) = (endpoint(chain.left), Vec::new(), 0);
        for &function in &chain.middle {
            let Some(Function::Guest(_)) = checker.spec.functions[function].1 else {
                stages.push(network[&function]);
                continue;
            };
            let (inside, outside) = sides[&function];
            paths.push(Path {
                chain: chain.name.clone(),
                part,
                left,
                stages: std::mem::take(&mut stages),
                right: Endpoint::Port(inside),
            });
            left = Endpoint::Port(outside);
            part += 1;
        }
        paths.push(Path {
            chain: chain.name.clone(),
            part,
            left,
            stages,
            right: endpoint(chain.right),
        });
    }
    paths
}
