//! What can be sent, through what rewrites it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{bench, chain, text};

const FLAGS: [&str; 9] = [
    "--method",
    "mrr",
    "--trial",
    "50ms",
    "--mrr-trials",
    "2",
    "--warm-up",
    "20ms",
    "--json=-",
];

/// The only case of a run.
fn case(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &FLAGS].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    json["cases"][0].clone()
}

/// In every trial packets came both ways, and none that it should not have been.
fn assert_right(case: &Value) {
    let trials = case["trials"].as_array().expect("trials");
    assert!(!trials.is_empty());
    for trial in trials {
        let directions = trial["directions"].as_array().expect("directions");
        assert_eq!(directions.len(), 2);
        for counts in directions {
            assert!(counts["received"].as_u64() > Some(0), "{counts}");
            for wrong in ["mistranslated", "corrupted", "duplicated", "unexpected"] {
                assert_eq!(counts[wrong], 0, "{counts}");
            }
        }
    }
}

#[test]
fn a_capture_file_is_replayed_with_other_addresses() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = chain(directory.path(), "allow").display().to_string();
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/sample.pcap");
    let output = bench(
        &[
            &[
                "--config",
                &file,
                "--replay",
                &capture.display().to_string(),
            ],
            &FLAGS[..],
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let case = &json["cases"][0];
    // A DNS query, two connections; the ping has neither ports nor a place for a stamp.
    assert_eq!(case["traffic"]["flows"], 3, "{}", case["traffic"]);
    let described = case["traffic"]["description"].as_str().expect("a text");
    assert!(
        described.contains("sample.pcap again and again"),
        "{described}"
    );
    let counts = &case["trials"][0]["directions"][0];
    assert!(counts["received"].as_u64() > Some(0), "{counts}");
    assert_eq!(counts["corrupted"], 0, "{counts}");
}

#[test]
fn mixed_traffic_passes() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = chain(directory.path(), "allow").display().to_string();
    let case = case(&[
        "--config",
        &file,
        "--frame",
        "imix",
        "--flows",
        "200",
        "--zipf",
        "1.1",
        "--ip",
        "mixed",
        "--transport",
        "mixed",
        "--new-flows",
        "500",
    ]);
    assert_right(&case);
    let described = case["traffic"]["description"].as_str().expect("a text");
    for words in [
        "TCP and UDP",
        "IPv4 and IPv6",
        "Zipf 1.1",
        "94:7,594:4,1514:1",
        "500 new",
    ] {
        assert!(described.contains(words), "no {words} in {described}");
    }
}

/// Answers go to where translated packets came from, and come back to who asked: each is checked.
#[test]
fn what_a_nat_and_a_load_balancer_rewrite_is_checked() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("nat.yaml");
    let config = |functions: &str, chains: &str| {
        let yaml = format!(
            "version: 1\nports: {{ a: {{ vhost-user: {{ socket: a.sock }} }}, b: {{ vhost-user: {{ socket: b.sock }} }} }}\n\
             functions: {{ {functions} }}\nchains: {{ {chains} }}\n"
        );
        fs::write(&file, yaml).expect("written");
        file.display().to_string()
    };
    let nat = config(
        "egress: { nat: { pool: 203.0.113.2, inside: [10.0.0.0/8] } }",
        "x: [a, egress, b]",
    );
    let translated = case(&["--config", &nat, "--flows", "100"]);
    assert_right(&translated);
    assert_eq!(translated["traffic"]["frame-bytes"], 64.0);
    let farm = "core: { router: { interfaces: { in: { address: 10.0.0.1/24 }, out: { address: 198.51.100.1/24 } } } }, \
                front: { load-balancer: { address: \"203.0.113.10:80/tcp\", backends: \
                [{ address: 10.0.0.2 }, { address: 10.0.0.3 }] } }";
    let file = config(farm, "in: [a, core.in], out: [core.out, front, b]");
    let balanced = case(&["--config", &file, "--flows", "100"]);
    assert_right(&balanced);
    // The service is TCP's, and asked from outside.
    assert_eq!(balanced["traffic"]["frame-bytes"], 74.0);
    let inside = &balanced["target"]["endpoints"][0];
    assert!(
        inside.as_str().is_some_and(|name| name.starts_with("b ")),
        "{inside}"
    );
}
