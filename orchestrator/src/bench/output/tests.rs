//! Every form of a whole result, made by all methods on simulated devices.

use std::collections::BTreeMap;

use clap::ValueEnum;

use super::host::{Host, now};
use super::record::{Case, Comparison, FORMAT, Quality, Results, TargetRecord, TrafficRecord};
use super::*;
use crate::bench::method::sim::Device;
use crate::bench::method::{Effort, Method, Runner, Settings, run};
use crate::bench::stats::Estimate;
use crate::bench::trial::Silent;

/// A case of `methods` on a device of so many packets a second.
pub(in crate::bench) fn case(
    name: &str,
    target: &str,
    frame: f64,
    capacity: f64,
    methods: &[Method],
) -> Case {
    let settings = Settings::new(Effort::Quick, methods);
    let mut device = Device::new(capacity);
    let mut runner = Runner::new(&mut device, &settings, &Silent);
    let mut results = Vec::new();
    run(&mut runner, &mut results).expect("results");
    Case {
        name: name.into(),
        target: TargetRecord {
            name: target.into(),
            description: "a simulated device".into(),
            chain_length: target.rsplit('-').next().and_then(|n| n.parse().ok()),
            endpoints: vec!["a.sock".into(), "b.sock".into()],
            settings: BTreeMap::from([("queues".into(), "1".into())]),
        },
        traffic: TrafficRecord {
            description: format!("{frame} B, 1 flow, both ways"),
            frame_bytes: frame,
            flows: 1,
            directions: 2,
            ..TrafficRecord::default()
        },
        trials: runner.trials,
        settings,
        results,
        error: None,
    }
}

/// All methods on one device, and rates of others.
pub(in crate::bench) fn sample() -> Results {
    use Method::*;
    let all = Method::value_variants();
    let rates = [Mrr, Ndr, Pdr];
    let mut cases = vec![case("forward <64 B>, \"all\"", "chain-1", 64.0, 5.2e6, all)];
    for (size, capacity) in [(128.0, 5e6), (512.0, 4.1e6), (1518.0, 2.2e6)] {
        cases.push(case(
            &format!("forward {size} B"),
            "chain-1",
            size,
            capacity,
            &rates,
        ));
    }
    for (length, capacity) in [(2, 4.1e6), (4, 3.3e6), (8, 2.1e6)] {
        let target = format!("chain-{length}");
        cases.push(case(&target, &target, 64.0, capacity, &rates));
    }
    let rounds = vec![(5.2e6, 3.9e6), (5.0e6, 3.8e6), (5.3e6, 4.1e6)];
    Results {
        chainplane_bench: FORMAT,
        started: now(),
        resumed: Vec::new(),
        elapsed_s: 12.5,
        partial: true,
        command: vec!["chainplane".into(), "bench".into(), "<x>".into()],
        host: Host::here(),
        comparisons: vec![Comparison {
            name: "forward".into(),
            a: "chain-1".into(),
            b: "testpmd".into(),
            measure: "mrr".into(),
            traffic: cases[0].traffic.clone(),
            ratio: Estimate::of_ratios(&rounds),
            rounds,
            at_least: Some(1.3),
            reached: Some(false),
            quality: Quality::default(),
        }],
        cases,
    }
}

#[test]
fn json_comes_back_the_same_and_fits_its_schema() {
    let results = sample();
    let text = json(&results);
    let read: Results = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(text::results(&read), text::results(&results));
    let schema: serde_json::Value = serde_json::from_str(&schema()).expect("a schema");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let faults = conform::faults(&schema, &value);
    assert!(faults.is_empty(), "{faults:#?}");
    let mut wrong = value.clone();
    wrong["cases"][0]["trials"][0]["loss-ratio"] = "much".into();
    wrong["host"]
        .as_object_mut()
        .expect("an object")
        .remove("kernel");
    assert_eq!(conform::faults(&schema, &wrong).len(), 2);
}

#[test]
fn the_page_loads_nothing_and_holds_everything() {
    let page = html::page(&sample());
    for outside in [
        "http:", "https:", "src=", "href=", "@import", "url(", "<script", "<link",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    for inside in [
        "prefers-color-scheme: dark",
        "PDR by frame size",
        "PDR by chain length",
        "Cycles a packet by chain length",
        "Latency: forward &lt;64 B&gt;",
        "Frame loss:",
        "kernel",
        "RFC 9971",
        "RFC 9004",
        "partial",
        "&quot;all&quot;",
        "Trials",
        "back-to-back",
        "connections",
        "Long runs",
        "jumps of the clock above 20",
    ] {
        assert!(page.contains(inside), "{inside} is missing");
    }
    let count = |tag: &str| page.matches(tag).count();
    for tag in ["table", "svg", "figure", "dl", "details", "div", "tr", "td"] {
        let open = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
        assert_eq!(open, count(&format!("</{tag}>")), "{tag}");
    }
    assert!(!page.contains("NaN") && !page.contains(">inf"));
}

#[test]
fn text_fits_a_terminal() {
    let text = text::results(&sample());
    for line in text.lines() {
        assert!(
            line.chars().count() <= 80,
            "{}: {line}",
            line.chars().count()
        );
    }
    for inside in [
        "MRR",
        "NDR",
        "PDR",
        "p99.99",
        "NOT reached",
        "partial",
        "recovery",
        "% of the NDR, 0 % lost in 60 slices",
        "jumps of the clock: 0 above 20 µs",
    ] {
        assert!(text.contains(inside), "{inside} is missing in\n{text}");
    }
}

#[test]
fn csv_has_as_many_fields_in_every_line() {
    let text = csv::csv(&sample());
    let fields = |line: &str| {
        let mut quoted = false;
        line.chars()
            .filter(|&c| {
                quoted ^= c == '"';
                c == ',' && !quoted
            })
            .count()
    };
    let header = fields(text.lines().next().expect("a header"));
    assert!(text.lines().count() > 30);
    for line in text.lines() {
        assert_eq!(fields(line), header, "{line}");
    }
}

#[test]
fn tables_for_a_page_have_as_many_cells_in_every_row() {
    let text = markdown::tables(&sample());
    let mut columns = 0;
    for line in text.lines() {
        let bars = line.replace("\\|", "").matches('|').count();
        if bars == 0 {
            columns = 0;
        } else if columns == 0 {
            columns = bars;
        }
        assert_eq!(bars, columns, "{line}");
    }
    for inside in ["| forward 128 B |", "1.31", "p99.99", "NDR"] {
        assert!(text.contains(inside), "{inside} is missing in\n{text}");
    }
}

#[test]
fn the_picture_is_one_svg() {
    let svg = picture::svg(&sample());
    assert!(svg.starts_with("<svg xmlns") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("class=\"bar\"").count(), 7);
    assert!(svg.contains("&lt;64 B&gt;"));
    // Nothing measured is a picture too.
    let mut empty = sample();
    empty.cases.clear();
    assert!(!picture::svg(&empty).contains("NaN"));
}

/// As much of JSON Schema as schemars writes for results.
mod conform {
    use serde_json::Value;

    /// Where `value` does not fit `schema`.
    pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        check(schema, schema, value, "$", &mut faults);
        faults
    }

    fn check(root: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        if let Some(name) = schema["$ref"].as_str() {
            let target = root
                .pointer(name.trim_start_matches('#'))
                .expect("a definition");
            return check(root, target, value, at, faults);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[key].as_array() {
                let fits = |choice: &&Value| {
                    let mut inner = Vec::new();
                    check(root, choice, value, at, &mut inner);
                    inner.is_empty()
                };
                if !choices.iter().any(|choice| fits(&choice)) {
                    faults.push(format!("{at}: fits none of {key}"));
                }
            }
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !types.is_empty() && !types.iter().any(|kind| is(kind, value)) {
            faults.push(format!("{at}: {value} is not {types:?}"));
            return;
        }
        if let Some(choices) = schema["enum"]
            .as_array()
            .filter(|choices| !choices.contains(value))
        {
            faults.push(format!("{at}: {value} is none of {choices:?}"));
        }
        members(root, schema, value, at, faults);
    }

    fn members(root: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        if let (Some(object), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
            for (key, inner) in object {
                match known.get(key) {
                    Some(schema) => check(root, schema, inner, &format!("{at}.{key}"), faults),
                    None => faults.push(format!("{at}: {key} is not described")),
                }
            }
            for key in schema["required"].as_array().into_iter().flatten() {
                if !object.contains_key(key.as_str().expect("a name")) {
                    faults.push(format!("{at}: {key} is missing"));
                }
            }
        }
        let items = value.as_array().into_iter().flatten();
        for (index, inner) in items.enumerate() {
            let schema = schema["prefixItems"].get(index).unwrap_or(&schema["items"]);
            if schema.is_object() {
                check(root, schema, inner, &format!("{at}[{index}]"), faults);
            }
        }
    }

    fn is(kind: &str, value: &Value) -> bool {
        match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            _ => false,
        }
    }
}
