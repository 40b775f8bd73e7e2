//! Files as large as are read, made to cost time: each gets an answer. (A check whose cost grows
//! with the square of its input would show here as a test that does not end.)

use std::fmt::Write as _;
use std::path::Path;

use chainplane::spec::{self, Environment};

const HEAD: &str =
    "version: 1\nports: { a: { tap: { interface: t } }, b: { tap: { interface: u } } }\n";

/// What is said about `text`; it is wrong, and not for its size in bytes.
fn said(text: &str) -> String {
    assert!(text.len() <= 1 << 20, "{} bytes", text.len());
    let environment = Environment {
        cores: vec![0],
        socket_directory: "/run/chainplane".into(),
    };
    let report = spec::parse(text, Path::new("large.yaml"), &environment).expect_err("an error");
    report.render(false)
}

/// `count` pieces, each made from its number.
fn many(count: usize, mut piece: impl FnMut(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut all, n| {
        let _ = write!(all, "{}", piece(n));
        all
    })
}

#[test]
fn more_ports_than_are_read() {
    let ports = many(1025, |n| {
        format!("  p{n}: {{ tap: {{ interface: t{n} }} }}\n")
    });
    let text = format!("version: 1\nports:\n{ports}chains: {{ x: [p0, p1] }}\n");
    assert!(said(&text).contains("more than 1024 entries"));
}

#[test]
fn chains_of_unknown_words() {
    let words = many(63, |n| format!("webserver{n}, "));
    let ports = many(1024, |n| {
        format!("  webserver-{n}: {{ tap: {{ interface: t{n} }} }}\n")
    });
    let chains = many(1024, |n| format!("  c{n}: [{words}x]\n"));
    let text = format!("version: 1\nports:\n{ports}chains:\n{chains}");
    assert!(said(&text).contains("unknown function `webserver1`"));
}

#[test]
fn a_chain_of_many_words() {
    let words = many(40_000, |n| format!("w{n}, "));
    let text = format!("{HEAD}chains: {{ x: [a, {words} b] }}\n");
    assert!(said(&text).contains("more than 64 words"));
}

#[test]
fn unknown_keys_and_wrong_values() {
    let keys = many(30_000, |n| format!("key{n}: 1, "));
    let text = format!("{HEAD}workers: [{{ {keys} }}]\nchains: {{ x: [a, b] }}\n");
    assert!(said(&text).contains("unknown key `key0`"));
    let rules = many(10_000, |n| {
        format!("        - {{ allow: tcp{n}, ports: http }}\n")
    });
    let firewall = "firewall:\n      default: { outbound: allow, inbound: drop }\n      rules:\n";
    let chains = "chains: { x: [a, edge, b] }\n";
    let text = format!("{HEAD}functions:\n  edge:\n    {firewall}{rules}{chains}");
    assert!(said(&text).contains("`tcp0`"));
    let functions = many(1024, |n| {
        format!("  f{n}: {{ firewall: {{ default: 1, rule: [] }} }}\n")
    });
    let text = format!("{HEAD}functions:\n{functions}{chains}");
    assert!(said(&text).contains("unknown key `rule`"));
}

#[test]
fn addresses_and_interfaces_without_end() {
    let address = |n: usize| format!("10.{}.{}.{}, ", n >> 16 & 255, n >> 8 & 255, n & 255);
    let pool = many(20_000, address);
    let functions = format!("functions: {{ n: {{ nat: {{ pool: [{pool}] }} }} }}\n");
    let text = format!("{HEAD}{functions}chains: {{ x: [a, n, b] }}\n");
    assert!(said(&text).contains("is the most"));
    let interfaces = many(10_000, |n| {
        let (high, low) = (n >> 6, (n & 63) << 2 | 1);
        format!(
            "          i{n}: {{ address: 10.{}.{}.{low}/30 }}\n",
            high >> 8,
            high & 255
        )
    });
    let router = format!("functions:\n  core:\n    router:\n      interfaces:\n{interfaces}");
    let chains = many(1000, |n| format!("  c{n}: [core, core.j{n}]\n"));
    let text = format!("{HEAD}{router}chains:\n{chains}");
    assert!(said(&text).contains("`core` needs an interface here"));
}

#[test]
fn one_long_line_and_much_white_space() {
    let text = format!("{HEAD}chains: {{ x: [a, {}b] }}", " ".repeat(1_000_000));
    assert_eq!(spec_errors(&text), 0);
    let text = format!("{HEAD}chains: {{ x: [a, {}c] }}", " ".repeat(1_000_000));
    assert!(said(&text).contains("unknown port `c`"));
    let text = format!("{HEAD}chains:\n  x: [a, \"{}\"]", "z".repeat(1_000_000));
    assert!(said(&text).len() < 2000);
}

fn spec_errors(text: &str) -> usize {
    let environment = Environment {
        cores: vec![0],
        socket_directory: "/run/chainplane".into(),
    };
    match spec::parse(text, Path::new("large.yaml"), &environment) {
        Ok(_) => 0,
        Err(report) => report.diagnostics().len(),
    }
}

#[test]
fn aliases_of_aliases() {
    let list = many(900, |_| "*f, ".into());
    let uses = many(100, |n| format!("  c{n}: [{list}]\n"));
    let text = format!("{HEAD}flows: &f {{ table: 1 }}\nchains:\n  x: [a, b]\n{uses}");
    said(&text);
    let nested = many(40, |n| format!("  c{}: &c{} [*c{n}]\n", n + 1, n + 1));
    let text = format!("{HEAD}chains:\n  x: [a, b]\n  c0: &c0 [a, b]\n{nested}");
    said(&text);
}
