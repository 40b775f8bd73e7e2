//! Every file of `configs/` loads, and damaged ones never do harm.

use std::path::{Path, PathBuf};
use std::{env, fs};

use chainplane::bench;
use chainplane::plan::Plan;
use chainplane::spec::model::{Endpoint, Model};
use chainplane::spec::{self, Environment, schema};
use etherparse::PacketBuilder;
use proptest::prelude::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn environment() -> Environment {
    Environment {
        cores: vec![0, 1],
        socket_directory: "/run/chainplane".into(),
    }
}

fn configs() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("configs")).expect("configs/");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files
        .filter(|f| f.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

fn load(name: &str) -> Model {
    let file = root().join("configs").join(name);
    spec::load(&file, &environment()).unwrap_or_else(|report| panic!("{}", report.render(false)))
}

#[test]
fn every_config_loads_and_says_how_to_run_it() {
    let files = configs();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let model = load(&name);
        assert!(!model.paths.is_empty(), "{name}");
        if let Err(errors) = Plan::new(&model) {
            panic!("{name}: {errors:?}");
        }
        let text = fs::read_to_string(&file).expect("text");
        let command = format!("chainplane run configs/{name}");
        assert!(text.starts_with("# ") && text.contains(&command), "{name}");
    }
}

#[test]
fn a_guest_function_cuts_its_chain_in_two() {
    let model = load("guest-function.yaml");
    let names: Vec<_> = model.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["desk", "uplink", "ids.inside", "ids.outside"]);
    let [first, second] = &model.paths[..] else {
        panic!("{:?}", model.paths)
    };
    assert_eq!(
        (first.left, first.right),
        (Endpoint::Port(0), Endpoint::Port(2))
    );
    assert_eq!(
        (second.left, second.right),
        (Endpoint::Port(3), Endpoint::Port(1))
    );
    assert_eq!((first.part, second.part), (0, 1));
    assert!(first.stages.is_empty());
    let stage = &model.functions[second.stages[0]];
    assert_eq!(stage.name, "edge");
}

#[test]
fn an_anchor_shares_text_and_makes_functions_of_their_own() {
    let model = load("tenants.yaml");
    let guards = model
        .functions
        .iter()
        .filter(|f| f.name.starts_with("guard-"));
    assert_eq!(guards.count(), 3);
    let stages: Vec<_> = model.paths.iter().flat_map(|path| &path.stages).collect();
    assert_eq!(stages.len(), 3);
    assert!(
        stages
            .iter()
            .all(|s| stages.iter().filter(|t| s == *t).count() == 1)
    );
}

#[test]
fn the_demo_resolves_as_drawn() {
    let model = load("demo.yaml");
    assert_eq!(model.workers.len(), 1);
    assert_eq!(model.control.path, Path::new("/run/chainplane/demo.sock"));
    let wan = model.paths.iter().find(|p| p.chain == "wan").expect("wan");
    let stages: Vec<_> = wan
        .stages
        .iter()
        .map(|&s| model.functions[s].name.as_str())
        .collect();
    assert_eq!(stages, ["frontend", "egress", "edge"]);
    let Endpoint::Junction {
        function,
        interface,
    } = wan.left
    else {
        panic!("{wan:?}")
    };
    assert_eq!(model.functions[function].interfaces[interface], "wan");
}

/// A capture of four packets: see `configs/pcap.yaml`.
fn sample() -> Vec<u8> {
    let ethernet = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = || ethernet().ipv4([10, 0, 0, 5], [192, 0, 2, 80], 64);
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";
    let mut packets = vec![Vec::new(); 4];
    ip().udp(40_000, 53)
        .write(&mut packets[0], query)
        .expect("DNS");
    for (packet, port) in [(1, 80), (2, 23)] {
        let syn = ip().tcp(40_001, port, 1000, 64_240).syn();
        syn.write(&mut packets[packet], b"").expect("SYN");
    }
    let echo = ip().icmpv4_echo_request(7, 1);
    echo.write(&mut packets[3], b"chainplane").expect("echo");

    // Capture file format 2.4, little endian, microseconds, Ethernet.
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4_u32, 2 | 4 << 16, 0, 0, 65_535, 1] {
        file.extend(field.to_le_bytes());
    }
    for (index, packet) in packets.iter().enumerate() {
        let length = u32::try_from(packet.len()).expect("short");
        for field in [1_700_000_000, 10_000 * index as u32, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

/// `UPDATE_EXPECTED=1` writes what is made now.
fn assert_current(file: &str, now: &[u8]) {
    let path = root().join(file);
    if env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, now).expect("written");
    }
    let committed = fs::read(&path).unwrap_or_default();
    assert!(
        committed == now,
        "{file} is not current: run `UPDATE_EXPECTED=1 cargo test -p chainplane --test configs`"
    );
}

#[test]
fn the_sample_capture_is_current() {
    assert_current("configs/sample.pcap", &sample());
}

#[test]
fn the_schema_is_current() {
    assert_current("docs/schema.json", schema::json().as_bytes());
}

#[test]
fn the_schemas_of_measurements_are_current() {
    assert_current("docs/bench-schema.json", bench::output::schema().as_bytes());
    assert_current(
        "docs/bench-suite-schema.json",
        bench::suite::schema().as_bytes(),
    );
}

/// One way to damage a text.
#[derive(Debug, Clone)]
enum Damage {
    Remove(usize, usize),
    Insert(usize, String),
    SwapLines(usize, usize),
    CopyWord(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop_oneof![
        Just("*guard"),
        Just("&a "),
        Just("<<: "),
        Just("- "),
        Just(": "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("\n"),
        Just("  "),
        Just("\t"),
        Just("\""),
        Just("'"),
        Just("!x "),
        Just("---\n"),
        Just("? "),
        Just("| "),
        Just("#"),
        Just("99999999999999999999"),
        Just("-1"),
        Just("null"),
        Just("\u{202e}é"),
        Just("\\"),
        Just("%"),
        Just("1e999"),
    ];
    prop_oneof![
        (any::<usize>(), 1..40_usize).prop_map(|(at, n)| Damage::Remove(at, n)),
        (any::<usize>(), piece).prop_map(|(at, text)| Damage::Insert(at, text.to_owned())),
        (any::<usize>(), ".{0,8}").prop_map(|(at, text)| Damage::Insert(at, text)),
        any::<(usize, usize)>().prop_map(|(a, b)| Damage::SwapLines(a, b)),
        any::<(usize, usize)>().prop_map(|(a, b)| Damage::CopyWord(a, b)),
    ]
}

fn apply(text: &str, damage: &Damage) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let mut lines: Vec<&str> = text.lines().collect();
    let words: Vec<&str> = text.split_inclusive(&[' ', '\n', ',']).collect();
    if chars.is_empty() || lines.is_empty() {
        return text.to_owned();
    }
    match damage {
        Damage::Remove(at, n) => {
            let at = at % chars.len();
            chars.drain(at..(at + n).min(chars.len()));
            chars.into_iter().collect()
        }
        Damage::Insert(at, new) => {
            let at = at % (chars.len() + 1);
            chars.splice(at..at, new.chars());
            chars.into_iter().collect()
        }
        Damage::SwapLines(a, b) => {
            let count = lines.len();
            lines.swap(a % count, b % count);
            lines.join("\n") + "\n"
        }
        Damage::CopyWord(from, to) => {
            let (from, to) = (from % words.len(), to % words.len());
            let mut words = words.clone();
            words[to] = words[from];
            words.concat()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Whatever happens to a file: an answer, no panic, and nothing that drives the terminal.
    #[test]
    fn damaged_configs_are_explained(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let files = configs();
        let file = which.get(&files);
        let mut text = fs::read_to_string(file).expect("text");
        for damage in &damages {
            text = apply(&text, damage);
        }
        if let Err(report) = spec::parse(&text, file, &environment()) {
            prop_assert!(!report.diagnostics().is_empty());
            let said = report.render(false);
            prop_assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
            report.render(true);
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(data in prop::collection::vec(any::<u8>(), 0..200)) {
        spec::fuzz_yaml(&data);
    }

    #[test]
    fn arbitrary_punctuation_does_no_harm(text in r"[-\[\]{}:,&*!|>'%@ \n\ta1?#]{0,80}") {
        spec::fuzz_yaml(text.as_bytes());
    }
}
