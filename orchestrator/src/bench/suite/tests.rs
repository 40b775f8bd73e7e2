//! Suites from text to plan, what is said of wrong ones, and one that runs on a plain loop.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::bench::method::Method;
use crate::bench::output::record::Results;
use crate::bench::trial::{Silent, Target as _};

const GOOD: &str = r#"
version: 1
measuring: { effort: standard, searches: 3, warm-up: 100ms }
generator: { core: 1, ring: 256, packed: true }
targets:
  ours: { config: { file: chain.yaml, between: [a, b], core: 0 } }
  theirs: { attach: { endpoints: [a.sock, "listen:b.sock"], chain-length: 4 } }
  program: { command: { run: [./peer.sh, "{dir}"], endpoints: ["{dir}/a.sock", "{dir}/b.sock"], about: [./peer.sh, --about] } }
traffic:
  sizes: { frame: [64, imix, "64:1,128:1"], flows: [1, 1000] }
  many: { flows: 1000000, spread: { zipf: 1.1 }, transport: mixed, inside: { v4: 10.0.0.2, next-hop-mac: "02:00:00:00:00:01" } }
cases:
  forward: { targets: [ours, theirs], traffic: sizes }
  many: { targets: program, traffic: many, methods: [latency, ndr], measuring: { effort: quick } }
comparisons:
  ratio: { first: ours, second: theirs, traffic: many, rounds: 4, at-least: 1.3 }
"#;

fn said(text: &str) -> String {
    match parse(text, Path::new("suite.yaml")) {
        Ok(_) => "no error".into(),
        Err(report) => report.render(false),
    }
}

#[test]
fn a_file_becomes_a_plan() {
    let plan = parse(GOOD, Path::new("dir/suite.yaml"))
        .unwrap_or_else(|report| panic!("{}", report.render(false)));
    let names: Vec<&str> = plan.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), 2 * 3 * 2 + 1);
    assert_eq!(names[0], "forward, ours, 64 B, 1 flow");
    assert_eq!(names[3], "forward, ours, imix, 1000 flows");
    assert_eq!(names[12], "many");
    let case = &plan.cases[12];
    assert_eq!(case.settings.methods, [Method::Ndr, Method::Latency]);
    // The suite's measuring holds where the case says nothing.
    assert_eq!(
        (case.settings.searches, case.settings.warm_up),
        (3, Duration::from_millis(100))
    );
    assert_eq!(
        case.settings.goals[0].duration_sum,
        Duration::from_millis(1500)
    );
    let traffic = case.traffic.with(None);
    assert_eq!(
        (traffic.flows, traffic.sides[0].v4),
        (1_000_000, "10.0.0.2".parse().unwrap())
    );
    let TargetKind::Config { file, .. } = &plan.cases[0].target.kind else {
        panic!("{:?}", plan.cases[0])
    };
    assert_eq!(file, Path::new("dir/chain.yaml"));
    assert_eq!(
        (plan.comparisons[0].rounds, plan.comparisons[0].at_least),
        (4, Some(1.3))
    );
    assert_eq!(plan.generator.core, Some(1));
    assert!(plan.cost() > Duration::from_mins(10));
}

#[test]
fn a_load_may_be_a_share() {
    let text = GOOD.replace("searches: 3", "load: 70%");
    let text = text.replace("[latency, ndr]", "soak");
    let plan = parse(&text, Path::new("suite.yaml"))
        .unwrap_or_else(|report| panic!("{}", report.render(false)));
    let settings = &plan.cases[12].settings;
    assert_eq!((settings.load, settings.load_share), (None, Some(0.7)));
    // There is something that it is a share of.
    assert_eq!(settings.methods, [Method::Pdr, Method::Soak]);
    assert_eq!(settings.goals.len(), 1);
}

#[test]
fn wrong_files_are_explained_where_they_are_wrong() {
    let cases = [
        (
            GOOD.replace(
                "[ours, theirs], traffic: sizes",
                "[ours, their], traffic: sizes",
            ),
            "13:30",
            "did you mean `theirs`?",
        ),
        (
            GOOD.replace("searches: 3", "searches: 0"),
            "3:42",
            "`0` is not from 1 to 1000",
        ),
        (
            GOOD.replace("searches: 3", "load: 300%"),
            "3:38",
            "`300%` is not from 0.1% to 200%",
        ),
        (
            GOOD.replace("searches: 3", "load: 0"),
            "3:38",
            "`0` is not from 1 to 10000000000",
        ),
        (
            GOOD.replace("searches: 3", "load: much"),
            "3:38",
            "as `70%`",
        ),
        (
            GOOD.replace("warm-up: 100ms", "warm-up: soon"),
            "3:",
            "expected a time as `500ms`",
        ),
        (
            GOOD.replace("ring: 256", "ring: 300"),
            "4:",
            "a power of two",
        ),
        (
            GOOD.replace("flows: 1000000", "flows: 0"),
            "11:",
            "`0` is not from 1 to 10000000",
        ),
        (
            GOOD.replace("frame: [64,", "frame: [20,"),
            "10:",
            "is not from 64 to 9216",
        ),
        (GOOD.replace("imix, ", "imax, "), "10:", "no frame length"),
        (
            GOOD.replace("targets: program", "target: program"),
            "14:",
            "did you mean `targets`?",
        ),
        (
            GOOD.replace("[a.sock, \"listen:b.sock\"]", "[a.sock]"),
            "7:",
            "expected two endpoints, found 1",
        ),
        (
            GOOD.replace("rounds: 4", "measure: latency"),
            "16:",
            "finds no rate",
        ),
        (
            GOOD.replace("methods: [latency, ndr]", "methods: [latncy]"),
            "14:",
            "did you mean `latency`?",
        ),
        (
            GOOD.replace("version: 1", "version: 7"),
            "2:10",
            "not known",
        ),
        (
            "version: 1\ntargets: {}\ntraffic: {}\n".into(),
            "1:1",
            "nothing is measured",
        ),
        ("- a\n".into(), "1:1", "expected a mapping"),
    ];
    for (text, place, words) in cases {
        let said = said(&text);
        assert!(
            said.contains(&format!("suite.yaml:{place}")),
            "no {place} in\n{said}"
        );
        assert!(said.contains(words), "no {words:?} in\n{said}");
        assert!(
            said.lines().all(|line| line.chars().count() <= 80),
            "{said}"
        );
    }
}

#[test]
fn the_example_of_the_manual_is_right() {
    let manual = include_str!("../../../../docs/bench.md");
    let start = manual.find("```yaml\n").expect("an example") + 8;
    let example = manual[start..].split("```").next().expect("its end");
    assert_eq!(said(example), "no error");
}

/// Cases and a comparison, on what needs no other process.
#[test]
fn a_suite_runs() {
    let text = "
version: 1
measuring: { warm-up: 10ms, mrr-trials: 2, mrr-trial: 20ms, limit: 1s }
targets: { one-1: { loop: {} }, one-2: { loop: {} } }
traffic: { small: { frame: [64, 128] } }
cases: { loop: { targets: one-1, traffic: small, methods: mrr } }
comparisons: { same: { first: one-1, second: one-2, traffic: small, rounds: 2, at-least: 1000 } }
";
    let mut plan = parse(text, Path::new("suite.yaml"))
        .unwrap_or_else(|report| panic!("{}", report.render(false)));
    plan.comparisons.truncate(1);
    // Tests share cores.
    plan.generator.core = None;
    plan.generator.polite = true;
    let finished = run(&plan, vec!["test".into()], Part::default(), &Silent);
    assert!(finished.failures.is_empty() && !finished.cancelled && !finished.results.partial);
    let results = finished.results;
    assert_eq!(results.cases.len(), 2);
    assert!(
        results
            .cases
            .iter()
            .all(|case| case.results.len() == 1 && case.trials.len() >= 3)
    );
    // Nothing stands behind a plain loop but the generator, and the report says so.
    let said = crate::bench::output::text::results(&results);
    let marks = results.cases.iter().map(|case| match &case.results[0] {
        crate::bench::output::record::Outcome::Mrr(mrr) => mrr.quality.generator_limited,
        other => panic!("{other:?}"),
    });
    assert_eq!(marks.collect::<Vec<_>>(), [true; 2], "{said}");
    assert!(results.comparisons[0].quality.generator_limited && said.contains("the limit"));
    assert!(results.comparisons[0].rounds.len() >= 2);
    assert!(!finished.reached && results.comparisons[0].reached == Some(false));
}

/// Each run gets one further, what was found stays as it was found, and what is asked for otherwise is measured anew.
#[test]
fn a_suite_goes_on_where_it_ended() {
    let text = "
version: 1
measuring: { warm-up: 5ms, mrr-trials: 1, mrr-trial: 10ms, limit: 1s }
targets: { one-1: { loop: {} }, one-2: { loop: {} } }
traffic: { small: { frame: [64, 128] }, one: { frame: 64 } }
cases: { loop: { targets: one-1, traffic: small, methods: mrr } }
comparisons: { same: { first: one-1, second: one-2, traffic: one, rounds: 2 } }
";
    let mut plan = parse(text, Path::new("suite.yaml"))
        .unwrap_or_else(|report| panic!("{}", report.render(false)));
    (plan.generator.core, plan.generator.polite) = (None, true);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("results.json");
    std::fs::write(&file, "").expect("a file");
    let mut last: Option<Results> = None;
    for left in [2, 1, 0, 0] {
        let part = Part {
            earlier: earlier(&file).expect("results"),
            time: Some(Duration::ZERO),
        };
        let Finished {
            results, left: now, ..
        } = run(&plan, Vec::new(), part, &Silent);
        assert_eq!((now, results.partial), (left, left > 0));
        if let Some(last) = last {
            assert!(
                results.cases.starts_with(&last.cases),
                "{results:#?} after {last:#?}"
            );
            assert_eq!(results.resumed.len(), last.resumed.len() + 1);
            assert_eq!(results.started, last.started);
            assert!(results.elapsed_s >= last.elapsed_s);
        }
        std::fs::write(&file, crate::bench::output::json(&results)).expect("written");
        last = Some(results);
    }
    // With other settings it is another case; on another machine as well.
    let last = last.expect("results");
    plan.cases[1].settings.mrr_trials = 2;
    let again = |earlier: &Results| {
        let part = Part {
            earlier: Some(earlier.clone()),
            time: None,
        };
        run(&plan, Vec::new(), part, &Silent).results
    };
    let changed = again(&last);
    assert_eq!(changed.cases[0], last.cases[0]);
    assert_ne!(changed.cases[1], last.cases[1]);
    let mut elsewhere = last.clone();
    elsewhere.host.cpu.push('x');
    let anew = again(&elsewhere);
    assert_ne!(anew.cases[0].trials, last.cases[0].trials);
    assert!(anew.resumed.is_empty());
    std::fs::write(&file, "{}").expect("written");
    assert!(
        earlier(&file)
            .expect_err("no results")
            .contains("holds no results")
    );
}

fn command(run: &[&str], endpoints: [&str; 2]) -> TargetPlan {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    TargetPlan {
        name: "program".into(),
        chain_length: None,
        kind: TargetKind::Command {
            run: words(run),
            endpoints: endpoints.map(str::to_owned),
            about: words(&["sh", "-c", "echo 'version: 7'"]),
            directory: ".".into(),
            patience: Duration::from_secs(2),
            guest: file::Generator::default(),
        },
    }
}

#[test]
fn a_program_that_ends_says_why() {
    let plan = command(
        &["sh", "-c", "echo no huge pages; exit 3"],
        ["{dir}/a", "{dir}/b"],
    );
    let Err(error) = open(
        &plan,
        crate::bench::trial::GeneratorOptions::default(),
        &Silent,
    ) else {
        panic!("it came up");
    };
    let error = error.to_string();
    assert!(
        error.contains("exit status: 3") && error.contains("no huge pages"),
        "{error}"
    );
}

/// A program that others started is ended with all its children.
#[test]
fn a_program_is_ended() {
    let loopback = crate::bench::loopback::Loopback::start(1, None).expect("a back end");
    let ends = loopback
        .endpoints(256)
        .map(|end| end.to_string().replace("vhost-user client ", ""));
    let plan = command(
        &["sh", "-c", "sleep 1000 & echo $! > {dir}/child; wait"],
        [&ends[0], &ends[1]],
    );
    let options = crate::bench::trial::GeneratorOptions {
        core: None,
        polite: true,
    };
    let open = open(&plan, options, &Silent).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(open.record().settings["version"], "7");
    assert!(open.describe().name.starts_with("sh -c"));
    let child = open.directory().expect("its directory").join("child");
    // Another process writes it in its own time.
    let number = || {
        std::fs::read_to_string(&child)
            .ok()
            .filter(|text| text.ends_with('\n'))
    };
    let child = (0..200)
        .find_map(|_| {
            number().or_else(|| {
                std::thread::sleep(Duration::from_millis(20));
                None
            })
        })
        .expect("the child's number");
    drop(open);
    let status = format!("/proc/{}/stat", child.trim());
    let is_gone = || std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "));
    assert!((0..100).any(|_| is_gone() || {
        std::thread::sleep(Duration::from_millis(20));
        false
    }));
}

/// A comparison's targets get the same packets: what one of them needs, the other gets as well.
#[test]
fn both_targets_of_a_comparison_get_the_same_traffic() {
    use crate::bench::traffic::{Sizes, Transports};
    let directory = tempfile::tempdir().unwrap();
    let config = |name: &str, functions: &str, chain: &str| {
        let file = directory.path().join(name);
        let text = format!(
            "version: 1\nports: {{ a: {{ vhost-user: {{ socket: a }} }}, b: {{ vhost-user: {{ socket: b }} }} }}\n\
             functions: {{ {functions} }}\nchains: {{ x: {chain} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        TargetPlan {
            name: name.into(),
            chain_length: None,
            kind: TargetKind::Config {
                file,
                between: None,
                core: None,
                guest: file::Generator::default(),
            },
        }
    };
    let plain = config("plain.yaml", "", "[a, b]");
    let served = config(
        "served.yaml",
        "wall: { firewall: { default: { outbound: drop, inbound: drop }, rules: [{ allow: tcp }] } }",
        "[a, wall, b]",
    );
    let known = [open::derived(&plain), open::derived(&served)];
    let [Some(plain), Some(served)] = &known else {
        panic!("{known:?}")
    };
    let (_, traffic) = file::Traffic::default().sweep(Path::new("")).swap_remove(0);
    assert_eq!(traffic.with(Some(plain)).sizes, Sizes::Fixed(64));
    let alike = plan::alike(&traffic, [Some(plain), Some(served)]);
    for known in [plain, served] {
        let traffic = alike.with(Some(known));
        assert_eq!(
            (traffic.transport, traffic.sizes),
            (Transports::Tcp, Sizes::Fixed(74))
        );
    }
}

/// Short frames of a mix grow where the headers need it; a single length is what was asked for.
#[test]
fn mixes_hold_any_headers() {
    use crate::bench::traffic::Sizes;
    let mixed = |frame: &str| {
        let text = format!("{{ frame: {frame}, transport: tcp, ip: mixed }}");
        let traffic: file::Traffic = serde_json::from_value(serde_json::json!({
            "frame": frame.parse::<u16>().map_or_else(|_| frame.into(), serde_json::Value::from),
            "transport": "tcp", "ip": "mixed",
        }))
        .unwrap_or_else(|error| panic!("{text}: {error}"));
        traffic
            .sweep(Path::new(""))
            .swap_remove(0)
            .1
            .with(None)
            .sizes
    };
    assert_eq!(
        mixed("imix"),
        Sizes::Mix(vec![(94, 7), (594, 4), (1514, 1)])
    );
    assert_eq!(mixed("64"), Sizes::Fixed(64));
}
