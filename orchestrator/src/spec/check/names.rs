//! Names: what they may be made of, and that each means one thing.

use super::Checker;
use crate::diagnostic::{Diagnostic, Place, YamlPath};
use crate::yaml_path;

/// Longest name, in bytes.
const LONGEST: usize = 32;

/// Checks the names of ports, functions and chains. (Those of interfaces are checked by their
/// function.)
pub fn check(checker: &mut Checker<'_>) {
    let spec = checker.spec;
    for (name, _) in &spec.ports {
        one(checker, name, yaml_path!["ports", name]);
    }
    for (name, _) in &spec.functions {
        one(checker, name, yaml_path!["functions", name]);
        if spec.ports.iter().any(|(port, _)| port == name) {
            checker.report(
                Diagnostic::at_key(
                    yaml_path!["functions", name],
                    format!("`{name}` is the name of a port too"),
                )
                .related(Place::Key(yaml_path!["ports", name]), "the port")
                .help("ports and functions share one space of names"),
            );
        }
    }
    for (name, _) in &spec.chains {
        one(checker, name, yaml_path!["chains", name]);
    }
}

fn one(checker: &mut Checker<'_>, name: &str, at: YamlPath) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(allowed) || name.starts_with('-') {
        checker.report(
            Diagnostic::at_key(at, format!("`{name}` can't be a name"))
                .help("names are made of the letters a to z, digits, `-` and `_`"),
        );
    } else if name.len() > LONGEST {
        let message = format!("a name of {} characters; {LONGEST} is the most", name.len());
        checker.report(Diagnostic::at_key(at, message));
    }
}
