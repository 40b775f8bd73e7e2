//! `runs`: which worker runs what, where the file says so.

use std::collections::HashMap;

use super::Checker;
use crate::diagnostic::{Diagnostic, Place, YamlPath, suggestion};
use crate::spec::file::Spread;
use crate::spec::function::Function;
use crate::spec::model::Runs;
use crate::yaml_path;

/// What a word of `runs` names; indices are those of the specification.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Named {
    Port(usize),
    Function(usize),
    /// A guest function's port: inside (0) or outside (1).
    Side(usize, usize),
}

/// Checks `runs` of all workers. What they name, and the worker that is to run it.
pub fn check(checker: &mut Checker<'_>) -> Vec<(Named, usize)> {
    let names = names(checker);
    let mut first: HashMap<Named, YamlPath> = HashMap::new();
    let (mut named, mut worker) = (Vec::new(), 0);
    for (group, workers) in checker.spec.workers.iter().enumerate() {
        if !workers.runs.is_empty() && workers.cores.len() > 1 {
            too_many(checker, group, workers.cores.len());
        }
        for (index, word) in workers.runs.iter().enumerate() {
            let at = yaml_path!["workers", group, "runs", index];
            let Some(meant) = names.get(word) else {
                unknown(checker, &names, word, at);
                continue;
            };
            for &meant in meant {
                if let Some(earlier) = first.get(&meant) {
                    twice(checker, word, earlier, &at);
                } else {
                    first.insert(meant, at.clone());
                    named.push((meant, worker));
                }
            }
        }
        worker += workers.cores.len().max(1);
    }
    if checker.spec.flows.spread == Spread::Always
        && let Some((named, _)) = named.first()
    {
        spread(checker, &first[named]);
    }
    named
}

/// What each word names. A guest function is its two ports, which may be named one by one.
fn names(checker: &Checker<'_>) -> HashMap<String, Vec<Named>> {
    let mut names = HashMap::new();
    for (index, (name, function)) in checker.spec.functions.iter().enumerate() {
        if let Some(Function::Guest(_)) = function {
            let sides = [Named::Side(index, 0), Named::Side(index, 1)];
            names.insert(name.clone(), sides.to_vec());
            for (side, which) in sides.into_iter().zip(["inside", "outside"]) {
                names.insert(format!("{name}.{which}"), vec![side]);
            }
        } else {
            names.insert(name.clone(), vec![Named::Function(index)]);
        }
    }
    let ports = checker.spec.ports.iter().enumerate();
    names.extend(ports.map(|(index, (name, _))| (name.clone(), vec![Named::Port(index)])));
    names
}

fn too_many(checker: &mut Checker<'_>, group: usize, cores: usize) {
    let message = format!("`runs` is for one worker, and there are {cores} cores");
    checker.report(
        Diagnostic::at_key(yaml_path!["workers", group, "runs"], message)
            .help("give each core an entry of its own"),
    );
}

/// What is named runs on one worker, and so does not go with everything being spread over all.
fn spread(checker: &mut Checker<'_>, runs: &YamlPath) {
    let at = yaml_path!["flows", "spread"];
    checker.report(
        Diagnostic::at_value(at, "everything is to be spread over all workers")
            .related(Place::Value(runs.clone()), "this is to run on one")
            .help("take out `runs` or `spread: always`"),
    );
}

fn unknown(
    checker: &mut Checker<'_>,
    names: &HashMap<String, Vec<Named>>,
    word: &str,
    at: YamlPath,
) {
    let whole = word.split_once('.').map(|(function, _)| function);
    let junction = |function: &&str| matches!(names.get(*function).map(Vec::as_slice), Some([_]));
    let help = if let Some(function) = whole.filter(junction) {
        format!("all of it runs on one worker: write `{function}`")
    } else {
        let mut known: Vec<_> = names.keys().map(String::as_str).collect();
        known.sort_unstable();
        suggestion(word, known)
    };
    let message = format!("unknown port or function `{word}`");
    checker.report(Diagnostic::at_value(at, message).help(help));
}

fn twice(checker: &mut Checker<'_>, word: &str, first: &YamlPath, at: &YamlPath) {
    let message = if first[..2] == at[..2] {
        format!("`{word}` is named twice")
    } else {
        format!("`{word}` would run on two workers")
    };
    checker.report(
        Diagnostic::at_value(at.clone(), message).related(Place::Value(first.clone()), "the first"),
    );
}

/// The same by the model's numbers, of which there are so many for ports and functions. `network` and `sides` tell
/// where functions have gone.
pub fn numbered(
    named: &[(Named, usize)],
    (ports, functions): (usize, usize),
    network: &HashMap<usize, usize>,
    sides: &HashMap<usize, (usize, usize)>,
) -> Runs {
    let mut runs = Runs {
        ports: vec![None; ports],
        functions: vec![None; functions],
    };
    for &(named, worker) in named {
        let place = match named {
            Named::Port(port) => runs.ports.get_mut(port),
            Named::Function(function) => network
                .get(&function)
                .and_then(|at| runs.functions.get_mut(*at)),
            Named::Side(function, side) => sides.get(&function).and_then(|(inside, outside)| {
                let port = if side == 0 { *inside } else { *outside };
                runs.ports.get_mut(port)
            }),
        };
        if let Some(place) = place {
            *place = Some(worker);
        }
    }
    runs
}
